"""Each part of a real ``logact supervise`` hangs amid its work: it is found, killed and replaced, and the run ends.

The job lasts as long as the test wants: its voter and its tool wait for files.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from logact import open_log
from logact.core import machine
from logact.core.state import State
from logact.entry import Finding, Notice
from logact.logs.base import SharedLog
from tests.cli_help import logact, start
from tests.supervision.kit import alive, kill

pytestmark = pytest.mark.timeout(120)

SPEC = """
[agent]
name = "ops"
model = "scripted:work.py:model"

[log]
url = "sqlite:///ops.db"

[[tools]]
use = "work.py:put"

[[voters]]
use = "work.py:careful"

[supervise]
parts = ["decider", "voter", "executor", "recoverer", "driver"]
hang_s = 2
restarts = 1000
backoff_s = 0.01
backoff_max_s = 0.1
"""
WORK = '''
import asyncio, time
from pathlib import Path
from logact import ScriptedModel, tool
from logact.models.scripted import call

HERE = Path(__file__).parent
model = ScriptedModel([call("put", item="a"), "done"])


async def careful(entry):
    while (HERE / "stuck").exists():
        time.sleep(0.01)  # blocks the whole process: no sign of life
    return True


def line(text):
    with (HERE / "world").open("a") as file:
        file.write(text + "\\n")


@tool(effect="idempotent")
async def put(item: str) -> str:
    """Put it down."""
    line("began")
    while not (HERE / "gate").exists():
        await asyncio.sleep(0.01)
    line("happened")
    return f"put {item}"
'''


async def look(log: SharedLog) -> tuple[State, dict[str, list[int]], list[str]]:
    """The fold, the process ids of each part's lives, and the parts that were found hung."""
    entries = [entry async for entry in log.read()]
    lives: dict[str, list[int]] = {}
    hung = []
    for entry in entries:
        said = entry.payload
        if isinstance(said, Notice) and said.code == "part_started":
            lives.setdefault(str(said.data["part"]), []).append(int(said.data["pid"]))
        if isinstance(said, Finding) and said.code == "part_hung":
            hung.append(said.message)
    return machine.fold(machine.initial(log.log_id, keep=True), entries), lives, hung


async def until(log: SharedLog, ready: Callable[[State, dict[str, list[int]]], object]) -> dict[str, list[int]]:
    """Wait for something to become true of the log; the lives of the parts then."""
    async with asyncio.timeout(60):
        while True:
            state, lives, _ = await look(log)
            if ready(state, lives):
                return lives
            await asyncio.sleep(0.05)


async def test_each_part_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A voter in a loop, then driver, decider and executor stopped amid an action: each gets another life."""
    monkeypatch.chdir(tmp_path)
    Path("logact.toml").write_text(SPEC)
    Path("work.py").write_text(WORK)
    Path("stuck").touch()
    begun = await asyncio.to_thread(logact, "run", "logact.toml", "--submit", "put it", cwd=tmp_path)
    assert begun.returncode == 0
    supervisor = start("supervise", "logact.toml", "--json", cwd=tmp_path)
    try:
        async with open_log("sqlite:///ops.db") as log:
            lives = await until(log, lambda state, lives: len(lives.get("voter", ())) > 1)
            assert not alive(lives["voter"][0])
            Path("stuck").unlink()
            lives = await until(log, lambda state, lives: Path("world").exists())
            stopped = {part: lives[part][-1] for part in ("driver", "decider", "executor")}
            for pid in stopped.values():
                kill(pid, signal.SIGSTOP)
            await until(log, lambda state, lives: all(lives[part][-1] != pid for part, pid in stopped.items()))
            assert not any(alive(pid) for pid in stopped.values())
            Path("gate").touch()
            await until(log, lambda state, lives: all(run.status == "finished" for run in state.runs.values()))
            state, _, hung = await look(log)
        for part in ("voter", *stopped):
            assert any(part in one for one in hung), (part, hung)
        assert [one.status for one in state.actions.values()] == ["executed", "executed"]
        assert not state.conflicts
        assert Path("world").read_text().split() == ["began", "began", "happened"]
    finally:
        supervisor.send_signal(signal.SIGTERM)
        try:
            supervisor.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.communicate()
    assert supervisor.returncode == 0
