"""Starts, results, recoveries, undos: nothing happens twice, nothing is lost, nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest

from logact.core import acting, driving, settling
from logact.entry import Cancel, Failure, Finding, Recovery
from tests.core.build import Log, ambiguous, definite

STRICT = ["reversible", "irreversible"]
MILD = ["read", "idempotent"]


@pytest.fixture
def log() -> Log:
    """A log on which everything passes."""
    made = Log()
    made.open_policy()
    return made


# --- Started ---


def test_a_start_needs_an_effective_commit(log: Log) -> None:
    """Nothing starts that was not committed."""
    action = log.propose(log.run())
    log.start(action)
    assert log.why == f"action {action} is proposed"
    log.start(99)
    assert log.why == "there is no open action 99"


def test_an_action_starts_once(log: Log) -> None:
    """A second start of a running action takes no effect, whoever tries."""
    action = log.started(log.run())
    log.start(action, writer="other")
    assert log.why == f"action {action} is executing"
    assert len(log.action(action).attempts) == 1


def test_a_start_names_its_attempt(log: Log) -> None:
    """An attempt that is not the next one takes no effect."""
    action = log.propose(log.run())
    log.commit(action)
    log.start(action, attempt=2)
    assert log.why == f"attempt 2 is not the next of action {action}"


def test_a_start_needs_the_present_epoch(log: Log) -> None:
    """Starts of an older or an invented epoch take no effect."""
    action = log.propose(log.run())
    log.commit(action)
    log.start(action, epoch=3)
    assert log.why == "epoch 3 was never opened"
    log.fence()
    log.start(action, epoch=0)
    assert log.why == "epoch 0 is over; it is 1"
    log.start(action, epoch=1)
    assert not log.why


def test_only_the_holder_starts(log: Log) -> None:
    """While somebody holds the role, nobody else starts the agent's actions; an empty holder opens it again."""
    action = log.propose(log.run())
    log.commit(action)
    log.fence(holder="me")
    log.start(action, writer="you")
    assert log.why == "another incarnation (me) holds agent 'ann'"
    log.fence(holder="")
    log.start(action, writer="you")
    assert not log.why


def test_a_fence_is_the_next_epoch_or_nothing(log: Log) -> None:
    """Of two that take over in the same epoch, the first in the log does."""
    log.fence(epoch=1, holder="a")
    log.fence(epoch=1, holder="b")
    assert log.why == "the epoch of agent 'ann' is 1, so 1 is not the next"
    log.fence(epoch=3, holder="c")
    assert "is not the next" in log.why
    assert log.state.agents["ann"].holder == "a"


def test_fences_are_per_agent(log: Log) -> None:
    """One agent's fence leaves another's actions alone."""
    action = log.started(log.run("bob"))
    log.fence("ann")
    assert log.status(action) == "executing"


@pytest.mark.parametrize("scope", ["log", "agent:ann", "run", "action"])
@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_no_start_under_a_control(log: Log, verb: str, scope: str) -> None:
    """Pause and stop of the log, agent, run or action hold back the next start."""
    run = log.run()
    action = log.propose(run)
    log.commit(action)
    scope = {"run": f"run:{run}", "action": f"action:{action}"}.get(scope, scope)
    log.control(verb, scope)
    log.start(action)
    assert (f"paused ({scope})" if verb == "pause" else "rejected") in log.why


def test_what_is_resumed_starts(log: Log) -> None:
    """After a resume, what was committed before may start."""
    action = log.propose(log.run())
    log.commit(action)
    log.control("pause")
    log.control("resume")
    log.start(action)
    assert not log.why


def test_a_control_elsewhere_holds_nothing_back(log: Log) -> None:
    """A pause of another agent, run or action is no pause here."""
    action = log.propose(log.run())
    log.commit(action)
    for scope in ("agent:bob", "run:5", "action:7"):
        log.control("pause", scope)
    log.start(action)
    assert not log.why


def test_a_cancelled_action_does_not_start(log: Log) -> None:
    """A cancel before the start rejects the action."""
    action = log.propose(log.run())
    log.commit(action)
    log.say(Cancel(intent=action, reason="changed my mind"))
    assert (log.status(action), log.action(action).code) == ("rejected", "cancelled")
    log.start(action)
    assert log.why == f"action {action} is rejected"


@pytest.mark.parametrize("when", ["while it runs", "when it is settled"])
@pytest.mark.parametrize("settlement", ["not_happened", "undone"])
def test_what_was_cancelled_is_not_tried_again_by_itself(log: Log, settlement: str, when: str) -> None:
    """It certainly did not happen, or was taken back: without the cancel the driver would try it again."""
    run = log.run()
    inference = log.infer(run, "a")
    action = log.doubtful(run, "a", inference=inference, call=0, effect="reversible", safe_undo=True)
    cancel = Cancel(intent=action, reason="wrong payee")
    if when == "while it runs":
        log.say(cancel)
    if settlement == "undone":
        log.recover(action, "undo")
        log.undone(action)
    else:
        log.recover(action, "not_happened")
    assert not log.why and log.run_state(run).is_waiting == (when == "when it is settled")
    if when == "when it is settled":
        log.say(cancel)
        assert not log.why
    assert log.status(action) in ("failed", "failed_final", "undone")
    step = driving.next_step(log.state, log.run_state(run), 2000)
    assert (step.verb, step.retry_of) == ("infer", 0)
    log.propose(run, "a", inference=inference, call=0, retry_of=action)
    assert log.why


def test_a_dry_run_starts_reads_only(log: Log) -> None:
    """In a dry run everything is voted on, and only reads start."""
    run = log.run(dry_run=True)
    act, read = log.propose(run), log.propose(run, effect="read")
    log.commit(act)
    log.commit(read)
    log.start(act)
    assert log.why == f"run {run} is a dry run"
    log.start(read)
    assert not log.why


# --- Result ---


def test_a_result_needs_a_start_by_the_same_incarnation(log: Log) -> None:
    """Only who started an attempt reports on it."""
    run = log.run()
    action = log.propose(run)
    log.commit(action)
    log.result(action, attempt=1)
    assert log.why == f"action {action} was never started"
    log.start(action, writer="a")
    log.result(action, writer="b")
    assert log.why == f"attempt 1 of action {action} was not started by this incarnation"
    log.result(action, writer="a", attempt=2)
    assert "attempt 2" in log.why
    log.result(action, writer="a")
    assert log.status(action) == "executed"
    log.result(99)
    assert log.why == "there is no open action 99"


def test_the_first_result_counts(log: Log) -> None:
    """A second result of an attempt is kept and changes nothing, and is no conflict if it is the same once more."""
    action = log.started(log.run())
    log.result(action, "one")
    log.result(action, "one")
    assert log.why == f"action {action} is executed already"
    assert not log.state.conflicts


@pytest.mark.parametrize("effect", STRICT)
def test_after_an_ambiguous_result_a_second_one_changes_nothing(log: Log, effect: str) -> None:
    """A timeout leaves a strict action in doubt; a later result of the same attempt does not settle it (it did)."""
    action = log.started(log.run(), effect=effect)
    log.result(action, error=ambiguous())
    assert log.status(action) == "in_doubt"
    log.result(action, "it worked")
    assert log.why == f"action {action} is in_doubt already"
    assert log.status(action) == "in_doubt"


@pytest.mark.parametrize("kind", sorted(acting.AMBIGUOUS))
@pytest.mark.parametrize("effect", ["read", "idempotent", "reversible", "irreversible"])
def test_what_an_ambiguous_failure_means(log: Log, kind: str, effect: str) -> None:
    """A failure that leaves the effect open is doubt for strict effects, a plain failure for mild ones."""
    action = log.started(log.run(), effect=effect)
    log.result(action, error=ambiguous(kind))
    assert log.status(action) == ("in_doubt" if effect in STRICT else "failed")
    assert (action in log.state.open_actions) == (effect in STRICT)


@pytest.mark.parametrize("kind", ["timeout", "failed"])
def test_a_definite_failure_is_never_doubt(log: Log, kind: str) -> None:
    """What certainly did not happen is failed, whatever its kind."""
    action = log.started(log.run())
    log.result(action, error=definite(kind))
    assert (log.status(action), log.action(action).happened) == ("failed", False)


def test_a_plain_failure_says_nothing_about_the_effect(log: Log) -> None:
    """An ordinary failure settles the action; whether it happened stays unknown."""
    action = log.started(log.run())
    log.result(action, error=Failure(kind="failed", message="boom"))
    assert (log.status(action), log.action(action).happened) == ("failed", None)


def test_a_late_success_after_a_settlement_is_a_conflict(log: Log) -> None:
    """It was settled as not happened, and then its old executor says that it did: shown, once."""
    action = log.doubtful(log.run())
    log.recover(action, "not_happened")
    log.result(action)
    assert log.why == f"action {action} is failed already: CONFLICT, it did happen"
    assert log.state.conflicts == [action]
    assert log.action(action).conflict
    log.result(action)
    assert "CONFLICT" not in log.why
    assert log.state.conflicts == [action]
    assert log.status(action) == "failed"


def test_a_late_definite_failure_after_a_settlement_is_a_conflict(log: Log) -> None:
    """It was settled as happened, and its old executor is sure that it did not (this was not shown)."""
    action = log.doubtful(log.run())
    log.recover(action, "happened")
    log.result(action, error=definite())
    assert log.why == f"action {action} is executed already: CONFLICT, it did not happen"
    assert log.state.conflicts == [action]


def test_a_late_result_that_agrees_is_no_conflict(log: Log) -> None:
    """It was settled as happened, and the late result says so too."""
    action = log.doubtful(log.run())
    log.recover(action, "happened")
    log.result(action)
    assert not log.state.conflicts


def test_a_late_result_of_an_undone_action_is_a_conflict(log: Log) -> None:
    """An undo that ran first does not cover an effect that comes later."""
    action = log.doubtful(log.run(), effect="reversible", undo=True, safe_undo=True)
    log.recover(action, "undo")
    log.undone(action)
    log.result(action)
    assert log.state.conflicts == [action]


def test_a_result_on_its_way_does_not_overtake_an_undo(log: Log) -> None:
    """Once the log says that it is taken back, it is not executed (it was, and the world had it undone)."""
    action = log.doubtful(log.run(), effect="reversible", undo=True, safe_undo=True)
    log.recover(action, "undo")
    assert not log.why
    log.recover(action, "undo")
    assert log.why == f"action {action} is being undone already"
    log.result(action)
    assert log.why == f"action {action} is being undone already"
    assert log.status(action) == "in_doubt"
    log.undone(action)
    assert log.status(action) == "undone"


@pytest.mark.parametrize(
    "more", [{"effect": "reversible", "undo": True}, {"effect": "irreversible", "undo": True, "safe_undo": True}]
)
def test_only_a_safe_undo_begins_in_doubt(log: Log, more: dict[str, Any]) -> None:
    """What may do harm where nothing happened is not done by a recoverer."""
    action = log.doubtful(log.run(), **more)
    log.recover(action, "undo")
    assert log.why == f"action {action} has no undo that is safe whether or not it happened"
    log.undone(action)
    assert log.status(action) == "in_doubt"


def test_an_earlier_attempt_of_a_mild_action_contradicts_nothing(log: Log) -> None:
    """The result of an attempt that was given up is late, and no conflict: doing it twice is doing it once."""
    action = log.started(log.run(), effect="idempotent", writer="a")
    log.recover(action, "restart")
    log.start(action, writer="b")
    log.result(action, attempt=1, writer="a")
    assert log.why == f"action {action} is executing already"
    log.result(action, attempt=2, writer="b")
    assert log.status(action) == "executed"
    log.result(action, attempt=1, writer="a", error=definite())
    assert not log.state.conflicts


def test_a_fenced_executors_result_still_says_what_happened(log: Log) -> None:
    """Fencing an executor does not make its effect unhappen: its result settles the doubt."""
    action = log.doubtful(log.run())
    log.result(action)
    assert log.status(action) == "executed"


# --- Recovery, Finding, Undone ---


def test_a_fence_puts_running_actions_in_doubt(log: Log) -> None:
    """Whoever takes over does not know what its predecessor's started actions came to."""
    run = log.run()
    running = log.started(run)
    done = log.started(run)
    log.result(done)
    log.fence()
    assert (log.status(running), log.status(done)) == ("in_doubt", "executed")
    assert [action.id for action in log.state.doubtful()] == [running]


@pytest.mark.parametrize("effect", MILD)
def test_a_mild_action_in_doubt_may_be_restarted(log: Log, effect: str) -> None:
    """Read and idempotent actions get a further attempt of the same intent."""
    action = log.doubtful(log.run(), effect=effect)
    log.recover(action, "restart")
    assert log.state.startable() == [log.action(action)]
    log.start(action)
    assert [attempt.number for attempt in log.action(action).attempts] == [1, 2]
    log.result(action)
    assert log.status(action) == "executed"


@pytest.mark.parametrize("effect", STRICT)
def test_a_strict_action_is_never_restarted(log: Log, effect: str) -> None:
    """No recovery gives a strict action a second attempt."""
    action = log.doubtful(log.run(), effect=effect)
    log.recover(action, "restart")
    assert log.why == f"action {action} ({effect}) is never restarted"
    log.start(action)
    assert log.why == f"action {action} is in_doubt"


def test_a_restart_is_allowed_once_for_each_attempt(log: Log) -> None:
    """The first recovery of an attempt counts; another of the same attempt does not add a further one."""
    action = log.doubtful(log.run(), effect="idempotent")
    log.recover(action, "restart")
    log.recover(action, "restart")
    assert "nothing to settle" in log.why
    log.start(action)
    log.recover(action, "restart", attempt=1)
    assert log.why == f"attempt 1 is not the present one of action {action}"
    log.start(action)
    assert log.why == f"action {action} is executing"


@pytest.mark.parametrize(
    ("settlement", "status", "happened"),
    [("happened", "executed", True), ("not_happened", "failed", False), ("superseded", "superseded", None)],
)
def test_how_a_doubt_is_settled(log: Log, settlement: str, status: str, happened: bool | None) -> None:
    """A recovery states the effect, or closes it as unknown; only the first counts."""
    action = log.doubtful(log.run())
    log.recover(action, settlement, reason="looked")
    state = log.action(action)
    assert (state.status, state.happened, state.reason) == (status, happened, "looked")
    assert action not in log.state.open_actions
    log.recover(action, "happened")
    assert "nothing to settle" in log.why


def test_a_recovery_needs_a_doubt_in_the_log(log: Log) -> None:
    """Nobody says of a running action that it happened or not, before a finding or a fence puts it in doubt."""
    action = log.started(log.run())
    log.recover(action, "not_happened")
    assert log.why == f"action {action} is executing, and nothing in the log says that its executor is gone"
    log.say(Finding(code="in_doubt", message="it is gone", cites=(action, 77)))
    assert log.action(action).reason == "it is gone"
    log.recover(action, "not_happened")
    assert log.status(action) == "failed"


def test_other_findings_put_nothing_in_doubt(log: Log) -> None:
    """Findings are for people, but for the one code that says doubt."""
    action = log.started(log.run())
    log.say(Finding(code="slow", message="hm", cites=(action,)))
    assert log.status(action) == "executing"


def test_what_did_not_happen_is_tried_again_as_a_new_intent(log: Log) -> None:
    """The call stays open for a retry, and the retry's end settles it."""
    run = log.run()
    inference = log.infer(run, "send")
    action = log.doubtful(run, inference=inference)
    log.recover(action, "not_happened")
    assert log.run_state(run).waiting_calls == [0]
    again = log.started(run, inference=inference, retry_of=action)
    done = log.result(again)
    assert log.run_state(run).context[-1] == done


@pytest.mark.parametrize(("settlement", "status"), [("skip", "skipped"), ("failed_final", "failed_final")])
def test_giving_up(log: Log, settlement: str, status: str) -> None:
    """A failed action may be given up, which settles its call; one that is open may not."""
    run = log.run()
    inference = log.infer(run, "send")
    action = log.doubtful(run, inference=inference)
    log.recover(action, settlement)
    assert log.why == f"action {action} is in_doubt, not failed"
    log.recover(action, "not_happened")
    given_up = log.recover(action, settlement)
    assert log.status(action) == status
    assert log.run_state(run).context[-1] == given_up
    log.recover(99, "skip")
    assert log.why == "there is no open action 99"


def test_an_undo_takes_an_action_back(log: Log) -> None:
    """An executed or doubtful action that was undone did not happen; what never ran cannot be undone."""
    run = log.run()
    done = log.started(run, effect="reversible")
    log.undone(done)
    assert log.why == f"action {done} is executing: nothing to undo"
    log.result(done)
    log.undone(done)
    assert log.why == f"no undo of action {done} was committed and is running here"
    assert log.status(done) == "executed"
    doubtful = log.doubtful(run, effect="reversible", undo=True, safe_undo=True)
    log.undone(doubtful)
    assert log.why == f"no undo of action {doubtful} was committed and is running here"
    log.recover(doubtful, "undo")
    log.undone(doubtful)
    assert (log.status(doubtful), log.action(doubtful).happened) == ("undone", False)
    log.undone(doubtful)
    assert log.why == f"action {doubtful} is undone: nothing to undo"
    log.undone(99)
    assert log.why == "there is no action 99"


def test_an_undo_that_failed_is_a_doubt(log: Log) -> None:
    """Half an undo leaves the action in doubt, open again, and a repeat of its old result does not hide that."""
    log.open_policy()
    run = log.run()
    action = log.started(run, effect="reversible", undo=True)
    log.result(action)
    log.started(run, undoes=action)
    log.undone(action, error=Failure(kind="failed", message="half"))
    assert log.status(action) == "in_doubt"
    assert action in log.state.open_actions
    log.result(action)
    assert log.status(action) == "in_doubt"


# --- cancel and stop amid an action ---


def test_a_running_action_is_asked_to_stop(log: Log) -> None:
    """A cancel of a running action is a wish; its result says what became of it."""
    action = log.started(log.run())
    log.say(Cancel(intent=action))
    assert not log.why
    assert (log.status(action), log.action(action).cancel_wanted) == ("executing", True)
    log.result(action)
    assert log.status(action) == "executed"


@pytest.mark.parametrize("how", ["action", "run", "log", "stop"])
def test_a_cancelled_action_is_not_started_a_second_time(log: Log, how: str) -> None:
    """Between a crash and the second attempt, a cancel or a stop holds (the attempt began all the same before)."""
    run = log.run()
    action = log.doubtful(run, effect="idempotent")
    log.recover(action, "restart")
    if how == "stop":
        log.control("stop")
    else:
        log.say(Cancel(intent=action) if how == "action" else Cancel(scope="log" if how == "log" else f"run:{run}"))
    assert not log.why
    assert (log.status(action), log.action(action).happened) == ("superseded", None)
    log.start(action)
    assert log.why == f"action {action} is superseded"


def test_what_was_cancelled_while_it_ran_is_not_restarted(log: Log) -> None:
    """After a cancel and a crash, no recovery gives the action a further attempt; it can be closed."""
    action = log.started(log.run(), effect="read")
    log.say(Cancel(intent=action))
    log.fence()
    log.recover(action, "restart")
    assert log.why == f"action {action} was cancelled or its run stopped: it is not restarted"
    log.recover(action, "superseded")
    assert log.status(action) == "superseded"


def test_what_ran_when_its_run_was_stopped_is_not_restarted(log: Log) -> None:
    """A run that was stopped starts nothing any more, not even a second attempt."""
    action = log.started(log.run(), effect="read")
    log.control("stop")
    log.fence()
    log.recover(action, "restart")
    assert "not restarted" in log.why


# --- letting go ---


def test_settled_actions_are_let_go_within_bounds(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of settled actions the latest stay, without their arguments; with ``keep`` all stay as they were."""
    monkeypatch.setattr(settling, "SETTLED_KEPT", 4)
    kept = Log(keep=True)
    kept.open_policy()
    for one in (log, kept):
        run = one.run()
        for place in range(12):
            one.result(one.started(run, arguments={"n": place}))
    assert len(log.state.actions) <= 8
    assert all(action.intent.arguments == {} for action in log.state.actions.values())
    assert len(kept.state.actions) == 12
    assert kept.action(max(kept.state.actions)).intent.arguments == {"n": 11}


def test_what_a_driver_has_yet_to_try_again_is_not_let_go(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action whose call waits for its retry stays, however much others do meanwhile (its run hung for ever)."""
    monkeypatch.setattr(settling, "SETTLED_KEPT", 2)
    run, other = log.run(), log.run()
    inference = log.infer(run, "send")
    action = log.doubtful(run, inference=inference)
    log.recover(action, "not_happened")
    for _ in range(20):
        log.result(log.started(other))
    assert action in log.state.actions
    log.propose(run, inference=inference, retry_of=action)
    assert not log.why


def test_an_open_action_is_never_let_go(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """An approval may wait for months."""
    monkeypatch.setattr(settling, "SETTLED_KEPT", 2)
    run = log.run()
    waiting = log.propose(run, arguments={"to": "x"})
    for _ in range(20):
        log.result(log.started(run))
    assert log.action(waiting).intent.arguments == {"to": "x"}


def test_recoveries_of_persons_carry_their_value(log: Log) -> None:
    """A recovery may bring the value that the action would have returned."""
    action = log.doubtful(log.run())
    log.say(
        Recovery(intent=action, attempt=1, settlement="happened", evidence="pat", value={"id": 3}), role="operator"
    )
    assert log.status(action) == "executed"
