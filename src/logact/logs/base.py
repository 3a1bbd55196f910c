"""The log contract: filters, conditions, what an engine must do, and the two faces users see.

* :class:`Engine` is what a storage engine implements: records of bytes under record numbers.
* :class:`SharedLog` is what everything else uses: entries under positions, over one engine.
* :class:`Writer` is one incarnation's pen: it keeps that incarnation's hash chain, has at most one
  unacknowledged record, and repeats it byte for byte until its fate is known.

This file never judges entries (that is the fold's) and knows no particular engine.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from logact import codec
from logact import env as environment
from logact.codec import EntryHead
from logact.core.views import LogEntry
from logact.entry import Entry, NewEntry, Payload, Role, position_of, record_of
from logact.errors import (
    AppendUnknown,
    ChainConflict,
    ConditionFailed,
    KeyConflict,
    LogError,
    LogSealed,
    LogTrimmed,
    UsageError,
)

READ_RECORDS_MAX = 512
"""The most records that one engine read returns."""

FOLLOW_WAIT_S = 30.0
"""How long one wait for news lasts before a follower looks again by itself."""

APPEND_RETRY_S_MAX = 20.0
"""How long a writer repeats an append whose fate is unknown before it gives the error to its caller."""


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
    a gap in a writer's numbers is a ChainConflict too. ``key`` is the caller's idempotency key, ``content`` what
    must be equal under it. ``blobs`` become durable no later than the record.
    """

    writer: str
    number: int
    body: bytes
    content: str
    heads: tuple[EntryHead, ...]
    key: str = ""
    condition: Condition | None = None
    blobs: tuple[tuple[str, bytes], ...] = ()


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

    roles: frozenset[str] | None = None
    """The roles in which this connection may append; None: nobody asks. Known after ``open``."""

    writer_prefix: str = ""
    """What the incarnations that write through this connection begin with: a served log knows its writers by it."""

    def stamp(self, entries: Sequence[NewEntry]) -> Sequence[NewEntry]:
        """The entries as this connection may say them; a served log puts its token's name in place of any other."""
        return entries

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect, create the log if it is missing, migrate, check the settings. May be called again after close."""

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


class Writer:
    """One incarnation's pen. Appends are serialised; each is acknowledged before the next is sent.

    After AppendUnknown the record may be in the log: the next ``append`` (or ``settle``) first repeats it byte
    for byte until the engine answers, so that the chain has no gap and nothing is written twice.
    """

    def __init__(self, log: SharedLog, incarnation: str | None = None) -> None:
        self.log = log
        self.env = environment.current()
        self.incarnation = incarnation or log.engine.writer_prefix + self.env.identifier()
        self.number = 0
        self.previous = codec.GENESIS
        self.last_body = b""
        self._lock = asyncio.Lock()
        self._unsettled: tuple[Draft, str] | None = None

    async def append(
        self,
        entries: Sequence[NewEntry],
        *,
        condition: Condition | None = None,
        key: str = "",
        blobs: Sequence[tuple[str, bytes]] = (),
    ) -> Appended:
        """Append a batch. Raises ConditionFailed, KeyConflict, AppendUnknown and the engine's own errors."""
        await self.log.open()
        async with self._lock:
            await self._settle()
            encoded = codec.encode_record(
                self.log.engine.stamp(entries),
                log=self.log.log_id,
                writer=self.incarnation,
                number=self.number + 1,
                previous=self.previous,
                time_ms=self.env.wall_ms(),
                randomness=self.env.random_bytes(codec.SALT_BYTES * len(entries)),
                key=key,
                sign=self.log.signer.sign if self.log.signer is not None else None,
            )
            draft = Draft(
                writer=self.incarnation,
                number=self.number + 1,
                body=encoded.body,
                content=encoded.content,
                heads=encoded.heads,
                key=key,
                condition=condition,
                blobs=tuple(blobs),
            )
            return await self._send(draft, encoded.hash)

    async def settle(self) -> None:
        """Find out the fate of an unacknowledged record, if there is one."""
        async with self._lock:
            await self._settle()

    async def _settle(self) -> None:
        if self._unsettled is not None:
            try:
                await self._send(*self._unsettled)
            except (ConditionFailed, KeyConflict, LogSealed):
                pass  # its fate is known now: it did not happen, and its caller was told "unknown" before

    async def _send(self, draft: Draft, record_hash: str) -> Appended:
        """Send one draft until its fate is known, or the retry time is over."""
        began = self.env.monotonic()
        pause_s = 0.02
        doubtful = self._unsettled is not None
        self._unsettled = (draft, record_hash)  # from here on a cancelled caller leaves the fate open
        while True:
            try:
                record, fresh = await self.log.engine.append(draft)
            except AppendUnknown:
                doubtful = True
                if self.env.monotonic() - began > APPEND_RETRY_S_MAX:
                    raise
                await self.env.sleep(pause_s * (0.5 + self.env.random()))
                pause_s = min(pause_s * 2, 1.0)
                continue
            except LogSealed:
                self._unsettled = None  # it is certainly not there, whatever became of earlier tries
                if not await self.log.move_on():
                    raise
                self._unsettled = (draft, record_hash)
                continue  # the same bytes, where the log goes on
            except (ConditionFailed, KeyConflict):
                self._unsettled = None  # final for these bytes: what stood against them does not go away
                raise
            except LogError as error:
                if not doubtful:
                    self._unsettled = None
                    raise
                # this try certainly failed, an earlier one may still have happened
                raise AppendUnknown("An append's fate is unknown", received=str(error)) from error
            own = fresh or (doubtful and await self._is_own(record, draft, record_hash))
            self._unsettled = None
            if own:
                self.number, self.previous, self.last_body = draft.number, record_hash, draft.body
            elif not doubtful and not draft.key:
                raise ChainConflict(
                    "A record of this incarnation was in the log before it was written",
                    received=f"writer {draft.writer}, number {draft.number}",
                    todo="start a new incarnation",
                )
            return Appended(position_of(record), own)

    async def _is_own(self, record: int, draft: Draft, record_hash: str) -> bool:
        """Whether the record found under this draft's identity or key is this very draft, from an earlier try."""
        if not draft.key:
            return True  # it can only have been found by its identity
        try:
            page = await self.log.engine.read(record - 1, 1)
        except LogTrimmed:
            return False  # an old record that has this key; the one in doubt is recent
        except LogError as error:
            raise AppendUnknown("An append's fate is unknown", received=str(error)) from error
        # by hash: an erasure may have changed the bytes since
        return any(codec.read_head(stored.body)[1] == record_hash for stored in page.records)


class Signer(Protocol):
    """An author's key; see ``logs/signing.py``."""

    def sign(self, record_hash: str) -> str:
        """The signature over a record's hash, as it is stored."""


class Keyring(Protocol):
    """What readers know of authors' keys."""

    def check(self, head: codec.Head, record_hash: str, signature: str, record: int) -> str:
        """Why a record counts as forged ("" if it does not)."""


class SharedLog:
    """A durable, totally ordered log of entries. The centre that agents, voters and people share.

    Opened on first use; ``async with`` closes it. All methods may raise LogError and its children. With a
    ``signer`` what it appends is signed; with a ``keyring`` what it reads is checked.
    """

    def __init__(
        self, engine: Engine, url: str = "", *, signer: Signer | None = None, keyring: Keyring | None = None
    ) -> None:
        self.engine = engine
        self.url = url or engine.info().url
        self.signer = signer
        self.keyring = keyring
        self._opened = False
        self._opening: asyncio.Lock | None = None
        self._pen: Writer | None = None

    @property
    def log_id(self) -> str:
        """The log's random id; empty before the log was opened."""
        return self.engine.log_id

    async def open(self) -> SharedLog:
        """Open the log if it is not open; harmless to repeat."""
        if not self._opened:
            if self._opening is None:
                self._opening = asyncio.Lock()
            async with self._opening:
                if not self._opened:
                    await self.engine.open()
                    try:
                        self.engine = await self._whole()
                    except (Exception, asyncio.CancelledError):  # not where a dead process is taken apart
                        await self.engine.close()
                        raise
                    self._opened = True
        return self

    async def _whole(self) -> Engine:
        """The engine, or the chain of segments that it is one of."""
        if not self.engine.segmented:
            return self.engine
        from logact.logs import chaining

        return await chaining.whole(self.engine)

    async def move_on(self) -> bool:
        """Go on where the log's ``Seal`` entry says. False if it is not sealed, or ends there for good.

        Raises LogUnavailable where the next segment cannot be reached.
        """
        if self._opening is None:
            return False
        async with self._opening:
            before = self.engine
            self.engine = await self._whole()
            return self.engine is not before

    async def close(self) -> None:
        """Close the log; it can be opened again."""
        if self._opened:
            self._opened = False
            self._opening = None
            self._pen = None
            await self.engine.close()

    async def __aenter__(self) -> SharedLog:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def decode(self, body: bytes, record: int) -> list[Entry]:
        """A stored record's entries, their signatures checked if this log was opened with a key ring."""
        if self.keyring is None:
            return codec.decode_record(body, record)
        return codec.decode_record(body, record, self.keyring.check)

    def writer(self, incarnation: str | None = None) -> Writer:
        """A new incarnation's pen."""
        return Writer(self, incarnation)

    async def append(
        self,
        *entries: NewEntry | Payload,
        role: Role = "client",
        name: str = "",
        condition: Condition | None = None,
        key: str = "",
    ) -> Appended:
        """Append a batch with this object's own pen. Bare payloads are written as ``role`` and ``name``."""
        if self._pen is None:
            self._pen = self.writer()
        batch = [
            entry if isinstance(entry, NewEntry) else NewEntry(payload=entry, role=role, name=name or role)
            for entry in entries
        ]
        return await self._pen.append(batch, condition=condition, key=key)

    async def tail(self) -> int:
        """The position of the last record's first entry (0: empty); covers every append acknowledged before."""
        await self.open()
        return position_of(await self.engine.tail())

    def hint(self) -> int:
        """Like ``tail``, without asking: cheap, may lag."""
        return position_of(self.engine.hint())

    async def read_records(
        self, after: int = 0, *, limit: int = READ_RECORDS_MAX, matching: Filter | None = None
    ) -> tuple[list[list[Entry]], int]:
        """Whole records after a position, decoded: (records, position up to which everything was looked at).

        ``after`` is the position of the last entry already seen; what it returns as the second value may be
        given as ``after`` next time.
        """
        await self.open()
        page = await self.engine.read(record_of(after), limit, matching)
        return [self.decode(stored.body, stored.record) for stored in page.records], position_of(page.upto)

    async def read(
        self,
        after: int = 0,
        *,
        limit: int | None = None,
        upto: int | None = None,
        matching: Filter | None = None,
    ) -> AsyncIterator[Entry]:
        """The entries after a position, in order, up to the present tail (or ``upto``, inclusive)."""
        await self.open()
        end = await self.engine.tail() if upto is None else record_of(upto)
        given = 0
        cursor = record_of(after)
        while cursor < end:
            page = await self.engine.read(cursor, READ_RECORDS_MAX, matching)
            for stored in page.records:
                for entry in self._entries(stored, matching):
                    if upto is not None and entry.position > upto:
                        return
                    if entry.position > after:
                        yield entry
                        given += 1
                        if limit is not None and given >= limit:
                            return
            if page.upto <= cursor:
                return
            cursor = page.upto

    async def follow(self, after: int = 0, *, matching: Filter | None = None) -> AsyncIterator[Entry]:
        """Like ``read``, then goes on for ever as entries come, woken by push."""
        await self.open()
        cursor = record_of(after)
        asked = Filter((*matching.clauses, Clause(kinds=("Seal",)))) if matching is not None else None
        while True:
            page = await self.engine.read(cursor, READ_RECORDS_MAX, asked)
            sealed = bool(page.records) and b'"Seal"' in page.records[-1].body  # perhaps: then one more look
            for stored in page.records:
                for entry in self._entries(stored, matching):
                    if entry.position > after:
                        yield entry
            more = page.upto > cursor and not page.end
            cursor = max(cursor, page.upto)
            if not (more or (sealed and await self.move_on())):
                await self.engine.wait(cursor, FOLLOW_WAIT_S)

    async def get(self, position: int) -> Entry:
        """The entry at a position. UsageError if there is none."""
        record = record_of(position)
        await self.open()
        page = await self.engine.read(record - 1, 1)
        for stored in page.records:
            if stored.record == record:
                for entry in self.decode(stored.body, record):
                    if entry.position == position:
                        return entry
        raise UsageError(
            "There is no entry at this position",
            received=str(position),
            expected=f"a position of log {self.url}",
            todo="see `logact log show`",
        )

    # --- questions about agents: each folds the log once ---

    async def get_history(self, agent_id: str) -> list[LogEntry]:
        """Every action that an agent proposed, oldest first, with what became of it."""
        from logact.logs import queries

        return await queries.history(self, agent_id)

    async def get_recent(self, agent_id: str, limit: int = 50) -> list[LogEntry]:
        """An agent's latest actions, oldest of them first; at most ``limit``."""
        return (await self.get_history(agent_id))[-limit:] if limit > 0 else []

    async def get_last_executed(self, agent_id: str) -> LogEntry | None:
        """The agent's action whose execution ended last; None if it has executed nothing."""
        from logact.logs import queries

        return await queries.last_executed(self, agent_id)

    async def get_proposed(self) -> list[LogEntry]:
        """All actions that wait for a decision, in the order of the log."""
        from logact.logs import queries

        return [entry for entry in await queries.history(self) if entry.status == "proposed"]

    async def get_validated_ordered(self) -> list[LogEntry]:
        """All actions that are committed and not started, in the order of their intents."""
        from logact.logs import queries

        return [entry for entry in await queries.history(self) if entry.status == "validated"]

    async def put_blob(self, data: bytes) -> str:
        """Store bytes by content; durable before this returns. Returns their digest."""
        await self.open()
        digest = codec.digest(data)
        await self.engine.put_blob(digest, data)
        return digest

    async def get_blob(self, digest: str) -> bytes:
        """The bytes of a blob, checked against their digest."""
        await self.open()
        data = await self.engine.get_blob(digest)
        codec.check_blob(digest, data)
        return data

    async def seal(self, next_url: str = "", reason: str = "", *, name: str = "operator") -> Appended:
        """End this segment: nothing can be appended after the ``Seal`` entry."""
        from logact.entry import Seal

        return await self.append(Seal(next=next_url, reason=reason), role="operator", name=name)

    async def erase(self, position: int, reason: str, *, name: str = "operator") -> Appended:
        """Erase an entry's payload for good; its header and digest stay, so the log still verifies.

        An ``Erased`` entry says so first. Blobs that the payload named are not touched. Policies, controls and
        fences cannot be erased (UsageError): whoever folded the log anew could not know what was in force.
        """
        from logact.entry import Erased

        entry = await self.get(position)
        if entry.critical:
            raise UsageError(
                f"A {entry.kind} cannot be erased",
                received=f"position {position}",
                expected="an entry that others do not depend on",
                todo="append a newer one instead",
            )
        done = await self.append(Erased(target=position, reason=reason), role="operator", name=name)
        await self.engine.erase(record_of(position), position - position_of(record_of(position)))
        return done

    async def update(self, position: int, note: str, *, name: str = "operator", **data: object) -> Appended:
        """Add a note about an entry. Nothing is ever overwritten: what an entry's status is, the fold says."""
        from logact.entry import Notice

        await self.get(position)
        payload = Notice(code="update", message=note, data={"position": position, **data})
        return await self.append(payload, role="operator", name=name)

    async def trim(self, before: int) -> None:
        """Drop the records before the one that holds position ``before``."""
        await self.open()
        await self.engine.trim(record_of(before))

    def _entries(self, stored: StoredRecord, matching: Filter | None) -> list[Entry]:
        entries = self.decode(stored.body, stored.record)
        if matching is None:
            return entries
        heads = codec.read_head(stored.body)[0].entries
        return [entry for entry, head in zip(entries, heads, strict=True) if matching.fits(head, entry.position)]


__all__ = [
    "Appended",
    "Clause",
    "Condition",
    "Draft",
    "Engine",
    "EngineInfo",
    "Filter",
    "LogTrimmed",
    "Page",
    "SharedLog",
    "StoredRecord",
    "Writer",
    "where",
]
