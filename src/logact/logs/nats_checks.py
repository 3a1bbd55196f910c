"""What LogAct looks up about a NATS cluster before it trusts it: whether servers flush before they acknowledge.

NATS flushes every two minutes by default and acknowledges before that; ``sync_interval: always`` changes it. The
servers say it at their monitoring endpoints, and to a client whose account may ask them all (the system account's
service ``VARZ``, exported to it). Asks both ways, and decides nothing.
"""

from __future__ import annotations

import urllib.request
from urllib.parse import urlsplit

import msgspec

from logact import env as environment
from logact.errors import LogUnavailable, UnknownLogUrl
from logact.logs.nats_link import Link

SERVER_LEAST = (2, 12)
"""The first version with reads and appends of several records at once."""

MONITOR_S_MAX = 3.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024


SERVERS_SAY = "$SYS.REQ.SERVER.PING.VARZ"
"""What every server answers, where the account of this client imports it from the system account."""


class Sync(msgspec.Struct, frozen=True):
    """What is known of the servers that hold a log: names that flush each write, that do not, that did not say."""

    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether every server that holds the log flushes each write before it acknowledges it."""
        return bool(self.always) and not self.sometimes and not self.unknown

    def note(self) -> str:
        """One sentence for people."""
        if self.sometimes:
            return (
                f"NOT POWER-SAFE: {', '.join(self.sometimes)} acknowledge before they flush (sync_interval is not "
                "always): a power cut of several servers can lose acknowledged entries."
            )
        if self.unknown:
            return (
                f"UNKNOWN, so not power-safe: whether {', '.join(self.unknown)} flush each write could not be "
                "checked; name the servers' monitoring addresses with ?monitor=http://HOST:8222,..., or let this "
                f"account ask them ({SERVERS_SAY})."
            )
        return f"Checked: sync_interval is always on {', '.join(self.always)}."


class _Config(msgspec.Struct, frozen=True):
    sync_always: bool = False


class _JetStream(msgspec.Struct, frozen=True):
    config: _Config = _Config()


class _Said(msgspec.Struct, frozen=True):
    server_name: str = ""
    jetstream: _JetStream = _JetStream()


class _Answer(msgspec.Struct, frozen=True):
    data: _Said = _Said()


def addresses(option: str) -> tuple[str, ...]:
    """The monitoring addresses of a URL's option. Raises UnknownLogUrl."""
    found = tuple(part.rstrip("/") for part in option.split(",") if part)
    for one in found:
        if urlsplit(one).scheme not in {"http", "https"} or not urlsplit(one).netloc:
            raise UnknownLogUrl(
                "A monitoring address is an HTTP address", received=one, expected="http://HOST:8222,http://HOST2:8222"
            )
    return found


async def look(link: Link, monitors: tuple[str, ...], holders: tuple[str, ...]) -> Sync:
    """Ask the servers over this connection, and each monitoring endpoint. ``holders`` are those that hold the log."""
    said: dict[str, bool] = {}
    for data in await link.ask_all(SERVERS_SAY, len(holders)):
        try:
            answer = msgspec.json.decode(data, type=_Answer).data
        except msgspec.DecodeError:
            continue
        said[answer.server_name] = answer.jetstream.config.sync_always
    for address in monitors:
        try:
            answer = await environment.current().in_thread(_varz, address)
        except (OSError, msgspec.DecodeError):
            continue  # its server stays unknown
        said[answer.server_name] = answer.jetstream.config.sync_always and said.get(answer.server_name, True)
    return Sync(
        always=tuple(name for name in holders if said.get(name) is True),
        sometimes=tuple(name for name in holders if said.get(name) is False),
        unknown=tuple(name for name in holders if name not in said),
    )


def _varz(address: str) -> _Said:
    with urllib.request.urlopen(f"{address}/varz", timeout=MONITOR_S_MAX) as answer:  # noqa: S310  # http(s) only
        return msgspec.json.decode(answer.read(ANSWER_BYTES_MAX), type=_Said)


def check_version(version: str) -> None:
    """Raise LogUnavailable if a server is older than what LogAct uses."""
    numbers = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())
    if numbers < SERVER_LEAST:
        raise LogUnavailable(
            "The NATS server is too old",
            received=version or "no version",
            expected=f"{'.'.join(map(str, SERVER_LEAST))} or newer",
            todo="upgrade the servers",
        )


def refuse_unless_safe(sync: Sync, *, allowed: bool) -> None:
    """Raise LogUnavailable if a server is known to acknowledge before it flushes, and nobody opened that."""
    if sync.sometimes and not allowed:
        raise LogUnavailable(
            "The cluster acknowledges entries before they are on disk",
            received=f"sync_interval is not always on {', '.join(sync.sometimes)}",
            expected="sync_interval: always in the jetstream block of every server",
            todo="change it (see deploy/nats/nats.conf), or open the log with ?allow_unsafe_sync=1",
        )
