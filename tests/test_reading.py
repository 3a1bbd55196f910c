"""What ``SharedLog.read`` and ``follow`` give after a position, wherever in a record it lies."""

from __future__ import annotations

import asyncio

import pytest

from logact.entry import NewEntry, Notice, end_of, position_of, record_of
from logact.errors import LogTrimmed
from logact.logs.base import SharedLog, where
from tests.runtime.kit import memory_log, run


def batch(*codes: str) -> list[NewEntry]:
    return [NewEntry(payload=Notice(code=code, message="m"), role="driver", name="d") for code in codes]


async def written() -> tuple[SharedLog, list[int]]:
    """A log of batches of 1, 3, 1 and 2 entries, and the positions of all."""
    log = memory_log()
    for size in (1, 3, 1, 2):
        await log.append(*batch(*["n"] * size))
    return log, [entry.position async for entry in log.read()]


def test_all_that_stands_behind_a_position_is_read_once() -> None:
    """From any place, inside of a batch too: read was going on with the next record, and skipped the batch's rest."""

    async def work() -> None:
        log, positions = await written()
        assert len(positions) == 7
        for after in (0, *positions, position_of(2) - 1, end_of(2), end_of(4), position_of(9)):
            behind = [position for position in positions if position > after]
            assert [entry.position async for entry in log.read(after)] == behind
            notices = where(kinds=["Notice"])
            assert [entry.position async for entry in log.read(after, matching=notices)] == behind
            for upto in positions:
                assert [one.position async for one in log.read(after, upto=upto)] == [
                    at for at in behind if at <= upto
                ]

    run(work())


def test_one_entry_at_a_time_reads_the_whole_log() -> None:
    """A reader that stops after each entry, and goes on after it, gets every entry once."""

    async def work() -> None:
        log, positions = await written()
        got = [0]
        for _ in positions:
            got += [entry.position async for entry in log.read(got[-1], limit=1)]
        assert got[1:] == positions

    run(work())


def test_a_follower_begins_within_a_batch() -> None:
    """``follow`` gives the rest of the batch that a position lies in, then what comes."""

    async def work() -> None:
        log, positions = await written()
        got: list[int] = []
        async with asyncio.timeout(20):
            async for entry in log.follow(positions[1]):
                got.append(entry.position)
                if len(got) == 5:
                    break
        assert got == positions[2:]

    run(work())


def test_a_batch_that_is_gone_is_said() -> None:
    """Nobody knows what else stood in a trimmed batch: an error. Behind its end nothing is missing."""

    async def work() -> None:
        log, positions = await written()
        await log.trim(position_of(3))
        with pytest.raises(LogTrimmed):
            [entry async for entry in log.read(positions[1])]
        assert [entry.position async for entry in log.read(end_of(record_of(positions[1])))] == positions[4:]

    run(work())
