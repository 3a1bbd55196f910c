"""The doorbell: a one-byte file that writers touch after a commit, and that followers watch through inotify.

Watching the write-ahead log itself would wake followers *before* the commit can be seen; the doorbell is rung
after it. The bell is never flushed and says nothing: whoever hears it looks at the log. A bell that is lost (its
writer died between commit and ring) is made up for by the follower's own slow look.

This file knows nothing of logs or databases, and does without inotify where there is none.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


def _find_libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.inotify_init1.argtypes = [ctypes.c_int]
        libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    except (OSError, AttributeError, TypeError):
        return None
    return libc


_libc = _find_libc()


class Doorbell:
    """One handle on a doorbell file: rings it, and can call a function when anyone rings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._watch = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, mode: int) -> None:
        """Open the bell for ringing, created with ``mode`` if it is missing. Raises OSError."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), mode)

    def close(self) -> None:
        """Stop watching and ringing."""
        self.unwatch()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def ring(self) -> None:
        """Wake everyone who watches. Never fails: the commit has happened, whoever missed this looks by itself."""
        if self._fd >= 0:
            try:
                os.pwrite(self._fd, b"!", 0)
            except (OSError, AttributeError):
                pass  # a full disk, or a system without pwrite; followers look by themselves after a while

    def watch(self, heard: Callable[[], None]) -> bool:
        """Call ``heard`` on the running loop whenever the bell rings. False if this system cannot do that."""
        if self._watch >= 0:
            return True
        if _libc is None:
            return False
        watch: int = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if watch < 0:
            return False
        loop = asyncio.get_running_loop()
        try:
            if _libc.inotify_add_watch(watch, os.fsencode(self.path), _IN_MODIFY) < 0:
                os.close(watch)
                return False
            loop.add_reader(watch, self._hear, heard)
        except (NotImplementedError, RuntimeError, OSError):  # a loop without readers: simulated, or Windows' own
            os.close(watch)
            return False
        self._watch, self._loop = watch, loop
        return True

    def unwatch(self) -> None:
        """Stop watching. Safe when the loop of ``watch`` is closed already."""
        if self._watch >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._watch)
            os.close(self._watch)
            self._watch, self._loop = -1, None

    def _hear(self, heard: Callable[[], None]) -> None:
        try:
            while len(os.read(self._watch, 4096)) == 4096:
                pass  # many rings are one piece of news
        except OSError:
            pass
        heard()
