"""The SQLite engine keeps the contract: on a file of its own, as one of many logs, and without inotify or tickets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from logact.logs import doorbell, file_lock
from logact.logs.base import Engine
from logact.logs.sqlite import SqliteEngine, engine_from_url
from logact.testing.conformance import EngineConformance


class TestSqlite(EngineConformance):
    one_file: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path
        self.made = 0

    async def make_engine(self) -> Engine:
        self.made += 1
        file, log = ("all", f"log-{self.made}") if self.one_file else (f"file-{self.made}", "main")
        return engine_from_url(f"sqlite:///{self.place}/{file}.db?log={log}")

    async def another(self, engine: Engine) -> Engine:
        assert isinstance(engine, SqliteEngine)
        return SqliteEngine(engine.path, engine.store.name)

    async def reopen(self, engine: Engine) -> Engine:
        await engine.close()
        again = await self.another(engine)
        await again.open()
        return again


class TestManyLogsInOneFile(TestSqlite):
    one_file = True


class TestThreads(TestSqlite):
    """Every commit takes the way through a worker thread, as on a slow disk."""

    @pytest.fixture(autouse=True)
    def _slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("logact.logs.sqlite_store.INLINE_COMMIT_S_MAX", 0.0)


class TestWholeBatchesInThreads(TestSqlite):
    """Nothing is written on the event loop, as when other processes have the lock."""

    @pytest.fixture(autouse=True)
    def _crowded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("logact.logs.sqlite_store.INLINE_ITEMS_MAX", 0)


class TestWithoutInotify(TestSqlite):
    """As on systems that have neither inotify nor byte-range locks by open file."""

    @pytest.fixture(autouse=True)
    def _without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doorbell, "_libc", None)
        monkeypatch.setattr(file_lock, "_SETLK", None)
