"""Appends of one process on their way to a served log: those that come together travel in one request.

One request is under way at a time; whoever comes meanwhile waits, and goes along with the next. There is no
background task: the first of those who wait sends for all. This file knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from logact.errors import AppendUnknown, LogActError
from logact.logs.wire import DRAFTS_MAX, AppendAnswer, AppendRequest, Outcome, WireDraft

BATCH_BYTES_MAX = 4_000_000

Post = Callable[[AppendRequest], Awaitable[AppendAnswer]]


class _Item:
    """A draft on its way."""

    def __init__(self, draft: WireDraft) -> None:
        self.draft = draft
        self.size = len(draft.body) + sum(len(blob.data) for blob in draft.blobs)
        self.taken = False
        self.outcome: Outcome | None = None
        self.error: LogActError | None = None


class Outbox:
    """The queue in front of one client, on one event loop."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._queue: deque[_Item] = deque()
        self._sending = asyncio.Lock()

    async def submit(self, draft: WireDraft) -> Outcome:
        """Send a draft, with whatever else is ready: its outcome. Raises what the request raised."""
        item = _Item(draft)
        self._queue.append(item)
        try:
            async with self._sending:
                # whoever waited for the lock may find that the one before has taken its record along
                if not item.taken:
                    await self._send(self._batch())
        except BaseException:
            if not item.taken:
                self._queue.remove(item)  # it was never sent
            raise
        if item.error is not None:
            raise item.error
        if item.outcome is None:  # the one who sent it was cancelled in the middle
            raise AppendUnknown("The request was interrupted", todo="repeat it byte for byte, or read the log")
        return item.outcome

    def _batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < DRAFTS_MAX:
            size += self._queue[0].size
            if batch and size > BATCH_BYTES_MAX:
                break
            item = self._queue.popleft()
            item.taken = True
            batch.append(item)
        return batch

    async def _send(self, batch: list[_Item]) -> None:
        try:
            answer = await self._post(AppendRequest([item.draft for item in batch]))
            if len(answer.outcomes) != len(batch):
                raise AppendUnknown("The answer does not fit", received=f"{len(answer.outcomes)} outcomes")
            for item, outcome in zip(batch, answer.outcomes, strict=True):
                item.outcome = outcome
        except LogActError as error:
            for item in batch:
                item.error = error
