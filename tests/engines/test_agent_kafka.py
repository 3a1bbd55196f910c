"""Whole agents on Kafka: killed parts, and their log's leader killed under them; the same proof as on SQLite."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import cast

import pytest
from benchmarks.servers.kafka import KafkaBroker, KafkaCluster
from confluent_kafka import KafkaException

from tests.engines.agent_job import bad_network, killed_at_named_points, killed_parts
from tests.engines.kafka_kit import networks
from tests.engines.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class LeaderKiller(threading.Thread):
    """Kills the broker that leads a topic, once the topic is there, and starts it again after a while."""

    def __init__(self, cluster: KafkaCluster, topic: str) -> None:
        super().__init__()
        self.cluster = cluster
        self.topic = topic
        self.killed: KafkaBroker | None = None

    def run(self) -> None:
        end = time.monotonic() + 60.0
        while self.killed is None and time.monotonic() < end:
            time.sleep(0.5)
            try:
                self.killed = self.cluster.leader(self.topic)
            except (KafkaException, KeyError, IndexError):
                continue
            self.killed.kill()


def test_an_agent_whose_parts_and_broker_are_killed(cluster: KafkaCluster, tmp_path: Path) -> None:
    """Five processes on one log, killed at random, and their log's leader too: everything happened exactly once."""
    killer = LeaderKiller(cluster, "test.agent-job")
    killer.start()
    try:
        found = killed_parts(tmp_path, lambda log: cluster.url(f"agent-{log}"), kills=4)
        assert killer.killed is not None, "the leader died while the agent worked"
    finally:
        killer.join()
    assert found.kills >= 2, "the job ended before anybody was killed"


def test_an_agent_killed_at_named_points(cluster: KafkaCluster, tmp_path: Path) -> None:
    """An agent dies right before and after a message is acknowledged, and around effects; its next life goes on."""
    killed_at_named_points(
        tmp_path, lambda log: cluster.url(f"points-{log}"), "partition:sending", "partition:acknowledged"
    )


def test_an_agent_on_a_bad_network(cluster: KafkaCluster, tmp_path: Path) -> None:
    """Delays, stalls, resets, lost answers and a cut: nothing acts without its commit, and all of it resumes."""

    def far(log: str) -> str:
        return cluster.url(log, "&timeout_s=2", hosts=cluster.far_hosts)

    bad_network(tmp_path, far, cluster.url, cast(Proxy, networks[cluster.id]))
