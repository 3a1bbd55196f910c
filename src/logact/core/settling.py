"""How an action ends: closed, counted, its call settled, its run's digest advanced, and old ones let go.

All other parts of the fold end actions through here, so that an end means the same everywhere. Pure.
"""

from __future__ import annotations

import hashlib

import msgspec

from logact.core.state import Action, Attempt, RunState, State
from logact.core.watching import note_end
from logact.entry import Entry, Intent, Result

SETTLED_KEPT = 256

UNDONE_KEPT = 10_000

REJECTIONS = frozenset({"rejected", "repeated"})
"""Codes of aborts that say what the same action would meet again."""

REJECTIONS_KEPT = 256

RETRIED_CODES = frozenset({"policy_changed"})
"""Codes of aborts after which the driver proposes the same action again under the new circumstances."""

ANSWER = "answer"
"""The tool name of a run's final answer: proposed, voted on and committed like any other action."""


def scopes_of(intent: Intent) -> tuple[str, ...]:
    """The scopes in which an intent counts for votes that depend on history."""
    return ("log", f"agent:{intent.agent}", f"run:{intent.run}", f"tool:{intent.tool}")


def mark(state: State, action: Action, position: int) -> None:
    for scope in scopes_of(action.intent):
        state.scopes[scope] = position


def reject(
    state: State, entry: Entry, key: int, code: str, reason: str, *, hint: str = "", started_too: bool = False
) -> str:
    action = state.actions.get(key)
    if action is None:
        return f"there is no open action {key}"
    if action.status != "proposed" and not (started_too and action.status == "validated"):
        return f"action {action.id} is {action.status} already"
    run = state.runs.get(action.intent.run)
    if run is not None and run.lost > action.id:
        pad(action, 1, "", run.lost)
        doubt(state, action, f"it may have been started in what was lost at position {run.lost} ({reason})")
        action.cancel_wanted = True
        return ""
    action.status = "rejected"
    action.decided_at = action.decided_at or entry.position
    action.code, action.reason, action.hint = code, reason, hint
    action.happened = False
    if run is not None and code == "expired":
        run.expired += 1
    if run is not None and code in REJECTIONS and action.intent.arguments_digest:
        seen = rejection_key(action.policy, action.intent)
        run.rejected[seen] = run.rejected.get(seen, 0) + 1
        if len(run.rejected) > REJECTIONS_KEPT:
            del run.rejected[next(iter(run.rejected))]
    settle(state, action, entry.position)
    return ""


def rejection_key(policy: int, intent: Intent) -> str:
    """Under what a run counts how often the same action was rejected; a new policy begins to count anew."""
    return f"{policy} {intent.tool} {intent.arguments_digest}"


def give_up(state: State, entry: Entry, action: Action, why: str) -> None:
    """An attempt was lost, and the next will never be: whether it happened stays unknown."""
    if state.torn(action.intent.run):  # the next may have begun
        action.restart_allowed, action.cancel_wanted = False, True
        doubt(state, action, why)
        return
    action.status, action.happened, action.reason = "superseded", None, f"not started again: {why}"
    settle(state, action, entry.position)


def doubt(state: State, action: Action, why: str) -> None:
    """What became of an action is gone from the log: a person has to say."""
    action.status, action.happened, action.reason, action.settled_at = "in_doubt", None, why, 0
    state.open_actions[action.id] = None


def pad(action: Action, upto: int, incarnation: str, position: int) -> None:
    """Attempts that must or may have been, of which the log shows no start ("": by whom is unknown)."""
    for number in range(len(action.attempts) + 1, upto + 1):
        action.attempts.append(Attempt(number, incarnation, 0, position))
    action.decided_at = action.decided_at or position


def settle(state: State, action: Action, position: int, detail: object = "", result: Result | None = None) -> None:
    """An action reached an end: close it, advance its run's digest, settle its call, and let old ones go."""
    action.settled_at = position
    action.restart_allowed = action.undo_begun = False
    state.open_actions.pop(action.id, None)
    if action.intent.undoes and state.undoing.get(action.intent.undoes) == action.id:
        del state.undoing[action.intent.undoes]
    mark(state, action, position)
    run = state.runs.get(action.intent.run)
    if run is not None:
        if action.code != "expired":
            run.expired = 0
        run.last = position
        run.digest = chained(run.digest, f"{action.id} {action.status} {action.intent.arguments_digest} {detail}")
        if final(action):
            settle_call(state, action, position)
        if not retriable(action) and (action.intent.tool != ANSWER or action.status != "executed"):
            note_end(run, action, result)
    if not state.keep:
        action.votes = {}
        if action.status != "failed":
            action.intent = msgspec.structs.replace(action.intent, arguments={}, reasoning="", pins=())
        if len(state.actions) - len(state.open_actions) > 2 * SETTLED_KEPT:
            old = [
                key
                for key, one in state.actions.items()
                if key not in state.open_actions and not _awaited(state, one)
            ]
            for key in old[:SETTLED_KEPT]:
                del state.actions[key]


def _awaited(state: State, action: Action) -> bool:
    """Whether a driver has yet to try a settled action again, or to give it up."""
    run = state.runs.get(action.intent.run)
    if run is None or action.intent.inference != run.inference:
        return False
    call = run.calls.get(action.intent.call)
    return call is not None and not call.settled_at and call.action == action.id


def final(action: Action) -> bool:
    """Whether the model may be shown this end of the call.

    Not what certainly did not happen because of a crash, an undo or a changed policy: the driver tries it again
    (or gives it up by a ``Recovery``). Not a released answer either: its ``Output`` ends the turn.
    """
    return not retriable(action) and not (action.intent.tool == ANSWER and action.status == "executed")


def retriable(action: Action) -> bool:
    """Whether the driver itself tries the action again, as a new intent, without asking the model."""
    if action.cancel_wanted:
        return False
    if action.status == "undone":
        return True
    if action.status == "failed":
        return action.retry_at_ms > 0 or (action.error is not None and action.error.kind == "not_happened")
    return action.status == "rejected" and action.code in RETRIED_CODES


def ended(state: State, action: Action) -> bool:
    """Whether nothing of an action may begin any more: it was cancelled, or its run was stopped."""
    run = state.runs.get(action.intent.run)
    return action.cancel_wanted or run is None or run.status == "stopped" or run.hole > 0


def settle_call(state: State, action: Action, position: int) -> None:
    run = state.runs.get(action.intent.run)
    if run is None or action.intent.inference != run.inference:
        return
    call = run.calls.get(action.intent.call)
    if call is not None and not call.settled_at and call.action == action.id:
        call.settled_at = position
        close_turn(run)


def close_turn(run: RunState) -> None:
    """When every call of the turn is settled: the turn's results join the context in call order, then the inbox."""
    if run.is_waiting:
        return
    settled = [call.settled_at for call in run.calls.values() if call.settled_at != run.inference]
    run.context.extend(settled)
    run.context.extend(run.inbox)
    run.inbox = []


def note_undone(state: State, target: int, position: int) -> None:
    """Remember that an action was undone that the fold does not hold any more."""
    state.undone[target] = position
    if len(state.undone) > UNDONE_KEPT:
        del state.undone[next(iter(state.undone))]


def chained(first: str, second: str) -> str:
    return hashlib.sha256(f"{first}\n{second}".encode()).hexdigest()


def may_repeat(action: Action) -> bool:
    """Whether doing it (again) is harmless: by its effect, or since it certainly did not happen."""
    return action.intent.effect in ("read", "idempotent") or action.happened is False
