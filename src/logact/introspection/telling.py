"""Entries in one short line each, for a model's eyes. Pure.

An action is one line, at its intent's position: what was wanted, who refused it, what came of it. What nobody asks
about (signs of life, checkpoints, starts) has no line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from logact.core.views import named
from logact.entry import (
    Abort,
    Cancel,
    Commit,
    Compaction,
    Control,
    Entry,
    Expiry,
    Finding,
    Inference,
    Input,
    Intent,
    Mail,
    Notice,
    Output,
    Policy,
    Recovery,
    Result,
    Run,
    Undone,
    Vote,
)

CHARS = 240


class Line(msgspec.Struct, frozen=True):
    """One line: where it stands, its text, and whether what it is about is over."""

    position: int
    text: str
    settled: bool = True


def lines(entries: Iterable[Entry], *, chars: int = CHARS) -> list[Line]:
    """The lines of entries, in order. ``chars`` limits each part of a line."""
    found: dict[int, list[str]] = {}
    open_: set[int] = set()
    for entry in entries:
        said = entry.payload
        if isinstance(said, Intent):
            found[entry.position] = [
                f"{said.agent} run {said.run} wants {named(said)} {_short(said.arguments, chars)}"
            ]
            if said.retry_of:
                found[entry.position].append(f"(again, after {said.retry_of})")
            open_.add(entry.position)
            continue
        about = getattr(said, "intent", 0)
        if about and about in found:
            part = _part(said, chars)
            if part:
                found[about].append(part)
            if isinstance(said, Abort | Expiry | Result | Undone | Recovery | Cancel):
                open_.discard(about)
            if not isinstance(said, Output):
                continue
        text = _own(said, chars)
        if text:
            found[entry.position] = [text]
    return [Line(position, "; ".join(parts), position not in open_) for position, parts in sorted(found.items())]


def _part(said: Any, chars: int) -> str:
    """What an entry adds to its action's line."""
    if isinstance(said, Vote):
        if said.approved is True:
            return ""
        word = "rejects" if said.approved is False else "abstains"
        return f"{said.voter} {word}: {_short(said.reason, chars)}"
    if isinstance(said, Abort):
        return f"REFUSED: {_short(said.reason, chars)}"
    if isinstance(said, Expiry):
        return f"EXPIRED: {_short(said.reason, chars)}"
    if isinstance(said, Cancel):
        return f"CANCELLED: {_short(said.reason, chars)}"
    if isinstance(said, Result):
        took = f" in {said.duration_ms:.0f} ms" if said.duration_ms >= 1 else ""
        if said.error is not None:
            return f"FAILED{took}: {said.error.kind}: {_short(said.error.message, chars)}"
        value = said.blob.preview if said.blob is not None else said.value
        return f"done{took}: {_short(value, chars)}" if value is not None else f"done{took}"
    if isinstance(said, Recovery):
        return f"settled as {said.settlement} ({_short(said.evidence or said.reason, chars)})"
    if isinstance(said, Undone):
        return "undone" if said.error is None else f"its undo failed: {_short(said.error.message, chars)}"
    return ""


def _own(said: Any, chars: int) -> str:
    """The line of an entry that is about no action."""
    if isinstance(said, Run):
        return f"a run of {said.agent} begins: {_short(said.title, chars)}"
    if isinstance(said, Input):
        return f"the user says: {_short(said.text, chars)}"
    if isinstance(said, Inference):
        tokens = f"{said.usage.input_tokens}+{said.usage.output_tokens} tokens, {said.latency_ms:.0f} ms"
        if again := sum(one.count for one in said.retried):
            tokens += f", asked again {again} times"
        return f"turn {said.turn} of {said.model} ({tokens}): {_short(said.text, chars)}".rstrip(": ")
    if isinstance(said, Compaction):
        return f"the context was compacted: {_short(said.summary, chars)}"
    if isinstance(said, Output):
        not_ok = "" if said.ok else f" (not ok: {_short(said.reason, chars)})"
        return f"the answer{not_ok}: {_short(said.text or said.value, chars)}"
    if isinstance(said, Control):
        return f"{said.verb} {said.scope}: {_short(said.reason, chars)}"
    if isinstance(said, Policy):
        return f"policy version {said.version}{' of ' + said.agent if said.agent else ''}: {_short(said.need, chars)}"
    if isinstance(said, Mail):
        return f"mail of {said.sender} to {said.to}: {_short(said.body, chars)}"
    if isinstance(said, Finding):
        return "" if said.code == "summary" else f"finding {said.code}: {_short(said.message, chars)}"
    if isinstance(said, Notice):
        return f"notice {said.code}: {_short(said.message, chars)}"
    if isinstance(said, Commit | Vote | Abort | Expiry | Result | Recovery | Cancel | Undone):
        return _part(said, chars)  # its intent lies outside of what is shown
    return ""


def _short(value: Any, chars: int) -> str:
    """A value in one line; of a long one the beginning and the end."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
    text = " ".join(text[: 8 * chars].split())
    if len(text) <= chars:
        return text
    return f"{text[: chars * 2 // 3]} […] {text[-chars // 4 :]}"
