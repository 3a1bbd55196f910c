"""NATS: three nodes that flush each write, against the client's own publish into a stream with three replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats

from benchmarks.engines.base import Adapter, Insert, Servers
from benchmarks.servers.nats import NatsCluster


class NatsServers(Servers[NatsCluster]):
    """A cluster with the configuration that LogAct ships."""

    def begin(self) -> NatsCluster:
        cluster = NatsCluster().start()
        self.version = f"NATS {cluster.nodes[0].ask('/varz')['version']}, 3 nodes, sync_interval always"
        return cluster

    def url(self, log: str) -> str:
        return self.running.url(log)


class NatsAdapter(NatsServers, Adapter[NatsCluster]):
    """Against a stream with as many copies."""

    @asynccontextmanager
    async def raw(self, name: str) -> AsyncIterator[Insert]:
        client = await nats.connect([f"nats://{server}" for server in self.running.servers.split(",")])
        try:
            stream = client.jetstream()
            await stream.add_stream(name=f"RAW-{name}", subjects=[f"raw.{name}"], num_replicas=3)
            await asyncio.sleep(0.2)  # until every server knows who serves the subject

            async def insert(body: bytes) -> None:
                await stream.publish(f"raw.{name}", body)

            yield insert
        finally:
            await client.close()


KIND = NatsAdapter
