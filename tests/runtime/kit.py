"""What the runtime's tests share: scripted agents on logs in memory, tools that count, and looks into the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from logact import LogActAgent, tool
from logact.core import machine
from logact.core.state import State
from logact.entry import Entry, Payload, Policy
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models import ScriptedModel
from logact.runtime.executor import Executor
from logact.runtime.host import Host
from logact.runtime.proposer import Proposer
from logact.runtime.secrets import Secrets
from logact.runtime.tail import Tail
from logact.tools import Tool, Toolbox

T = TypeVar("T")
P = TypeVar("P", bound=Payload)

WAIT_S = 20.0
"""A test that takes longer hangs; no test waits this long."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; one that hangs fails."""

    async def limited() -> T:
        async with asyncio.timeout(WAIT_S):
            return await main

    return asyncio.run(limited())


def memory_log() -> SharedLog:
    """A fresh log in memory."""
    return SharedLog(MemoryEngine())


def opened(agent: str = "ann", **more: Any) -> Policy:
    """A policy that lets everything pass."""
    return Policy(version=1, agent=agent, need={"open": "a test"}, **more)


def agent(log: SharedLog, script: Any = (), *, name: str = "ann", **options: Any) -> LogActAgent:
    """A scripted agent; everything passes unless voters or a policy are given."""
    if "voters" not in options and "policy" not in options:
        options["policy"] = opened(name)
    model = script if isinstance(script, ScriptedModel) else ScriptedModel(script)
    return LogActAgent(name, log, model=model, **options)


class Counter:
    """Counts what a tool did. ``send`` is irreversible, ``put`` idempotent, ``look`` reads."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def tools(self) -> list[Tool]:
        """One tool of each of the plain effects."""

        @tool(effect="irreversible")
        async def send(to: str = "") -> str:
            """Send."""
            self.done.append(f"send {to}")
            return f"sent {to}"

        @tool(effect="idempotent")
        async def put(to: str = "") -> str:
            """Put."""
            self.done.append(f"put {to}")
            return f"put {to}"

        @tool(effect="read")
        async def look(at: str = "") -> str:
            """Look."""
            self.done.append(f"look {at}")
            return f"saw {at}"

        return [send, put, look]


def simple(function: Callable[..., Any], effect: Any = "irreversible", **more: Any) -> Tool:
    """A function as a tool with an effect."""
    return Tool(function, effect=effect, **more)


class Stage:
    """The parts of one life wired by hand, for tests of one part."""

    def __init__(self, log: SharedLog, tools: Sequence[Any] = (), *, name: str = "ann", **secrets: str) -> None:
        self.log = log
        self.host = Host(log, name, tail=Tail(log))
        self.tools = Toolbox(tools)
        self.secrets = Secrets(secrets)
        self.proposer = Proposer(self.host, self.tools, self.secrets)
        self.executor = Executor(self.host, self.tools, agents=[name], secrets=self.secrets)

    async def open(self) -> Stage:
        """Fold what there is."""
        await self.host.tail.start()
        return self

    async def say(self, *payloads: Payload, role: Any = "operator") -> int:
        """Append entries in one record."""
        entries = [self.host.entry(payload, role) for payload in payloads]
        return (await self.host.append(entries)).position


async def entries(log: SharedLog) -> list[Entry]:
    """Everything in a log."""
    return [entry async for entry in log.read()]


async def payloads(log: SharedLog, kind: type[P]) -> list[P]:
    """All payloads of a kind, effective or not."""
    return [entry.payload for entry in await entries(log) if isinstance(entry.payload, kind)]


async def folded(log: SharedLog) -> State:
    """The fold of a log, with everything kept."""
    await log.open()
    return machine.fold(machine.initial(log.log_id, keep=True), await entries(log))


async def statuses(log: SharedLog) -> dict[str, str]:
    """The last status of each tool's actions."""
    state = await folded(log)
    return {action.intent.tool: action.status for action in state.actions.values()}
