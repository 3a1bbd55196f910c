"""Connections to PostgreSQL for the log: which host, which rights, which settings, and what errors mean.

A connection is made to the first host that takes writes; with several hosts in the URL a promoted standby is found
that way. Settings on which durability hangs are checked on every new connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg

from logact import env as environment
from logact.errors import (
    AppendUnknown,
    LogActError,
    LogFull,
    LogLocked,
    LogReadOnly,
    LogUnavailable,
    ReadFailed,
    TooLarge,
    UsageError,
)
from logact.logs.network_url import NetworkUrl
from logact.logs.postgres_wire import Lost, ServerError

PORT = 5432
VERSION_MIN = 14
LIBPQ_KNOWS_SYSTEM = 160000
"""From this libpq on ``sslrootcert=system`` means the system's certificates."""

CONNECT_S_MAX = 5.0
"""How long one host is waited for."""

_FACTS = """SELECT pg_backend_pid(), current_setting('server_version_num')::int,
    current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'),
    pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
    current_setting('synchronous_standby_names')"""

_HOPELESS = ("password", "pg_hba.conf", "does not exist", "certificate", "not permitted", "SSL", "no password")
"""Words in a refusal that waiting does not mend."""


class Facts(msgspec.Struct, frozen=True):
    """What a server said of itself."""

    version: int  # 15, 16, ...
    synchronous: str  # synchronous_commit
    standbys: str  # synchronous_standby_names
    pooled: bool  # a transaction pooler stands between
    flushed: bool  # fsync and full_page_writes are on


class Connector:
    """Makes connections for one URL. Remembers the host that took writes the last time, and tries it first."""

    def __init__(self, url: NetworkUrl) -> None:
        self.url = url
        self.user = url.user
        self.statement_s_max = url.number("timeout", 15.0, 0.1, 3600.0)
        self.patience_s = url.number("patience", 20.0, 0.0, 3600.0)
        self.unsafe = url.flag("unsafe_durability")
        self.facts: Facts | None = None
        self.connects = 0
        self._first = 0

    async def connect(self, patience_s: float | None = None, *, prepare: bytes = b"") -> psycopg.AsyncConnection[Any]:
        """A checked connection to a host that takes writes; tries for ``patience_s`` seconds at least once.

        ``prepare`` is a statement to run on it before anything else, unless a pooler stands between. A connection
        that breaks over it is one more that did not come about.

        Raises LogUnavailable, and UsageError for settings or rights that do not do.
        """
        env = environment.current()
        end = env.monotonic() + (self.patience_s if patience_s is None else patience_s)
        pause_s = 0.02
        while True:
            said = []
            for step in range(len(self.url.hosts)):
                place = (self._first + step) % len(self.url.hosts)
                try:
                    connection = await self._try(place, prepare)
                except _NotThis as error:
                    said.append(f"{self._name(place)}: {error}")
                    continue
                self._first = place
                self.connects += 1
                return connection
            if env.monotonic() + pause_s > end:
                raise LogUnavailable(
                    "No PostgreSQL server takes appends",
                    received="; ".join(said),
                    expected=f"one that can be reached and written, by {self.url.shown}",
                    todo="start it, or correct the URL; with several hosts (HOST,HOST) the one that writes is found",
                )
            await env.sleep(pause_s * (0.5 + env.random()))
            pause_s = min(pause_s * 2, 0.5)

    def _name(self, place: int) -> str:
        host, port = self.url.hosts[place]
        return f"{host}:{port or PORT}"

    async def _try(self, place: int, prepare: bytes) -> psycopg.AsyncConnection[Any]:
        host, port = self.url.hosts[place]
        tls = self.url.tls
        settings: dict[str, Any] = {
            "host": host,
            "port": port or PORT,
            "dbname": self.url.path or "postgres",
            "connect_timeout": max(2, int(CONNECT_S_MAX)),
            "application_name": "logact",
            "sslmode": {"off": "disable", "verify": "verify-full", "unverified": "require"}[tls.mode],
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(self.statement_s_max * 1000) + 5000,
            "gssencmode": "disable",
        }
        if tls.mode == "verify":
            settings["sslrootcert"] = tls.ca or ("system" if psycopg.pq.version() >= LIBPQ_KNOWS_SYSTEM else None)
        if tls.cert:
            settings["sslcert"], settings["sslkey"] = tls.cert, tls.key or tls.cert
        settings = {name: value for name, value in settings.items() if value is not None}
        if self.user:
            settings["user"] = self.user
        if self.url.password:
            settings["password"] = self.url.password
        try:
            async with asyncio.timeout(CONNECT_S_MAX + 1):
                connection = await psycopg.AsyncConnection.connect(
                    autocommit=True, prepare_threshold=None, **settings
                )
        except TimeoutError as error:
            raise _NotThis("no answer") from error
        except (psycopg.Error, OSError) as error:
            text = _line(self.url.scrub(error)) or repr(error)
            if any(word in text for word in _HOPELESS):
                raise LogUnavailable(
                    "PostgreSQL refuses the connection",
                    received=text,
                    expected=f"that {self.user or 'this user'} may connect by {self.url.shown}",
                    todo="check user, password (?password_file= or LOGACT_POSTGRES_PASSWORD), database and tls",
                ) from error
            raise _NotThis(text) from error
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._check(connection)
                if prepare and self.facts is not None and not self.facts.pooled:
                    await self._prepare(connection, prepare)
        except TimeoutError as error:
            connection.pgconn.finish()
            raise _NotThis("no answer") from error
        except psycopg.Error as error:
            connection.pgconn.finish()
            raise _NotThis(self.url.scrub(error)) from error
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection

    async def _prepare(self, connection: psycopg.AsyncConnection[Any], statement: bytes) -> None:
        try:
            await connection.execute(statement)
        except psycopg.OperationalError:
            raise  # the connection broke
        except psycopg.Error as error:
            raise LogUnavailable(
                "The connection could not be prepared", received=self.url.scrub(error).strip(), todo="try again"
            ) from error

    async def _check(self, connection: psycopg.AsyncConnection[Any]) -> None:
        row = await (await connection.execute(_FACTS)).fetchone()
        if row is None:
            raise _NotThis("no answer")
        pid, version, synchronous, fsync, full_pages, read_only, standbys = row
        if version // 10000 < VERSION_MIN:
            raise UsageError(
                "This PostgreSQL is too old",
                received=f"version {version // 10000}",
                expected=f"{VERSION_MIN} or newer",
            )
        if read_only:
            raise _NotThis("it takes no writes (a standby, or read-only)")
        facts = Facts(
            version=version // 10000,
            synchronous=synchronous,
            standbys=standbys,
            # a pooler answers for many servers: the process that it names is none of theirs
            pooled=pid != connection.info.backend_pid or self.url.flag("pooler"),
            flushed=fsync == "on" and full_pages == "on",
        )
        if not self.unsafe and (synchronous == "off" or not facts.flushed):
            raise UsageError(
                "This PostgreSQL acknowledges what a power cut may still lose",
                received=f"synchronous_commit={synchronous}, fsync={fsync}, full_page_writes={full_pages}",
                expected="all of them on",
                todo="turn them on, or accept the loss with ?unsafe_durability=1 in the log's URL",
            )
        if not facts.pooled:
            await connection.execute(
                "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
                " set_config('default_transaction_isolation', 'read committed', false)",
                (f"{int(self.statement_s_max * 1000)}ms",) * 2,
            )
        self.facts = facts


def _line(text: str) -> str:
    """The first line that says something: libpq adds questions below it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


class _NotThis(Exception):
    """This host does not do now; another one, or this one later, may."""


# --- what errors mean ------------------------------------------------------------------------------------------

_CERTAIN = (
    "0A",
    "22",
    "23",
    "25",
    "26",
    "28",
    "34",
    "39",
    "3D",
    "3F",
    "40",
    "42",
    "53",
    "54",
    "55",
    "57014",
    "LA",
    "P0",
)
"""SQLSTATE classes of errors that roll the transaction back before it could commit."""


def is_certain(error: ServerError) -> bool:
    """Whether a statement that failed like this certainly changed nothing."""
    return error.severity == "ERROR" and error.sqlstate.startswith(_CERTAIN) and error.sqlstate != "40003"


def may_retry(error: ServerError) -> bool:
    """Whether the same statement may well succeed now: it met another transaction, or a server that was demoted."""
    return error.sqlstate in {"40001", "40P01", "25006"}


def meaning(error: Exception, *, appending: bool) -> LogActError:
    """What a failed statement means to the caller."""
    if isinstance(error, LogActError):
        return error
    if isinstance(error, Lost) or (isinstance(error, ServerError) and not is_certain(error)):
        if appending:
            return AppendUnknown(
                "The server did not say what became of the append",
                received=str(error),
                todo="repeat it byte for byte, or read the log",
            )
        return ReadFailed("The log could not be read", received=str(error), todo="try again")
    if not isinstance(error, ServerError):
        raise error
    received = f"{error} ({error.sqlstate})"
    match error.sqlstate:
        case "42501":
            return LogReadOnly(
                "This role may not do that",
                received=received,
                todo="GRANT logact_writer (to erase or trim: logact_operator) to it; see docs/engines/postgresql.md",
            )
        case "53100" | "53200" | "53400":
            return LogFull("The server is out of space", received=received, todo="free space, then try again")
        case "54000" | "22001":
            return TooLarge("The server cannot hold a value of this size", received=received, todo="split it")
        case "55P03" | "57014" | "40001" | "40P01":
            return LogLocked(
                "Another session holds the log", received=received, todo="end that session's transaction"
            )
        case "LA001":
            return UsageError(
                "This PostgreSQL acknowledges what a power cut may still lose",
                received="synchronous_commit=off in this session",
                expected="on",
                todo="turn it on, or accept the loss with ?unsafe_durability=1 in the log's URL",
            )
        case "LA002":
            return LogUnavailable("The log was removed from its database", received=received, todo="restore a backup")
    if appending:
        return LogUnavailable("The log cannot be written", received=received, todo="look at the server's log")
    return ReadFailed("The log cannot be read", received=received, todo="look at the server's log")
