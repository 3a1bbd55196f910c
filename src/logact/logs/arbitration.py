"""Arbitration: how a log that knows no conditional append gets one, by a rule that every reader applies alike.

Writers send *messages* to one totally ordered partition, whatever stands there. Each message carries what it asks
for (a record and its condition, a trim, an erasure), and the rule below, folded over the messages in their order,
says which of them take effect. A record's number is its message's offset + 1, so it never changes, and numbers
have gaps where messages lost or were none.

``Arbiter`` is pure: no clock, no chance, no I/O. Two arbiters that saw the same messages are equal, whether they
saw them one by one or began with a snapshot (``arbitration_state``). This file knows no particular broker.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from typing import Literal

import msgspec

from logact import codec
from logact.codec import EntryHead
from logact.entry import record_of
from logact.errors import (
    ChainConflict,
    ConditionFailed,
    KeyConflict,
    LogCorrupt,
    LogError,
    LogSealed,
    LogTooNew,
)
from logact.logs.base import Condition, Draft, Filter
from logact.logs.winners import Winners

LOOKBACK_RECORDS = 20_000
"""How many of the latest records a condition can look back over. Part of the rule: fixed when a log begins."""

VERSION = 1
"""The version of the rule. A reader that meets a newer one stops, since it would drop other messages."""


class BlobPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a blob's pieces are: offsets in the partition for blobs."""

    digest: str
    size: int
    offsets: tuple[int, ...]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a message asks for, besides the bytes of its record.

    ``append``: the record that follows. ``begin``: this log id, if the log has none. ``mark``: nothing; whoever has
    read up to its own mark has read everything that was acknowledged before. ``trim``, ``erase``: as the engine's
    methods. ``blob``: these blobs are stored. ``saved``: a snapshot of everything below ``upto`` is stored.
    """

    kind: Literal["append", "begin", "mark", "trim", "erase", "blob", "saved"]
    version: int = VERSION
    content: str = ""
    condition: Condition | None = None
    begins: bool = False
    blobs: tuple[BlobPlace, ...] = ()
    log: str = ""
    lookback: int = LOOKBACK_RECORDS
    before: int = 0
    record: int = 0
    index: int = 0
    upto: int = 0
    nonce: str = ""


class _Version(msgspec.Struct):
    version: int = VERSION


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode
_decode_version = msgspec.json.Decoder(_Version).decode


def pack(message: Message, body: bytes = b"") -> bytes:
    """A message as it is sent: one line of JSON, then the record."""
    return _encode(message) + b"\n" + body


def unpack(value: bytes) -> tuple[Message | None, bytes]:
    """A message and its record; None for bytes that are no message. Raises LogTooNew."""
    line, _, body = value.partition(b"\n")
    found: Message | _Version | None = None
    for decode in (_decode, _decode_version):
        try:
            found = decode(line)
            break
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    if found is not None and found.version > VERSION:
        raise LogTooNew(
            "The log holds messages of a newer LogAct",
            received=f"version {found.version}",
            expected=f"at most {VERSION}",
            todo="upgrade logact",
        )
    return (found, body) if isinstance(found, Message) else (None, b"")


def asking(draft: Draft, blobs: tuple[BlobPlace, ...] = (), log: str = "") -> bytes:
    """The message that asks for a draft. ``log`` is this log's id: not the record's, where a log moved here."""
    return pack(
        Message(
            kind="append",
            content=draft.content,
            condition=draft.condition,
            begins=draft.begins,
            blobs=blobs,
            log=log,
        ),
        draft.body,
    )


def identity(body: bytes) -> str:
    """What two equal records have in common, short: 22 characters."""
    return codec.digest(body)[:22]


class Claim(msgspec.Struct, frozen=True):
    """What the rule looks at of an append."""

    writer: str
    number: int
    identity: str
    key: str
    content: str
    heads: tuple[EntryHead, ...]
    condition: Condition | None
    begins: bool = False


def claim_of(draft: Draft) -> Claim:
    """The claim that a draft makes."""
    return Claim(
        draft.writer,
        draft.number,
        identity(draft.body),
        draft.key,
        draft.content,
        draft.heads,
        draft.condition,
        draft.begins,
    )


Answer = tuple[int, bool] | LogError
"""A record's number and whether it is new, or the definite error that the append meets."""


class Known(msgspec.Struct, array_like=True):
    """What is remembered of a writer: its last number, the record, and that record's identity."""

    number: int
    record: int
    identity: str


class Arbiter:
    """The fold of all messages below offset ``next``."""

    def __init__(self) -> None:
        self.next = 0
        self.log_id = ""
        self.lookback = LOOKBACK_RECORDS
        self.tail = 0
        self.first = 1
        self.sealed = False
        self.checkpoint = 0
        self.saved = 0
        self.writers: dict[str, Known] = {}
        self.keys: dict[str, tuple[int, str]] = {}
        self.blobs: dict[str, BlobPlace] = {}
        self.erased: dict[int, tuple[int, ...]] = {}
        self.kinds: dict[str, int] = {}  # the last record that holds an entry of the kind
        self.recent: deque[tuple[int, tuple[EntryHead, ...]]] = deque()
        self.floor = 0  # every record above it is in ``recent``
        self.winners = Winners()

    # --- the rule ------------------------------

    def fold(self, offset: int, value: bytes) -> Answer | None:
        """Take the next message. What became of it, if it asked for an append. Raises LogTooNew."""
        if offset < self.next:
            raise LogCorrupt("A message came twice", received=f"offset {offset}", expected=f"{self.next} or more")
        message, body = unpack(value)
        self.next = offset + 1
        if message is None:
            return None
        for place in message.blobs:
            self.blobs.setdefault(place.digest, place)
        if message.kind == "append":
            return self._append(offset, message, body)
        if message.kind == "begin":
            if not self.log_id:
                self.log_id, self.lookback = message.log, message.lookback
        elif message.kind == "trim":
            self._trim(message.before)
        elif message.kind == "erase":
            if self.has(message.record) and message.index >= 0:
                places = {*self.erased.get(message.record, ()), message.index}
                self.erased[message.record] = tuple(sorted(places))
        elif message.kind == "saved":
            self.saved = max(self.saved, min(message.upto, offset))
        return None

    def _append(self, offset: int, message: Message, body: bytes) -> Answer | None:
        try:
            head, _ = codec.read_head(body)
        except LogCorrupt:
            return None  # not a record: as if it were not there
        if self.log_id not in (head.log, message.log):
            return None
        claim = Claim(
            head.writer,
            head.number,
            identity(body),
            head.key,
            message.content,
            head.entries,
            message.condition,
            message.begins,
        )
        answer = self.judge(claim)
        if isinstance(answer, LogError) or not answer[1]:
            return answer
        record = offset + 1
        self.winners.add(offset)
        self.tail = record
        self.writers[claim.writer] = Known(claim.number, record, claim.identity)
        if claim.key:
            self.keys[claim.key] = (record, claim.content)
        for entry in claim.heads:
            self.kinds[sys.intern(entry.kind)] = record
            if entry.kind == "Seal":
                self.sealed = True
            elif entry.kind == "Checkpoint":
                self.checkpoint = record
        self.recent.append((record, tuple(_slim(entry) for entry in claim.heads)))
        while len(self.recent) > self.lookback:
            self.floor = self.recent.popleft()[0]
        return record, True

    def judge(self, claim: Claim) -> Answer:
        """What an append would meet here; (0, True) if it would become a record. Changes nothing."""
        known = self.writers.get(claim.writer)
        if known is not None and known.number == claim.number:
            if known.identity != claim.identity:
                return ChainConflict(f"Writer {claim.writer} already wrote another record number {claim.number}")
            return known.record, False
        expected = (known.number if known is not None else 0) + 1
        if claim.number != expected and not (claim.begins and known is None):
            return ChainConflict(
                f"Writer {claim.writer} is out of step",
                received=f"record number {claim.number}",
                expected=str(expected),
            )
        if claim.key and claim.key in self.keys:
            record, content = self.keys[claim.key]
            if content != claim.content:
                return KeyConflict("The idempotency key was used with other content", received=claim.key)
            return record, False
        if self.sealed:
            return LogSealed("The log is sealed")
        if claim.condition is not None:
            against = self.against(claim.condition)
            if against:
                return ConditionFailed("The append's condition does not hold", received=against)
        return 0, True

    def against(self, condition: Condition) -> str:
        """What speaks against a condition; empty if it holds."""
        after = record_of(condition.after)
        if after < self.first - 1:
            return f"record {after}, and the log was trimmed up to {self.first - 1}"
        if after > self.tail:
            return f"record {after}, which is not there"
        if condition.unless is None:
            return f"record {self.tail} came after record {after}" if self.tail > after else ""
        for record, heads in reversed(self.recent):
            if record <= after:
                return ""
            if condition.unless.fits_record(heads, record):
                return f"record {record} came in between"
        if after < self.floor and self._may_fit_before(condition.unless, after):
            return f"record {after} lies more than {self.lookback} records back: fold again and use a later one"
        return ""

    def _may_fit_before(self, unless: Filter, after: int) -> bool:
        """Whether something that is not remembered any more could fit; a kind's last record may rule it out."""
        return any(
            not clause.kinds or any(self.kinds.get(kind, 0) > after for kind in clause.kinds)
            for clause in unless.clauses
        )

    def _trim(self, before: int) -> None:
        before = min(before, self.tail + 1)
        if before <= self.first:
            return
        self.first = before
        self.winners.drop(before - 1)
        self.erased = {record: places for record, places in self.erased.items() if record >= before}
        while self.recent and self.recent[0][0] < before:
            self.floor = self.recent.popleft()[0]

    # --- questions ------------------------------

    def has(self, record: int) -> bool:
        """Whether there is a record of this number, not trimmed."""
        return record >= self.first and self.winners.has(record - 1)

    def digest(self) -> str:
        """A digest of the whole state; equal for arbiters that saw the same messages."""
        from logact.logs.arbitration_state import encode

        return hashlib.sha256(encode(self)).hexdigest()


def _slim(entry: EntryHead) -> EntryHead:
    """What filters look at, and nothing else."""
    return EntryHead(
        kind=sys.intern(entry.kind),
        role=sys.intern(entry.role),
        name="",
        digest="",
        agent=sys.intern(entry.agent),
        run=entry.run,
        action=entry.action,
        tool=sys.intern(entry.tool),
    )


__all__ = [
    "Answer",
    "Arbiter",
    "BlobPlace",
    "Claim",
    "Message",
    "asking",
    "claim_of",
    "identity",
    "pack",
    "unpack",
]
