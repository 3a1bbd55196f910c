"""Where time, tokens and money went, computed from a profile: sums, the slowest and dearest, what was done twice.

It says what the log shows and nothing else; what could be saved is an estimate, and says so. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from logact.core.state import State
from logact.introspection.profile import Again, Cluster, Profile, Repeat, RunProfile, Tally
from logact.introspection.profile_scope import counted, runs_of, sums_of
from logact.introspection.signals import Signal, Thresholds, signals


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One name's part. ``usd`` is None where no price is known; ``share`` is of all rows' time (or tokens)."""

    name: str
    count: int
    failed: int = 0
    ms: float = 0.0
    ms_max: float = 0.0
    at_max: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = None
    held_ms: float = 0.0
    share: float = 0.0


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Where time went, in ms: the model, waiting for votes, tools, and of the tools' time that of retries."""

    model_ms: float = 0.0
    votes_ms: float = 0.0
    tools_ms: float = 0.0
    retries_ms: float = 0.0


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Where tokens went. ``aside`` went to voters and compactions, ``wasted`` to turns that brought nothing new,
    ``again`` to questions whose answer the log held (of ``input`` and ``output``).
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    aside: int = 0
    wasted: int = 0
    again: int = 0


class AskedAgain(msgspec.Struct, frozen=True, kw_only=True):
    """The same input to the same model again: ``count`` times after the inference at ``first``, and what they cost.

    ``usd`` is None where no price is known. ``cites`` are the first and the latest repetitions.
    """

    model: str
    first: int
    count: int
    tokens: int
    ms: float
    usd: float | None
    cites: tuple[int, ...]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """How the context of one run grew: input tokens of its first, its latest and its largest known turn."""

    run: int
    first: int
    last: int
    largest: int
    turns: int
    compactions: int = 0
    cites: tuple[int, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Something that can be applied: a setting and its new value, or a rule that is added.

    ``setting`` is one of ``settings.SETTINGS``; ``rule`` a table as ``[[voters]] use = "rules"`` takes it.
    """

    setting: str = ""
    value: str | int | float | bool | tuple[str, ...] | None = None
    rule: dict[str, object] | None = None


class Proposal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change that would help: why, which positions show it, and about what it would save (over this history).

    ``kind`` is ``parameter``, ``model``, ``tool``, ``cache``, ``rule`` or ``other``; ``by`` who says so: ``computed``
    or a model's name. Only one with a ``change`` can be applied.
    """

    kind: str
    title: str
    why: str
    cites: tuple[int, ...]
    tokens: int = 0
    ms: float = 0.0
    usd: float = 0.0
    change: Change | None = None
    by: str = "computed"


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """The computed part. Lists are sorted, the worst first; ``since`` > 0: counting began there."""

    agent: str = ""
    run: int = 0
    entries: int = 0
    since: int = 0
    runs: int = 0
    turns: int = 0
    actions: int = 0
    times: Times = Times()
    tokens: Tokens = Tokens()
    usd: float | None = None
    models: tuple[Row, ...] = ()
    tools: tuple[Row, ...] = ()
    voters: tuple[Row, ...] = ()
    slowest: tuple[tuple[float, int, str], ...] = ()
    dearest: tuple[tuple[float, int, str], ...] = ()
    largest: tuple[tuple[int, int, str], ...] = ()
    repeated: tuple[Repeat, ...] = ()
    asked_again: tuple[AskedAgain, ...] = ()
    contexts: tuple[Context, ...] = ()
    errors: tuple[Cluster, ...] = ()
    signals: tuple[Signal, ...] = ()
    proposals: tuple[Proposal, ...] = ()


LISTED = 10


def performance(
    state: State, profile: Profile, thresholds: Thresholds, now_ms: int, *, agent: str = "", run: int = 0
) -> Performance:
    """The computed part, of a whole log, one agent, or one run: every sum and list is of that part alone."""
    from logact.introspection.remedies import remedies

    chosen, every = runs_of(profile, agent, run), counted(profile, agent, run)
    sums = sums_of(profile, agent, run)
    found = signals(state, profile, now_ms, thresholds, agent=agent, run=run)
    priced = all(one.priced for one in every) and any(one.model.count for one in every)
    repeated = [repeat for one in chosen for repeat in one.repeats.values() if repeat.count > 1]
    again = sorted(sums.again.values(), key=lambda one: (-one.cost_usd, -one.tokens, one.first))
    return Performance(
        agent=agent,
        run=run,
        entries=sum(one.entries for one in every) if agent or run else profile.entries,
        since=profile.since,
        runs=sum(one.runs for one in every),
        turns=sum(one.turns for one in every),
        actions=sum(one.actions for one in every),
        times=Times(
            model_ms=sum(one.model.ms for one in every),
            votes_ms=sum(one.wait_ms for one in every),
            tools_ms=sum(one.tool_ms for one in every),
            retries_ms=sum(one.retry_ms for one in every),
        ),
        tokens=Tokens(
            input=sum(one.model.input_tokens for one in every),
            output=sum(one.model.output_tokens for one in every),
            cached=sum(one.model.cached_tokens for one in every),
            aside=sum(one.side_tokens for one in every),
            wasted=sum(one.wasted_tokens for one in every),
            again=sum(one.again_tokens for one in every),
        ),
        usd=sum(one.model.cost_usd + one.side_usd for one in every) if priced else None,
        models=rows_of(sums.models, by="tokens"),
        tools=rows_of(sums.tools, by="ms"),
        voters=rows_of(sums.voters, by="held_ms"),
        slowest=tuple(sums.slowest),
        dearest=tuple(sums.dearest),
        largest=tuple(sums.largest),
        repeated=tuple(sorted(repeated, key=lambda one: (-one.tokens, -one.same, -one.count))[:LISTED]),
        asked_again=tuple(_asked_again(one) for one in again[:LISTED]),
        contexts=tuple(_contexts(chosen)),
        errors=tuple(sorted(sums.errors.values(), key=lambda one: -one.count)[:LISTED]),
        signals=tuple(found),
        proposals=tuple(remedies(profile, found, chosen, sums)),
    )


def _asked_again(one: Again) -> AskedAgain:
    return AskedAgain(
        model=one.model,
        first=one.first,
        count=one.count,
        tokens=one.tokens,
        ms=round(one.ms, 3),
        usd=one.cost_usd if one.priced == one.count else None,
        cites=(one.first, *one.positions),
    )


def rows_of(tallies: dict[str, Tally], *, by: str) -> tuple[Row, ...]:
    """Tallies as rows, the largest first; ``by`` names what shares are of."""
    total = sum(float(getattr(one, by)) for one in tallies.values())
    rows = [
        Row(
            name=name,
            count=one.count,
            failed=one.failed,
            ms=round(one.ms, 3),
            ms_max=one.ms_max,
            at_max=one.at_max,
            tokens=one.tokens,
            input_tokens=one.input_tokens,
            output_tokens=one.output_tokens,
            cached_tokens=one.cached_tokens,
            usd=one.cost_usd if one.priced and one.priced == one.count else None,
            held_ms=one.held_ms,
            share=round(float(getattr(one, by)) / total, 4) if total else 0.0,
        )
        for name, one in tallies.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.share, -row.count, row.name)))


def _contexts(runs: Iterable[RunProfile]) -> list[Context]:
    found = [
        Context(
            run=one.id,
            first=one.context_first,
            last=one.contexts[-1],
            largest=max(one.contexts),
            turns=one.turns,
            compactions=one.compactions,
            cites=tuple(one.contexts_at[-3:]),
        )
        for one in runs
        if one.contexts and one.turns > 1
    ]
    return sorted(found, key=lambda one: -one.largest)[:LISTED]
