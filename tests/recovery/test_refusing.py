"""No part acts on a log that does not verify from its last checkpoint on; what stands before that holds nobody up."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from logact.agent import LogActAgent
from logact.core import machine
from logact.core.state import Action, State
from logact.entry import Entry, Input, NewEntry, Run, own
from logact.env import REAL
from logact.errors import LogCorrupt
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.url import open_log
from logact.logs.witness import read_heads
from logact.models.scripted import call
from logact.runtime.assembly import (
    play_checkpointer,
    play_decider,
    play_driver,
    play_executor,
    play_recoverer,
    play_voter,
)
from logact.runtime.leaving import Leave
from logact.runtime.verifying import BackgroundCheck
from logact.runtime.witnessing import WitnessKeeper, begin_witness
from tests.recovery.kit import Flaky, an_agent

Play = Callable[..., Coroutine[Any, Any, None]]


class Scene:
    """A file, the agent on it, and a record of it that can be damaged and mended."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.undone: list[str] = []
        self.tool = Flaky(effect="reversible", undo=self.undo, safe_undo=True)
        self.number, self.sound = 0, b""

    async def undo(self, item: str) -> None:
        """Take an item back."""
        self.undone.append(item)

    def agent(self, *script: Any, **more: Any) -> LogActAgent:
        """The agent, as a fresh process would make it."""
        agent = an_agent(MemoryEngine(), script, [self.tool.tool], **more)
        agent.log = open_log(f"sqlite:///{self.file}")
        return agent

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement on the file."""
        connection = sqlite3.connect(self.file, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def damage(self, record: int) -> None:
        """Change what somebody said in a record."""
        ((self.number, self.sound),) = self.rows(
            "SELECT id, body FROM records ORDER BY id LIMIT 1 OFFSET ?", record - 1
        )
        at = self.sound.index(b"the task") + 4
        changed = self.sound[:at] + bytes([self.sound[at] ^ 1]) + self.sound[at + 1 :]
        self._put(changed)

    def mend(self) -> None:
        """The record is again what it was."""
        self._put(self.sound)

    def _put(self, body: bytes) -> None:
        """Who changes a record knows of the engine's checksum."""
        self.rows("UPDATE records SET body = ?, crc = ? WHERE id = ?", body, zlib.crc32(body), self.number)

    async def state(self) -> State:
        """What is in the log."""
        async with open_log(f"sqlite:///{self.file}") as log:
            return machine.fold(machine.initial(log.log_id, keep=True), [one async for one in log.read()])

    async def play(
        self, part: Play, ready: Callable[[State], object] | None = None, *script: Any, breaks: bool = False
    ) -> list[str]:
        """Play a part until something holds (or for a moment, after it has read all); what it wrote of any weight.

        With ``breaks`` the first thing that comes when it has begun does not verify.
        """
        before, read = (await self.state()).position, asyncio.Event()

        def observe(state: State, entry: Entry) -> None:
            if entry.position >= before:
                read.set()
            if entry.position > before and breaks:
                state.broken = "a test"

        agent = self.agent(*script)
        playing = asyncio.ensure_future(part(agent.log, agent, observers=[observe]))
        try:
            async with asyncio.timeout(20):
                await asyncio.wait([asyncio.ensure_future(read.wait()), playing], return_when="FIRST_COMPLETED")
                await asyncio.wait([playing], timeout=0.15)
                while ready is not None and not playing.done() and not ready(await self.state()):
                    await asyncio.sleep(0.02)
        finally:
            if not playing.done():
                playing.cancel()
            (problem,) = await asyncio.gather(playing, return_exceptions=True)
            await agent.log.close()
            REAL.playing.clear()  # whoever played here is gone
        if isinstance(problem, Exception):
            raise problem
        async with open_log(f"sqlite:///{self.file}") as log:
            return [one.kind async for one in log.read(before + 1) if one.kind != "Heartbeat"]

    async def refused(self, part: Play, record: int) -> None:
        """A part does not begin on a damaged log, and does nothing more on one that it finds damaged."""
        self.damage(record)
        with pytest.raises(LogCorrupt, match="does not verify"):
            await self.play(part)
        self.mend()
        assert await self.play(part, breaks=True) == []


def last(state: State) -> Action:
    """The latest action."""
    return list(state.actions.values())[-1]


async def begin(log: SharedLog) -> int:
    """Another task; the record that holds it."""
    run = NewEntry(payload=Run(agent="ops", title="go"), role="client", name="c", agent="ops")
    said = NewEntry(payload=Input(run=own(0), text="the task"), role="client", name="c", run=own(0))
    return (await log.append(run, said)).position // 1000


async def test_no_part_works_on_a_damaged_log(tmp_path: Path) -> None:
    """Driver, voter, decider, executor and recoverer each stop at damage, and go on once it is mended."""
    scene = Scene(tmp_path / "a.db")
    async with scene.agent(checkpoint_every=0):
        pass  # its policy is in force
    async with open_log(f"sqlite:///{scene.file}") as log:
        record = await begin(log)
    scene.damage(record)
    with pytest.raises(LogCorrupt, match="does not verify"):
        await scene.play(play_driver, None, call("send", item="a"))
    with pytest.raises(LogCorrupt, match="does not verify"):
        await scene.agent(call("send", item="a")).run("go on")
    assert not (await scene.state()).actions
    scene.mend()
    await scene.play(play_driver, lambda now: now.actions, call("send", item="a"))
    steps: list[tuple[Play, str]] = [(play_voter, "Vote"), (play_decider, "Commit"), (play_executor, "Started")]
    scene.tool.hangs = True
    for part, kind in steps:
        await scene.refused(part, record)
        assert kind in await scene.play(part, lambda now, kind=kind: now.counts.get(kind, 0))  # type: ignore[misc]
    assert last(await scene.state()).is_open, "it was interrupted in the middle, and what became of it is not known"
    await scene.refused(play_recoverer, record)
    assert scene.undone == []
    await scene.play(play_recoverer, lambda now: last(now).status == "undone")
    assert scene.undone == ["a"]


async def test_damage_before_the_last_checkpoint_holds_nobody_up(tmp_path: Path) -> None:
    """A start reads from the checkpoint; what stands before it is verified in the background."""
    scene = Scene(tmp_path / "a.db")
    async with scene.agent(checkpoint_every=0):
        pass
    async with open_log(f"sqlite:///{scene.file}") as log:
        record = await begin(log)
    await scene.agent("done", checkpoint_every=1).run("go")
    assert (await scene.state()).checkpoint
    scene.damage(record)
    assert (await scene.agent("done again").run("go on", new=True)).text == "done again"


async def meanwhile(work: Coroutine[Any, Any, Any], ready: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Somebody works, and meanwhile something becomes true."""
    working = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(20):
            while not await ready():
                assert not working.done(), working
                await asyncio.sleep(0.02)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        REAL.playing.clear()


@pytest.mark.parametrize("form", ["agent", "checkpointer"])
async def test_agents_and_parts_verify_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Damage before the last checkpoint is found by who works on the log, and the log is paused."""
    monkeypatch.setitem(BackgroundCheck.__init__.__kwdefaults__ or {}, "begin_s", 0.0)
    scene = Scene(tmp_path / "a.db")
    async with open_log(f"sqlite:///{scene.file}") as log:
        record = await begin(log)
    await scene.agent("done", checkpoint_every=1).run("go")
    scene.damage(record)
    scene.tool.hangs = True
    agent = scene.agent(call("send", item="a"))

    async def found() -> object:
        state = await scene.state()
        return state.counts.get("Finding", 0) and "log" in state.paused

    await meanwhile(agent.run("more", new=True) if form == "agent" else play_checkpointer(agent.log, agent), found)
    await agent.log.close()


@pytest.mark.parametrize("form", ["agent", "executor"])
async def test_a_witness_hears_of_what_is_going_on(tmp_path: Path, form: str) -> None:
    """Heads are written while an agent or a part works, not only when it leaves: a killed one has left some."""
    scene = Scene(tmp_path / "a.db")
    scene.tool.hangs = True
    agent = scene.agent(call("send", item="a"), witness=tmp_path / "heads")
    if form == "executor":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), scene.agent(call("send", item="a")) as other:
                await other.run("go")
        async with open_log(f"sqlite:///{scene.file}") as log:
            await begin_witness(log, tmp_path / "heads")
    start: list[int] = []

    async def heard() -> object:
        async with open_log(f"sqlite:///{scene.file}") as log:
            if not start:
                start.append(await log.tail())
                await begin(log)
        seen = read_heads(tmp_path / "heads") if (tmp_path / "heads").exists() else []
        return max((head.position for head in seen), default=0) > start[0] + 1000

    await meanwhile(agent.run("go") if form == "agent" else play_executor(agent.log, agent), heard)
    await agent.log.close()


async def test_a_part_that_leaves_writes_its_last_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came since the last head is witnessed when a part leaves; was left to the other processes."""

    async def rests(keeper: WitnessKeeper) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(WitnessKeeper, "run", rests)
    scene, leave = Scene(tmp_path / "a.db"), Leave()
    agent = scene.agent(witness=tmp_path / "heads")

    async def born() -> object:
        if (await scene.state()).incarnations and not leave.asked.is_set():
            leave.ask()
        return (tmp_path / "heads").exists() and read_heads(tmp_path / "heads")

    async def leaves() -> None:
        await play_executor(agent.log, agent, leave=leave)
        await asyncio.sleep(5)

    await meanwhile(leaves(), born)
    await agent.log.close()
