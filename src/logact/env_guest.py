"""Guests: what users wrote (tools, voters, models, checks) and LogAct calls in its own process.

This file owns what a guest may not do to its host: end the process, break the event loop, and write between the lines
of a command's own output. It calls no guest itself, and never judges what an ordinary exception of one means.
"""

from __future__ import annotations

import contextvars
import functools
import signal
import threading
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Contained(Exception):
    """Stands for what a guest raised and nobody may see: an exit, an interrupt, the end of an iterator."""


class Printed:
    """How much one call of a guest has printed so far, in characters."""

    __slots__ = ("chars",)

    def __init__(self) -> None:
        self.chars = 0


_printed: contextvars.ContextVar[Printed | None] = contextvars.ContextVar("logact_guest_printed", default=None)


def printed_here() -> Printed | None:
    """What the guest that runs here has printed; None where LogAct itself is at work."""
    return _printed.get()


class guest:
    """``with guest():`` around every call of a user's code, plain or awaited.

    What it raises comes out as an ordinary exception, but for what came from outside: a signal (Ctrl-C, or a handler
    that exits), the cancellation of its task, and GeneratorExit.
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _printed.set(Printed())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _printed.reset(self._token)
        except ValueError:
            pass  # it is buried, by whoever collects what is left of a loop
        if error is None or not _leaves_out(error) or isinstance(error, GeneratorExit) or from_outside(error):
            return
        raise Contained(_words(error)) from error


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """The function as a worker thread runs it: no signal arrives there, so all that it raises is its own."""

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if not _leaves_out(error):
                raise
            # a future refuses a StopIteration, so that whoever waits for it would wait for ever
            raise Contained(_words(error)) from error

    return run


def said(error: BaseException) -> str:
    """An exception in words: its class and its text, whatever its own ``__str__`` does."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be read)"
    if isinstance(error, Contained):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def from_outside(error: BaseException) -> bool:
    """Whether a signal raised it, and not the code that the signal interrupted."""
    if not isinstance(error, SystemExit | KeyboardInterrupt):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False  # signals are handled by the main thread alone
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    if isinstance(error, KeyboardInterrupt) and handlers.get(signal.SIGINT) is signal.default_int_handler:
        return True  # it leaves no frame of its own, so the two cannot be told apart
    codes = {code for code in map(_code_of, handlers.values()) if code is not None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def is_cancelled(error: BaseException) -> bool:
    """Whether it says that the running task is cancelled, rather than that a guest gave up what it awaited."""
    import asyncio  # here, since `logact --help` needs this module, and no loop

    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


def _leaves_out(error: BaseException) -> bool:
    """Whether it would do more than fail: neither ``except Exception`` nor a future holds it."""
    from asyncio import CancelledError

    return isinstance(error, StopIteration) or not isinstance(error, Exception | CancelledError)


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it tried to end the process (SystemExit: {error.code}): return a value, or raise an error, instead"
    if isinstance(error, StopIteration):
        return "it raised StopIteration: an iterator had nothing more (give next() a default)"
    return f"it raised {said(error)}, which is no error of a tool or voter"


def _code_of(handler: object) -> CodeType | None:
    """The code of a signal's handler, if it is written in Python."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    found = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return found if isinstance(found, CodeType) else None
