"""The log that everybody uses: entries under positions, over one engine, or over a chain of them once it has moved.

What engines are asked is in ``contract``, how appends are repeated in ``writer``; both are given on from here. This
file never judges entries (that is the fold's) and knows no particular engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from logact import codec
from logact.core.views import LogEntry
from logact.entry import Entry, NewEntry, Payload, Role, position_of, record_before, record_of
from logact.errors import LogTrimmed, UsageError
from logact.logs.contract import (
    READ_RECORDS_MAX,
    Appended,
    Clause,
    Condition,
    Draft,
    Engine,
    EngineInfo,
    Filter,
    Page,
    StoredRecord,
    where,
)
from logact.logs.writer import APPEND_RETRY_S_MAX, Writer

FOLLOW_WAIT_S = 30.0
"""How long one wait for news lasts before a follower looks again by itself."""


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
        self.passed_over = ""  # damage before the checkpoint that a look at the log began from
        self.refuse_half_forks = False  # agents know such a log from their fold; commands look when they open it
        self.fold: Callable[[], object] | None = None  # the fold that readers of this object share, while they do

    @property
    def log_id(self) -> str:
        """The log's random id; empty before the log was opened."""
        return self.engine.log_id

    @property
    def stale_s(self) -> float | None:
        """How old what is read now is, in seconds, where the log is away and a local copy answers; else None."""
        found: float | None = getattr(self.engine, "stale_s", None)
        return found

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
                    if self.refuse_half_forks:
                        await self._refuse_half_fork()
        return self

    async def _refuse_half_fork(self) -> None:
        from logact.logs.half_forks import refuse_half_fork

        try:
            await refuse_half_fork(self)
        except (Exception, asyncio.CancelledError):
            self._opened = False
            await self.engine.close()
            raise

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
        wrong = [one for one in entries if not isinstance(one, NewEntry) and not hasattr(type(one), "CRITICAL")]
        if wrong:
            raise UsageError(
                "What was given is no entry",
                received=repr(wrong[0])[:100],
                expected='payloads one by one, such as Notice(code="note", message="..."), or NewEntry(payload=...)',
            )
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
        """Whole records after the one that holds a position, decoded, and the position up to which it looked.

        What it returns as the second value may be given as ``after`` next time.
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
        """The entries after a position, in order, up to the present tail (or ``upto``, inclusive).

        ``after`` is the position of the last entry seen, also one in the midst of a batch: the rest of its batch
        comes first. Where that batch was trimmed meanwhile nobody can say whether more was in it: LogTrimmed.
        """
        await self.open()
        end = await self.engine.tail() if upto is None else record_of(upto)
        given = 0
        cursor = record_before(after)
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

    def read_kept(
        self, after: int = 0, *, upto: int | None = None, matching: Filter | None = None
    ) -> AsyncIterator[Entry]:
        """Like ``read``; where what comes next was trimmed, from where the log begins. For whom a part is enough."""
        from logact.logs import queries

        return queries.kept(self, after, upto, matching)

    async def begins(self) -> int:
        """The position of the first record that is kept, if what stood before it was trimmed; 0 of a whole log."""
        from logact.logs import verify

        await self.open()
        kept = await verify.first_kept(self)
        return position_of(kept + 1) if kept else 0

    async def follow(self, after: int = 0, *, matching: Filter | None = None) -> AsyncIterator[Entry]:
        """Like ``read``, then goes on for ever as entries come, woken by push."""
        await self.open()
        cursor = record_before(after)
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

        return await queries.history(self, lambda name: name == agent_id)

    async def get_recent(self, agent_id: str, limit: int = 50) -> list[LogEntry]:
        """An agent's latest actions, oldest of them first; at most ``limit``."""
        from logact.logs import queries

        return await queries.history(self, lambda name: name == agent_id, latest=limit)

    async def get_last_executed(self, agent_id: str) -> LogEntry | None:
        """The agent's action whose execution ended last; None if it has executed nothing."""
        from logact.logs import queries

        return await queries.last_executed(self, agent_id)

    async def get_proposed(self) -> list[LogEntry]:
        """All actions that wait for a decision, in the order of the log."""
        from logact.logs import queries

        return await queries.history(self, status="proposed")

    async def get_validated_ordered(self) -> list[LogEntry]:
        """All actions that are committed and not started, in the order of their intents."""
        from logact.logs import queries

        return await queries.history(self, status="validated")

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
        fences cannot be erased (UsageError): whoever folded the log anew could not know what was in force. Nor can
        what belongs to a run that is under way, or to an action that is not settled: end it, or settle it, first.
        """
        from logact.entry import Erased
        from logact.logs.erasing import check_erasable

        entry = await self.get(position)
        await check_erasable(self, entry)
        done = await self.append(Erased(target=position, reason=reason), role="operator", name=name)
        await self.engine.erase(record_of(position), position - position_of(record_of(position)))
        return done

    async def update(
        self, entry: LogEntry | int, note: str = "", *, name: str = "operator", **data: object
    ) -> Appended:
        """Add a note about an entry (or the one at a position); without a note, the status that the view shows.

        Nothing is ever overwritten: what an entry's status is, the fold says. Raises UsageError for what is neither.
        """
        from logact.core.views import LogEntry
        from logact.entry import Notice

        position = entry.position if isinstance(entry, LogEntry) else entry
        if not isinstance(position, int) or isinstance(position, bool):
            raise UsageError(
                "A note is about an entry", received=repr(entry)[:100], expected="a LogEntry, or a position"
            )
        await self.get(position)
        message = note or (f"it is {entry.status}" if isinstance(entry, LogEntry) else "noted")
        payload = Notice(code="update", message=message, data={"position": position, **data})
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
    "APPEND_RETRY_S_MAX",
    "READ_RECORDS_MAX",
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
