"""Servers that many tests share, started at their first use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import kafka_kit
from tests.engines.nats_cluster import NatsCluster


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three nodes with the shipped configuration."""
    cluster = NatsCluster(tmp_path_factory.mktemp("nats"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def kafka() -> Iterator[kafka_kit.KafkaLike]:
    """Kafka with brokers that nobody kills (see the crash tests for those); each test takes log names of its own."""
    server = kafka_kit.start_kafka()
    yield server
    server.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it where a stand-in ran instead of the real thing."""
    if kafka_kit.report():
        terminalreporter.write_line(kafka_kit.report())
