"""A log for other tools: OpenAI-style conversations, and OpenTelemetry traces as OTLP JSON. Read-only.

OTLP JSON is a plain format, so no SDK is needed: the file goes to a collector as it is (``POST /v1/traces``, or its
file receiver). Names of attributes are those of the GenAI conventions where there are any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from logact import __version__
from logact.core import machine
from logact.entry import (
    Abort,
    Cancel,
    Compaction,
    Entry,
    Expiry,
    Inference,
    Input,
    Intent,
    Output,
    Recovery,
    Result,
    Run,
    Undone,
    Vote,
)
from logact.logs.base import SharedLog
from logact.runtime import values

INTERNAL, CLIENT = 1, 3
ERROR = 2


async def effective(log: SharedLog) -> list[Entry]:
    """The entries of a log that took effect, in order."""
    await log.open()
    state = machine.initial(log.log_id, keep=True)
    found = []
    async for entry in log.read():
        state = machine.apply(state, entry)
        if not state.verdict:
            found.append(entry)
    return found


# --- conversations ----------------------------------------------------------------------------------------------


async def conversations(log: SharedLog, runs: Iterable[int] = ()) -> list[dict[str, Any]]:
    """Each run as ``{"id", "agent", "messages", ...}``, as evaluation tools read it. ``runs`` empty: all of them.

    The messages are the whole history, also where the model was shown a compacted one. Answers go out as the
    assistant's text; what was refused or failed is what the tool message says.
    """
    chosen = set(runs)
    found: dict[int, dict[str, Any]] = {}
    calls: dict[int, str] = {}
    for entry in await effective(log):
        said = entry.payload
        if isinstance(said, Run):
            if not chosen or entry.position in chosen:
                found[entry.position] = {
                    "id": f"{log.log_id}/{entry.position}",
                    "agent": said.agent,
                    "title": said.title,
                    "messages": [],
                }
            continue
        about = found.get(entry.run or getattr(said, "run", 0))
        if about is None:
            continue
        messages = about["messages"]
        if isinstance(said, Input):
            messages.append({"role": "user", "content": said.text})
        elif isinstance(said, Inference):
            about["model"] = said.model
            messages.append(_assistant(said))
            for number, call in enumerate(said.calls):
                if call.broken:
                    id_ = call.id or f"call-{number}"
                    messages.append({"role": "tool", "tool_call_id": id_, "content": call.broken})
        elif isinstance(said, Intent) and said.inference:
            calls[entry.position] = await _call_of(log, said)
        elif isinstance(said, Result | Abort | Expiry | Cancel | Recovery | Undone):
            id_ = calls.pop(said.intent, "")
            if id_:
                messages.append({"role": "tool", "tool_call_id": id_, "content": await _told(log, said)})
        elif isinstance(said, Output):
            about["ok"] = said.ok
            calls.pop(said.intent, None)
    return list(found.values())


def _assistant(said: Inference) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call.id or f"call-{number}",
                "type": "function",
                "function": {
                    "name": call.tool,
                    "arguments": call.raw or msgspec.json.encode(call.arguments).decode(),
                },
            }
            for number, call in enumerate(said.calls)
        ]
    return message


async def _call_of(log: SharedLog, intent: Intent) -> str:
    said = (await log.get(intent.inference)).payload
    if isinstance(said, Inference) and intent.call < len(said.calls):
        return said.calls[intent.call].id or f"call-{intent.call}"
    return ""


async def _told(log: SharedLog, said: Result | Abort | Expiry | Cancel | Recovery | Undone) -> str:
    if isinstance(said, Result):
        if said.error is not None:
            return f"FAILED ({said.error.kind}): {said.error.message}"
        value = values.unpack(await log.get_blob(said.blob.digest)) if said.blob is not None else said.value
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if isinstance(said, Recovery):
        return f"{said.settlement}: {said.reason or said.evidence}"
    if isinstance(said, Undone):
        return "undone"
    return f"REJECTED: {said.reason}"


# --- traces -----------------------------------------------------------------------------------------------------


async def traces(log: SharedLog, runs: Iterable[int] = ()) -> dict[str, Any]:
    """OTLP JSON (``TracesData``): a trace for each run; spans for the run, its turns, its actions and their votes.

    Ids follow from log and position, so exporting again gives the same spans. Texts stay in the log: spans name
    positions, not contents.
    """
    chosen = set(runs)
    spans: dict[int, dict[str, Any]] = {}
    roots: dict[int, dict[str, Any]] = {}
    more: list[dict[str, Any]] = []
    for entry in await effective(log):
        said = entry.payload
        if isinstance(said, Run) and (not chosen or entry.position in chosen):
            at: tuple[float, float] = (entry.time_ms, entry.time_ms)
            span = _span(log, entry.position, entry.position, f"invoke_agent {said.agent}", at)
            named = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": said.agent}
            span["attributes"] = _attributes({**named, "logact.run": entry.position})
            roots[entry.position] = spans[entry.position] = span
            continue
        run = entry.run or getattr(said, "run", 0)
        root = roots.get(run)
        if root is None:
            continue
        root["endTimeUnixNano"] = _nano(entry.time_ms)
        if isinstance(said, Inference | Compaction):
            more.append(_turn(log, run, entry, said))
        elif isinstance(said, Intent):
            span = _span(log, run, entry.position, f"execute_tool {said.tool}", (entry.time_ms, entry.time_ms))
            span["attributes"] = _attributes(
                {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": said.tool,
                    "logact.action": entry.position,
                    "logact.effect": said.effect,
                    "logact.retry_of": said.retry_of,
                }
            )
            spans[entry.position] = span
        elif isinstance(said, Vote) and said.intent in spans:
            at = (entry.time_ms - said.duration_ms, entry.time_ms)
            vote = _span(log, run, entry.position, f"vote {said.voter}", at)
            vote["parentSpanId"] = spans[said.intent]["spanId"]
            approved = {True: "approve", False: "reject", None: "abstain"}[said.approved]
            vote["attributes"] = _attributes({"logact.voter": said.voter, "logact.vote": approved})
            more.append(vote)
        elif isinstance(said, Result | Abort | Expiry | Cancel | Recovery) and said.intent in spans:
            _ended(spans[said.intent], entry, said)
        elif isinstance(said, Output):
            root["status"] = {} if said.ok else {"code": ERROR, "message": said.reason[:200]}
    listed = sorted([*spans.values(), *more], key=lambda span: int(span["startTimeUnixNano"]))
    scope = {"scope": {"name": "logact", "version": __version__}, "spans": listed}
    resource = {"attributes": _attributes({"service.name": "logact", "logact.log": log.log_id})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _turn(log: SharedLog, run: int, entry: Entry, said: Inference | Compaction) -> dict[str, Any]:
    took_ms = said.latency_ms if isinstance(said, Inference) else 0.0
    span = _span(log, run, entry.position, f"chat {said.model}".strip(), (entry.time_ms - took_ms, entry.time_ms))
    span["kind"] = CLIENT
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": said.model,
        "gen_ai.usage.input_tokens": said.usage.input_tokens,
        "gen_ai.usage.output_tokens": said.usage.output_tokens,
        "logact.position": entry.position,
    }
    if said.usage.cost_usd is not None:
        attributes["logact.cost_usd"] = said.usage.cost_usd
    span["attributes"] = _attributes(attributes)
    return span


def _ended(span: dict[str, Any], entry: Entry, said: Result | Abort | Expiry | Cancel | Recovery) -> None:
    span["endTimeUnixNano"] = _nano(max(entry.time_ms, int(span["startTimeUnixNano"]) / 1e6))
    if isinstance(said, Result) and said.error is not None:
        span["status"] = {"code": ERROR, "message": said.error.kind}
        span["attributes"] += _attributes({"error.type": said.error.kind})
    elif isinstance(said, Abort | Expiry | Cancel):
        span["status"] = {"code": ERROR, "message": "rejected"}
        span["attributes"] += _attributes({"error.type": "rejected"})
    elif isinstance(said, Recovery):
        span["attributes"] += _attributes({"logact.settlement": said.settlement})


def _span(log: SharedLog, run: int, position: int, name: str, times_ms: tuple[float, float]) -> dict[str, Any]:
    span: dict[str, Any] = {
        "traceId": _digest(f"{log.log_id} {run}", 16),
        "spanId": _digest(f"{log.log_id} {position}", 8),
        "name": name,
        "kind": INTERNAL,
        "startTimeUnixNano": _nano(times_ms[0]),
        "endTimeUnixNano": _nano(times_ms[1]),
        "attributes": [],
        "status": {},
    }
    if position != run:
        span["parentSpanId"] = _digest(f"{log.log_id} {run}", 8)
    return span


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _nano(ms: float) -> str:
    return str(int(ms * 1_000_000))


def _attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for key, value in given.items():
        if isinstance(value, bool):
            found.append({"key": key, "value": {"boolValue": value}})
        elif isinstance(value, int):
            if value:
                found.append({"key": key, "value": {"intValue": str(value)}})
        elif isinstance(value, float):
            found.append({"key": key, "value": {"doubleValue": value}})
        elif value:
            found.append({"key": key, "value": {"stringValue": str(value)}})
    return found
