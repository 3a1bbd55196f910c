"""An arbitrated log in memory: the engine that stands on a real broker, over one that needs no server.

It passes the conformance suite, and shows what the arbitration alone does: numbers with gaps, losers in the log.
"""

from __future__ import annotations

from logact.logs.arbitrated import ArbitratedEngine
from logact.logs.base import EngineInfo
from logact.testing.memory_partitions import MemoryBroker


class MemoryArbitratedEngine(ArbitratedEngine):
    """One process's engine on a broker in memory. Several on one broker are several processes."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        super().__init__(self.broker.partitions())

    def info(self) -> EngineInfo:
        return EngineInfo(
            url="arbitrated:",
            engine="arbitrated",
            survives="nothing: it ends with its process",
            wakes_by="messages",
            notes=self.partitions.settings,
        )


__all__ = ["MemoryArbitratedEngine"]
