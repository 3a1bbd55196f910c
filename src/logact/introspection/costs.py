"""What was used and what it cost: tokens, money and time, by agent, run, model and tool. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from logact.introspection.performance import Row, rows_of
from logact.introspection.profile import Profile, RunProfile
from logact.introspection.profile_scope import counted, sums_of
from logact.introspection.profile_sums import OLDER, add_tally

By = Literal["agent", "run", "model", "tool"]
BY: tuple[By, ...] = ("agent", "run", "model", "tool")

NO_AGENT, NO_RUN = "(no agent)", "(no run)"
"""The rows of what was used outside of runs: what `health`, `debug` and `ask` asked a model about a whole log."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Sums. ``usd`` is None where a price is missing; ``at_least_usd`` is what is known. Times in ms.

    Tokens of tools are about how much their results added to contexts (four bytes a token): they are part of the
    models' input, not beside it. Time of an agent or run is that of its model, votes and tools together.
    """

    by: By
    rows: tuple[Row, ...]
    tokens: int
    usd: float | None
    at_least_usd: float
    since: int = 0


def costs(profile: Profile, by: By) -> Costs:
    """The sums of a log, by one of ``BY``."""
    sums = sums_of(profile)
    if by == "model":
        rows = rows_of(sums.models, by="tokens")
    elif by == "tool":
        rows = rows_of(sums.tools, by="ms")
    else:
        groups: dict[str, list[RunProfile]] = {}
        for run in counted(profile):
            name = (run.agent if by == "agent" else str(run.id or "")) or OLDER
            groups.setdefault(name, []).append(run)
        for one in _beside(profile):
            name = (one.agent or NO_AGENT) if by == "agent" else NO_RUN
            groups.setdefault(name, []).append(one)
        rows = _grouped(groups)
    known = [one.cost_usd for one in sums.models.values() if one.priced]
    whole = all(one.priced == one.count for one in sums.models.values()) and bool(sums.models)
    return Costs(
        by=by,
        rows=rows,
        tokens=sum(one.tokens for one in sums.models.values()),
        usd=sum(known) if whole else None,
        at_least_usd=sum(known),
        since=profile.since,
    )


def _beside(profile: Profile) -> list[RunProfile]:
    """What belongs to no run, by agent, in the shape of a run: the questions of introspection itself, mostly."""
    found = []
    for agent, sums in profile.aside.items():
        one = RunProfile(id=0, agent=agent, runs=0)
        for tally in sums.models.values():
            add_tally(one.model, tally)
        if one.model.count:
            found.append(one)
    return found


def _grouped(groups: dict[str, list[RunProfile]]) -> tuple[Row, ...]:
    total = sum(run.tokens for runs in groups.values() for run in runs)
    rows = []
    for name, runs in groups.items():
        tokens = sum(run.tokens for run in runs)
        priced = all(run.priced for run in runs) and any(run.model.count for run in runs)
        rows.append(
            Row(
                name=name,
                count=sum(run.turns for run in runs),
                failed=sum(run.failed for run in runs),
                ms=round(sum(run.model.ms + run.tool_ms + run.wait_ms for run in runs), 3),
                tokens=tokens,
                input_tokens=sum(run.model.input_tokens for run in runs),
                output_tokens=sum(run.model.output_tokens for run in runs),
                cached_tokens=sum(run.model.cached_tokens for run in runs),
                usd=sum(run.model.cost_usd + run.side_usd for run in runs) if priced else None,
                share=round(tokens / total, 4) if total else 0.0,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.tokens, row.name)))
