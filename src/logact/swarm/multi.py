"""``MultiAgentLogAct``: several agents with loops of their own, coordinated by the order of the shared log.

One agent proposes, others follow its proposal up, everything is judged, and what was approved is done in the order of
the log. The log decides that order; this module only asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import msgspec

from logact.agent import LogActAgent
from logact.agent_results import ExecutionResult
from logact.core.views import Action, LogEntry
from logact.errors import UsageError
from logact.logs.base import SharedLog


class Initial(Protocol):
    """A task as ``coordinate_task`` needs it."""

    def initial_action(self) -> Action:
        """What the first agent proposes."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task that begins with an action. Under a ``key`` it is proposed once, however often it is begun."""

    action: Action
    key: str = ""

    def initial_action(self) -> Action:
        """What the first agent proposes."""
        return self.action


class MultiAgentLogAct:
    """Agents that share one log. An agent follows up if its class defines ``should_follow_up(entry)`` and
    ``follow_up_action(entry)``.
    """

    def __init__(self, agents: Sequence[LogActAgent], shared_log: SharedLog) -> None:
        if not agents:
            raise UsageError(
                "A task needs at least one agent", received="none", todo="MultiAgentLogAct([agent], log)"
            )
        self.agents = list(agents)
        self.log = shared_log

    def find_agent(self, agent_id: str) -> LogActAgent | None:
        """The agent of this name, if it is one of these."""
        return next((agent for agent in self.agents if agent.agent_id == agent_id), None)

    async def coordinate_task(self, task: Initial) -> list[ExecutionResult]:
        """Propose, follow up, validate, execute in the log's order. What came of each action, in that order.

        What was refused is among the results, as not successful. Raises InDoubt if nobody can tell what happened.
        """
        async with AsyncExitStack() as stack:
            for agent in self.agents:
                await stack.enter_async_context(agent)
            first = await self._propose(self.agents[0], task.initial_action(), task)
            mine = [first]
            for agent in self.agents[1:]:
                wanted = getattr(agent, "should_follow_up", None)
                if wanted is not None and wanted(first):
                    action: Action = agent.follow_up_action(first)  # type: ignore[attr-defined]
                    mine.append(await self._propose(agent, action, task))
            results: dict[int, ExecutionResult] = {}
            for entry in await self.log.get_proposed():
                found = self.find_agent(entry.agent_id)
                if found is not None:
                    checked = await found.validate_action(entry)
                    if not checked.approved:
                        results[entry.position] = ExecutionResult(
                            success=False, error=f"rejected: {checked.reason}", entry=checked.entry or entry
                        )
            for entry in await self.log.get_validated_ordered():
                found = self.find_agent(entry.agent_id)
                if found is not None:
                    results[entry.position] = await found.execute_action(entry)
            return [results[key] for key in sorted(results)]

    async def _propose(self, agent: LogActAgent, action: Action, task: Initial) -> LogEntry:
        key = getattr(task, "key", "")
        return await agent.propose_action(action, key=f"{key}:{agent.agent_id}" if key else "")
