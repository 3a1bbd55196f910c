"""Counts moves in a process of its own, as the kernel reports them: what the agent says of itself is no proof.

``python -m examples.main_job.watcher DIRECTORY FILE`` appends one line to FILE for each file that arrives in or
leaves DIRECTORY, until its standard input ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
from pathlib import Path

MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
_NAMES = {MOVED_FROM: "left", MOVED_TO: "arrived", CREATED: "created", DELETED: "deleted"}
_HEAD = struct.Struct("iIII")


def watch(directory: Path, file: Path) -> int:
    """Watch until standard input ends. Returns 1 where the system cannot do that."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "inotify_init1"):
        print("unavailable", flush=True)
        return 1
    handle = library.inotify_init1(os.O_CLOEXEC)
    mask = MOVED_FROM | MOVED_TO | CREATED | DELETED
    if handle < 0 or library.inotify_add_watch(handle, os.fsencode(directory), mask) < 0:
        print("unavailable", flush=True)
        return 1
    print("ready", flush=True)
    with file.open("a", encoding="utf-8") as lines:
        over = False
        while True:
            # once the input has ended, take what is left without waiting
            ready, _, _ = select.select([handle] if over else [handle, sys.stdin], [], [], 0 if over else None)
            if handle in ready:
                for event, name in _events(os.read(handle, 65536)):
                    print(event, name, file=lines, flush=True)
                os.fsync(lines.fileno())
            elif over:
                return 0
            over = over or sys.stdin in ready


def _events(data: bytes) -> list[tuple[str, str]]:
    found, place = [], 0
    while place < len(data):
        _, mask, _, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        name = os.fsdecode(data[place : place + length].rstrip(b"\0"))
        place += length
        found += [(word, name) for bit, word in _NAMES.items() if mask & bit]
    return found


if __name__ == "__main__":
    raise SystemExit(watch(Path(sys.argv[1]), Path(sys.argv[2])))
