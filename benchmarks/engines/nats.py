"""NATS: three nodes that flush each write, against the client's own publish into a stream with three replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats

from benchmarks.engines.base import Adapter, Insert
from benchmarks.servers.nats import NatsCluster


class NatsAdapter(Adapter):
    """A cluster with the configuration that LogAct ships."""

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

    @asynccontextmanager
    async def raw(self, name: str) -> AsyncIterator[Insert]:
        if self.cluster is None:
            raise RuntimeError("not started")
        client = await nats.connect([f"nats://{server}" for server in self.cluster.servers.split(",")])
        try:
            stream = client.jetstream()
            await stream.add_stream(name=f"RAW-{name}", subjects=[f"raw.{name}"], num_replicas=3)
            await asyncio.sleep(0.2)  # until every server knows who serves the subject

            async def insert(body: bytes) -> None:
                await stream.publish(f"raw.{name}", body)

            yield insert
        finally:
            await client.close()


ADAPTER = NatsAdapter
