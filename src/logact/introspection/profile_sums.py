"""Small verbs of the profile's fold: sums by name, best lists, digests, and letting go of what is too much."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from logact.entry import Entry, Usage
from logact.introspection.profile import (
    NAMES_KEPT,
    RUNS_DETAILED,
    RUNS_KEPT,
    SAID_CHARS,
    TOP_KEPT,
    Profile,
    RunProfile,
    Tally,
)

_encode = msgspec.json.Encoder().encode


def of(profile: Profile, run: int, entry: Entry) -> RunProfile | None:
    found = profile.runs.get(run)
    if found is not None:
        found.last, found.last_ms = entry.position, entry.time_ms
    return found


def let_go(profile: Profile) -> None:
    """The details of the run that was silent for longest go; of very many runs the oldest goes into one sum."""
    detailed = [run for run in profile.runs.values() if run.steps or run.repeats]
    if len(detailed) > RUNS_DETAILED:
        oldest = min(detailed, key=lambda run: (run.status == "running", run.last_ms, run.id))
        oldest.steps, oldest.repeats, oldest.topic = [], {}, []
    if len(profile.runs) > RUNS_KEPT:
        gone = next((run for run in profile.runs.values() if run.status != "running"), None)
        if gone is None:
            return
        del profile.runs[gone.id]
        older = profile.older
        if older is None:
            older = profile.older = RunProfile(id=0, agent="", title="(older runs)", status="finished")
        older.turns += gone.turns
        older.actions += gone.actions
        older.tool_ms += gone.tool_ms
        older.wait_ms += gone.wait_ms
        older.retry_ms += gone.retry_ms
        older.wasted_tokens += gone.wasted_tokens
        older.side_tokens += gone.side_tokens
        older.side_usd += gone.side_usd
        for field in ("count", "ms", "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "priced"):
            setattr(older.model, field, getattr(older.model, field) + getattr(gone.model, field))


def named(tallies: dict[str, Tally], name: str) -> Tally:
    found = tallies.get(name)
    if found is None:
        if len(tallies) >= NAMES_KEPT:
            name = "(others)"
        found = tallies.setdefault(name, Tally())
    return found


def used(tally: Tally, usage: Usage, ms: float = 0.0, position: int = 0) -> None:
    tally.count += 1
    tally.input_tokens += usage.input_tokens
    tally.output_tokens += usage.output_tokens
    tally.cached_tokens += usage.cached_tokens
    if usage.cost_usd is not None:
        tally.cost_usd += usage.cost_usd
        tally.priced += 1
    took(tally, ms, position)


def took(tally: Tally, ms: float, position: int) -> None:
    tally.ms += ms
    if ms > tally.ms_max:
        tally.ms_max, tally.at_max = ms, position


def top(best: list[Any], value: float, position: int, name: str) -> None:
    if value <= 0 or (len(best) >= TOP_KEPT and value <= best[-1][0]):
        return
    best.append((value, position, name))
    best.sort(key=lambda one: (-one[0], one[1]))
    del best[TOP_KEPT:]


def aside(run: RunProfile, usage: Usage) -> None:
    run.side_tokens += usage.input_tokens + usage.output_tokens
    run.side_usd += usage.cost_usd or 0.0


def short_text(value: Any) -> str:
    text = value if isinstance(value, str) else _encode(value).decode(errors="replace")
    return text[:SAID_CHARS]


def short_digest(value: Any) -> str:
    data = value.encode(errors="replace") if isinstance(value, str) else _encode(value)
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def size_of(value: Any) -> int:
    return len(value) if isinstance(value, str) else 0 if value is None else len(_encode(value))
