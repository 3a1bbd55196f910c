"""The ``postgresql:`` engine: many durable logs in one PostgreSQL database, shared by any number of machines.

* Ordered: an append is one call of a function that holds the log's row to its commit, so numbers have no gaps.
* Fast: appends that come together share a transaction; a statement is sent without a cursor in between.
* Pushed: followers LISTEN on a connection of their own; they look by themselves every second in case a
  notification was lost. Behind a transaction pooler there is no LISTEN, so they look more often.

This file owns what an engine does and when it connects. SQL lives in ``postgres_schema``, ``postgres_functions`` and
``postgres_reads``, batches in ``postgres_append``, hosts, settings and error meanings in ``postgres_connect``.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Sequence

from logact import codec
from logact import env as environment
from logact.errors import (
    BlobMissing,
    LogActError,
    LogUnavailable,
)
from logact.logs import postgres_reads as reads
from logact.logs import postgres_setup as setup
from logact.logs import refusals
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page
from logact.logs.network_url import NetworkUrl, parse
from logact.logs.postgres_append import APPEND, PREPARED, Pen
from logact.logs.postgres_bell import Bell
from logact.logs.postgres_connect import Connector, meaning
from logact.logs.postgres_following import POLL_S_MAX, POLL_S_MIN, Followers
from logact.logs.postgres_pool import Pool
from logact.logs.postgres_wire import Answer, Lost, ServerError, Wire

TRIM_RECORDS_MAX = 2000
CONNECTIONS = 4
OPTIONS = ("connections", "patience", "pooler", "timeout", "unsafe_durability")


class PostgresEngine(Engine):
    """One log of one database. Belongs to one event loop at a time; may be closed and opened again elsewhere.

    ``batches`` counts the transactions that were sent to append; ``followers`` knows how they learnt of records.
    """

    def __init__(self, url: NetworkUrl) -> None:
        self.url = url
        self.name = url.log
        self.connector = Connector(url)
        self.followers = Followers(self.tail, self._listen)
        self._connections = int(url.number("connections", CONNECTIONS, 1, 100))
        self._log = 0
        self._is_open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: Pool
        self._pen: Pen
        self._bell: Bell
        self._connecting: asyncio.Lock
        self._unrung = 0

    @property
    def batches(self) -> int:
        """How many transactions this engine has sent; fewer than its appends where they came together."""
        return self._pen.batches

    # --- life ------------------------------

    async def open(self) -> None:
        self._attach()
        if self._is_open:
            return
        try:
            await setup.prepare(self._pool, self.connector)
            self._log, self.log_id = await setup.find(self._pool, self.name, create=self.create)
            self._new_pen()
            self._is_open = True
            self.followers.seen = 0
            await self.tail()
        except (ServerError, Lost) as error:
            self._hang_up()
            raise meaning(error, appending=False) from error
        except BaseException:
            self._hang_up()
            raise

    async def close(self) -> None:
        self._attach()
        env = environment.current()
        end = env.monotonic() + self.connector.statement_s_max
        while self._is_open and not self._pen.idle and self._pen.connected and env.monotonic() < end:
            await env.sleep(0.001)  # what is under way settles first
        self._hang_up()
        self.followers.wake_all()  # whoever still follows finds the log closed

    def _attach(self) -> None:
        """Belong to the running loop: what belonged to an earlier one is void."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                self._hang_up(keep_open=True)
            self._loop = loop
            self.followers.forget()
            self._connecting = asyncio.Lock()
            self._pool = Pool(self.connector, self._connections)
            self._new_pen()

    def _new_pen(self) -> None:
        self._pen = Pen(self._log, durable=not self.connector.unsafe, told=self._appended)
        self._bell = Bell(self._log, self.followers.heard, self._silent)

    def _hang_up(self, *, keep_open: bool = False) -> None:
        self._is_open = self._is_open and keep_open
        self._pool.close()
        self._pool = Pool(self.connector, self._connections)
        self._bell.close()
        if self._pen.wire is not None:
            self._pen.wire.close()
        self._pen.drop()

    # --- writing ------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        self._attach()
        refusals.check_size(draft)
        env = environment.current()
        if env.points:
            env.point("postgres:sending")
        loop = asyncio.get_running_loop()
        while True:
            if not self._pen.connected:
                await self._connect_pen()
            pen = self._pen
            item = pen.submit(draft)
            loop.call_soon(pen.pump)  # whoever is ready to append does so now, and shares the transaction
            try:
                found = await item.future
            except asyncio.CancelledError:
                pen.withdraw(item)
                raise
            if found is not None:
                break
        if env.points:
            env.point("postgres:acknowledged")
        if self._unrung:
            await self._ring_late()
        return found

    async def _connect_pen(self) -> None:
        self._check_open()
        async with self._connecting:
            if self._pen.connected:
                return
            statement = f"PREPARE {PREPARED.decode()} (integer, jsonb, bytea, boolean) AS {APPEND.decode()}".encode()
            connection = await self.connector.connect(prepare=statement)
            pooled = self.connector.facts is not None and self.connector.facts.pooled
            pen = self._pen
            wire = Wire(connection, self.connector.statement_s_max + 5, lost=pen.drop)
            pen.use(wire, prepared=not pooled)

    def _appended(self, record: int, listened: bool) -> None:
        self.followers.appended(record)
        if listened:
            if self._bell.connected:
                self._bell.ring(record)
            else:
                self._unrung = record

    async def _ring_late(self) -> None:
        """Connect the bell for the first ring. Best effort: whoever listens looks by itself, too."""
        record, self._unrung = self._unrung, 0
        try:
            await self._connect_bell()
        except LogActError:
            return
        self._bell.ring(record)

    async def put_blob(self, digest: str, data: bytes) -> None:
        values = [self._number(), digest.encode(), data]
        await self._ask(b"SELECT logact.put_blob($1, $2, $3)", values, (False, False, True))

    async def erase(self, record: int, index: int) -> None:
        for _ in range(10):
            page = await self.read(record - 1, 1)
            if not page.records or page.records[0].record != record:
                raise refusals.no_record(record, 1, self.followers.seen)
            body = page.records[0].body
            refusals.check_index(index, len(codec.read_head(body)[0].entries))
            changed = codec.erase_payload(body, index)
            old = hashlib.sha256(body).digest()
            values = [self._number(), str(record).encode(), old, str(zlib.crc32(changed)).encode(), changed]
            statement = b"SELECT logact.erase($1, $2, $3, $4, $5)"
            answer = await self._ask(statement, values, (False, False, True, False, True))
            if len(answer) and answer.raw(0, 0) is not None:
                return  # else another payload of this record was erased meanwhile: look again
        raise LogUnavailable("The record changes all the time", received=str(record), todo="try again")

    async def trim(self, before: int) -> None:
        values = [self._number(), str(before).encode(), str(TRIM_RECORDS_MAX).encode()]
        while (await self._ask(b"SELECT logact.trim($1, $2, $3)", values)).raw(0, 0) == b"\1":
            pass

    # --- reading ------------------------------

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        if limit <= 0:
            return Page((), after)
        statement, values = reads.question(self._log, after, limit, matching)
        page = reads.page(await self._ask(statement, values), after, limit, matching)
        if page.upto > after:
            self.followers.seen = max(self.followers.seen, page.upto)
        return page

    async def tail(self) -> int:
        answer = await self._ask(reads.TAIL, [self._number()])
        if not len(answer):
            raise LogUnavailable("The log was removed from its database", todo="restore a backup")
        tail = answer.number(0, 0)
        self.followers.seen = max(self.followers.seen, tail)
        return tail

    async def last_checkpoint(self) -> int:
        answer = await self._ask(reads.CHECKPOINT, [self._number()])
        return answer.number(0, 0) if len(answer) else 0

    def hint(self) -> int:
        return self.followers.seen

    async def get_blob(self, digest: str) -> bytes:
        answer = await self._ask(reads.BLOB, [self._number(), digest.encode()])
        data = answer.raw(0, 0) if len(answer) else None
        if data is None:
            raise BlobMissing("There is no such blob in this log", received=digest)
        return data

    async def _ask(self, statement: bytes, values: Sequence[bytes | None], binary: Sequence[bool] = ()) -> Answer:
        self._attach()
        self._check_open()
        try:
            return await self._pool.ask(statement, values, binary)
        except (ServerError, Lost) as error:
            raise meaning(error, appending=False) from error

    def _number(self) -> bytes:
        return str(self._log).encode()

    def _check_open(self) -> None:
        if not self._is_open:
            raise LogUnavailable("The log is closed", received=self.url.shown, todo="open it first")

    # --- waiting for news ------------------------------

    async def wait(self, after: int, timeout_s: float) -> bool:
        self._attach()
        return await self.followers.wait(after, timeout_s)

    async def _listen(self) -> bool:
        """Whether notifications come; best effort, since a follower looks by itself, too."""
        if self._bell.listening and self._bell.connected:
            return True
        facts = self.connector.facts
        if facts is None or facts.pooled or not self._is_open:
            return False
        try:
            await self._connect_bell()
            async with self._connecting:
                return self._bell.listening or await self._bell.listen()
        except (LogActError, ServerError, Lost):
            return False

    async def _connect_bell(self) -> None:
        async with self._connecting:
            if not self._bell.connected:
                bell = self._bell
                connection = await self.connector.connect(0.0)
                answer_s_max = self.connector.statement_s_max + 5
                bell.use(Wire(connection, answer_s_max, heard=bell.hear, lost=self._silent))

    def _silent(self) -> None:
        """The bell's connection is gone: whoever waits looks, and listens again."""
        self._bell.listening = False
        self.followers.wake_all()

    def info(self) -> EngineInfo:
        facts = self.connector.facts
        notes = [f"log {self.name}", *self.url.notes, self.url.tls.said()]
        wakes = f"LISTEN, and a look every {self.followers.look_s:g} s"
        survives = "the end of any process, and power loss at the server (flushed before it is acknowledged)"
        if facts is not None:
            notes.insert(0, f"PostgreSQL {facts.version}")
            if facts.standbys and facts.synchronous in {"on", "remote_apply"}:
                survives += f", and the loss of the primary: standbys {facts.standbys} have it too"
            elif facts.standbys:
                notes.append(f"synchronous_commit={facts.synchronous}: a standby may lack what was acknowledged.")
            if facts.synchronous == "off" or not facts.flushed:
                survives = "the end of any client; NOT power loss, and not always the end of the server"
                notes.append("unsafe_durability=1: what was acknowledged may be lost.")
            if facts.pooled:
                wakes = f"looking every {POLL_S_MIN * 1000:g} to {POLL_S_MAX * 1000:g} ms"
                notes.append(
                    "A transaction pooler stands between: no LISTEN, so followers poll; no prepared statements;"
                    " set statement_timeout on the role instead of in the session."
                )
        return EngineInfo(
            url=self.url.shown, engine="postgresql", survives=survives, wakes_by=wakes, notes=tuple(notes)
        )


def engine_from_url(url: str) -> PostgresEngine:
    """``postgresql://[USER@]HOST[:PORT][,HOST…]/DATABASE?log=NAME``; see docs/engines/postgresql.md for the options.

    Raises UnknownLogUrl, UsageError, LogUnavailable (a secret's file cannot be read).
    """
    return PostgresEngine(parse(url, engine="postgres", options=OPTIONS))


__all__ = ["PostgresEngine", "engine_from_url"]
