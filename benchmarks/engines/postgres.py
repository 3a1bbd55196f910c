"""PostgreSQL: one server with ``synchronous_commit=on``, against plain rows inserted by psycopg."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from benchmarks.engines.base import Adapter, Insert
from benchmarks.servers.postgres import SUPERUSER, PostgresServer


class PostgresAdapter(Adapter):
    """A server of its own, on TCP."""

    server: PostgresServer | None = None

    def start(self) -> None:
        self.server = PostgresServer()
        self.server.start()
        self.version = f"PostgreSQL {self.server.sql('SHOW server_version')}"
        self.server.database("bench")

    def close(self) -> None:
        if self.server is not None:
            self.server.close()

    def url(self, log: str) -> str:
        if self.server is None:
            raise RuntimeError("not started")
        return self.server.url("bench", log)

    @asynccontextmanager
    async def raw(self, name: str) -> AsyncIterator[Insert]:
        if self.server is None:
            raise RuntimeError("not started")
        place = f"host=127.0.0.1 port={self.server.port} user={SUPERUSER} dbname=bench"
        async with await psycopg.AsyncConnection.connect(place, autocommit=True) as connection:
            table = f"raw_{name.replace('-', '_')}"
            await connection.execute("SELECT pg_advisory_lock(1)")  # or two would make it at once
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (id bigserial PRIMARY KEY, body bytea NOT NULL)".encode()
            )
            await connection.execute("SELECT pg_advisory_unlock(1)")
            statement = f"INSERT INTO {table} (body) VALUES (%b)".encode()

            async def insert(body: bytes) -> None:
                await connection.execute(statement, (body,), prepare=True)

            yield insert


ADAPTER = PostgresAdapter
