"""Whole agents on NATS: killed parts, a killed leader, a bad network; the same proof as on SQLite."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.crash_child import PARTS
from benchmarks.crash_parts import Company, play
from benchmarks.engines.stage import EngineStage
from benchmarks.servers.nats import CONFIGURATION, NatsCluster

from tests.engines.agent_job import bad_network, killed_at_named_points, prove
from tests.engines.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three nodes that do not tell clients of each other, so that nobody finds a way round the proxy."""
    place = tmp_path_factory.mktemp("nats") / "nats.conf"
    text = CONFIGURATION.read_text()
    assert "name: logact\n" in text
    place.write_text(text.replace("name: logact\n", "name: logact\n  no_advertise: true\n"))
    with NatsCluster(configuration=place) as nodes:
        yield nodes


def test_an_agent_killed_at_named_points(nats: NatsCluster, tmp_path: Path) -> None:
    """An agent dies right before and after a record is published, and around effects; its next life goes on."""
    killed_at_named_points(tmp_path, lambda log: nats.url(f"points-{log}"), "nats:staged", "nats:committed")


def test_an_agent_on_a_bad_network(cluster: NatsCluster, tmp_path: Path) -> None:
    """Delays, stalls, resets, lost answers and a cut: nothing acts without its commit, and all of it resumes."""
    with Proxy(cluster.nodes[0].port) as network:
        bad_network(tmp_path, lambda log: f"nats://127.0.0.1:{network.port}?log={log}", cluster.url, network)


def test_an_agent_whose_parts_and_whose_leader_are_killed(cluster: NatsCluster, tmp_path: Path) -> None:
    """Five processes on one log are killed at random, and in the middle of it the server that leads the log."""
    draw = random.Random(5)
    fallen: list[str] = []

    def strike(company: Company, position: int) -> float:
        if company.found.kills < 4 and position:
            part = draw.choice(PARTS) if draw.random() < 0.5 else "executor"
            company.end(part)
            company.begin(part)
        if company.found.kills == 2 and not fallen:
            leader = cluster.leader_of(company.scenario)
            leader.kill()
            fallen.append(leader.name)
        return draw.uniform(0.05, 0.6)

    with EngineStage(tmp_path, cluster.url, rounds=1) as stage:
        found = asyncio.run(play(Company(stage, "leaderless"), strike))
        assert found.kills >= 2 and fallen
        prove(stage, found)
