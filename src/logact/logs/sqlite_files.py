"""What the SQLite engine asks of the file system: where a file lives, who may read it, and that it is still there.

Never opens the database file itself: closing such a handle would drop SQLite's locks of the whole process.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from logact.errors import LogError, LogFull, LogReadOnly, LogUnavailable

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "afs", "9p"}
)
"""File systems on which SQLite's shared memory and locks do not hold between machines."""

MOUNTS = Path("/proc/self/mounts")


def filesystem_of(path: Path) -> str:
    """The type of the file system that holds ``path``, as the kernel names it; empty where that is unknown."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
        target = path.resolve()
    except OSError:
        return ""
    found, depth = "", -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if len(point.parts) >= depth and target.is_relative_to(point):
            found, depth = fields[2], len(point.parts)  # of mounts on one point the last one counts
    return found


def check_local(path: Path) -> None:
    """Refuse a network file system: LogUnavailable."""
    kind = filesystem_of(path)
    if kind in NETWORK:
        raise LogUnavailable(
            "SQLite's locks do not hold on a network file system: two machines could break the log",
            received=f"{path} on {kind}",
            expected="a local disk",
            todo="move the file, serve it with `logact serve`, or add ?unsafe_network=1 if one machine alone uses it",
        )


def create(path: Path) -> int:
    """Create the file for its owner alone, if it is missing or empty; returns the mode for the files beside it.

    Call it under the lock: a handle on a file that somebody uses must not be closed here. Raises OSError.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
        flush_directory(path.parent)
    except FileExistsError:
        found = path.stat()
        # a device has no size either: root would take /dev/null from everybody else
        if stat.S_ISREG(found.st_mode) and found.st_size == 0 and os.access(path, os.W_OK):
            path.chmod(0o600)
    return beside(path)


def beside(path: Path) -> int:
    """The mode for the files beside the database: like its own, so that whoever may use it can use them."""
    try:
        found = stat.S_IMODE(path.stat().st_mode) & 0o666
    except OSError:
        return 0o600
    return 0o600 if path.stat().st_size == 0 else found


def identity(path: Path) -> tuple[int, int]:
    """What tells whether the path still names the same file. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino


def writable(path: Path) -> bool:
    """Whether the file (or, where it is missing, its directory) may be written by this process."""
    return os.access(path if path.exists() else path.parent, os.W_OK) and os.access(path.parent, os.W_OK)


def flush_directory(path: Path) -> None:
    """Make a new name in a directory durable, where the system can do that. Raises OSError."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def from_os(error: OSError, path: Path) -> LogError:
    """What an error of the operating system means for a log that was to be opened."""
    received = f"{error.strerror or error} for {path}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return LogReadOnly("The log cannot be written", received=received, todo="check the permissions")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return LogFull("The disk is full", received=received, todo="free space, then try again")
    return LogUnavailable("The log's files cannot be opened", received=received, todo="check the path")
