"""A part that may lose its log: ``?local=FILE`` at the end of any log URL.

While the log can be reached this is the log, and what is read is copied beside it. While it cannot:

* reads are answered from the copy, which says how old it is (``stale_s``); what the copy lacks is a failed read;
* what only proposes (runs, inputs, inferences, intents, mail, notes) waits in a durable outbox, and its append
  returns when the log is back: appended once, in order, or refused by the condition that it was proposed under;
* everything else is refused at once, so nothing is committed, started or acted upon.

This file owns that distinction and the way back. The file is ``local_store``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from logact import env as environment
from logact.codec import GENESIS, SALT_BYTES, decode_record, encode_record, read_head
from logact.entry import Erased, NewEntry, Notice, Role, position_of, record_of
from logact.errors import (
    AppendUnknown,
    LogError,
    LogFull,
    LogLocked,
    LogSealed,
    LogUnavailable,
    ReadFailed,
)
from logact.logs.contract import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page
from logact.logs.local_store import LocalStore, Waiting

PROPOSALS = frozenset({"Run", "Input", "Inference", "Compaction", "Intent", "Mail", "Notice", "Finding"})
"""Kinds that may wait: they ask for something, and decide and start nothing."""

RETRY_S_MIN, RETRY_S_MAX = 0.2, 5.0
"""How often it is tried whether the log is back."""

PASSING = (LogUnavailable, AppendUnknown, ReadFailed, LogLocked, LogFull)
"""Errors that say nothing against a draft itself: it goes on waiting."""


class LocalCopy(Engine):
    """Any engine, with a copy of what was read and an outbox for what is proposed. ``away`` says why it is away."""

    segmented = False  # what it stands in front of may be a chain; it follows that itself

    def __init__(self, inner: Engine, path: Path) -> None:
        self.inner = inner
        self.store = LocalStore(path)
        self.away = ""
        self._pause_s = RETRY_S_MIN
        self._next_try = 0.0
        self._back = asyncio.Lock()
        self._fates: dict[tuple[str, int], tuple[int, bool] | LogError | None] = {}
        self._outbox = 0
        self._noted_ms = 0

    # --- life ------------------------------

    async def open(self) -> None:
        env = environment.current()
        await env.in_thread(self.store.open)
        try:
            await self._reach()
        except (LogUnavailable, ReadFailed) as error:
            self.log_id = self.store.log_id()
            if not self.log_id:
                await env.in_thread(self.store.close)
                raise
            self._lose(error)
        if self.store.mine:
            self._outbox = len(self.store.waiting())
        if not self.away and self._outbox:
            await self._come_back()

    async def _reach(self) -> None:
        from logact.logs import chaining

        self.inner.create = self.create
        await self.inner.open()
        if self.inner.segmented:
            self.inner = await chaining.whole(self.inner)
        self.log_id, self.roles, self.writer_prefix = self.inner.log_id, self.inner.roles, self.inner.writer_prefix
        self.store.belongs_to(self.log_id)
        self._note()

    async def close(self) -> None:
        await self.inner.close()
        await environment.current().in_thread(self.store.close)

    def stamp(self, entries: Sequence[NewEntry]) -> Sequence[NewEntry]:
        return self.inner.stamp(entries)

    @property
    def stale_s(self) -> float | None:
        """How old what is read now is, in seconds; None while the log can be reached."""
        if not self.away:
            return None
        return max(0.0, (environment.current().wall_ms() - self.store.seen_ms()) / 1000)

    # --- writing ------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        waits = self.store.mine and all(head.kind in PROPOSALS for head in draft.heads)
        if self._outbox and not self.away:
            await self._come_back()  # what waits goes first
        await self._look_again()
        if not self.away:
            try:
                done = await self._append_inner(draft)
            except (LogUnavailable, AppendUnknown) as error:
                if waits or isinstance(error, LogUnavailable):
                    self._lose(error)
                if not waits:
                    raise
            else:
                self._note()
                return done
        if not waits:
            raise LogUnavailable(
                "The log cannot be reached, and without it nothing is decided, started or acted upon",
                received=self.away,
                todo="wait until it is back; what only proposes waits in the outbox",
            )
        return await self._wait_in_outbox(draft)

    async def _append_inner(self, draft: Draft) -> tuple[int, bool]:
        try:
            return await self.inner.append(draft)
        except LogSealed:
            from logact.logs import chaining

            before = self.inner
            self.inner = await chaining.whole(self.inner)
            if self.inner is before:
                raise
            return await self.inner.append(draft)

    async def _wait_in_outbox(self, draft: Draft) -> tuple[int, bool]:
        env = environment.current()
        await env.in_thread(self.store.keep, draft, env.wall_ms())
        self._outbox += 1
        who = (draft.writer, draft.number)
        self._fates[who] = None  # somebody waits for it
        try:
            while True:
                async with self._back:
                    if self._fates[who] is None:
                        await self._try_to_come_back()
                    found = self._fates[who]
                if isinstance(found, LogError):
                    raise found
                if found is not None:
                    return found
        finally:
            del self._fates[who]

    # --- the way back ------------------------------

    def _lose(self, error: LogError) -> None:
        if not self.away:
            self.away = str(error)
            self._pause_s = RETRY_S_MIN
            self._next_try = environment.current().monotonic() + self._pause_s

    async def _come_back(self) -> None:
        async with self._back:
            await self._try_to_come_back(now=True)

    async def _look_again(self) -> None:
        """One try, if the log is away and nobody else is at it, and the time for one has come."""
        if self.away and not self._back.locked() and environment.current().monotonic() >= self._next_try:
            await self._come_back()

    async def _try_to_come_back(self, *, now: bool = False) -> None:
        """One try, when its time has come: reach the log, append what waits, in order."""
        env = environment.current()
        if not now:
            await env.sleep(max(0.0, self._next_try - env.monotonic()))
        try:
            await self._reach()
            await self.inner.tail()
            if self.store.mine:
                for waiting in await env.in_thread(self.store.waiting):
                    await self._send(waiting)
        except PASSING as error:
            self.away = self.away or str(error)
            self._pause_s = min(self._pause_s * 2, RETRY_S_MAX)
            self._next_try = env.monotonic() + self._pause_s * (0.5 + 0.5 * env.random())
            return
        self.away = ""
        self._outbox = 0
        self._note(force=True)

    async def _send(self, waiting: Waiting) -> None:
        draft = waiting.draft
        fate: tuple[int, bool] | LogError
        try:
            record, fresh = await self._append_inner(draft)
            fate = (record, fresh or await self._is_this(record, draft))
        except PASSING:
            raise
        except LogError as error:
            fate = error
            await self._say_dropped(waiting, error)
        if (draft.writer, draft.number) in self._fates:
            self._fates[draft.writer, draft.number] = fate
        await environment.current().in_thread(self.store.done, waiting.place)

    async def _is_this(self, record: int, draft: Draft) -> bool:
        """Whether the record that was found is this very draft, from a try whose answer was lost."""
        if not draft.key:
            return True
        _, wanted = read_head(draft.body)
        page = await self.inner.read(record - 1, 1)
        return any(read_head(stored.body)[1] == wanted for stored in page.records)

    async def _say_dropped(self, waiting: Waiting, error: LogError) -> None:
        """A proposal that the log refuses now is not silently gone: a note says what it was, and why."""
        env = environment.current()
        head = waiting.draft.heads[0]
        kinds = ", ".join(one.kind for one in waiting.draft.heads)
        note = Notice(
            code="outbox_dropped",
            message=f"proposed while the log was away, and refused afterwards: {kinds}: {error}",
            agent=head.agent,
            run=max(0, head.run),
            data={"kept_ms": waiting.kept_ms, "code": error.code},
        )
        role: Role = head.role  # type: ignore[assignment]  # it was written by a part of that role
        encoded = encode_record(
            list(self.stamp([NewEntry(payload=note, role=role, name=head.name, agent=head.agent)])),
            log=self.log_id,
            writer=self.writer_prefix + env.identifier(),
            number=1,
            previous=GENESIS,
            time_ms=env.wall_ms(),
            randomness=env.random_bytes(SALT_BYTES),
            key=f"outbox dropped {waiting.draft.writer} {waiting.draft.number}",
        )
        head_of, _ = read_head(encoded.body)
        await self._append_inner(
            Draft(
                writer=head_of.writer,
                number=1,
                body=encoded.body,
                content=encoded.content,
                heads=encoded.heads,
                key=head_of.key,
            )
        )

    def _note(self, *, force: bool = False) -> None:
        now_ms = environment.current().wall_ms()
        if force or now_ms - self._noted_ms > 1000:
            self._noted_ms = now_ms
            self.store.seen(now_ms)

    # --- reading ------------------------------

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        await self._look_again()
        if not self.away:
            try:
                page = await self.inner.read(after, limit, matching)
            except (ReadFailed, LogUnavailable) as error:
                self._lose(error)
            else:
                self._note()
                if matching is None:
                    self._copy(after, page)
                if page.records and b'"Seal"' in page.records[-1].body:
                    await self._reach()  # it may go on elsewhere
                return page
        return self._read_copy(after, min(limit, READ_RECORDS_MAX), matching)

    def _copy(self, after: int, page: Page) -> None:
        self.store.put(after, page.upto, page.records)
        for stored in page.records:
            if b'"Erased"' in stored.body:  # what was erased there is erased here
                for entry in decode_record(stored.body, stored.record):
                    if isinstance(entry.payload, Erased):
                        record = record_of(entry.payload.target)
                        self.store.erase(record, entry.payload.target - position_of(record))

    def _read_copy(self, after: int, limit: int, matching: Filter | None) -> Page:
        found = self.store.get(after, READ_RECORDS_MAX if matching is not None else limit)
        if found is None:
            raise ReadFailed(
                "The log cannot be reached, and the local copy does not hold this part",
                received=f"after record {after}; {self.away}",
                todo="wait until the log is back",
            )
        records, upto = found
        if matching is not None:
            fits = [one for one in records if matching.fits_record(read_head(one.body)[0].entries, one.record)]
            if len(fits) > limit:
                fits = fits[:limit]
                upto = fits[-1].record
            records = fits
        return Page(tuple(records), upto, end=upto >= self.store.end())

    async def tail(self) -> int:
        """Linearizable while the log can be reached; else where the copy ends (see ``stale_s``)."""
        await self._look_again()
        if not self.away:
            try:
                found = await self.inner.tail()
            except (ReadFailed, LogUnavailable) as error:
                self._lose(error)
            else:
                self._note()
                return found
        return self.store.end()

    def follows(self, record: int, previous: int) -> bool:
        return self.inner.follows(record, previous)

    def hint(self) -> int:
        return self.inner.hint() if not self.away else self.store.end()

    async def wait(self, after: int, timeout_s: float) -> bool:
        if not self.away:
            return await self.inner.wait(after, timeout_s)
        env = environment.current()
        end = env.monotonic() + timeout_s
        while self.away and env.monotonic() < end:
            if self._back.locked():
                await env.sleep(min(RETRY_S_MIN, max(0.0, end - env.monotonic())))
            else:
                async with self._back:
                    await self._try_to_come_back()
        return not self.away

    async def last_checkpoint(self) -> int:
        if not self.away:
            try:
                return await self.inner.last_checkpoint()
            except (ReadFailed, LogUnavailable) as error:
                self._lose(error)
        return await environment.current().in_thread(self.store.last_checkpoint)

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self.inner.put_blob(digest, data)
        self.store.put_blob(digest, data)

    async def get_blob(self, digest: str) -> bytes:
        kept = self.store.get_blob(digest)
        if kept is not None:
            return kept
        if self.away:
            raise ReadFailed("The log cannot be reached, and the local copy has no such blob", received=digest)
        data = await self.inner.get_blob(digest)
        self.store.put_blob(digest, data)
        return data

    async def erase(self, record: int, index: int) -> None:
        await self.inner.erase(record, index)
        self.store.erase(record, index)

    async def trim(self, before: int) -> None:
        await self.inner.trim(before)

    def info(self) -> EngineInfo:
        info = self.inner.info()
        age = self.stale_s
        now = "it can be reached" if age is None else f"AWAY; what is read is {age:.0f} s old ({self.away})"
        note = f"A local copy and an outbox in {self.store.path}; {self._outbox} waiting; {now}."
        return msgspec.structs.replace(info, notes=(*info.notes, note))
