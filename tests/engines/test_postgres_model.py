"""Any sequence of operations leaves a log in PostgreSQL where a plain model of the contract says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from benchmarks.servers.postgres import PostgresServer
from hypothesis import HealthCheck, settings

from logact.logs.base import Engine
from logact.logs.postgres import engine_from_url
from tests.test_engine_model import EngineMachine

_numbers = count()


class PostgresMachine(EngineMachine):
    server: ClassVar[PostgresServer]

    @staticmethod
    def build(path: Path) -> Engine:
        return engine_from_url(PostgresMachine.server.url("model", f"model-{next(_numbers)}"))


PostgresMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module", autouse=True)
def _server(postgres: PostgresServer) -> Iterator[None]:
    postgres.database("model")
    PostgresMachine.server = postgres
    yield


TestPostgresModel = PostgresMachine.TestCase
