"""The supervisor is killed with ``kill -9`` while its executor acts: what runs is finished, then all parts end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from logact import open_log
from logact.core import machine
from logact.core.state import State
from logact.entry import Notice
from logact.runtime.leaving import Leave, ending_well, on_signals
from tests.cli_help import here, start, wait_for
from tests.supervision.kit import alive

pytestmark = pytest.mark.timeout(120)

SPEC = """
[agent]
name = "ops"
model = "scripted:work.py:model"

[log]
url = "sqlite:///ops.db"

[[tools]]
use = "work.py:pay"

[policy]
need = { open = "a test" }

[supervise]
parts = ["decider", "executor", "driver"]
stop_s = 30
"""
WORK = '''
import subprocess, sys, time
from pathlib import Path
from logact import ScriptedModel, tool
from logact.models.scripted import call

HERE = Path(__file__).parent
model = ScriptedModel([call("pay", amount=7), "paid"])


def line(text):
    with (HERE / "world").open("a") as file:
        file.write(text + "\\n")


@tool(effect="irreversible")
def pay(amount: int) -> str:
    """Pay an amount."""
    line("began")
    while not (HERE / "gate").exists():
        time.sleep(0.01)
    print("about to pay", file=sys.stderr, flush=True)  # to the supervisor that is gone
    subprocess.run(["sh", "-c", "echo still about to pay >&2"], check=True)
    line("happened")
    return f"paid {amount}"
'''


async def _fold(parts: int = 0) -> tuple[State, list[int]]:
    """The fold of the log, and the process ids of the parts, once so many are named there."""
    async with open_log("sqlite:///ops.db") as log, asyncio.timeout(30):
        while True:
            entries = [entry async for entry in log.read()]
            said = [one.payload for one in entries]
            pids = [int(one.data["pid"]) for one in said if isinstance(one, Notice) and one.code == "part_started"]
            if len(pids) >= parts:
                return machine.fold(machine.initial(log.log_id, keep=True), entries), pids
            await asyncio.sleep(0.02)


def _until_gone(pids: list[int]) -> list[int]:
    """Those that have not ended after a minute."""
    end = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return [pid for pid in pids if alive(pid)]


def test_what_runs_is_finished_after_the_supervisor_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One effect, its result in the log, nothing in doubt, no part left: however often the parts get SIGTERM."""
    monkeypatch.chdir(tmp_path)
    Path("logact.toml").write_text(SPEC)
    Path("work.py").write_text(WORK)
    assert here("run", "logact.toml", "--submit", "pay it").returncode == 0
    supervisor = start("supervise", "logact.toml", cwd=tmp_path)
    try:
        wait_for(Path("world"))
        _, pids = asyncio.run(_fold(3))
        supervisor.kill()
        supervisor.communicate()  # all of its threads are gone, and each told the parts
        for pid in pids * 3:  # the next supervisor asks them, too
            if alive(pid):
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.02)
    finally:
        supervisor.kill()
        supervisor.communicate()
        Path("gate").touch()
    assert not _until_gone(pids)
    state, _ = asyncio.run(_fold())
    assert [(one.intent.tool, one.status) for one in state.actions.values()] == [("pay", "executed")]
    assert Path("world").read_text().split() == ["began", "happened"]
    assert here("doubt", "logact.toml").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_only_a_second_interrupt_means_now(number: signal.Signals) -> None:
    """SIGTERM asks, and ends what outlasts the limit, however often it comes; a second Ctrl-C is "now"."""
    leave = Leave(0.05)
    on_signals(leave, number)
    by_itself = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}[number]

    async def work() -> None:
        for _ in range(3):
            os.kill(os.getpid(), number)
            await leave.asked.wait()
            if (signal.getsignal(number) is by_itself) != (number == signal.SIGINT):
                raise AssertionError("what the next one does")  # before it ends the tests
            if number == signal.SIGINT:
                break
        await asyncio.sleep(600)

    try:
        await ending_well(work, leave, lambda: True)
        assert leave.asked.is_set()
    finally:
        asyncio.get_running_loop().remove_signal_handler(number)
