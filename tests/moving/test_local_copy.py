"""A part that loses its log: it reads on from its copy, keeps what it proposes, and does not act."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.entry import Commit, Mail, NewEntry, Notice
from logact.errors import AppendUnknown, ConditionFailed, LogUnavailable, ReadFailed, UsageError
from logact.logs.base import Condition, Draft, Engine, Filter, Page, SharedLog, where
from logact.logs.local_copy import LocalCopy
from logact.logs.memory import MemoryEngine
from logact.models import call, say
from logact.runtime.tail import Tail
from logact.testing.conformance import EngineConformance
from logact.testing.faults import FaultyEngine


class Cable(FaultyEngine):
    """An engine whose cable can be pulled: nothing arrives, or (``answers=False``) arrives and is not answered."""

    pulled = False
    answers = True

    async def open(self) -> None:
        self._check()
        await super().open()

    def _check(self) -> None:
        if self.pulled:
            raise LogUnavailable("the cable is out")

    async def append(self, draft: Draft) -> tuple[int, bool]:
        self._check()
        done = await super().append(draft)
        if not self.answers:
            raise AppendUnknown("no answer came")
        return done

    async def read(self, after: int, limit: int = 512, matching: Filter | None = None) -> Page:
        if self.pulled:
            raise ReadFailed("the cable is out")
        return await super().read(after, limit, matching)

    async def tail(self) -> int:
        self._check()
        return await super().tail()

    async def wait(self, after: int, timeout_s: float) -> bool:
        self._check()
        return await super().wait(after, timeout_s)


class TestLocalCopy(EngineConformance):
    """With the cable in, it is the log."""

    durable = False
    multi_process = False

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path
        self.made = 0

    async def make_engine(self) -> Engine:
        self.made += 1
        return LocalCopy(MemoryEngine(), self.place / f"copy-{self.made}")


def note(message: str) -> NewEntry:
    return NewEntry(payload=Notice(code="n", message=message), role="driver", name="ops")


def age(log: SharedLog) -> float | None:
    """How stale a log is (a call: the type checker takes a property for constant)."""
    return log.stale_s


async def told(log: SharedLog) -> list[str]:
    """The messages of all notes, in order."""
    return [entry.payload.message async for entry in log.read() if isinstance(entry.payload, Notice)]


async def test_reads_go_on_and_say_their_age(tmp_path: Path) -> None:
    """What was read can be read again without the log, labelled; what was not read is an error, not an absence."""
    cable = Cable(MemoryEngine())
    async with SharedLog(LocalCopy(cable, tmp_path / "copy")) as log, SharedLog(cable) as direct:
        for n in range(5):
            await direct.append(note(str(n)))
        assert await told(log) == list("01234") and age(log) is None
        await direct.append(note("5"))
        cable.pulled = True
        assert await told(log) == list("01234")
        assert 0 <= (age(log) or -1) < 60 or age(log) == 0
        assert "AWAY" in " ".join(log.engine.info().notes)
        tail = Tail(log)
        assert (await tail.start()).position == 5000
        cable.pulled = False
        await asyncio.sleep(0.3)
        assert await told(log) == list("012345") and age(log) is None
    cable.pulled = True
    fresh = SharedLog(LocalCopy(cable, tmp_path / "other"))
    with pytest.raises(LogUnavailable):
        await fresh.open()  # there is no copy to read from
    partly = LocalCopy(cable, tmp_path / "copy")
    await partly.open()
    with pytest.raises(ReadFailed):
        await partly.read(17)
    await partly.close()


@pytest.mark.parametrize("answers", [True, False], ids=["unreachable", "unanswered"])
async def test_proposals_wait_and_are_appended_once_and_in_order(tmp_path: Path, answers: bool) -> None:
    """Proposals of two writers made while the log is away are in it once, in their order, when it is back."""
    cable = Cable(MemoryEngine())
    async with SharedLog(LocalCopy(cable, tmp_path / "copy")) as log:
        first, second = log.writer(), log.writer()
        await first.append([note("before")])
        cable.answers = answers
        if answers:
            cable.pulled = True
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(first.append([note("a")]))]
            await asyncio.sleep(0.05)
            tasks.append(group.create_task(second.append([note("b")])))
            await asyncio.sleep(0.15)
            assert not any(task.done() for task in tasks)
            cable.pulled, cable.answers = False, True
        positions = [task.result().position for task in tasks]
        assert positions == sorted(positions) and await told(log) == ["before", "a", "b"]
        await first.append([note("after")])
        tail = Tail(log)
        assert not (await tail.start()).broken


async def test_nothing_is_decided_or_started_without_the_log(tmp_path: Path) -> None:
    """What decides or acts is refused at once while the log is away, and is not kept."""
    cable = Cable(MemoryEngine())
    async with SharedLog(LocalCopy(cable, tmp_path / "copy")) as log:
        await log.append(note("before"))
        cable.pulled = True
        with pytest.raises(LogUnavailable):
            await log.append(NewEntry(payload=Commit(intent=1000), role="decider", name="d"))
        assert log.stale_s is not None
        cable.pulled = False
        await asyncio.sleep(0.3)
        assert [entry.kind async for entry in log.read()] == ["Notice"]


async def test_what_the_log_refuses_afterwards_is_said(tmp_path: Path) -> None:
    """A proposal whose condition fails when the log is back is refused to its caller, and a note says so."""
    cable = Cable(MemoryEngine())
    async with SharedLog(LocalCopy(cable, tmp_path / "copy")) as log, SharedLog(cable) as direct:
        await log.append(note("before"))
        cable.pulled = True
        unless = Condition(1000, where(kinds=["Mail"]))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_refused(log, unless))
            await asyncio.sleep(0.1)
            cable.pulled = False
            await direct.append(NewEntry(payload=Mail(to="*", sender="x", body="first"), role="client", name="x"))
        assert task.result()
        assert (await told(log))[-1].startswith("proposed while the log was away, and refused afterwards: Notice")


async def _refused(log: SharedLog, unless: Condition) -> bool:
    try:
        await log.writer().append([note("too late")], condition=unless)
    except ConditionFailed:
        return True
    return False


async def test_a_copy_of_another_log_is_refused(tmp_path: Path) -> None:
    """One file is the copy of one log."""
    async with SharedLog(LocalCopy(MemoryEngine(), tmp_path / "copy")) as log:
        await log.append(note("a"))
    with pytest.raises(UsageError, match="copy is of another log"):
        await SharedLog(LocalCopy(MemoryEngine(), tmp_path / "copy")).open()


async def test_what_is_erased_in_the_log_is_erased_in_the_copy(tmp_path: Path) -> None:
    """A copy that has read of an erasure does not keep what was erased."""
    base = MemoryEngine()
    async with SharedLog(LocalCopy(base, tmp_path / "copy")) as log, SharedLog(base) as direct:
        await direct.append(note("a secret that goes"))
        await told(log)
        await direct.erase(1000, "private")
        await told(log)
    assert not any(b"a secret that goes" in file.read_bytes() for file in tmp_path.glob("copy"))


WRITER = """
import asyncio, sys
from logact import open_log
from logact.entry import Input, NewEntry, Run, own
async def main():
    async with open_log(sys.argv[1]) as log:
        print("open", log.stale_s is not None, flush=True)
        await log.append(
            NewEntry(payload=Run(agent="a", title="queued"), role="client", name="me"),
            NewEntry(payload=Input(run=own(0), text="queued"), role="client", name="me", run=own(0)),
        )
        print("appended", flush=True)
asyncio.run(main())
"""


async def test_the_outbox_survives_kill_9(tmp_path: Path) -> None:
    """What was proposed while the log was away is appended by the next life, once, although its own was killed."""
    place = tmp_path / "far"
    place.mkdir()
    far, local = f"sqlite:///{place}/log.db", f"?local={tmp_path / 'copy'}"
    async with open_log(far + local) as log:
        await log.append(note("before"))
        await told(log)
    away = tmp_path / "gone"
    place.rename(away)
    command = [sys.executable, "-c", WRITER, far + local]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    assert (await asyncio.to_thread(process.stdout.readline)).strip() == "open True"
    await asyncio.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    with process:
        assert "appended" not in process.stdout.read()
    away.rename(place)
    for _ in range(2):
        async with open_log(far + local) as log:
            kinds = [entry.kind async for entry in log.read()]
            assert kinds == ["Notice", "Run", "Input"]


async def test_an_agent_goes_on_after_its_log_was_away(tmp_path: Path) -> None:
    """An agent whose log goes away in the middle ends well: nothing twice, nothing without it."""
    cable = Cable(MemoryEngine())
    done: list[tuple[int, bool]] = []

    @tool(effect="irreversible")
    async def work(n: int) -> str:
        """Do it."""
        done.append((n, cable.pulled))
        return "ok"

    def script(request: object) -> object:
        turn = sum(message.role == "assistant" for message in request.messages)  # type: ignore[attr-defined]
        if turn == 2:
            cable.pulled = True  # while the model was thinking
            asyncio.get_running_loop().call_later(0.7, setattr, cable, "pulled", False)
        return say("done") if turn == 4 else call("work", n=turn)

    async with SharedLog(LocalCopy(cable, tmp_path / "copy")) as log:
        agent = LogActAgent("ops", log, [lambda entry: True], model=ScriptedModel(script), tools=[work])  # type: ignore[arg-type]
        answer = await agent.run("go")
        assert answer.ok and done == [(n, False) for n in range(4)]
        inferences = [entry async for entry in log.read(matching=where(kinds=["Inference"]))]
        assert len(inferences) == 5  # the one that was paid for while the log was away was kept
        tail = Tail(log, from_checkpoint=False)
        assert not (await tail.start()).broken
