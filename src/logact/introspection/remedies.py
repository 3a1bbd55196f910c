"""What would help: for what was noticed the change that answers it, with the positions that show it. Pure.

A saving is what this history would have saved, an estimate from what the log shows. Where a change can be applied as
it is (a setting, tools that are not offered, reads that are answered from the log, a model), the proposal holds it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from logact.introspection.changes import tightest
from logact.introspection.performance import Change, Proposal
from logact.introspection.profile import Profile, RunProfile, Small, Sums
from logact.introspection.profile_scope import sums_of
from logact.introspection.signals import Signal, prices_of, rival_of
from logact.models.names import names_a_model

TURNS_MIN = 5
"""So many turns show something before a model is called too big for them."""

SMALL_SHARE = 0.8
"""A model is changed only if so much of what it does is short, simple and went well."""

DEARER = 2.0
"""So many times another model's price make a model too dear for what the other does too."""

DEAR_USD = 2e-6
"""A token's price (input and output together) from which a model counts as a big one, whoever else there is."""

RUNS_MIN = 3
CALLS_MIN = 5
FAILING = 0.8
REUSE_S = 600


def remedies(profile: Profile, found: Iterable[Signal], runs: list[RunProfile], sums: Sums) -> Iterable[Proposal]:
    """The proposals, those that answer signals first."""
    by_id = {one.id: one for one in runs}
    changed: list[Change] = []
    every = (
        *_for_signals(found, by_id, profile, sums),
        *_reads(runs),
        *_again(sums),
        *_too_big(profile, sums),
        *_failing(sums),
        *_idle(profile, runs, sums),
    )
    for made in tightest(every):
        if made.change is None or made.change not in changed:
            yield made
            changed += [made.change] if made.change is not None else []


def _for_signals(
    found: Iterable[Signal], by_id: dict[int, RunProfile], profile: Profile, sums: Sums
) -> Iterable[Proposal]:
    for signal in found:
        if signal.code == "expensive_model":
            made = _cheaper(signal, profile, sums)
        else:
            make, run = _ANSWERS.get(signal.code), by_id.get(signal.run)
            made = make(signal, run) if make is not None and run is not None else None
        if made is not None:
            yield made


def _compact(signal: Signal, run: RunProfile) -> Proposal:
    limit = max(2000, int(signal.threshold) * 2 // 3)
    return Proposal(
        kind="parameter",
        title=f"Compact the context beyond {limit} tokens",
        why=signal.message,
        cites=signal.cites,
        tokens=sum(max(0, context - limit) for context in run.contexts),
        change=Change(setting="agent.context_tokens_max", value=limit),
    )


def _refuse(signal: Signal, run: RunProfile) -> Proposal | None:
    step = next((one for one in reversed(run.steps) if one.position in signal.cites), None)
    if step is None:
        return None
    repeat = run.repeats.get(step.call)
    return Proposal(
        kind="parameter",
        title="Limit the actions of a run",
        why=signal.message,
        cites=signal.cites,
        tokens=run.wasted_tokens,
        ms=round(repeat.ms, 1) if repeat is not None else 0.0,
        change=Change(setting="agent.limits.actions", value=max(20, 2 * run.actions)),
    )


def _limit(signal: Signal, run: RunProfile) -> Proposal:
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
    "growing_context": _compact,
    "loop": _refuse,
    "retry_storm": _refuse,
    "budget_leak": _limit,
}


# --- the same again ----------------------------------------------------------------------------------------------


def _reads(runs: list[RunProfile]) -> Iterable[Proposal]:
    """Reads that told what they had told before, with nothing changed in between: answered from the log."""
    repeats = [one for run in runs for one in run.repeats.values() if one.effect == "read" and one.same >= 2]
    if not repeats:
        return
    repeats.sort(key=lambda one: (-one.tokens, -one.same))
    worst = repeats[0]
    told = sum(one.same for one in repeats)
    yield Proposal(
        kind="cache",
        title="Answer repeated reads from the log while nothing has changed",
        why=f"{told} reads told what they had told before, {worst.tool} most often ({worst.same + 1} times)",
        cites=tuple(position for one in repeats for position in one.positions)[:20],
        tokens=sum(one.tokens for one in repeats),
        ms=round(sum(one.ms * one.same / max(1, one.count) for one in repeats), 1),
        change=Change(setting="agent.reuse_reads_s", value=REUSE_S),
    )


def _again(sums: Sums) -> Iterable[Proposal]:
    """Questions that a model had answered before. Whether an answer may serve again, only the owner can know."""
    again = list(sums.again.values())
    count = sum(one.count for one in again)
    if count:
        yield Proposal(
            kind="cache",
            title="Do not ask a model what it was asked before",
            why=f"{count} turns were shown exactly what an earlier turn of the same model was shown",
            cites=tuple(position for one in again for position in (one.first, *one.positions))[:20],
            tokens=sum(one.tokens for one in again),
            ms=round(sum(one.ms for one in again), 1),
            usd=round(sum(one.cost_usd for one in again), 6),
        )


# --- models ------------------------------------------------------------------------------------------------------


def _cheaper(signal: Signal, profile: Profile, sums: Sums) -> Proposal | None:
    name = signal.message.partition(" costs ")[0]
    tally, prices = sums.models.get(name), prices_of(sums_of(profile))
    own = prices_of(sums).get(name, 0.0)
    rival = rival_of(name, own, sums.kinds.get(name, {}), sums_of(profile), prices)
    if tally is None or not rival:
        return None
    saved = tally.cost_usd * (1 - prices[rival] / own)
    return msgspec.structs.replace(_instead(profile, name, rival, saved), why=signal.message, cites=signal.cites)


def _instead(profile: Profile, name: str, rival: str, usd: float) -> Proposal:
    """The change, if the log says under which name the other model is set up."""
    setup = profile.named.get(rival, rival)
    return Proposal(
        kind="model",
        title=f"Let {rival} do what {name} does",
        why="",
        cites=(),
        usd=round(usd, 6),
        change=Change(setting="agent.model", value=setup) if names_a_model(setup) else None,
    )


def _too_big(profile: Profile, sums: Sums) -> Iterable[Proposal]:
    """Dear models whose turns are short, simple and went well, nearly all of them."""
    every = sums_of(profile)
    prices = prices_of(every)
    for name, price in prices_of(sums).items():
        small = sums.small.get(name, Small())
        kinds = sums.kinds.get(name, {})
        turns = sum(kinds.values())
        if small.turns < TURNS_MIN or small.turns < SMALL_SHARE * turns:
            continue
        why = (
            f"{small.turns} of {turns} turns of {name} said little (at most one call), needed a small context, and "
            f"went well; they cost {small.cost_usd:.4f} USD"
        )
        rival = rival_of(name, price, kinds, every, prices)
        if rival and price >= DEARER * prices[rival]:
            saved = small.cost_usd * (1 - prices[rival] / price)
            yield msgspec.structs.replace(
                _instead(profile, name, rival, saved),
                why=f"{why}; {rival} does the same kinds of turns here",
                cites=tuple(small.positions),
            )
        elif price >= DEAR_USD and not rival:
            yield Proposal(
                kind="model",
                title=f"Try a smaller model than {name}",
                why=f"{why}; the log knows no cheaper model that could be compared",
                cites=tuple(small.positions),
            )


# --- tools -------------------------------------------------------------------------------------------------------


def _failing(sums: Sums) -> Iterable[Proposal]:
    """Tools of which nearly every call fails: the model is better off without them."""
    for name, tally in sums.tools.items():
        if tally.count < CALLS_MIN or tally.failed < FAILING * tally.count:
            continue
        clusters = [one for one in sums.errors.values() if one.tool == name]
        yield Proposal(
            kind="tool",
            title=f"Do not offer {name}",
            why=f"{tally.failed} of {tally.count} calls of {name} failed",
            cites=tuple(position for one in clusters for position in one.positions)[:20] or (tally.at_max,),
            ms=round(tally.ms * tally.failed / tally.count, 1),
            change=Change(setting="agent.hide_tools", value=(name,)),
        )


def _idle(profile: Profile, runs: list[RunProfile], sums: Sums) -> Iterable[Proposal]:
    """Tools that are offered with every request, and that no run of the agent ever called."""
    worked = [one for one in runs if one.turns]
    agents = {one.agent for one in worked}
    if len(worked) < RUNS_MIN or len(agents) != 1:
        return
    offered = profile.offered.get(agents.pop(), {})
    idle = sorted(name for name in offered if name not in sums.called)
    turns = sum(one.turns for one in worked)
    if idle and len(idle) < len(offered):
        yield Proposal(
            kind="tool",
            title=f"Do not offer what nobody calls: {', '.join(idle[:5])}{' …' if len(idle) > 5 else ''}",
            why=f"{len(idle)} of {len(offered)} tools were offered in {turns} requests, and never called",
            cites=tuple(one.id for one in worked[-20:]),
            tokens=turns * sum(offered[name] for name in idle),
            change=Change(setting="agent.hide_tools", value=tuple(idle)),
        )
