"""A server of logs as an ASGI application: who asks, the rates, the errors, the counts around every route.

Every answer is JSON (but for blobs, metrics and streams), every error a row of ``logact.errors``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from logact.errors import LogActError, LogError, LogMissing, LogUnavailable, TokenRefused, TooManyRequests, UsageError
from logact.logs import wire
from logact.server import guard, metrics, openapi, routes
from logact.server.hub import Hub
from logact.server.limits import Limits, Rates, Streams
from logact.server.names import check_name
from logact.server.problems import REFUSALS, status_of
from logact.server.tokens import Token

HEALTH_S_MAX = 4.0
"""How long the engine may take to show that it is there; monitors ask often and wait for seconds."""

LOGGER = logging.getLogger("logact.server")
Work = Callable[[routes.Call], Awaitable[Any]]


class LogServer:
    """A server of the logs of one engine, as an ASGI application (``app``)."""

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.hub = Hub(url, self.limits)
        self.metrics = metrics.Metrics()
        self.requests = Rates(self.limits.requests_per_s)
        self.reloads = Rates(20.0)
        self.failures = Rates(self.limits.failures_per_s)
        self.streams = Streams(self.limits.streams_per_token_max)
        self.closing = asyncio.Event()
        self.connections: Callable[[], int] = lambda: 0
        log = wire.API + "/logs/{log}"
        self.app = Starlette(
            routes=[
                Route("/healthz", self._open("healthz", self.healthz)),
                Route("/metrics", self._open("metrics", self.show_metrics)),
                Route("/openapi.json", self._open("openapi", self.show_openapi)),
                Route(log, self._asked("about", routes.about), methods=["GET"]),
                Route(log, self._asked("make", routes.about, make=True), methods=["PUT"]),
                Route(log + "/append", self._asked("append", routes.append), methods=["POST"]),
                Route(log + "/read", self._asked("read", routes.read), methods=["POST"]),
                Route(log + "/entries", self._asked("entries", routes.entries)),
                Route(log + "/follow", self._asked("follow", routes.follow)),
                Route(log + "/tail", self._asked("tail", routes.tail)),
                Route(log + "/wait", self._asked("wait", routes.wait)),
                Route(log + "/checkpoint", self._asked("checkpoint", routes.checkpoint)),
                Route(log + "/blobs/{digest}", self._asked("get_blob", routes.get_blob), methods=["GET"]),
                Route(log + "/blobs/{digest}", self._asked("put_blob", routes.put_blob), methods=["PUT"]),
                Route(log + "/erase", self._asked("erase", routes.erase), methods=["POST"]),
                Route(log + "/trim", self._asked("trim", routes.trim), methods=["POST"]),
            ],
            exception_handlers={404: self._no_route, 405: self._no_route},
        )
        self.app.router.redirect_slashes = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the server runs: its own log is open, and new and revoked tokens are learnt. Raises LogError."""
        await self.hub.start()
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self.hub.follow())
                try:
                    yield
                finally:
                    self.closing.set()
                    following.cancel()
        finally:
            await self.hub.close()

    # --- what needs no token -------------------------------------------------------------------------------------

    async def healthz(self, _: Request) -> Response:
        """Whether the engine answers. Nobody is known here, so nothing is said of where it is."""
        try:
            async with asyncio.timeout(HEALTH_S_MAX):
                await self.hub.book.log.tail()
        except (LogError, TimeoutError) as error:
            raise LogUnavailable("The engine below the server does not answer") from error
        return _json({"status": "ok"})

    async def show_metrics(self, _: Request) -> Response:
        """The numbers, for Prometheus."""
        gauges = {
            "logact_streams_open": sum(self.streams.open.values()),
            "logact_logs_open": len(self.hub.logs),
            "logact_connections_open": self.connections(),
        }
        return Response(self.metrics.text(gauges), headers={"content-type": metrics.CONTENT_TYPE})

    async def show_openapi(self, _: Request) -> Response:
        """The description of all this."""
        return _json(openapi.description(self.limits))

    # --- around every route --------------------------------------------------------------------------------------

    def _open(self, route: str, work: Callable[[Request], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            return await self._answered(route, request, lambda: work(request))

        return handle

    def _asked(self, route: str, work: Work, *, make: bool = False) -> Callable[..., Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            async def call() -> Response:
                token = await self._token(request)
                request.state.token = token
                self.requests.check(token.id)
                name = check_name(request.path_params["log"])
                if not token.covers(name):
                    raise guard.out_of_scope(token, name)
                request.state.log = name
                found = await self._with_log(work, request, token, name, make=make)
                return found if isinstance(found, Response) else _json(found)

            return await self._answered(route, request, call)

        return handle

    async def _with_log(self, work: Work, request: Request, token: Token, name: str, *, make: bool) -> Any:
        try:
            async with self.hub.use(name) as served:
                return await work(routes.Call(self, request, token, served))
        except LogMissing:
            if not make or not guard.writes(token):
                raise
        guard.check_create(token, name)
        async with self.hub.use(name, create=True) as served:
            return await work(routes.Call(self, request, token, served))

    async def _token(self, request: Request) -> Token:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise TokenRefused("There is no token", expected="Authorization: Bearer TOKEN", todo="set LOGACT_TOKEN")
        try:
            return self.hub.book.find(text.strip())
        except TokenRefused:
            # it may be so new that this server has not heard of it
            if not self.hub.book.unheard(text.strip()) or self.reloads.take("all"):
                raise
            await self.hub.book.load()
            return self.hub.book.find(text.strip())

    async def _answered(self, route: str, request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
        try:
            answer = await work()
        except LogActError as error:
            answer = await self._refused(request, error)
        except Exception as error:
            LOGGER.exception("a defect of the server")
            answer = _error(LogError("A defect of the server", received=type(error).__name__), 500)
        self.metrics.add("logact_requests_total", route=route, status=str(answer.status_code))
        return answer

    async def _refused(self, request: Request, error: LogActError) -> Response:
        token = getattr(request.state, "token", None)
        client = request.client.host if request.client else ""
        if isinstance(error, TokenRefused):
            wait_s = self.failures.take(client)
            if wait_s:
                return _error(TooManyRequests("Too many requests", todo="wait"), 429, wait_s)
        if isinstance(error, REFUSALS):
            await self.refuse(getattr(request.state, "log", ""), token, error, client)
        return _error(error, status_of(error))

    async def refuse(self, name: str, token: Token | None, error: LogActError, client: str) -> None:
        """Count a refused attempt and write it down."""
        self.metrics.add("logact_refused_total", code=error.code)
        await self.hub.note(name, token, error, client)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        said = UsageError("There is nothing here", received=request.url.path[:200], todo="see /openapi.json")
        self.metrics.add("logact_requests_total", route="none", status=str(status))
        if ".." in request.url.path:  # no client of ours asks for that
            await self.refuse("", None, said, request.client.host if request.client else "")
        answer = _error(said, status)
        answer.headers.update(getattr(error, "headers", None) or {})
        return answer


def _json(value: Any) -> Response:
    return Response(wire.encoded(value), media_type=routes.JSON)


def _error(error: LogActError, status: int, wait_s: float = 1.0) -> Response:
    headers = {"retry-after": str(max(1, round(wait_s)))} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(
        wire.encoded(wire.ErrorAnswer(wire.told(error))), status_code=status, media_type=routes.JSON, headers=headers
    )
