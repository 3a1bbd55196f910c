"""A log as conversations, in the forms that evaluation tools and providers read: OpenAI's and Anthropic's. Read-only.

Every call has exactly one answer, right behind the turn that made it: the last that was said of it, whatever was
tried before. Nothing is left out, also where the model was shown a compacted history.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from logact.core.settling import ANSWER
from logact.entry import (
    Abort,
    Call,
    Cancel,
    Entry,
    Expiry,
    Inference,
    Input,
    Intent,
    Output,
    Recovery,
    Result,
    Run,
    Spec,
    ToolSpec,
    Undone,
)
from logact.errors import LogError
from logact.introspection.exporting import effective
from logact.logs.base import SharedLog
from logact.runtime import values

NO_RESULT = "(the log holds no result of this call)"
GONE = "(this text is not kept any more)"


async def conversations(log: SharedLog, runs: Iterable[int] = ()) -> list[dict[str, Any]]:
    """Each run as ``{"id", "agent", "messages", "tools", ...}`` in OpenAI's form. ``runs`` empty: all of them.

    Answers go out as the assistant's text; what was refused or failed is what the tool message says.
    """
    reader = _Reader(log, frozenset(runs))
    for entry in await effective(log):
        await reader.take(entry)
    for one in reader.found.values():
        for message in one["messages"]:
            message.setdefault("content", NO_RESULT)
    return list(reader.found.values())


class _Reader:
    """Folds entries into conversations. The answers of a turn's calls have their places from the beginning."""

    def __init__(self, log: SharedLog, runs: frozenset[int]) -> None:
        self.log = log
        self.runs = runs
        self.found: dict[int, dict[str, Any]] = {}
        self._offered: dict[str, Spec] = {}
        self._places: dict[tuple[int, int], dict[str, Any]] = {}
        self._told: dict[int, dict[str, Any]] = {}

    async def take(self, entry: Entry) -> None:
        """One more effective entry."""
        said = entry.payload
        if isinstance(said, Spec):
            self._offered[said.agent] = said
        elif isinstance(said, Run):
            if not self.runs or entry.position in self.runs:
                self._begin(entry, said)
        elif isinstance(said, Input | Inference | Intent | Output):
            about = self.found.get(said.run)
            if about is not None:
                await self._said(about, entry, said)
        elif isinstance(said, Result | Abort | Expiry | Cancel | Recovery | Undone):
            place = self._told.get(said.intent)
            if place is not None and not (isinstance(said, Recovery) and said.settlement == "restart"):
                place["content"] = await self._came_of(said)

    def _begin(self, entry: Entry, said: Run) -> None:
        about = {"id": f"{self.log.log_id}/{entry.position}", "agent": said.agent, "title": said.title}
        spec = self._offered.get(said.agent)
        tools = [_tool(one) for one in spec.tools] if spec is not None else []
        self.found[entry.position] = {**about, "messages": [], **({"tools": tools} if tools else {})}

    async def _said(self, about: dict[str, Any], entry: Entry, said: Input | Inference | Intent | Output) -> None:
        messages = about["messages"]
        if isinstance(said, Input):
            messages.append({"role": "user", "content": said.text})
        elif isinstance(said, Inference):
            await self._turn(about, entry.position, said)
        elif isinstance(said, Intent):
            place = self._places.get((said.inference, said.call))
            if place is not None:
                self._told[entry.position] = place
        else:
            about["ok"] = said.ok
            place = self._told.pop(said.intent, None)
            if place is not None:
                place["content"] = "given"

    async def _turn(self, about: dict[str, Any], position: int, said: Inference) -> None:
        messages = about["messages"]
        about["model"] = said.model
        prompt = next((one for one in said.context if isinstance(one, str)), "") if not said.base else ""
        if prompt and not any(one["role"] == "system" for one in messages):
            messages.insert(0, {"role": "system", "content": await self._text(prompt)})
        calls = said.calls
        if said.raw is not None:
            calls = msgspec.json.decode(await self.log.get_blob(said.raw.digest), type=tuple[Call, ...])
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
        if calls:
            message["tool_calls"] = [_call(call, number) for number, call in enumerate(calls)]
        messages.append(message)
        for number, call in enumerate(calls):
            place = {"role": "tool", "tool_call_id": _id(call, number)}
            if call.broken:
                place["content"] = call.broken
            self._places[position, number] = place
            messages.append(place)

    async def _came_of(self, said: Result | Abort | Expiry | Cancel | Recovery | Undone) -> str:
        if isinstance(said, Result):
            if said.error is not None:
                return f"FAILED ({said.error.kind}): {said.error.message}"
            if said.blob is not None:
                return await self._text(said.blob.digest, packed=True)
            return said.value if isinstance(said.value, str) else msgspec.json.encode(said.value).decode()
        if isinstance(said, Recovery):
            return f"{said.settlement}: {said.reason or said.evidence}"
        if isinstance(said, Undone):
            return "undone"
        return f"REJECTED: {said.reason}"

    async def _text(self, digest: str, *, packed: bool = False) -> str:
        """A text that stands beside the log."""
        try:
            data = await self.log.get_blob(digest)
        except LogError:
            return GONE
        value = values.unpack(data) if packed else data.decode(errors="replace")
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _id(call: Call, number: int) -> str:
    return call.id or f"call-{number}"


def _call(call: Call, number: int) -> dict[str, Any]:
    arguments = call.raw or msgspec.json.encode(call.arguments).decode()
    return {
        "id": _id(call, number),
        "type": "function",
        "function": {"name": call.tool or ANSWER, "arguments": arguments},
    }


def _tool(spec: ToolSpec) -> dict[str, Any]:
    about = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": about}


# --- Anthropic's form ------------------------------


def in_anthropics_form(conversation: dict[str, Any]) -> dict[str, Any]:
    """A conversation with ``system``, and calls and results as blocks of the messages."""
    found = {key: value for key, value in conversation.items() if key not in ("messages", "tools")}
    messages: list[dict[str, Any]] = []
    for one in conversation["messages"]:
        if one["role"] == "system":
            found["system"] = one["content"]
            continue
        role = "assistant" if one["role"] == "assistant" else "user"
        blocks = _blocks(one)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    if "tools" in conversation:
        named = [tool["function"] for tool in conversation["tools"]]
        found["tools"] = [
            {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
            for one in named
        ]
    return {**found, "messages": messages}


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        answers = {"tool_use_id": message["tool_call_id"], "content": message["content"]}
        return [{"type": "tool_result", **answers}]
    blocks: list[dict[str, Any]] = []
    if message["content"]:
        blocks.append({"type": "text", "text": message["content"]})
    for call in message.get("tool_calls", ()):
        named = {"id": call["id"], "name": call["function"]["name"]}
        blocks.append({"type": "tool_use", **named, "input": _arguments(call["function"]["arguments"])})
    return blocks


def _arguments(text: str) -> dict[str, Any]:
    """Arguments as an object; what is none is put into one."""
    try:
        given = msgspec.json.decode(text)
    except msgspec.DecodeError:
        given = text
    return given if isinstance(given, dict) else {"(broken)": given}
