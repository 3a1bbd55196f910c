"""A whole agent whose parts each have a token of their own, on a log served over an engine, on a bad network.

The same proof as on an engine: effects counted by another process, every acknowledged record there byte for byte, the
log verified, nothing twice, nothing missing. What looks on reads the engine itself, past the server.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.crash_child import AGENT, known, make_tools
from benchmarks.servers.kafka import KafkaCluster
from benchmarks.servers.postgres import PostgresServer

from logact import LogActAgent, ScriptedModel, open_log
from logact.runtime.setting_up import put_in_force
from logact.server.names import url_of
from tests.engines import agent_job
from tests.engines.agent_job import EngineStage, bad_network
from tests.engines.proxy import Proxy
from tests.server.kit import ServerProcess, token_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOKENS: dict[str, dict[str, Any]] = {
    "driver": {"roles": ["driver"]},
    "voter": {"roles": ["voter"], "voters": ["known"]},
    "decider": {"roles": ["decider"]},
    "executor": {"roles": ["executor"]},
    "recoverer": {"roles": ["recoverer"]},
}


@contextmanager
def serving(url: str) -> Iterator[ServerProcess]:
    """A server over an engine."""
    server = ServerProcess(url, "--requests", "100000")
    try:
        yield server
    finally:
        ended = server.stop()
    assert ended == (0, "")


class ServedStage(EngineStage):
    """A stage whose parts come through a server, each with its token, perhaps over a bad network."""

    server: ServerProcess
    port = 0

    def __init__(self, directory: Path, *_: Any, **more: Any) -> None:
        self._part = "neighbour"
        self.tokens = {
            part: token_file(directory, self.server.token(part, logs=["job"], agents=[AGENT], **scope), part)
            for part, scope in TOKENS.items()
        }
        neighbour = self.server.token("neighbour", ["client"], logs=["job", "neighbour"])
        self.tokens["neighbour"] = token_file(directory, neighbour, "neighbour")
        super().__init__(directory, self.near_url, **more)
        asyncio.run(self._set_up())

    def url(self, scenario: str) -> str:
        address = f"http://127.0.0.1:{self.port}" if self.port and self._part in TOKENS else self.server.address
        return f"logact+{address}/?log={scenario}&token_file={self.tokens[self._part]}&timeout_s=1"

    def near_url(self, scenario: str) -> str:
        return url_of(self.server.engine_url, scenario)

    def start(self, scenario: str, *, part: str = "", **more: Any) -> subprocess.Popen[str]:
        self._part = part
        try:
            return super().start(scenario, part=part, **more)
        finally:
            self._part = "neighbour"

    async def _set_up(self) -> None:
        """The operator, at the engine itself: no part may do this."""
        async with open_log(self.near_url("job")) as log:
            tools = make_tools(None, "job", 0.0)  # type: ignore[arg-type]
            agent = LogActAgent(AGENT, log, [known], model=ScriptedModel(["."]), tools=tools)
            assert await put_in_force(log, agent) == 2


def on_a_bad_network(engine_url: str, directory: Path, patch: pytest.MonkeyPatch) -> None:
    """The job, its parts on the far side of a network to the server, and who looks on at the engine itself."""
    patch.setattr(agent_job, "EngineStage", ServedStage)
    with serving(engine_url) as server, Proxy(server.port) as network:
        ServedStage.server, ServedStage.port = server, network.port
        bad_network(directory, lambda log: log, lambda log: log, network, name="job")


def test_served_over_postgresql(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays, stalls, half a cut, resets, lost answers and a cut between parts and a server over PostgreSQL: nothing
    acts without its commit, and everything resumes.
    """
    on_a_bad_network(postgres.url(postgres.database("served_agent"), "main"), tmp_path, monkeypatch)


def test_served_over_kafka(cluster: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over Kafka, whose numbers have gaps."""
    on_a_bad_network(cluster.url("main").replace("/test?", "/served-agent?"), tmp_path, monkeypatch)
