"""The ``nats:`` engine: one log in one replicated JetStream stream.

* Durable: an append is acknowledged by a majority of the servers; with ``sync_interval: always`` after their flush.
* Available: one of three servers may die; appends and reads wait through the election, and lose or double nothing.
* Pushed: a consumer delivers every message; this process folds them and serves followers from memory.

This file is the engine's face: URL, life, reading, waiting. ``nats_append`` appends, ``nats_stream`` follows and
reads, ``nats_memory`` remembers, ``nats_side`` keeps blobs and what was erased, ``nats_link`` talks to the servers,
``nats_checks`` looks at their settings.
"""

from __future__ import annotations

import asyncio
import re

from logact import codec
from logact import env as environment
from logact.errors import LogError, LogTrimmed, UnknownLogUrl, UsageError
from logact.logs import nats_checks
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page
from logact.logs.nats_append import Appender
from logact.logs.nats_link import Answerless, Link, Refused
from logact.logs.nats_side import refused
from logact.logs.nats_stream import LOOK_S, Stream
from logact.logs.network_url import NetworkUrl, parse

SUMMARY_MESSAGES = 5000
"""Whoever had to read more than this to open a log leaves a summary for the next."""

SURE_S = 5.0
"""Whoever waits asks the leader after so much time without any other answer, and again until there is one."""

SURE_ANSWER_S_MAX = 1.0

REPLICAS_MAX = 5
TOKEN_MAX = 180

_GONE = frozenset({10037, 10043, 10057})


class NatsEngine(Engine):
    """One log on one cluster. Belongs to one event loop at a time; may be closed and opened again elsewhere."""

    def __init__(self, url: NetworkUrl) -> None:
        if url.path:
            raise UnknownLogUrl(
                "The URL of a log on NATS has no path",
                received=url.shown,
                expected="nats://HOST:4222,HOST2:4222?log=NAME",
                todo=f"write ?log={url.path.strip('/')}",
            )
        self.url = url
        self.replicas = int(url.number("replicas", 0, 1, REPLICAS_MAX)) or None
        self.monitors = nats_checks.addresses(url.options.get("monitor", ""))
        self.allow_unsafe_sync = url.flag("allow_unsafe_sync")
        self.sync = nats_checks.Sync(unknown=("the servers",))
        self.link = Link(url)
        self.stream = Stream(self.link, token_of(url.log), url.shown)
        self.pen = Appender(self.stream)
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    # --- life ------------------------------

    async def open(self) -> None:
        await self.close()
        self.link = Link(self.url)
        await self.link.connect()
        try:
            nats_checks.check_version(self.link.server("version"))
            self.stream = Stream(self.link, token_of(self.url.log), self.url.shown)
            self.stream.on_news = self._news
            self.pen = Appender(self.stream)
            await self.stream.open(self.replicas, create=self.create)
            self.sync = await nats_checks.look(self.link, self.monitors, self._holders())
            nats_checks.refuse_unless_safe(self.sync, allowed=self.allow_unsafe_sync)
            await self._listen_for_holds()
            await self._leave_a_summary()
        except Refused as refusal:
            await self.close()
            raise refused("JetStream does not open the log", refusal) from None
        except BaseException:
            await self.close()
            raise
        self.log_id = self.stream.log_id

    async def close(self) -> None:
        await self.stream.close()
        await self.link.close()
        self._news(everyone=True)  # whoever still follows finds the log closed

    def _holders(self) -> tuple[str, ...]:
        """The names of the servers that hold the log."""
        cluster = self.stream.info.get("cluster") or {}
        names = [cluster.get("leader", ""), *(one.get("name", "") for one in cluster.get("replicas", []))]
        found = tuple(sorted(name for name in names if name))
        return found or (self.link.server("server_name") or "the server",)

    async def _listen_for_holds(self) -> None:
        pen = self.pen

        async def hold(_: object) -> None:
            pen.hold()

        await self.link.client.subscribe(f"{self.stream.subject}.hold", cb=hold)

    async def _leave_a_summary(self) -> None:
        memory = self.stream.memory
        if memory.seq - memory.began > SUMMARY_MESSAGES:
            try:
                await self.stream.side.summarise(memory.summary(), memory.first)
            except (LogError, Answerless):
                pass  # it only makes the next opening faster

    # --- writing ------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        return await self.pen.append(draft)

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self.stream.side.put_blob(digest, data)

    async def erase(self, record: int, index: int) -> None:
        """Store the record without the payload, then overwrite and delete the message that held it."""
        stream = self.stream
        await stream.catch_up()
        memory = stream.memory
        if record < memory.first:
            raise LogTrimmed("This record was trimmed", received=str(record), expected=f"{memory.first} or later")
        if record > memory.tail:
            raise UsageError("There is no such record", received=str(record), expected=f"up to {memory.tail}")
        message = await stream.one(record)
        if message.body is None:
            raise UsageError("There is no such record", received=str(record), expected="the number of a record")
        entries = len(codec.read_head(message.body)[0].entries)
        if not 0 <= index < entries:
            raise UsageError("There is no such entry", received=str(index), expected=f"0 to {entries - 1}")
        form = await stream.side.erase(message, index)
        try:
            await self.link.insist(f"STREAM.MSG.DELETE.{stream.name}", {"seq": record})
        except Refused as refusal:
            if refusal.code not in _GONE or (await stream.one(record)).digest != form.digest:
                raise refused("A record cannot be erased", refusal) from None
        memory.replace(record, form.body)

    async def trim(self, before: int) -> None:
        """Store a summary of what goes away, then purge it."""
        stream = self.stream
        await stream.catch_up()
        memory = stream.memory
        before = min(before, memory.tail + 1)
        if before <= memory.first:
            return
        first = await stream.side.summarise(memory.summary(), before)
        try:
            await self.link.insist(f"STREAM.PURGE.{stream.name}", {"seq": first})
        except Refused as refusal:
            raise refused("The log cannot be trimmed", refusal) from None
        memory.trim(first)

    # --- reading ------------------------------

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        """What is folded needs no question: it is true, if not all. "There is nothing more" is asked for.

        Only a page that begins where the fold ended can say ``end``; whoever reads what was pushed looks once more.
        """
        asked = limit > 0 and after >= self.stream.memory.tail
        if asked:
            await self.stream.catch_up()
        page = await self.stream.page(after, limit, matching)
        return Page(page.records, page.upto, end=asked and page.upto >= self.stream.memory.tail)

    async def tail(self) -> int:
        await self.stream.prove()
        return self.stream.memory.tail

    def hint(self) -> int:
        return self.stream.memory.tail

    async def last_checkpoint(self) -> int:
        await self.stream.catch_up()
        memory = self.stream.memory
        return memory.checkpoint if memory.checkpoint >= memory.first else 0

    async def get_blob(self, digest: str) -> bytes:
        return await self.stream.side.get_blob(digest)

    # --- waiting for news ------------------------------

    async def wait(self, after: int, timeout_s: float) -> bool:
        env = environment.current()
        end = env.monotonic() + timeout_s
        while self.stream.memory.tail <= after:
            left = end - env.monotonic()
            if left <= 0:
                return False
            if self.link.client is None:
                return True  # closed: whoever follows meets the error in its own read
            await self._see_that_the_server_serves()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((after, future))
            try:
                async with asyncio.timeout(min(left, LOOK_S)):
                    await self._see_that_news_comes()
                    await future
            except TimeoutError:
                pass
            except LogError:
                return True
            finally:
                self._waiters = [entry for entry in self._waiters if entry[1] is not future]
        return True

    async def _see_that_the_server_serves(self) -> None:
        """A server that is cut off from the others stays connected and has no news: one question tells them apart."""
        if environment.current().monotonic() - self.link.served_s < SURE_S:
            return
        try:
            async with asyncio.timeout(SURE_ANSWER_S_MAX):
                await self.link.leader_says(self.stream.name)
                self.link.served()
        except TimeoutError:
            await self.link.unserved()
        except (Answerless, Refused):
            pass  # an election, or a server that will be left at one of the next looks

    async def _see_that_news_comes(self) -> None:
        follower = self.stream.follower
        if not follower.alive:
            try:
                await follower.ensure(lambda: self.stream.memory.seq)
            except (Answerless, Refused):
                pass  # an election; it is tried again at the next look

    def _news(self, *, everyone: bool = False) -> None:
        tail = self.stream.memory.tail
        for after, future in self._waiters:
            if (everyone or tail > after) and not future.done():
                future.set_result(None)

    def info(self) -> EngineInfo:
        replicas = int((self.stream.info.get("config") or {}).get("num_replicas", self.replicas or 3))
        notes = [f"Log {self.url.log}, {replicas} replicas: {', '.join(self._holders())}.", self.sync.note()]
        notes += [self.url.tls.said(), *self.url.notes]
        if replicas < 3:
            notes.append("Only one server holds the log: its disk is the only copy, and it stops when that stops.")
        if self.link.client is not None and self.link.max_payload < codec.RECORD_BYTES_MAX:
            notes.append(f"The server takes messages of at most {self.link.max_payload} bytes: larger records fail.")
        power = "power loss of all of them" if self.sync.safe else "not a power loss of several"
        survives = f"the loss of {(replicas - 1) // 2} of {replicas} servers, and {power}"
        if replicas == 1:
            survives = "the end of any process, and " + ("power loss" if self.sync.safe else "no power loss")
        return EngineInfo(
            url=self.url.shown,
            engine="nats",
            survives=survives,
            wakes_by="push: a consumer delivers each message",
            notes=tuple(notes),
        )


def token_of(log: str) -> str:
    """A log's name as a part of stream names and subjects, which hold no dots and slashes."""
    token = re.sub(r"[^A-Za-z0-9_-]", lambda found: f"={ord(found.group()):02X}", log)
    return token if len(token) <= TOKEN_MAX else "=" + codec.digest(log.encode())


def engine_from_url(url: str) -> NatsEngine:
    """``nats://HOST:4222,HOST2:4222?log=NAME``, see docs/engines/nats.md. Raises UnknownLogUrl, UsageError."""
    return NatsEngine(
        parse(
            url,
            engine="nats",
            options=("replicas", "monitor", "allow_unsafe_sync", "creds"),
            secrets=("password", "token"),
        )
    )


__all__ = ["NatsEngine", "engine_from_url"]
