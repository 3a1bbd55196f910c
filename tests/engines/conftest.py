"""Real servers for the engines' tests. Each kind is started once a session, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks.servers import wait_until
from benchmarks.servers.kafka import KafkaCluster
from benchmarks.servers.nats import NatsCluster
from benchmarks.servers.postgres import PostgresServer

from tests.engines import kafka_kit


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that nobody kills; make a database of your own in it (``postgres.database(NAME)``)."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsCluster]:
    """Three NATS nodes with the shipped configuration, which nobody kills; each test takes log names of its own."""
    with NatsCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka() -> Iterator[kafka_kit.KafkaLike]:
    """Kafka; each test takes log names of its own, and leaves the brokers as they were (see ``cluster``)."""
    server = kafka_kit.start_kafka()
    yield server
    server.close()
    for network in kafka_kit.networks.values():
        network.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it where a stand-in ran instead of the real thing."""
    if kafka_kit.report():
        terminalreporter.write_line(kafka_kit.report())


@pytest.fixture
def cluster(kafka: kafka_kit.KafkaLike) -> Iterator[KafkaCluster]:
    """Three real brokers; whole again afterwards. An emulator has nothing to kill."""
    if not isinstance(kafka, KafkaCluster):
        pytest.skip("the emulator loses acknowledged messages by itself: crash tests need Apache Kafka")
    yield kafka
    for broker in kafka.brokers:
        broker.resume()
        if broker.process is None:
            broker.start_without_waiting()
    wait_until(kafka.complete, "the Kafka cluster is whole again", 120.0)
