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
from logact.logs.cancelling import cancellable
from logact.logs.network_url import NetworkUrl

CONNECT_S_MAX = 10.0
CLOSE_S_MAX = 1.0
REQUEST_S_MAX = 3.0
"""How long one request may take. A cluster that elects a leader answers none for 4 to 9 seconds."""

WINDOW_S = 25.0
"""How long a request is repeated: longer than two elections in a row."""

ALL_S_MAX = 1.0
PORT = 4222
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 1.0
PING_S = 3
UNSERVED_S_MAX = 2.5
"""When this server has served no request for so long, another one is asked: it may be cut off from the others."""

HEARD_S_MAX = 3.5
"""A leader that has heard from no majority for so long may have been replaced: a new election takes 4 s or more."""

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
        self.reconnects = self.moves = 0
        self.served_s = 0.0  # when a server last did what was asked of it
        self._unserved_since: float | None = None
        self._limits: set[asyncio.Timeout] = set()  # of the requests that are under way
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
        places = [f"{f'[{host}]' if ':' in host else host}:{port or PORT}" for host, port in url.hosts]
        env = environment.current()
        found: dict[str, Any] = {
            # in an order of one's own, which is kept: whoever leaves a server comes to another, not to it again
            "servers": [f"{scheme}://{place}" for place in sorted(places, key=lambda _: env.random())],
            "dont_randomize": True,
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
            async with asyncio.timeout(REQUEST_S_MAX) as limit:
                self._limits.add(limit)
                try:
                    request = client.request(subject, payload, timeout=REQUEST_S_MAX, headers=headers)
                    return await cancellable(request)
                finally:
                    self._limits.discard(limit)
        except errors.NoRespondersError:
            await self.unserved()
            raise Nobody("nobody leads the stream now") from None
        except errors.MaxPayloadError as error:
            raise Refused(0, 400, str(error)) from None
        except (errors.Error, OSError, TimeoutError) as error:
            await self.unserved()
            raise Silence(str(error) or type(error).__name__) from None

    def served(self) -> None:
        """A server did what was asked of it."""
        self._unserved_since, self.served_s = None, environment.current().monotonic()

    async def unserved(self) -> None:
        """A request was not served. When that has lasted, go to another server of the URL, if there is one."""
        now = environment.current().monotonic()
        if self._unserved_since is None:
            self._unserved_since = now
        elif now - self._unserved_since > UNSERVED_S_MAX and self.client is not None and len(self.client.servers) > 1:
            self._unserved_since = now
            self.moves += 1
            for limit in [one for one in self._limits if not one.expired()]:  # they are not answered any more
                limit.reschedule(0.0)
            await self.client.force_reconnect()

    async def send(self, subject: str, payload: bytes, headers: Headers) -> tuple[int, bool]:
        """Publish into a stream: (sequence, whether it was there already). Raises Silence, Nobody, Refused."""
        said = await self._told(subject, payload, headers)
        if not said.get("seq"):
            raise Silence(f"an answer that is none: {said}")
        self.served()
        return int(said["seq"]), bool(said.get("duplicate"))

    async def post(self, subject: str, payload: bytes, headers: Headers) -> None:
        """Publish without waiting for an answer. Raises Silence: whether it arrived is not known."""
        from nats import errors

        client = self.client
        if client is None or not client.is_connected:
            raise Silence("not connected now")
        try:
            await cancellable(client.publish(subject, payload, headers=headers))
        except (errors.Error, OSError) as error:
            raise Silence(str(error) or type(error).__name__) from None

    async def api(self, name: str, body: object = None) -> dict[str, Any]:
        """One request to the JetStream API, once."""
        payload = msgspec.json.encode(body) if body is not None else b""
        return await self._told(f"$JS.API.{name}", payload)

    async def _told(self, subject: str, payload: bytes, headers: Headers | None = None) -> dict[str, Any]:
        try:
            return _decoded(await self.ask(subject, payload, headers))
        except Refused as refusal:
            if is_transient(refusal):  # so says a server that is cut off, and one whose cluster elects a leader
                await self.unserved()
            raise

    async def leader_says(self, stream: str) -> dict[str, Any]:
        """What a stream's leader says of it, once. Silence, Refused, Nobody (also if who answers does not lead).

        A server that is cut off from the others goes on answering, for as long as that lasts, with what it knew.
        """
        info = await self.api(f"STREAM.INFO.{stream}")
        if not leads(info.get("cluster")):
            await self.unserved()
            raise Nobody("the server that answers is cut off from a majority of the others")
        return info

    async def state_of(self, stream: str) -> dict[str, Any]:
        """The same, until it is answered. Raises Refused, ReadFailed."""
        found: dict[str, Any] = await self.until(lambda: self.leader_says(stream), "JetStream STREAM")
        return found

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
                found = await attempt()
                self.served()
                return found
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
                message = await cancellable(subscription.next_msg(timeout=REQUEST_S_MAX))
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

    async def ask_all(self, subject: str, wanted: int) -> list[bytes]:
        """A question that several servers answer: at most ``wanted`` answers, as many as come within ``ALL_S_MAX``.

        None where this account may not ask. Never raises for a server's sake.
        """
        from nats import errors

        env, client = environment.current(), self.client
        end, found = env.monotonic() + ALL_S_MAX, list[bytes]()
        self._last_error = ""
        try:
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox)
            await client.publish(subject, b"", reply=inbox)
            while len(found) < wanted and env.monotonic() < end and "ermission" not in self._last_error:
                try:
                    message = await cancellable(subscription.next_msg(timeout=ALL_S_MAX / 10))
                except TimeoutError:
                    continue
                if (message.headers or {}).get("Status"):
                    break  # nobody serves it here
                found.append(message.data)
            await subscription.unsubscribe()
        except (errors.Error, OSError):
            pass  # what is not known is said to be unknown
        return found


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


def leads(cluster: dict[str, Any] | None) -> bool:
    """Whether who describes a stream's replicas so leads them, and has heard from a majority just now.

    A server without a leader describes its own copy, and a leader that was cut off does so for 20 s (measured with
    2.15). The clock is the server's own: ``active`` is how many nanoseconds ago it heard from a replica.
    """
    if not cluster:
        return True  # one server, in no cluster
    others = cluster.get("replicas") or []
    heard = sum(0 < one.get("active", 0) < HEARD_S_MAX * 1e9 for one in others)  # 0: never
    return bool(cluster.get("leader")) and 2 * (heard + 1) > len(others) + 1


def is_transient(refusal: Refused) -> bool:
    """Whether the server said no before doing anything, and may say yes later."""
    return refusal.code in _TRANSIENT


def last_sequence(refusal: Refused) -> int | None:
    """The sequence that a refused publish met instead of the expected one; None if the server does not say."""
    number = refusal.text.rpartition(":")[2].strip()
    return int(number) if number.isdigit() else None
