"""The ``logact+http://`` and ``logact+https://`` engine: a log that ``logact serve`` serves, as an engine.

Appends that come together travel in one request. Whether a failed append may have happened is decided here with care:
only what failed before its request was sent, or what the server itself refused, is definite. Waiting for news is one
long request that the server answers when there is some; nothing is asked again and again.

The token says who writes. Entries are stamped with its name before they are hashed, since the server refuses every
other author. This module holds the token in a header of its client and shows it nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from logact import env as environment
from logact.core import rights
from logact.entry import NewEntry
from logact.errors import (
    AppendUnknown,
    LogActError,
    LogError,
    LogMissing,
    LogUnavailable,
    ReadFailed,
    TokenRefused,
    TooManyRequests,
    UnknownLogUrl,
    UsageError,
)
from logact.logs import wire
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page, StoredRecord
from logact.logs.names import check_served_name
from logact.logs.network_url import NetworkUrl, parse
from logact.logs.remote_outbox import Outbox

T = TypeVar("T")

TIMEOUT_S = 10.0
"""How long an answer may take before a request counts as failed; ``?timeout_s=`` changes it."""

OPEN_S = 5.0
"""How long opening waits for a server that is not there yet."""

SLOW_DOWN_S_MAX = 20.0
"""How long a client lets the server slow it down before it gives the error to its caller."""

READ_TRIES = 3
BLOB_ALONG_BYTES_MAX = 256_000
"""A larger blob goes ahead of its record, in a request of its own."""

_TOKEN_ID = re.compile(r"logact_([0-9a-z]{16})_")
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class RemoteEngine(Engine):
    """One served log, through one client. Belongs to one event loop at a time; may be closed and opened again."""

    segmented = False  # the server follows a log that moves

    def __init__(self, url: NetworkUrl) -> None:
        self.url = url
        self.timeout_s = url.number("timeout_s", TIMEOUT_S, 0.1, 600)
        text = url.secret("token")
        found = _TOKEN_ID.match(text)
        self.writer_prefix = f"{found.group(1)}." if found else ""
        scheme = url.scheme.removeprefix("logact+")
        self._bases = [_base(scheme, host, port) for host, port in url.hosts]
        self._path = f"{wire.API}/logs/{quote(url.log, safe='')}"
        self._client: httpx2.AsyncClient | None = None
        self._about: wire.AboutAnswer | None = None
        self._hint = 0
        self._outbox = Outbox(self._post_append)

    # --- opening -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        token = self.url.secret("token")
        if not token:
            raise TokenRefused(
                "A served log wants a token", received="none", todo="set LOGACT_TOKEN, or ?token_file= in the URL"
            )
        if self._client is None:
            self._outbox = Outbox(self._post_append)
            self._client = httpx2.AsyncClient(
                headers={"authorization": f"Bearer {token}", "user-agent": "logact"},
                verify=self.url.tls.context() or False,  # without TLS there is nothing to verify
                timeout=httpx2.Timeout(self.timeout_s, connect=min(self.timeout_s, 5.0)),
                limits=httpx2.Limits(max_connections=64, keepalive_expiry=30.0),
                trust_env=False,
                follow_redirects=False,
            )
        env = environment.current()
        began, pause_s = env.monotonic(), 0.05
        while True:
            try:
                about = await self._about_or_made()
                break
            except LogMissing:
                await self.close()
                raise
            except (LogUnavailable, ReadFailed):
                if env.monotonic() - began > OPEN_S:
                    await self.close()
                    raise
                await env.sleep(pause_s * (0.5 + env.random()))
                pause_s = min(pause_s * 2, 1.0)
            except LogActError:
                await self.close()
                raise
        if self.log_id and about.log_id != self.log_id:
            raise LogUnavailable(
                "Another log is served under this name now", received=about.log_id, expected=self.log_id
            )
        self.log_id, self._about = about.log_id, about
        self.roles = None if about.you.relay else frozenset(about.you.roles)
        self._seen(about.tail)

    async def _about_or_made(self) -> wire.AboutAnswer:
        """What the server says of the log, which is made if it is missing and the token allows it."""
        try:
            return await self._ask("GET", "", wire.AboutAnswer)
        except LogMissing:
            if not self.create:
                raise
        return await self._ask("PUT", "", wire.AboutAnswer)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def stamp(self, entries: Sequence[NewEntry]) -> Sequence[NewEntry]:
        if self._about is None or self.roles is None:
            return entries
        return [_stamped(entry, self._about.you) for entry in entries]

    # --- appending -----------------------------------------------------------------------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        along = []
        for digest, data in draft.blobs:
            if len(data) > BLOB_ALONG_BYTES_MAX:
                await self.put_blob(digest, data)
            else:
                along.append(wire.WireBlob(digest, data))
        outcome = await self._outbox.submit(wire.WireDraft(body=draft.body, condition=draft.condition, blobs=along))
        if outcome.error is not None:
            raise wire.raised(outcome.error, AppendUnknown)
        self._seen(outcome.record)
        return outcome.record, outcome.fresh

    async def _post_append(self, request: wire.AppendRequest) -> wire.AppendAnswer:
        response = await self._request(
            "POST",
            "/append",
            AppendUnknown,
            content=wire.encoded(request),
            headers={"content-type": "application/json"},
        )
        if response.status_code == 200:
            return _decoded(response, wire.AppendAnswer, AppendUnknown)
        error = _error_of(response)
        # only what the server itself said before it began is definite: a proxy's 502 is not, nor a defect's 500
        if error is None or response.status_code == 500:
            raise AppendUnknown("An append was not acknowledged", received=f"HTTP status {response.status_code}")
        raise error

    # --- reading -------------------------------------------------------------------------------------------------

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        asked: dict[str, Any] = {"after": max(after, -1), "limit": max(0, min(limit, READ_RECORDS_MAX))}
        if matching is not None:
            asked["filter"] = matching
        answer = await self._ask("POST", "/read", wire.RecordsAnswer, asked)
        if answer.records:
            self._seen(answer.records[-1].record)
        return Page(tuple(StoredRecord(one.record, one.body) for one in answer.records), answer.upto, answer.end)

    async def tail(self) -> int:
        return self._seen((await self._ask("GET", "/tail", wire.NumberAnswer)).record)

    def hint(self) -> int:
        return self._hint

    async def wait(self, after: int, timeout_s: float) -> bool:
        env = environment.current()
        end = env.monotonic() + timeout_s
        while True:
            if self._hint > after:
                return True
            # no longer than an answer may take: so a connection that died unseen is noticed
            wait_s = max(0.0, min(end - env.monotonic(), self.timeout_s, wire.WAIT_S_MAX))
            path = f"/wait?after={after}&timeout_s={wait_s:.3f}"
            answer = await self._ask("GET", path, wire.NewsAnswer, timeout_s=wait_s + self.timeout_s)
            self._seen(answer.record)
            if answer.record > after:
                return True
            if env.monotonic() >= end:
                return answer.news

    async def last_checkpoint(self) -> int:
        return (await self._ask("GET", "/checkpoint", wire.NumberAnswer)).record

    def _seen(self, record: int) -> int:
        self._hint = max(self._hint, record)
        return record

    # --- blobs, erasure, trimming --------------------------------------------------------------------------------

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self._checked(
            "PUT", f"/blobs/{digest}", content=data, headers={"content-type": "application/octet-stream"}
        )

    async def get_blob(self, digest: str) -> bytes:
        return (await self._checked("GET", f"/blobs/{quote(digest, safe='')}")).content

    async def erase(self, record: int, index: int) -> None:
        await self._ask("POST", "/erase", wire.DoneAnswer, wire.EraseRequest(record, index))

    async def trim(self, before: int) -> None:
        if before >= 1:
            await self._ask("POST", "/trim", wire.DoneAnswer, wire.TrimRequest(before))

    def info(self) -> EngineInfo:
        about = self._about
        return EngineInfo(
            url=self.url.shown,
            engine=f"served ({about.engine})" if about else "served",
            survives=about.survives if about else "what the engine behind the server says",
            wakes_by="a long request that the server answers",
            record_bytes_max=about.record_bytes_max if about else 0,
            notes=(*self.url.notes, self.url.tls.said()),
        )

    # --- requests ------------------------------------------------------------------------------------------------

    async def _ask(
        self, method: str, path: str, kind: type[T], body: Any = None, *, timeout_s: float | None = None
    ) -> T:
        more: dict[str, Any] = {}
        if body is not None:
            more = {"content": wire.encoded(body), "headers": {"content-type": "application/json"}}
        if timeout_s is not None:
            more["timeout"] = httpx2.Timeout(timeout_s, connect=min(self.timeout_s, 5.0))
        return _decoded(await self._checked(method, path, **more), kind, ReadFailed)

    async def _checked(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """A request that may be repeated, tried a few times. Raises the server's error, or ReadFailed."""
        for tries_left in reversed(range(READ_TRIES)):
            try:
                response = await self._request(method, path, ReadFailed, **more)
                break
            except ReadFailed:
                if not tries_left:
                    raise
        if response.status_code == 200:
            return response
        raise _error_of(response) or ReadFailed(
            "The server's answer cannot be used", received=f"HTTP status {response.status_code}"
        )

    async def _request(self, method: str, path: str, unknown: type[LogError], **more: Any) -> httpx2.Response:
        """One request; again if the server asks for a pause, and at the next host if one cannot be reached.

        Raises LogUnavailable if it was certainly not sent, else ``unknown``.
        """
        if self._client is None:
            raise LogUnavailable("The log is not open", received=self.url.shown)
        env = environment.current()
        slowed_s = 0.0
        hosts_left = len(self._bases)
        while True:
            try:
                response = await self._client.request(method, self._bases[0] + self._path + path, **more)
            except _NOT_SENT as error:
                hosts_left -= 1
                self._bases.append(self._bases.pop(0))
                if hosts_left:
                    continue
                raise self._unreached(error) from error
            except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
                plain = isinstance(error, httpx2.RemoteProtocolError) and self._bases[0].startswith("http:")
                todo = "if the server speaks TLS, write logact+https://" if plain else ""
                raise unknown("The server did not answer", received=self._said(error), todo=todo) from error
            if response.status_code != 429:
                return response
            pause_s = _retry_after_s(response)
            slowed_s += pause_s
            if slowed_s > SLOW_DOWN_S_MAX:
                raise _error_of(response) or TooManyRequests("Too many requests", todo="wait")
            await env.sleep(pause_s * (0.8 + 0.4 * env.random()))

    def _unreached(self, error: Exception) -> LogUnavailable:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return LogUnavailable(
                "The server's certificate is not trusted, so it was sent nothing",
                received=self._said(error),
                expected="a certificate for this host, by an authority that is known here",
                todo="name the authority's file by ?ca= or LOGACT_CA, and the host as the certificate does",
            )
        return LogUnavailable(
            "The server cannot be reached", received=self._said(error), todo="check host and port; is it running?"
        )

    def _said(self, error: Exception) -> str:
        return self.url.scrub(f"{self._bases[0]}: {type(error).__name__} {error}".strip())


def _stamped(entry: NewEntry, you: wire.You) -> NewEntry:
    """The entry as the token's holder says it. What every role may say is said in one that the token has."""
    writing = [role for role in you.roles if role != "reader"]
    role: Any = entry.role
    if role not in writing and writing and type(entry.payload).__name__ in rights.common():
        role = writing[0]
    name = entry.name if role == "voter" and entry.name in you.voters else you.name
    if role == "voter" and name not in you.voters and len(you.voters) == 1:
        name = you.voters[0]
    return msgspec.structs.replace(entry, role=role, name=name)


def _base(scheme: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}" if port else f"{scheme}://{shown}"


def _decoded(response: httpx2.Response, kind: type[T], unknown: type[LogError]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unknown("The server's answer cannot be read", received=str(error)) from error


def _error_of(response: httpx2.Response) -> LogActError | None:
    """The error that the server answered with; None if this is no answer of a LogAct server."""
    try:
        return wire.raised(msgspec.json.decode(response.content, type=wire.ErrorAnswer).error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _retry_after_s(response: httpx2.Response) -> float:
    try:
        return max(0.05, min(float(response.headers.get("retry-after", "1")), SLOW_DOWN_S_MAX))
    except ValueError:
        return 1.0


def engine_from_url(url: str) -> RemoteEngine:
    """``logact+https://HOST[:PORT]/?log=NAME``; the token from LOGACT_TOKEN or ``?token_file=``.

    Further options: ``?timeout_s=``, and ``ca``, ``cert``, ``key``, ``tls`` as for all engines on the network.
    Raises UnknownLogUrl, UsageError, LogUnavailable.
    """
    found = parse(url, engine="", options=("timeout_s",), secrets=("token",))
    secure = found.scheme.endswith("https")
    if found.path:
        raise UnknownLogUrl(
            "The URL of a served log has no path",
            received=found.shown,
            expected=f"{found.scheme}://HOST[:PORT]/?log=NAME",
        )
    check_served_name(found.log)
    if secure and found.tls.mode == "off":
        raise UsageError("logact+https without TLS", received="tls=off", expected="logact+http:// for that")
    if not secure and found.tls.mode != "off":
        raise UsageError(
            "The token would travel in clear text",
            received=found.shown,
            expected="logact+https://, or a server on this machine",
            todo="write ?tls=off if something else protects the connection",
        )
    return RemoteEngine(found)


__all__ = ["RemoteEngine", "engine_from_url"]
