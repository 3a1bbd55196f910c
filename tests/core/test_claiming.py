"""Claims of a run's sub-tasks: first wins, renewals, lapses, completion; and no sequence completes a task twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logact.core import claiming, machine
from logact.core.state import Held
from logact.entry import Claim, Control
from tests.core.build import Log


@pytest.fixture
def log() -> Log:
    """An empty log whose policy lets everything pass."""
    made = Log()
    made.open_policy()
    return made


def worked(log: Log, plan: int, agent: str, *, writer: str = "w") -> int:
    """The output of a run of the agent for a task of the plan."""
    run = log.run(agent, parent=plan)
    answer = log.propose(run, "answer", effect="read")
    log.commit(answer)
    return log.answer(run, answer, writer=writer) + 1


def test_a_task_is_held_renewed_and_completed_for_ever(log: Log) -> None:
    """The first claim wins; its holder renews it and completes it, and nobody can claim it again."""
    plan = log.run("swarm")
    log.say(Claim(task="t", agent="ann", run=plan, lease_ms=5))
    log.say(Claim(task="t", agent="bob", run=plan))
    assert log.why == "task 't' is held by 'ann'"
    at = log.say(Claim(task="t", agent="ann", run=plan))
    assert log.run_state(plan).held == {"t": Held("ann", "w", at)}
    output = worked(log, plan, "ann")
    log.say(Claim(task="t", agent="ann", run=plan, release=True, result=output))
    assert not log.why
    log.say(Claim(task="t", agent="ann", run=plan))
    assert log.why == f"task 't' is done since position {output}"
    assert (log.run_state(plan).held, log.run_state(plan).done) == ({}, {"t": output})


def test_a_result_is_an_output_of_the_holder_for_this_plan(log: Log) -> None:
    """A release by another's output, by one that completed a task before, or by no output, completes nothing."""
    plan = log.run("swarm")
    other, mine = worked(log, plan, "bob"), worked(log, plan, "ann")
    log.say(Claim(task="t", agent="ann", run=plan))
    for wrong in (other, plan, 10**9):
        log.say(Claim(task="t", agent="ann", run=plan, release=True, result=wrong))
        assert log.why.startswith(f"position {wrong} is no output of 'ann'")
    log.say(Claim(task="t", agent="ann", run=plan, release=True, result=mine))
    log.say(Claim(task="u", agent="ann", run=plan))
    log.say(Claim(task="u", agent="ann", run=plan, release=True, result=mine))
    assert log.why == f"the output at {mine} completed another task"


def test_a_lapse_ends_the_claim_that_it_names(log: Log) -> None:
    """A lapse frees the task; the old holder cannot complete it, and its work stops."""
    plan = log.run("swarm")
    at = log.say(Claim(task="t", agent="ann", run=plan))
    output = worked(log, plan, "ann")
    work = log.run("ann", parent=plan)
    waiting = log.propose(work)
    log.say(Claim(task="t", agent="bob", run=plan, lapses=at))
    assert not log.why
    assert (log.run_state(work).status, log.status(waiting)) == ("stopped", "rejected")
    log.say(Claim(task="t", agent="ann", run=plan, release=True, result=output))
    assert log.why == "task 't' is not held by 'ann' in this life"
    log.say(Claim(task="t", agent="bob", run=plan))
    assert not log.why


def test_work_for_claimed_tasks_begins_only_under_a_claim(log: Log) -> None:
    """Who slept between the claim and the work begins nothing once the claim has lapsed; nor does another life."""
    plan = log.run("swarm")
    early = log.run("ann", parent=plan)
    assert early in log.state.runs, "nothing of this plan is claimed"
    at = log.say(Claim(task="t", agent="ann", run=plan))
    assert log.run("ann", parent=plan) in log.state.runs
    assert log.run("bob", parent=plan) not in log.state.runs
    log.say(Claim(task="t", agent="bob", run=plan, lapses=at))
    late = log.run("ann", parent=plan)
    assert late not in log.state.runs
    log.say(Claim(task="t", agent="ann", run=plan), writer="second")
    assert log.run("ann", parent=plan) not in log.state.runs, "another incarnation holds it"
    log.say(Control(verb="stop", scope=f"run:{plan}"))
    assert log.run("ann", parent=plan) not in log.state.runs, "the plan is over"


def test_a_renewal_makes_a_lapse_void(log: Log) -> None:
    """A lapse that names a claim which was renewed, or given back, takes no effect."""
    plan = log.run("swarm")
    first = log.say(Claim(task="t", agent="ann", run=plan))
    log.say(Claim(task="t", agent="ann", run=plan))
    log.say(Claim(task="t", agent="bob", run=plan, lapses=first))
    assert log.why == f"the claim at {first} does not hold task 't' (any more)"


def test_a_lapse_waits_for_what_must_not_happen_twice(log: Log) -> None:
    """While an action of the holder may have happened, nobody takes its task up; a reading one stops nobody."""
    plan = log.run("swarm")
    at = log.say(Claim(task="t", agent="ann", run=plan))
    work = log.run("ann", parent=plan)
    log.started(work, "look", effect="read")
    doubtful = log.doubtful(work, effect="irreversible")
    log.say(Claim(task="t", agent="bob", run=plan, lapses=at))
    assert log.why == f"action {doubtful} of 'ann' must not happen twice, and is not settled"
    log.recover(doubtful, "happened", evidence="probe")
    log.say(Claim(task="t", agent="bob", run=plan, lapses=at))
    assert not log.why


def test_another_life_takes_over_only_when_the_agent_is_its(log: Log) -> None:
    """A second life under one name takes the claim over if it holds the agent; the first can then not complete it."""
    plan = log.run("swarm")
    output = worked(log, plan, "ann")
    log.say(Claim(task="t", agent="ann", run=plan), writer="one")
    log.fence("ann", holder="two")
    log.say(Claim(task="t", agent="ann", run=plan), writer="one")
    assert log.why == "agent 'ann' is played by another incarnation"
    log.say(Claim(task="t", agent="ann", run=plan), writer="two")
    log.say(Claim(task="t", agent="ann", run=plan, release=True, result=output), writer="one")
    assert log.why == "task 't' is not held by 'ann' in this life"


def test_a_task_needs_its_run(log: Log) -> None:
    """There are no tasks of a run that is not there, or that has ended; so memory is bounded by the runs."""
    log.say(Claim(task="t", agent="ann", run=77))
    assert log.why == "there is no run 77"
    plan = log.run("swarm")
    answer = log.propose(plan, "answer", effect="read")
    log.commit(answer)
    log.answer(plan, answer)
    log.say(Claim(task="t", agent="ann", run=plan))
    assert log.why == f"run {plan} is finished: its tasks are closed"


def test_a_driver_claims_tasks_of_runs_and_lapses_nothing(log: Log) -> None:
    """One connection may claim for several agents; that a holder is gone, a recoverer says."""
    plan = log.run("swarm")
    at = log.say(Claim(task="t", agent="ann", run=plan), role="driver", name="ann")
    assert not log.why
    log.say(Claim(task="v", agent="ann", run=plan), role="driver", name="all")
    assert not log.why
    for wrong in (
        Claim(task="u", agent="bob"),
        Claim(task="t", agent="bob", run=plan, lapses=at),
    ):
        log.say(wrong, role="driver", name="bob")
        assert log.why == "the role 'driver' may append a Claim only of a run's task"


def test_the_number_of_tasks_is_limited(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run holds no more tasks than the limit, however many claims come."""
    monkeypatch.setattr(claiming, "TASKS_MAX", 3)
    plan = log.run("swarm")
    for name in "abcd":
        log.say(Claim(task=name, agent="ann", run=plan))
    assert log.why == f"run {plan} has 3 tasks already"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "claim", "complete", "complete", "give_back", "lapse", "fence"]),
        st.sampled_from(["ann", "bob", "eve"]),
        st.sampled_from(["t", "u"]),
        st.sampled_from(["", "2"]),
        st.integers(0, 5),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_sequence_completes_a_task_twice(steps: list[tuple[str, str, str, str, int]]) -> None:
    """Whatever comes in whatever order: one holder at a time, one completion for ever, and only by the holder."""
    log = Log()
    log.open_policy()
    plan = log.run("swarm")
    claims: list[int] = [1]
    completed: dict[str, int] = {}
    for verb, agent, task, life, back in steps:
        writer, before = agent + life, log.run_state(plan).held.get(task)
        if verb == "claim":
            claims.append(log.say(Claim(task=task, agent=agent, run=plan), writer=writer))
            if not log.why:
                assert task not in completed
                assert before is None or before.agent == agent
        elif verb == "complete":
            output = worked(log, plan, agent, writer=writer)
            log.say(Claim(task=task, agent=agent, run=plan, release=True, result=output), writer=writer)
            if not log.why:
                assert task not in completed
                assert before is not None and (before.agent, before.incarnation) == (agent, writer)
                completed[task] = output
        elif verb == "give_back":
            log.say(Claim(task=task, agent=agent, run=plan, release=True), writer=writer)
        elif verb == "lapse":
            named = claims[-1 - back % len(claims)]
            log.say(Claim(task=task, agent=agent, run=plan, lapses=named), writer=writer)
            assert bool(log.why) == (before is None or before.position != named or task in completed)
        else:
            log.fence(agent, holder=writer)
        assert log.run_state(plan).done == completed
    again = machine.fold(machine.initial(log.log), log.entries)
    assert again.runs[plan].done == completed
