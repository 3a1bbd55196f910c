"""Which logs a server serves, by name, on one engine.

A name becomes a part of a URL of the engine below and of a path of this server, so it is a plain word: no slash, no
dots in a row, no percent signs, whatever the engine itself would take.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode

from logact.errors import UsageError

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
NAME_LENGTH_MAX = 100
OWN = "logact-server"
"""The log in which a server keeps its tokens. It is never served."""

_NAME = re.compile(NAME)


class BadLogName(UsageError):
    """A name that no served log can have: perhaps a try to get out of the place where logs are."""


def check_name(name: str) -> str:
    """The name, if a log may be served under it. Raises BadLogName."""
    if len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name) or name.lower() == OWN:
        raise BadLogName(
            "No log is served under this name",
            received=repr(name[: NAME_LENGTH_MAX + 1]),
            expected=f"1 to {NAME_LENGTH_MAX} letters, digits, - or _, with single dots inside; not {OWN}",
        )
    return name


def url_of(base: str, name: str) -> str:
    """The URL of the log ``name`` on the engine that ``base`` names."""
    scheme, _, rest = base.partition(":")
    if scheme == "memory":
        return f"memory:{rest.strip('/') or 'served'}-{name}"
    before, _, query = base.partition("?")
    options = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if key != "log"]
    return f"{before}?{urlencode([*options, ('log', name)], safe='/:')}"
