"""Ending well: what runs is finished (within a limit), nothing more begins, and the log is told.

A :class:`Leave` is asked for by a signal or by a supervisor; the parts of a process look at it. What is not finished
within the limit is left as a crash leaves it, for the next holder to settle by the table of recovery.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from logact import env as environment

T = TypeVar("T")

STOP_S = 20.0
"""How long a process that was asked to end may finish what it runs."""

LOOK_S = 0.02


class Leave:
    """A request to end, and how long what runs may take. ``asked`` is waited for, or looked at.

    ``position`` says how far this process has read the log.
    """

    def __init__(self, limit_s: float = STOP_S) -> None:
        self.limit_s = limit_s
        self.asked = asyncio.Event()
        self.position: Callable[[], int] = lambda: 0

    def ask(self) -> None:
        """Nothing more is begun from here on. May be called again."""
        self.asked.set()

    async def finished(self, busy: Callable[[], bool]) -> None:
        """Return once this was asked for and nothing runs any more, or the limit is over."""
        env = environment.current()
        await self.asked.wait()
        end = env.monotonic() + self.limit_s
        while busy() and env.monotonic() < end:
            await env.sleep(LOOK_S)


async def ending_well(
    begin: Callable[[], Coroutine[Any, Any, T]], leave: Leave, busy: Callable[[], bool]
) -> T | None:
    """The result of the work that ``begin`` gives; None if it was ended because it was asked to leave."""
    found: list[T] = []
    problems: list[Exception] = []

    async def guarded() -> None:
        try:
            found.append(await begin())
        except Exception as error:  # raised below, as it is: a task group would wrap it
            problems.append(error)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(guarded())

        async def end() -> None:
            await leave.finished(busy)
            task.cancel()

        watch = group.create_task(end())
        await asyncio.wait([task])
        watch.cancel()
    if problems:
        raise problems[0]
    return found[0] if found else None


def on_signals(leave: Leave, *numbers: int) -> None:
    """SIGTERM (or these signals) asks this process to leave, however often it comes. Call it in the loop.

    Only a second SIGINT ends it at once: that one is a person at the keyboard. SIGTERM comes more than once by
    itself: Linux sends the parent-death signal for each thread of the parent, and whoever ends a group sends it, too.
    """
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if number == signal.SIGINT:
            loop.remove_signal_handler(number)  # the next one takes the system's own way: the process ends
        leave.ask()

    for number in numbers or (signal.SIGTERM,):
        try:
            loop.add_signal_handler(number, asked, number)
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # not the main thread, or a platform without them: signals end it as ever


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, however deep."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
