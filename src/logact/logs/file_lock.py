"""A lock between processes that is fair, bounded and lets go when its holder dies: ``FILE.lock``.

Mutual exclusion is an ``flock`` on the file. By itself that is either unbounded (a blocking call cannot be given
a time limit, and a thread stuck in it keeps its process from ending) or unfair (whoever has just let go asks
again before a sleeping waiter looks). So a waiter also draws a *ticket*: a byte-range lock on the byte of its
ticket's number. Nobody asks for the flock while a lower ticket is held, and the kernel drops the ticket of a
process that dies. Tickets only order the waiters; nothing breaks if two ever share a moment.

Byte 0 carries a shared lock of everyone who listens to the doorbell, so that a writer need not ring for nobody.

The file's content is two counters: the next ticket, and a tally that the holders of the lock keep together.

Where byte-range locks by open file (Linux) are missing the order is left to chance, and without ``fcntl``
SQLite's own lock is all there is. This file never touches the database.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_NONE = fcntl is None
_LISTENERS = 0
_TICKETS = 16
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_COUNTER = struct.Struct("=q")
_OWN, _SHARE, _FREE = (getattr(fcntl, name, 0) for name in ("F_WRLCK", "F_RDLCK", "F_UNLCK"))
_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_GETLK: int | None = getattr(fcntl, "F_OFD_GETLK", None)

POLL_S_MIN = 0.00005
POLL_S_MAX = 0.005


class FairLock:
    """One engine's handle on the lock file. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waits = 0
        self._fd = -1
        self._tally = 0  # where there is no file to keep it in
        self._ranges = _SETLK is not None and _GETLK is not None

    @property
    def missing(self) -> str:
        """What this system lacks, and what follows from it, in a sentence; "" if nothing."""
        if _NONE:
            return (
                "File locks (fcntl) are not available here: processes that append at once take turns by SQLite's own "
                "lock, in no order and with pauses."
            )
        if not self._ranges:
            return (
                "Byte-range locks by open file are not available here: processes that append at once take turns in "
                "no order, and every append rings the doorbell."
            )
        return ""

    def open(self, mode: int) -> None:
        """Open the lock file, created with ``mode`` if it is missing. Raises OSError."""
        if self._fd < 0 and fcntl is not None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)

    def close(self) -> None:
        """Let go of everything."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def try_acquire(self) -> bool:
        """Take the lock if that needs no waiting: it is free and nobody stands in line."""
        if self._fd < 0:
            return True
        if self._ranges and self._held(_TICKETS, 0) is not None:
            return False
        return self._try_flock()

    def acquire(self, limit_s: float, clock: Callable[[], float]) -> bool:
        """Stand in line for at most ``limit_s`` seconds; False if the time is over. Blocks its thread."""
        if self.try_acquire():
            return True
        self.waits += 1
        end = clock() + limit_s
        slept_s = 0.0  # a simulated clock may stand still here
        ticket = self._draw()
        try:
            while True:
                before = self._held(_TICKETS, ticket - _TICKETS) if ticket > _TICKETS else None
                if before is None and self._try_flock():
                    return True
                if clock() >= end or slept_s >= limit_s:
                    return False
                distance = 1 if before is None else 2 * (ticket - before)
                pause_s = min(POLL_S_MIN * distance, POLL_S_MAX)
                time.sleep(pause_s)
                slept_s += pause_s
        finally:
            if ticket:
                self._set(_FREE, ticket, 1)

    def release(self) -> None:
        """Let the next one in."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def tally(self, more: int) -> int:
        """Add to the tally that all holders share (-1: begin again at 0); returns it. Only while holding the lock."""
        if self._fd < 0:
            self._tally = 0 if more < 0 else self._tally + more
            return self._tally
        stored = os.pread(self._fd, _COUNTER.size, _COUNTER.size)
        before = _COUNTER.unpack(stored)[0] if len(stored) == _COUNTER.size else 0
        total = 0 if more < 0 else before + more
        os.pwrite(self._fd, _COUNTER.pack(total), _COUNTER.size)
        return int(total)

    def listen(self) -> None:
        """Be counted among those who want to hear the doorbell, until ``close``."""
        if self._fd >= 0 and self._ranges:
            self._set(_SHARE, _LISTENERS, 1)

    def anyone_listens(self) -> bool:
        """Whether any other handle listens. True if that cannot be known."""
        if self._fd < 0 or not self._ranges:
            return True
        return self._held(_LISTENERS, 1) is not None

    def _try_flock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _draw(self) -> int:
        """A ticket above all that are waiting; 0 where tickets cannot be had."""
        if not self._ranges:
            return 0
        stored = os.pread(self._fd, _COUNTER.size, 0)
        ticket = max(_COUNTER.unpack(stored)[0] if len(stored) == _COUNTER.size else 0, _TICKETS)
        while not self._set(_OWN, ticket, 1):
            ticket += 1  # somebody drew it at the same moment
        os.pwrite(self._fd, _COUNTER.pack(ticket + 1), 0)
        return ticket

    def _set(self, kind: int, start: int, length: int) -> bool:
        try:
            fcntl.fcntl(self._fd, _SETLK or 0, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return False
            raise
        return True

    def _held(self, start: int, length: int) -> int | None:
        """The first byte of a lock that another handle holds in this range (length 0: to the end), or None."""
        if not self._ranges:
            return None
        asked = _FLOCK.pack(_OWN, os.SEEK_SET, start, length, 0)
        kind, _, found, _, _ = _FLOCK.unpack(fcntl.fcntl(self._fd, _GETLK or 0, asked))
        return None if kind == _FREE else int(found)
