"""The real supervisor in the simulator: killed, stopped, cut off, started twice, with parts that hang and fail."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from logact.testing.plan import Event, Plan
from logact.testing.simulator import SUPERVISED_FROM, plan_of, with_supervised
from logact.testing.systems import Outcome, simulate


def held(outcome: Outcome) -> None:
    """Fail with what broke."""
    if not outcome.ok:
        pytest.fail("\n".join([outcome.error, *outcome.tail]), pytrace=False)


def test_every_check_holds_under_a_supervisor() -> None:
    """Whatever dies, hangs or is started twice: one life of each part, and once faults stop everything ends."""
    fired: Counter[str] = Counter()
    for seed in range(6):
        outcome = simulate(plan_of(SUPERVISED_FROM + seed, None))
        held(outcome)
        fired.update(outcome.fired)
    assert fired["part_started"] > 60
    assert fired["frozen_killed"] > 0


def test_one_supervised_plan_gives_one_log() -> None:
    """The same plan twice: the same bytes, effects and steps."""
    plan = plan_of(SUPERVISED_FROM + 1, None)
    assert simulate(plan).digest == simulate(plan).digest


def test_a_supervisor_may_die_at_any_of_its_steps() -> None:
    """One kill at steps all over its life, in a run without other faults."""
    quiet = Plan(schedule=7, form="supervised", menu=3)
    steps = simulate(quiet).process_steps["supervisor"]
    for step in range(1, min(steps, 1500), 150):
        outcome = simulate(msgspec.structs.replace(quiet, steps=(("supervisor", 1, step),)))
        held(outcome)
        assert outcome.fired["kill_at_step"] == 1


def test_too_many_ends_make_it_give_up_and_it_says_so() -> None:
    """A part that always ends: the supervisor gives up, the log says so, and a person starts it again."""
    outcome = simulate(
        Plan(schedule=5, form="supervised", menu=1, restarts=3, events=(Event(0.0, "ill", "decider-1", 11.0),))
    )
    held(outcome)
    assert outcome.fired["supervisor_gave_up"] >= 1


def test_known_seeds_stay_what_they_were() -> None:
    """Runs under a supervisor come between the others, under seeds of their own."""
    seeds = list(with_supervised(range(100)))
    assert [seed for seed in seeds if seed < SUPERVISED_FROM] == list(range(100))
    assert len(seeds) == 102
