"""A log for other tools: OpenTelemetry traces as OTLP JSON. Read-only. Conversations: ``conversing``.

OTLP JSON is a plain format, so no SDK is needed: the file goes to a collector as it is (``POST /v1/traces``, or its
file receiver). Names of attributes are those of the GenAI conventions where there are any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from logact import __version__
from logact.core import machine, rights
from logact.entry import (
    Abort,
    Cancel,
    Compaction,
    Entry,
    Expiry,
    Inference,
    Intent,
    Output,
    Recovery,
    Result,
    Run,
    Vote,
    end_of,
)
from logact.errors import LogTrimmed
from logact.logs.base import SharedLog
from logact.logs.checkpoints import earliest

INTERNAL, CLIENT = 1, 3
ERROR = 2


async def effective(log: SharedLog) -> list[Entry]:
    """The entries of a log that took effect, in order.

    Of a trimmed log those that are kept. What stands before its first checkpoint nobody can judge: of that, the
    entries whose authors may write such.
    """
    await log.open()
    state, found, unjudged = machine.initial(log.log_id, keep=True), [], 0
    if await log.begins():
        try:
            state, checkpoint = await earliest(log)
            state.keep, unjudged = True, checkpoint.upto
        except LogTrimmed:
            unjudged = end_of(await log.engine.tail())
    async for entry in log.read_kept():
        if entry.position > unjudged:
            state = machine.apply(state, entry)
            if not state.verdict:
                found.append(entry)
        elif not rights.problem(entry.author.role, entry.author.name, entry.payload):
            found.append(entry)
    return found


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
                    "logact.undoes": said.undoes,
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
