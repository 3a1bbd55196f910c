"""The served log over engines on the network: what a server adds keeps the contract there, too.

The whole suite runs over SQLite (``tests/server``); here those parts run that depend on the engine below.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.servers.nats import NatsCluster
from benchmarks.servers.postgres import PostgresServer

from logact.logs.base import Engine
from logact.logs.remote import RemoteEngine
from logact.testing.conformance import EngineConformance
from tests.engines.kafka_kit import KafkaLike
from tests.server.kit import ServerProcess, engine, token_file

CASES = (
    "test_checks_come_in_order",
    "test_of_concurrent_conditional_appends_one_wins",
    "test_neighbours_in_a_group_commit",
    "test_concurrent_repeats_of_one_draft_write_once",
    "test_seal",
    "test_trim",
    "test_logs_are_isolated",
    "test_two_engines_on_one_log",
    "test_linearizable",
    "test_wait",
)


class Served(EngineConformance):
    """A suite on the logs of one server."""

    def __init__(self, server: ServerProcess, token: Path, name: str) -> None:
        self.server, self.token, self.name = server, token, name
        self.made = 0

    async def make_engine(self) -> Engine:
        self.made += 1
        return engine(self.server, self.token, f"{self.name}-{self.made}")

    async def another(self, engine_: Engine) -> Engine:
        assert isinstance(engine_, RemoteEngine)
        return engine(self.server, self.token, engine_.url.log)


def serving(url: str, home: Path) -> Iterator[tuple[ServerProcess, Path]]:
    """A server over an engine, and a token that may relay."""
    server = ServerProcess(url, "--requests", "100000")
    try:
        yield server, token_file(home, server.token(relay=True))
    finally:
        assert server.stop() == (0, "")


@pytest.fixture(scope="module")
def over_postgres(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    """A server over PostgreSQL."""
    yield from serving(
        postgres.url(postgres.database("served_conformance"), "main"), tmp_path_factory.mktemp("served")
    )


@pytest.fixture(scope="module")
def over_nats(nats: NatsCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server over NATS."""
    yield from serving(nats.url("main"), tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def over_kafka(kafka: KafkaLike, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server over Kafka."""
    yield from serving(kafka.url("main").replace("/test?", "/served?"), tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("case", CASES)
def test_over_postgresql(over_postgres: tuple[ServerProcess, Path], case: str) -> None:
    """A part of the contract, through a server, over PostgreSQL."""
    getattr(Served(*over_postgres, case.replace("_", "-")), case)()


@pytest.mark.parametrize("case", CASES)
def test_over_nats(over_nats: tuple[ServerProcess, Path], case: str) -> None:
    """A part of the contract, through a server, over NATS."""
    getattr(Served(*over_nats, f"n-{case}".replace("_", "-")), case)()


@pytest.mark.parametrize("case", CASES)
def test_over_kafka(over_kafka: tuple[ServerProcess, Path], case: str) -> None:
    """A part of the contract, through a server, over Kafka."""
    getattr(Served(*over_kafka, f"k-{case}".replace("_", "-")), case)()
