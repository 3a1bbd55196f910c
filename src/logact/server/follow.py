"""A log as a stream of server-sent events, at the pace of whoever reads it.

There is no queue that could grow: a stream holds one page of the log, sends it, and reads the next one. A client that
does not take its page in time is cut off; it comes back with ``Last-Event-ID``, the position of the last event that
it got, and misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

import msgspec

from logact import codec
from logact.entry import Entry, position_of, record_before, record_of
from logact.errors import LogActError
from logact.logs.base import Filter, SharedLog, StoredRecord
from logact.logs.wire import WireRecord, encoded, told
from logact.server.pages import read_page

Form = Literal["entries", "records"]


async def stream(
    log: SharedLog,
    after: int,
    matching: Filter | None,
    form: Form,
    *,
    ping_s: float,
    page_bytes: int,
    live: bool,
    closing: asyncio.Event,
    valid: Callable[[], bool],
) -> AsyncGenerator[bytes, None]:
    """The events after a position, then (``live``) those that come, until the server closes or ``valid`` says no."""
    cursor = record_before(after) if form == "entries" else record_of(after)
    yield b"retry: 1000\n\n"
    while not closing.is_set():
        if not valid():
            yield _event("end", None, {"reason": "the token is not valid any more"})
            return
        try:
            page = await read_page(log, cursor, 512, matching, page_bytes)
            events = [event for stored in page.records for event in _events(log, stored, after, matching, form)]
            if events:
                yield b"".join(events)
            if page.upto > cursor:
                cursor = page.upto
                continue
            if not live:
                return
            if not await wait_for_news(log, cursor, ping_s, closing):
                yield b": ping\n\n"
        except LogActError as error:
            yield _event("error", None, msgspec.to_builtins(told(error)))
            return
    yield _event("end", None, {"reason": "the server shuts down; come back"})


async def wait_for_news(log: SharedLog, cursor: int, ping_s: float, closing: asyncio.Event) -> bool:
    """Wait for news, the next ping, or the server's end, whichever is first."""

    async def wait() -> bool:
        try:
            return await log.engine.wait(cursor, ping_s)
        except LogActError:
            return True  # the read that follows says what is wrong

    async with asyncio.TaskGroup() as group:
        news = group.create_task(wait())
        end = group.create_task(closing.wait())
        await asyncio.wait((news, end), return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        end.cancel()
    return news.cancelled() or news.result()


def _events(log: SharedLog, stored: StoredRecord, after: int, matching: Filter | None, form: Form) -> list[bytes]:
    if form == "records":
        data = encoded(WireRecord(stored.record, stored.body))
        return [_raw("record", position_of(stored.record), data)]
    entries = log.decode(stored.body, stored.record)
    heads = codec.read_head(stored.body)[0].entries
    return [
        _event("entry", entry.position, plain(entry))
        for entry, head in zip(entries, heads, strict=True)
        if entry.position > after and (matching is None or matching.fits(head, entry.position))
    ]


def plain(entry: Entry) -> dict[str, Any]:
    """An entry for readers that do not decode records themselves."""
    return {
        "position": entry.position,
        "kind": entry.kind,
        "author": msgspec.to_builtins(entry.author),
        "agent": entry.agent,
        "run": entry.run,
        "action": entry.action,
        "time_ms": entry.time_ms,
        "forged": entry.forged,
        "payload": msgspec.to_builtins(entry.payload),
    }


def _event(name: str, position: int | None, data: Any) -> bytes:
    return _raw(name, position, encoded(data))


def _raw(name: str, position: int | None, data: bytes) -> bytes:
    ident = b"" if position is None else b"id: %d\n" % position
    return b"event: " + name.encode() + b"\n" + ident + b"data: " + data + b"\n\n"
