"""Every error of LogAct, in one table: what it means, whether it is definite, and what to do.

A *definite* error says that the operation certainly did not happen. An *indefinite* one says that nobody
knows: the entry may be in the log now, may arrive later, or never. Whoever catches an indefinite error has
to look at the log before doing anything else. ``docs/errors.md`` is generated from this module.

This module raises nothing and imports nothing of LogAct.
"""

from __future__ import annotations

from typing import ClassVar


class LogActError(Exception):
    """The root of all errors that LogAct raises on purpose.

    ``code`` is stable and machine-readable, ``definite`` tells whether the operation certainly did not
    happen, and ``exit_code`` is what the command line returns for it.
    """

    code: ClassVar[str] = "error"
    definite: ClassVar[bool] = True
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, received: object = None, expected: str = "", todo: str = "") -> None:
        parts = [message.rstrip(".")]
        if received is not None:
            parts.append(f"received {received!r}" if not isinstance(received, str) else f"received {received}")
        if expected:
            parts.append(f"expected {expected}")
        text = "; ".join(parts)
        if todo:
            text += f". {todo[0].upper()}{todo[1:]}"
        super().__init__(text)
        self.message = message
        self.received = received
        self.expected = expected
        self.todo = todo


# --- usage: the caller gave something that cannot be used ---------------------------------------------


class UsageError(LogActError):
    """An argument, option or call that cannot be used as given."""

    code = "usage"
    exit_code = 2


class SpecError(UsageError):
    """A specification or policy file that cannot be read, names unknown things, or contradicts itself."""

    code = "spec"


class UnknownLogUrl(UsageError):
    """A log URL whose scheme no installed engine serves."""

    code = "unknown_log_url"


class MissingExtra(UsageError):
    """A feature whose optional dependency is not installed; the message names the exact ``pip install``."""

    code = "missing_extra"


class ToolDefinitionError(UsageError):
    """A tool that cannot be offered to a model: no types, no name, an unknown effect."""

    code = "tool_definition"


class ArgumentError(UsageError):
    """Arguments that do not fit the tool's schema. Raised before an intent is written."""

    code = "arguments"


class TooLarge(UsageError):
    """A value over a documented limit. Nothing was written."""

    code = "too_large"


class SecretInArguments(UsageError):
    """A literal secret where ``secret://name@version`` is required. Nothing was written."""

    code = "secret_in_arguments"


# --- the log ------------------------------


class LogError(LogActError):
    """The log could not do what was asked."""

    code = "log"
    exit_code = 5


class LogUnavailable(LogError):
    """The log cannot be reached or opened; the operation was not begun. Nothing acts without a log."""

    code = "log_unavailable"


class LogMissing(LogUnavailable):
    """There is no log of this name, and whoever asked makes none; nothing was begun."""

    code = "log_missing"


class TooManyRequests(LogUnavailable):
    """A served log asks its client to slow down; nothing was begun. Wait, then repeat."""

    code = "too_many_requests"


class AccessRefused(LogError):
    """A served log does not let this client do what it asks. Nothing was done; another try fares no better."""

    code = "access_refused"


class TokenRefused(AccessRefused):
    """A served log does not know the token, or it has expired or was revoked. Nothing was done."""

    code = "token_refused"


class NotPermitted(AccessRefused):
    """The token's role or scope does not allow this. Nothing was done, and the attempt is in the log."""

    code = "not_permitted"


class AppendUnknown(LogError):
    """The append may or may not have happened; repeat it byte for byte, or read the log."""

    code = "append_unknown"
    definite = False


class ReadFailed(LogError):
    """A read failed. It says nothing about what is in the log: never treat it as an absence."""

    code = "read_failed"


class ConditionFailed(LogError):
    """The append's condition did not hold: something relevant came in between. Fold again and retry."""

    code = "condition_failed"


class KeyConflict(LogError):
    """The idempotency key was used before, with other content. Nothing was written."""

    code = "key_conflict"


class ChainConflict(LogError):
    """Another writer uses this incarnation's chain, or its memory is behind what the log holds."""

    code = "chain_conflict"


class LogSealed(LogError):
    """The log's segment is sealed; the log goes on elsewhere."""

    code = "log_sealed"


class LogTrimmed(LogError):
    """The position lies before the first one that is kept."""

    code = "log_trimmed"


class LogFull(LogError):
    """The disk or quota is full. The append certainly did not happen."""

    code = "log_full"


class LogReadOnly(LogError):
    """The file or directory cannot be written. The append certainly did not happen."""

    code = "log_read_only"


class LogLocked(LogError):
    """Another process held the log for longer than the time limit. The append certainly did not happen."""

    code = "log_locked"


SALVAGE = (
    "restore a backup, or see with `logact log verify` how far the log can be trusted; `logact log repair` "
    "salvages what can be read of a file"
)
"""What to do about a damaged log."""


class LogCorrupt(LogError):
    """The stored bytes are damaged: a broken page, digest or chain. LogAct refuses to act on such a log."""

    code = "log_corrupt"
    exit_code = 3


class LogTooNew(LogError):
    """The file was written by a newer version of LogAct than this one. Nothing was changed."""

    code = "log_too_new"


class BlobMissing(LogError):
    """A blob that an entry names is not in the store."""

    code = "blob_missing"


class ReadOnlyIncarnation(LogError):
    """A critical entry of an unknown kind or version stands in the log: this version may read, not act."""

    code = "must_understand"


# --- running an agent ------------------------------


class AgentError(LogActError):
    """The agent cannot go on."""

    code = "agent"


class AgentBusy(AgentError):
    """Another live process plays this agent on this log."""

    code = "agent_busy"
    exit_code = 2


class Fenced(AgentError):
    """A newer holder took over this role; this process must stop acting."""

    code = "fenced"
    exit_code = 7


class RunFinished(AgentError):
    """The run is over; start a new one, or send a further message to continue the conversation."""

    code = "run_finished"
    exit_code = 2


class RunPaused(AgentError):
    """The run, agent or log is paused. Nothing is lost; resume it."""

    code = "run_paused"
    exit_code = 7


class RunStopped(AgentError):
    """The run, agent or log was stopped by a control entry."""

    code = "run_stopped"
    exit_code = 7


class WaitingForApproval(AgentError):
    """The run waits for people to approve an action. Nothing is lost; approve or deny it, then run again."""

    code = "waiting_for_approval"
    exit_code = 8


class InDoubt(AgentError):
    """An action was started and nobody can tell whether it happened. A person has to settle it."""

    code = "in_doubt"
    definite = False
    exit_code = 4


class LimitReached(AgentError):
    """A turn, token, action or time limit of the run was reached."""

    code = "limit_reached"


class SupervisionFailed(AgentError):
    """A part under a supervisor cannot run, or parts ended too often in too short a time; all were stopped."""

    code = "supervision_failed"


class ActionRejected(AgentError):
    """The action was not committed, so it did not run; the reason is in the log."""

    code = "action_rejected"


class ActionFailed(AgentError):
    """The action ran and failed."""

    code = "action_failed"


# --- models ------------------------------


class ModelError(LogActError):
    """The model gave no usable answer."""

    code = "model"
    exit_code = 6
    retried: tuple[object, ...] = ()  # the errors before this one, as entries hold them (``entry.Retried``)


class ModelUnavailable(ModelError):
    """The provider could not be reached, timed out, or answered with a server error; retries are used up."""

    code = "model_unavailable"


class ModelRateLimited(ModelError):
    """The provider asks to wait; ``retry_after_s`` holds its own delay where it gave one."""

    code = "model_rate_limited"

    def __init__(self, message: str, *, retry_after_s: float | None = None, **more: str) -> None:
        super().__init__(message, **more)
        self.retry_after_s = retry_after_s


class ModelRefused(ModelError):
    """The provider refused the request for good: a wrong key, an unknown model, a context that is too long."""

    code = "model_refused"


class ModelNonsense(ModelError):
    """The provider's answer could not be read."""

    code = "model_nonsense"


# --- invariants ------------------------------


class InvariantViolated(LogActError):
    """A property that must always hold did not. This is a defect of LogAct or of the log; it stops acting."""

    code = "invariant"
    exit_code = 70

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


def all_errors() -> list[type[LogActError]]:
    """Every error class, parents before children, in the order of this file."""
    found: list[type[LogActError]] = []

    def visit(cls: type[LogActError]) -> None:
        found.append(cls)
        for child in cls.__subclasses__():
            if child.__module__ == __name__:
                visit(child)

    visit(LogActError)
    return found
