"""A swarm in the simulator: holders of sub-tasks die, hang and come late; nothing is done twice, nothing is lost."""

from __future__ import annotations

from collections import Counter

import msgspec

from logact.testing.claims import MORTAL
from logact.testing.mutants_claims import ANSWERED
from logact.testing.plan import PROCESSES, Event, Plan
from logact.testing.systems import simulate
from tests.simulation.test_simulator import held

QUIET = Plan(schedule=5, form="swarm", menu=3)


def test_two_agents_that_finish_late_complete_nothing_twice() -> None:
    """Two holders answer and then stop for longer than their claims last: others do their tasks, once each."""
    late: Counter[str] = Counter()
    for schedule in range(1, 7):
        hangs = tuple((name, ANSWERED, 0, 9.0) for name in PROCESSES["swarm"][:2])
        outcome = simulate(msgspec.structs.replace(QUIET, schedule=schedule, hangs=hangs))
        held(outcome)
        late.update(outcome.fired)
    assert late["finished_late"] + late["finished_second"] >= 6
    assert late["claim_of_the_silent_lapsed"] >= 6


def test_the_part_of_an_agent_that_never_comes_back_is_done_by_another() -> None:
    """A process dies at any of its steps, and its agent works no more: its claim lapses, and the plan is finished."""
    lapsed = 0
    for step in range(20, 220, 20):
        outcome = simulate(msgspec.structs.replace(QUIET, steps=((MORTAL, 1, step),)))
        held(outcome)
        lapsed += outcome.fired.get("claim_of_the_dead_lapsed", 0)
    assert lapsed >= 3


def test_what_may_have_happened_keeps_its_task_until_somebody_says_so() -> None:
    """An agent that cannot tell what became of its action holds on to the task; was given back, and done again."""
    for seed in (171, 372, 426):
        held(simulate(Plan.random(seed, "swarm")))


def test_what_a_stopped_run_had_begun_is_settled_by_the_agents_next_life() -> None:
    """A harmless action under a run that a lapse stopped is closed; was open for ever."""
    for seed in (31, 209):
        held(simulate(Plan.random(seed, "swarm")))


def test_a_swarm_is_killed_and_cut_off_all_the_time() -> None:
    """Every process dies and is cut off in turn while the clocks jump; the plan is done all the same."""
    names = PROCESSES["swarm"]
    events = [Event(0.3 + 0.7 * at, "kill", names[at % 4], 0.4) for at in range(8)]
    events += [Event(0.5 + 0.9 * at, "cut", names[at % 4], 1.5) for at in range(6)]
    events += [Event(0.4 + at, "jump", names[at % 4], 0.3 + at) for at in range(4)]
    for schedule in range(1, 5):
        outcome = simulate(msgspec.structs.replace(QUIET, schedule=schedule, events=tuple(events)))
        held(outcome)
        assert outcome.fired["kill"] >= 4 and outcome.fired["clock_jump"] >= 2
