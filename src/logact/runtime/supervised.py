"""The child's side of supervision: it says that it lives, and it ends with its supervisor.

A process that a supervisor started finds a variable in its environment: a pipe for its pulse, and who the supervisor
is. Once a second it writes down the pipe how far it has read the log; a process whose loop stands still (stopped, or
stuck in code that never waits) writes nothing, and one whose fold stands still says so. On Linux the kernel tells
it when the supervisor is gone; elsewhere the broken pipe does. Then it leaves as on SIGTERM: what runs is finished,
and what it prints meanwhile is dropped, since an error of printing would be a failure of the tool that printed.

Nothing here is needed where no supervisor is: without the variable all of it does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import os
import select
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from logact import env as environment
from logact.runtime.leaving import Leave

VARIABLE = "LOGACT_SUPERVISED"
PULSE_S = 1.0
Write = Callable[[bytes], object]
_PDEATHSIG = 1  # Linux: the first option of prctl


def pipe_of_supervisor() -> int | None:
    """The handle that the pulse goes to; None if no supervisor started this process."""
    pipe, _, supervisor = os.environ.get(VARIABLE, "").partition(":")
    return int(pipe) if pipe.isdigit() and supervisor.isdigit() else None


def supervisor_pid() -> int:
    """The process that supervises this one (0: nobody does)."""
    supervisor = os.environ.get(VARIABLE, "").partition(":")[2]
    return int(supervisor) if supervisor.isdigit() else 0


def end_with_supervisor() -> None:
    """Have the kernel send SIGTERM when the supervisor dies; leave at once if it has died already."""
    supervisor = supervisor_pid()
    if not supervisor:
        return
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Words()), sys.stderr.encoding, "backslashreplace", line_buffering=True
    )
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    except (OSError, AttributeError):
        return  # a C library without it: the pipe is still there
    if os.getppid() != supervisor:
        raise SystemExit(0)  # it died before the kernel was asked; nothing was begun


class _Words(io.RawIOBase):
    """Standard error, to a supervisor that may be gone: then it is as if nobody had asked for the words."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: Any, /) -> int:
        try:
            return os.write(2, data)
        except BrokenPipeError:
            _unheard()
            return len(data)


def _unheard() -> None:
    """Nobody reads standard error any more: drop what is written there, also by processes that are started later."""
    watch = select.poll()
    watch.register(2, 0)
    if any(event & select.POLLERR for _, event in watch.poll(0)):  # else it is a file, or somebody else's pipe
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


@contextmanager
def _until_unheard(leave: Leave) -> Iterator[None]:
    """Notice at once that nobody reads the pulse: a selector tells of the error of a pipe, whatever it is asked."""
    pipe = pipe_of_supervisor()
    if pipe is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def broken() -> None:
        loop.remove_reader(pipe)
        _unheard()
        leave.ask()

    loop.add_reader(pipe, broken)
    try:
        yield
    finally:
        loop.remove_reader(pipe)


def _pipe() -> Write | None:
    pipe = pipe_of_supervisor()
    if pipe is None:
        return None
    os.set_blocking(pipe, False)
    return lambda data: os.write(pipe, data)


async def pulse(leave: Leave, write: Write | None = None) -> None:
    """Write the pulse until cancelled; ask this process to leave once nobody reads it any more.

    ``write`` is where it goes, if that is not the pipe that the supervisor named.
    """
    write = write or _pipe()
    if write is None:
        return
    env = environment.current()
    while True:
        try:
            write(f"{leave.position()}\n".encode())
        except BlockingIOError:
            pass  # the supervisor is behind (stopped, perhaps): what it has not read says that this process lived
        except OSError:
            leave.ask()
            return
        await env.sleep(PULSE_S)


@asynccontextmanager
async def supervised(leave: Leave, write: Write | None = None) -> AsyncIterator[None]:
    """The pulse beats meanwhile. What the body raises gets out as it is."""
    problem: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(pulse(leave, write))
        try:
            with _until_unheard(leave):
                yield
        except Exception as error:
            problem = error
        finally:
            beating.cancel()
    if problem is not None:
        raise problem
