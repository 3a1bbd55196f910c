"""Real processes on SQLite: a driver, a voter and a decider are stopped amid a step, fenced off, and wake up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from logact.core import machine
from logact.core.state import State
from logact.entry import Entry, Inference, Input, NewEntry, Run, Vote, own
from logact.logs.base import SharedLog
from logact.logs.url import open_log
from logact.runtime.assembly import play_decider, play_driver, play_executor, play_recoverer
from tests.supervision.twin import LEASE_S, the_agent

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.timeout(120)


def stopped(pid: int) -> bool:
    """Whether a process is stopped (SIGSTOP)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def life_of(state: State, pid: int, *, fenced: bool) -> str:
    """The incarnation of a process that was fenced off, or its one that was not and lives ("": none)."""
    for key, life in state.incarnations.items():
        mine = life.birth is not None and life.birth.pid == pid
        if mine and (key in state.fenced) == fenced and (fenced or not life.left):
            return key
    return ""


class Scene:
    """A log, the parts that play in this process, and the processes of those that are stopped."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.url = f"sqlite:///{place}/log.db"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, part: str, point: str) -> None:
        """A process of its own that stops at a point."""
        command = [sys.executable, "-m", "tests.supervision.twin", self.url, str(self.place), part, point]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.processes[part] = subprocess.Popen(command, cwd=ROOT, env=environment)

    async def until(self, log: SharedLog, ready: Callable[[State], object]) -> State:
        """Wait for something to become true of the log."""
        async with asyncio.timeout(60):
            while True:
                state = machine.fold(machine.initial(log.log_id, keep=True), [one async for one in log.read()])
                if ready(state):
                    return state
                await asyncio.sleep(0.02)

    async def fenced(self, log: SharedLog, part: str) -> str:
        """The incarnation of a process that has stopped itself, once it was fenced off."""
        pid = self.processes[part].pid
        state = await self.until(log, lambda now: stopped(pid) and life_of(now, pid, fenced=True))
        return life_of(state, pid, fenced=True)

    def wake(self, part: str) -> None:
        """It goes on."""
        self.processes[part].send_signal(signal.SIGCONT)

    def end(self) -> None:
        """No process is left behind."""
        for process in self.processes.values():
            process.kill()
            process.wait()


async def test_who_wakes_up_says_nothing_that_counts_and_goes_on_as_another(tmp_path: Path) -> None:
    """The driver wakes when another one has answered, the voter before anybody else voted, the decider afterwards."""
    scene, olds = Scene(tmp_path), {}

    def play(play_part: Callable[..., Coroutine[Any, Any, None]], lease_s: float = 60.0) -> None:
        agent = the_agent(scene.url, tmp_path, lease_s)
        playing.create_task(play_part(agent.log, agent))

    async with open_log(scene.url) as log:
        begin = NewEntry(payload=Run(agent="ops", title="go"), role="client", name="c", agent="ops")
        await log.append(begin, NewEntry(payload=Input(run=own(0), text="go"), role="client", name="c", run=own(0)))
        try:
            async with asyncio.TaskGroup() as playing:
                scene.start("driver", "before_inference")
                scene.start("voter:careful", "before_vote")
                scene.start("decider", "before_commit")
                play(play_recoverer, LEASE_S)
                play(play_executor)
                olds["driver"] = await scene.fenced(log, "driver")
                play(play_driver)
                olds["voter:careful"] = await scene.fenced(log, "voter:careful")
                scene.wake("driver")
                scene.wake("voter:careful")
                olds["decider"] = await scene.fenced(log, "decider")
                play(play_decider)
                await scene.until(log, lambda now: [one for one in now.actions.values() if one.status == "executing"])
                scene.wake("decider")
                await scene.until(log, lambda now: all(now.incarnations[one].left for one in olds.values()))
                (tmp_path / "gate").touch()
                await scene.until(log, lambda now: all(run.status == "finished" for run in now.runs.values()))
                await scene.until(
                    log, lambda now: all(life_of(now, one.pid, fenced=False) for one in scene.processes.values())
                )
                for task in list(playing._tasks):
                    task.cancel()
        finally:
            scene.end()
        held([one async for one in log.read()], log.log_id, olds)
    assert (tmp_path / "world").read_text().split() == ["began", "happened"]


def held(entries: list[Entry], log_id: str, olds: dict[str, str]) -> None:
    """Nothing of who was fenced off counted, and nothing counted twice."""
    state = machine.initial(log_id, keep=True)
    counted: list[Entry] = []
    for entry in entries:
        since = state.fenced.get(entry.author.incarnation)
        state = machine.apply(state, entry)
        if not state.verdict:
            counted.append(entry)
            assert since is None or entry.kind == "Heartbeat", (entry.kind, entry.position)
    assert set(olds.values()) <= set(state.fenced)
    assert not state.conflicts and not state.doubtful()
    turns = [one.payload for one in counted if isinstance(one.payload, Inference)]
    assert [one.turn for one in turns] == [1, 2]
    assert set(Counter(position for one in turns for position in one.context).values()) == {1}
    assert [one.status for one in state.actions.values()] == ["executed", "executed"]
    votes = [(one.action, one.payload.approved) for one in counted if isinstance(one.payload, Vote)]
    assert sorted(votes) == [(action, True) for action in state.actions], (
        "the rejection of who was fenced off is void"
    )
    decisions = [one.action for one in counted if one.kind in ("Commit", "Abort")]
    assert sorted(decisions) == list(state.actions)
