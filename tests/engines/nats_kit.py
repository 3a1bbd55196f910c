"""Three NATS nodes whose routes to each other go through proxies, so that any of them can be cut off while it runs.

Clients are not cut off: each goes on talking to the node that it is connected to. Nodes tell nobody of each other, so
there is no way round the proxies.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.servers.nats import CONFIGURATION, NatsCluster, NatsNode

from tests.engines.proxy import Proxy

NO_WAY_ROUND = 'name: logact\n  no_advertise: true\n  advertise: "127.0.0.1:1"\n'
"""Nodes hear of others from each other, and would connect directly: this is where they then try in vain."""


def configured(directory: Path, **changes: str) -> Path:
    """The shipped configuration with some of its lines changed; each must be there."""
    text = CONFIGURATION.read_text()
    for old, new in {"name: logact\n": NO_WAY_ROUND, **changes}.items():
        assert old in text, old
        text = text.replace(old, new)
    place = directory / "nats.conf"
    place.write_text(text)
    return place


class TornCluster(NatsCluster):
    """A cluster that can be torn: ``isolate`` cuts one node off from the others, ``heal`` mends it."""

    def __init__(self, configuration: Path) -> None:
        super().__init__(configuration=configuration)
        self.routes: dict[tuple[str, str], Proxy] = {}
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    self.routes[node.name, other.name] = Proxy(other.cluster_port)
            node.routes = [proxy.port for (name, _), proxy in self.routes.items() if name == node.name]

    def isolate(self, node: NatsNode, *, silently: bool) -> None:
        """Cut a node off: its connections break at once, or (silently) nothing arrives on them any more."""
        for pair, proxy in self.routes.items():
            if node.name in pair:
                if silently:
                    proxy.stall()
                else:
                    proxy.cut()

    def heal(self) -> None:
        """Every node reaches every other one again."""
        for proxy in self.routes.values():
            proxy.restore()

    def close(self) -> None:
        super().close()
        for proxy in self.routes.values():
            proxy.close()
