"""The PostgreSQL engine keeps the contract, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from benchmarks.servers.postgres import PostgresServer

from logact.logs.base import Engine
from logact.logs.postgres import PostgresEngine, engine_from_url
from logact.testing.conformance import EngineConformance

NUMBERS = count(1)


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> Iterator[str]:
    """A database for this module."""
    yield postgres.database("conformance")


class TestPostgres(EngineConformance):
    @pytest.fixture(autouse=True)
    def _place(self, postgres: PostgresServer, database: str) -> None:
        self.server, self.database = postgres, database

    async def make_engine(self) -> Engine:
        return engine_from_url(self.server.url(self.database, f"log-{next(NUMBERS)}"))

    async def another(self, engine: Engine) -> Engine:
        assert isinstance(engine, PostgresEngine)
        return PostgresEngine(engine.url)

    async def reopen(self, engine: Engine) -> Engine:
        await engine.close()
        again = await self.another(engine)
        await again.open()
        return again
