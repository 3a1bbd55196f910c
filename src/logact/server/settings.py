"""The limits of one server: their defaults, what each may be, and what it means. Needs no web packages.

``logact serve --limit NAME=VALUE`` sets them, docs/server.md lists them (a test compares), ``limits`` applies them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from logact.errors import UsageError

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one server allows. Rates are sustained per second; bursts are ten seconds' worth."""

    requests_per_s: float = 500.0
    failures_per_s: float = 5.0
    notices_per_s: float = 0.5
    body_bytes_max: int = 48 * MIB
    blob_bytes_max: int = 32 * MIB
    page_bytes_max: int = 4 * MIB
    head_s_max: float = 15.0
    body_s_max: float = 30.0
    send_s_max: float = 20.0
    wait_s_max: float = 60.0
    ping_s: float = 15.0
    idle_s_max: float = 75.0
    grace_s: float = 10.0
    streams_per_token_max: int = 64
    connections_max: int = 1000
    logs_open_max: int = 200


MEANING: dict[str, tuple[float, float, str]] = {
    "requests_per_s": (0.1, 1e6, "requests a second with one token; more are answered with 429"),
    "failures_per_s": (
        0.1,
        1e4,
        "refused tokens a second from one address, before all of them are answered with 429",
    ),
    "notices_per_s": (0.001, 100, "refused attempts a second that are written down in one log"),
    "body_bytes_max": (64 * 1024, 1024 * MIB, "bytes of one request to append"),
    "blob_bytes_max": (1024, 1024 * MIB, "bytes of one blob that comes by itself"),
    "page_bytes_max": (
        64 * 1024,
        256 * MIB,
        "bytes of one page that is read, and of what a stream holds for its reader",
    ),
    "head_s_max": (0.1, 3600, "seconds in which a request's head must have come"),
    "body_s_max": (0.1, 3600, "seconds in which a request's body must have come"),
    "send_s_max": (0.1, 3600, "seconds in which a stream's reader must have taken what it is sent"),
    "wait_s_max": (0.1, 600, "seconds for which one long request waits for news"),
    "ping_s": (0.1, 600, "seconds without news after which a stream says that it is alive"),
    "idle_s_max": (1, 3600, "seconds for which a connection is kept open without a request"),
    "grace_s": (1, 600, "seconds that requests under way have at the end"),
    "streams_per_token_max": (1, 1e5, "streams and long waits at once with one token"),
    "connections_max": (1, 1e6, "connections at once; more are answered with 503"),
    "logs_open_max": (1, 1e5, "logs open at once; those that nobody uses are closed first"),
}
"""Of each limit: the least, the most, and what it counts."""


def limits_of(given: Iterable[str]) -> Limits:
    """The limits with some set as ``NAME=VALUE``, the last one of a name. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or name not in MEANING:
            raise UsageError(
                "There is no such limit", received=text[:100], expected="NAME=VALUE with one of " + ", ".join(MEANING)
            )
        found[name] = _number(name, value.strip())
    return Limits(**found)


def _number(name: str, text: str) -> float:
    low, high, told = MEANING[name]
    whole = isinstance(getattr(Limits(), name), int)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high or (whole and number != int(number)):
        raise UsageError(
            f"{name} cannot be this",
            received=text[:40] or "nothing",
            expected=f"{'a whole number' if whole else 'a number'} from {low:.10g} to {high:.10g}: {told}",
        )
    return int(number) if whole else number
