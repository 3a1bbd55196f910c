"""What a storage engine is asked and must do: filters, conditions, records of bytes under record numbers.

``logact.testing.conformance`` checks every sentence of :class:`Engine`. This file knows no particular engine, and
neither the log that users see (``base``) nor its pen (``writer``).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence

import msgspec

from logact import codec
from logact.codec import EntryHead
from logact.entry import NewEntry, position_of, record_of
from logact.errors import LogTrimmed

READ_RECORDS_MAX = 512
"""The most records that one engine read returns."""


class Clause(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One alternative of a filter: every field that is set must hold; a set field holds if any value fits."""

    kinds: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()
    actions: tuple[int, ...] = ()
    tools: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def fits(self, head: EntryHead, position: int) -> bool:
        """Whether an entry's header, standing at ``position``, fits this clause."""
        record = record_of(position)
        if self.kinds and head.kind not in self.kinds:
            return False
        if self.agents and head.agent not in self.agents:
            return False
        if self.tools and head.tool not in self.tools:
            return False
        if self.roles and head.role not in self.roles:
            return False
        if self.runs:
            run = position if head.kind == "Run" else codec.resolve(head.run, record)
            if run not in self.runs:
                return False
        if self.actions:
            action = position if head.kind == "Intent" else codec.resolve(head.action, record)
            if action not in self.actions:
                return False
        return True


class Filter(msgspec.Struct, frozen=True):
    """Matches an entry if any clause does. A filter with no clause matches nothing; ``None`` means everything."""

    clauses: tuple[Clause, ...] = ()

    def fits(self, head: EntryHead, position: int) -> bool:
        """Whether any clause fits."""
        return any(clause.fits(head, position) for clause in self.clauses)

    def fits_record(self, heads: Iterable[EntryHead], record: int) -> bool:
        """Whether any entry of the record fits."""
        return any(self.fits(head, position_of(record, place)) for place, head in enumerate(heads))


def where(
    *,
    kinds: Iterable[str] = (),
    agents: Iterable[str] = (),
    runs: Iterable[int] = (),
    actions: Iterable[int] = (),
    tools: Iterable[str] = (),
    roles: Iterable[str] = (),
) -> Filter:
    """A filter of one clause, from any iterables."""
    return Filter(
        (
            Clause(
                kinds=tuple(kinds),
                agents=tuple(agents),
                runs=tuple(runs),
                actions=tuple(actions),
                tools=tuple(tools),
                roles=tuple(roles),
            ),
        )
    )


class Condition(msgspec.Struct, frozen=True):
    """An append happens only if nothing that matches ``unless`` stands after position ``after``.

    ``unless=None`` means nothing at all: the record named by ``after`` must still be the last one.
    """

    after: int
    unless: Filter | None = None


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A record on its way into an engine.

    ``writer`` and ``number`` identify it for ever: an engine that already holds this writer's ``number`` with
    the same ``body`` answers with its position (``fresh=False``), with another body it raises ChainConflict, and
    a gap in a writer's numbers is a ChainConflict too. ``begins`` says that the writer's earlier records stand in
    another segment of the log: an engine that has none of them takes the number as it is. ``key`` is the caller's
    idempotency key, ``content`` what must be equal under it. ``blobs`` become durable no later than the record.
    """

    writer: str
    number: int
    body: bytes
    content: str
    heads: tuple[EntryHead, ...]
    key: str = ""
    condition: Condition | None = None
    blobs: tuple[tuple[str, bytes], ...] = ()
    begins: bool = False


class StoredRecord(msgspec.Struct, frozen=True):
    """A record as read back: its number in the log (1, 2, ...) and its bytes."""

    record: int
    body: bytes


class Page(msgspec.Struct, frozen=True):
    """What one read returned: matching records, and the record number up to which everything was looked at.

    ``end`` says that the log ended at ``upto`` when it was read, so that nobody need read once more to find that out.
    An engine that does not know leaves it False.
    """

    records: tuple[StoredRecord, ...]
    upto: int
    end: bool = False


class Appended(msgspec.Struct, frozen=True):
    """Where a record stands. ``fresh`` is False if it (or its idempotency key) was there already."""

    position: int
    fresh: bool


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself, for ``logact doctor`` and the docs."""

    url: str
    engine: str
    survives: str
    wakes_by: str
    record_bytes_max: int = codec.RECORD_BYTES_MAX
    notes: tuple[str, ...] = ()


class Engine(abc.ABC):
    """What a storage engine must do. ``logact.testing.conformance`` checks every sentence here.

    Record numbers start at 1 and strictly increase in commit order; a reader that has seen record *n* never
    finds a smaller new one later. A read returns what is there or raises; it never leaves a record out.
    Every method may raise a LogError; only AppendUnknown is indefinite.
    """

    log_id: str = ""
    """The log's own random id, fixed when the log is created; known after ``open``."""

    segmented: bool = True
    """Whether this may be one segment of a log that moved. False where somebody else follows the chain."""

    create: bool = True
    """Whether opening makes the log where there is none; where this is False it raises LogMissing instead."""

    roles: frozenset[str] | None = None
    """The roles in which this connection may append; None: nobody asks. Known after ``open``."""

    writer_prefix: str = ""
    """What the incarnations that write through this connection begin with: a served log knows its writers by it."""

    def stamp(self, entries: Sequence[NewEntry]) -> Sequence[NewEntry]:
        """The entries as this connection may say them; a served log puts its token's name in place of any other."""
        return entries

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect, create the log if it is missing (see ``create``), migrate, check the settings.

        May be called again after close.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release everything. Appends that were acknowledged stay."""

    @abc.abstractmethod
    async def append(self, draft: Draft) -> tuple[int, bool]:
        """Append one record atomically and durably: (record number, fresh).

        Checks, in this order: the writer's number (see Draft), the key (KeyConflict if its content differs),
        the seal (LogSealed), the condition (ConditionFailed; also if it names a record beyond the tail). A draft
        that fails never fails its neighbours.
        """

    @abc.abstractmethod
    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        """Up to ``limit`` records with numbers above ``after``, in order; linearizable.

        ``upto`` of the page is the last record number that was looked at (``after`` if none), so that a reader
        with a filter makes progress where nothing matches. Below the first kept record: LogTrimmed.
        """

    @abc.abstractmethod
    async def tail(self) -> int:
        """The last record's number (0: empty). Linearizable: covers every append acknowledged before the call."""

    @abc.abstractmethod
    def hint(self) -> int:
        """The last record number known without asking; cheap, may lag, never ahead of ``tail``."""

    @abc.abstractmethod
    async def wait(self, after: int, timeout_s: float) -> bool:
        """Wait until a record above ``after`` may exist (True), or the time is over (False). Woken by push."""

    @abc.abstractmethod
    async def put_blob(self, digest: str, data: bytes) -> None:
        """Store a blob under its digest; durable on return; storing it again is harmless."""

    @abc.abstractmethod
    async def get_blob(self, digest: str) -> bytes:
        """The blob's bytes. BlobMissing if it is not there; ReadFailed if that cannot be known."""

    @abc.abstractmethod
    async def erase(self, record: int, index: int) -> None:
        """Replace one payload of a stored record by nothing (see ``codec.erase_payload``); durable on return."""

    @abc.abstractmethod
    async def trim(self, before: int) -> None:
        """Drop the records below ``before``; monotone; a writer's numbers and keys are still remembered."""

    def follows(self, record: int, previous: int) -> bool:
        """Whether it is known, without asking, that no record stands between these two.

        An engine whose record numbers have gaps says more than this default.
        """
        return record == previous + 1

    async def last_checkpoint(self) -> int:
        """The number of the last record that holds a ``Checkpoint`` entry (0: none).

        This default looks at every record; an engine that keeps the number makes restarts fast.
        """
        found = cursor = 0
        end = await self.tail()
        matching = where(kinds=["Checkpoint"])
        while cursor < end:
            try:
                page = await self.read(cursor, READ_RECORDS_MAX, matching)
            except LogTrimmed:
                cursor += 1  # an engine that trims much should keep the number itself
                continue
            found = page.records[-1].record if page.records else found
            if page.upto <= cursor:
                break
            cursor = page.upto
        return found

    @abc.abstractmethod
    def info(self) -> EngineInfo:
        """What this engine promises and uses here."""
