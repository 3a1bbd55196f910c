"""How the Kafka client is set up, besides what a log's URL says. This file only holds settings."""

from __future__ import annotations

from typing import Any

CLIENT: dict[str, Any] = {
    "client.id": "logact",
    "log_level": 2,
    "allow.auto.create.topics": False,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
    "socket.timeout.ms": 5_000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.fast.interval.ms": 100,
}
PRODUCER: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 0,
    "request.timeout.ms": 4_000,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 500,
    "message.max.bytes": 1_040_000,
}
CONSUMER: dict[str, Any] = {
    "group.id": "logact",  # required, and not used: partitions are assigned, nothing is committed
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_uncommitted",  # every reader has to see the same messages at the same time
    "check.crcs": True,
    "fetch.error.backoff.ms": 50,
    "fetch.queue.backoff.ms": 20,
    "queued.max.messages.kbytes": 16_384,
}

__all__ = ["CLIENT", "CONSUMER", "PRODUCER"]
