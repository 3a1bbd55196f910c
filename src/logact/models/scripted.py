"""A model that answers from a script: for tests, demonstrations and simulations.

A :class:`ScriptedModel` sees only the conversation, as a real model does. Write scripts as *pure functions of the
request*: a process may be killed between any two answers, and the one that takes over builds a fresh model from
the same script. A function that looks at ``request.messages`` continues there; one that counts its own calls
starts again from the beginning. A script given as a list is such a function already: the answer's place is the
number of assistant messages in the request.

This module owns scripts and their file forms. It does no I/O except to read a script's file, and never draws a
random number: ids of calls follow from the conversation.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast

import msgspec

from logact import env
from logact.entry import Call, Usage
from logact.env_guest import guest, said
from logact.errors import ModelError, ModelRefused, SpecError, all_errors
from logact.models.base import Message, Model, ModelAnswer, ModelRequest

Reply: TypeAlias = ModelAnswer | str | Call | Sequence[Call]
"""What a script may give: a whole answer, a text, one call, or several calls of one turn."""

ScriptFunction: TypeAlias = Callable[[ModelRequest], Reply | Awaitable[Reply]]
ScriptItem: TypeAlias = Reply | ModelError | ScriptFunction

REQUESTS_KEPT_MAX = 100
"""How many of the latest requests a scripted model keeps for inspection."""

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 1000


def say(text: str) -> ModelAnswer:
    """An answer that is only text, so the final one of its run."""
    return ModelAnswer(text=text)


def call(tool: str, /, **arguments: Any) -> Call:
    """One tool call. Its id is given when it is answered, from its place in the conversation."""
    return Call(id="", tool=tool, arguments=arguments)


def turn_of(request: ModelRequest) -> int:
    """How many answers the conversation holds already: 0 for the first request."""
    return sum(1 for message in request.messages if message.role == "assistant")


def last_results(request: ModelRequest) -> tuple[Message, ...]:
    """The tool messages that answer the latest turn's calls; empty if the latest message is not a tool's."""
    found: list[Message] = []
    for message in reversed(request.messages):
        if message.role != "tool":
            break
        found.append(message)
    return tuple(reversed(found))


class ScriptedModel:
    """Answers from a list of replies, or from a function of the request.

    A list holds :data:`Reply` values, functions, or :class:`~logact.errors.ModelError` instances. The n-th reply
    answers every request whose conversation holds n assistant messages, so that a restarted process goes on where
    the log stops. Errors take no place of their own: those before a reply are raised first, once each in this
    object's life. A conversation that is longer than the list gets :class:`~logact.errors.ModelRefused`.

    A function is called with the request, and may be ``async``. What it raises is passed on unchanged.

    ``delay_s`` is waited (through the environment's clock) before each answer. ``requests`` keeps the latest
    requests, ``asked`` counts all of them.
    """

    def __init__(
        self, script: ScriptFunction | Iterable[ScriptItem], *, name: str = "scripted", delay_s: float = 0.0
    ) -> None:
        self.name = name
        self.delay_s = delay_s
        self.asked = 0
        self.requests: deque[ModelRequest] = deque(maxlen=REQUESTS_KEPT_MAX)
        self._function: ScriptFunction | None = None
        self._replies: list[Reply | ScriptFunction] = []
        self._errors: dict[int, deque[ModelError]] = {}
        if callable(script):
            self._function = script
            return
        if isinstance(script, (str, bytes, ModelAnswer, Call)):
            raise SpecError("A script is a list of replies or a function", received=type(script).__name__)
        for item in script:
            if isinstance(item, ModelError):
                self._errors.setdefault(len(self._replies), deque()).append(item)
            else:
                self._replies.append(item)

    def __repr__(self) -> str:
        return f"ScriptedModel(name={self.name!r}, asked={self.asked})"

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """The script's answer. Raises ModelRefused if the script is at its end, SpecError if it gave no reply."""
        self.asked += 1
        self.requests.append(request)
        if self.delay_s > 0:
            await env.current().sleep(self.delay_s)
        item = self._function if self._function is not None else self._item(turn_of(request))
        given = item(request) if callable(item) else item
        if inspect.isawaitable(given):
            given = await given
        return _answer(given, request)

    def _item(self, turn: int) -> Reply | ScriptFunction:
        waiting = self._errors.get(turn)
        if waiting:
            raise waiting.popleft()
        if turn >= len(self._replies):
            raise ModelRefused(
                "The script is at its end",
                received=f"a conversation with {turn} answers",
                expected=f"fewer than {len(self._replies)}",
                todo="give the script a further reply, or let it end with a text",
            )
        return self._replies[turn]


def estimate_usage(request: ModelRequest, text: str, calls: Sequence[Call]) -> Usage:
    """Tokens by a simple rule: characters divided by four, rounded up; an image counts as 1000 tokens.

    The characters of a request are those of its system prompt, its messages with their calls, and its tools'
    names, descriptions and schemas. Nothing counts as cached, and no cost is given.
    """
    characters = len(request.system)
    images = 0
    for message in request.messages:
        characters += len(message.text) + _length(message.calls)
        images += len(message.images)
    for tool in request.tools:
        characters += len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.parameters))
    return Usage(
        input_tokens=-(-characters // CHARACTERS_PER_TOKEN) + images * IMAGE_TOKENS,
        output_tokens=-(-(len(text) + _length(calls)) // CHARACTERS_PER_TOKEN),
    )


def _length(calls: Sequence[Call]) -> int:
    return sum(len(each.tool) + len(each.raw or msgspec.json.encode(each.arguments)) for each in calls)


def _answer(given: object, request: ModelRequest) -> ModelAnswer:
    """Completes a reply to an answer: ids of calls, stop reason, usage, model name."""
    if isinstance(given, ModelError):
        raise given
    if isinstance(given, str):
        given = ModelAnswer(text=given)
    elif isinstance(given, Call):
        given = ModelAnswer(calls=(given,))
    elif isinstance(given, (list, tuple)) and given and all(isinstance(each, Call) for each in given):
        given = ModelAnswer(calls=tuple(given))
    if not isinstance(given, ModelAnswer):
        raise SpecError(
            "The script gave no reply",
            received=type(given).__name__,
            expected="a ModelAnswer, a text, a Call, or a list of Calls that is not empty",
        )
    calls = _with_ids(given.calls, request)
    return msgspec.structs.replace(
        given,
        calls=calls,
        stop="tool_calls" if calls and given.stop == "stop" else given.stop,
        usage=given.usage if given.usage != Usage() else estimate_usage(request, given.text, calls),
        model=given.model or "scripted",
    )


def _with_ids(calls: Sequence[Call], request: ModelRequest) -> tuple[Call, ...]:
    """Gives each call without an id one that is new in this conversation: ``call-TURN-INDEX``."""
    used = {each.id for message in request.messages for each in message.calls} | {each.id for each in calls}
    turn = turn_of(request)
    # a compacted conversation counts fewer turns than it had, so ids of its kept part may come round again
    while any(f"call-{turn}-{index}" in used for index in range(len(calls))):
        turn += 1
    return tuple(
        each if each.id else msgspec.structs.replace(each, id=f"call-{turn}-{index}")
        for index, each in enumerate(calls)
    )


# --- scripts in files and modules ------------------------------


def scripted_from(target: str) -> Model:
    """The scripted model that ``target`` names: ``FILE.json``, ``FILE.jsonl``, ``FILE.py[:attr]`` or ``module:attr``.

    A JSON file holds a list of items, a JSONL file one item per line. An item is a text, or an object: a call
    ``{"call": TOOL, "arguments": {...}}``, a turn ``{"text": ..., "calls": [...]}``, an error
    ``{"error": CODE, "message": ...}``; or a list of calls. A Python file or module is *executed*; its attribute
    (``answer`` if none is named) is a function, a list of items, or a model.

    Raises SpecError if the target cannot be read or holds no script.
    """
    place, separator, attribute = target.rpartition(":")
    if target.endswith((".json", ".jsonl", ".py")):
        place, attribute = target, "answer"
    elif not separator:
        raise SpecError(
            "Not a script", received=target, expected="FILE.json, FILE.jsonl, FILE.py[:attr] or module:attr"
        )
    if place.endswith((".json", ".jsonl")):
        return ScriptedModel(_items_of(Path(place)))
    found = _attribute(place, attribute)
    if isinstance(found, Model) and not isinstance(found, type):
        return found
    if callable(found) or isinstance(found, (list, tuple)):
        return ScriptedModel(cast(ScriptFunction | Sequence[ScriptItem], found))
    raise SpecError(
        f"{target} holds no script",
        received=type(found).__name__,
        expected="a function, a list of replies or a model",
    )


def _attribute(place: str, attribute: str) -> object:
    try:
        with guest():
            module = _module(place)
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(f"The script {place} cannot be loaded: {said(error)}") from error
    found: object = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise SpecError(f"{place} has no {attribute}", todo="name the attribute after a colon")
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(f"logact_script_{Path(place).stem}", place)
    if spec is None or spec.loader is None:
        raise SpecError(f"{place} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _items_of(path: Path) -> list[ScriptItem]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            items = json.loads(text)
    except (OSError, ValueError) as error:
        raise SpecError(f"The script {path} cannot be read: {error}") from error
    if not isinstance(items, list):
        raise SpecError(f"The script {path} holds no list", received=type(items).__name__, expected="a list of items")
    return [_item_of(item, f"{path}, item {number}") for number, item in enumerate(items, 1)]


def _item_of(item: object, where: str) -> ScriptItem:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and item:
        return [_call_of(each, where) for each in item]
    if isinstance(item, dict) and "call" in item:
        return _call_of(item, where)
    if isinstance(item, dict) and "error" in item:
        kinds = {kind.code: kind for kind in all_errors() if issubclass(kind, ModelError)}
        kind = kinds.get(str(item["error"]))
        if kind is None:
            raise SpecError(f"{where}: no such error", received=str(item["error"]), expected=", ".join(sorted(kinds)))
        return kind(str(item.get("message", "an error of the script")))
    if isinstance(item, dict) and item and set(item) <= {"text", "calls", "stop"}:
        calls = tuple(_call_of(each, where) for each in item.get("calls", ()))
        return ModelAnswer(text=str(item.get("text", "")), calls=calls, stop=str(item.get("stop", "stop")))
    raise SpecError(
        f"{where}: not a script item", received=json.dumps(item)[:200], expected="a text, call, turn or error"
    )


def _call_of(item: object, where: str) -> Call:
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("call"), str)
        or not set(item) <= {"call", "arguments", "id"}
    ):
        raise SpecError(
            f"{where}: not a call", received=json.dumps(item)[:200], expected='{"call": TOOL, "arguments": {}}'
        )
    arguments = item.get("arguments", {})
    if not isinstance(arguments, dict):
        raise SpecError(f"{where}: arguments are an object", received=json.dumps(arguments)[:200])
    return Call(id=str(item.get("id", "")), tool=item["call"], arguments=arguments)
