"""NATS: three nodes; the one that leads the log dies, the other two elect, and it comes back for the next round."""

from __future__ import annotations

from benchmarks.engines.nats import NatsServers
from benchmarks.failover.base import Failover
from benchmarks.servers.nats import NatsCluster


class NatsFailover(NatsServers, Failover[NatsCluster]):
    """Nobody helps: the election is the servers' own, 4 to 9 s by its design."""

    def kill_leader(self, log: str) -> None:
        self.running.leader_of(log).kill()

    def mend(self) -> None:
        for node in self.running.nodes:
            if node.process is None:
                node.start()


KIND = NatsFailover
