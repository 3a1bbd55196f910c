"""A real NATS cluster for tests: the shipped configuration on free ports, its nodes killed and started at will."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nats" / "nats.conf"
SERVER = Path(sys.executable).with_name("nats-server")
START_S_MAX = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held together, so that no two are the same."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


class NatsCluster:
    """Nodes 0, 1, ... of one cluster; with one node, a server without any cluster."""

    def __init__(self, directory: Path, nodes: int = 3, configuration: Path = CONFIGURATION) -> None:
        self.directory = directory
        self.configuration = configuration
        ports = free_ports(3 * nodes)
        self.ports, self.cluster_ports, self.monitors = ports[:nodes], ports[nodes : 2 * nodes], ports[2 * nodes :]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * nodes

    @property
    def servers(self) -> str:
        """What stands between ``nats://`` and the name of the log in a URL."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def monitor(self) -> str:
        """The value of the URL's option ``monitor``."""
        return ",".join(f"http://127.0.0.1:{port}" for port in self.monitors)

    def url(self, log: str, **options: object) -> str:
        """The URL of a log on this cluster."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"nats://{self.servers}?log={log}" + (f"&{query}" if query else "")

    def start(self, *nodes: int) -> None:
        """Start the nodes (all, if none is named), and wait until they serve and have a leader."""
        for node in nodes or range(len(self.ports)):
            store = self.directory / f"node-{node}"
            store.mkdir(parents=True, exist_ok=True)
            routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.cluster_ports)
            environment = {
                **os.environ,
                "LOGACT_NODE": f"node-{node}",
                "LOGACT_LISTEN": f"127.0.0.1:{self.ports[node]}",
                "LOGACT_CLUSTER": f"127.0.0.1:{self.cluster_ports[node]}",
                "LOGACT_MONITOR": f"127.0.0.1:{self.monitors[node]}",
                "LOGACT_STORE": str(store),
                "LOGACT_ROUTES": f"[{routes}]",
            }
            with (self.directory / f"node-{node}.log").open("ab") as log:
                self.processes[node] = subprocess.Popen(
                    [SERVER, "-c", self.configuration], env=environment, stdout=log, stderr=log
                )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every running node is healthy (it has caught up, and knows who leads)."""
        end = time.monotonic() + START_S_MAX
        for node, process in enumerate(self.processes):
            while process is not None:
                if process.poll() is not None:
                    raise RuntimeError(
                        f"node {node} ended: {(self.directory / f'node-{node}.log').read_text()[-2000:]}"
                    )
                try:
                    if self.ask(node, "/healthz").get("status") == "ok":
                        break
                except OSError:
                    pass
                if time.monotonic() > end:
                    raise RuntimeError(
                        f"node {node} is not ready: {(self.directory / f'node-{node}.log').read_text()[-2000:]}"
                    )
                time.sleep(0.05)

    def ask(self, node: int, path: str) -> dict[str, Any]:
        """What a node's monitoring endpoint says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitors[node]}{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def leader_of(self, stream: str) -> int:
        """Which node leads a stream; -1 while nobody does."""
        for node, process in enumerate(self.processes):
            if process is None:
                continue
            said = self.ask(node, "/jsz?streams=true")
            for account in said.get("account_details", []):
                for detail in account.get("stream_detail", []):
                    leader = detail.get("cluster", {}).get("leader", "")
                    if detail["name"] == stream and leader:
                        return int(leader.rpartition("-")[2])
        return -1

    def kill(self, node: int) -> None:
        """``kill -9`` a node."""
        process = self.processes[node]
        self.processes[node] = None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def stop(self) -> None:
        """End every node."""
        for node in range(len(self.processes)):
            self.kill(node)
