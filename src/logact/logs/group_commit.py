"""Group commit: appends that come together share one transaction and one flush.

Whoever finds nobody leading leads: it lets everything that is ready join, commits the queue's front as one batch,
and hands the lead to the next one waiting. There is no background task and no thread of its own; a batch runs on
the event loop when that is quick, else in a worker thread.

Cancellation: a waiter that has not been taken into a batch is withdrawn (it certainly did not happen). A batch
that has begun goes on in its thread and settles all its neighbours, whatever becomes of its leader.

This file knows nothing of SQL: the :class:`Store` stages, commits and takes back.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from logact import env as environment
from logact.errors import AppendUnknown, LogUnavailable

BATCH_ITEMS_MAX = 256
BATCH_BYTES_MAX = 4_000_000

OPEN = object()
"""The result of an item whose transaction has not been acknowledged."""

Staged = Literal["open", "later", "apart", "settled"]
"""The transaction is open; it would have to wait; try each item by itself; every item has its result or error."""


class Item:
    """One piece of work: ``apply`` runs inside the transaction; its LogError is this item's alone."""

    __slots__ = ("apply", "error", "found", "future", "result", "size")

    def __init__(self, apply: Callable[[], Any], size: int = 0) -> None:
        self.apply = apply
        self.size = size
        self.found: Any = None  # what ``apply`` returned, in a transaction that may still fail
        self.result: Any = OPEN
        self.error: BaseException | None = None
        self.future: asyncio.Future[bool] | None = None


class Store(Protocol):
    """What a batch is committed to. Used by one thread at a time."""

    def quick(self, items: Sequence[Item]) -> bool:
        """Whether staging these on the event loop is expected to be quick."""

    def stage(self, items: Sequence[Item], wait: bool) -> Staged:
        """Begin a transaction and apply the items; "later" only if ``wait`` is False."""

    def quick_commit(self) -> bool:
        """Whether the commit too is expected to be quick."""

    def commit(self, items: Sequence[Item]) -> bool:
        """End the transaction and set results or errors. False: taken back; try each item by itself."""

    def undo(self) -> None:
        """Take a staged transaction back."""


class _Batch:
    """A batch on its way through a worker thread."""

    def __init__(self, store: Store, items: list[Item], staged: Staged) -> None:
        self.store = store
        self.items = items
        self.staged = staged
        self._lock = threading.Lock()
        self._state = "waiting"
        self._when_done: Callable[[], None] | None = None

    def run(self) -> None:
        """Commit the batch; in a worker thread."""
        with self._lock:
            if self._state == "revoked":
                return
            self._state = "running"
        try:
            self._run()
        finally:
            with self._lock:
                self._state = "done"
                when_done = self._when_done
            if when_done is not None:
                when_done()

    def _run(self) -> None:
        if self.staged == "later":
            self.staged = self.store.stage(self.items, wait=True)
        if self.staged == "open" and not self.store.commit(self.items):
            self.staged = "apart"
        if self.staged == "apart":
            for item in self.items:
                if self.store.stage([item], wait=True) == "open":
                    self.store.commit([item])

    def leave(self, when_done: Callable[[], None]) -> str:
        """The leader goes away: "revoked" (it will never run), "running" (calls back), or "done"."""
        with self._lock:
            if self._state == "waiting":
                self._state = "revoked"
            elif self._state == "running":
                self._when_done = when_done
            return self._state


class GroupCommit:
    """The queue in front of one store, on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: deque[Item] = deque()
        self._leading = False

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or under way."""
        return not self._leading and not self._queue

    async def submit(self, item: Item) -> Any:
        """Commit one item, together with whatever else is ready; returns its result or raises its error."""
        future = item.future = asyncio.get_running_loop().create_future()
        self._queue.append(item)
        if self._leading:
            try:
                lead = await future
            except asyncio.CancelledError:
                self._withdraw(item)
                if future.done() and not future.cancelled() and future.result():
                    self._pass_on()  # the lead had just been handed to the one that was cancelled
                raise
            if lead:
                await self._commit_front()
        else:
            self._leading = True
            try:
                await asyncio.sleep(0)  # whoever is ready to append does so now, and shares the flush
            except asyncio.CancelledError:
                self._withdraw(item)
                self._pass_on()
                raise
            await self._commit_front()
        if item.error is not None:
            raise item.error
        if item.result is OPEN:
            raise AppendUnknown("The commit was interrupted", todo="repeat it byte for byte, or read the log")
        return item.result

    async def _commit_front(self) -> None:
        """Commit one batch from the front of the queue, which holds the leader's item, and pass the lead on."""
        items = self._take()
        staged: Staged = "later"
        try:
            if self._store.quick(items):
                staged = self._store.stage(items, wait=False)
                if staged == "open" and self._store.quick_commit():
                    staged = "settled" if self._store.commit(items) else "apart"
        except BaseException:
            self._settle(items)  # an interrupt in the middle: the store has noted what it knows
            raise
        if staged == "settled":
            self._settle(items)
            return
        batch = _Batch(self._store, items, staged)
        loop = asyncio.get_running_loop()

        def settle_later() -> None:
            try:
                loop.call_soon_threadsafe(self._settle, items)
            except RuntimeError:
                pass  # the loop is closed: nobody is left to be told

        try:
            await environment.current().in_thread(batch.run)
        except BaseException as error:
            state = batch.leave(settle_later)
            if state == "revoked":
                if staged == "open":
                    self._store.undo()
                if isinstance(error, asyncio.CancelledError):
                    # the leader itself is among them and gone: its future is done, so the queue skips it
                    self._queue.extendleft(reversed(items[1:]))
                    self._pass_on()
                else:
                    for item in items:
                        item.error = LogUnavailable("The log's work could not be started", received=repr(error))
                    self._settle(items)
                    return
            elif state == "done":
                self._settle(items)
                if not isinstance(error, asyncio.CancelledError):
                    return
            raise
        self._settle(items)

    def _take(self) -> list[Item]:
        items: list[Item] = []
        size = 0
        while self._queue and len(items) < BATCH_ITEMS_MAX and (not items or size < BATCH_BYTES_MAX):
            item = self._queue.popleft()
            size += item.size
            items.append(item)
        return items

    def _settle(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.future is not None and not item.future.done():
                item.future.set_result(False)
        self._pass_on()

    def _pass_on(self) -> None:
        """Hand the lead to the first that waits."""
        while self._queue:
            future = self._queue[0].future
            if future is None or future.done():
                self._queue.popleft()  # cancelled, and not yet woken to withdraw itself
                continue
            self._leading = True
            future.set_result(True)
            return
        self._leading = False

    def _withdraw(self, item: Item) -> None:
        try:
            self._queue.remove(item)
        except ValueError:
            pass  # it is in a batch already: that batch goes on
