"""The served example over engines on the network: the same command, another URL, the same story."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.servers.nats import NatsCluster
from benchmarks.servers.postgres import PostgresServer

from tests.test_examples import run, told_by_served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_over_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    """Nine processes over PostgreSQL."""
    done = run("-m", "examples.served", "--on", postgres.url(postgres.database("served"), "main"), where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told_by_served(done.stdout)


def test_over_nats(nats: NatsCluster, tmp_path: Path) -> None:
    """Nine processes over three NATS nodes."""
    done = run("-m", "examples.served", "--on", nats.url("main"), where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told_by_served(done.stdout)
