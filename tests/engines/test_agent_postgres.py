"""Whole agents on PostgreSQL: killed around their appends, and on a bad network; the same proof as on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.servers.postgres import PostgresServer

from tests.engines.agent_job import bad_network, killed_at_named_points
from tests.engines.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_an_agent_killed_at_named_points(postgres: PostgresServer, tmp_path: Path) -> None:
    """An agent dies right before and after the server commits, and around effects; its next life goes on."""
    database = postgres.database("points")
    killed_at_named_points(
        tmp_path, lambda log: postgres.url(database, log), "postgres:sending", "postgres:acknowledged"
    )


def test_an_agent_on_a_bad_network(postgres: PostgresServer, tmp_path: Path) -> None:
    """Delays, stalls, resets, lost answers and a cut: nothing acts without its commit, and all of it resumes."""
    database = postgres.database("weather")
    with Proxy(postgres.port) as network:

        def far(log: str) -> str:
            return f"postgresql://logact@127.0.0.1:{network.port}/{database}?log={log}&timeout=1"

        bad_network(tmp_path, far, lambda log: postgres.url(database, log), network)
