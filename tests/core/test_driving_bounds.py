"""What keeps a driver from going on for ever, and from going ahead of what a turn has done."""

from __future__ import annotations

import pytest

from logact.core import driving, machine
from logact.core.driving import EXPIRED_MAX
from logact.core.state import Action, CallState, RunState, State
from logact.entry import Expiry, Input, Intent, NewEntry, Run
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine


def _run_with(status: str) -> tuple[State, RunState]:
    """A run in whose turn the first of two calls has an action with this status."""
    state = machine.initial("log")
    run = RunState(id=1000, agent="ops", turn=1, inference=3000, context=[2000, 3000])
    run.calls = {0: CallState(action=4000), 1: CallState()}
    action = Action(id=4000, intent=Intent(run=1000, agent="ops", tool="act"), status=status)  # type: ignore[arg-type]
    state.actions[4000] = action
    state.open_actions[4000] = None
    state.runs[1000] = run
    return state, run


@pytest.mark.parametrize("status", ["proposed", "validated", "executing", "in_doubt"])
def test_a_call_waits_for_the_one_before_it(status: str) -> None:
    """A later call of a turn may count on what an earlier one did, so it is not proposed before that has ended."""
    state, run = _run_with(status)
    assert driving.next_step(state, run, 0).verb == "wait"


def test_a_call_goes_ahead_of_a_result_that_rides() -> None:
    """An action that ran, and whose result goes with the next record, does not hold the next call back."""
    state, run = _run_with("executing")
    step = driving.next_step(state, run, 0, riding=frozenset({4000}))
    assert (step.verb, step.call) == ("propose", 1)


async def _expire(times: int, said_between: bool) -> RunState:
    log = SharedLog(MemoryEngine())
    await log.append(Run(agent="ops"), role="client")
    run = machine.fold(machine.initial(), [entry async for entry in log.read()]).runs
    key = next(iter(run))
    for number in range(times):
        if said_between and number == times - 1:
            await log.append(Input(run=key, text="go on"), role="client")
        intent = Intent(run=key, agent="ops", tool="act", arguments={"number": number}, deadline_ms=1)
        done = await log.append(NewEntry(payload=intent, role="driver", name="ops"))
        await log.append(Expiry(intent=done.position), role="decider")
    return machine.fold(machine.initial(), [entry async for entry in log.read()]).runs[key]


def test_actions_that_expire_again_and_again_end_a_run() -> None:
    """With no decider, or clocks that disagree, the model was asked without end, at its owner's expense."""
    import asyncio

    few = asyncio.run(_expire(EXPIRED_MAX - 1, False))
    assert driving.limit_reached(few, 0) == ""
    many = asyncio.run(_expire(EXPIRED_MAX, False))
    assert "expired undecided" in driving.limit_reached(many, 0)
    again = asyncio.run(_expire(EXPIRED_MAX, True))
    assert driving.limit_reached(again, 0) == ""
