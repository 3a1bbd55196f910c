"""A log as a chain of sealed segments, each on an engine of its own, under one id and one row of positions.

``Chain`` is an engine made of engines. A part's record *n* is the log's record ``base + n``, so that a log that goes
on elsewhere keeps its positions. Only the last part can be written. A writer goes on with its own numbers in an
engine that has never seen it (``Draft.begins``); an append whose fate is open, or that has a key, is first asked of
the sealed parts, so that nothing is written twice.

This file maps numbers. How a chain is found is ``chaining``'s, how one is made ``runtime.moving``'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from logact import codec
from logact.entry import position_of, record_of
from logact.errors import BlobMissing, ChainConflict, ConditionFailed, LogSealed, LogTrimmed, UsageError
from logact.logs.base import READ_RECORDS_MAX, Condition, Draft, Engine, EngineInfo, Filter, Page, StoredRecord

SPURIOUS_MAX = 8
"""How often an engine's refusal that proves to be a mix-up of numbers is met by asking again."""


class Part:
    """One segment: its engine, what comes before it, and (once it is sealed) the record that ends it."""

    def __init__(self, engine: Engine, base: int = 0, *, end: int = 0, first: bool = False) -> None:
        self.engine = engine
        self.base = base
        self.end = end
        self._first = first  # nothing comes before it: whoever has written has begun here
        self._writers: set[str] = set()

    def knows(self, writer: str) -> bool:
        """Whether a writer may have written here."""
        return self._first or writer in self._writers

    async def append(self, draft: Draft) -> tuple[int, bool]:
        """Append to this part; the draft's condition looks at this part alone."""
        new = not self.knows(draft.writer)
        self._writers.add(draft.writer)  # known before it is sent: its fate may stay open
        begins = draft.number > 1 and not self._first
        try:
            record, fresh = await self.engine.append(
                msgspec.structs.replace(draft, begins=begins, condition=self._condition(draft))
            )
        except (ConditionFailed, LogSealed):
            if new:
                self._writers.discard(draft.writer)
            raise
        return record + self.base, fresh

    def _condition(self, draft: Draft) -> Condition | None:
        if draft.condition is None:
            return None
        after = draft.condition.after - position_of(self.base)
        return Condition(max(0, after), self.filtered(draft.condition.unless))

    def filtered(self, matching: Filter | None) -> Filter | None:
        """A filter as this part's engine has to be asked: what refers to its own records has its own numbers."""
        if matching is None or not self.base:
            return matching
        return Filter(
            tuple(
                msgspec.structs.replace(clause, runs=self._both(clause.runs), actions=self._both(clause.actions))
                for clause in matching.clauses
            )
        )

    def _both(self, positions: tuple[int, ...]) -> tuple[int, ...]:
        shift = position_of(self.base)
        return positions + tuple(one - shift for one in positions if one > shift)

    async def read(self, after: int, limit: int, matching: Filter | None) -> Page:
        """A page of this part, in the log's own numbers."""
        page = await self.engine.read(after - self.base, limit, self.filtered(matching))
        records = page.records
        if self.base:
            records = tuple(StoredRecord(one.record + self.base, one.body) for one in records)
        return Page(records, page.upto + self.base, page.end and not self.end)


class Chain(Engine):
    """The engine of a log that has moved. ``parts`` are read; ``sealed`` are asked before anything is appended."""

    def __init__(self, log_id: str, parts: Sequence[Part], sealed: Sequence[Part]) -> None:
        self.log_id = log_id
        self.parts = list(parts)
        self.sealed = list(sealed)

    @property
    def last(self) -> Part:
        """The part that is written."""
        return self.parts[-1]

    def _engines(self) -> list[Engine]:
        return list(dict.fromkeys(part.engine for part in (*self.sealed, *self.parts)))

    async def open(self) -> None:
        for engine in self._engines():
            await engine.open()

    async def close(self) -> None:
        for engine in self._engines():
            await engine.close()

    async def append(self, draft: Draft) -> tuple[int, bool]:
        if draft.number > 1 and not (draft.begins or self.last.knows(draft.writer)):
            found = await self._carried_over(draft)
            if found is not None:
                return found
        if draft.key:
            asking = msgspec.structs.replace(draft, writer=f"{draft.writer}?", number=1, condition=None)
            for part in self.sealed:
                try:
                    return await part.append(asking)  # found under its key, or refused because of it
                except LogSealed:
                    continue
        if draft.condition is not None:
            await self._check(draft.condition, self.last.base)
        for _ in range(SPURIOUS_MAX):
            try:
                return await self.last.append(draft)
            except ConditionFailed:
                if draft.condition is None or self.last.filtered(draft.condition.unless) is draft.condition.unless:
                    raise
                # the engine's answer is by its own numbers, so it may have taken one record for another
                looked = await self._check(draft.condition, await self.tail())
                draft = msgspec.structs.replace(
                    draft, condition=Condition(position_of(looked), draft.condition.unless)
                )
        return await self.last.append(draft)

    async def _carried_over(self, draft: Draft) -> tuple[int, bool] | None:
        """Where a writer's record stands that may have been written before the seal; None if it is its next one.

        ChainConflict if it can be neither.
        """
        for part in reversed(self.sealed):
            if part.knows(draft.writer):
                try:
                    return await part.append(draft)
                except LogSealed:
                    return None
                except ChainConflict:
                    continue
        raise ChainConflict(
            f"Writer {draft.writer} is out of step",
            received=f"record number {draft.number}",
            expected="1, or the one after its last in an earlier segment",
            todo="start a new incarnation",
        )

    async def _check(self, condition: Condition, upto: int) -> int:
        """Raise ConditionFailed if a record up to ``upto`` stands against a condition; else how far it was looked.

        In sealed parts nothing changes any more, so what is looked at here stays as it is.
        """
        cursor = record_of(condition.after)
        while cursor < upto:
            page = await self.read(cursor, READ_RECORDS_MAX, condition.unless)
            for one in page.records:
                heads = codec.read_head(one.body)[0].entries
                if one.record <= upto and (
                    condition.unless is None or condition.unless.fits_record(heads, one.record)
                ):
                    raise ConditionFailed(
                        "Something relevant came in between",
                        received=f"record {one.record}",
                        expected=f"nothing that matches after record {record_of(condition.after)}",
                        todo="fold again and retry",
                    )
            if page.upto <= cursor:
                break
            cursor = page.upto
        return max(cursor, record_of(condition.after))

    def _holding(self, record: int) -> Part:
        """The part that a record lies in, or would."""
        for part in self.parts:
            if not part.end or record <= part.end:
                return part
        return self.last

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        part = self._holding(max(after, 0) + 1)
        if after < part.base:
            raise LogTrimmed(
                "These records were trimmed before the log moved",
                received=f"after record {after}",
                expected=f"{part.base} or later",
                todo="start from a checkpoint",
            )
        return await part.read(after, limit, matching)

    async def tail(self) -> int:
        return self.last.base + await self.last.engine.tail()

    def hint(self) -> int:
        return self.last.base + self.last.engine.hint()

    def follows(self, record: int, previous: int) -> bool:
        base = self.last.base
        if previous > base:
            return self.last.engine.follows(record - base, previous - base)
        return record == previous + 1

    async def wait(self, after: int, timeout_s: float) -> bool:
        if after < self.last.base:
            return True
        return await self.last.engine.wait(after - self.last.base, timeout_s)

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self.last.engine.put_blob(digest, data)

    async def get_blob(self, digest: str) -> bytes:
        for part in reversed(self.parts):
            try:
                return await part.engine.get_blob(digest)
            except BlobMissing:
                continue
        raise BlobMissing("There is no such blob in any part of this log", received=digest)

    async def erase(self, record: int, index: int) -> None:
        part = self._holding(record)
        if record <= part.base:
            raise UsageError("There is no such record", received=str(record), expected=f"more than {part.base}")
        await part.engine.erase(record - part.base, index)

    async def trim(self, before: int) -> None:
        for part in self.parts:
            # the record that seals a part stays: it says where the log goes on
            upto = min(before, part.end) if part.end else before
            if upto > part.base + 1:
                await part.engine.trim(upto - part.base)

    async def last_checkpoint(self) -> int:
        for part in reversed(self.parts):
            found = await part.engine.last_checkpoint()
            if found:
                return part.base + found
        return 0

    def info(self) -> EngineInfo:
        info = self.last.engine.info()
        older = [f"{part.engine.info().url} up to record {part.end}" for part in self.sealed]
        note = f"The log moved here from {', '.join(older)}." if older else "The log moved here with its history."
        return msgspec.structs.replace(info, notes=(*info.notes, note))
