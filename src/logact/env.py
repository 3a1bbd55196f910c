"""The only door to clocks, randomness, ids, sleep, threads and process identity.

Production code asks the current :class:`Env`; the simulator puts its own in place, so that one seed gives one
schedule. Nothing else in LogAct may read a clock or draw a random number (a lint rule enforces it).

The environment is found through a context variable, since one simulated world runs many "processes", each
with its own clock, in one loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from logact.env_guest import contained

P = ParamSpec("P")
T = TypeVar("T")

DESCENDANTS_MAX = 10_000

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter looks like a digit


class ProcessIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which operating-system process wrote something: enough to tell later whether it still lives.

    ``host`` names the machine and its process-id namespace, ``boot`` the kernel's boot, and ``started`` is the
    kernel's start tick of the process, so that a reused process id is not taken for it.
    """

    host: str
    pid: int
    started: int = 0
    boot: str = ""


class ThreadWatch:
    """Whether a function that was handed to a thread has begun, and whether it has ended: nobody can interrupt it."""

    __slots__ = ("begun", "ended")

    def __init__(self) -> None:
        self.begun = self.ended = False

    @property
    def working(self) -> bool:
        """Whether the thread is at work on it, although its caller may have gone away."""
        return self.begun and not self.ended

    def around(self, function: Callable[P, T]) -> Callable[P, T]:
        """The function, watched."""

        def watched(*args: P.args, **kwargs: P.kwargs) -> T:
            self.begun = True
            try:
                return function(*args, **kwargs)
            finally:
                self.ended = True

        return watched


class Env:
    """The real environment. Subclassed by the simulator.

    ``playing`` holds the incarnations of this process that have not said goodbye, each with a question that says
    whether something of it is still at work.
    """

    def __init__(self) -> None:
        self.playing: dict[str, Callable[[], bool]] = {}

    def wall_ms(self) -> int:
        """Wall-clock time in milliseconds since the epoch. For display and for deadlines, never for order."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``."""
        await asyncio.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        """``count`` bytes that nobody can predict."""
        return os.urandom(count)

    def random(self) -> float:
        """A float in [0, 1), for jitter; not for secrets."""
        return random.random()

    def identifier(self) -> str:
        """A fresh id of 80 random bits, 16 characters that are safe in a URL or file name."""
        number = int.from_bytes(self.random_bytes(10), "big")
        return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in range(16))

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in a worker thread. A cancelled call goes on in its thread (see ``watching``).

        What would end the process or break the loop (an exit, StopIteration) comes out as ``env_guest.Contained``.
        """
        watch = current_watch()
        work = contained(function)
        return await asyncio.to_thread(work if watch is None else watch.around(work), *args, **kwargs)

    def start_thread(self, function: Callable[[], None], name: str) -> threading.Thread:
        """Start a thread of its own for a client that only knows how to block. It ends when ``function`` returns.

        It is a daemon: a process that ends without closing what it opened is not held up by it.
        """
        thread = threading.Thread(target=function, name=name, daemon=True)
        thread.start()
        return thread

    points = "LOGACT_CRASH_AT" in os.environ
    """Whether :meth:`point` does anything; saves naming points on the hot path."""

    def point(self, name: str) -> None:
        """A named moment at which a process may die. Crash tests arm one through ``LOGACT_CRASH_AT=NAME:COUNT``."""
        if _ARMED is not None:
            _die_at(name)

    def process(self) -> ProcessIdentity:
        """The identity of this process."""
        return _own_identity()

    def alive(self, identity: ProcessIdentity) -> bool | None:
        """Whether that process still lives: True, False (proven dead), or None if it cannot be known."""
        mine = self.process()
        if identity.host != mine.host:
            return None
        if identity.boot != mine.boot:
            return False if identity.boot and mine.boot else None
        if identity.pid == mine.pid:
            return identity.started == mine.started
        started = start_tick(identity.pid)
        if started is None:
            return _pid_exists(identity.pid)
        return started == identity.started != 0

    def end(self, identity: ProcessIdentity) -> bool:
        """Kill another process of this host, and what descends from it. False if it is not certainly that process.

        A handle is taken before the start tick is compared, so that a process id that was used again is never hit.
        """
        if identity.pid == self.process().pid or not identity.started or self.alive(identity) is not True:
            return False
        try:
            handle = os.pidfd_open(identity.pid)
        except (OSError, AttributeError):
            return False
        try:
            if start_tick(identity.pid) != identity.started:
                return False
            beneath = _descendants(identity.pid)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            for pid, started in beneath:
                if start_tick(pid) == started:
                    os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return self.alive(identity) is False
        finally:
            os.close(handle)
        return True


def _descendants(pid: int) -> list[tuple[int, int]]:
    """The processes beneath a process, with their start ticks."""
    found: list[tuple[int, int]] = []
    queue = [pid]
    while queue and len(found) < DESCENDANTS_MAX:
        above = queue.pop()
        for tasks in Path(f"/proc/{above}/task").glob("*/children"):
            try:
                below = [int(one) for one in tasks.read_text().split()]
            except (OSError, ValueError):
                continue  # it has just ended
            found += [(one, start_tick(one) or 0) for one in below]
            queue += below
    return found


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _host() -> str:
    """Host name, machine id and process-id namespace: two containers never look like one host."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        namespace = ""
    return "/".join([socket.gethostname(), _first_line("/etc/machine-id")[:8], namespace])


def start_tick(pid: int) -> int | None:
    """The kernel's start tick of a process: 0 if it is gone or a zombie, None where /proc is missing."""
    if not Path("/proc/self/stat").exists():
        return None
    try:
        # the command name may hold spaces and parentheses: count fields after the last ')'
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_cached: dict[int, ProcessIdentity] = {}  # by pid: a forked child must not inherit its parent's identity


def _own_identity() -> ProcessIdentity:
    pid = os.getpid()
    if pid not in _cached:
        _cached.clear()
        _cached[pid] = ProcessIdentity(
            host=_host(),
            pid=pid,
            started=start_tick(pid) or 0,
            boot=_first_line("/proc/sys/kernel/random/boot_id")[:8],
        )
    return _cached[pid]


_ARMED = os.environ.get("LOGACT_CRASH_AT")
_passed: dict[str, int] = {}  # how often each named point was reached, only while one is armed


def _die_at(name: str) -> None:
    _passed[name] = _passed.get(name, 0) + 1
    if f"{name}:{_passed[name]}" == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)


_watch: contextvars.ContextVar[ThreadWatch | None] = contextvars.ContextVar("logact_thread_watch", default=None)


@contextmanager
def watching() -> Iterator[ThreadWatch]:
    """Watch the function that ``in_thread`` is given inside of this block."""
    watch = ThreadWatch()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


def current_watch() -> ThreadWatch | None:
    """The watch in force here, for environments with threads of their own."""
    return _watch.get()


REAL = Env()
_current: contextvars.ContextVar[Env] = contextvars.ContextVar("logact_env", default=REAL)


def current() -> Env:
    """The environment of the running (real or simulated) process."""
    return _current.get()


def use(env: Env) -> contextvars.Token[Env]:
    """Put ``env`` in place for the current context. For simulators and tests."""
    return _current.set(env)
