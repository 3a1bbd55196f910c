"""A clock that tests of this directory move themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from logact import env as environment

BEGIN = int(datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC).timestamp() * 1000)


class Clock(environment.Env):
    """A wall clock that is set by hand; sleeping moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = BEGIN

    def wall_ms(self) -> int:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000) + 1
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The clock that everything reads meanwhile."""
    made = Clock()
    environment.use(made)
    yield made
    environment.use(environment.REAL)
