"""Any sequence of operations leaves a log on NATS where a plain model of the contract says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from benchmarks.servers.nats import NatsCluster
from hypothesis import HealthCheck, settings

from logact.logs.base import Engine
from logact.logs.nats import engine_from_url
from tests.test_engine_model import EngineMachine

_numbers = count()


class NatsMachine(EngineMachine):
    cluster: ClassVar[NatsCluster]
    gaps = True

    @staticmethod
    def build(path: Path) -> Engine:
        return engine_from_url(NatsMachine.cluster.url(f"model-{next(_numbers)}"))


NatsMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def _cluster(nats: NatsCluster) -> Iterator[None]:
    NatsMachine.cluster = nats
    yield


TestNatsModel = NatsMachine.TestCase
