"""Whoever waits for news of one log: woken by this process's own appends, by notifications, by a look now and then.

This file decides when to look; how to look, to listen and to ring is given to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from logact import env as environment
from logact.errors import LogError

LOOK_S = 1.0
"""How often a follower looks by itself although it listens."""

POLL_S_MIN, POLL_S_MAX = 0.01, 0.25
"""How often it looks where it cannot listen: often after news, ever less while nothing happens."""


class Followers:
    """Those who wait. ``seen`` is the last record known; the counters say how they learnt of records."""

    def __init__(self, look: Callable[[], Awaitable[int]], listen: Callable[[], Awaitable[bool]]) -> None:
        self.seen = 0
        self.look_s = LOOK_S
        self.news_by_bell = self.news_by_look = self.news_by_self = 0
        self._look = look
        self._listen = listen
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        self._poll_s = POLL_S_MIN

    def forget(self) -> None:
        """Those of an earlier event loop are gone."""
        self._waiting.clear()

    async def wait(self, after: int, timeout_s: float) -> bool:
        """See ``Engine.wait``."""
        if self.seen > after:
            return True
        env = environment.current()
        end = env.monotonic() + timeout_s
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (after, future)
        self._waiting.append(entry)
        try:
            while True:
                listening = await self._listen()  # before looking: what is committed from here on rings
                if future.done() or await self._found(after):
                    break
                left = end - env.monotonic()
                if left <= 0:
                    return False
                pause_s = self.look_s if listening else self._poll_s
                self._poll_s = min(self._poll_s * 1.5, POLL_S_MAX)
                await asyncio.wait([future], timeout=min(left, pause_s))
                if future.done():
                    break
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        self._poll_s = POLL_S_MIN
        return True

    async def _found(self, after: int) -> bool:
        try:
            found = await self._look() > after
        except LogError:
            return True  # not an absence: whoever waits looks now, and meets the error in its own read
        if found:
            self.news_by_look += self._wake()
        return found

    def appended(self, record: int) -> None:
        """This process appended up to ``record``."""
        self.seen = max(self.seen, record)
        self.news_by_self += self._wake()

    def heard(self, record: int) -> None:
        """A notification says so; it may be false, so it wakes people and is not remembered."""
        self.news_by_bell += self._wake(record)

    def wake_all(self) -> int:
        """Everyone looks again: the log was closed, or notifications no longer come."""
        return self._wake(everyone=True)

    def _wake(self, upto: int = 0, *, everyone: bool = False) -> int:
        woken = 0
        for entry in list(self._waiting):
            after, future = entry
            if everyone or after < max(self.seen, upto):
                self._waiting.remove(entry)
                if not future.done():
                    future.set_result(True)
                    woken += 1
        return woken
