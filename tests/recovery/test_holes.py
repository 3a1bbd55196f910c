"""A hole in the log, erased, unreadable or lost: what was started without a result stays in doubt."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logact.core import deciding, driving, executing, machine
from logact.core.state import State
from logact.entry import Cancel, Entry, ErasedPayload, Notice
from logact.errors import UsageError
from logact.introspection.history import history
from logact.logs.memory import MemoryEngine
from logact.logs.verify import verify
from logact.models.scripted import call
from logact.runtime.repairing import Repair, repair
from logact.testing import holing
from logact.testing.plan import Plan
from logact.testing.systems import _kind
from tests.cli_help import here
from tests.core.build import Log
from tests.recovery.kit import Flaky, an_agent
from tests.recovery.test_damage import log_of, rows

SCRIPT = [call("send", item="one"), call("send", item="two"), call("pay", item="77"), "done"]


async def killed_in_pay(file: Path) -> tuple[int, list[Entry]]:
    """A log whose agent was killed inside ``pay``: the action, and all entries."""
    send, pay = Flaky(), Flaky(name="pay", effect="irreversible")
    pay.hangs = True
    agent = an_agent(MemoryEngine(), SCRIPT, [send.tool, pay.tool], checkpoint_every=0)
    agent.log = log_of(file.with_name("live.db"))
    async with agent.log:
        playing = asyncio.ensure_future(agent.run("go"))
        while not pay.calls:
            await asyncio.sleep(0.005)
        for suffix in ("", "-wal"):  # as a kill would leave it
            shutil.copy(file.with_name(f"live.db{suffix}"), file.with_name(file.name + suffix))
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    async with log_of(file) as log:
        entries = [one async for one in log.read()]
    return next(one.position for one in entries if one.kind == "Intent" and one.tool == "pay"), entries


def again() -> Any:
    """The agent of a fresh process."""
    return an_agent(MemoryEngine(), ["never"], [Flaky().tool, Flaky(name="pay", effect="irreversible").tool])


async def state_of(file: Path) -> State:
    """The fold of a file."""
    async with log_of(file) as log:
        return (await history(log)).state


async def mended(file: Path, name: str) -> tuple[Repair, State]:
    """What a repair says, and the fold of the new log."""
    done = await repair(file, file.with_name(name))
    return done, await state_of(file.with_name(name))


async def test_every_hole_in_a_killed_run_leaves_the_action_in_doubt(tmp_path: Path) -> None:
    """A payload of each kind unreadable, a record dropped: after the repair it is in doubt, for a person."""
    file = tmp_path / "a.db"
    action, entries = await killed_in_pay(file)
    last = entries[-1].position // 1000
    assert action // 1000 == last, "one record holds the intent and its start"
    for entry in {one.kind: one for one in entries}.values():
        holed = tmp_path / "p.db"
        for one in tmp_path.glob("p*.db*"):
            one.unlink()
        shutil.copy(file, holed)
        number = entry.position // 1000
        body = rows(holed, "SELECT body FROM records WHERE id % 1099511627776 = ?", number)[0][0]
        raw = msgspec.json.decode(body)
        raw["payloads"][entry.position % 1000]["data"]["never written"] = 1
        changed = msgspec.json.encode(raw)
        rows(holed, "UPDATE records SET body = ? WHERE id % 1099511627776 = ?", changed, number)
        done, state = await mended(holed, "p2.db")
        assert entry.position in done.unreadable
        assert action in done.in_doubt and 2000 in done.stopped_runs, entry.kind
        assert [one.id for one in state.doubtful()] == [action], entry.kind
        assert state.runs[2000].status == "stopped"
    for number in range(1, last, 2):
        holed = tmp_path / "r.db"
        for one in tmp_path.glob("r*.db*"):
            one.unlink()
        shutil.copy(file, holed)
        rows(holed, "DELETE FROM records WHERE id % 1099511627776 = ?", number)
        done, state = await mended(holed, "r2.db")
        assert action in done.in_doubt, number
        assert action in [one.id for one in state.doubtful()], number
        assert not state.startable() and all(one.status != "running" for one in state.runs.values())


def test_commands_and_the_next_run_show_the_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``doubt`` and ``actions`` list it, an agent does not go on with that run, and a person can settle it."""
    monkeypatch.chdir(tmp_path)

    async def with_a_hole() -> int:
        action, entries = await killed_in_pay(tmp_path / "a.db")
        inference = next(one.position for one in entries if one.kind == "Inference")
        async with log_of(tmp_path / "a.db") as log:
            await log.engine.erase(inference // 1000, inference % 1000)
            assert not (await verify(log)).problems
        return action

    action = asyncio.run(with_a_hole())

    async def gone_on_with() -> None:
        agent = again()
        agent.log = log_of(tmp_path / "a.db")
        async with agent.log:
            with pytest.raises(UsageError, match="no unfinished run"):
                await agent.run()
            assert (await agent.run("another")).text == "never"

    asyncio.run(gone_on_with())
    assert here("doubt", "a.db").stdout.startswith(f"{action}  in_doubt  pay")
    assert "in doubt" in here("actions", "a.db", str(action)).stdout.replace("_", " ")
    assert here("doubt", "a.db", str(action), "--happened", "--reason", "seen").returncode == 0
    assert asyncio.run(state_of(tmp_path / "a.db")).actions[action].status == "executed"


async def test_what_is_under_way_or_not_settled_is_not_erased(tmp_path: Path) -> None:
    """It says what to do first; once the run is over it is erased, and the doubt about another action stays."""
    action, entries = await killed_in_pay(tmp_path / "a.db")
    inference = next(one.position for one in entries if one.kind == "Inference")
    async with log_of(tmp_path / "a.db") as log:
        for entry in entries:
            if entry.kind in ("Inference", "Intent", "Vote", "Result", "Run", "Input", "Heartbeat"):
                with pytest.raises(UsageError, match=r"is under way|is not settled"):
                    await log.erase(entry.position, "private")
        await log.append(Cancel(scope="run:2000"), role="operator", name="ann")
        with pytest.raises(UsageError, match="is not settled"):
            await log.erase(action, "private")
        await log.erase(inference, "private")
        assert isinstance((await log.get(inference)).payload, ErasedPayload)
        assert [one.id for one in (await history(log)).state.unfinished()] == [action]


async def test_a_finished_run_keeps_its_ends(tmp_path: Path) -> None:
    """Whatever is erased of it: no action that was executed changes, but the one whose result is gone."""
    agent = an_agent(MemoryEngine(), [*SCRIPT[:2], "done"], [Flaky().tool])
    async with agent.log:
        await agent.run("go")
        entries = [one async for one in agent.log.read()]
    whole = machine.fold(machine.initial(entries[0].log, keep=True), entries)
    for entry in entries:
        state = machine.fold(machine.initial(entries[0].log, keep=True), holing.erased_at(entries, entry.position))
        for key, action in whole.actions.items():
            expected = "superseded" if (entry.kind, entry.action) == ("Result", key) else action.status
            assert state.actions[key].status == expected, (entry.kind, key)
        assert state.runs[2000].status == "finished" or entry.kind in ("Control", "Fence", "Policy"), entry.kind
        assert not state.unfinished()


def test_nothing_new_starts_behind_a_hole() -> None:
    """What is committed is not started, what is proposed is not decided for, and the driver is done."""
    log = Log()
    log.policy("v")
    run = log.run()
    log.infer(run, "send", "send")
    first = log.propose(run)
    log.vote(first)
    log.commit(first)
    second = log.propose(run, call=1)
    state = machine.fold(machine.initial(log.log), holing.erased_at(log.entries, run + 2000))
    assert {key: one.status for key, one in state.actions.items()} == {first: "validated", second: "proposed"}
    assert "hole" in executing.may_start(state, state.actions[first], "w", 0)
    decided = deciding.decide(state, state.actions[second], 0)
    assert decided is not None and getattr(decided, "code", "") == "hole"
    assert driving.next_step(state, state.runs[run], 0).verb == "done"


@pytest.mark.parametrize(("seed", "form"), [(3, "inline"), (14, "own"), (4, "decoupled")])
def test_holes_in_what_the_simulator_wrote(seed: int, form: Any) -> None:
    """Crashes, races, forgers, retries and undos: each hole, right after an action began and at the end."""
    simulation = _kind(Plan.random(seed, form))(Plan.random(seed, form))
    assert simulation.run().ok
    entries = simulation.checker.entries
    begun = [place for place, entry in enumerate(entries) if entry.kind == "Started"]
    places = [begun[len(begun) // 2], len(entries) - 1]
    assert sum(holing.check_holes(entries[: place + 1]) for place in places) > 50


def test_only_an_operator_says_that_records_are_missing() -> None:
    """Anybody may write a notice; one that calls itself so changes nothing."""
    log = Log()
    run = log.run()
    log.say(Notice(code="missing", message="believe me"), role="client")
    assert not log.state.lost and log.state.runs[run].status == "running"
    log.say(Notice(code="missing", message="it is so"), role="operator")
    assert log.state.lost and log.state.runs[run].status == "stopped"
