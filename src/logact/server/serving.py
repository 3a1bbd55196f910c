"""Runs the server as a process: sockets, TLS, slow connections, and an end that cuts nobody short.

On SIGTERM or SIGINT it takes no new connections, tells its streams to end, lets requests finish for a while, closes
the logs, and returns.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from logact.errors import LogUnavailable, UsageError
from logact.logs.network_url import is_this_machine
from logact.server.app import LogServer


class Protocol(H11Protocol):
    """HTTP/1.1 that gives up on connections whose request never comes, and lets an answer cut its own connection."""

    head_s_max = 15.0
    """How long a request's head may take to come, counted from the connection or from its first byte."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "cut": transport.abort}
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect()  # a part of a head
        elif self._late is not None and self.conn.their_state is not h11.IDLE:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.head_s_max, self.transport.abort)


class _Server(uvicorn.Server):
    """Tells the application that the end has come before it waits for the answers that are under way."""

    def __init__(self, config: uvicorn.Config, server: LogServer, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.log_server = server
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # the end was asked for: no reason to die of the signal afterwards

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.log_server.closing.set()
        await super().shutdown(sockets)


async def serve(
    server: LogServer,
    host: str,
    port: int,
    *,
    cert: str = "",
    key: str = "",
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until the process is asked to end. ``ready`` is told the address. Raises UsageError, LogUnavailable."""
    if key and not cert:
        raise UsageError("A key without its certificate", received=f"--key {key}", todo="add --cert FILE")
    if not cert and not is_this_machine(host):
        raise UsageError(
            "Tokens would travel in clear text",
            received=f"--host {host} without a certificate",
            expected="--cert and --key, or a host of this machine only",
            todo="or let a proxy on this machine speak TLS, and serve it on 127.0.0.1",
        )
    config = _config(server, cert, key)
    listening = _listening(host, port)
    name = f"[{host}]" if ":" in host else host
    url = f"{'https' if cert else 'http'}://{name}:{listening.getsockname()[1]}"
    running = _Server(config, server, lambda: ready(url))
    server.connections = lambda: len(running.server_state.connections)
    try:
        async with server.running():
            await running.serve(sockets=[listening])
    finally:
        listening.close()


def _listening(host: str, port: int) -> socket.socket:
    # the protocol is named, since asyncio sets TCP_NODELAY only then; without it every answer takes 40 ms
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        raise LogUnavailable("The address cannot be used", received=f"{host}:{port}: {error}") from error
    listening.setblocking(False)
    return listening


def _config(server: LogServer, cert: str, key: str) -> uvicorn.Config:
    config = uvicorn.Config(
        server.app,
        http=type("Protocol", (Protocol,), {"head_s_max": server.limits.head_s_max}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=server.limits.connections_max,
        timeout_keep_alive=round(server.limits.idle_s_max),
        timeout_graceful_shutdown=round(server.limits.grace_s),
        ssl_certfile=cert or None,
        ssl_keyfile=key or None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UsageError("The certificate cannot be used", received=str(error), todo="check --cert, --key") from error
    return config


__all__ = ["Protocol", "serve"]
