"""Undoing: what a run (or one action) did is taken back, newest first, as actions of their own.

Each undo is an intent that names what it undoes: voted on, committed, executed by the tool's ``undo``, recorded. It
belongs to a run of its own, so that a stopped run can be undone too. Whatever stands in the way ends the work there,
since an older action must not be undone while a newer one stands: repeat the call, and it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from logact.core.settling import ANSWER
from logact.core.state import Action, State
from logact.entry import Intent, Run
from logact.errors import UsageError
from logact.introspection.history import history

if TYPE_CHECKING:
    from logact.agent import LogActAgent


class UndoReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an undo came to. Numbers are actions' positions.

    ``undone`` in the order in which it was done; ``before`` was undone already; ``left`` was executed and has no undo
    (reads need none); ``open`` is not settled yet; ``stopped_at`` is the action whose undo did not succeed, and
    ``why``.
    """

    of: int
    run: int = 0
    undone: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    open: tuple[int, ...] = ()
    stopped_at: int = 0
    why: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing of what was to be undone stands any more."""
        return not (self.left or self.open or self.stopped_at)

    def in_words(self) -> str:
        """The report in a few lines."""
        lines = [f"Undone: {', '.join(map(str, self.undone))}."] if self.undone else []
        if self.before:
            lines.append(f"Undone before: {', '.join(map(str, self.before))}.")
        if not lines:
            lines.append(
                "Undone: nothing." if not self.complete else "Nothing was done that would have to be undone."
            )
        if self.left:
            lines.append(f"No undo is declared for: {', '.join(map(str, self.left))}.")
        if self.open:
            lines.append(f"Not settled yet: {', '.join(map(str, self.open))}.")
        if self.stopped_at:
            lines.append(f"Stopped at {self.stopped_at}: {self.why}.")
        return "\n".join(lines)


class UndoPlan(msgspec.Struct, frozen=True):
    """What is to be undone, newest first, what is undone already, what cannot be, and what is not settled."""

    undo: tuple[int, ...]
    before: tuple[int, ...]
    left: tuple[int, ...]
    open: tuple[int, ...]


def plan(state: State, position: int, agent: str) -> UndoPlan:
    """What undoing a run or an action means, from a fold that keeps every action. Raises UsageError."""
    action = state.actions.get(position)
    if action is None and position not in state.runs:
        raise UsageError(
            "There is no run or action at this position", received=str(position), todo="see `logact actions LOG`"
        )
    whose = action.intent.agent if action is not None else state.runs[position].agent
    if whose != agent:
        raise UsageError("It belongs to another agent", received=whose, expected=agent)
    if action is not None and action.status not in ("executed", "undone"):
        raise UsageError(
            f"Action {position} cannot be undone", received=action.status, expected="an action that was executed"
        )
    chosen = [action] if action is not None else [one for one in state.actions.values() if one.intent.run == position]
    done = [one for one in chosen if one.status == "executed" and _changes(one)]
    done.sort(key=lambda one: one.settled_at, reverse=True)
    return UndoPlan(
        undo=tuple(one.id for one in done if one.intent.undo),
        before=tuple(one.id for one in chosen if one.status == "undone" and _changes(one)),
        left=tuple(one.id for one in done if not one.intent.undo),
        open=tuple(one.id for one in chosen if one.is_open and _changes(one)),
    )


def refusal(agent: LogActAgent, action: Action) -> str:
    """Why an action could not be taken back once it is settled as having happened ("" if it could)."""
    if action.intent.agent != agent.agent_id:
        return f"it belongs to the agent {action.intent.agent}"
    if action.intent.undoes:
        return f"it is itself the undo of action {action.intent.undoes}"
    tool = agent.tools.get(action.intent.tool)
    if not action.intent.undo or tool is None or not tool.has_undo:
        return f"the tool {action.intent.tool!r} has no undo"
    return ""


def _changes(action: Action) -> bool:
    return action.intent.effect != "read" and action.intent.tool != ANSWER and not action.intent.undoes


async def undo(agent: LogActAgent, position: int) -> UndoReport:
    """Undo what a run or an action did. Raises UsageError, and InDoubt for what only a person can settle."""
    async with agent._playing() as parts:
        host = parts.host
        await agent.recover_from_failure()
        told = await history(agent.log)
        todo = plan(told.state, position, agent.agent_id)
        run = 0
        undone: list[int] = []
        for target in todo.undo:
            key = host.state.undoing.get(target, 0)
            if not key:
                if not run:
                    begin = Run(
                        agent=agent.agent_id,
                        title=f"undo of {position}",
                        parent=_run_of(told.state, position),
                        ends_with_life=True,
                    )
                    run = (await host.append([host.entry(begin, "client")])).position
                done = await host.full_intent(told.state.actions[target])
                key = await _propose(agent, run, target, done)
            why = await _carry_out(agent, key)
            if why:
                return UndoReport(
                    of=position,
                    run=run,
                    undone=tuple(undone),
                    before=todo.before,
                    left=todo.left,
                    open=todo.open,
                    stopped_at=target,
                    why=why,
                )
            undone.append(target)
        return UndoReport(
            of=position, run=run, undone=tuple(undone), before=todo.before, left=todo.left, open=todo.open
        )


def _run_of(state: State, position: int) -> int:
    action = state.actions.get(position)
    return action.intent.run if action is not None else position


async def _propose(agent: LogActAgent, run: int, target: int, done: Intent) -> int:
    async with agent._playing() as parts:
        host = parts.host
        intent = parts.proposer.intent_for_undo(host.state.runs[run], target, done)
        small, blobs = parts.proposer.outsourced(intent)
        appended = await host.append([host.about(intent, small, "driver", agent.agent_id)], blobs=blobs)
        if appended.position not in host.state.actions:
            raise UsageError("The undo was not taken up", received=host.state.verdict, expected=f"action {target}")
        return appended.position


async def _carry_out(agent: LogActAgent, key: int) -> str:
    """Have one undo judged and executed, with the agent's retries; why it did not succeed ("": it did)."""
    entry = await agent.look(key)
    if entry.status == "proposed":
        judged = await agent.validate_action(entry)
        if not judged.approved:
            return f"it was not committed: {judged.reason}"
    if (await agent.look(key)).status == "validated":
        done = await agent.execute_action(entry)
        if not done.success and done.failure is None:
            return done.error
    last = await agent.look(key)
    if last.status == "failed" and agent.recovery is not None:
        last = await agent.recovery.recover(last, agent)
    if last.status == "executed":
        return ""
    how = {"failed": "failed", "failed_final": "failed for good"}.get(
        last.status, f"is {last.status.replace('_', ' ')}"
    )
    return f"its undo {how}: {last.error.message if last.error is not None else last.reason}"
