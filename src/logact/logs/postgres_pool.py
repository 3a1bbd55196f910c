"""A small stock of connections for everything but appends: pages, tails, blobs, erasures.

What is asked here may be asked twice: after a connection breaks, the same statement goes to a new one. Appends never
come this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from logact import env as environment
from logact.logs.postgres_connect import Connector, may_retry
from logact.logs.postgres_wire import Answer, Lost, ServerError, Wire

TRIES_MAX = 5


class Pool:
    """Up to ``size`` connections, made when they are needed. Belongs to one event loop."""

    def __init__(self, connector: Connector, size: int) -> None:
        self._connector = connector
        self._idle: list[Wire] = []
        self._turns = asyncio.Semaphore(size)
        self._closed = False

    async def ask(
        self,
        statement: bytes,
        values: Sequence[bytes | None] = (),
        binary: Sequence[bool] = (),
        patience_s: float | None = None,
    ) -> Answer:
        """The answer to a statement that may be repeated. Raises ServerError, Lost, LogUnavailable."""
        async with self._turns:
            for left in reversed(range(TRIES_MAX)):
                wire = await self._take(patience_s)
                try:
                    return await self._ask(wire, statement, values, binary)
                except (Lost, ServerError) as error:
                    again = isinstance(error, Lost) or error.severity != "ERROR" or may_retry(error)
                    if not left or not again or self._closed:
                        raise
                    if isinstance(error, ServerError) and error.sqlstate == "25006":
                        wire.close()
                    elif isinstance(error, Lost):
                        await environment.current().sleep(0.02)
                finally:
                    self._put_back(wire)
        raise Lost("no answer")

    async def _ask(
        self, wire: Wire, statement: bytes, values: Sequence[bytes | None], binary: Sequence[bool]
    ) -> Answer:
        facts = self._connector.facts
        if facts is None or facts.pooled:
            return await wire.ask(statement, values, binary=binary)
        name = wire.prepared.get(statement)
        if name is None:
            wire.names += 1  # a name is never used twice: who asked may be gone when the server's answer comes
            name = f"logact_{wire.names}".encode()
            await wire.ask(b"PREPARE " + name + b" AS " + statement)
            wire.prepared[statement] = name
        return await wire.ask(name, values, prepared=True, binary=binary)

    async def _take(self, patience_s: float | None) -> Wire:
        while self._idle:
            wire = self._idle.pop()
            if not wire.closed:
                return wire
        connection = await self._connector.connect(patience_s)
        return Wire(connection, self._connector.statement_s_max + 5)

    def _put_back(self, wire: Wire) -> None:
        if wire.busy or self._closed:
            wire.close("nobody waits for the answer")
        elif not wire.closed:
            self._idle.append(wire)

    def close(self) -> None:
        """Hang up everything; what is in use when it comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
