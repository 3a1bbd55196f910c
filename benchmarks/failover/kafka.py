"""Kafka: three brokers with Kafka's own time limits; the one that leads the log's partition dies."""

from __future__ import annotations

from benchmarks.failover.base import Failover
from benchmarks.servers import wait_until
from benchmarks.servers.kafka import VERSION, KafkaBroker, KafkaCluster, missing


class KafkaFailover(Failover):
    """The cluster elects a leader by itself, after ``broker.session.timeout.ms`` (9 s)."""

    cluster: KafkaCluster | None = None
    dead: KafkaBroker | None = None
    topic = ""

    def start(self) -> None:
        if missing():
            raise RuntimeError(missing())
        self.cluster = KafkaCluster(settings={}).start()
        self.version = f"Apache Kafka {VERSION}"
        self.notes.append("a dead broker is noticed after 9 s, Kafka's own setting")

    def close(self) -> None:
        if self.cluster is not None:
            self.cluster.close()

    def url(self, log: str) -> str:
        return self._running().url(log)

    def kill_leader(self, log: str) -> None:
        self.topic = f"test.{log}"
        self.dead = self._running().leader(self.topic)
        self.dead.kill()

    def mend(self) -> None:
        cluster = self._running()
        if self.dead is not None:
            cluster.restart(self.dead)
            wait_until(lambda: cluster.in_sync(self.topic) == cluster.size, "all copies are in sync", 120.0)

    def _running(self) -> KafkaCluster:
        if self.cluster is None:
            raise RuntimeError("not started")
        return self.cluster


FAILOVER = KafkaFailover
