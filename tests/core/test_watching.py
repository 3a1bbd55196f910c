"""Signals from the fold: loops, stalls, rising errors, budgets; each noticed once for each occurrence."""

from __future__ import annotations

from typing import Any

from logact.core.settling import ANSWER
from logact.core.watching import TRACE_KEPT, Thresholds, next_look_ms, signals, unnoticed
from logact.entry import Finding, Input, Limits
from tests.core.build import Log, call, definite

USUAL = Thresholds()


def begun(**limits: int) -> tuple[Log, int]:
    """A log with a run under an open policy."""
    log = Log()
    log.open_policy()
    return log, log.run(limits=Limits(**limits))


def done(log: Log, run: int, value: Any = "ok", **arguments: Any) -> int:
    """One executed action."""
    action = log.started(run, "look", arguments=arguments, effect="read")
    log.result(action, value)
    return action


def failed(log: Log, run: int, **arguments: Any) -> int:
    """One failed action."""
    action = log.started(run, "look", arguments=arguments, effect="read")
    log.result(action, error=definite())
    return action


def codes(log: Log, run: int, now_ms: int = 0) -> list[str]:
    """What is to be noticed and is not known yet."""
    return [one.code for one in unnoticed(log.state, log.run_state(run), USUAL, now_ms)]


def test_the_same_action_with_the_same_outcome_is_a_loop() -> None:
    """Five times the same call and the same answer; four are none."""
    log, run = begun()
    for _ in range(4):
        done(log, run, path="a")
    assert codes(log, run) == []
    done(log, run, path="a")
    (found,) = signals(log.state, log.run_state(run), USUAL, 0)
    assert found.code == "loop"
    assert len(found.cites) == 5
    assert "look was called 5 times" in found.message


def test_a_poll_whose_answer_changes_is_no_loop() -> None:
    """The same call with ever new answers brings something new."""
    log, run = begun()
    for step in range(20):
        done(log, run, f"{step} %", path="a")
    assert codes(log, run) == []


def test_the_same_call_between_work_that_goes_on_is_no_loop() -> None:
    """Looking at the same place between other steps is how work is done."""
    log, run = begun()
    for step in range(10):
        done(log, run, path="status")
        done(log, run, path=str(step))
    assert codes(log, run) == []


def test_two_calls_in_turn_are_a_loop() -> None:
    """A, B, A, B ... with the same outcomes is the same again and again."""
    log, run = begun()
    for _ in range(5):
        done(log, run, path="a")
        done(log, run, path="b")
    assert codes(log, run) == ["loop"]


def test_nothing_new_for_long_is_a_stall() -> None:
    """Twelve different failures in a row are no loop, and no progress; turns of broken calls count."""
    log, run = begun()
    for step in range(10):
        failed(log, run, path=str(step))
    assert codes(log, run) == ["errors"]
    for _ in range(2):
        log.infer(run, call("look", broken="what?"))
    assert codes(log, run) == ["stall", "errors"]


def test_errors_are_noticed_where_they_rise() -> None:
    """Six failures of the last ten, more than before; the same share for long is noticed once."""
    log, run = begun()
    for step in range(10):
        done(log, run, path=f"good {step}")
    for step in range(5):
        failed(log, run, path=f"bad {step}")
    assert codes(log, run) == []
    failed(log, run, path="bad 5")
    assert codes(log, run) == ["errors"]


def test_a_limit_that_comes_near_is_noticed() -> None:
    """Each limit by itself, with its share; time is an argument."""
    log, run = begun(actions=5, seconds=100)
    for step in range(4):
        done(log, run, path=str(step))
    (found,) = signals(log.state, log.run_state(run), USUAL, 1000)
    assert (found.code, found.key, found.message) == ("budget", "actions", "4 of 5 actions are used (80 %)")
    look_ms = next_look_ms(log.run_state(run), USUAL)
    keys = [one.key for one in signals(log.state, log.run_state(run), USUAL, look_ms)]
    assert keys == ["actions", "seconds"]
    assert [one.key for one in signals(log.state, log.run_state(run), USUAL, look_ms - 1001)] == ["actions"]


def test_a_finding_is_taken_once_for_each_occurrence() -> None:
    """The second finding of an occurrence takes no effect; after something new, a further loop is a further one."""
    log, run = begun()
    for _ in range(5):
        done(log, run, path="a")
    (found,) = signals(log.state, log.run_state(run), USUAL, 0)
    said = Finding(code=found.code, key=found.key, message=found.message, run=run)
    log.say(said)
    assert not log.why
    assert codes(log, run) == []
    log.say(said)
    assert log.why.startswith("it is known since position")
    done(log, run, path="a")
    assert codes(log, run) == []
    done(log, run, path="new")
    assert log.run_state(run).noticed == {}
    for _ in range(4):
        done(log, run, path="new")
    assert codes(log, run) == ["loop"]


def test_a_word_of_a_person_begins_the_count_anew() -> None:
    """After an input, or a resume, what came before is no sign any more."""
    for speak in ("input", "resume"):
        log, run = begun()
        for _ in range(5):
            done(log, run, path="a")
        if speak == "input":
            log.say(Input(run=run, text="try something else"))
        else:
            log.control("pause", f"run:{run}")
            log.control("resume", f"run:{run}")
        assert codes(log, run) == []
        assert log.run_state(run).trace == []


def test_a_run_that_ended_has_no_signals_and_keeps_nothing() -> None:
    """What was remembered goes with the run."""
    log, run = begun(actions=1)
    for _ in range(6):
        done(log, run, path="a")
    assert set(codes(log, run)) == {"loop", "budget"}
    action = log.propose(run, ANSWER, effect="read")
    log.commit(action)
    log.answer(run, action)
    assert log.run_state(run).status == "finished"
    assert log.run_state(run).trace == []
    assert codes(log, run) == []


def test_the_memory_of_a_run_is_bounded() -> None:
    """A long run remembers its last ends only."""
    log, run = begun()
    for step in range(TRACE_KEPT + 20):
        done(log, run, path=str(step))
    assert len(log.run_state(run).trace) == TRACE_KEPT


def test_a_threshold_of_zero_is_off() -> None:
    """Each signal can be switched off."""
    log, run = begun(actions=5)
    for _ in range(12):
        failed(log, run, path="a")
    off = Thresholds(repeats=0, idle=0, errors=0, budget=0)
    assert {one.code for one in signals(log.state, log.run_state(run), USUAL, 0)} == {
        "loop",
        "stall",
        "errors",
        "budget",
    }
    assert signals(log.state, log.run_state(run), off, 0) == []
