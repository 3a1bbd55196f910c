"""What a log may be called, wherever it is kept.

One rule for all engines, so that a log can move from one to another under its name.
"""

from __future__ import annotations

from logact.errors import UsageError

LOG_NAME_MAX = 256
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./")


def check_log_name(name: str) -> None:
    """UsageError unless the name is 1 to 256 letters, digits or ``-_./``."""
    if not 0 < len(name) <= LOG_NAME_MAX or not set(name) <= _CHARACTERS:
        raise UsageError(
            "This is not a name for a log",
            received=repr(name[: LOG_NAME_MAX + 1]),
            expected=f"1 to {LOG_NAME_MAX} letters, digits, or any of - _ . /",
            todo="correct ?log=NAME in the URL",
        )
