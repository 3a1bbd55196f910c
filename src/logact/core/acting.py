"""What starts, results, undos, outputs and recoveries mean, and when they take no effect. Pure."""

from __future__ import annotations

from logact.core import breaking, holes
from logact.core.settling import (
    ANSWER,
    close_turn,
    ended,
    mark,
    may_repeat,
    note_undone,
    pad,
    retriable,
    settle,
    settle_call,
)
from logact.core.state import Action, Attempt, CallState, State
from logact.core.watching import CODES, begin_anew, note_finding
from logact.entry import RECORD_ENTRIES_MAX, Entry, Failure, Finding, Output, Recovery, Result, Started, Undone

HUNG = "hung"
"""The code of a finding that an incarnation (``holder``) let its lease run out."""

FENCED_KEPT = 1000

AMBIGUOUS = frozenset({"timeout", "ambiguous", "cancelled", "crash"})
"""Failures after which the effect may have happened; for strict effects they leave the action in doubt."""


def on_started(state: State, entry: Entry, started: Started) -> str:
    action = holes.known(state, entry, started.intent)
    if action is None:
        return f"there is no open action {started.intent}"
    if state.torn(action.intent.run):
        why = holes.start_problem(state, action, started)
    else:
        why = start_problem(state, action, entry.author.incarnation, started.epoch)
    if why:
        return why
    if started.attempt != len(action.attempts) + 1:
        return f"attempt {started.attempt} is not the next of action {action.id}"
    attempt = Attempt(started.attempt, entry.author.incarnation, started.epoch, entry.position)
    attempt.lease_ms = started.lease_ms
    action.attempts.append(attempt)
    if state.circuits:
        breaking.on_start(state, action)
    action.status = "executing"
    action.restart_allowed = False
    mark(state, action, entry.position)
    return ""


def start_problem(state: State, action: Action, incarnation: str, epoch: int) -> str:
    """Why this incarnation may not start the action now, in this epoch ("" if it may)."""
    if not (action.status == "validated" or action.restart_allowed):
        return f"action {action.id} is {action.status}"
    held = state.agents.get(action.intent.agent)
    if held is not None:
        if epoch != held.epoch:
            return f"epoch {epoch} is over; it is {held.epoch}"
        if held.holder not in ("", incarnation) and not _has_left(state, held.holder):
            return f"another incarnation ({held.holder}) holds agent {action.intent.agent!r}"
    elif epoch:
        return f"epoch {epoch} was never opened"
    if action.cancel_wanted:
        return f"action {action.id} was cancelled"
    run = state.runs.get(action.intent.run)
    if run is None:
        return f"run {action.intent.run} ended too long ago"
    if run.dry_run and action.intent.effect != "read":
        return f"run {run.id} is a dry run"
    if run.status == "stopped":
        return f"run {run.id} was stopped"
    if incarnation in state.fenced:
        return f"incarnation {incarnation} was found hung at position {state.fenced[incarnation]}, and is fenced off"
    if state.circuits:
        why = breaking.start_problem(state, action)
        if why:
            return why
    return state.blocked(action)


def _has_left(state: State, incarnation: str) -> bool:
    """Whether a holder said goodbye: then the role is open, and parts may go on where a whole agent stopped."""
    life = state.incarnations.get(incarnation)
    return life is not None and life.left


def on_result(state: State, entry: Entry, result: Result) -> str:
    action = holes.known(state, entry, result.intent)
    if action is None:
        return f"there is no open action {result.intent}"
    if state.torn(action.intent.run):
        _note_lost_start(state, entry, action, result)
    current = action.current
    if current is None:
        return f"action {action.id} was never started"
    theirs = next((one for one in action.attempts if one.number == result.attempt), None)
    if theirs is None or theirs.incarnation != entry.author.incarnation:
        return f"attempt {result.attempt} of action {action.id} was not started by this incarnation"
    if action.status not in ("executing", "in_doubt") or theirs is not current or theirs.reported:
        return _late_result(state, action, theirs, result)
    if action.undo_begun:
        return f"action {action.id} is being undone already"
    theirs.reported = True
    error = result.error
    if state.circuits or result.shut_until_ms or (error is not None and error.kind == breaking.ENVIRONMENT):
        breaking.on_result(state, entry, action, result)
    action.error = error
    if error is None:
        action.status, action.happened = "executed", True
    elif error.definite:
        # of one attempt: an earlier one, of which nothing is known, may have done it
        action.status, action.happened = "failed", False if len(action.attempts) == 1 else None
    elif error.kind in AMBIGUOUS and action.intent.effect in ("reversible", "irreversible"):
        action.status, action.reason = "in_doubt", error.message
        return ""
    else:
        action.status = "failed"
    if action.status == "failed" and result.gave_up:
        action.status, action.reason = "failed_final", result.gave_up
    elif action.status == "failed" and result.retry_at_ms > 0 and may_repeat(action):
        action.retry_at_ms, action.shut = result.retry_at_ms, result.shut_until_ms > 0
        action.retry_delay_ms = max(0, result.retry_at_ms - entry.time_ms)
    settle(state, action, entry.position, result.state_after or error, result)
    return ""


def _note_lost_start(state: State, entry: Entry, action: Action, result: Result) -> None:
    """A result says who ran an attempt whose start was lost."""
    run = state.runs[action.intent.run]
    if (
        action.is_open
        and result.attempt == len(action.attempts) + 1
        and (run.lost > action.id or action.id // RECORD_ENTRIES_MAX in state.lost)
    ):
        pad(action, result.attempt, entry.author.incarnation, entry.position)
        action.status, action.restart_allowed = "executing", False
    current = action.current
    if current is not None and current.number == result.attempt and not current.incarnation:
        current.incarnation = entry.author.incarnation


def _late_result(state: State, action: Action, attempt: Attempt, result: Result) -> str:
    """A result after its action was settled otherwise: kept, and a conflict if it says something else."""
    said = f"action {action.id} is {action.status} already"
    if attempt.reported:
        return said  # the same result once more, after an append of unknown fate
    attempt.reported = True
    did = result.error is None and action.happened is False
    did_not = result.error is not None and result.error.definite and action.happened is True
    if not did and not (did_not and attempt is action.current):
        return said
    if not action.conflict:
        action.conflict = True
        state.conflicts.append(action.id)
    return f"{said}: CONFLICT, it {'did' if did else 'did not'} happen"


def on_undone(state: State, entry: Entry, undone: Undone) -> str:
    action = state.actions.get(undone.intent)
    doing = state.actions.get(state.undoing.get(undone.intent, 0))
    current = doing.current if doing is not None and doing.status == "executing" else None
    allowed = current is not None and current.incarnation == entry.author.incarnation
    if action is None:
        if not allowed:
            return f"there is no action {undone.intent}"
        note_undone(state, undone.intent, entry.position)
        return ""
    if action.status not in ("executed", "in_doubt"):
        return f"action {action.id} is {action.status}: nothing to undo"
    if not allowed and not action.undo_begun:
        return f"no undo of action {action.id} was committed and is running here"
    if undone.error is not None:
        action.status, action.error = "in_doubt", undone.error
        state.open_actions[action.id] = None
        return ""
    action.status, action.happened, action.undone_by = "undone", False, entry.position
    settle(state, action, entry.position)
    return ""


def on_output(state: State, entry: Entry, output: Output) -> str:
    run = state.runs.get(output.run)
    action = state.actions.get(output.intent)
    if run is None or action is None or action.intent.tool != ANSWER or action.intent.run != output.run:
        return "an output belongs to a committed answer of its run"
    if action.status not in ("executing", "executed"):
        return f"the answer {action.id} is {action.status}"
    if run.status != "running" and not run.hole:
        return f"run {run.id} is {run.status}"
    run.status = "finished"
    run.output, run.ok = entry.position, output.ok
    begin_anew(run)
    more = bool(run.inbox)
    if run.is_waiting:
        run.calls = {
            index: CallState(call.action, call.settled_at or entry.position) for index, call in run.calls.items()
        }
        close_turn(run)
    if more:  # somebody wrote while the answer was on its way: the conversation goes on
        run.status = "running"
    return ""


def on_recovery(state: State, entry: Entry, recovery: Recovery) -> str:
    action = state.actions.get(recovery.intent)
    said = recovery.settlement in ("happened", "not_happened", "superseded")
    if said and recovery.intent in state.conflicts and entry.author.role == "operator":
        return _decide_conflict(state, entry, action, recovery)
    if action is None:
        return f"there is no open action {recovery.intent}"
    if recovery.settlement in ("skip", "failed_final"):
        if action.status not in ("failed", "rejected", "undone"):
            return f"action {action.id} is {action.status}, not failed"
        if action.retried_by:
            return f"action {action.id} was tried again, as {action.retried_by}"
        action.status = "skipped" if recovery.settlement == "skip" else "failed_final"
        action.reason = recovery.reason or action.reason
        settle_call(state, action, entry.position)
        return ""
    if action.status not in ("executing", "in_doubt") or action.restart_allowed:
        return f"action {action.id} is {action.status}: nothing to settle"
    if recovery.attempt != len(action.attempts):
        return f"attempt {recovery.attempt} is not the present one of action {action.id}"
    if recovery.settlement == "restart":
        if action.intent.effect not in ("read", "idempotent"):
            return f"action {action.id} ({action.intent.effect}) is never restarted"
        if ended(state, action):
            return f"action {action.id} was cancelled or its run stopped: it is not restarted"
        action.restart_allowed = True
        return ""
    if action.status != "in_doubt":
        return f"action {action.id} is executing, and nothing in the log says that its executor is gone"
    if recovery.settlement == "undo":
        if action.intent.effect != "reversible" or not action.intent.safe_undo:
            return f"action {action.id} has no undo that is safe whether or not it happened"
        if action.undo_begun:
            return f"action {action.id} is being undone already"
        action.undo_begun, action.reason = True, recovery.reason or action.reason
        return ""
    action.reason = recovery.reason
    if recovery.settlement == "happened":
        action.status, action.happened = "executed", True
        if action.intent.undoes:  # what happened is an undo
            target = state.actions.get(action.intent.undoes)
            if target is None:
                note_undone(state, action.intent.undoes, entry.position)
            elif target.status == "executed":
                target.status, target.happened, target.undone_by = "undone", False, entry.position
    elif recovery.settlement == "not_happened":
        action.status, action.happened = "failed", False
        kind, message = "not_happened", recovery.reason or "it did not happen"
        if action.cancel_wanted:
            kind, message = "cancelled", f"it was cancelled, and did not happen ({message})"
        action.error = Failure(kind=kind, message=message, definite=True)
    else:
        action.status, action.happened = "superseded", None
    settle(state, action, entry.position)
    return ""


def _decide_conflict(state: State, entry: Entry, action: Action | None, recovery: Recovery) -> str:
    """A person says what is true where a late result contradicts the settlement. What happened can be undone then."""
    state.conflicts.remove(recovery.intent)
    if action is None:
        return ""  # it was let go; the log has its story
    action.conflict, action.reason = False, recovery.reason
    if recovery.settlement == "happened":
        action.status, action.happened, action.undone_by = "executed", True, 0
    elif recovery.settlement == "not_happened":
        action.status, action.happened = "failed_final" if action.status == "executed" else action.status, False
    else:
        action.status, action.happened = "superseded", None
    mark(state, action, entry.position)
    if not retriable(action):
        settle_call(state, action, entry.position)  # where its driver had not gone on yet
    return ""


def on_finding(state: State, entry: Entry, finding: Finding) -> str:
    if finding.code in CODES:
        return note_finding(state, entry, finding)
    if finding.code == HUNG:
        return _fence_off(state, entry, finding)
    if finding.code != "in_doubt":
        return ""
    for key in finding.cites:
        action = state.actions.get(key)
        if action is not None and action.status == "executing" and not action.restart_allowed:
            action.status = "in_doubt"
            action.reason = finding.message
        elif action is not None and action.undo_begun:
            action.reason = finding.message  # why it does not go on
    return ""


def _fence_off(state: State, entry: Entry, finding: Finding) -> str:
    """An incarnation was found hung: nothing that it begins takes effect any more, and what it runs is in doubt."""
    life = state.incarnations.get(finding.holder)
    if life is None:
        return f"incarnation {finding.holder!r} is not known"
    if life.left:
        return f"incarnation {finding.holder} has left already"
    if finding.holder in state.fenced:
        return f"it is known since position {state.fenced[finding.holder]}"
    state.fenced[finding.holder] = entry.position
    if len(state.fenced) > FENCED_KEPT:
        del state.fenced[next(iter(state.fenced))]
    for key in state.open_actions:
        action = state.actions[key]
        mine = action.current is not None and action.current.incarnation == finding.holder
        if mine and action.status == "executing" and not action.restart_allowed:
            action.status, action.reason = "in_doubt", finding.message
    return ""
