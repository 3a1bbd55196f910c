"""What an entry that is gone means: erased, unreadable, or lost with its whole record. Pure.

Two rules. Nothing new begins in a run with a hole: it is stopped, whoever looks. And what was written while the run
was whole keeps the effect that it had, as far as headers and what is left can tell; where they cannot, an action
that may have been started is in doubt, for a person. So a hole never turns "started" into "never happened".

The handlers in the other files ask ``State.torn`` where a precondition rests on what may be gone.
"""

from __future__ import annotations

from logact.core.settling import doubt, mark, pad, reject, settle
from logact.core.state import Action, RunState, State, circuit_key
from logact.entry import RECORD_ENTRIES_MAX, Abort, Cancel, Entry, Intent, Notice, Output, Payload, Started

MISSING = "missing"
"""The code of a notice (by an operator) that stands where a record was lost."""

REPAIRED = "repaired"
"""The code of the notice that ends a repair: what stands after it was written in the knowledge of the holes."""

LOST_KEPT = 10_000

HARMLESS = frozenset({"Spec", "Compaction", "Checkpoint", "Trim", "Seal", "Erased", "Mail", "Notice"})
"""Kinds that carry nothing that an action's life depends on."""


def tear(state: State, run: RunState, position: int) -> None:
    """Nothing of a run begins any more, not even a further attempt of what was lost. Nor does anything for the run
    whose sub-task it works on: whether the task is free may rest on what is gone."""
    run.hole = run.hole or position
    stop(run)
    run.context.extend(run.inbox)
    run.inbox = []
    for key in state.open_actions:
        if state.actions[key].intent.run == run.id:
            state.actions[key].restart_allowed = False
    plan = state.runs.get(run.parent)
    if plan is not None and plan.id < run.id:
        tear(state, plan, position)


def stop(run: RunState) -> None:
    """A run that would go on by itself is stopped instead."""
    if run.status == "running":
        run.status, run.ok = "stopped", False


def on_notice(state: State, entry: Entry, notice: Notice) -> str:
    """Lost records may have held anything, about every run that there was; the end of a repair closes the matter."""
    if entry.author.role != "operator":
        return ""
    if notice.code == MISSING:
        lose(state, entry.position)
        for run in state.runs.values():
            run.lost = entry.position
    elif notice.code == REPAIRED:
        state.lost = {}
    return ""


def lose(state: State, position: int) -> None:
    """From here to the end of a repair, what an entry rests on may be gone, whatever run it belongs to."""
    state.lost[position // RECORD_ENTRIES_MAX] = None
    if len(state.lost) > LOST_KEPT:
        del state.lost[next(iter(state.lost))]
    for run in state.runs.values():
        tear(state, run, position)


def erased(state: State, entry: Entry) -> tuple[str, Payload | None]:
    """Why an entry whose payload is gone has no effect, or the stand-in of its payload, which its header gives."""
    why = "its payload was erased"
    if entry.critical or (entry.kind == "Cancel" and not entry.action):
        state.halted = state.halted or f"{entry.kind} at position {entry.position}, whose payload was erased"
        lose(state, entry.position)
        return why, None
    if entry.kind in HARMLESS:
        return why, None
    action = known(state, entry, entry.action)
    run = _run_of(state, entry, action)
    if entry.kind == "Input" and run is not None and run.status == "running":
        return why, None  # it runs with or without it
    if run is not None:
        tear(state, run, entry.position)
    elif entry.kind not in ("Vote", "Result", "Recovery", "Undone"):
        for one in state.runs.values():
            tear(state, one, entry.position)
    if entry.kind == "Inference" and run is not None:
        run.turn, run.inference, run.calls = run.turn + 1, entry.position, {}
    elif entry.kind == "Intent":
        _stand_in(state, entry, entry.position)
    elif action is not None:
        return why, _said(state, entry, action)
    return why, None


def _run_of(state: State, entry: Entry, action: Action | None) -> RunState | None:
    if entry.kind == "Run":
        return _run_stand_in(state, entry, entry.position)
    return state.runs.get(entry.run or (action.intent.run if action is not None else 0))


def _said(state: State, entry: Entry, action: Action) -> Payload | None:
    """What the header of an erased entry about an action says; the payload that has the same effect, if one has."""
    mine = any(one.incarnation == entry.author.incarnation for one in action.attempts)
    if entry.kind == "Started":
        return Started(intent=action.id, attempt=len(action.attempts) + 1, epoch=state.epoch(action.intent.agent))
    if entry.kind == "Abort":
        return Abort(intent=action.id, reason="(erased)")
    if entry.kind == "Cancel":
        return Cancel(intent=action.id, reason="(erased)")
    if entry.kind == "Output":
        return Output(run=entry.run, intent=action.id, text="", ok=False)
    if entry.kind == "Commit" and action.status == "proposed":
        action.status, action.decided_at, action.reason = "validated", entry.position, "(erased)"
        mark(state, action, entry.position)
    elif entry.kind == "Expiry" and action.status in ("proposed", "validated"):
        reject(state, entry, action.id, "expired", "(erased)", started_too=True)
    elif entry.kind == "Undone" and action.status in ("executed", "in_doubt"):
        doubt(state, action, "what became of its undo was erased")
    elif entry.kind == "Result" and mine:
        state.circuits.pop(circuit_key(action.intent.agent, action.intent.tool), None)
        if action.status in ("executing", "in_doubt"):
            action.status, action.reason = "superseded", "its result was erased"
            settle(state, action, entry.position)
    return None


def run_of(state: State, entry: Entry, key: int) -> RunState | None:
    """The run that an entry speaks of; where its beginning was lost, a stand-in, stopped."""
    run = state.runs.get(key)
    if run is None and key // RECORD_ENTRIES_MAX in state.lost:
        run = _run_stand_in(state, entry, key)
    if run is not None and run.hole and not run.agent:
        run.agent = entry.agent
    return run


def _run_stand_in(state: State, entry: Entry, key: int) -> RunState:
    run = state.runs[key] = RunState(id=key, agent=entry.agent, started_ms=entry.time_ms)
    tear(state, run, entry.position)
    return run


def known(state: State, entry: Entry, key: int) -> Action | None:
    """The action that an entry speaks of. Where its intent was lost, a stand-in is made of the entry's header."""
    action = state.actions.get(key)
    if action is None and entry.kind in ("Started", "Result") and key // RECORD_ENTRIES_MAX in state.lost:
        return _stand_in(state, entry, key)
    return action


def _stand_in(state: State, entry: Entry, key: int) -> Action | None:
    """An action of which only headers are left: its arguments are gone, and the strictest effect is assumed."""
    if not entry.run or key in state.actions:
        return None
    if entry.run not in state.runs:
        _run_stand_in(state, entry, entry.run)
    tear(state, state.runs[entry.run], entry.position)
    intent = Intent(run=entry.run, agent=entry.agent, tool=entry.tool, reasoning="(what was proposed is gone)")
    action = Action(id=key, intent=intent, policy=state.policy_position(entry.agent), proposed_ms=entry.time_ms)
    state.actions[key] = action
    state.open_actions[key] = None
    state.runs[entry.run].actions += 1
    mark(state, action, entry.position)
    return action


def start_problem(state: State, action: Action, started: Started) -> str:
    """Why a start in a run with a hole certainly took no effect ("" if it may have). Makes room for the attempt.

    What it rested on may be gone (a commit, an epoch, a recovery that let it start again), and so may earlier
    attempts. It was written by an executor, so the effect may have happened.
    """
    repeatable = action.intent.effect in ("read", "idempotent")
    guessed = action.current is not None and not action.current.incarnation
    if action.status in ("executing", "in_doubt") and not action.restart_allowed and not guessed:
        if not repeatable or started.attempt <= len(action.attempts):
            return f"action {action.id} is {action.status}"
    elif action.status not in ("proposed", "validated", "rejected", "executing", "in_doubt"):
        return f"action {action.id} is {action.status}"
    if not 0 < started.attempt <= len(action.attempts) + RECORD_ENTRIES_MAX:
        return f"attempt {started.attempt} is not the next of action {action.id}"
    if guessed and action.attempts[-1].number == started.attempt:
        action.attempts.pop()
    if started.attempt > 1 and not repeatable:
        if action.intent.arguments_digest:
            return f"action {action.id} ({action.intent.effect}) is never restarted"
        # only what may happen twice is started twice: that is what its lost intent said
        action.intent = Intent(
            run=action.intent.run, agent=action.intent.agent, tool=action.intent.tool, effect="idempotent"
        )
    pad(action, started.attempt - 1, "", action.id)
    if started.attempt != len(action.attempts) + 1:
        return f"attempt {started.attempt} is not the next of action {action.id}"
    action.decided_at = action.decided_at or action.id
    action.happened, action.settled_at, action.code = None, 0, ""
    state.open_actions[action.id] = None
    return ""
