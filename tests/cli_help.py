"""What the tests of the command line share: a directory with a working agent, and two ways to run ``logact``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click.testing

from logact.cli.main import main, root

AGENT = r'''
import pathlib, time
from logact import Vote, tool
from logact.models import call, say

HERE = pathlib.Path(__file__).parent

answer = [
    call("read_file", path="notes.txt"),
    call("pay", amount=7),
    call("shred", path="notes.txt"),
    say("Paid 7, and kept the notes."),
]


@tool(effect="irreversible")
def pay(amount: int) -> str:
    """Pay an amount.

    Args:
        amount: How much.
    """
    with (HERE / "paid.txt").open("a") as file:
        file.write(f"{amount}\n")
    gate = HERE / "hold"
    while gate.exists():
        time.sleep(0.02)
    return f"paid {amount}"


@tool(effect="irreversible")
def shred(path: str) -> str:
    """Shred a file."""
    return "shredded"


def careful(entry):
    if entry.action.tool == "shred":
        return Vote(approved=False, reason="notes are kept for ten years, so says the office manager", hint="move it")
    return Vote(approved=True, reason="fine")
'''

SPEC = """
[agent]
name = "ops"
model = "scripted:parts.py"

[log]
url = "sqlite:///ops.db"

[[tools]]
use = "files"
root = "workspace"

[[tools]]
use = "parts.py:pay"

[[tools]]
use = "parts.py:shred"

[[voters]]
use = "parts.py:careful"
"""


def make(home: Path, **replaced: str) -> Path:
    """A directory with a specification, its script, tools and voter. Returns the specification's path."""
    (home / "workspace").mkdir(exist_ok=True)
    (home / "workspace" / "notes.txt").write_text("keep me\n")
    (home / "parts.py").write_text(AGENT)
    text = SPEC
    for old, new in replaced.items():
        text = text.replace(old, new)
    (home / "logact.toml").write_text(text)
    return home / "logact.toml"


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: no model, no colours, eighty columns."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOGACT_")}
    return kept | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"} | more


def logact(*arguments: object, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``logact`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "logact.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Begin to run ``logact``."""
    return subprocess.Popen(
        [sys.executable, "-m", "logact.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 30) -> None:
    """Wait until a file is there and not empty."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def inside(*arguments: object) -> click.testing.Result:
    """Run a command in this process."""
    return click.testing.CliRunner(env={"COLUMNS": "80"}).invoke(root, [str(one) for one in arguments])


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a whole command line, errors and exit codes included, in this process: faster than one of its own."""
    given = [str(one) for one in arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(given)
    return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())


def lines_of(text: str) -> list[dict[str, Any]]:
    """JSON Lines, parsed."""
    return [json.loads(line) for line in text.splitlines()]


def fits(text: str, columns: int = 80) -> None:
    """No line is wider than the terminal."""
    for line in text.splitlines():
        assert len(line) <= columns, f"{len(line)} columns: {line}"
