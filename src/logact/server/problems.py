"""Which errors a server refuses with, and the HTTP status of each."""

from __future__ import annotations

from logact import errors
from logact.errors import LogActError, NotPermitted, TokenRefused, TooLarge, TooManyRequests, UsageError
from logact.server.names import BadLogName


class SlowBody(UsageError):
    """A request whose body did not come in time."""


class BlobMismatch(UsageError):
    """A blob under a digest that is not its own."""


REFUSALS: tuple[type[LogActError], ...] = (
    TokenRefused,
    NotPermitted,
    TooLarge,
    SlowBody,
    BadLogName,
    errors.ChainConflict,
)
"""What is written down as a refused attempt, since it may be one: a replayed or forged record among them."""

_STATUS: tuple[tuple[type[LogActError], int], ...] = (
    (SlowBody, 408),
    (BlobMismatch, 409),
    (TooLarge, 413),
    (UsageError, 400),
    (TokenRefused, 401),
    (NotPermitted, 403),
    (TooManyRequests, 429),
    (errors.BlobMissing, 404),
    (errors.LogMissing, 404),
    (errors.LogTrimmed, 410),
    (errors.ConditionFailed, 409),
    (errors.KeyConflict, 409),
    (errors.ChainConflict, 409),
    (errors.LogSealed, 409),
    (errors.LogFull, 507),
    (errors.LogError, 503),
)


def status_of(error: LogActError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


__all__ = ["REFUSALS", "BlobMismatch", "SlowBody", "status_of"]
