"""One request to a provider: LogAct's structs to the client's, and its answer back.

Importing this module imports the ``llm`` extra (pydantic-ai with the OpenAI and Anthropic clients). It asks once:
retries belong to ``provider``, and what an error means to ``failures``. Tools are only described to the model;
nothing here can call one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, cast

import anthropic
import httpx2
import msgspec
import openai
from pydantic_ai import messages as wire
from pydantic_ai.direct import model_request
from pydantic_ai.models import Model as WireModel
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from logact.entry import Call, ToolSpec, Usage
from logact.errors import ModelRefused
from logact.models.base import Image, Message, ModelAnswer, ModelRequest
from logact.models.failures import AnswerTooLarge, AnswerUnreadable

ANSWER_BYTES_MAX = 32 * 1024 * 1024
"""The most bytes of a provider's answer that are read: a broken endpoint must not fill the memory."""

CONNECT_S_MAX = 10.0

ANSWER_TOOL = "answer"

_STOPS = {"stop": "stop", "length": "length", "content_filter": "filter", "tool_call": "tool_calls"}


# --- the client ------------------------------


class _Limited(httpx2.AsyncByteStream):
    """A response's bytes, up to a limit."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for piece in self._inner:
            count += len(piece)
            if count > ANSWER_BYTES_MAX:
                raise AnswerTooLarge(f"more than {ANSWER_BYTES_MAX} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _limit(response: httpx2.Response) -> None:
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Limited(response.stream)


@functools.cache
def _certificates() -> Any:
    return httpx2.create_ssl_context()  # reading the certificates takes 20 ms: once for all clients


def open_client(timeout_s: float) -> httpx2.AsyncClient:
    """A client of its own, to be closed by the caller. It follows no redirects, which could carry a key away."""
    return httpx2.AsyncClient(
        verify=_certificates(),
        timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S_MAX, timeout_s)),
        event_hooks={"response": [_limit]},
    )


def wire_model(
    protocol: Literal["openai", "anthropic"],
    model: str,
    *,
    base_url: str | None,
    key: str,
    client: httpx2.AsyncClient,
    classic_limit: bool,
) -> WireModel[Any]:
    """The client's model. ``classic_limit``: say ``max_tokens``, as compatible servers do."""
    # the clients' own retries are off: they would sleep where no environment sees it, and multiply with ours
    # no transformer of schemas: the model must see the tools as the log has them
    if protocol == "anthropic":
        talker = anthropic.AsyncAnthropic(api_key=key, base_url=base_url, http_client=client, max_retries=0)
        plain = ModelProfile(json_schema_transformer=None)
        return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=talker), profile=plain)
    speaker = openai.AsyncOpenAI(api_key=key, base_url=base_url, http_client=client, max_retries=0)
    profile = OpenAIModelProfile(json_schema_transformer=None)
    if classic_limit:
        profile["openai_chat_supports_max_completion_tokens"] = False
    return OpenAIChatModel(model, provider=OpenAIProvider(openai_client=speaker), profile=profile)


async def ask(model: WireModel[Any], request: ModelRequest, *, timeout_s: float, max_tokens: int) -> ModelAnswer:
    """Ask once. Raises what the client raises, AnswerUnreadable for an empty answer, ModelRefused for a non-image."""
    settings = ModelSettings(timeout=timeout_s)
    if max_tokens > 0:
        settings["max_tokens"] = max_tokens
    response = await model_request(
        model,
        wire_messages(request, images_in_results=isinstance(model, AnthropicModel)),
        model_settings=settings,
        model_request_parameters=ModelRequestParameters(function_tools=_tools(request), allow_text_output=True),
        instrument=False,
    )
    return answer_of(response)


# --- towards the provider ------------------------------


def _tools(request: ModelRequest) -> list[ToolDefinition]:
    tools = list(request.tools)
    if request.answer_schema is not None and all(tool.name != ANSWER_TOOL for tool in tools):
        description = "Give the final answer of the task. Call it once, when the task is done."
        tools.append(ToolSpec(name=ANSWER_TOOL, description=description, parameters=request.answer_schema))
    return [
        ToolDefinition(
            name=tool.name,
            description=tool.description or None,
            parameters_json_schema={"type": "object", "properties": {}, **tool.parameters},
            strict=False,  # None would let the client rewrite the schema
        )
        for tool in tools
    ]


def wire_messages(request: ModelRequest, *, images_in_results: bool) -> list[wire.ModelMessage]:
    """The conversation in the client's structs: neighbouring user and tool messages become one request.

    Results come first in it, since both protocols want them right after the calls. Where results cannot hold images
    (``images_in_results``), those follow as a user's, under the id of the call.
    """
    found: list[wire.ModelMessage] = []
    results: list[wire.ModelRequestPart] = []
    others: list[wire.ModelRequestPart] = []
    if request.system:
        others.append(wire.SystemPromptPart(request.system))
    for message in request.messages:
        if message.role == "assistant":
            if results or others:
                found.append(wire.ModelRequest(parts=[*results, *others]))
                results, others = [], []
            found.append(_assistant(message))
        elif message.role == "tool":
            results.append(_result(message, images_in_results))
            if message.images and not images_in_results:
                title = f"Images of the result of {message.tool} ({message.call_id}):"
                others.append(wire.UserPromptPart([title, *_pictures(message.images)]))
        else:
            others.append(wire.UserPromptPart(_content(message)))
    if results or others:
        found.append(wire.ModelRequest(parts=[*results, *others]))
    return found


def _content(message: Message) -> str | list[wire.UserContent]:
    if not message.images:
        return message.text
    pictures = _pictures(message.images)
    return [message.text, *pictures] if message.text else [*pictures]


def _pictures(images: Sequence[Image]) -> list[wire.BinaryContent]:
    for image in images:
        if not image.media_type.startswith("image/"):
            raise ModelRefused("Not an image", received=repr(image.media_type), expected="a media type image/…")
    return [wire.BinaryContent(data=image.data, media_type=image.media_type) for image in images]


def _result(message: Message, with_images: bool) -> wire.ToolReturnPart:
    content: Any = message.text
    if message.images and with_images:
        content = [message.text, *_pictures(message.images)]
    elif message.images and not message.text:
        content = "(see the images below)"
    return wire.ToolReturnPart(
        tool_name=message.tool,
        content=content,
        tool_call_id=message.call_id,
        outcome="failed" if message.is_error else "success",
    )


def _assistant(message: Message) -> wire.ModelResponse:
    parts: list[wire.ModelResponsePart] = []
    if message.text:
        parts.append(wire.TextPart(message.text))
    for call in message.calls:
        # many servers parse the arguments of earlier calls, so a broken text must travel inside valid JSON
        arguments = {"broken_arguments": call.raw} if call.broken and call.raw else call.arguments
        parts.append(wire.ToolCallPart(call.tool or "unnamed", json.dumps(arguments), tool_call_id=call.id))
    return wire.ModelResponse(parts=parts)


# --- back from the provider ------------------------------


def answer_of(response: wire.ModelResponse) -> ModelAnswer:
    """The answer in LogAct's structs. Reasoning is left out; it is neither a proposal nor an answer."""
    texts = [part.content for part in response.parts if isinstance(part, wire.TextPart) and part.content]
    calls = [_call(part) for part in response.parts if isinstance(part, wire.ToolCallPart)]
    details = response.provider_details or {}
    stop = _STOPS.get(response.finish_reason or "") or str(details.get("finish_reason") or "stop")
    if stop == "length" and response.parts and isinstance(response.parts[-1], wire.ToolCallPart):
        # it may parse and still lack arguments: a call that was cut off must never look like a whole one
        calls[-1] = msgspec.structs.replace(
            calls[-1], arguments={}, raw=_raw(response.parts[-1]), broken="the call was cut off by the token limit"
        )
    if stop == "stop" and calls:
        stop = "tool_calls"
    if stop == "filter" and not texts and details.get("refusal"):
        texts = [str(details["refusal"])]
    if not texts and not calls and stop not in {"length", "filter"}:
        raise AnswerUnreadable(f"neither text nor calls (stop reason: {stop})")
    return ModelAnswer(
        text=_clean("\n\n".join(texts)),
        calls=_with_distinct_ids(calls),
        stop=stop,
        usage=_usage(response.usage),
        model=_clean(response.model_name or ""),
    )


def _raw(part: wire.ToolCallPart) -> str:
    return _clean(part.args if isinstance(part.args, str) else json.dumps(part.args))


def _call(part: wire.ToolCallPart) -> Call:
    name = _clean(part.tool_name)
    if part.args is None or part.args == "":
        return Call(id=_clean(part.tool_call_id), tool=name, broken="" if name else "the call names no tool")
    raw = _raw(part)
    arguments: Any = None
    broken = "" if name else "the call names no tool"
    try:
        # stricter than the client's own reading: no NaN, no lone surrogates, nothing that a log could not hold
        arguments = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        broken = broken or f"the arguments are not valid JSON: {error}"
    if not broken and not isinstance(arguments, dict):
        broken = f"the arguments are not an object but {type(arguments).__name__}"
    if broken:
        return Call(id=_clean(part.tool_call_id), tool=name, raw=raw, broken=broken)
    return Call(id=_clean(part.tool_call_id), tool=name, arguments=cast(dict[str, Any], arguments))


def _with_distinct_ids(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Some servers number calls badly; results are told apart by these ids, so equal ones are made different."""
    seen: set[str] = set()
    found: list[Call] = []
    for index, call in enumerate(calls):
        id_ = call.id if call.id and call.id not in seen else f"{call.id or 'call'}-{index}"
        while id_ in seen:
            id_ += "x"
        seen.add(id_)
        found.append(msgspec.structs.replace(call, id=id_))
    return tuple(found)


def _clean(text: object) -> str:
    """A text that UTF-8 can hold: lone surrogates, which JSON can smuggle in, become a replacement character.

    Clients check little of what they got, so what should be a text may be anything; then it is empty.
    """
    if not isinstance(text, str):
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _usage(usage: RequestUsage) -> Usage:
    return Usage(
        input_tokens=max(0, usage.input_tokens),
        output_tokens=max(0, usage.output_tokens),
        cached_tokens=max(0, usage.cache_read_tokens),
    )
