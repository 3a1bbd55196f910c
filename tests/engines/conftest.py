"""Servers that many tests share, started at their first use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.nats_cluster import NatsCluster


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three nodes with the shipped configuration."""
    cluster = NatsCluster(tmp_path_factory.mktemp("nats"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
