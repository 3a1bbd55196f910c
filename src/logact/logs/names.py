"""What a log may be called, wherever it is kept.

One rule for all engines, so that a log can move from one to another under its name.
"""

from __future__ import annotations

import re

from logact.errors import UsageError

LOG_NAME_MAX = 256
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./")


SERVED_NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
SERVED_NAME_MAX = 100
SERVERS_OWN = "logact-server"
"""The log in which a server keeps its tokens. It is never served."""

_SERVED = re.compile(SERVED_NAME)


def check_log_name(name: str) -> None:
    """UsageError unless the name is 1 to 256 letters, digits or ``-_./``."""
    if not 0 < len(name) <= LOG_NAME_MAX or not set(name) <= _CHARACTERS:
        raise UsageError(
            "This is not a name for a log",
            received=repr(name[: LOG_NAME_MAX + 1]),
            expected=f"1 to {LOG_NAME_MAX} letters, digits, or any of - _ . /",
            todo="correct ?log=NAME in the URL",
        )


def check_served_name(name: str, refusal: type[UsageError] = UsageError) -> str:
    """The name, if a server may serve a log under it; else ``refusal``.

    It becomes a part of a path and of another engine's URL, so it is a plain word: no slash, no dots in a row, no
    percent signs, whatever the engine behind the server would take.
    """
    if len(name) > SERVED_NAME_MAX or not _SERVED.fullmatch(name) or name.lower() == SERVERS_OWN:
        raise refusal(
            "No log is served under this name",
            received=repr(name[: SERVED_NAME_MAX + 1]),
            expected=f"1 to {SERVED_NAME_MAX} letters, digits, - or _, with single dots inside; not {SERVERS_OWN}",
        )
    return name
