"""What an executor may start, under which number and key, and whether its own start took effect. Pure."""

from __future__ import annotations

import hashlib

from logact.core import acting
from logact.core.state import Action, State
from logact.entry import Intent, Started


def may_start(state: State, action: Action, incarnation: str, now_ms: int, *, anybody: bool = False) -> str:
    """Why this incarnation (or with ``anybody`` the one that holds the agent) may not start it now ("" if it may)."""
    if anybody:
        held = state.agents.get(action.intent.agent)
        incarnation = held.holder if held is not None else incarnation
    if state.halted:
        return f"the log holds something this version does not understand: {state.halted}"
    if state.broken:
        return f"the log does not verify: {state.broken}"
    run = state.runs.get(action.intent.run)
    if run is not None and run.hole:
        return f"run {run.id} has a hole at position {run.hole}"
    if action.status == "validated" and 0 < action.start_by_ms <= now_ms:
        return "it is too late to start"
    return acting.start_problem(state, action, incarnation, state.epoch(action.intent.agent))


def only_rehearsed(state: State, intent: Intent) -> bool:
    """Whether an action belongs to a dry run and would change something: it is voted on, and taken back."""
    run = state.runs.get(intent.run)
    return run is not None and run.dry_run and intent.effect != "read"


def start(state: State, action: Action, lease_ms: int = 0) -> Started:
    """The entry that starts the next attempt of an action."""
    return Started(
        intent=action.id,
        attempt=len(action.attempts) + 1,
        epoch=state.epoch(action.intent.agent),
        lease_ms=lease_ms,
    )


def external_key(log: str, action: int) -> str:
    """The idempotency key that a tool may hand to the outside world.

    Derived from the log's id and the action's: the same for every attempt, different in every fork.
    """
    return hashlib.sha256(f"logact {log} {action}".encode()).hexdigest()[:32]


def key_of(log: str, action: Action) -> str:
    """The external key of an action: of its own, or of the earlier try that may have happened."""
    return external_key(log, action.key_of or action.id)


def took_effect(state: State, action_id: int, attempt: int, incarnation: str) -> bool:
    """Whether this incarnation's start of this attempt is the one that counts, and may be acted on.

    What is not understood, or does not verify, may have come in front of the start while it was on its way.
    """
    action = state.actions.get(action_id)
    current = action.current if action is not None else None
    return (
        not state.halted
        and not state.broken
        and action is not None
        and action.status == "executing"
        and current is not None
        and current.number == attempt
        and current.incarnation == incarnation
    )
