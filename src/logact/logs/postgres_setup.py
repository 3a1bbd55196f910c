"""Opening a log in PostgreSQL: the schema is made or brought up to date, and the log is found or made.

Whoever may not change the schema is told who has to. This file reads and writes no records.
"""

from __future__ import annotations

from typing import Any

import psycopg

from logact import env as environment
from logact.errors import LogMissing, LogReadOnly, LogTooNew, LogUnavailable
from logact.logs import postgres_schema as schema
from logact.logs.postgres_append import plain
from logact.logs.postgres_connect import Connector
from logact.logs.postgres_pool import Pool
from logact.logs.postgres_wire import ServerError

OPEN_PATIENCE_S = 2.0
"""How long the first connection is tried for; later ones for ``?patience=`` seconds."""

_MISSING = {"3F000", "42P01"}  # no such schema, no such table
_FIND = b"SELECT id, log_id FROM logact.logs WHERE name = $1"


async def prepare(pool: Pool, connector: Connector) -> None:
    """Make sure that the schema is there and current. An older one is brought up to date by whoever may."""
    newest = len(schema.MIGRATIONS)
    version = 0
    try:
        patience_s = min(OPEN_PATIENCE_S, connector.patience_s)
        version = (await pool.ask(schema.FORMAT.encode(), patience_s=patience_s)).number(0, 0)
    except ServerError as error:
        if error.sqlstate not in _MISSING:
            raise
    if version < newest:
        await _bring_up_to_date(connector, version)
    elif version > newest:
        raise _too_new(version)


def _too_new(version: int) -> LogTooNew:
    return LogTooNew(
        "The database was set up by a newer version of LogAct; nothing was changed",
        received=f"schema version {version}",
        expected=f"at most {len(schema.MIGRATIONS)}",
        todo="upgrade LogAct",
    )


async def _bring_up_to_date(connector: Connector, version: int) -> None:
    connection = await connector.connect(OPEN_PATIENCE_S)
    try:
        await _migrate(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise LogReadOnly(
            "The database is not set up for this version of LogAct, and this role may not do that",
            received=f"schema version {version}: {connector.url.scrub(error).strip()}",
            expected=f"version {len(schema.MIGRATIONS)}",
            todo="run `python -m logact.logs.postgres_schema | psql` as the role that is to own it",
        ) from error
    except psycopg.Error as error:
        raise LogUnavailable(
            "The database could not be set up", received=connector.url.scrub(error).strip(), todo="try again"
        ) from error
    finally:
        connection.pgconn.finish()


async def _migrate(connection: psycopg.AsyncConnection[Any]) -> None:
    """All missing steps in one transaction; others that try the same wait, and find it done."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({schema.LOCK_CLASS}, {schema.MIGRATION_LOCK})")
        found = await (await connection.execute("SELECT to_regclass('logact.format') IS NOT NULL")).fetchone()
        version = 0
        if found is not None and found[0]:
            row = await (await connection.execute(schema.FORMAT)).fetchone()
            version = int(row[0]) if row is not None else 0
        if version > len(schema.MIGRATIONS):
            raise _too_new(version)
        for statements in schema.MIGRATIONS[version:]:
            for statement in statements:
                await connection.execute(statement.encode())
        await connection.execute("UPDATE logact.format SET version = %s", (len(schema.MIGRATIONS),))


async def find(pool: Pool, log: str, *, create: bool = True) -> tuple[int, str]:
    """The log's number in the database, and its id; the log is made if it is missing, or LogMissing raised."""
    name = plain(log).encode()
    answer = await pool.ask(_FIND, [name])
    if not len(answer):
        if not create:
            raise LogMissing("The database holds no log of this name", received=log, todo="check ?log=NAME")
        env = environment.current()
        values = [name, env.identifier().encode(), str(env.wall_ms()).encode()]
        try:
            await pool.ask(b"SELECT logact.open($1, $2, $3)", values)
        except ServerError as error:
            if error.sqlstate != "42501":
                raise
            raise LogReadOnly(
                "There is no such log, and this role may not make one",
                received=log,
                todo="check ?log=NAME, or GRANT logact_writer to the role",
            ) from error
        answer = await pool.ask(_FIND, [name])
    return answer.number(0, 0), (answer.raw(0, 1) or b"").decode()
