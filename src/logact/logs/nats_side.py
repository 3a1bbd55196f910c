"""What a log on NATS keeps beside its records: blobs, the erased form of records, and the summary of its beginning.

All of it is in one companion stream with one message for each subject, made when it is first needed:

* ``b.DIGEST.N``: the N-th part of a blob. Part 0 is written last and says how many there are.
* ``e.SEQUENCE``: a record with a payload erased; the record itself is then overwritten and deleted.
* ``s.ID.N``: the parts of a summary (see ``nats_memory``); ``t``: which one is in force, and the first record kept.

This file knows nothing of appends.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec

from logact import codec
from logact import env as environment
from logact.errors import BlobMissing, LogCorrupt, LogError, LogUnavailable, ReadFailed
from logact.logs.nats_link import NO_MESSAGE, NO_STREAM, WRONG_SEQUENCE, Headers, Link, Refused, last_sequence
from logact.logs.nats_memory import Message, Summary

PART_BYTES_MAX = 512 * 1024
PARTS_AT_ONCE = 4


class Mark(msgspec.Struct, frozen=True):
    """Which summary is in force (empty: none), how many parts it has, and the first record that is kept."""

    first: int = 1
    summary: str = ""
    parts: int = 0
    seq: int = 0


class Side:
    """The companion stream of one log."""

    def __init__(self, link: Link, stream: str, subject: str, config: dict[str, Any]) -> None:
        self.link = link
        self.stream = stream
        self.subject = subject
        self._config = config
        self._there = False

    # --- its messages ------------------------------

    async def _create(self) -> None:
        if not self._there:
            await self.link.insist(f"STREAM.CREATE.{self.stream}", self._config)
            self._there = True

    async def _put(self, name: str, data: bytes, headers: Headers, expected: int | None = None) -> bool:
        """Store a message, durable on return. False if its last sequence is not the expected one.

        Raises LogUnavailable, ReadFailed: it may be stored or not then, which harms nobody.
        """
        await self._create()
        if expected is not None:
            headers = {**headers, "Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            await self.link.until(
                lambda: self.link.send(f"{self.subject}.{name}", data, headers), "storing beside the log"
            )
        except Refused as refusal:
            if refusal.code in WRONG_SEQUENCE:
                return False
            if refusal.code == NO_STREAM:
                self._there = False
            raise refused("Nothing can be stored beside the log", refusal) from None
        return True

    async def _get(self, name: str) -> tuple[bytes, Headers, int] | None:
        """A message, its headers and its sequence, from the stream's leader; None if it says that there is none."""
        try:
            said = await self.link.insist(f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": f"{self.subject}.{name}"})
        except Refused as refusal:
            if refusal.code in {NO_MESSAGE, NO_STREAM}:
                return None
            raise refused("What is stored beside the log cannot be read", refusal, reading=True) from None
        return unpacked(said["message"])

    # --- blobs ------------------------------

    async def put_blob(self, digest: str, data: bytes) -> None:
        """Store a blob; durable on return."""
        size = self._part_bytes()
        parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        gate = asyncio.Semaphore(PARTS_AT_ONCE)

        async def put(number: int) -> None:
            async with gate:
                await self._put(f"b.{digest}.{number}", parts[number], {}, expected=0)

        async with _Group() as group:
            for number in range(1, len(parts)):
                group.start(put(number))
        await self._put(f"b.{digest}.0", parts[0], {"Logact-Parts": str(len(parts))}, expected=0)

    async def get_blob(self, digest: str) -> bytes:
        """A blob's bytes. Raises BlobMissing, ReadFailed, LogCorrupt."""
        first = await self._get(f"b.{digest}.0")
        if first is None and await self._proved():
            first = await self._get(f"b.{digest}.0")
        if first is None:
            raise BlobMissing("There is no such blob in this log", received=digest)
        return await self._joined(f"b.{digest}", first, int(first[1].get("Logact-Parts", "1")))

    async def _proved(self) -> bool:
        """A write of nothing that a majority agreed to; False if there is no companion stream at all.

        What its leader says afterwards is not the word of one that was cut off.
        """
        if await self._missing():
            return False
        try:
            await self.link.until(lambda: self.link.send(f"{self.subject}.p", b"", {}), "a proof")
        except Refused as refusal:
            raise refused("The blob store cannot be read", refusal, reading=True) from None
        return True

    async def _missing(self) -> bool:
        try:
            await self.link.insist(f"STREAM.INFO.{self.stream}")
        except Refused as refusal:
            return refusal.code == NO_STREAM
        return False

    async def _joined(self, name: str, first: tuple[bytes, Headers, int], parts: int) -> bytes:
        found = [first[0]]
        for number in range(1, parts):
            part = await self._get(f"{name}.{number}")
            if part is None:
                raise LogCorrupt(f"Part {number} of {parts} is missing", received=name, todo="restore a backup")
            found.append(part[0])
        return b"".join(found)

    def _part_bytes(self) -> int:
        return max(1024, min(PART_BYTES_MAX, (self.link.max_payload - 8192) * 3 // 4))

    # --- erased records ------------------------------

    async def erased(self, sequence: int) -> tuple[Message, int] | None:
        """The erased form of a record and where it is stored; None if that record was never erased."""
        found = await self._get(f"e.{sequence}")
        if found is None:
            return None
        data, headers, at = found
        return (
            Message(sequence, data, headers.get("Logact-Digest", ""), headers.get("Logact-Content", "")),
            at,
        )

    async def erase(self, message: Message, index: int) -> Message:
        """Store a record with one more payload erased."""
        while True:
            held = await self.erased(message.seq)
            base, at = held or (message, 0)
            body = base.body or b""
            form = Message(
                base.seq,
                codec.erase_payload(body, index),
                base.digest or codec.digest(body),
                base.content or codec.content_of(body),
            )
            headers = {"Logact-Digest": form.digest, "Logact-Content": form.content}
            if await self._put(f"e.{form.seq}", form.body or b"", headers, expected=at):
                return form

    # --- the summary ------------------------------

    async def start(self) -> tuple[Mark, Summary | None]:
        """Where a reader begins. Raises ReadFailed, LogCorrupt."""
        for _ in range(5):
            held = await self._get("t")
            if held is None:
                return Mark(), None
            mark = msgspec.json.decode(held[0], type=Mark)
            if not mark.summary:
                return mark, None
            first = await self._get(f"s.{mark.summary}.0")
            if first is not None:
                try:
                    return mark, Summary.unpack(await self._joined(f"s.{mark.summary}", first, mark.parts))
                except LogCorrupt:
                    if (await self._get("t") or held)[2] == held[2]:
                        raise
            # another process put a newer one in its place meanwhile
        raise LogCorrupt("The summary of the log's beginning is missing", todo="restore a backup")

    async def first(self) -> int:
        """The first record that is kept."""
        held = await self._get("t")
        return msgspec.json.decode(held[0], type=Mark).first if held is not None else 1

    async def summarise(self, summary: Summary, first: int) -> int:
        """Put a summary in force, and the first record that is kept, never an earlier one; returns that."""
        data = summary.pack()
        size = self._part_bytes()
        name = environment.current().identifier()
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        for number, part in enumerate(parts):
            await self._put(f"s.{name}.{number}", part, {})
        while True:
            held = await self._get("t")
            old = msgspec.json.decode(held[0], type=Mark) if held is not None else Mark()
            if old.summary == name:
                return old.first  # an earlier try, which nobody confirmed
            if old.seq >= summary.seq and old.first >= first:
                await self._drop(name)
                return old.first
            newer = old.seq >= summary.seq  # the one in force knows more: only the first record moves
            mark = Mark(
                max(first, old.first),
                old.summary if newer else name,
                old.parts if newer else len(parts),
                max(old.seq, summary.seq),
            )
            if await self._put("t", msgspec.json.encode(mark), {}, expected=held[2] if held is not None else 0):
                await self._drop(name if newer else old.summary)
                return mark.first

    async def _drop(self, summary: str) -> None:
        if summary:
            try:
                await self.link.insist(f"STREAM.PURGE.{self.stream}", {"filter": f"{self.subject}.s.{summary}.>"})
            except (Refused, LogError):
                pass  # some bytes that nobody needs stay behind


class _Group:
    """A task group whose first error comes out as it is."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> _Group:
        await self._group.__aenter__()
        return self

    def start(self, work: Any) -> None:
        """Begin one piece of work."""
        self._group.create_task(work)

    async def __aexit__(self, *what: Any) -> None:
        try:
            await self._group.__aexit__(*what)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def unpacked(message: dict[str, Any]) -> tuple[bytes, Headers, int]:
    """A message of the API's: its bytes, its headers, its sequence."""
    return base64.b64decode(message.get("data", "")), headers_of(message.get("hdrs", "")), int(message["seq"])


def headers_of(encoded: str) -> Headers:
    """Headers as the API writes them."""
    lines = base64.b64decode(encoded).decode(errors="replace").split("\r\n")[1:]
    return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def refused(message: str, refusal: Refused, *, reading: bool = False) -> LogError:
    """The error for a server's no."""
    kind = ReadFailed if reading else LogUnavailable
    return kind(message, received=f"{refusal.text} (error {refusal.code})", todo="see the servers' logs")


__all__ = ["Mark", "Side", "last_sequence", "refused", "unpacked"]
