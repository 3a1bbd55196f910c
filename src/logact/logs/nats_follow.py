"""Following a stream: a push consumer that delivers every message once and in order, and is replaced when it fails.

Deliveries are numbered by the server. A number that is missing, or silence where heartbeats were promised, means that
the consumer is gone (its server died) or that something was dropped on the way: :meth:`Follower.ensure` then makes a
new one from the first message that was not delivered. This file does not know what the messages mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from logact import env as environment
from logact.errors import LogError, LogUnavailable
from logact.logs.nats_link import Answerless, Link, Refused

HEARTBEAT_S = 1.0
RESTART_S_MIN = 0.2
"""A consumer that failed at once is not replaced faster than this."""

SILENT_S_MAX = 3.0
INACTIVE_S = 30.0
"""A consumer that nobody listens to is removed by the server after this time."""

Deliver = Callable[[int, str, bytes, dict[str, str]], Awaitable[None]]


class Follower:
    """One consumer at a time. ``deliver(sequence, subject, data, headers)`` is awaited for each message in turn."""

    def __init__(self, link: Link, stream: str, deliver: Deliver, wake: Callable[[], None]) -> None:
        self.link = link
        self.stream = stream
        self.restarts = 0
        self.problem: LogError | None = None  # what ``deliver`` raised
        self._deliver = deliver
        self._wake = wake
        self._subscription: Any = None
        self._delivered = 0
        self._heard = self._began = 0.0
        self._name = ""
        self._broken = True
        self._current: object = None
        self._moves = 0  # of the connection, when the consumer was made
        self._lock = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether the consumer delivers, as far as can be known here."""
        stayed = self._moves == self.link.moves  # else it is at a server that was left for good reason
        return stayed and not self._broken and environment.current().monotonic() - self._heard < SILENT_S_MAX

    async def ensure(self, after: Callable[[], int]) -> None:
        """See that a consumer delivers what stands behind ``after()``. Raises Answerless, Refused, LogError."""
        if self.alive:
            return
        async with self._lock:
            if not self.alive:
                await self._start(after() + 1)

    async def _start(self, first: int) -> None:
        from nats import errors

        await self._drop()
        env = environment.current()
        client = self.link.client
        if client is None:
            raise LogUnavailable("The log is not open", received=self.link.url.shown, todo="call open() first")
        if self.restarts and (early_s := self._began + RESTART_S_MIN - env.monotonic()) > 0:
            await env.sleep(early_s)
        self._began, self._moves = env.monotonic(), self.link.moves
        name = self._name = f"logact-{env.identifier()}"
        inbox = client.new_inbox()
        self._delivered, self._heard, self._broken, self.problem = 0, env.monotonic(), False, None
        mine = object()
        self._current = mine

        async def on_message(message: Any) -> None:
            if self._current is mine:
                await self._on_message(message)

        try:
            self._subscription = await client.subscribe(
                inbox, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
            await self.link.api(
                f"CONSUMER.CREATE.{self.stream}.{name}",
                {
                    "stream_name": self.stream,
                    "config": {
                        "name": name,
                        "deliver_subject": inbox,
                        "deliver_policy": "by_start_sequence",
                        "opt_start_seq": max(first, 1),
                        "ack_policy": "none",
                        "max_deliver": 1,
                        "replay_policy": "instant",
                        "flow_control": True,
                        "idle_heartbeat": int(HEARTBEAT_S * 1e9),
                        "inactive_threshold": int(INACTIVE_S * 1e9),
                        "mem_storage": True,
                        "num_replicas": 1,
                    },
                },
            )
            self.restarts += 1
        except (Answerless, Refused, errors.Error, OSError, asyncio.CancelledError) as error:
            self._broken = True
            if isinstance(error, errors.Error | OSError) and not isinstance(error, Answerless):
                raise LogUnavailable("The log cannot be followed now", received=str(error)) from error
            raise

    async def _on_message(self, message: Any) -> None:
        self._heard = environment.current().monotonic()
        headers = message.headers or {}
        if headers.get("Status"):
            # a heartbeat; with flow control it (or a request of its own) wants an answer, or deliveries stop
            reply = message.reply or headers.get("Nats-Consumer-Stalled")
            if reply and self.link.client is not None:
                await self.link.client.publish(reply)
            elif headers.get("Nats-Last-Consumer") not in {None, str(self._delivered)}:
                self._break(None)
            return
        if self._broken:
            return
        sequence, delivered = _place(message.reply)
        if delivered != self._delivered + 1:
            self._break(None)
            return
        try:
            await self._deliver(sequence, message.subject, message.data, headers)
            self._delivered = delivered
        except (Answerless, Refused):
            self._break(None)
        except LogError as error:
            self._break(error)

    def _break(self, problem: LogError | None) -> None:
        self._broken, self.problem = True, problem
        self._wake()

    async def _drop(self) -> None:
        from nats import errors

        subscription, self._subscription = self._subscription, None
        name, self._name = self._name, ""
        self._current = None
        if subscription is not None:
            try:
                await subscription.unsubscribe()
                if name and self.link.client is not None and self.link.client.is_connected:
                    await self.link.client.publish(f"$JS.API.CONSUMER.DELETE.{self.stream}.{name}")
            except (errors.Error, OSError):
                pass  # it ended with its connection; the server removes what nobody listens to

    async def close(self) -> None:
        """Stop listening, and have the server remove the consumer."""
        self._broken = True
        await self._drop()


def _place(reply: str) -> tuple[int, int]:
    """(stream sequence, delivery number) from the reply subject of a delivery, in its old or its new form."""
    parts = reply.split(".")
    at = 5 if len(parts) == 9 else 7
    return int(parts[at]), int(parts[at + 1])
