"""Single faults in runs without any other: partitions of one way, models that hang, a time limit."""

from __future__ import annotations

from collections import Counter

import pytest

from logact.testing.plan import CUTS, MODEL_FAULTS, Cut, Event, Form, Plan
from logact.testing.simulator import plan_of
from logact.testing.systems import Outcome, simulate

TOLD = {"cut": "read_cut_off", "mute": "append_mute", "deaf": "read_deaf", "unheard": "answer_unheard"}


def held(outcome: Outcome) -> None:
    """Fail with what broke."""
    if not outcome.ok:
        pytest.fail("\n".join([outcome.error, *outcome.tail]), pytrace=False)


@pytest.mark.parametrize("kind", CUTS)
def test_a_part_may_lose_one_direction_of_its_way_to_the_log(kind: Cut) -> None:
    """Whoever reads and cannot append, appends and cannot read, or hears no answer: all ends well once it is back."""
    fired: Counter[str] = Counter()
    for menu, names in enumerate(
        (("driver",), ("executor-1", "executor-2", "voter-guard"), ("recoverer", "decider-1"))
    ):
        events = tuple(Event(at_s, kind, name, 4.0) for name in names for at_s in (0.0, 0.1, 9.0))
        outcome = simulate(Plan(schedule=5 + menu, form="decoupled", menu=menu, events=events))
        held(outcome)
        fired.update(outcome.fired)
    assert fired[TOLD[kind]] > 0


@pytest.mark.parametrize("form", ["inline", "decoupled"])
@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_model_may_hang(form: Form, fault: str) -> None:
    """No answer, a late one, one for a driver that was replaced meanwhile: no turn is lost, and the run ends."""
    outcome = simulate(Plan(schedule=3, form=form, menu=1, models=((1, fault),)))
    held(outcome)
    assert outcome.fired[f"model_{fault}"] == 1
    assert ("ends_with_model_unavailable" in outcome.fired) == (fault == "never")


@pytest.mark.parametrize("form", ["inline", "decoupled"])
@pytest.mark.parametrize("fault", ["slow", "asleep"])
def test_the_time_of_a_run_may_be_over_before_the_model_answers(form: Form, fault: str) -> None:
    """The model is given up, or its answer comes too late: nothing more is asked, and the run says why."""
    outcome = simulate(Plan(schedule=3, form=form, menu=1, models=((0, fault),), deadline_s=5))
    held(outcome)
    assert outcome.fired[f"model_{fault}"] == 1
    assert outcome.fired["run_gave_up"] == 1


def test_every_fault_stands_in_the_plans_of_two_hundred_seeds() -> None:
    """Plans drawn from seeds hold each kind of event and of model fault, and time limits."""
    plans = [plan_of(seed, None) for seed in range(200)]
    drawn = Counter(fault for plan in plans for _, fault in plan.models)
    events = Counter(event.kind for plan in plans for event in plan.events)
    assert all(drawn[fault] > 3 for fault in MODEL_FAULTS), drawn
    assert all(events[cut] > 3 for cut in CUTS), events
    assert sum(plan.deadline_s > 0 for plan in plans) > 10
