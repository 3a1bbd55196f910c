"""Helpers of the conformance suite: a raw pen over an engine, sample payloads, and the base class that adopters fill.

Holds no test of its own.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from logact import codec
from logact.entry import KINDS, BlobRef, NewEntry, Notice, Payload
from logact.logs.base import READ_RECORDS_MAX, Condition, Draft, Engine, Filter, SharedLog, StoredRecord

S = TypeVar("S", bound="Conformance")

SCENARIO_S_MAX = 60.0
"""A scenario that takes longer hangs."""


def scenario(function: Callable[[S], Awaitable[None]]) -> Callable[[S], None]:
    """Make a plain pytest method of an async one: each runs in an event loop of its own."""

    @functools.wraps(function)
    def test(self: S) -> None:
        async def run() -> None:
            async with asyncio.timeout(SCENARIO_S_MAX):
                await function(self)

        asyncio.run(run())

    del test.__dict__["__wrapped__"]  # or pytest takes it for the coroutine function that it wraps
    return test


class Conformance:
    """What an adopter says of its engine."""

    durable: bool = True
    """Records are still there after ``reopen``."""

    multi_process: bool = True
    """``another`` gives a second engine object on the same log, as another process would have."""

    async def make_engine(self) -> Engine:
        """A new engine on a fresh log; not yet opened. Called several times in one test, each for another log."""
        raise NotImplementedError

    async def reopen(self, engine: Engine) -> Engine:
        """End this engine object's life and give one on the same log, opened."""
        await engine.close()
        await engine.open()
        return engine

    async def another(self, engine: Engine) -> Engine:
        """A second engine object on the same log, not yet opened. Only where ``multi_process`` is set."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Engine]:
        """A fresh log's engine, open."""
        engine = await self.make_engine()
        await engine.open()
        try:
            yield engine
        finally:
            await engine.close()

    @asynccontextmanager
    async def log(self) -> AsyncIterator[SharedLog]:
        """A fresh log, open."""
        async with SharedLog(await self.make_engine()) as log:
            yield log


class Pen:
    """A writer without any help: it builds drafts, and counts only what was acknowledged."""

    def __init__(self, engine: Engine, name: str = "pen") -> None:
        self.engine = engine
        self.name = name
        self.number = 0
        self.previous = codec.GENESIS

    def draft(
        self,
        *payloads: Payload | NewEntry,
        key: str = "",
        condition: Condition | None = None,
        blobs: tuple[tuple[str, bytes], ...] = (),
        number: int = 0,
        salt: bytes = b"0123456789ab",
    ) -> Draft:
        """The draft of this pen's next record (or of ``number``); with no payloads, of a notice."""
        entries = [
            payload if isinstance(payload, NewEntry) else NewEntry(payload=payload, role="client", name="conformance")
            for payload in payloads or (note(f"{self.name} {number or self.number + 1}"),)
        ]
        encoded = codec.encode_record(
            entries,
            log=self.engine.log_id,
            writer=self.name,
            number=number or self.number + 1,
            previous=self.previous,
            time_ms=1_700_000_000_000,
            randomness=salt * len(entries),
            key=key,
        )
        return Draft(
            writer=self.name,
            number=number or self.number + 1,
            body=encoded.body,
            content=encoded.content,
            heads=encoded.heads,
            key=key,
            condition=condition,
            blobs=blobs,
        )

    async def send(self, draft: Draft) -> tuple[int, bool]:
        """Append a draft of this pen; counts it if it is new."""
        record, fresh = await self.engine.append(draft)
        if fresh:
            self.number = draft.number
            self.previous = codec.read_head(draft.body)[1]
        return record, fresh

    async def write(self, *payloads: Payload | NewEntry, **more: Any) -> int:
        """Append one record and return its number."""
        return (await self.send(self.draft(*payloads, **more)))[0]


def note(message: str, code: str = "conformance") -> Notice:
    """A notice, the plainest entry."""
    return Notice(code=code, message=message)


async def read_all(
    engine: Engine, matching: Filter | None = None, *, limit: int = READ_RECORDS_MAX
) -> list[StoredRecord]:
    """Every record up to the present tail, page by page; checks that each page makes progress."""
    found: list[StoredRecord] = []
    cursor, tail = 0, await engine.tail()
    while cursor < tail:
        page = await engine.read(cursor, limit, matching)
        assert page.upto > cursor, f"a page after {cursor} made no progress though the tail is {tail}"
        assert len(page.records) <= limit, f"{len(page.records)} records where {limit} were asked for"
        numbers = [stored.record for stored in page.records]
        assert numbers == sorted(set(numbers)), f"records out of order: {numbers}"
        assert all(cursor < number <= page.upto for number in numbers), f"{numbers} outside ({cursor}, {page.upto}]"
        found.extend(page.records)
        cursor = page.upto
    return found


async def numbers_of(engine: Engine, matching: Filter | None = None, **more: Any) -> list[int]:
    """The numbers of all (matching) records."""
    return [stored.record for stored in await read_all(engine, matching, **more)]


def sample(kind: str) -> Payload:
    """A payload of a kind, every required field filled."""
    cls = KINDS[kind]
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        if field.required:
            values[field.encode_name] = _value(field.name, str(field.type))
    return msgspec.convert(values, cls)


def _value(name: str, of: str) -> Any:
    fixed: dict[str, Any] = {
        "verb": "pause",
        "settlement": "happened",
        "approved": True,
        "state": msgspec.to_builtins(BlobRef(digest="d" * 43, size=3)),
    }
    if name in fixed:
        return fixed[name]
    return 7 if "int" in of else f"some {name}"
