"""Group commit over one connection: appends that come together go to the server in one call, one transaction.

While a batch is under way, what comes next gathers; when its answer is there, all of that is sent at once. Nobody
leads and no task runs: the event loop calls back. A caller that is cancelled before its draft was sent takes it
back; one that is cancelled later leaves its fate open, and disturbs nobody.

This file owns how a batch is written and its answer read. It opens no connection.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from logact.entry import record_of
from logact.errors import (
    AppendUnknown,
    LogActError,
)
from logact.logs import refusals
from logact.logs.base import Draft, Filter
from logact.logs.postgres_connect import is_certain, may_retry, meaning
from logact.logs.postgres_wire import Answer, ServerError, Wire

BATCH_ITEMS_MAX = 256
BATCH_BYTES_MAX = 4_000_000
RETRIES_MAX = 10
"""How often a batch is sent again that lost against another transaction."""

APPEND = b"SELECT logact.append($1, $2, $3, $4)"
PREPARED = b"logact_append"
_BINARY = (False, False, True, False)


class Item:
    """A draft on its way. ``future`` gets (record, fresh), an error, or None: send it again."""

    __slots__ = ("draft", "future")

    def __init__(self, draft: Draft, future: asyncio.Future[tuple[int, bool] | None]) -> None:
        self.draft = draft
        self.future = future


class Pen:
    """The queue in front of one connection that appends to one log. Belongs to one event loop."""

    def __init__(self, log: int, *, durable: bool, told: Callable[[int, bool], None]) -> None:
        self.log = log
        self.wire: Wire | None = None
        self.batches = 0
        self._durable = durable
        self._told = told  # (last record, whether somebody listens), after each batch that appended something
        self._prepared = False
        self._queue: deque[Item] = deque()
        self._singles: deque[Item] = deque()  # of a batch that failed as a whole: each goes by itself
        self._retries = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or under way."""
        return not self._queue and not self._singles and (self.wire is None or not self.wire.busy)

    @property
    def connected(self) -> bool:
        """Whether there is a connection that works, as far as known."""
        return self.wire is not None and not self.wire.closed

    def use(self, wire: Wire, *, prepared: bool) -> None:
        """Write over this connection from now on."""
        self.wire, self._prepared = wire, prepared
        self.pump()

    def submit(self, draft: Draft) -> Item:
        """Queue a draft; it is sent once ``pump`` is called, or with the next batch."""
        item = Item(draft, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        return item

    def withdraw(self, item: Item) -> bool:
        """Take an item back; False if it was sent already, so that its fate is open."""
        for queue in (self._queue, self._singles):
            if item in queue:
                queue.remove(item)
                return True
        return False

    def drop(self) -> None:
        """The connection is gone: whoever waits in the queue has to see to a new one."""
        self.wire = None
        waiting = [*self._singles, *self._queue]
        self._singles.clear()
        self._queue.clear()
        for item in waiting:
            _settle(item, None)

    def pump(self) -> None:
        """Send what waits, if the connection is free."""
        wire = self.wire
        if wire is None or wire.closed or wire.busy:
            return
        items: list[Item] = []
        size = 0
        queue = self._singles or self._queue
        items_max = 1 if self._singles else BATCH_ITEMS_MAX
        while queue and len(items) < items_max and (not items or size < BATCH_BYTES_MAX):
            item = queue.popleft()
            if not item.future.done():
                size += len(item.draft.body) + sum(len(data) for _, data in item.draft.blobs)
                items.append(item)
        if items:
            self._send(wire, items)

    def _send(self, wire: Wire, items: list[Item]) -> None:
        described, data = encode(item.draft for item in items)
        values = (str(self.log).encode(), described, data, b"t" if self._durable else b"f")
        self.batches += 1
        wire.send(
            PREPARED if self._prepared else APPEND,
            values,
            lambda answer: self._answered(items, answer),
            prepared=self._prepared,
            binary=_BINARY,
        )

    def _answered(self, items: list[Item], answer: Answer | Exception) -> None:
        if isinstance(answer, ServerError) and may_retry(answer) and self._retries < RETRIES_MAX:
            self._retries += 1
            (self._singles if len(items) == 1 else self._queue).extendleft(reversed(items))
            if answer.sqlstate == "25006" and self.wire is not None:
                self.wire.close("the server was demoted")
        else:
            self._retries = 0
            self._settle_all(items, answer)
        if self.wire is None or self.wire.closed:
            self.drop()
        else:
            self.pump()

    def _settle_all(self, items: list[Item], answer: Answer | Exception) -> None:
        if isinstance(answer, Answer) and not answer.warnings:
            listened, outcomes = decode(answer.raw(0, 0) or b"")
            newest = max((number for code, number in outcomes if code == 0), default=0)
            if newest:
                self._told(newest, listened)
            for item, (code, number) in zip(items, outcomes, strict=True):
                _settle(item, outcome(item.draft, code, number))
            return
        if isinstance(answer, Answer):
            # committed here, but for instance not on the standby that it should have waited for
            error: LogActError = AppendUnknown(
                "The server committed with a warning", received="; ".join(answer.warnings), todo="repeat it"
            )
        else:
            certain = isinstance(answer, ServerError) and is_certain(answer)
            if certain and len(items) > 1:
                self._singles.extend(items)  # one may be to blame: no neighbour suffers for it
                return
            error = meaning(answer, appending=True)
        for item in items:
            _settle(item, error)


def _settle(item: Item, outcome: tuple[int, bool] | LogActError | None) -> None:
    if item.future.done():
        return
    if isinstance(outcome, LogActError):
        item.future.set_exception(outcome)
    else:
        item.future.set_result(outcome)


def plain(text: str) -> str:
    """A text as PostgreSQL can hold it: it knows no NUL. Different texts stay different."""
    if "\0" in text or "\\" in text:
        return text.replace("\\", "\\\\").replace("\0", "\\0")
    return text


def encode(drafts: Iterable[Draft]) -> tuple[bytes, bytes]:
    """Drafts as the function ``logact.append`` takes them: a description in JSON, and all bytes in one piece."""
    described: list[dict[str, object]] = []
    pieces: list[bytes] = []
    offset = 1
    for draft in drafts:
        body = draft.body
        item: dict[str, object] = {
            "w": plain(draft.writer),
            "n": draft.number,
            "o": offset,
            "s": len(body),
            "z": zlib.crc32(body),
            "h": heads_of(draft),
        }
        if draft.begins:
            item["e"] = 1
        pieces.append(body)
        offset += len(body)
        if draft.key:
            item["k"], item["c"] = plain(draft.key), plain(draft.content)
        if draft.condition is not None:
            item["a"] = record_of(draft.condition.after)
            if draft.condition.unless is not None:
                item["f"] = filter_clauses(draft.condition.unless)
        if draft.blobs:
            blobs = []
            for digest, data in draft.blobs:
                blobs.append((digest, offset, len(data)))
                pieces.append(data)
                offset += len(data)
            item["b"] = blobs
        for head in draft.heads:
            if head.kind == "Seal":
                item["x"] = 1
            elif head.kind == "Checkpoint":
                item["y"] = 1
        described.append(item)
    return msgspec.json.encode(described), b"".join(pieces)


def heads_of(draft: Draft) -> list[tuple[str, str, str, str, int, int]]:
    """The headers of a record's entries as ``logact.fits`` reads them."""
    return [
        (plain(head.kind), plain(head.role), plain(head.agent), plain(head.tool), head.run, head.action)
        for head in draft.heads
    ]


def filter_clauses(matching: Filter) -> list[dict[str, list[str] | list[int]]]:
    """A filter as ``logact.fits`` reads it."""
    found = []
    for clause in matching.clauses:
        row: dict[str, list[str] | list[int]] = {}
        for name in ("kinds", "roles", "agents", "tools"):
            if values := getattr(clause, name):
                row[name] = [plain(value) for value in values]
        for name in ("runs", "actions"):
            if numbers := getattr(clause, name):
                row[name] = list(numbers)
        found.append(row)
    return found


def decode(text: bytes) -> tuple[bool, list[tuple[int, int]]]:
    """The answer of ``logact.append``: whether somebody listens, and a (code, number) for each item."""
    listened, *numbers = map(int, text.split(b","))
    return bool(listened), list(zip(numbers[::2], numbers[1::2], strict=True))


def outcome(draft: Draft, code: int, number: int) -> tuple[int, bool] | LogActError:
    """What a code of ``logact.append`` means for its draft."""
    match code:
        case 0:
            return number, True
        case 1 | 4:
            return number, False
        case 2:
            return refusals.other_bytes(draft, number)
        case 3:
            return refusals.out_of_step(draft, number)
        case 5:
            return refusals.key_conflict(draft, number)
        case 6:
            return refusals.sealed(number)
        case 7:
            return refusals.condition_beyond(draft, number)
        case 8:
            return refusals.condition_trimmed(draft, number)
    return refusals.came_between(draft, number)
