"""What a served log can be asked: each route takes its request apart, asks the guard, does one thing, and answers.

What a route takes and gives are the shapes here and in ``logs/wire.py``; ``openapi.py`` describes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from logact import env as environment
from logact.errors import LogActError, LogSealed, TooLarge, TooManyRequests, UsageError
from logact.logs import wire
from logact.logs.base import Filter
from logact.server import guard
from logact.server.follow import plain, stream, wait_for_news
from logact.server.hub import Hub, Served
from logact.server.limits import Limits, Streams, read_body
from logact.server.metrics import Metrics
from logact.server.paced import PacedResponse
from logact.server.pages import read_page
from logact.server.problems import REFUSALS, BlobMismatch
from logact.server.tokens import Token

T = TypeVar("T")
JSON = "application/json"
READ_BODY_BYTES_MAX = 1024 * 1024
SMALL_BODY_BYTES_MAX = 64 * 1024


class Serving(Protocol):
    """What the routes need of the server."""

    limits: Limits
    hub: Hub
    metrics: Metrics
    streams: Streams
    closing: asyncio.Event

    async def refuse(self, name: str, token: Token | None, error: LogActError, client: str) -> None:
        """Count a refused attempt and write it down."""


class Call:
    """One request by a known token to one log."""

    def __init__(self, app: Serving, request: Request, token: Token, served: Served) -> None:
        self.app = app
        self.client = request.client.host if request.client else ""
        self.request = request
        self.token = token
        self.served = served
        self.log = served.log
        self.engine = served.log.engine

    async def body(self, kind: type[T], most: int) -> T:
        """The body as JSON of a shape. Raises UsageError, TooLarge."""
        if self.request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise UsageError("The request is not JSON", expected=f"Content-Type: {JSON}")
        data = await read_body(self.request, most, self.app.limits)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(
                "The request does not fit", received=str(error)[:300], todo="see /openapi.json"
            ) from error

    def query(self, kind: type[T]) -> T:
        """The query as a shape; a parameter that is given twice or unknown is refused."""
        given = self.request.query_params
        found: dict[str, Any] = {}
        for name, value in given.multi_items():
            if name in found:
                raise UsageError("A parameter is given twice", received=name[:60])
            found[name] = value
        try:
            if "filter" in found:
                found["filter"] = msgspec.json.decode(found["filter"])
            return msgspec.convert(found, kind, strict=False)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError("The query does not fit", received=str(error)[:300], todo="see /openapi.json") from error


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


async def about(call: Call) -> wire.AboutAnswer:
    """The log, and who asks."""
    call.query(Nothing)
    info, token = call.engine.info(), call.token
    you = wire.You(
        token=token.id,
        name=token.name,
        roles=list(token.roles),
        agents=list(token.agents),
        voters=list(token.voters),
        expires_ms=token.expires_ms,
        relay=token.relay,
    )
    return wire.AboutAnswer(
        log=call.served.name,
        log_id=call.engine.log_id,
        tail=await call.engine.tail(),
        engine=info.engine,
        survives=info.survives,
        record_bytes_max=info.record_bytes_max,
        you=you,
    )


async def append(call: Call) -> wire.AppendAnswer:
    """Append records; they share the engine's group commit, and each has its own outcome."""
    guard.may(call.token, "write")
    asked = await call.body(wire.AppendRequest, call.app.limits.body_bytes_max)
    began = environment.current().monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_append_one(call, draft)) for draft in asked.drafts]
    call.app.metrics.observe_append(environment.current().monotonic() - began)
    return wire.AppendAnswer([task.result() for task in tasks])


async def _append_one(call: Call, asked: wire.WireDraft) -> wire.Outcome:
    counted = call.app.metrics
    try:
        draft = await call.served.guard.draft(call.token, asked)
        try:
            record, fresh = await call.engine.append(draft)
        except LogSealed:
            if not await call.log.move_on():
                raise
            record, fresh = await call.log.engine.append(draft)  # the log goes on elsewhere
    except LogActError as error:
        counted.add("logact_append_errors_total", code=error.code)
        if isinstance(error, REFUSALS) and not call.token.relay:
            await call.app.refuse(call.served.name, call.token, error, call.client)
        return wire.Outcome(error=wire.told(error))
    if fresh:
        counted.add("logact_records_appended_total")
        counted.add("logact_record_bytes_appended_total", len(draft.body))
    return wire.Outcome(record=record, fresh=fresh)


class ReadRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Records after a number, at most so many; with a filter, only those that match."""

    after: wire.Number = 0
    limit: wire.Count = 512
    filter: Filter | None = None


async def read(call: Call) -> wire.RecordsAnswer:
    """A page of records, linearizable."""
    asked = await call.body(ReadRequest, READ_BODY_BYTES_MAX)
    page = await read_page(call.log, asked.after, asked.limit, asked.filter, call.app.limits.page_bytes_max)
    call.app.metrics.add("logact_records_read_total", len(page.records))
    return wire.RecordsAnswer([wire.WireRecord(one.record, one.body) for one in page.records], page.upto, page.end)


class EntriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries after a position."""

    after: wire.Count = 0
    limit: wire.Count = 100
    filter: Filter | None = None


async def entries(call: Call) -> dict[str, Any]:
    """Entries, decoded, for whoever doesn't fold."""
    asked = call.query(EntriesQuery)
    limit = min(asked.limit, 1000)
    found = [plain(entry) async for entry in call.log.read(asked.after, limit=limit or 1, matching=asked.filter)]
    return {"entries": found[:limit]}


async def tail(call: Call) -> wire.NumberAnswer:
    """The last record's number, linearizable."""
    call.query(Nothing)
    return wire.NumberAnswer(await call.engine.tail())


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Until something stands after this record, or the time is over."""

    after: wire.Count = 0
    timeout_s: float = 30.0


async def wait(call: Call) -> wire.NewsAnswer:
    """Wait for news; the server is woken by its engine, and asks nobody again and again."""
    asked = call.query(WaitQuery)
    timeout_s = max(0.0, min(asked.timeout_s, call.app.limits.wait_s_max))
    with call.app.streams.one(call.token.id):
        news = await wait_for_news(call.log, asked.after, timeout_s, call.app.closing)
    return wire.NewsAnswer(news, call.engine.hint())


async def checkpoint(call: Call) -> wire.NumberAnswer:
    """The last record that holds a checkpoint."""
    call.query(Nothing)
    return wire.NumberAnswer(await call.engine.last_checkpoint())


async def get_blob(call: Call) -> Response:
    """A blob's bytes."""
    digest = _digest(call)
    return Response(await call.engine.get_blob(digest), media_type="application/octet-stream")


async def put_blob(call: Call) -> wire.DoneAnswer:
    """Store a blob under its digest, durably."""
    guard.may(call.token, "write")
    digest = _digest(call)
    most = call.app.limits.blob_bytes_max
    data = await read_body(call.request, most, call.app.limits)
    try:
        guard.check_blob(digest, data, most)
    except UsageError as error:
        raise error if isinstance(error, TooLarge) else BlobMismatch(error.message, received=digest) from error
    await call.engine.put_blob(digest, data)
    return wire.DoneAnswer()


def _digest(call: Call) -> str:
    call.query(Nothing)
    try:
        return msgspec.convert(call.request.path_params["digest"], wire.Digest)
    except msgspec.ValidationError as error:
        raise UsageError("This is not a digest", expected="43 characters of URL-safe base 64") from error


async def erase(call: Call) -> wire.DoneAnswer:
    """Erase one payload; an operator says so in the log first, with an ``Erased`` entry."""
    guard.may(call.token, "erase")
    asked = await call.body(wire.EraseRequest, SMALL_BODY_BYTES_MAX)
    await guard.check_erasable(call.token, call.engine, asked.record, asked.index)
    await call.engine.erase(asked.record, asked.index)
    return wire.DoneAnswer()


async def trim(call: Call) -> wire.DoneAnswer:
    """Drop the records before one."""
    guard.may(call.token, "trim")
    asked = await call.body(wire.TrimRequest, SMALL_BODY_BYTES_MAX)
    guard.whole_log(call.token)
    await call.engine.trim(asked.before)
    return wire.DoneAnswer()


class FollowQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events after a position; ``Last-Event-ID`` goes before ``after``."""

    after: wire.Count = 0
    form: str = "entries"
    live: bool = True
    filter: Filter | None = None


async def follow(call: Call) -> Response:
    """Events as they come, for as long as the client stays and its token is valid."""
    asked = call.query(FollowQuery)
    if asked.form not in ("entries", "records"):
        raise UsageError("There is no such form", received=asked.form[:40], expected="entries or records")
    told = call.request.headers.get("last-event-id", "")
    if told and not (told.isdecimal() and len(told) <= 16):
        raise UsageError("Last-Event-ID is no position", received=told[:40])
    app, token, name = call.app, call.token, call.served.name
    app.streams.check(token.id)

    async def events() -> AsyncGenerator[bytes, None]:
        with app.streams.one(token.id):
            async with app.hub.use(name) as held:
                source = stream(
                    held.log,
                    int(told) if told else asked.after,
                    asked.filter,
                    "records" if asked.form == "records" else "entries",
                    ping_s=app.limits.ping_s,
                    page_bytes=app.limits.page_bytes_max,
                    live=asked.live,
                    closing=app.closing,
                    valid=lambda: app.hub.book.is_valid(token),
                )
                async with aclosing(source):
                    async for event in source:
                        yield event

    async def too_slow() -> None:
        app.metrics.add("logact_slow_clients_cut_total")
        slow = TooManyRequests("A client took too long to read, and was cut off")
        await app.refuse(name, token, slow, call.client)
        cut = getattr(call.request.state, "cut", None)
        if cut is not None:
            cut()  # last, since it ends the task that this runs in

    return PacedResponse(events(), app.limits.send_s_max, too_slow)
