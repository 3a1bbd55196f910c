"""A whole agent and parts take turns on one log: neither is locked out by the other for good, and never silently."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.entry import Claim, Fence, Heartbeat, Input, NewEntry, Run, own
from logact.env import REAL
from logact.errors import AgentBusy
from logact.models.scripted import call
from logact.runtime import assembly
from logact.runtime.leaving import Leave
from logact.runtime.processes import identify
from logact.runtime.supervision import task_of
from logact.runtime.tail import Tail


def an_agent(place: Path, done: list[int]) -> LogActAgent:
    """An agent that does one thing in each run."""

    @tool(effect="idempotent")
    async def put(item: int) -> str:
        """Put one down."""
        done.append(item)
        return f"put {item}"

    return LogActAgent(
        "ops",
        open_log(f"sqlite:///{place}/ops.db"),
        [lambda entry: True],
        model=ScriptedModel([call("put", item=7), "done"]),
        tools=[put],
    )


async def play_parts(place: Path, done: list[int]) -> list[str]:
    """All parts, until the runs have ended; the statuses of the runs."""
    leave = Leave(5.0)
    plays = (assembly.play_driver, assembly.play_voter, assembly.play_decider, assembly.play_executor)
    async with an_agent(place, done).log as log:
        begin = NewEntry(payload=Run(agent="ops", title="parts"), role="client", name="me", agent="ops")
        words = NewEntry(payload=Input(run=own(0), text="go"), role="client", name="me", agent="ops", run=own(0))
        await log.append(begin, words)
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            for play in plays:
                agent = an_agent(place, done)
                group.create_task(play(agent.log, agent, leave=leave))
            tail = Tail(log)
            await tail.start()
            while any(run.status == "running" for run in (await tail.catch_up()).runs.values()):
                await asyncio.sleep(0.02)
            leave.ask()
        return [run.status for run in tail.state.runs.values()]


async def test_parts_go_on_where_a_whole_agent_ended(tmp_path: Path) -> None:
    """Was waiting for ever: the whole agent's fence kept the parts' executor from starting anything."""
    done: list[int] = []
    agent = an_agent(tmp_path, done)
    async with agent.log:
        await agent.run("whole")
    assert await play_parts(tmp_path, done) == ["finished", "finished"]
    assert done == [7, 7]


async def test_parts_go_on_where_a_whole_agent_died(tmp_path: Path) -> None:
    """A holder that is proven gone without a goodbye is fenced off by the driver, which opens the role."""
    done: list[int] = []
    async with an_agent(tmp_path, done).log as log:
        me = REAL.process()
        gone = Heartbeat(agent="ops", host=me.host, pid=me.pid, started=me.started + 1, boot=me.boot)
        writer = log.writer()
        fence = Fence(agent="ops", epoch=1, holder=writer.incarnation)
        entries = [
            NewEntry(payload=gone, role="executor", name="ops", agent="ops"),
            NewEntry(payload=fence, role="recoverer", name="ops", agent="ops"),
        ]
        await writer.append(entries)
    assert await play_parts(tmp_path, done) == ["finished"]
    assert done == [7]


@pytest.mark.parametrize("alive", [True, False])
async def test_a_whole_agent_does_not_fence_off_supervised_parts(tmp_path: Path, alive: bool) -> None:
    """While a supervisor lives, a whole agent is refused and told what to do; one that is gone is no hindrance."""
    done: list[int] = []
    agent = an_agent(tmp_path, done)
    me = REAL.process()
    async with agent.log as log:
        who = identify(os.getppid() if alive else me.pid)
        writer = log.writer()
        birth = Heartbeat(agent="ops", host=who.host, pid=who.pid, started=who.started + (not alive), boot=who.boot)
        claim = Claim(task=task_of("ops"), agent=writer.incarnation)
        await writer.append(
            [NewEntry(payload=one, role="supervisor", name="s", agent="ops") for one in (birth, claim)]
        )
        if alive:
            with pytest.raises(AgentBusy, match="--submit"):
                await agent.run("whole")
        else:
            assert (await agent.run("whole")).ok
    assert done == ([] if alive else [7])
