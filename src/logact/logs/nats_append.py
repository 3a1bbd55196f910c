"""Appending to a stream: judged by the fold, checked by the server, repeated until the fate of a record is known.

* A plain record is published on its writer's own subject, on the condition that the writer's last record is still its
  last there. Writers do not hinder each other, and a repetition, however late, is refused by the server itself. When
  many come at once they go out together.
* A record under a condition or a key is published on the condition that the stream still ends where the fold that
  judged it ended. Losing that race means to fold on, judge again and try again; those that come together share a try.
* A record counts once everything before it is folded and holds no seal.

Attempts last for ``WINDOW_S``: longer than two elections. None returns a position that it has not seen confirmed.
"""

from __future__ import annotations

import asyncio
import weakref

from logact import codec
from logact import env as environment
from logact.errors import LogError, TooLarge
from logact.logs.base import Draft
from logact.logs.nats_attempt import Attempt
from logact.logs.nats_race import Convoy, Race
from logact.logs.nats_stream import Stream

HEADER_BYTES_MAX = 4096
HOLD_S = 0.03


class Appender:
    """The pen of one process on one stream. ``lost_races`` and ``repeats`` count what happened."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.lost_races = self.repeats = 0
        self.expected: dict[str, int] = {}  # where a writer's last record is not the last on its subject any more
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.race = Race(stream)
        self.convoy = Convoy(stream)
        self.crowded = 0
        self.calm = asyncio.Event()
        self.calm.set()
        self.hold_until = 0.0

    def hold(self) -> None:
        """Another process lost many races: let it go first."""
        self.hold_until = environment.current().monotonic() + HOLD_S

    async def append(self, draft: Draft) -> tuple[int, bool]:
        """See ``Engine.append``."""
        self._check_size(draft)
        turn = self._turns.setdefault(draft.writer, asyncio.Lock())
        async with turn:  # one record of a writer at a time: repeated ones too
            if draft.blobs and self._known(draft) is None:
                for digest, data in draft.blobs:
                    await self.stream.side.put_blob(digest, data)
            if draft.condition is None and not draft.key:
                return await self.convoy.run(Attempt(self, draft))
            return await self.race.run(Attempt(self, draft))

    def _known(self, draft: Draft) -> tuple[int, bool] | None:
        try:
            return self.stream.memory.known(draft)
        except LogError:
            return 0, False  # to be judged properly

    def _check_size(self, draft: Draft) -> None:
        most = min(codec.RECORD_BYTES_MAX, self.stream.link.max_payload - HEADER_BYTES_MAX)
        if self.stream.link.max_payload and len(draft.body) > most:
            raise TooLarge(
                "A record is too large",
                received=f"{len(draft.body)} bytes",
                expected=f"at most {most} (the server takes messages of {self.stream.link.max_payload} bytes)",
                todo="split the batch, move large values to blobs, or raise max_payload",
            )
