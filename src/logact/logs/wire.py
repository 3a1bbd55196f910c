"""What goes over the network between a served log and its clients: requests, answers, and errors as JSON.

Both sides use these shapes, and the server's description of itself (OpenAPI) is made from them. Records travel as
the bytes that they are (base 64), so that hashes and signatures hold from the author to the last reader. An error
travels as its row of ``logact.errors``: its code, whether it is definite, and its four texts.

This module does no I/O.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from logact.errors import InvariantViolated, LogActError, LogError, all_errors
from logact.logs.base import Condition

API = "/v1"
DRAFTS_MAX = 256
"""The most records in one request to append."""

WAIT_S_MAX = 60.0
"""The longest single wait for news."""

Number = Annotated[int, msgspec.Meta(ge=-1, le=2**53 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Digest = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{43}$")]


class WireBlob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A blob that goes along with a record: its digest (SHA-256, URL-safe base 64) and its bytes (base 64)."""

    digest: Digest
    data: bytes


class WireDraft(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One record to append: the encoded record (base 64), an optional condition, blobs that must be durable first."""

    body: bytes
    condition: Condition | None = None
    blobs: Annotated[list[WireBlob], msgspec.Meta(max_length=1000)] = []


class AppendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records to append; each succeeds or fails for itself."""

    drafts: Annotated[list[WireDraft], msgspec.Meta(min_length=1, max_length=DRAFTS_MAX)]


class WireError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error: see the table of errors. Indefinite (``definite`` false) means that it may have happened."""

    code: str
    definite: bool
    message: str
    received: str = ""
    expected: str = ""
    todo: str = ""


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every refused request is answered with."""

    error: WireError


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one record: its number and whether it is new, or its error."""

    record: int = 0
    fresh: bool = False
    error: WireError | None = None


class AppendAnswer(msgspec.Struct, frozen=True):
    """One outcome for each draft, in their order."""

    outcomes: list[Outcome]


class WireRecord(msgspec.Struct, frozen=True):
    """A stored record: its number and its bytes (base 64)."""

    record: int
    body: bytes


class RecordsAnswer(msgspec.Struct, frozen=True):
    """A page of records, the number up to which everything was looked at, and whether the log ended there."""

    records: list[WireRecord]
    upto: int
    end: bool = False


class You(msgspec.Struct, frozen=True):
    """What the server knows of who asks: it comes from the token, whatever the client says of itself."""

    token: str
    name: str
    roles: list[str]
    agents: list[str]
    voters: list[str]
    expires_ms: int
    relay: bool = False


class AboutAnswer(msgspec.Struct, frozen=True):
    """A log, the engine below it, and the rights of whoever asks."""

    log: str
    log_id: str
    tail: int
    engine: str
    survives: str
    record_bytes_max: int
    you: You


class NumberAnswer(msgspec.Struct, frozen=True):
    """The number of a record (0: none)."""

    record: int


class NewsAnswer(msgspec.Struct, frozen=True):
    """Whether something may have come, and the last record known."""

    news: bool
    record: int


class EraseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which payload to erase: the record's number, and the entry's place in it."""

    record: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    index: Annotated[int, msgspec.Meta(ge=0, le=999)]


class TrimRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first record to keep."""

    before: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class DoneAnswer(msgspec.Struct, frozen=True):
    """It is done, durably."""

    done: bool = True


_BY_CODE = {cls.code: cls for cls in all_errors() if cls is not InvariantViolated}


def told(error: LogActError) -> WireError:
    """An error as it goes over the wire."""
    received = error.received
    return WireError(
        code=error.code,
        definite=error.definite,
        message=error.message,
        received="" if received is None else received if isinstance(received, str) else repr(received),
        expected=error.expected,
        todo=error.todo,
    )


def raised(error: WireError, unknown: type[LogActError] = LogError) -> LogActError:
    """The error that the server raised, for this side to raise; ``unknown`` for a code that this version lacks.

    If the two sides disagree about a code's definiteness, ``unknown`` decides too: it must then be indefinite
    wherever the operation may have happened.
    """
    cls = _BY_CODE.get(error.code, unknown)
    if cls.definite != error.definite:
        cls = unknown
    return cls(error.message, received=error.received or None, expected=error.expected, todo=error.todo)


def encoded(value: Any) -> bytes:
    """JSON bytes."""
    return msgspec.json.encode(value)
