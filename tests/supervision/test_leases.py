"""Leases: who works gives signs of life; who gives none is fenced off, and ended before its action is settled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from logact.core import machine
from logact.core.state import Action, State
from logact.entry import Commit, Fence, Finding, Heartbeat, Input, Intent, NewEntry, Payload, Run, Started, own
from logact.env import REAL, ProcessIdentity
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.runtime.assembly import play_recoverer
from logact.runtime.proposer import Proposer
from logact.runtime.secrets import Secrets
from tests.recovery.kit import Flaky, an_agent, entries
from tests.supervision.held import LEASE_S, the_agent

ROOT = Path(__file__).parent.parent.parent


async def state_of(log: SharedLog) -> State:
    """The fold of a log."""
    return machine.fold(machine.initial(log.log_id, keep=True), [entry async for entry in log.read()])


async def until(log: SharedLog, ready: Callable[[State], object]) -> State:
    """Wait for something to become true of a log."""
    async with asyncio.timeout(15):
        while not ready(state := await state_of(log)):
            await asyncio.sleep(0.03)
    return state


def the_action(state: State) -> Action:
    """The first action of a log."""
    return next(iter(state.actions.values()))


class Scene:
    """A committed action, and the process that executes it, stopped in the middle."""

    def __init__(self, directory: Path, effect: str) -> None:
        self.url = f"sqlite:///{directory}/log.db"
        self.world = directory / "world"
        self.agent = the_agent(self.url, self.world, effect)
        self.effect = effect

    async def begin(self) -> None:
        """A committed action under an open policy."""
        agent, log = self.agent, self.agent.log
        async with agent:
            parts = agent._parts
            assert parts is not None
            await log.append(
                NewEntry(payload=Run(agent="ops", title="go"), role="client", name="c", agent="ops"),
                NewEntry(payload=Input(run=own(0), text="go"), role="client", name="c", run=own(0)),
            )
            state = await parts.host.tail.catch_up()
            proposer = Proposer(parts.host, agent.tools, Secrets())
            intent: Payload = proposer.intent(next(iter(state.runs.values())), "pay", {"to": "x"})
            assert isinstance(intent, Intent)
            at = await log.append(NewEntry(payload=intent, role="driver", name="d", agent="ops", run=intent.run))
            await log.append(NewEntry(payload=Commit(intent=at.position), role="decider", name="d", agent="ops"))
        # the agent's own process let go of it: anybody may hold it now
        state = await state_of(log)
        epoch = state.epoch("ops") + 1
        await log.append(Fence(agent="ops", epoch=epoch), role="operator", name="pat")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """The executor's process, stopped after its tool has begun."""
        command = [sys.executable, "-m", "tests.supervision.held", self.url, str(self.world), self.effect]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        try:
            async with asyncio.timeout(15):
                while not self.world.exists() or "began" not in self.world.read_text():
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()
            process.wait()

    def lines(self) -> list[str]:
        """What the tool did."""
        return self.world.read_text().split()


@pytest.mark.parametrize("effect", ["irreversible", "idempotent"])
async def test_a_stopped_executor_is_killed_before_its_action_is_settled(tmp_path: Path, effect: str) -> None:
    """Its lease runs out, it is fenced off in the log, its process is killed, and only then the table applies."""
    scene = Scene(tmp_path, effect)
    await scene.begin()
    async with scene.held() as process, scene.agent.log as log:
        playing = asyncio.ensure_future(play_recoverer(log, scene.agent))
        state = await until(
            log,
            lambda now: (
                the_action(now).status == ("failed" if effect == "irreversible" else "in_doubt")
                and (effect == "irreversible" or the_action(now).restart_allowed)
            ),
        )
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        assert process.wait(5) == -signal.SIGKILL
        kinds = [entry async for entry in log.read() if entry.kind in ("Finding", "Recovery")]
        first = kinds[0].payload
        assert isinstance(first, Finding)
        assert first.code == "hung"
        assert first.holder in state.fenced
    assert scene.lines() == ["began"]


async def test_where_it_may_not_be_ended_a_person_is_asked_and_who_wakes_is_fenced(tmp_path: Path) -> None:
    """The doubt says which process; it wakes, stops or reports what it did, and goes on as another incarnation."""
    scene = Scene(tmp_path, "irreversible")
    await scene.begin()
    unarmed = the_agent(scene.url, scene.world, "irreversible", end_hung=False)
    async with scene.held() as process, scene.agent.log as log:
        playing = asyncio.ensure_future(play_recoverer(log, unarmed))
        state = await until(log, lambda now: [one for one in now.counts if one == "Notice"])
        assert the_action(state).status == "in_doubt"
        (reason,) = [entry.payload async for entry in log.read() if entry.kind == "Notice"]
        assert f"process {process.pid}" in reason.message  # type: ignore[attr-defined]
        assert "cannot be ended from here" in reason.message  # type: ignore[attr-defined]
        old = the_action(state).attempts[0].incarnation
        process.send_signal(signal.SIGCONT)
        state = await until(log, lambda now: not the_action(now).is_open and now.incarnations[old].left)
        await until(log, lambda now: [one for one in now.incarnations.values() if one.birth and not one.left])
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        assert old in state.fenced
        assert state.conflicts == []
        assert (the_action(state).status == "executed") == ("happened" in scene.lines())


async def test_who_works_for_long_renews_its_lease_and_who_is_quick_writes_no_heartbeat() -> None:
    """Three beats in a lease while a tool runs; none for short actions."""
    engine, slow = MemoryEngine(), Flaky()
    slow.hangs = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.75):
            await an_agent(engine, [call("send", item="a"), "done"], [slow.tool], lease_s=0.3).run("go")
    beats = [one for one in await entries(engine, "Heartbeat") if not one.payload.host and not one.payload.leaving]  # type: ignore[attr-defined]
    assert 3 <= len(beats) <= 8
    engine = MemoryEngine()
    script = [*(call("send", item=str(place)) for place in range(20)), "done"]
    await an_agent(engine, script, [Flaky().tool], lease_s=60).run("go")
    assert len(await entries(engine, "Heartbeat")) == 2
    started = [one.payload for one in await entries(engine, "Started")]
    assert {one.lease_ms for one in started if isinstance(one, Started)} >= {60_000}


async def test_an_expired_lease_is_no_proof_where_signs_of_life_come() -> None:
    """A holder that works longer than its lease, and beats, is left alone."""
    engine, slow = MemoryEngine(), Flaky()
    slow.hangs = True
    agent = an_agent(engine, [call("send", item="a"), "done"], [slow.tool], lease_s=0.2)
    watching = an_agent(engine, [], [slow.tool], lease_s=0.2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.4), asyncio.TaskGroup() as group:
            group.create_task(agent.run("go"))
            group.create_task(play_recoverer(watching.log, watching))
    assert [one.payload.code for one in await entries(engine, "Finding")] == []  # type: ignore[attr-defined]


async def test_a_part_that_owes_a_step_and_is_silent_is_found_hung() -> None:
    """A driver that took a run up and says nothing, and a voter that owes a vote; who owes nothing may be silent."""
    engine = MemoryEngine()
    log = SharedLog(engine)
    await log.open()
    for part in ("driver", "voter:yes", "executor"):
        writer = log.writer()
        birth = Heartbeat(agent="ops", part=part, lease_ms=200, host="elsewhere", pid=1, started=1, boot="b")
        await writer.append([NewEntry(payload=birth, role="executor", name="ops", agent="ops")])
    begin = NewEntry(payload=Run(agent="ops", title="go"), role="client", name="c", agent="ops")
    said = NewEntry(payload=Input(run=own(0), text="go"), role="client", name="c", run=own(0))
    await log.append(begin, said)
    watching = an_agent(engine, [], [], lease_s=0.2)
    playing = asyncio.ensure_future(play_recoverer(watching.log, watching))
    state = await until(log, lambda now: now.fenced)
    await asyncio.sleep(0.5)
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    found = [one.payload for one in await entries(engine, "Finding")]
    assert [state.incarnations[one.holder].birth.part for one in found] == ["driver"]  # type: ignore[attr-defined,union-attr]


def test_only_the_very_process_is_ended() -> None:
    """A process is killed with what descends from it, and never another one that has its number."""
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); print('x', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read(1)
        me = REAL.process()
        started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        tick = int(Path(f"/proc/{children[0]}/stat").read_text().rpartition(")")[2].split()[19])
        child = ProcessIdentity(host=me.host, pid=int(children[0]), started=tick, boot=me.boot)
        wrong = ProcessIdentity(host=me.host, pid=process.pid, started=started + 1, boot=me.boot)
        assert not REAL.end(wrong)
        assert not REAL.end(ProcessIdentity(host="other", pid=process.pid, started=started, boot=me.boot))
        assert not REAL.end(me)
        assert process.poll() is None
        assert REAL.end(ProcessIdentity(host=me.host, pid=process.pid, started=started, boot=me.boot))
        assert process.wait(5) == -signal.SIGKILL
        assert len(children) == 1
        for _ in range(500):
            if REAL.alive(child) is False:
                break
            time.sleep(0.01)  # the kernel takes a moment
        assert REAL.alive(child) is False


def test_the_lease_is_longer_than_what_is_waited_for() -> None:
    """The scene's tool ends within its lease, so that only a stop makes it late."""
    assert LEASE_S > 0.4
