"""A cancellation that arrives together with an answer is not lost.

``asyncio.wait_for`` of Python 3.11 returns the answer then, and the cancellation is gone; whoever waits for the task
to end waits for ever. Client libraries use it. What they are awaited with goes through :func:`cancellable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def cancellable(answer: Awaitable[T]) -> T:
    """Await it. Raises CancelledError if this task was asked to end meanwhile, whatever the answer was."""
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0
    found = await answer
    if task is not None and task.cancelling() > asked:
        raise asyncio.CancelledError
    return found
