"""Kafka: three brokers with Kafka's own time limits; the one that leads the log's partition dies."""

from __future__ import annotations

from benchmarks.engines.kafka import KafkaServers
from benchmarks.failover.base import Failover
from benchmarks.servers import wait_until
from benchmarks.servers.kafka import KafkaBroker, KafkaCluster


class KafkaFailover(KafkaServers, Failover[KafkaCluster]):
    """The cluster elects a leader by itself, after ``broker.session.timeout.ms`` (9 s)."""

    dead: KafkaBroker | None = None
    topic = ""

    def begin(self) -> KafkaCluster:
        self.settings = {}
        self.notes.append("a dead broker is noticed after 9 s, Kafka's own setting")
        return super().begin()

    def kill_leader(self, log: str) -> None:
        self.topic = f"test.{log}"
        self.dead = self.running.leader(self.topic)
        self.dead.kill()

    def mend(self) -> None:
        cluster = self.running
        if self.dead is not None:
            cluster.restart(self.dead)
            wait_until(lambda: cluster.in_sync(self.topic) == cluster.size, "all copies are in sync", 120.0)


KIND = KafkaFailover
