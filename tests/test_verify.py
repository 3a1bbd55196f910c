"""Verification names the first place where a log was changed, cut or reordered, and says what it cannot see."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from logact import open_log
from logact.core import machine
from logact.entry import Notice, position_of
from logact.logs.base import SharedLog
from logact.logs.queries import folded
from logact.logs.verify import Report, verify
from logact.logs.witness import FileWitness, Head

RECORDS = 12


async def _write(path: Path, records: int = RECORDS) -> None:
    async with open_log(f"sqlite:///{path}") as log:
        for number in range(records):
            await log.append(Notice(code="note", message=f"number {number}"))


async def _verified(path: Path, witness: Path | None = None) -> Report:
    async with open_log(f"sqlite:///{path}") as log:
        return await verify(log, witness=witness)


def _damage(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        changed = connection.execute(sql, values).rowcount
    connection.close()
    assert changed > 0


def _columns(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(records)")]
    connection.close()
    return names


def test_a_sound_log_is_sound(tmp_path: Path) -> None:
    """An untouched log verifies, and the report says what no verification can see."""
    path = tmp_path / "log.db"
    asyncio.run(_write(path))
    report = asyncio.run(_verified(path))
    assert report.sound
    assert report.records == report.entries == RECORDS
    assert any("cut off" in what for what in report.cannot_see)


@pytest.mark.parametrize("victim", [1, 5, RECORDS])
def test_a_changed_body_is_named(tmp_path: Path, victim: int) -> None:
    """A changed byte in any record, the last included, is found at that record's position."""
    path = tmp_path / "log.db"
    asyncio.run(_write(path))
    key = _columns(path)[0]
    rows = sqlite3.connect(path).execute(f"SELECT {key} FROM records ORDER BY {key}").fetchall()
    _damage(
        path,
        f"UPDATE records SET body = CAST(replace(CAST(body AS TEXT), 'number', 'NUMBER') AS BLOB) WHERE {key} = ?",
        rows[victim - 1][0],
    )
    report = asyncio.run(_verified(path))
    assert [problem.position for problem in report.problems][:1] == [position_of(victim)]
    assert len(report.problems) == 1


def test_a_dropped_record_is_named(tmp_path: Path) -> None:
    """A record that was deleted from the middle is found where it stood."""
    path = tmp_path / "log.db"
    asyncio.run(_write(path))
    key = _columns(path)[0]
    rows = sqlite3.connect(path).execute(f"SELECT {key} FROM records ORDER BY {key}").fetchall()
    _damage(path, f"DELETE FROM records WHERE {key} = ?", rows[4][0])
    report = asyncio.run(_verified(path))
    assert report.problems
    assert report.problems[0].position == position_of(5)


def _altered(change: Callable[[list[bytes]], None]) -> Report:
    """A memory log whose stored bodies were changed behind its back, verified."""

    async def work() -> Report:
        from logact.codec import read_head
        from logact.logs.memory import MemoryEngine

        engine = MemoryEngine()
        log = SharedLog(engine)
        for number in range(RECORDS):
            await log.append(Notice(code="note", message=f"number {number}"))
        bodies = [body for body, _ in engine.records]
        change(bodies)
        engine.records = [(body, read_head(body)[0].entries) for body in bodies]
        return await verify(log)

    return asyncio.run(work())


def test_reordered_records_are_named() -> None:
    """Two records that changed places are found, although each is intact by itself."""

    def swap(bodies: list[bytes]) -> None:
        bodies[3], bodies[4] = bodies[4], bodies[3]

    report = _altered(swap)
    assert report.problems[0].position == position_of(4)


def test_a_dropped_record_in_an_engine_that_renumbers() -> None:
    """A record that is gone is noticed by its writer's chain even where the engine leaves no gap."""

    def drop(bodies: list[bytes]) -> None:
        del bodies[6]

    report = _altered(drop)
    assert report.problems[0].position == position_of(7)
    assert "missing" in report.problems[0].what


def test_a_cut_tail_needs_a_witness_and_is_found_by_it(tmp_path: Path) -> None:
    """Without a witness a cut tail looks sound, and the report says so; with one it is found."""
    path, witness = tmp_path / "log.db", tmp_path / "witness.jsonl"
    asyncio.run(_write(path))

    async def seen() -> None:
        async with open_log(f"sqlite:///{path}") as log:
            state = (await folded(log)).state
            head = Head(log=state.log, position=state.position, chain=state.chain)
            await FileWitness(witness).write(head)

    asyncio.run(seen())
    assert asyncio.run(_verified(path, witness)).sound
    key = _columns(path)[0]
    rows = sqlite3.connect(path).execute(f"SELECT {key} FROM records ORDER BY {key}").fetchall()
    _damage(path, f"DELETE FROM records WHERE {key} > ?", rows[7][0])
    blind = asyncio.run(_verified(path))
    assert blind.problems == () or "cut" not in blind.problems[0].what
    told = asyncio.run(_verified(path, witness))
    assert not told.sound
    assert any("cut off" in problem.what for problem in told.problems)


def test_a_repeated_record_takes_no_effect() -> None:
    """The same record twice (an engine that forgot the first) is no damage, and counts once."""

    def twice(bodies: list[bytes]) -> None:
        bodies.insert(5, bodies[4])

    report = _altered(twice)
    assert report.sound
    assert report.ineffective == 1
    assert machine.initial().ignored_count == 0
