"""A swarm works the same on each of these, with agents in one process and in many, one of which gets SIGKILL."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.servers.nats import NatsCluster
from benchmarks.servers.postgres import PostgresServer

from tests.engines.kafka_kit import KafkaLike
from tests.engines.swarm_job import shared
from tests.server.kit import ServerProcess, token_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_on_sqlite(tmp_path: Path) -> None:
    """On a file."""
    shared(tmp_path, f"sqlite:///{tmp_path}/swarm.db")


def test_on_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    """On a PostgreSQL server."""
    shared(tmp_path, postgres.url(postgres.database("swarm"), "swarm"))


def test_on_nats(nats: NatsCluster, tmp_path: Path) -> None:
    """On three NATS nodes."""
    shared(tmp_path, nats.url("swarm"))


def test_on_kafka(kafka: KafkaLike, tmp_path: Path) -> None:
    """On Kafka."""
    shared(tmp_path, kafka.url("swarm"))


def test_served(tmp_path: Path) -> None:
    """On a log that is served over HTTP, with a token."""
    server = ServerProcess(f"sqlite:///{tmp_path}/served.db")
    try:
        token = token_file(tmp_path, server.token())
        shared(tmp_path, server.url(token_file=token))
    finally:
        assert server.stop() == (0, "")
