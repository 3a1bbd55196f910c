"""An agent taken step by step: its next proposal without what follows from it, and its state at an earlier moment.

Owns the order of those steps. What is proposed here waits in the log for whoever validates and executes it: the
caller (``validate_action``, ``execute_action``), or the agent's next ``run``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from logact import agent_tuning
from logact.agent_parts import running
from logact.agent_results import AgentState
from logact.core.state import RunState, State
from logact.core.views import LogEntry
from logact.errors import UsageError
from logact.introspection.history import history

if TYPE_CHECKING:
    from logact.agent import LogActAgent


async def next_action(agent: LogActAgent) -> LogEntry | None:
    """The proposal that a run under way goes on with: one that waits already, or the model's next; None: no run."""
    async with agent._playing() as parts:
        run = _under_way(await parts.host.tail.catch_up(), agent.agent_id)
        if run is None:
            return None
        model, _ = agent_tuning.model_of(agent, run.id)
        if not _waiting(parts.host.state, run.id):
            driver = parts.driver(model, stepwise=True)
            async with running(driver.drive(run.id), parts.host.tail.follow()):
                await parts.host.tail.until(lambda state: _waiting(state, run.id) or _is_over(state, run.id))
        waiting = _waiting(parts.host.state, run.id)
        return await agent.look(waiting[0]) if waiting else None


async def state_after(agent: LogActAgent, entry: LogEntry | None) -> AgentState:
    """The agent's state, folded from its log: now, or as it was when an action had ended."""
    if entry is None:
        return await agent.state()
    if entry.agent_id != agent.agent_id:
        raise UsageError("This is another agent's action", received=entry.agent_id, expected=agent.agent_id)
    action = (await history(agent.log)).action(entry.position)
    if action is None:
        raise UsageError("The log has no such action", received=str(entry.position), todo="see `logact actions`")
    told = await history(agent.log, action.settled_at or entry.position)
    return state_of(told.state, agent.agent_id)


def state_of(now: State, agent: str) -> AgentState:
    """An agent's part of a fold."""
    mine = {key: run for key, run in now.runs.items() if run.agent == agent}
    return AgentState(
        agent=agent,
        position=now.position,
        epoch=now.epoch(agent),
        runs=mine,
        open_actions={
            key: now.actions[key].status for key in now.open_actions if now.actions[key].intent.agent == agent
        },
        digest=mine[max(mine)].digest if mine else "",
    )


def _under_way(state: State, agent: str) -> RunState | None:
    mine = [one for one in state.runs.values() if one.agent == agent and not one.life]  # an analysis is nobody's task
    runs = [one for one in mine if one.status == "running" and one.context]
    return runs[-1] if runs else None


def _waiting(state: State, run: int) -> list[int]:
    """The run's proposals that nobody has started."""
    open_ones = [state.actions[key] for key in state.open_actions]
    return [one.id for one in open_ones if one.intent.run == run and one.status in ("proposed", "validated")]


def _is_over(state: State, run: int) -> bool:
    return run not in state.runs or state.runs[run].status != "running"
