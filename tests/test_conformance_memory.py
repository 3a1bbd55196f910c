"""The memory engine keeps the contract."""

from __future__ import annotations

from logact.logs.base import Engine
from logact.logs.memory import MemoryEngine
from logact.testing.conformance import EngineConformance


class TestMemory(EngineConformance):
    durable = False
    multi_process = False

    async def make_engine(self) -> Engine:
        return MemoryEngine()
