"""A deterministic asyncio event loop: virtual time, and every choice of what runs next from one seed.

It runs unmodified asyncio code. Time stands still while anything is ready, then jumps to the next timer. Which
ready task steps next is drawn from :class:`Choices`; plain callbacks keep their order among themselves, since
asyncio promises it. Real sockets, subprocesses and threads are refused.

Handles remember the (simulated) process in whose context they were made; those of dead processes never run.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logact.testing.world import Process

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated_process", default=None)


class Deadlock(AssertionError):
    """Nothing can ever run again."""


class StepLimit(AssertionError):
    """The run took more steps than it may: something spins."""


class ProcessDied(BaseException):
    """Raised inside of a process that was killed, so that nothing more gets out of it."""


class Choices:
    """Random decisions of one purpose, from one seed. Seed 0 is the boring schedule: first in first out, no delay."""

    def __init__(self, seed: int, purpose: str = "") -> None:
        self.seed = seed
        self._random = random.Random(f"{seed} {purpose}").random

    def below(self, count: int) -> int:
        """An integer in [0, count)."""
        return int(self._random() * count) if self.seed else 0

    def chance(self, likelihood: float) -> bool:
        """True with this likelihood; never in the boring schedule."""
        return bool(self.seed) and self._random() < likelihood

    def delay(self, low_s: float, high_s: float) -> float:
        """Seconds between the two."""
        return low_s + (high_s - low_s) * self._random() if self.seed else low_s


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number: a TaskGroup keeps tasks in a set, and cancels them in that set's order."""

    def __init__(
        self, coro: Any, *, loop: SimLoop, name: str | None = None, context: contextvars.Context | None = None
    ) -> None:
        loop.tasks_made += 1
        self.number = loop.tasks_made
        self.context = context if context is not None else contextvars.copy_context()
        super().__init__(coro, loop=loop, name=name or f"task {self.number}", context=self.context)
        process = self.context.get(PROCESS)
        if process is not None:
            process.tasks.append(self)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """See the module. ``steps`` counts what ran; more than ``steps_max`` raises StepLimit."""

    def __init__(self, choices: Choices, *, steps_max: int = 400_000) -> None:
        super().__init__()
        self.choices = choices
        self.steps_max = steps_max
        self.steps = 0
        self.tasks_made = 0
        self.errors: list[dict[str, Any]] = []
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._waiting: list[asyncio.Handle] = []
        self._ready = self._waiting  # what BaseEventLoop.call_soon appends to
        self.set_task_factory(_make_task)
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)  # there is only one thread

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """A thread's work is one atomic step at a moment of the scheduler's choosing; it dies with its process."""
        done = self.create_future()

        def work() -> None:
            try:
                found = function(*args)
            except BaseException as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(found)

        self.call_later(self.choices.delay(0, 0.01), work)
        return done

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def _timer_handle_cancelled(self, handle: object) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, events: object) -> None:
        """There are none."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("real I/O inside of a simulation")

    add_reader = add_writer = remove_reader = remove_writer = _refuse  # type: ignore[assignment]
    create_connection = create_server = create_datagram_endpoint = _refuse
    subprocess_exec = subprocess_shell = getaddrinfo = _refuse

    def forget(self) -> None:
        """Drop everything that waits to run."""
        self._waiting.clear()
        self._timers.clear()

    def _run_once(self) -> None:
        ready, timers = self._waiting, self._timers
        while not self._stopping:  # type: ignore[attr-defined]
            if not ready:
                while timers and timers[0][2].cancelled():
                    heapq.heappop(timers)
                if not timers:
                    raise Deadlock(f"nothing can ever run again after {self._now:.3f} s")
                self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                timer = heapq.heappop(timers)[2]
                if not timer.cancelled():
                    ready.append(timer)
            if not ready:
                continue
            handle = ready.pop(self._pick(ready))
            if handle.cancelled():
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None:
                if process.frozen_until > self._now:
                    self._hold(process, handle)
                    continue
                if not process.may_step():
                    continue
            self.steps += 1
            if self.steps > self.steps_max:
                raise StepLimit(f"{self.steps_max} steps at {self._now:.3f} s: something spins")
            handle._run()

    def _hold(self, process: Process, handle: asyncio.Handle) -> None:
        """Run a step later: its process is frozen, and time goes by without it."""
        if not process.held:
            self.call_at(process.frozen_until, self.thaw, process, context=contextvars.Context())
        process.held.append(handle)

    def thaw(self, process: Process) -> None:
        """A frozen process goes on where it stopped, if its time has come."""
        if process.frozen_until <= self._now:
            self._waiting.extend(process.held)
            process.held.clear()
        elif process.held:  # it was frozen again meanwhile
            self.call_at(process.frozen_until, self.thaw, process, context=contextvars.Context())

    def _pick(self, ready: list[asyncio.Handle]) -> int:
        if len(ready) == 1:
            return 0
        at = self.choices.below(len(ready))
        if at and not _steps_a_task(ready[at]):
            at = next(place for place, handle in enumerate(ready) if not _steps_a_task(handle))
        return at


def _steps_a_task(handle: asyncio.Handle) -> bool:
    return type(getattr(handle._callback, "__self__", None)) is SimTask  # type: ignore[attr-defined]


def _make_task(loop: Any, coro: Any, context: Any = None, **more: Any) -> SimTask:
    return SimTask(coro, loop=loop, context=context, **more)
