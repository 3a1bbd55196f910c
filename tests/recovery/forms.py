"""One run in the two forms that an agent has: a whole agent in one process, and each part for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from logact import LogActAgent, ScriptedModel, open_log
from logact.agent_results import Answer
from logact.core import machine
from logact.core.state import State
from logact.entry import Input, Limits, NewEntry, Output, Run, own
from logact.logs.base import SharedLog
from logact.runtime import assembly
from logact.runtime.fold import Observer
from logact.runtime.leaving import Leave
from logact.runtime.tail import Tail

PARTS = ("driver", "voter", "decider", "executor", "recoverer")


def an_agent(place: Path, tools: Sequence[Any], script: Sequence[Any], **more: Any) -> LogActAgent:
    """An agent on a file, with a connection of its own."""
    voters = more.pop("voters", [lambda entry: True])
    model = ScriptedModel(list(script))
    return LogActAgent("ops", open_log(f"sqlite:///{place}"), voters, model=model, tools=tools, **more)


async def folded(log: SharedLog) -> State:
    """The whole log, folded with every action kept."""
    return machine.fold(machine.initial(log.log_id, keep=True), [one async for one in log.read()])


async def whole(
    place: Path, tools: Sequence[Any], script: Sequence[Any], *, observers: Sequence[Observer] = (), **more: Any
) -> tuple[Answer, State]:
    """One run in one process; the answer, and the fold of everything."""
    agent = an_agent(place, tools, script, **more)
    for observer in observers:
        agent.observe(observer)
    async with agent.log as log:
        return await agent.run("go"), await folded(log)


async def in_parts(
    place: Path,
    tools: Sequence[Any],
    script: Sequence[Any],
    *,
    observers: Sequence[Observer] = (),
    limits: Limits | None = None,
    without: str = "",
    **more: Any,
) -> tuple[Answer, State]:
    """The same with each part for itself; ``without`` a part, if it is named."""
    leave = Leave(5.0)

    async def play(part: str) -> None:
        agent = an_agent(place, tools, script, **more)
        async with agent.log as log:
            await getattr(assembly, f"play_{part}")(log, agent, observers=observers, leave=leave)

    async with open_log(f"sqlite:///{place}") as log:
        begin = Run(agent="ops", title="go", limits=limits or Limits())
        entries = [
            NewEntry(payload=begin, role="client", name="me", agent="ops"),
            NewEntry(payload=Input(run=own(0), text="go"), role="client", name="me", agent="ops", run=own(0)),
        ]
        run = (await log.append(*entries)).position
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            for part in PARTS:
                if part != without:
                    group.create_task(play(part))
            tail = Tail(log)
            await tail.start()
            while (await tail.catch_up()).runs[run].status == "running":
                await asyncio.sleep(0.02)
            leave.ask()
        state = await folded(log)
        said = (await log.get(state.runs[run].output)).payload
        assert isinstance(said, Output)
        return Answer(run=run, text=said.text, ok=said.ok, reason=said.reason, position=0), state
