"""Kafka: three brokers, every message in three copies, against plain messages of the same producer settings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.engines.base import Adapter, Insert, Servers
from benchmarks.servers import ServerFailed
from benchmarks.servers.kafka import VERSION, KafkaCluster, missing


class KafkaServers(Servers[KafkaCluster]):
    """A cluster of its own. Where there is no Java, no figures: an emulator's would say nothing."""

    settings: dict[str, str] | None = None

    def begin(self) -> KafkaCluster:
        if missing():
            raise ServerFailed(missing())
        self.version = f"Apache Kafka {VERSION}, three brokers"
        return KafkaCluster(settings=self.settings).start()

    def url(self, log: str) -> str:
        return self.running.url(log)


class KafkaAdapter(KafkaServers, Adapter[KafkaCluster]):
    """No broker flushes before it acknowledges, neither for us nor for the plain messages."""

    def begin(self) -> KafkaCluster:
        self.notes.append("no broker flushes before it acknowledges (Kafka's own setting)")
        return super().begin()

    @asynccontextmanager
    async def raw(self, name: str) -> AsyncIterator[Insert]:
        topic = f"raw-{name}"
        await asyncio.to_thread(_make, self.running.bootstrap, topic)
        settings = {"enable.idempotence": True, "acks": "all", "linger.ms": 0, "log_level": 2}
        producer = Producer({"bootstrap.servers": self.running.bootstrap, **settings})
        loop = asyncio.get_running_loop()
        over = threading.Event()

        def poll() -> None:
            while not over.is_set():
                producer.poll(0.1)

        async def insert(body: bytes) -> None:
            done: asyncio.Future[Any] = loop.create_future()

            def delivered(error: Any, message: Any) -> None:
                loop.call_soon_threadsafe(done.set_result, error)

            producer.produce(topic, body, partition=0, on_delivery=delivered)
            error = await done
            if error is not None:
                raise RuntimeError(str(error))

        poller = threading.Thread(target=poll)
        poller.start()
        try:
            yield insert
        finally:
            over.set()
            await asyncio.to_thread(poller.join)


def _make(bootstrap: str, topic: str) -> None:
    """A topic with the guarantees of a log's; nothing if it is there."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    for future in client.create_topics([NewTopic(topic, 1, 3, config={"min.insync.replicas": "2"})]).values():
        try:
            future.result(30)
        except Exception as error:
            if "already exists" not in str(error):
                raise


KIND = KafkaAdapter
