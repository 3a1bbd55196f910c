"""The NATS engine keeps the contract, on a real cluster of three nodes."""

from __future__ import annotations

from itertools import count

import pytest
from benchmarks.servers.nats import NatsCluster

from logact.logs.base import Engine
from logact.logs.nats import NatsEngine, engine_from_url
from logact.testing.conformance import EngineConformance

_numbers = count()


class TestNats(EngineConformance):
    @pytest.fixture(autouse=True)
    def _cluster(self, nats: NatsCluster) -> None:
        self.nats = nats

    async def make_engine(self) -> Engine:
        return engine_from_url(self.nats.url(f"conformance-{next(_numbers)}"))

    async def another(self, engine: Engine) -> Engine:
        assert isinstance(engine, NatsEngine)
        return NatsEngine(engine.url)

    async def reopen(self, engine: Engine) -> Engine:
        await engine.close()
        again = await self.another(engine)
        await again.open()
        return again
