"""The arbitrated engine keeps the contract over partitions in memory, with snapshots seldom and often."""

from __future__ import annotations

from typing import ClassVar

from logact.logs.base import Engine
from logact.testing.arbitrated import MemoryArbitratedEngine
from logact.testing.conformance import EngineConformance


class TestArbitrated(EngineConformance):
    snapshot_messages: ClassVar[int] = 5_000

    async def make_engine(self) -> Engine:
        engine = MemoryArbitratedEngine()
        engine.snapshot_messages = self.snapshot_messages
        return engine

    async def another(self, engine: Engine) -> Engine:
        assert isinstance(engine, MemoryArbitratedEngine)
        return MemoryArbitratedEngine(engine.broker)

    async def reopen(self, engine: Engine) -> Engine:
        await engine.close()
        again = await self.another(engine)
        await again.open()
        return again


class TestSnapshotsOften(TestArbitrated):
    """A snapshot after every few messages: what is restored from one is what was folded."""

    snapshot_messages = 3
