"""What ``LogActAgent``'s calls return."""

from __future__ import annotations

from typing import Any

import msgspec

from logact.core.state import RunState
from logact.core.views import LogEntry
from logact.entry import Failure, Vote


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to: its text (and value, where a form was asked for), and whether it ended well.

    ``run`` is the run's id, ``position`` where the ``Output`` stands. ``ok`` is False if a limit ended it.
    """

    run: int
    text: str = ""
    value: Any = None
    ok: bool = True
    reason: str = ""
    position: int = 0


class ValidationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the votes came to: whether the action may run, who said what, and why it may not."""

    approved: bool
    votes: tuple[Vote, ...] = ()
    reason: str = ""
    hint: str = ""
    entry: LogEntry | None = None


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What running an action came to: its value, or why it failed or did not run."""

    success: bool
    result: Any = None
    error: str = ""
    failure: Failure | None = None
    entry: LogEntry | None = None


class AgentState(msgspec.Struct, frozen=True, kw_only=True):
    """The agent as its log has it: runs, open actions, and the digest of everything that it did in its last run."""

    agent: str
    position: int
    epoch: int
    runs: dict[int, RunState]
    open_actions: dict[int, str]
    digest: str

    def snapshot(self) -> str:
        """The digest: equal for equal histories."""
        return self.digest
