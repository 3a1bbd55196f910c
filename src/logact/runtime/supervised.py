"""The child's side of supervision: it says that it lives, and it ends with its supervisor.

A process that a supervisor started finds a variable in its environment: a pipe for its pulse, and who the supervisor
is. Once a second it writes down the pipe how far it has read the log; a process whose loop stands still (stopped, or
stuck in code that never waits) writes nothing, and one whose fold stands still says so. On Linux the kernel tells
it when the supervisor is gone; elsewhere the broken pipe does. Then it leaves as on SIGTERM: what runs is finished.

Nothing here is needed where no supervisor is: without the variable all of it does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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
    if not supervisor or not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    except (OSError, AttributeError):
        return  # a C library without it: the pipe is still there
    if os.getppid() != supervisor:
        raise SystemExit(0)  # it died before the kernel was asked; nothing was begun


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
            yield
        except Exception as error:
            problem = error
        finally:
            beating.cancel()
    if problem is not None:
        raise problem
