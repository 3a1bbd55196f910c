"""What people, voters and callers are shown of an action: a read-only view of the fold. Pure.

``LogEntry`` is the proposal with everything that became of it. It is a view: changing it changes nothing, and
its status is folded from the log each time.
"""

from __future__ import annotations

from typing import Any

import msgspec

from logact.core.state import Action as ActionState
from logact.core.state import State
from logact.entry import Effect, Failure, Intent, Vote


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent wants done: a tool and its arguments. ``effect`` is the tool's declared one."""

    tool: str
    arguments: dict[str, Any] = {}
    effect: Effect = "irreversible"
    reasoning: str = ""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A proposed action as the log knows it. ``position`` is its id; 0 while an inline voter is being asked.

    ``task`` is what the user asked for, ``memory`` the asking voter's own state (see ``Voter.observe``), ``result``
    what the action came to, where that was asked for (``execute_action``, ``look``, ``get_history``).
    """

    position: int
    agent_id: str
    action: Action
    intent: Intent
    status: str = "proposed"
    timestamp: int = 0
    run: int = 0
    task: str = ""
    votes: dict[str, Vote] = {}
    reason: str = ""
    hint: str = ""
    attempts: int = 0
    error: Failure | None = None
    state_before: str = ""
    state_after: str = ""
    retry_count: int = 0
    retry_at_ms: int = 0
    memory: Any = None
    result: Any = None


def named(intent: Intent) -> str:
    """The tool of an action, and of an undo what it takes back: they have the same tool and arguments."""
    return f"undo of {intent.undoes}: {intent.tool}" if intent.undoes else intent.tool


def log_entry(intent: Intent, *, position: int = 0, task: str = "", memory: Any = None) -> LogEntry:
    """The view of an intent that has no history yet."""
    return LogEntry(
        position=position,
        agent_id=intent.agent,
        action=Action(tool=intent.tool, arguments=intent.arguments, effect=intent.effect, reasoning=intent.reasoning),
        intent=intent,
        run=intent.run,
        task=task,
        state_before=intent.state_before,
        memory=memory,
    )


def view(state: State, action: ActionState, *, memory: Any = None) -> LogEntry:
    """The view of an action as the fold knows it."""
    run = state.runs.get(action.intent.run)
    return msgspec.structs.replace(
        log_entry(action.intent, position=action.id, task=run.title if run else "", memory=memory),
        status=action.status,
        timestamp=action.proposed_ms,
        votes=dict(action.votes),
        reason=action.reason,
        hint=action.hint,
        attempts=len(action.attempts),
        error=action.error,
        state_after=run.digest if run is not None and not action.is_open else "",
        retry_count=action.retries,
        retry_at_ms=action.retry_at_ms if not action.retried_by else 0,
    )
