"""Pause, resume, stop, cancel, claims, seals, checkpoints: entries that hold back or mark."""

from __future__ import annotations

import pytest

from logact.entry import BlobRef, Cancel, Checkpoint, Claim, Erased, Input, Mail, Run, Seal, Spec, Trim
from tests.core.build import Log


@pytest.fixture
def log() -> Log:
    """A log on which everything passes."""
    made = Log()
    made.open_policy()
    return made


@pytest.mark.parametrize("scope", ["", "log:1", "agent:", "planet:x", "run"])
def test_a_scope_that_is_none_is_refused(log: Log, scope: str) -> None:
    """Controls and cancels of something that is no scope take no effect, and say what scopes are."""
    log.control("pause", scope)
    assert "is no scope; expected log, agent:NAME, run:POSITION, action:POSITION or supervisor:AGENT" in log.why
    if scope:
        log.say(Cancel(scope=scope))
        assert "is no scope" in log.why


def test_pause_and_resume(log: Log) -> None:
    """A pause counts once, until its resume."""
    log.control("pause", "agent:ann")
    log.control("pause", "agent:ann")
    assert log.why == "agent:ann is paused already"
    assert log.state.control_over("ann") == "paused (agent:ann)"
    assert log.state.control_over("bob") == ""
    log.control("resume", "agent:ann")
    assert log.state.control_over("ann") == ""
    log.control("resume", "agent:ann")
    assert log.why == "agent:ann is neither paused nor stopped"


def test_a_pause_lets_proposals_and_votes_pass(log: Log) -> None:
    """A pause holds back starts, and nothing else."""
    log.control("pause")
    run = log.run()
    action = log.propose(run)
    log.commit(action)
    assert log.status(action) == "validated"


def test_a_stop_ends_runs_and_settles_what_it_stops(log: Log) -> None:
    """A stop ends the runs in its scope and rejects what has not started; what runs, ends as it ends."""
    run = log.run()
    inference = log.infer(run, "a", "b", "c")
    proposed = log.propose(run, "a", inference=inference, call=0)
    committed = log.propose(run, "b", inference=inference, call=1)
    log.commit(committed)
    running = log.started(run, "c", inference=inference, call=2)
    log.control("stop", f"run:{run}")
    assert (log.status(proposed), log.status(committed), log.status(running)) == (
        "rejected",
        "rejected",
        "executing",
    )
    assert log.run_state(run).status == "stopped"
    log.result(running)
    assert log.status(running) == "executed"


def test_nothing_begins_under_a_stop(log: Log) -> None:
    """Under a stop neither runs nor intents begin; a stopped run takes no input; after a resume new runs begin."""
    run = log.run()
    log.control("stop")
    log.say(Run(agent="ann"))
    assert log.why == "stopped (log): no new run"
    log.propose(run)
    assert log.why == "stopped (log)"
    log.say(Input(run=run, text="x"))
    assert log.why == f"run {run} was stopped"
    log.control("resume")
    log.propose(run)
    assert log.why == f"run {run} is stopped"
    log.infer(run, "x")
    assert log.why == f"run {run} is stopped"
    assert log.run() in log.state.runs


def test_a_stop_of_an_agent_spares_others(log: Log) -> None:
    """Runs of other agents go on."""
    ann, bob = log.run("ann"), log.run("bob")
    log.control("stop", "agent:ann")
    assert (log.run_state(ann).status, log.run_state(bob).status) == ("stopped", "running")


def test_a_stop_of_an_action_spares_its_run(log: Log) -> None:
    """One action is rejected; its run goes on."""
    run = log.run()
    first, second = log.propose(run), log.propose(run)
    log.control("stop", f"action:{first}")
    assert (log.status(first), log.status(second)) == ("rejected", "proposed")
    assert log.run_state(run).status == "running"


def test_a_cancel_of_a_scope_ends_its_runs(log: Log) -> None:
    """A cancel takes back what has not started, and asks what runs to stop; later runs are free to begin."""
    run = log.run()
    waiting, running = log.propose(run), log.started(run)
    log.say(Cancel(scope="agent:ann", reason="enough"))
    assert (log.status(waiting), log.action(waiting).code) == ("rejected", "cancelled")
    assert log.action(running).cancel_wanted
    assert log.run_state(run).status == "stopped"
    assert log.run() in log.state.runs


@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_an_action_that_has_ended_is_not_held_back(log: Log, verb: str) -> None:
    """A pause or a stop of it takes no effect and says so, instead of standing in the log for good."""
    action = log.started(log.run())
    log.result(action)
    log.control(verb, f"action:{action}")
    assert log.why == f"action {action} has ended: it is executed"
    assert not log.state.paused and not log.state.stopped


def test_a_cancel_of_what_is_over_takes_no_effect(log: Log) -> None:
    """What has ended cannot be cancelled."""
    action = log.started(log.run())
    log.result(action)
    log.say(Cancel(intent=action))
    assert log.why == f"action {action} is executed already"
    log.say(Cancel(intent=99))
    assert log.why == "there is no open action 99"


def test_the_first_claim_wins(log: Log) -> None:
    """A task has one holder, until that one releases it."""
    log.say(Claim(task="t", agent="ann"))
    log.say(Claim(task="t", agent="bob"))
    assert log.why == "task 't' is held by 'ann'"
    log.say(Claim(task="t", agent="bob", release=True))
    assert log.why == "task 't' is not held by 'bob'"
    log.say(Claim(task="t", agent="ann", release=True))
    log.say(Claim(task="t", agent="bob"))
    assert log.state.claims == {"t": "bob"}


def test_a_seal_and_a_checkpoint_are_marked(log: Log) -> None:
    """The fold knows where its last checkpoint stands, how much was counted then, and that the log is sealed."""
    at = log.say(Checkpoint(upto=1, chain="c", state=BlobRef(digest="d", size=1)))
    assert (log.state.checkpoint, log.state.counted_at_checkpoint) == (at, 1)
    log.say(Seal())
    assert log.state.sealed


def test_what_only_people_read_changes_nothing(log: Log) -> None:
    """Mail, specifications, trims and erasures have no effect on the fold but to be counted."""
    for payload in (Mail(to="*", sender="a", body="b"), Spec(agent="ann"), Trim(before=1), Erased(target=1000)):
        log.say(payload)
        assert not log.why
    assert not log.state.actions
