"""When a checkpoint is due: by entries, by bytes, by time, and by none; counted, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import env as environment
from logact.entry import Checkpoint, Entry, NewEntry, Notice
from logact.env import Env
from logact.logs.base import SharedLog
from logact.runtime.checkpointer import Checkpointer
from logact.runtime.host import Host
from tests.runtime.kit import memory_log, run


class Clock(Env):
    """The real environment, but for a clock that stands still until it is moved."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Desk:
    """A log, a checkpointer on it, and a clock."""

    def __init__(self, log: SharedLog, clock: Clock, **measures: Any) -> None:
        self.log, self.clock = log, clock
        self.host = Host(log, "ann")
        self.checkpointer = Checkpointer(self.host, **{"every": 0, **measures})

    async def note(self, text: str = "x", count: int = 1) -> None:
        """Somebody else writes entries, and the checkpointer's fold reads them."""
        for _ in range(count):
            note = Notice(code="note", message=text, agent="ann")
            await self.log.append(NewEntry(payload=note, role="driver", name="d", agent="ann"))
        await self.host.tail.catch_up()

    def due(self) -> bool:
        return self.checkpointer.due(self.host.state)


@pytest.fixture
def clock() -> Clock:
    """The clock, in force for the test's own coroutine."""
    return Clock()


async def desk(clock: Clock, **measures: Any) -> Desk:
    """A desk on a fresh log, folded to its beginning."""
    environment.use(clock)
    made = Desk(memory_log(), clock, **measures)
    await made.host.tail.start()
    return made


def test_bytes_make_it_due_and_a_checkpoint_sets_them_back(clock: Clock) -> None:
    """Not before so many bytes have come, whatever the number of entries; then the count begins anew."""

    async def main() -> None:
        at = await desk(clock, bytes_max=20_000)
        await at.note(count=20)
        assert not at.due()
        await at.note("y" * 20_000)
        assert at.due()
        await at.checkpointer.write()
        assert not at.due(), "what came before the checkpoint counted again"
        await at.note("y" * 20_000)
        assert at.due()

    run(main())


def test_a_checkpoint_of_somebody_else_sets_bytes_and_time_back(clock: Clock) -> None:
    """Two checkpointers on one log don't both write for the same bytes or the same time."""

    async def main() -> None:
        one = await desk(clock, bytes_max=20_000, seconds_max=60)
        other = Desk(one.log, clock, every=1)
        await other.host.tail.start()
        await one.note("y" * 20_000)
        clock.now += 50
        assert one.due()
        await other.host.tail.catch_up()
        await other.checkpointer.write()
        await one.note(count=3)
        assert not one.due()
        clock.now += 59
        assert not one.due()
        clock.now += 2
        assert one.due()

    run(main())


def test_time_makes_it_due_only_where_something_came(clock: Clock) -> None:
    """A log in which nothing happens gets no checkpoint however long it stands, nor one for a checkpoint alone."""

    async def main() -> None:
        at = await desk(clock, seconds_max=60)
        clock.now += 1000
        assert not at.due()
        await at.note(count=2)
        assert at.due(), "the time was over, and something came"
        await at.checkpointer.write()
        clock.now += 1000
        assert not at.due(), "the checkpoint itself is nothing new"
        await at.note(count=2)
        assert at.due()

    run(main())


@pytest.mark.parametrize("every", [1, 2])
def test_a_checkpoint_causes_no_further_one(clock: Clock, every: int) -> None:
    """Neither one's own nor another's: with ``every=1`` they were written for ever."""

    async def main() -> None:
        at = await desk(clock, every=every)
        other = Desk(at.log, clock, every=every)
        await at.note(count=every)
        await other.host.tail.start()
        assert at.due() and other.due()
        for one in (at, other):  # both at once, neither having seen the other's
            await one.checkpointer.write()
        late = Desk(at.log, clock, every=every)
        await late.host.tail.start()
        for count, due in ((0, False), (every - 1, False), (1, True)):
            await at.note(count=count)
            for one in (at, other, late):
                await one.host.tail.catch_up()
                assert one.due() is due, f"after {count} more"

    run(main())


def test_whichever_measure_comes_first_counts(clock: Clock) -> None:
    """Entries, bytes and seconds side by side: each alone is enough."""

    async def main() -> None:
        by_entries = await desk(clock, every=5, bytes_max=10**9, seconds_max=10**6)
        await by_entries.note(count=4)
        assert not by_entries.due()
        await by_entries.note()
        assert by_entries.due()
        by_bytes = await desk(clock, every=10**6, bytes_max=2000, seconds_max=10**6)
        await by_bytes.note("y" * 3000)
        assert by_bytes.due()
        by_time = await desk(clock, every=10**6, bytes_max=10**9, seconds_max=5)
        await by_time.note(count=2)
        assert not by_time.due()
        clock.now += 5
        assert by_time.due()

    run(main())


def test_without_a_measure_none_is_due(clock: Clock) -> None:
    """All three 0: no checkpoint is ever written."""

    async def main() -> None:
        at = await desk(clock)
        await at.note("y" * 5000, count=50)
        clock.now += 10**6
        assert not at.due()

    run(main())


def test_time_alone_wakes_the_checkpointer() -> None:
    """No entry comes when the time is over, and it is written all the same, once."""

    async def main() -> None:
        log = memory_log()
        host = Host(log, "ann")
        checkpointer = Checkpointer(host, every=0, seconds_max=0.05)
        await host.tail.start()
        note = Notice(code="note", message="x", agent="ann")
        for _ in range(2):
            await log.append(NewEntry(payload=note, role="driver", name="d", agent="ann"))
        await host.tail.catch_up()
        written: list[Entry] = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(checkpointer.run())
            while not written:
                await asyncio.sleep(0.05)
                written = [entry async for entry in log.read() if isinstance(entry.payload, Checkpoint)]
            task.cancel()
        assert checkpointer.written == 1
        assert len(written) == 1

    run(main())
