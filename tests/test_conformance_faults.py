"""The wrapper that fails on purpose keeps the contract while it does not fail, and fails as it says."""

from __future__ import annotations

import asyncio

import pytest

from logact.errors import AppendUnknown, LogError
from logact.logs.base import Engine
from logact.logs.memory import MemoryEngine
from logact.testing.conformance import EngineConformance, Pen, read_all
from logact.testing.faults import FaultyEngine, Plan


class TestFaultless(EngineConformance):
    durable = False
    multi_process = False

    async def make_engine(self) -> Engine:
        return FaultyEngine(MemoryEngine())


def _run(plan: Plan, appends: int = 1) -> tuple[FaultyEngine, list[int]]:
    """How many records are there right after each of some appends, and after release."""
    engine = FaultyEngine(MemoryEngine(), plan)
    counts: list[int] = []

    async def run() -> None:
        await engine.open()
        for index in range(appends):
            with pytest.raises(LogError):
                await engine.append(Pen(engine, f"pen {index}").draft())
            counts.append(len(await read_all(engine.inner)))
        await engine.release()
        counts.append(len(await read_all(engine.inner)))

    asyncio.run(run())
    return engine, counts


def test_lost() -> None:
    """A lost append is never there, and its error is indefinite."""
    engine, counts = _run(Plan(lost=1.0))
    assert counts == [0, 0] and engine.fired == {"lost": 1}


def test_committed_then_error() -> None:
    """The record is there although the caller got an error."""
    engine, counts = _run(Plan(committed_then_error=1.0))
    assert counts == [1, 1] and engine.fired == {"committed_then_error": 1}


def test_error_then_committed() -> None:
    """The record is not there at the error, and comes later."""
    engine, counts = _run(Plan(error_then_committed=1.0))
    assert counts == [0, 1] and engine.fired == {"error_then_committed": 1, "late_landed": 1}


def test_a_late_record_comes_by_itself() -> None:
    """A late record lands at a later read, without anyone calling release."""
    engine = FaultyEngine(MemoryEngine(), Plan(script=("error_then_committed",), late_operations_max=3))

    async def run() -> int:
        await engine.open()
        with pytest.raises(AppendUnknown):
            await engine.append(Pen(engine).draft())
        for _ in range(3):
            await engine.read(0)
        return await engine.tail()

    assert asyncio.run(run()) == 1


def test_unavailable_is_definite() -> None:
    """A definite failure writes nothing, ever."""
    engine, counts = _run(Plan(unavailable=1.0))
    assert counts == [0, 0] and engine.fired == {"unavailable": 1}


def test_one_seed_gives_one_course() -> None:
    """The same seed makes the same faults fire."""
    plan = Plan(lost=0.3, committed_then_error=0.3, error_then_committed=0.3, unavailable=1.0, seed=5)
    assert _run(plan, 40)[0].fired == _run(plan, 40)[0].fired
