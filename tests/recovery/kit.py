"""What the tests of recovery share: agents on a log in memory, tools that fail as told, and the log's entries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from logact.agent import LogActAgent
from logact.core import machine
from logact.core.state import State
from logact.core.views import LogEntry
from logact.entry import Effect, Entry, Vote
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import ScriptedModel
from logact.tools import Tool, ToolContext
from logact.voters.base import Voter


class Yes(Voter):
    """Approves everything, and remembers what it was asked."""

    def __init__(self, name: str = "yes") -> None:
        super().__init__(name)
        self.asked: list[str] = []

    def check(self, entry: LogEntry) -> Vote:
        self.asked.append(entry.action.tool)
        return Vote(approved=True)


class Flaky:
    """A tool that raises what it is told, then works. ``calls`` holds the context of every call."""

    def __init__(
        self, *failures: BaseException, name: str = "send", effect: Effect = "idempotent", **more: Any
    ) -> None:
        self.failures = list(failures)
        self.calls: list[ToolContext] = []
        self.hangs = False

        async def send(item: str, ctx: ToolContext) -> str:
            """Send an item."""
            self.calls.append(ctx)
            if self.hangs:
                await asyncio.sleep(60)
            if self.failures:
                raise self.failures.pop(0)
            return f"sent {item}"

        self.tool = Tool(send, name=name, effect=effect, **more)


def an_agent(
    engine: MemoryEngine, script: Sequence[Any], tools: Iterable[Any], *, voters: Sequence[Voter] = (), **more: Any
) -> LogActAgent:
    """An agent over an engine, as a fresh process would make it."""
    return LogActAgent(
        "ops",
        log=SharedLog(engine),
        model=ScriptedModel(script),
        tools=list(tools),
        voters=list(voters) or [Yes()],
        **more,
    )


async def entries(engine: MemoryEngine, *kinds: str) -> list[Entry]:
    """The log's entries of these kinds (all, if none is named)."""
    log = SharedLog(engine)
    return [entry async for entry in log.read() if not kinds or entry.kind in kinds]


async def folded(engine: MemoryEngine) -> State:
    """The whole log, folded with every action kept."""
    state = machine.initial(engine.log_id, keep=True)
    return machine.fold(state, await entries(engine))
