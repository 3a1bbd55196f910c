"""The Kafka engine keeps the contract, on three real brokers."""

from __future__ import annotations

import itertools
from typing import ClassVar

import pytest

from logact.logs.base import Engine
from logact.logs.kafka import KafkaEngine, engine_from_url
from logact.testing.conformance import EngineConformance
from tests.engines.kafka_kit import KafkaLike

_names = (f"conformance-{number}" for number in itertools.count())


class TestKafka(EngineConformance):
    options: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _place(self, kafka: KafkaLike) -> None:
        self.kafka = kafka

    async def make_engine(self) -> Engine:
        return engine_from_url(self.kafka.url(next(_names), self.options))

    async def another(self, engine: Engine) -> Engine:
        assert isinstance(engine, KafkaEngine)
        return engine_from_url(engine.url)

    async def reopen(self, engine: Engine) -> Engine:
        await engine.close()
        again = await self.another(engine)
        await again.open()
        return again
