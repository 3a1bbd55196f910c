"""PostgreSQL: one server with ``synchronous_commit=on``, against plain rows inserted by psycopg."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from benchmarks.engines.base import Adapter, Insert
from benchmarks.servers.postgres import SUPERUSER, PostgresServer


class PostgresAdapter(Adapter[PostgresServer]):
    """A server of its own, on TCP."""

    def begin(self) -> PostgresServer:
        server = PostgresServer().start()
        try:
            self.version = f"PostgreSQL {server.sql('SHOW server_version')}"
            server.database("bench")
        except BaseException:
            server.close()
            raise
        return server

    def url(self, log: str) -> str:
        return self.running.url("bench", log)

    @asynccontextmanager
    async def raw(self, name: str) -> AsyncIterator[Insert]:
        place = f"host=127.0.0.1 port={self.running.port} user={SUPERUSER} dbname=bench"
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


KIND = PostgresAdapter
