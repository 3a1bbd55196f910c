"""Tools from any MCP server, through the official client (the ``mcp`` extra, imported on first use).

A server's annotations are hints by whoever wrote it: they are taken as the declared effects, since the operator
chose the server, and ``effects=`` overrides them one by one. Results are always untrusted. A call whose answer
never came is ambiguous: the server may have acted.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from logact.entry import Effect
from logact.errors import MissingExtra, ToolDefinitionError
from logact.tools.answers import ImageResult, ToolContext, ToolError
from logact.tools.base import Tool

TOOLS_MAX = 500
_META_KEY = "dev.logact/key"


@asynccontextmanager
async def mcp_tools(
    server: str | Sequence[str] | Any,
    *,
    effects: Mapping[str, Effect] | None = None,
    trust_annotations: bool = True,
    prefix: str = "",
    only: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    directory: str | Path | None = None,
    timeout_s: float = 60.0,
) -> AsyncIterator[list[Tool]]:
    """The tools of an MCP server, for as long as the ``async with`` block lasts.

    ``server`` is a command as a list (``["uvx", "some-server"]``), a URL, or anything else that ``mcp.Client``
    takes. The block has to be left in the task that entered it. ``effects`` declares effects by the server's tool
    names; without it, and without ``trust_annotations``, every tool is irreversible. ``prefix`` goes before
    each name, ``only`` picks some. A process that is started gets a small clean environment plus ``environment``.

    Raises ``MissingExtra``, and a definite :class:`ToolError` if the server cannot be reached.
    """
    try:
        import mcp
    except ImportError as error:
        raise MissingExtra(
            "Tools from MCP servers need the official client",
            expected="the package mcp",
            todo="run: pip install 'logact[mcp]'",
        ) from error
    target: Any = server
    if not isinstance(server, str) and isinstance(server, Sequence):
        if not server:
            raise ToolDefinitionError("The MCP server's command is empty", received="[]", expected="a program")
        target = mcp.StdioServerParameters(
            command=str(server[0]),
            args=[str(argument) for argument in server[1:]],
            env=dict(environment or {}),
            cwd=directory,
        )
    entered = False
    try:
        async with mcp.Client(target, read_timeout_seconds=timeout_s) as client:
            tools = await _tools_of(
                client,
                effects=effects or {},
                trust_annotations=trust_annotations,
                prefix=prefix,
                only=only,
                timeout_s=timeout_s,
            )
            entered = True
            yield tools
    except Exception as error:
        cause = _only_cause(error)
        if entered or isinstance(cause, ToolDefinitionError):
            raise cause from cause.__cause__
        raise ToolError(
            f"The MCP server cannot be used: {_words(cause)}", kind="environment", definite=True
        ) from error


async def _tools_of(
    client: Any,
    *,
    effects: Mapping[str, Effect],
    trust_annotations: bool,
    prefix: str,
    only: Sequence[str] | None,
    timeout_s: float,
) -> list[Tool]:
    offered: list[Any] = []
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        offered += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
        if len(offered) > TOOLS_MAX:
            raise ToolDefinitionError(
                "The MCP server offers too many tools", received=f"over {TOOLS_MAX}", expected="a smaller server"
            )
    names = {item.name for item in offered}
    for wanted in (*(only or ()), *effects):
        if wanted not in names:
            raise ToolDefinitionError(
                f"The MCP server has no tool {wanted!r}",
                received=wanted,
                expected=f"one of {', '.join(sorted(names))}",
                todo="correct only= or effects=",
            )
    version = getattr(getattr(client, "server_info", None), "version", "") or "1"
    return [
        Tool(
            _forward(client, item.name, timeout_s),
            name=re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + item.name)[:64],
            description=item.description or item.title or item.name,
            effect=effects.get(item.name) or _annotated(item.annotations if trust_annotations else None),
            version=version,
            timeout_s=timeout_s + 5,
            untrusted=True,
            parameters=item.input_schema,
        )
        for item in offered
        if only is None or item.name in only
    ]


def _annotated(annotations: Any) -> Effect:
    """The effect that a server's hints declare. Purely additive is not the same as harmless when done twice."""
    if annotations is not None and annotations.read_only_hint:
        return "read"
    if annotations is not None and annotations.idempotent_hint:
        return "idempotent"
    return "irreversible"


def _forward(client: Any, name: str, timeout_s: float) -> Any:
    async def forward(arguments: dict[str, Any], context: ToolContext) -> Any:
        import mcp

        meta = {_META_KEY: context.key} if context.key else None
        try:
            result = await client.call_tool(name, arguments, read_timeout_seconds=timeout_s, meta=meta)
        except mcp.MCPError as error:
            raise _protocol_error(name, error) from error
        except TimeoutError as error:
            raise ToolError(f"{name} did not answer within {timeout_s:g} s", kind="timeout") from error
        except Exception as error:
            raise ToolError(f"{name}: no answer came: {_words(error)}", kind="ambiguous") from error
        if result.is_error:
            raise ToolError("\n".join(_texts(result.content)) or f"{name} failed", kind="failed")
        return _value(result)

    return forward


def _protocol_error(name: str, error: Any) -> ToolError:
    if error.code in (-32700, -32600, -32601):
        # the server could not read the request, or knows no such method: no tool's code was reached
        return ToolError(f"{name}: {error.message}", kind="permanent", definite=True)
    if error.code == -32602:  # mostly an unknown tool, but a tool may raise it too, at any moment
        return ToolError(f"{name}: {error.message}", kind="permanent")
    if error.code in (-32001, 408) or "timed out" in error.message.lower():
        return ToolError(f"{name}: {error.message}", kind="timeout")
    if error.code == -32000:  # the connection is gone; the request may have arrived before
        return ToolError(f"{name}: {error.message}", kind="ambiguous")
    return ToolError(f"{name}: {error.message}", kind="failed")


def _value(result: Any) -> Any:
    """A result as plain data: the structured one if it says more than the text, images as images."""
    parts: list[Any] = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "image":
            try:
                parts.append(ImageResult(base64.b64decode(block.data, validate=True), block.mime_type))
            except binascii.Error:
                parts.append("[an image that cannot be read]")
        elif block.type == "resource" and hasattr(block.resource, "text"):
            parts.append(block.resource.text)
        else:
            parts.append(f"[{block.type}, left out]")
    structured = result.structured_content
    if structured is not None and all(isinstance(part, str) for part in parts):
        wrapped = isinstance(structured, dict) and set(structured) == {"result"}
        return structured["result"] if wrapped else structured
    if len(parts) == 1:
        return parts[0]
    return "\n".join(parts) if all(isinstance(part, str) for part in parts) else parts


def _texts(content: Any) -> list[str]:
    return [block.text for block in content if block.type == "text"]


def _only_cause(error: BaseException) -> BaseException:
    """The one error inside of nested groups (task groups wrap what passes through them)."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    cause = _only_cause(error)
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
