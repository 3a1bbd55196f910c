"""The stream that holds one log's records, as one process sees it: followed, remembered, and asked.

One message is one record; its stream sequence is the record's number. Besides records the stream holds empty messages
that prove where its tail is: a majority agreed to each, and whoever has folded up to one has everything that was
acknowledged before it. So record numbers have gaps, and only there.

This file decides nothing about drafts: ``nats_append`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from logact import env as environment
from logact.errors import LogCorrupt, LogError, LogTrimmed, ReadFailed
from logact.logs.base import READ_RECORDS_MAX, Filter, Page, StoredRecord
from logact.logs.nats_follow import Follower
from logact.logs.nats_link import (
    NO_MESSAGE,
    WINDOW_S,
    Answerless,
    Link,
    Refused,
)
from logact.logs.nats_memory import Memory, Message
from logact.logs.nats_settings import check_settings, common_settings, find_or_create
from logact.logs.nats_side import Side, refused, unpacked

LOOK_S = 0.25
"""How often whoever waits looks whether its follower still lives."""

PAGE_BYTES_MAX = 4 * 1024 * 1024
SCAN_RECORDS_MAX = 4096


class Stream:
    """One log's stream. ``info`` is what the server said of it when it was opened."""

    def __init__(self, link: Link, token: str, shown: str) -> None:
        self.link = link
        self.shown = shown
        self.name = f"LOGACT_{token}"
        self.subject = f"logact.{token}"
        self.log_id = ""
        self.info: dict[str, Any] = {}
        self.memory = Memory()
        self.proofs = self.asks = 0
        self.on_news: Callable[[], None] = lambda: None
        self._acknowledged: dict[int, Message] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._prove = Shared(self._prove_now)
        self._ask = Shared(self._ask_now)
        self.side: Side = Side(link, "", "", {})
        self.follower = Follower(link, self.name, self._delivered, self._wake_all)

    # --- life ------------------------------

    async def open(self, replicas: int | None, *, create: bool = True) -> None:
        """Find or (``create``) make the stream, and fold it up to what its leader says is its end."""
        self.info = await find_or_create(self.link, self.name, self.subject, self.shown, replicas, create=create)
        config = self.info["config"]
        check_settings(self.name, config)
        self.log_id = config["metadata"]["logact.log_id"]
        token = self.name.partition("_")[2]
        side = {
            "name": f"LOGACTSIDE_{token}",
            "subjects": [f"logactside.{token}.>"],
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            **common_settings(config["num_replicas"]),
        }
        self.side = Side(self.link, side["name"], f"logactside.{token}", side)
        mark, summary = await self.side.start()
        self.memory = Memory(summary, mark.first)
        await self.catch_up()

    @property
    def batches(self) -> bool:
        """Whether the server appends several records at once, all or none (2.12 and newer)."""
        return bool((self.info.get("config") or {}).get("allow_atomic"))

    async def close(self) -> None:
        """Stop following; whoever waits is woken."""
        await self.follower.close()
        self._wake_all()

    # --- what is delivered ------------------------------

    async def _delivered(self, sequence: int, subject: str, data: bytes, headers: dict[str, str]) -> None:
        if sequence <= self.memory.seq:
            return
        while self.memory.seq + 1 < sequence:
            self._take_acknowledged()
            due = self.memory.seq + 1
            if due < sequence and not (await self._fill(due) or await self._jump()):
                raise await self.hole(due)
        self.take(Message(sequence, data if subject.startswith(f"{self.subject}.r.") else None))

    async def _fill(self, sequence: int) -> bool:
        """Fold a record that was erased before it was delivered. False if it was not erased."""
        held = await self.side.erased(sequence)
        if held is not None:
            self.take(held[0])
        return held is not None

    async def _jump(self) -> bool:
        """Go on from the summary, if what comes next was trimmed before it was delivered here."""
        mark, summary = await self.side.start()
        if summary is None or mark.first <= self.memory.seq + 1:
            return False
        self.memory = self.memory.jumped(summary, mark.first)
        self._take_acknowledged()
        self._wake()
        return True

    async def hole(self, sequence: int) -> LogError:
        """What a missing record means: it was trimmed, or the stream is damaged."""
        first = await self.side.first()
        self.memory.trim(first)
        if sequence < first:
            return LogTrimmed(
                "These records were trimmed",
                received=f"after record {sequence - 1}",
                expected=f"{first - 1} or later",
                todo="start from a checkpoint",
            )
        return LogCorrupt(f"Record {sequence} is missing", received=self.name, todo="restore a backup")

    def take(self, message: Message) -> None:
        """Fold a message that stands next; one that is acknowledged early waits for those before it."""
        if message.seq > self.memory.seq + 1:
            self._acknowledged[message.seq] = message
            return
        self.memory.fold(message)
        self._take_acknowledged()
        self._wake()

    def _take_acknowledged(self) -> None:
        while (message := self._acknowledged.pop(self.memory.seq + 1, None)) is not None:
            self.memory.fold(message)
        if len(self._acknowledged) > SCAN_RECORDS_MAX:
            self._acknowledged.clear()  # the follower brings them

    def _wake(self) -> None:
        if self._waiting:
            still = []
            for upto, future in self._waiting:
                if upto > self.memory.seq and not future.done():
                    still.append((upto, future))
                elif not future.done():
                    future.set_result(None)
            self._waiting = still
        self.on_news()

    def _wake_all(self) -> None:
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting = []
        self.on_news()

    # --- being up to date ------------------------------

    async def follow(self) -> None:
        """See that somebody delivers. Raises ReadFailed, LogTrimmed, LogCorrupt."""
        problem = self.follower.problem
        if isinstance(problem, LogCorrupt):
            raise problem
        try:
            await self.link.until(lambda: self.follower.ensure(lambda: self.memory.seq), "following the log")
        except Refused as refusal:
            raise refused("The log cannot be followed", refusal, reading=True) from None

    async def folded_to(self, sequence: int) -> None:
        """Wait until everything up to ``sequence`` is folded. Raises ReadFailed, LogCorrupt."""
        env = environment.current()
        end = env.monotonic() + WINDOW_S
        while self.memory.seq < sequence:
            await self.follow()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self.memory.seq >= sequence:
                return
            self._waiting.append((sequence, future))
            try:
                async with asyncio.timeout(LOOK_S):
                    await future
            except TimeoutError:
                # the last message of a stream may have been deleted before it was delivered: nothing comes for it
                while self.memory.seq < sequence and (await self._fill(self.memory.seq + 1) or await self._jump()):
                    pass
                if env.monotonic() > end or self.link.client is None:
                    raise ReadFailed(
                        "The log's messages do not arrive",
                        received=f"up to {self.memory.seq}",
                        expected=f"{sequence} within {WINDOW_S:g} s",
                        todo="see whether the servers are overloaded or cut off",
                    ) from None
            finally:
                self._waiting = [entry for entry in self._waiting if entry[1] is not future]

    async def catch_up(self) -> None:
        """Fold up to what the stream's leader says is its end. Calls that come together share one question."""
        await self._ask()

    async def _ask_now(self) -> None:
        self.asks += 1
        try:
            info = await self.link.state_of(self.name)
        except Refused as refusal:
            raise refused("The log cannot be read", refusal, reading=True) from None
        await self.folded_to(int(info["state"]["last_seq"]))

    async def prove(self) -> None:
        """Fold everything that was acknowledged before this call, whatever a leader that was cut off believes."""
        await self._prove()

    async def _prove_now(self) -> None:
        self.proofs += 1
        try:
            sequence, _ = await self.link.until(lambda: self.link.send(f"{self.subject}.n", b"", {}), "a proof")
        except Refused as refusal:
            raise refused("The tail cannot be proved", refusal, reading=True) from None
        self.take(Message(sequence, None))
        await self.folded_to(sequence)

    # --- reading ------------------------------

    async def page(self, after: int, limit: int, matching: Filter | None) -> Page:
        """Records behind ``after`` that are folded already; an empty page where none is. Raises LogTrimmed."""
        memory = self.memory
        if after < memory.first - 1 and limit > 0:
            raise self.hole_below(after)
        limit = min(limit, READ_RECORDS_MAX)
        if limit <= 0 or after >= memory.tail:
            return Page((), after)
        found: list[StoredRecord] = []
        upto = after
        for message in await self._messages(after, limit if matching is None else SCAN_RECORDS_MAX):
            if message.body is None:
                continue
            upto = message.seq
            if matching is None or matching.fits_record(_heads(message.body), message.seq):
                found.append(StoredRecord(message.seq, message.body))
                if len(found) >= limit:
                    break
        return Page(tuple(found), upto)

    def hole_below(self, after: int) -> LogError:
        """Below the first kept record."""
        first = self.memory.first
        return LogTrimmed(
            "These records were trimmed",
            received=f"after record {after}",
            expected=f"{first - 1} or later",
            todo="start from a checkpoint",
        )

    async def _messages(self, after: int, count: int) -> list[Message]:
        """At least one record behind ``after``, which is before the tail; from the cache, or from any replica."""
        memory = self.memory
        if after + 1 >= memory.cached_from:
            recent: list[tuple[int, bytes | None]] = []
            for record in reversed(memory.bodies):
                if record <= after:
                    break
                recent.append((record, memory.bodies[record]))
            found: list[Message] = []
            for record, body in reversed(recent[-count:]):
                if body is None:
                    return found or [await self.one(record)]
                found.append(Message(record, body))
            return found
        fetched: list[Message] = []
        cursor = after
        while not any(message.body is not None for message in fetched):
            part = await self._fetch(cursor + 1, min(count, READ_RECORDS_MAX))
            fetched += part
            cursor = part[-1].seq
        return fetched

    async def _fetch(self, start: int, count: int) -> list[Message]:
        """Messages from ``start`` (not beyond the fold), none left out; at least one."""
        until = self.memory.seq if not self.memory.sealed else self.memory.tail
        question = {"seq": start, "batch": count, "max_bytes": PAGE_BYTES_MAX}
        subject = f"$JS.API.DIRECT.GET.{self.name}"
        answer, _ = await self.link.until(lambda: self.link.gather(subject, question), "reading records")
        found: list[Message] = []
        due = start
        for message in answer:
            headers = message.headers
            sequence = int(headers["Nats-Sequence"])
            while due < sequence and due <= until:
                found.append(await self.one(due))
                due += 1
            if sequence > until:
                break
            is_record = headers["Nats-Subject"].startswith(f"{self.subject}.r.")
            found.append(Message(sequence, message.data if is_record else None))
            due = sequence + 1
        return found or [await self.one(start)]

    async def one(self, sequence: int) -> Message:
        """One message from the stream's leader, or its erased form. Raises LogTrimmed, LogCorrupt."""
        try:
            said = await self.link.insist(f"STREAM.MSG.GET.{self.name}", {"seq": sequence})
        except Refused as refusal:
            if refusal.code != NO_MESSAGE:
                raise refused("A record cannot be read", refusal, reading=True) from None
            held = await self.side.erased(sequence)
            if held is None:
                raise await self.hole(sequence) from None
            self.memory.replace(sequence, held[0].body)
            return held[0]
        data, _, _ = unpacked(said["message"])
        return Message(sequence, data if said["message"]["subject"].startswith(f"{self.subject}.r.") else None)

    async def heads(self, after: int) -> dict[int, Any]:
        """The headers of the records behind ``after`` that are no longer in the cache."""
        found: dict[int, Any] = {}
        cursor = max(after, self.memory.first - 1)
        while cursor + 1 < self.memory.cached_from and cursor < self.memory.tail:
            for message in await self._fetch(cursor + 1, READ_RECORDS_MAX):
                cursor = message.seq
                if message.body is not None:
                    found[message.seq] = _heads(message.body)
        return found


class Shared:
    """Work that many ask for at once: each gets one that began after it asked, and most share it."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._begun = self._done = 0
        self._lock = asyncio.Lock()

    async def __call__(self) -> None:
        needed = self._begun + 1
        async with self._lock:
            if self._done >= needed:
                return
            self._begun += 1
            mine = self._begun
            await self._work()
            self._done = mine


def _heads(body: bytes) -> Any:
    from logact import codec

    try:
        return codec.read_head(body)[0].entries
    except LogCorrupt:
        return ()


__all__ = ["Answerless", "Shared", "Stream"]
