"""The Kafka that these tests run on: three real brokers, or the emulator where Java or Maven is missing."""

from __future__ import annotations

from benchmarks.servers.kafka import Emulator, KafkaCluster, missing

KafkaLike = KafkaCluster | Emulator


def start_kafka() -> KafkaLike:
    """Start what this machine can run."""
    return Emulator().start() if missing() else KafkaCluster().start()


def report() -> str:
    """What the test report says about it."""
    why = missing()
    if why:
        return f"kafka: {why}, so an emulator stands in: semantics only, nothing about crashes or lost brokers"
    return ""
