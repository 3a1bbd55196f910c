"""Which logs a server serves, by name, on one engine."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from logact.errors import UsageError
from logact.logs.names import SERVERS_OWN as OWN
from logact.logs.names import check_served_name


class BadLogName(UsageError):
    """A name that no served log can have: perhaps a try to get out of the place where logs are."""


def check_name(name: str) -> str:
    """The name, if a log may be served under it. Raises BadLogName."""
    return check_served_name(name, BadLogName)


def url_of(base: str, name: str) -> str:
    """The URL of the log ``name`` on the engine that ``base`` names."""
    scheme, _, rest = base.partition(":")
    if scheme == "memory":
        return f"memory:{rest.strip('/') or 'served'}-{name}"
    before, _, query = base.partition("?")
    options = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if key != "log"]
    return f"{before}?{urlencode([*options, ('log', name)], safe='/:')}"


__all__ = ["OWN", "BadLogName", "check_name", "url_of"]
