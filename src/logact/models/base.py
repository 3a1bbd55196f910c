"""The model door: one method, plain structs. Nothing here knows a provider.

A model proposes; it cannot act. Whatever answers a :class:`ModelRequest` is a model: a provider, a recording,
or a script. The rest of LogAct cannot tell them apart.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from logact.entry import Call, Retried, ToolSpec, Usage


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image in a message: raw bytes and their media type (``image/png``)."""

    data: bytes
    media_type: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message of a conversation.

    ``assistant`` messages carry ``calls``; each ``tool`` message answers one call (``call_id``) and is marked
    ``is_error`` if the action was refused or failed.
    """

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    images: tuple[Image, ...] = ()
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    tool: str = ""
    is_error: bool = False


class ModelRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a model is asked. ``answer_schema`` (JSON Schema) asks for a structured final answer."""

    system: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    answer_schema: dict[str, Any] | None = None
    max_output_tokens: int = 0


class ModelAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a model said: a text, tool calls, or both. No calls means that the text is the final answer.

    ``stop`` is why it ended: ``stop``, ``tool_calls``, ``length`` (cut off), ``filter`` or the provider's word.
    ``retried`` are the errors of a provider that were survived by asking again.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    stop: str = "stop"
    usage: Usage = Usage()
    model: str = ""
    retried: tuple[Retried, ...] = ()


@runtime_checkable
class Model(Protocol):
    """Whatever can answer. ``name`` goes into the log with each inference."""

    name: str

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """Answer a request, or raise a ModelError (see ``logact.errors``)."""
        ...
