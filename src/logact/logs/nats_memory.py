"""What one process remembers of a log on NATS: the fold of its messages, in the order of the stream.

JetStream forgets message ids after its duplicate window, and knows neither writers' numbers nor idempotency keys nor
seals. This fold does: every message from the beginning (or from a stored summary) to ``seq``, none left out. It also
keeps the headers of recent records for conditions, and their bytes for followers.

This file is pure: it never talks to a server and never waits.
"""

from __future__ import annotations

import zlib

import msgspec

from logact import codec
from logact.codec import EntryHead
from logact.entry import Erased, record_of
from logact.errors import ChainConflict, ConditionFailed, KeyConflict, LogCorrupt, LogSealed
from logact.logs.base import Condition, Draft

CACHED_RECORDS_MAX = 4096
CACHED_BYTES_MAX = 16 * 1024 * 1024
"""How many recent records, and how much of their bytes, are kept for followers and conditions."""

Heads = tuple[EntryHead, ...]


class Message(msgspec.Struct, frozen=True):
    """One message of the stream. ``body`` is None for one that holds no record (a proof of the tail).

    ``digest`` and ``content`` are those of the record as it was appended, where a payload was erased since.
    """

    seq: int
    body: bytes | None
    digest: str = ""
    content: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All that must be known of the messages up to ``seq`` to go on without reading them."""

    seq: int = 0
    tail: int = 0
    sealed: int = 0
    checkpoint: int = 0
    writers: dict[str, tuple[int, int, str]] = {}
    keys: dict[str, tuple[int, str]] = {}

    def pack(self) -> bytes:
        """Its bytes."""
        return zlib.compress(msgspec.json.encode(self))

    @staticmethod
    def unpack(data: bytes) -> Summary:
        """The summary in these bytes. LogCorrupt."""
        try:
            return msgspec.json.decode(zlib.decompress(data), type=Summary)
        except (zlib.error, msgspec.DecodeError) as error:
            raise LogCorrupt("The summary of a log's beginning cannot be read", received=str(error)) from error


class Memory:
    """The fold. ``seq``: the last message folded; ``tail``: the last record; ``first``: the first one kept."""

    def __init__(self, summary: Summary | None = None, first: int = 1) -> None:
        start = summary or Summary()
        self.first = first
        self.seq = start.seq
        self.tail = start.tail
        self.sealed = start.sealed  # the record that holds the seal; whatever stands behind it is void
        self.checkpoint = start.checkpoint
        self.writers = dict(start.writers)  # writer -> (its last number, record, digest of its bytes)
        self.keys = dict(start.keys)
        self.began = start.seq  # messages up to here were not read one by one
        self.heads: dict[int, Heads] = {}
        self.bodies: dict[int, bytes | None] = {}  # None: erased since, to be asked for
        self.cached_from = start.seq + 1  # from here on ``heads`` and ``bodies`` are complete
        self._bytes = 0

    def fold(self, message: Message) -> None:
        """Take in the next message. A message that was folded already changes nothing."""
        if message.seq <= self.seq:
            return
        self.seq = message.seq
        if message.body is None or self.sealed:
            return
        record = self.tail = message.seq
        try:
            head, _ = codec.read_head(message.body)
        except LogCorrupt:
            self._keep(record, message.body, ())  # whoever reads it is told; it stands in nobody's way
            return
        digest = message.digest or codec.digest(message.body)
        last = self.writers.get(head.writer)
        if last is None or head.number > last[0]:
            self.writers[head.writer] = (head.number, record, digest)
        if head.key and head.key not in self.keys:
            self.keys[head.key] = (record, message.content or codec.content_of(message.body))
        for place, entry in enumerate(head.entries):
            if entry.kind == "Seal":
                self.sealed = record
            elif entry.kind == "Checkpoint":
                self.checkpoint = record
            elif entry.kind == "Erased":
                self._forget(message.body, record, place)
        self._keep(record, message.body, head.entries)

    def _keep(self, record: int, body: bytes, heads: Heads) -> None:
        self.heads[record] = heads
        self.bodies[record] = body
        self._bytes += len(body)
        while len(self.bodies) > CACHED_RECORDS_MAX or self._bytes > CACHED_BYTES_MAX:
            oldest = next(iter(self.bodies))
            self._bytes -= len(self.bodies.pop(oldest) or b"")
            del self.heads[oldest]
            self.cached_from = oldest + 1

    def _forget(self, body: bytes, record: int, place: int) -> None:
        """An ``Erased`` entry announces that some bytes go away: what is kept of them here goes too."""
        payload = codec.decode_record(body, record)[place].payload
        if isinstance(payload, Erased):
            self.replace(record_of(payload.target), None)

    def replace(self, record: int, body: bytes | None) -> None:
        """Keep other bytes of a record: its erased form, or None if they have to be asked for."""
        if record in self.bodies:
            self._bytes += len(body or b"") - len(self.bodies[record] or b"")
            self.bodies[record] = body

    def trim(self, first: int) -> None:
        """Records below ``first`` are gone."""
        self.first = max(self.first, first)

    def jumped(self, summary: Summary, first: int) -> Memory:
        """A memory that goes on from a later summary: what lies between was trimmed before it was read here."""
        return Memory(summary, max(first, self.first)) if summary.seq > self.seq else self

    def summary(self) -> Summary:
        """What to store, so that others need not read what lies before."""
        return Summary(
            seq=self.seq,
            tail=self.tail,
            sealed=self.sealed,
            checkpoint=self.checkpoint,
            writers=self.writers,
            keys=self.keys,
        )

    # --- judging a draft ------------------------------

    def behind(self, draft: Draft) -> bool:
        """Whether the draft speaks of something later than what was folded: fold on before judging it."""
        last = self.writers.get(draft.writer, (0, 0, ""))[0]
        return draft.number > last + 1 or (
            draft.condition is not None and record_of(draft.condition.after) > self.tail
        )

    def known(self, draft: Draft) -> tuple[int, bool] | None:
        """(record, whether by this very draft) if it is in the log already, by identity or by key; else None.

        Raises ChainConflict, KeyConflict, LogSealed, in this order.
        """
        number, record, digest = self.writers.get(draft.writer, (0, 0, ""))
        if number and draft.number == number:
            if digest != codec.digest(draft.body):
                raise ChainConflict(
                    f"Writer {draft.writer} already wrote another record number {number}",
                    received=f"other bytes for number {number}",
                    expected=f"the bytes of record {record}",
                    todo="start a new incarnation",
                )
            return record, True
        if draft.number != number + 1 and not (draft.begins and not number):
            raise ChainConflict(
                f"Writer {draft.writer} is out of step",
                received=f"record number {draft.number}",
                expected=str(number + 1),
                todo="start a new incarnation",
            )
        if draft.key in self.keys:
            record, content = self.keys[draft.key]
            if content != draft.content:
                raise KeyConflict(
                    "The idempotency key was used with other content",
                    received=draft.key,
                    expected=f"the content of record {record}",
                    todo="use a fresh key for other content",
                )
            return record, False
        if self.sealed:
            raise LogSealed(
                "The log is sealed",
                received=f"an append after record {self.tail}",
                todo="go on where its Seal entry says",
            )
        return None

    def judge(self, condition: Condition, heads: dict[int, Heads]) -> None:
        """Raise ConditionFailed unless the condition holds now. ``heads`` are those of records before the cache."""
        after = record_of(condition.after)
        if after > self.tail:
            raise ConditionFailed(
                "The condition names a record that is not there",
                received=f"record {after}",
                expected=f"at most {self.tail}",
                todo="the log went back, perhaps to an old copy: run `logact log verify`",
            )
        if after < self.first - 1:
            raise ConditionFailed(
                "The condition looks at records that were trimmed",
                received=f"after record {after}",
                expected=f"record {self.first - 1} or later",
                todo="fold again and retry",
            )
        if condition.unless is None:
            found = self.tail if self.tail > after else 0
        else:
            found = 0
            for part in (self.heads, heads):
                for record in reversed(part):  # conditions look at the last few records, as a rule
                    if record <= after:
                        break
                    if condition.unless.fits_record(part[record], record):
                        found = record
        if found:
            raise ConditionFailed(
                "Something relevant came in between",
                received=f"record {found}",
                expected=f"nothing that matches after record {after}",
                todo="fold again and retry",
            )
