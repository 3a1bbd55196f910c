"""The fold of circuit breakers: counting, opening, one trial at a time, closing; and who was found hung."""

from __future__ import annotations

import pytest

from logact.core.breaking import Breaker, opening
from logact.core.machine import INCARNATIONS_KEPT, SILENT_KEPT
from logact.core.state import circuit_key
from logact.entry import Failure, Finding, Heartbeat, Notice, Result
from tests.core.build import Log, ambiguous, definite

GONE = Failure(kind="environment", message="no route", definite=True)
KEY = circuit_key("ann", "send")


def begun() -> tuple[Log, int]:
    """A log with a run under an open policy."""
    log = Log()
    log.open_policy()
    return log, log.run()


def failed(log: Log, action: int, until_ms: int = 0, *, failure: Failure = GONE, again: bool = False) -> None:
    """A failure of an action; it opens the circuit until then, if asked."""
    log.say(
        Result(
            intent=action,
            attempt=1,
            error=failure,
            shut_until_ms=until_ms,
            retry_at_ms=until_ms if again else 0,
        )
    )
    assert not log.why


def test_a_circuit_opens_and_an_answer_closes_it() -> None:
    """The state of the breaker is the fold of results; what the tool itself says means that it is there."""
    log, run = begun()
    for _ in range(2):
        failed(log, log.started(run, effect="idempotent"))
    assert log.state.circuits[KEY].failures == 2
    assert log.state.circuit(log.action(log.propose(run)).intent) is None
    failed(log, log.started(run, effect="idempotent"), 5000)
    assert (log.state.circuits[KEY].at > 0, log.state.circuits[KEY].delay_ms) == (True, 4000)
    failed(log, log.started(run, effect="idempotent"), failure=definite())
    assert log.state.circuits == {}


def test_what_says_nothing_of_the_environment_changes_nothing() -> None:
    """A timeout neither opens nor closes, but the trial is over."""
    log, run = begun()
    failed(log, log.started(run, effect="idempotent"), 5000)
    trial = log.started(run, effect="idempotent")
    assert log.state.circuits[KEY].trial == trial
    failed(log, trial, failure=ambiguous())
    circuit = log.state.circuits[KEY]
    assert (circuit.trial, circuit.failures, circuit.at > 0) == (0, 1, True)


def test_while_it_is_open_one_action_tries() -> None:
    """A second start of the tool takes no effect while the trial runs; other tools, and agents, are free."""
    log, run = begun()
    failed(log, log.started(run, effect="idempotent"), 5000)
    second = log.propose(run, effect="idempotent")
    log.commit(second)
    trial = log.started(run, effect="idempotent")
    log.start(second)
    assert log.why == f"the circuit of 'send' is open, and action {trial} tries whether it is back"
    log.started(run, "look", effect="read")
    log.started(log.run("bob"), "send", effect="read")
    log.result(trial)
    log.start(second)
    assert not log.why


def test_a_trial_that_is_in_doubt_holds_nobody_up() -> None:
    """What only a person can settle does not keep the tool shut."""
    log, run = begun()
    failed(log, log.started(run, effect="idempotent"), 5000)
    log.started(run)
    log.fence()
    log.started(run)
    assert not log.why


def test_openings_grow_and_end() -> None:
    """The delay doubles up to its limit; after ``wait_s`` the action is not tried again; unsafe ones never are."""
    log, run = begun()
    breaker = Breaker(failures=1, delay_s=1, delay_s_max=5, wait_s=100)
    seen = []
    for place in range(4):
        action = log.started(run, effect="idempotent")
        plan = opening(breaker, log.state, log.action(action), GONE, "idempotent", now_ms=1000)
        seen.append(plan.until_ms - 1000)
        assert plan.again
        failed(log, action, plan.until_ms, again=True)
        assert log.action(action).shut
        assert log.state.circuits[KEY].opened == place + 1
    assert seen == [1000, 2000, 4000, 5000]
    action = log.started(run, effect="idempotent")
    state = log.state
    assert not opening(breaker, state, log.action(action), GONE, "idempotent", now_ms=101_000).again
    maybe = Failure(kind="environment")
    assert not opening(breaker, state, log.action(action), maybe, "irreversible", now_ms=2000).again
    assert opening(breaker, state, log.action(action), maybe, "irreversible", now_ms=2000).until_ms
    assert opening(breaker, state, log.action(action), ambiguous(), "read", now_ms=2000) == (0, False)
    assert opening(None, state, log.action(action), GONE, "read", now_ms=2000) == (0, False)


def test_waiting_for_a_circuit_is_no_try_of_a_schedule() -> None:
    """An action that waited for its tool has all its retries left."""
    log, run = begun()
    log.infer(run, "send")
    inference = log.run_state(run).inference
    action = log.started(run, effect="idempotent", inference=inference)
    for _ in range(4):
        failed(log, action, 5000, again=True)
        action = log.started(run, effect="idempotent", inference=inference, retry_of=action)
    now = log.action(action)
    assert (now.retries, now.scheduled, now.waited) == (4, 4, 4)


def test_a_certain_failure_of_a_further_attempt_says_nothing_of_the_one_before() -> None:
    """The first attempt may have done it (it was said that it did not, and a retry got a new external key)."""
    log, run = begun()
    log.infer(run, "send")
    inference = log.run_state(run).inference
    action = log.started(run, effect="idempotent", inference=inference)
    log.recover(action, "restart")
    log.start(action, writer="other")
    log.say(Result(intent=action, attempt=2, error=GONE, retry_at_ms=2000), writer="other")
    assert not log.why
    assert (log.status(action), log.action(action).happened) == ("failed", None)
    again = log.propose(run, effect="idempotent", inference=inference, retry_of=action)
    assert log.action(again).key_of == action


def test_who_was_found_hung_begins_nothing_any_more() -> None:
    """What it runs is in doubt; its starts, intents and votes take no effect; what it reports still counts."""
    log, run = begun()
    log.say(Heartbeat(agent="ann", host="h", pid=1, lease_ms=1000), writer="old")
    action = log.started(run, effect="idempotent", writer="old")
    assert log.action(action).current.lease_ms == 0  # type: ignore[union-attr]
    log.say(Finding(code="hung", holder="old", message="silent", cites=(action,)))
    assert not log.why
    assert log.status(action) == "in_doubt"
    other = log.propose(run, effect="read")
    log.commit(other)
    log.start(other, writer="old")
    assert "was found hung at position" in log.why
    log.say(Notice(code="x", message="I am back"), writer="old")
    assert not log.why
    log.result(action, writer="old")
    assert not log.why
    assert log.status(action) == "executed"
    log.say(Finding(code="hung", holder="old", message="silent"))
    assert log.why.startswith("it is known since position")


@pytest.mark.parametrize("holder", ["nobody", "w"])
def test_nobody_is_found_hung_who_is_not_there(holder: str) -> None:
    """An unknown incarnation, and one that has left, cannot hang."""
    log, _ = begun()
    log.say(Heartbeat(leaving=True))
    log.say(Finding(code="hung", holder=holder, message="silent"), writer="x")
    assert log.why


def test_lives_that_never_said_goodbye_are_bounded() -> None:
    """Thousands of killed processes do not stay in the fold; one that was only idle may go on."""
    log, run = begun()
    action = log.started(run, writer="busy")
    log.fence(holder="holder")
    log.say(Heartbeat(agent="ann"), writer="holder")
    log.say(Heartbeat(agent="ann"), writer="idle")
    for number in range(SILENT_KEPT + INCARNATIONS_KEPT):
        log.say(Notice(code="x", message="here"), writer=f"life {number}")
    assert len(log.state.incarnations) <= SILENT_KEPT + 1
    assert log.state.forgotten > 0
    assert {"busy", "holder"} <= log.state.incarnations.keys()
    assert "idle" not in log.state.incarnations
    log.say(Heartbeat(agent="ann"), writer="idle")
    assert (log.why, log.state.broken) == ("", "")
    assert log.status(action) == "in_doubt"
