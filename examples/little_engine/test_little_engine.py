"""The little engine keeps the contract: the suite that LogAct's own engines pass, adopted in a few lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from little_engine import LittleEngine
from logact.logs.base import Engine
from logact.testing.conformance import EngineConformance


class TestLittleEngine(EngineConformance):
    multi_process = False

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.names = (tmp_path / f"log-{number}" for number in itertools.count())

    async def make_engine(self) -> Engine:
        engine: Engine = LittleEngine(next(self.names))
        return engine

    async def reopen(self, engine: Engine) -> Engine:
        assert isinstance(engine, LittleEngine)
        again: Engine = LittleEngine(engine.path)
        await again.open()
        return again
