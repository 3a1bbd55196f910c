"""What goes into a tool besides its arguments, and what comes out besides its value.

The context of a call, the answer of a probe, the error of a tool, an image as a result.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from logact.entry import Failure
from logact.env_guest import said
from logact.errors import ArgumentError, LogActError, ToolDefinitionError, UsageError

FailureKind = Literal["transient", "permanent", "ambiguous", "environment", "timeout", "cancelled", "failed"]
"""``transient``: may work later. ``permanent``: never with these arguments. ``ambiguous``: nobody can tell whether
it happened. ``environment``: something around the tool is missing. ``failed``: anything else."""


class ToolContext(msgspec.Struct, frozen=True):
    """Which action a call belongs to. A parameter with this type is filled in, and not shown to the model.

    ``run`` and ``action`` are positions in the log. ``key`` is the external idempotency key: the same for all
    attempts of one intent, different for everything else; pass it on to services that take one. ``epoch`` is
    the fencing token: a service that has seen a greater one should refuse. ``attempt`` counts from 1.
    """

    agent: str = ""
    run: int = 0
    action: int = 0
    attempt: int = 1
    key: str = ""
    epoch: int = 0
    log: str = ""


class ProbeAnswer(msgspec.Struct, frozen=True):
    """Whether an effect happened: True, False, or None where the probe cannot tell.

    ``value`` is what the call would have returned, where the probe can rebuild it.
    """

    happened: bool | None
    value: Any = None
    detail: str = ""


class ImageResult(msgspec.Struct):
    """A tool's result that is an image; the bytes are stored as a blob. ``text`` goes along with it."""

    data: bytes
    media_type: str
    text: str = ""


class ToolError(Exception):
    """What a tool raises to say how it failed.

    ``definite=True`` states that the effect *certainly* did not happen; an irreversible action may then be
    tried again. Leave it False in any doubt. ``retry_after_s`` is the delay that a service asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind = "failed",
        definite: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.definite = definite
        self.retry_after_s = retry_after_s

    @property
    def failure(self) -> Failure:
        """The error as an entry holds it."""
        return Failure(kind=self.kind, message=str(self), definite=self.definite, retry_after_s=self.retry_after_s)


def failure_of(error: BaseException) -> Failure:
    """Any exception of a tool as an entry holds it. Definite only where the error itself says so.

    An ordinary exception says nothing about how far the tool had come, so it is never definite.
    """
    if isinstance(error, ToolError):
        return error.failure
    message = said(error)
    if isinstance(error, ArgumentError | ToolDefinitionError):
        return Failure(kind="permanent", message=str(error), definite=True)
    if isinstance(error, UsageError):
        return Failure(kind="environment", message=str(error), definite=False)
    if isinstance(error, asyncio.CancelledError):
        return Failure(kind="cancelled", message="cancelled while it ran")
    if isinstance(error, TimeoutError):
        return Failure(kind="timeout", message=message)
    if isinstance(error, ConnectionError):
        return Failure(kind="transient", message=message)
    if isinstance(error, LogActError):
        return Failure(kind="failed", message=str(error))
    return Failure(kind="failed", message=message)
