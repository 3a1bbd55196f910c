"""Agents whose model is bigger than their work: a cheaper one is proposed, to be tried on some runs first. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from logact.entry import Usage
from logact.introspection import trials
from logact.introspection.token_reading import Spending, Work
from logact.introspection.tokens import RUNS_MIN, Measure
from logact.introspection.trials import Candidate, Tally
from logact.models.provider import Price

SMALL_OUTPUT = 150
"""A model whose answers are that short (tokens, in the mean), and never broken, may be bigger than its work needs."""


def smaller(found: Spending, works: Sequence[Work], agent: str, models: Sequence[Candidate]) -> list[Measure]:
    """A model that only ever says little, and never wrongly, where a cheaper one is known.

    ``models`` are the agent's own and those that it may try. Without any, one that is at work in the log is named.
    """
    mine = [work for work in works if work.agent == agent and work.model and work.output and not work.tried]
    said = sum(work.usage.output_tokens for work in mine) / max(1, sum(work.turns for work in mine))
    if len(mine) < RUNS_MIN or said > SMALL_OUTPUT or any(work.broken or not work.ok for work in mine):
        return []
    cites = tuple(work.run for work in mine[-20:])
    if len(models) > 1:
        failed = {name for who, name in found.trials.failed if who == agent}
        on_trial = any(trial.agent == agent for trial in found.trials.going.values())
        best = _cheapest(mine, [one for one in models if one.name not in failed])
        return [] if on_trial or best is models[0] else [_to_try(mine, models[0], best, cites)]
    others = sorted({work.model for work in works if work.model} - {work.model for work in mine})
    if not others:
        return []
    title = f"{mine[0].model} says {said:.0f} tokens at a time, and was never wrong; try {others[0]}"
    return [Measure(kind="model", title=title, data={"model": others[0], "instead": mine[0].model}, cites=cites)]


def _used(mine: Sequence[Work]) -> Usage:
    return Usage(
        input_tokens=sum(work.usage.input_tokens for work in mine),
        output_tokens=sum(work.usage.output_tokens for work in mine),
        cached_tokens=sum(work.usage.cached_tokens for work in mine),
    )


def _cheapest(mine: Sequence[Work], models: Sequence[Candidate]) -> Candidate:
    """The model for which these tokens would have cost least; the first of those that cost the same."""
    used = _used(mine)
    return min(models, key=lambda one: one.price.cost_usd(used))


def _to_try(mine: Sequence[Work], own: Candidate, other: Candidate, cites: tuple[int, ...]) -> Measure:
    """The proposal to try a model."""
    used = _used(mine)
    less = 100 * (1 - other.price.cost_usd(used) / own.price.cost_usd(used))
    said = used.output_tokens / max(1, sum(work.turns for work in mine))
    title = (
        f"{own.name} says {said:.0f} tokens at a time, and was never wrong; {other.name} costs {less:.0f} % less for "
        f"as many tokens: try it on {trials.TRIAL_RUNS} runs"
    )
    data = {
        "model": other.name,
        "instead": own.name,
        "runs": trials.TRIAL_RUNS,
        "price": msgspec.to_builtins(other.price),
        "instead_price": msgspec.to_builtins(own.price),
        "before": msgspec.to_builtins(_before(mine, own.price)),
    }
    return Measure(kind="model", title=title, data=data, cites=cites)


def _before(mine: Sequence[Work], price: Price) -> Tally:
    """How the agent's latest runs went."""
    tally = Tally()
    for work in mine[-trials.LATEST_RUNS :]:
        tally.runs += 1
        tally.bad += not work.ok
        tally.troubles += work.troubles + work.broken
        tally.usd += trials.cost_usd(work.usage, price)
    return tally
