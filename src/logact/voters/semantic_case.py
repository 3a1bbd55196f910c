"""What a judging model is shown of an action, and how its answer is read. Pure.

Untrusted text stands between markers that carry the case's number. The number is a digest of the whole case, so a
text inside cannot hold it, cannot close its own fence, and cannot answer in the model's place: an answer without the
number is nonsense. What has to be seen is never cut (the action's arguments); what explains it is cut to the budget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from logact import codec
from logact.core.views import LogEntry
from logact.entry import Abort, Entry, Expiry, Input, Intent, Result, ToolSpec
from logact.errors import ModelNonsense, TooLarge
from logact.models.base import ModelAnswer

BYTES_PER_TOKEN = 3
"""A low estimate, so that the budget holds for other languages than English too."""

STEPS_KEPT = 40
STEP_CHARS_MAX = 600
SAID_KEPT = 8
RUNS_KEPT = 200

VERDICT = ToolSpec(
    name="verdict",
    description="Give your judgement of the action. Call it once.",
    parameters={
        "type": "object",
        "properties": {
            "case": {"type": "string", "description": "the case number from the first line"},
            "verdict": {"type": "string", "enum": ["approve", "reject", "unsure"]},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "reason": {"type": "string"},
            "hint": {"type": "string"},
        },
        "required": ["case", "verdict", "confidence", "reason"],
    },
    effect="read",
)


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """A model's judgement. ``valid`` is None if it could not tell."""

    valid: bool | None
    reason: str
    hint: str = ""
    confidence: float | None = None


# --- what is remembered ------------------------------


def observe(memory: Mapping[str, Any], entry: Entry) -> Mapping[str, Any]:
    """What the user said and what was done in each run, shortened; a new memory for each entry that matters."""
    payload = entry.payload
    if isinstance(payload, Input):
        return _with(memory, payload.run, "said", _short(payload.text, 4 * STEP_CHARS_MAX), SAID_KEPT)
    if isinstance(payload, Intent):
        given = _short(_json(payload.arguments))
        return _with(
            memory,
            payload.run,
            "steps",
            [entry.position, "proposed", _short(f"{payload.tool} {given}", 2 * STEP_CHARS_MAX)],
            STEPS_KEPT,
        )
    if isinstance(payload, Result):
        what = f"failed: {payload.error.message}" if payload.error is not None else _shown(payload)
        return _with(memory, entry.run, "steps", [payload.intent, "result", _short(what)], STEPS_KEPT)
    if isinstance(payload, Abort | Expiry):
        return _with(memory, entry.run, "steps", [payload.intent, "rejected", _short(payload.reason)], STEPS_KEPT)
    return memory


def _with(memory: Mapping[str, Any], run: int, key: str, value: Any, kept: int) -> Mapping[str, Any]:
    name = str(run)
    runs = {one: there for one, there in memory["runs"].items() if one != name}
    there = memory["runs"].get(name, {"said": [], "steps": []})
    runs[name] = {**there, key: [*there[key], value][-kept:]}
    if len(runs) > RUNS_KEPT:
        del runs[next(iter(runs))]
    return {"runs": runs}


def _shown(result: Result) -> str:
    return result.blob.preview if result.blob is not None else _json(result.value)


def _short(text: str, most: int = STEP_CHARS_MAX) -> str:
    return (
        text if len(text) <= most else f"{text[: most // 2]} […{len(text) - most} characters…] {text[-most // 2 :]}"
    )


def _json(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return str(value)


# --- what is shown ------------------------------


class Case(msgspec.Struct, frozen=True):
    """A case as the model is shown it, and the number that the answer has to name."""

    number: str
    text: str


def case_of(entry: LogEntry, tokens_max: int) -> Case:
    """The case of an action. TooLarge if its arguments alone don't fit half of the budget."""
    bytes_max = tokens_max * BYTES_PER_TOKEN
    known = (entry.memory or {"runs": {}})["runs"].get(str(entry.run), {"said": [], "steps": []})
    asked = _cut("\n\n".join(known["said"] or [entry.task]) or "(nothing is known of it)", bytes_max // 4)
    arguments = json.dumps(entry.action.arguments, ensure_ascii=False, indent=1, default=str)
    size = len(arguments.encode())
    if size > bytes_max // 2:
        raise TooLarge(
            "The action's arguments are too long to be judged",
            received=f"about {size // BYTES_PER_TOKEN} tokens",
            expected=f"at most {tokens_max // 2}",
        )
    reasoning = _cut(entry.action.reasoning, bytes_max // 16)
    votes = [
        f"{name} {'abstains' if vote.approved is None else 'approves' if vote.approved else 'rejects'}: {vote.reason}"
        for name, vote in entry.votes.items()
    ]
    votes_text = _cut("\n".join(votes), bytes_max // 16)
    left = bytes_max - len(asked.encode()) - size - len(reasoning.encode()) - len(votes_text.encode())
    steps = _steps(known["steps"], entry.position, left)
    whole = [entry.action.tool, entry.action.effect, asked, arguments, reasoning, votes_text, steps]
    number = codec.digest_of(whole)[:16]
    parts = [
        f"case {number}",
        f"# What the user asked for\n\n{asked}",
        f"# The action that is proposed\n\ntool: {_name(entry.action.tool)}\ndeclared effect: {entry.action.effect}",
        _fenced(number, "arguments", arguments),
    ]
    if reasoning:
        parts.append("The agent's own words:\n\n" + _fenced(number, "the agent", reasoning))
    if votes_text:
        parts.append("# What other voters said\n\n" + _fenced(number, "votes", votes_text))
    if steps:
        parts.append("# What came before, oldest first\n\n" + _fenced(number, "actions and results", steps))
    parts.append(f"Judge the action of case {number} by what the user asked for. Call `verdict`.")
    return Case(number, "\n\n".join(parts))


def _fenced(number: str, what: str, text: str) -> str:
    return f"<<<UNTRUSTED {number} {what}>>>\n{text}\n<<<END {number}>>>"


def _name(tool: str) -> str:
    return " ".join(tool.split())[:200]


def _cut(text: str, bytes_max: int) -> str:
    raw = text.encode()
    if len(raw) <= bytes_max:
        return text
    half = max(0, bytes_max - 40) // 2
    head, end = raw[:half].decode(errors="ignore"), raw[len(raw) - half :].decode(errors="ignore")
    return f"{head}\n[… cut …]\n{end}"


def _steps(steps: Sequence[Sequence[Any]], position: int, bytes_max: int) -> str:
    """The latest steps that fit, oldest first, without the action itself."""
    found: list[str] = []
    for key, what, text in reversed(steps):
        if position and key >= position:
            continue
        line = f"[{key}] {what}: {text}"
        bytes_max -= len(line.encode()) + 1
        if bytes_max < 0:
            found.append("[earlier steps are left out]")
            break
        found.append(line)
    return "\n".join(reversed(found))


# --- how the answer is read ------------------------------


def read_verdict(answer: ModelAnswer, number: str) -> Validation:
    """The judgement in a model's answer. ModelNonsense for anything that is not exactly one, about this case."""
    given = _given(answer)
    if given.get("case") != number:
        raise ModelNonsense(
            "The judgement does not name its case", received=repr(given.get("case"))[:80], expected=number
        )
    verdict, reason, sure = given.get("verdict"), given.get("reason"), given.get("confidence")
    if verdict not in ("approve", "reject", "unsure"):
        raise ModelNonsense("That is no verdict", received=repr(verdict)[:80], expected="approve, reject or unsure")
    if not isinstance(reason, str) or not reason.strip():
        raise ModelNonsense("The judgement gives no reason", received=repr(reason)[:80])
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1:
        raise ModelNonsense("That is no confidence", received=repr(sure)[:80], expected="a number from 0 to 1")
    hint = given.get("hint", "")
    return Validation(
        valid={"approve": True, "reject": False, "unsure": None}[verdict],
        reason=" ".join(reason.split())[:500],
        hint=" ".join(hint.split())[:500] if isinstance(hint, str) else "",
        confidence=float(sure),
    )


def _given(answer: ModelAnswer) -> Mapping[str, Any]:
    if len(answer.calls) == 1 and answer.calls[0].tool == VERDICT.name and not answer.calls[0].broken:
        return answer.calls[0].arguments
    if answer.calls:
        raise ModelNonsense(
            "The model answered by something else than one verdict",
            received=", ".join(f"{call.tool}{' (broken)' if call.broken else ''}" for call in answer.calls)[:200],
        )
    text = answer.text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelNonsense("The judgement cannot be read", received=repr(answer.text[:80])) from error
    if not isinstance(found, dict):
        raise ModelNonsense("The judgement is no object", received=repr(answer.text[:80]))
    return found
