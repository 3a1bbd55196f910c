"""SQLite: a file on the disk, against plain rows in a table of a file of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.engines.base import Adapter, Insert


class Nothing:
    """What has to be started and ended."""

    def close(self) -> None:
        """Nothing is to be done."""


class SqliteAdapter(Adapter[Nothing]):
    """No server: files in the run's directory."""

    def begin(self) -> Nothing:
        self.version = f"SQLite {sqlite3.sqlite_version}"
        return Nothing()

    def url(self, log: str) -> str:
        return f"sqlite:///{self.directory / 'engine.db'}?log={log}"

    @asynccontextmanager
    async def raw(self, name: str) -> AsyncIterator[Insert]:
        connection = sqlite3.connect(self.directory / f"{name}.db", isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS raw (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

        async def insert(body: bytes) -> None:
            connection.execute("INSERT INTO raw (body) VALUES (?)", (body,))

        try:
            yield insert
        finally:
            connection.close()


KIND = SqliteAdapter
