"""The server's description of itself: OpenAPI 3.1, made from the very shapes that requests are decoded with."""

from __future__ import annotations

from typing import Any

import msgspec

from logact import __version__
from logact.logs import wire
from logact.logs.names import SERVED_NAME, SERVED_NAME_MAX
from logact.server import routes
from logact.server.limits import Limits

_REF = "#/components/schemas/{name}"
_SHAPES = (
    wire.AboutAnswer,
    wire.AppendRequest,
    wire.AppendAnswer,
    wire.RecordsAnswer,
    wire.NumberAnswer,
    wire.NewsAnswer,
    wire.EraseRequest,
    wire.TrimRequest,
    wire.DoneAnswer,
    wire.ErrorAnswer,
    routes.ReadRequest,
    routes.EntriesQuery,
    routes.WaitQuery,
    routes.FollowQuery,
)
_LOG = {
    "name": "log",
    "in": "path",
    "required": True,
    "description": "The log's name.",
    "schema": {"type": "string", "pattern": f"^{SERVED_NAME}$", "maxLength": SERVED_NAME_MAX},
}
_DIGEST = {
    "name": "digest",
    "in": "path",
    "required": True,
    "description": "SHA-256 in URL-safe base 64, without padding.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
}
_ERRORS = {
    "400": "It cannot be understood.",
    "401": "The token is unknown, expired or revoked.",
    "403": "The token does not allow it.",
    "404": "There is no such thing.",
    "405": "There is no such method here.",
    "408": "The body came too slowly.",
    "409": "It contradicts what is there.",
    "410": "It was trimmed.",
    "413": "It is too large.",
    "429": "Too many requests.",
    "503": "The engine does not answer.",
    "507": "The engine's disk is full.",
}


def description(limits: Limits) -> dict[str, Any]:
    """The description of a server with these limits."""
    _, shapes = msgspec.json.schema_components(_SHAPES, ref_template=_REF)
    log = wire.API + "/logs/{log}"
    blob = {
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary", "maxLength": limits.blob_bytes_max}
        }
    }
    paths: dict[str, Any] = {
        "/healthz": {"get": _operation("healthz", "Whether the engine answers.", {"status": "ok"}, open_to_all=True)},
        "/metrics": {"get": _operation("metrics", "Numbers for Prometheus.", "text/plain", open_to_all=True)},
        "/openapi.json": {"get": _operation("openapi", "This description.", {}, open_to_all=True)},
        log: {
            "get": _operation("about", "The log, and what the token allows.", wire.AboutAnswer),
            "put": _operation("make", "Make the log if there is none; the same answer.", wire.AboutAnswer),
        },
        f"{log}/append": {
            "post": _operation("append", "Append records.", wire.AppendAnswer, takes=wire.AppendRequest)
        },
        f"{log}/read": {
            "post": _operation("read", "A page of records.", wire.RecordsAnswer, takes=routes.ReadRequest)
        },
        f"{log}/entries": {"get": _operation("entries", "Entries, decoded.", {}, query=routes.EntriesQuery)},
        f"{log}/follow": {
            "get": _operation(
                "follow",
                "Entries or records as they come.",
                "text/event-stream",
                query=routes.FollowQuery,
                resumes=True,
            )
        },
        f"{log}/tail": {"get": _operation("tail", "The last record's number.", wire.NumberAnswer)},
        f"{log}/wait": {"get": _operation("wait", "Wait for news.", wire.NewsAnswer, query=routes.WaitQuery)},
        f"{log}/checkpoint": {"get": _operation("checkpoint", "The last checkpoint's record.", wire.NumberAnswer)},
        f"{log}/blobs/{{digest}}": {
            "get": _operation("get_blob", "A blob.", "application/octet-stream"),
            "put": _operation("put_blob", "Store a blob.", wire.DoneAnswer, raw=blob),
        },
        f"{log}/erase": {"post": _operation("erase", "Erase a payload.", wire.DoneAnswer, takes=wire.EraseRequest)},
        f"{log}/trim": {"post": _operation("trim", "Drop old records.", wire.DoneAnswer, takes=wire.TrimRequest)},
    }
    for path, methods in paths.items():
        here = [parameter for parameter in (_LOG, _DIGEST) if f"{{{parameter['name']}}}" in path]
        if here:
            methods["parameters"] = here
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LogAct, a served log",
            "version": __version__,
            "description": "An append-only, totally ordered log with roles. Who may append what: docs/server.md.",
        },
        "paths": paths,
        "components": {
            "schemas": shapes,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`logact token create`"}
            },
        },
    }


def _operation(
    name: str,
    told: str,
    gives: Any,
    *,
    takes: type | None = None,
    raw: dict[str, Any] | None = None,
    query: type[msgspec.Struct] | None = None,
    resumes: bool = False,
    open_to_all: bool = False,
) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": name, "summary": told, "responses": _responses(gives, open_to_all)}
    if takes is not None:
        found["requestBody"] = {"required": True, "content": {routes.JSON: {"schema": _ref(takes)}}}
    if raw is not None:
        found["requestBody"] = {"required": True, "content": raw}
    if query is not None:
        found["parameters"] = _parameters(query)
    if resumes:
        found["parameters"].append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The position of the last event that was received.",
                "schema": {"type": "string", "pattern": "^[0-9]{1,16}$"},
            }
        )
    if not open_to_all:
        found["security"] = [{"token": []}]
    return found


def _responses(gives: Any, open_to_all: bool) -> dict[str, Any]:
    if isinstance(gives, str):
        content = {gives: {"schema": {"type": "string"}}}
    elif isinstance(gives, dict):
        content = {routes.JSON: {"schema": {"type": "object"}}}
    else:
        content = {routes.JSON: {"schema": _ref(gives)}}
    error = {routes.JSON: {"schema": _ref(wire.ErrorAnswer)}}
    refused = ["405", "503"] if open_to_all else list(_ERRORS)
    answers = {status: {"description": _ERRORS[status], "content": error} for status in refused}
    return {"200": {"description": "Done.", "content": content}, **answers}


def _parameters(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    """Each field as a parameter; a filter travels as JSON."""
    _, components = msgspec.json.schema_components((query,), ref_template=_REF)
    fields = components[query.__name__]["properties"]
    found = []
    for name, schema in fields.items():
        plain = {key: value for key, value in schema.items() if key != "default"}
        one: dict[str, Any] = {"name": name, "in": "query"}
        if name == "filter":
            one["content"] = {routes.JSON: {"schema": {"$ref": _REF.format(name="Filter")}}}
        else:
            one["schema"] = plain
        found.append(one)
    return found


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
