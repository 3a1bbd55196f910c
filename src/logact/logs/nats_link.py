"""The connection to NATS, and the few requests of the JetStream API that a log needs, with their errors sorted.

A request ends in one of four ways: an answer, :class:`Refused` (the server says no; nothing happened),
:class:`Nobody` (nobody leads the stream now; nothing happened), or :class:`Silence` (nobody knows). Retrying, and
what an outcome means for a log, is the callers' affair.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from logact import env as environment
from logact.errors import LogUnavailable, MissingExtra, ReadFailed
from logact.logs.network_url import NetworkUrl

CONNECT_S_MAX = 10.0
CLOSE_S_MAX = 1.0
REQUEST_S_MAX = 3.0
"""How long one request may take. A cluster that elects a leader answers none for 4 to 9 seconds."""

WINDOW_S = 25.0
"""How long a request is repeated: longer than two elections in a row."""

PORT = 4222
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 1.0
PING_S = 3
SILENCES_MAX = 2
"""After so many requests without an answer another server is asked: this one may be cut off from the others."""

WRONG_SEQUENCE = frozenset({10071, 10164})
NO_STREAM = 10059
NO_MESSAGE = 10037
NAME_IN_USE = 10058
NOT_CLUSTERED = 10074
IN_PROCESS = 10158  # the same message was sent before and is on its way through the cluster

# What a server says before it does anything, and which time may cure.
_TRANSIENT = frozenset({10004, 10005, 10007, 10008, 10009})  # nobody leads, or not enough servers are there


class Answerless(Exception):
    """A request has no answer."""


class Silence(Answerless):
    """Nobody answered: the request may have been carried out, may be later, or never."""


class Nobody(Answerless):
    """Nobody serves this now: the request was certainly not carried out."""


class Refused(Exception):
    """The server's own no: its error code, and what it says."""

    def __init__(self, code: int, status: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.status = status
        self.text = text


Headers = dict[str, str]


class Link:
    """One connection, on one event loop. ``client`` is nats-py's."""

    def __init__(self, url: NetworkUrl) -> None:
        self.url = url
        self.client: Any = None
        self.reconnects = 0
        self._silences = 0
        self._last_error = ""
        self._connecting = False

    # --- life ------------------------------

    async def connect(self) -> None:
        """Connect to any of the servers. Raises LogUnavailable, MissingExtra."""
        try:
            from nats.aio.client import Client
        except ImportError as error:
            raise MissingExtra(
                "The NATS engine needs its client", received=self.url.shown, todo="pip install 'logact[nats]'"
            ) from error
        self.client = Client()
        self._connecting = True
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await self.client.connect(**self._options())
        except LogUnavailable:
            raise
        except Exception as error:
            await self.close()
            said = self._last_error if isinstance(error, TimeoutError) and self._last_error else error
            raise LogUnavailable(
                "NATS cannot be reached",
                received=self.url.scrub(f"{self.url.shown}: {said or type(error).__name__}"),
                todo="check the addresses and credentials, and that the servers run",
            ) from None
        finally:
            self._connecting = False

    def _options(self) -> dict[str, Any]:
        url = self.url
        scheme = "tls" if url.tls.mode != "off" else "nats"
        hosts = [f"[{host}]" if ":" in host else host for host, _ in url.hosts]
        found: dict[str, Any] = {
            "servers": [
                f"{scheme}://{host}:{port or PORT}" for host, (_, port) in zip(hosts, url.hosts, strict=True)
            ],
            "name": "logact",
            "error_cb": self._on_error,
            "reconnected_cb": self._on_reconnect,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "connect_timeout": 2,
            "ping_interval": PING_S,
            "max_outstanding_pings": 2,
            "tls": url.tls.context(),
        }
        if creds := url.options.get("creds"):
            found["user_credentials"] = creds
        elif token := url.secret("token"):
            found["token"] = token
        elif url.user and url.password:
            found["user"], found["password"] = url.user, url.password
        elif url.password:
            found["token"] = url.password  # what stands alone before the @
        elif url.user:
            found["token"] = url.user
        return found

    async def _on_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        refused = isinstance(error, ssl.SSLError) or "authorization" in self._last_error.lower()
        if self._connecting and refused:
            raise error  # the client would try for ever; no time cures this

    async def _on_reconnect(self) -> None:
        self.reconnects += 1

    async def close(self) -> None:
        """Leave. Whatever still waits for an answer gets none."""
        client, self.client = self.client, None
        if client is not None:
            try:
                async with asyncio.timeout(CLOSE_S_MAX):  # it may wait for ever for a connection that TLS refused
                    await client.close()
            except Exception:  # noqa: S110  # it is gone either way
                pass

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return int(self.client.max_payload) if self.client is not None else 0

    def server(self, name: str) -> str:
        """What the server said of itself when this connection was made: its ``version``, its ``server_name``."""
        return str((getattr(self.client, "_server_info", None) or {}).get(name, ""))

    # --- requests ------------------------------

    async def ask(self, subject: str, payload: bytes = b"", headers: Headers | None = None) -> Any:
        """Send one request and return its message. Raises Silence, Nobody, LogUnavailable if closed."""
        from nats import errors

        client = self.client
        if client is None:
            raise LogUnavailable("The log is not open", received=self.url.shown, todo="call open() first")
        if not client.is_connected:
            raise Nobody("not connected now")  # else the client would keep it, and send it much later
        try:
            answer = await client.request(subject, payload, timeout=REQUEST_S_MAX, headers=headers)
        except errors.NoRespondersError:
            raise Nobody("nobody leads the stream now") from None
        except errors.MaxPayloadError as error:
            raise Refused(0, 400, str(error)) from None
        except (errors.Error, OSError, TimeoutError) as error:
            self._silences += 1
            if self._silences > SILENCES_MAX and self.client is client:
                self._silences = 0
                await client.force_reconnect()
            raise Silence(str(error) or type(error).__name__) from None
        self._silences = 0
        return answer

    async def send(self, subject: str, payload: bytes, headers: Headers) -> tuple[int, bool]:
        """Publish into a stream: (sequence, whether it was there already). Raises Silence, Nobody, Refused."""
        said = _decoded(await self.ask(subject, payload, headers))
        if not said.get("seq"):
            raise Silence(f"an answer that is none: {said}")
        return int(said["seq"]), bool(said.get("duplicate"))

    async def post(self, subject: str, payload: bytes, headers: Headers) -> None:
        """Publish without waiting for an answer. Raises Silence: whether it arrived is not known."""
        from nats import errors

        client = self.client
        if client is None or not client.is_connected:
            raise Silence("not connected now")
        try:
            await client.publish(subject, payload, headers=headers)
        except (errors.Error, OSError) as error:
            raise Silence(str(error) or type(error).__name__) from None

    async def api(self, name: str, body: object = None) -> dict[str, Any]:
        """One request to the JetStream API, once."""
        payload = msgspec.json.encode(body) if body is not None else b""
        return _decoded(await self.ask(f"$JS.API.{name}", payload))

    async def insist(self, name: str, body: object = None) -> dict[str, Any]:
        """One request whose repetition is harmless, until it is answered. Raises Refused, ReadFailed."""
        found: dict[str, Any] = await self.until(lambda: self.api(name, body), f"JetStream {name.partition('.')[0]}")
        return found

    async def until(self, attempt: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Repeat what is harmless to repeat until it is answered, for ``WINDOW_S``. Raises Refused, ReadFailed."""
        env = environment.current()
        end = env.monotonic() + WINDOW_S
        pause_s = PAUSE_S_MIN
        while True:
            try:
                return await attempt()
            except Answerless as error:
                problem: Exception = error
            except Refused as error:
                if error.code not in _TRANSIENT:
                    raise
                problem = error
            if env.monotonic() > end or self.client is None:
                raise ReadFailed(
                    "NATS gives no answer",
                    received=f"{what}: {problem}",
                    expected=f"an answer within {WINDOW_S:g} s",
                    todo="see whether a majority of the servers runs and can talk to each other",
                )
            await env.sleep(pause_s * (0.5 + env.random()))
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def gather(self, subject: str, body: object) -> tuple[list[Any], bool]:
        """Send a request that many messages answer: (those, whether the end was among them). Raises Silence, Nobody.

        The last message of such an answer has a status; "not found" is an answer without any message.
        """
        from nats import errors

        client = self.client
        if client is None:
            raise LogUnavailable("The log is not open", received=self.url.shown, todo="call open() first")
        if not client.is_connected:
            raise Nobody("not connected now")
        found: list[Any] = []
        subscription = None
        try:
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox)
            await client.publish(subject, msgspec.json.encode(body), reply=inbox)
            while True:
                message = await subscription.next_msg(timeout=REQUEST_S_MAX)
                status = (message.headers or {}).get("Status")
                if status == "503":
                    raise Nobody("nobody serves reads now")
                if status is not None:
                    return found, status in {"204", "404"}
                found.append(message)
        except (errors.Error, OSError, TimeoutError) as error:
            raise Silence(str(error) or type(error).__name__) from None
        finally:
            if subscription is not None and not client.is_closed:
                await subscription.unsubscribe()


def _decoded(message: Any) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(message.data)
    except msgspec.DecodeError as error:
        raise Silence(f"an answer that is none: {error}") from None
    if not isinstance(said, dict):
        raise Silence("an answer that is none")
    no = said.get("error")
    if no:
        raise Refused(
            int(no.get("err_code", 0)), int(no.get("code", 0)), str(no.get("description", "no reason given"))
        )
    return said


def is_transient(refusal: Refused) -> bool:
    """Whether the server said no before doing anything, and may say yes later."""
    return refusal.code in _TRANSIENT


def last_sequence(refusal: Refused) -> int | None:
    """The sequence that a refused publish met instead of the expected one; None if the server does not say."""
    number = refusal.text.rpartition(":")[2].strip()
    return int(number) if number.isdigit() else None
