"""The ``memory:`` engine: a log that lives as long as its process. For tests, trials and the simulator.

It keeps every promise of the contract but durability, and is the plainest statement of what an engine does.
"""

from __future__ import annotations

import asyncio

from logact import codec
from logact import env as environment
from logact.entry import record_of
from logact.errors import BlobMissing, ChainConflict, ConditionFailed, KeyConflict, LogMissing, LogSealed, LogTrimmed
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page, StoredRecord


class MemoryEngine(Engine):
    """Records in a list. Several SharedLog objects may share one MemoryEngine."""

    def __init__(self, url: str = "memory:") -> None:
        self.url = url
        self.forget()
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # whose the event is

    def forget(self) -> None:
        """Hold nothing any more; for engines that are built on this one, and read back what they keep."""
        self.log_id = ""
        self.records: list[tuple[bytes, tuple[codec.EntryHead, ...]]] = []
        self.first = 1
        self.sealed = False
        self._last: dict[str, tuple[int, int, bytes]] = {}  # writer -> (its last number, record, body)
        self._keys: dict[str, tuple[int, str]] = {}
        self._blobs: dict[str, bytes] = {}

    async def open(self) -> None:
        if not self.log_id:
            if not self.create:
                raise LogMissing("There is no log of this name", received=self.url)
            self.log_id = environment.current().identifier()

    async def close(self) -> None:
        """Others may have it open, and wait: nothing to do."""

    async def append(self, draft: Draft) -> tuple[int, bool]:
        return self.append_now(draft)

    def append_now(self, draft: Draft) -> tuple[int, bool]:
        """The append itself, in one step: the simulator calls it at a moment of its own choosing."""
        last = self._last.get(draft.writer)
        if last is not None and last[0] == draft.number:
            if last[2] != draft.body:
                raise ChainConflict(f"Writer {draft.writer} already wrote another record number {draft.number}")
            return last[1], False
        if draft.number != (last[0] if last else 0) + 1 and not (draft.begins and last is None):
            raise ChainConflict(
                f"Writer {draft.writer} is out of step",
                received=f"record number {draft.number}",
                expected=str((last[0] if last else 0) + 1),
            )
        if draft.key and draft.key in self._keys:
            record, content = self._keys[draft.key]
            if content != draft.content:
                raise KeyConflict("The idempotency key was used with other content", received=draft.key)
            return record, False
        if self.sealed:
            raise LogSealed("The log is sealed")
        if draft.condition is not None:
            after = record_of(draft.condition.after)
            if after < self.first - 1:
                raise ConditionFailed("The condition looks at records that were trimmed", received=str(after))
            if after > self.tail_now():
                raise ConditionFailed("The condition names a record that is not there", received=f"record {after}")
            for number in range(after + 1, self.tail_now() + 1):
                heads = self.records[number - self.first][1]
                unless = draft.condition.unless
                if unless is None or unless.fits_record(heads, number):
                    raise ConditionFailed("Something relevant came in between", received=f"record {number}")
        for digest, data in draft.blobs:
            self._blobs[digest] = data
        self.records.append((draft.body, draft.heads))
        record = self.tail_now()
        self._last[draft.writer] = (draft.number, record, draft.body)
        if draft.key:
            self._keys[draft.key] = (record, draft.content)
        if any(head.kind == "Seal" for head in draft.heads):
            self.sealed = True
        if self._news is not None:
            self._news.set()
            self._news = None
        return record, True

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        if after < self.first - 1:
            raise LogTrimmed("These records were trimmed", received=str(after), expected=f"{self.first - 1} or later")
        limit = min(limit, READ_RECORDS_MAX)
        found: list[StoredRecord] = []
        upto = after
        if limit <= 0:
            return Page((), after)
        tail = self.tail_now()
        for number in range(after + 1, tail + 1):
            body, heads = self.records[number - self.first]
            upto = number
            if matching is None or matching.fits_record(heads, number):
                found.append(StoredRecord(number, body))
                if len(found) >= limit:
                    break
        return Page(tuple(found), upto, end=upto >= tail)

    async def last_checkpoint(self) -> int:
        for number in range(self.tail_now(), self.first - 1, -1):
            if any(head.kind == "Checkpoint" for head in self.records[number - self.first][1]):
                return number
        return 0

    def tail_now(self) -> int:
        """The last record's number, without waiting."""
        return self.first - 1 + len(self.records)

    async def tail(self) -> int:
        return self.tail_now()

    def hint(self) -> int:
        return self.tail_now()

    async def wait(self, after: int, timeout_s: float) -> bool:
        if self.tail_now() > after:
            return True
        loop = asyncio.get_running_loop()
        if self._news is None or self._loop is not loop:
            self._news, self._loop = asyncio.Event(), loop
        news = self._news
        try:
            async with asyncio.timeout(timeout_s):
                await news.wait()
        except TimeoutError:
            return self.tail_now() > after
        return True

    async def put_blob(self, digest: str, data: bytes) -> None:
        self._blobs[digest] = data

    async def get_blob(self, digest: str) -> bytes:
        if digest not in self._blobs:
            raise BlobMissing("There is no such blob", received=digest)
        return self._blobs[digest]

    async def erase(self, record: int, index: int) -> None:
        body, heads = self.records[record - self.first]
        self.records[record - self.first] = (codec.erase_payload(body, index), heads)

    async def trim(self, before: int) -> None:
        before = min(before, self.tail_now() + 1)
        if before > self.first:
            del self.records[: before - self.first]
            self.first = before

    def info(self) -> EngineInfo:
        return EngineInfo(
            url=self.url,
            engine="memory",
            survives="nothing: it ends with its process",
            wakes_by="event",
            notes=("For trials and tests only.",),
        )


_shared: dict[str, MemoryEngine] = {}  # `memory:NAME` is one log for the whole process, plain `memory:` a new one


def engine_from_url(url: str) -> MemoryEngine:
    """``memory:`` gives a fresh log, ``memory:NAME`` the one of that name in this process."""
    name = url.partition(":")[2].strip("/")
    if not name:
        return MemoryEngine(url)
    return _shared.setdefault(name, MemoryEngine(url))
