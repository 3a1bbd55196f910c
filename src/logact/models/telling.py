"""Waits that begin are told, at the moment, to whoever listens in this context. Nothing here is stored or awaited.

Most of what happens is an entry, and observers hear of it. That nothing happens for a while is none.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from logact.core.waiting import Wait

Hear = Callable[[Wait], None]
_hear: contextvars.ContextVar[Hear | None] = contextvars.ContextVar("logact_hears_waits", default=None)


@contextmanager
def hearing(hear: Hear) -> Iterator[None]:
    """Call ``hear`` for each wait that begins in what this context runs, its tasks included."""
    token = _hear.set(hear)
    try:
        yield
    finally:
        _hear.reset(token)


def tell(wait: Wait) -> None:
    """A wait begins."""
    hear = _hear.get()
    if hear is not None:
        hear(wait)
