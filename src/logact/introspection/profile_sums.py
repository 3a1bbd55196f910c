"""Small verbs of the profile's fold: sums by name, best lists, digests, and letting go of what is too much."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from logact.entry import Entry, Retried, Usage
from logact.introspection.profile import (
    ERRORS_OF_A_RUN,
    NAMES_KEPT,
    NAMES_OF_A_RUN,
    POSITIONS_KEPT,
    RUNS_DETAILED,
    RUNS_KEPT,
    SAID_CHARS,
    TOP_KEPT,
    Cluster,
    Profile,
    RunProfile,
    Small,
    Sums,
    Tally,
)

_encode = msgspec.json.Encoder().encode
_NUMBERS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


def of(profile: Profile, run: int, entry: Entry) -> RunProfile | None:
    found = profile.runs.get(run)
    if found is not None:
        found.last, found.last_ms = entry.position, entry.time_ms
    return found


def sums_for(profile: Profile, run: RunProfile | None, agent: str) -> Sums:
    """Where something is counted: in its run, else beside all runs, under the agent's name."""
    if run is not None:
        return run.sums
    found = profile.aside.get(agent)
    if found is None:
        found = profile.aside.setdefault(agent if len(profile.aside) < NAMES_KEPT else "", Sums())
    return found


def let_go(profile: Profile) -> None:
    """The details of the run that was silent for longest go; of very many runs the oldest goes into one sum."""
    detailed = [run for run in profile.runs.values() if run.steps or run.repeats]
    if len(detailed) > RUNS_DETAILED:
        oldest = min(detailed, key=lambda run: (run.status == "running", run.last_ms, run.id))
        oldest.steps, oldest.repeats, oldest.topic, oldest.heard = [], {}, [], {}
        sums = oldest.sums
        lists = Sums(slowest=sums.slowest, dearest=sums.dearest, largest=sums.largest, again=sums.again)
        add(_older(profile, oldest.agent).sums, lists)
        sums.slowest, sums.dearest, sums.largest, sums.again = [], [], [], {}
    if len(profile.runs) > RUNS_KEPT:
        gone = next((run for run in profile.runs.values() if run.status != "running"), None)
        if gone is None:
            return
        del profile.runs[gone.id]
        older = _older(profile, gone.agent)
        for field in _ADDED:
            setattr(older, field, getattr(older, field) + getattr(gone, field))
        add_tally(older.model, gone.model)
        add(older.sums, gone.sums)


def _older(profile: Profile, agent: str) -> RunProfile:
    found = profile.older.get(agent)
    if found is None:
        agent = agent if len(profile.older) < NAMES_KEPT else ""
        found = profile.older.setdefault(agent, RunProfile(id=0, agent=agent, title=OLDER, status="finished", runs=0))
    return found


OLDER = "(older runs)"
_ADDED = (
    "runs",
    "entries",
    "turns",
    "actions",
    "done",
    "failed",
    "rejected",
    "tool_ms",
    "wait_ms",
    "retry_ms",
    "again_tokens",
    "wasted_tokens",
    "wasted_usd",
    "side_tokens",
    "side_usd",
    "side_unpriced",
)


# --- sums of sums ------------------------------------------------------------------------------------------------


def add(to: Sums, more: Sums) -> None:
    """Add one group of sums to another."""
    for mine, theirs in ((to.models, more.models), (to.tools, more.tools), (to.voters, more.voters)):
        for name, tally in theirs.items():
            add_tally(named(mine, name, NAMES_KEPT), tally)
    for name, kinds in more.kinds.items():
        counts = to.kinds.setdefault(name, {})
        for kind, count in kinds.items():
            if kind in counts or len(counts) < NAMES_KEPT:
                counts[kind] = counts.get(kind, 0) + count
    for name, count in more.called.items():
        if name in to.called or len(to.called) < NAMES_KEPT:
            to.called[name] = to.called.get(name, 0) + count
    for name, small in more.small.items():
        mine_small = to.small.setdefault(name, Small())
        mine_small.turns += small.turns
        mine_small.tokens += small.tokens
        mine_small.cost_usd += small.cost_usd
        mine_small.positions = [*mine_small.positions, *small.positions][-POSITIONS_KEPT:]
    _add_errors(to, more)
    _add_again(to, more)
    for best, others in ((to.slowest, more.slowest), (to.dearest, more.dearest), (to.largest, more.largest)):
        for value, position, name in others:
            top(best, value, position, name)


def _add_errors(to: Sums, more: Sums) -> None:
    for key, cluster in more.errors.items():
        known = to.errors.get(key)
        if known is None:
            to.errors[key] = msgspec.structs.replace(cluster, positions=list(cluster.positions))
            if len(to.errors) > NAMES_KEPT:
                del to.errors[next(iter(to.errors))]
            continue
        known.count += cluster.count
        known.last_ms = max(known.last_ms, cluster.last_ms)
        known.positions = sorted([*known.positions, *cluster.positions])[-POSITIONS_KEPT:]


def _add_again(to: Sums, more: Sums) -> None:
    for key, one in more.again.items():
        known = to.again.get(key)
        if known is None:
            to.again[key] = msgspec.structs.replace(one, positions=list(one.positions))
            if len(to.again) > NAMES_KEPT:
                del to.again[next(iter(to.again))]
            continue
        known.count += one.count
        known.tokens += one.tokens
        known.ms += one.ms
        known.cost_usd += one.cost_usd
        known.priced += one.priced
        known.positions = sorted([*known.positions, *one.positions])[-POSITIONS_KEPT:]


def add_tally(to: Tally, more: Tally) -> None:
    """Add one name's sums to another's."""
    if more.ms_max > to.ms_max:
        to.ms_max, to.at_max = more.ms_max, more.at_max
    to.count += more.count
    to.failed += more.failed
    to.ms += more.ms
    to.input_tokens += more.input_tokens
    to.output_tokens += more.output_tokens
    to.cached_tokens += more.cached_tokens
    to.cost_usd += more.cost_usd
    to.priced += more.priced
    to.held_ms += more.held_ms


def named(tallies: dict[str, Tally], name: str, names_max: int = NAMES_OF_A_RUN) -> Tally:
    found = tallies.get(name)
    if found is None:
        if len(tallies) >= names_max:
            name = "(others)"
        found = tallies.setdefault(name, Tally())
    return found


# --- one entry's part --------------------------------------------------------------------------------------------


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


def clustered(sums: Sums, new: Cluster) -> None:
    """Count failures with those that say the same of the same tool or model."""
    key = f"{new.tool} {new.kind} {_NUMBERS.sub('…', new.message)[:160]}"
    found = sums.errors.pop(key, None) or Cluster(new.tool, new.kind, new.message[:200])
    found.count += new.count
    found.last_ms = new.last_ms
    found.positions = [*found.positions, *new.positions][-POSITIONS_KEPT:]
    sums.errors[key] = found
    if len(sums.errors) > ERRORS_OF_A_RUN:
        del sums.errors[next(iter(sums.errors))]


def asked_again(sums: Sums, entry: Entry, name: str, errors: Iterable[Retried]) -> None:
    """Count the errors of a provider that were survived by asking again."""
    for one in errors:
        named(sums.models, name).failed += one.count
        kind = f"{one.kind} {one.status}" if one.status else one.kind
        clustered(sums, Cluster(name, kind, "asked again", one.count, entry.time_ms, [entry.position]))


def top(best: list[Any], value: float, position: int, name: str) -> None:
    if value <= 0 or (len(best) >= TOP_KEPT and value <= best[-1][0]):
        return
    best.append((value, position, name))
    best.sort(key=lambda one: (-one[0], one[1]))
    del best[TOP_KEPT:]


def aside(run: RunProfile, usage: Usage) -> None:
    run.side_tokens += usage.input_tokens + usage.output_tokens
    run.side_usd += usage.cost_usd or 0.0
    run.side_unpriced += usage.cost_usd is None


def short_text(value: Any) -> str:
    text = value if isinstance(value, str) else _encode(value).decode(errors="replace")
    return text[:SAID_CHARS]


def short_digest(value: Any) -> str:
    data = value.encode(errors="replace") if isinstance(value, str) else _encode(value)
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def size_of(value: Any) -> int:
    return len(value) if isinstance(value, str) else 0 if value is None else len(_encode(value))
