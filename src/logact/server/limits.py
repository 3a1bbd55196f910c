"""Limits on who asks how much: request rates by token and address, open streams, bodies, slow bodies.

All in memory, for one server process; nothing here knows what a request means.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from logact import env as environment
from logact.errors import TooLarge, TooManyRequests, UsageError
from logact.server.problems import SlowBody
from logact.server.settings import Limits


class Rates:
    """Token buckets by name, the longest unused forgotten first."""

    NAMES_MAX = 10_000
    BURST_S = 10.0

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, cost: float = 1.0) -> float:
        """Take from a bucket: 0 if that was all right, else the seconds after which to try again."""
        now = environment.current().monotonic()
        most = max(self.per_s * self.BURST_S, 1.0)
        left, at = self._left.pop(name, (most, now))
        left = min(most, left + (now - at) * self.per_s)
        wait_s = 0.0 if left >= cost else (cost - left) / self.per_s
        self._left[name] = (left - cost if not wait_s else left, now)
        if len(self._left) > self.NAMES_MAX:
            self._left.popitem(last=False)
        return wait_s

    def check(self, name: str) -> None:
        """Take one, or raise TooManyRequests."""
        wait_s = self.take(name)
        if wait_s:
            raise slow_down(wait_s)


def slow_down(wait_s: float) -> TooManyRequests:
    """The error that asks for a pause."""
    return TooManyRequests("Too many requests", todo=f"wait {wait_s:.1f} seconds")


class Streams:
    """How many long answers each token has open."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: dict[str, int] = {}

    def check(self, token: str) -> None:
        """Raise TooManyRequests if no further stream may be opened."""
        if self.open.get(token, 0) >= self.most:
            raise TooManyRequests("Too many streams are open", expected=f"at most {self.most} with one token")

    @contextmanager
    def one(self, token: str) -> Iterator[None]:
        """Count one stream. Raises TooManyRequests if there are too many."""
        self.check(token)
        self.open[token] = self.open.get(token, 0) + 1
        try:
            yield
        finally:
            self.open[token] -= 1
            if not self.open[token]:
                del self.open[token]


async def read_body(request: Request, most: int, limits: Limits) -> bytes:
    """A request's body. Raises TooLarge, also where the length was not told or told wrong, and UsageError if slow."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise TooLarge("The request is too large", received=f"{told} bytes", expected=f"at most {most}")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s_max):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise TooLarge("The request is too large", received="more", expected=f"at most {most} bytes")
    except TimeoutError as error:
        raise SlowBody(
            "The request came too slowly", received=f"{len(body)} bytes", expected=f"all in {limits.body_s_max:g} s"
        ) from error
    except ClientDisconnect as error:
        raise UsageError("The client went away") from error
    return bytes(body)


__all__ = ["Limits", "Rates", "Streams", "read_body", "slow_down"]
