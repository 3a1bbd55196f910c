"""Programs that Maven fetches, with its own settings: once, into a cache outside of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.servers import ServerFailed

PROGRAM = shutil.which("mvn") or ""
RESOLVE_S_MAX = 600.0


def cache(name: str) -> Path:
    """Where something is kept from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "logact" / name


def make(place: Path, fill: Callable[[Path], None]) -> None:
    """Make a directory in the cache: it is there when it is whole, also where several processes make it at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        fill(fresh)
        fresh.rename(place)
    except OSError:
        if not place.exists():  # else somebody else was quicker
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def run(place: Path, goal: str, **properties: object) -> None:
    """Have Maven do something in a directory. ServerFailed, with what it said, if it cannot."""
    if not PROGRAM:
        raise ServerFailed("there is no Maven")
    done = subprocess.run(
        [PROGRAM, "-q", "-B", goal, *(f"-D{name}={value}" for name, value in properties.items())],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=RESOLVE_S_MAX,
        check=False,
    )
    if done.returncode:
        raise ServerFailed(f"Maven failed at {goal}: {done.stdout[-1500:]}{done.stderr[-500:]}")
