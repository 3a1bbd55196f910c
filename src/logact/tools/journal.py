"""A small journal of what a tool is about to change, so that its probe can tell later whether it did.

An append, a move or a deletion leaves nothing behind that says *who* did it. So before it changes anything, the
tool writes down under the action's key what it saw (identity, size); its probe compares. The journal lies in the
workspace itself (it must be where the effect is), under a reserved name that no file tool shows or touches, is
durable before the effect, and keeps the last 512 actions. A missing record never proves anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from logact import env as environment
from logact.tools.confine import RESERVED, Root

NAME = RESERVED + "journal"
RECORDS_MAX = 512
_TEMPORARY = RESERVED + "temporary-"


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an action saw before its effect."""

    key: str
    device: int
    inode: int
    size: int
    modified_ns: int
    mode: int = 0
    digest: str = ""

    def same(self, state: os.stat_result) -> bool:
        """Whether this is still the same, unchanged file or directory (its name aside)."""
        if stat.S_ISDIR(state.st_mode):  # a directory's own time and size change with what is in it
            return (self.device, self.inode) == (state.st_dev, state.st_ino) and stat.S_ISDIR(self.mode)
        return (self.device, self.inode, self.size, self.modified_ns) == (
            state.st_dev,
            state.st_ino,
            state.st_size,
            state.st_mtime_ns,
        )


def saw(key: str, state: os.stat_result, digest: str = "") -> Seen:
    """What is seen now, under an action's key."""
    return Seen(key, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_mode, digest)


@contextmanager
def locked(root: Root) -> Iterator[int]:
    """The root's handle, with one change at a time, over threads and processes."""
    import fcntl

    handle = root.open_root()
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released by closing
        yield handle
    finally:
        os.close(handle)


def remember(handle: int, record: Seen) -> None:
    """Make a record durable. Without a key (a call without a log) there is nothing to remember."""
    if not record.key:
        return
    kept = [old for old in _read(handle) if old.key != record.key][-(RECORDS_MAX - 1) :]
    write_atomically(handle, NAME, msgspec.json.encode([*kept, record]), mode=0o600)


def recall(root: Root, key: str) -> Seen | None:
    """What the action with this key saw before its effect; None if there is no record of it."""
    if not key:
        return None
    with locked(root) as handle:
        return next((record for record in _read(handle) if record.key == key), None)


def write_atomically(parent: int, name: str, data: bytes, *, mode: int | None = None) -> None:
    """Replace or create a file so that a crash leaves the old content or the new, never a mixture.

    Until the rename nothing has changed; the directory is synchronised afterwards.
    """
    temporary = _TEMPORARY + environment.current().identifier()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o666 if mode is None else 0o600, dir_fd=parent)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            if mode is not None:
                os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=parent)
        except OSError:
            pass  # renamed already, or the disk is gone; the name is reserved and harmless
        raise
    os.fsync(parent)


def _read(handle: int) -> list[Seen]:
    try:
        file = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except OSError:
        return []
    with os.fdopen(file, "rb") as stream:
        found: Any = stream.read(4_000_000)
    try:
        return msgspec.json.decode(found, type=list[Seen])
    except msgspec.MsgspecError:
        return []  # someone else wrote it; a missing record proves nothing, so nothing is lost but the answer
