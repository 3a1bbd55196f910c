"""Where time, tokens and money went, computed from a profile: sums, the slowest and dearest, what was done twice.

It says what the log shows and nothing else; what could be saved is an estimate, and says so. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from logact.core.state import State
from logact.introspection.profile import Cluster, Profile, Repeat, RunProfile, Tally
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
    """Where tokens went. ``aside`` went to voters and compactions, ``wasted`` to turns that brought nothing new."""

    input: int = 0
    output: int = 0
    cached: int = 0
    aside: int = 0
    wasted: int = 0


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
    value: str | int | float | bool | None = None
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
    contexts: tuple[Context, ...] = ()
    errors: tuple[Cluster, ...] = ()
    signals: tuple[Signal, ...] = ()
    proposals: tuple[Proposal, ...] = ()


LISTED = 10


def performance(
    state: State, profile: Profile, thresholds: Thresholds, now_ms: int, *, agent: str = "", run: int = 0
) -> Performance:
    """The computed part, of a whole log, one agent, or one run. Sums by model, tool and voter are the whole log's."""
    chosen = [
        one for one in profile.runs.values() if (not agent or one.agent == agent) and (not run or one.id == run)
    ]
    counted = [*chosen, profile.older] if profile.older is not None and not agent and not run else chosen
    found = signals(state, profile, now_ms, thresholds, agent=agent, run=run)
    priced = all(one.model.priced == one.model.count for one in counted) and any(one.model.count for one in counted)
    repeated = [repeat for one in chosen for repeat in one.repeats.values() if repeat.count > 1]
    return Performance(
        agent=agent,
        run=run,
        entries=profile.entries,
        since=profile.since,
        runs=len(chosen),
        turns=sum(one.turns for one in counted),
        actions=sum(one.actions for one in counted),
        times=Times(
            model_ms=sum(one.model.ms for one in counted),
            votes_ms=sum(one.wait_ms for one in counted),
            tools_ms=sum(one.tool_ms for one in counted),
            retries_ms=sum(one.retry_ms for one in counted),
        ),
        tokens=Tokens(
            input=sum(one.model.input_tokens for one in counted),
            output=sum(one.model.output_tokens for one in counted),
            cached=sum(one.model.cached_tokens for one in counted),
            aside=sum(one.side_tokens for one in counted),
            wasted=sum(one.wasted_tokens for one in counted),
        ),
        usd=sum(one.model.cost_usd + one.side_usd for one in counted) if priced else None,
        models=rows_of(profile.models, by="tokens"),
        tools=rows_of(profile.tools, by="ms"),
        voters=rows_of(profile.voters, by="held_ms"),
        slowest=tuple(profile.slowest),
        dearest=tuple(profile.dearest),
        largest=tuple(profile.largest),
        repeated=tuple(sorted(repeated, key=lambda one: (-one.tokens, -one.same, -one.count))[:LISTED]),
        contexts=tuple(_contexts(chosen)),
        errors=tuple(sorted(profile.errors.values(), key=lambda one: -one.count)[:LISTED]),
        signals=tuple(found),
        proposals=tuple(_proposals(found, profile, chosen)),
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


# --- what would help --------------------------------------------------------------------------------------------


def _proposals(found: Iterable[Signal], profile: Profile, runs: list[RunProfile]) -> Iterable[Proposal]:
    """For each signal that a known change answers, that change; the saving is what this history would have saved."""
    by_id = {one.id: one for one in runs}
    for signal in found:
        run = by_id.get(signal.run)
        make = _ANSWERS.get(signal.code)
        if make is not None:
            proposal = make(signal, run, profile)
            if proposal is not None:
                yield proposal


def _cache(signal: Signal, run: RunProfile | None, profile: Profile) -> Proposal | None:
    if run is None:
        return None
    repeat = next((one for one in run.repeats.values() if tuple(one.positions) == signal.cites), None)
    if repeat is None:
        return None
    wasted_ms = repeat.ms * repeat.same / max(1, repeat.count)
    return Proposal(
        kind="cache",
        title=f"Keep the result of {repeat.tool} instead of calling it again",
        why=signal.message,
        cites=signal.cites,
        tokens=repeat.tokens,
        ms=round(wasted_ms, 1),
    )


def _compact(signal: Signal, run: RunProfile | None, profile: Profile) -> Proposal | None:
    limit = max(2000, int(signal.threshold) * 2 // 3)
    saved = sum(max(0, context - limit) for context in (run.contexts if run is not None else ()))
    return Proposal(
        kind="parameter",
        title=f"Compact the context beyond {limit} tokens",
        why=signal.message,
        cites=signal.cites,
        tokens=saved,
        change=Change(setting="agent.context_tokens_max", value=limit),
    )


def _cheaper(signal: Signal, run: RunProfile | None, profile: Profile) -> Proposal | None:
    name, _, rest = signal.message.partition(" costs ")
    other = rest.partition(" per token as ")[2].partition(", which does")[0]
    if not other or not signal.value:
        return None
    spent = profile.models[name].cost_usd
    return Proposal(
        kind="model",
        title=f"Let {other} do what {name} does",
        why=signal.message,
        cites=signal.cites,
        usd=round(spent * (1 - 1 / signal.value), 6),
        change=Change(setting="agent.model", value=other),
    )


def _refuse(signal: Signal, run: RunProfile | None, profile: Profile) -> Proposal | None:
    if run is None:
        return None
    step = next((one for one in reversed(run.steps) if one.position in signal.cites), None)
    repeat = run.repeats.get(step.call) if step is not None else None
    if step is None:
        return None
    return Proposal(
        kind="parameter",
        title="Limit the actions of a run",
        why=signal.message,
        cites=signal.cites,
        tokens=run.wasted_tokens,
        ms=round(repeat.ms, 1) if repeat is not None else 0.0,
        change=Change(setting="agent.limits.actions", value=max(20, 2 * run.actions)),
    )


def _limit(signal: Signal, run: RunProfile | None, profile: Profile) -> Proposal | None:
    if run is None:
        return None
    return Proposal(
        kind="parameter",
        title="Limit the tokens of a run",
        why=signal.message,
        cites=signal.cites,
        tokens=run.wasted_tokens,
        usd=round(run.wasted_usd, 6),
        change=Change(setting="agent.limits.tokens", value=max(10_000, 2 * (run.tokens - run.wasted_tokens))),
    )


_ANSWERS = {
    "repeated_reads": _cache,
    "growing_context": _compact,
    "expensive_model": _cheaper,
    "loop": _refuse,
    "retry_storm": _refuse,
    "budget_leak": _limit,
}
