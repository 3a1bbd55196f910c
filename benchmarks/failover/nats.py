"""NATS: three nodes; the one that leads the log dies, the other two elect, and it comes back for the next round."""

from __future__ import annotations

from benchmarks.failover.base import Failover
from benchmarks.servers.nats import NatsCluster


class NatsFailover(Failover):
    """The configuration that LogAct ships. Nobody helps: the election is the servers' own, 4 to 9 s by its design."""

    cluster: NatsCluster | None = None

    def start(self) -> None:
        self.cluster = NatsCluster().start()
        self.version = f"NATS {self.cluster.nodes[0].ask('/varz')['version']}, 3 nodes, sync_interval always"

    def close(self) -> None:
        if self.cluster is not None:
            self.cluster.close()

    def url(self, log: str) -> str:
        if self.cluster is None:
            raise RuntimeError("not started")
        return self.cluster.url(log)

    def kill_leader(self, log: str) -> None:
        if self.cluster is None:
            raise RuntimeError("not started")
        self.cluster.leader_of(log).kill()

    def mend(self) -> None:
        if self.cluster is None:
            raise RuntimeError("not started")
        for node in self.cluster.nodes:
            if node.process is None:
                node.start()


FAILOVER = NatsFailover
