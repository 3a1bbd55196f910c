"""What every benchmark shares: arguments, progress on stderr, one JSON object as the last line of stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import logact

ROOT = Path(__file__).resolve().parent.parent


class Benchmark:
    """One run of one benchmark. ``notes`` collects reasons for what could not be measured."""

    def __init__(
        self, name: str, description: str, argv: Sequence[str] | None = None, **extra: dict[str, Any]
    ) -> None:
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
        parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
        parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
        parser.add_argument("--repeat", type=int, default=0, metavar="N", help="repeats; medians are over them")
        for option, settings in extra.items():
            parser.add_argument("--" + option.replace("_", "-"), **settings)
        self.options = parser.parse_args(argv)
        self.name = name
        self.quick: bool = self.options.quick
        self.notes: list[str] = []
        self.began = time.monotonic()

    def progress(self, message: str) -> None:
        """One line on stderr, with the seconds since the start."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {message}", file=sys.stderr, flush=True)

    def finish(self, figures: dict[str, Any]) -> dict[str, Any]:
        """Print the figures, for machines or for people, and return the whole object."""
        whole = {
            "name": self.name,
            "version": logact.__version__,
            "commit": commit(),
            "machine": machine(),
            "quick": self.quick,
            "seconds": round(time.monotonic() - self.began, 1),
            **figures,
        }
        if self.notes:
            whole["notes"] = self.notes
        if self.options.json:
            print(json.dumps(whole), flush=True)
        else:
            for key, value in whole.items():
                print(f"{key:24} {value if isinstance(value, str | int | float) else json.dumps(value)}")
        return whole


def commit() -> str:
    """The checked-out commit, with ``+`` if files differ from it; empty where this is no checkout."""
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        head = subprocess.run(
            [git, "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        )
        changed = subprocess.run(
            [git, "status", "--porcelain", "--untracked-files=no"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> str:
    """Processor count, memory, system and Python, in one line."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    except (ValueError, OSError):
        memory = 0
    system = f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}"
    return f"{os.cpu_count()} cpus, {memory} GiB, {system}, Python {platform.python_version()}"


def median(values: Sequence[float]) -> float:
    """The median. ``values`` must not be empty."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile by the nearest rank: a value that was really measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]


@contextmanager
def work_directory(parent: str | Path | None = None) -> Iterator[Path]:
    """A directory for one run, removed afterwards."""
    where = Path(tempfile.mkdtemp(prefix="logact-bench-", dir=parent))
    try:
        yield where
    finally:
        shutil.rmtree(where, ignore_errors=True)


def kill(process: subprocess.Popen[Any] | asyncio.subprocess.Process) -> None:
    """SIGKILL to a process and all of its group (it must have been started with ``start_new_session``)."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment for children, without an armed crash point."""
    kept = {name: value for name, value in os.environ.items() if name != "LOGACT_CRASH_AT"}
    return {**kept, "PYTHONUNBUFFERED": "1", **changes}
