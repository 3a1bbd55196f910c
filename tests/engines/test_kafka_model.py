"""Any sequence of operations leaves a log on Kafka where a plain model of the contract says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from logact.logs.base import Engine
from logact.logs.kafka import engine_from_url
from tests.engines.kafka_kit import KafkaLike
from tests.test_engine_model import EngineMachine

_numbers = count()


class KafkaMachine(EngineMachine):
    kafka: ClassVar[KafkaLike]
    gaps = True

    @staticmethod
    def build(path: Path) -> Engine:
        engine = engine_from_url(KafkaMachine.kafka.url(f"model-{next(_numbers)}"))
        engine.snapshot_messages = 15  # so that reopening begins with one
        return engine


KafkaMachine.TestCase.settings = settings(
    max_examples=4, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def _kafka(kafka: KafkaLike) -> Iterator[None]:
    KafkaMachine.kafka = kafka
    yield


TestKafkaModel = KafkaMachine.TestCase
