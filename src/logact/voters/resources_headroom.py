"""How much room is left here, in memory, on disk, in processes: by psutil where it is installed, else by the kernel.

Measures only. What cannot be measured is None, never a guess; ``pip install 'logact[resources]'`` measures on every
system, without it ``/proc`` and ``statvfs`` have to be there.
"""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

MB = 1024 * 1024


def _psutil() -> Any:
    try:
        return import_module("psutil")
    except ImportError:
        return None


def memory_free_mb() -> float | None:
    """The memory that new work can still get, in MB: of the machine or of this control group, whichever is less."""
    found = [_machine_memory_mb(), _group_memory_mb()]
    known = [one for one in found if one is not None]
    return min(known) if known else None


def _machine_memory_mb() -> float | None:
    psutil = _psutil()
    if psutil is not None:
        return float(psutil.virtual_memory().available) / MB
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return None


def _group_memory_mb() -> float | None:
    """What a container may still take (cgroup 2); None without a limit."""
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if not limit or not used or not limit[0].isdecimal():
        return None
    return max(0.0, (int(limit[0]) - int(used[0])) / MB)


def process_mb() -> float | None:
    """The memory that this process holds, in MB."""
    psutil = _psutil()
    if psutil is not None:
        return float(psutil.Process().memory_info().rss) / MB
    fields = " ".join(_lines("/proc/self/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MB if len(fields) > 1 else None


def processes() -> int | None:
    """How many processes descend from this one."""
    psutil = _psutil()
    if psutil is not None:
        return len(psutil.Process().children(recursive=True))
    parents: dict[int, int] = {}
    try:
        names = [one.name for one in Path("/proc").iterdir() if one.name.isdecimal()]
    except OSError:
        return None
    for name in names:
        text = " ".join(_lines(f"/proc/{name}/stat")).rpartition(")")[2].split()
        if len(text) > 1:
            parents[int(name)] = int(text[1])
    found, waiting = 0, [os.getpid()]
    while waiting:
        children = [pid for pid, parent in parents.items() if parent in waiting]
        found, waiting = found + len(children), children
    return found


def disk_free_mb(path: str) -> float | None:
    """What an ordinary user may still write where ``path`` is (or will be), in MB."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        if hasattr(os, "statvfs"):
            there = os.statvfs(place)
            return there.f_bavail * there.f_frsize / MB
        return shutil.disk_usage(place).free / MB
    except OSError:
        return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
