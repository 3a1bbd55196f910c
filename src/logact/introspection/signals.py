"""Signals of how an agent is doing, computed from the fold and the profile. Pure: the time is an argument.

Loops, stalls, rising errors and used-up limits of running runs are ``core.watching``'s; here are the signals that
need more than a run's latest actions: times, tokens, money, votes, doubt, signs of life, and what the work is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from logact.core import watching
from logact.core.state import State
from logact.core.views import named
from logact.introspection.drifting import drifting
from logact.introspection.profile import Profile, RunProfile, Step, Sums
from logact.introspection.profile_scope import agents_of, runs_of, sums_of

MESSAGE_CHARS_MAX = 400

Make = Callable[[str, str, Iterable[int], float, float], "Signal"]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a signal is on. 0 switches a signal off. Times are in seconds.

    ``slow_tool_s`` a call takes on average, and at least ``slow_tool_share`` of the working time goes to that tool.
    ``retries`` tries of one action in a row, or that many retries that are most of a run's actions. ``context`` input
    tokens of a turn, grown ``context_growth`` times since the run's first. ``silent`` votes in a row that did not
    come. ``expensive`` times the price per token of the cheapest model that does turns of the same kind in the log;
    ``turn_usd`` for one turn. ``drift`` calls in a row that have no word in common with the task or what it led to.
    ``wait_s`` nothing happens in a run that is neither finished nor paused. ``reads`` times the same read told the
    same with no change in between. ``leak`` the share of tokens that brought nothing (over at least ``leak_turns``
    turns). ``errors`` the share of calls that failed (of at least ``errors_from``). ``rejected`` in a row.
    ``doubt_s`` an action is in doubt, ``heartbeat_s`` nothing is heard of a process that has work. ``budget`` the
    share of a run's limit that is used. ``repeats`` and ``idle``: see ``core.watching``.
    """

    slow_tool_s: float = 10.0
    slow_tool_share: float = 0.5
    slow_tool_calls: int = 3
    retries: int = 4
    context: int = 24_000
    context_growth: float = 6.0
    silent: int = 3
    expensive: float = 8.0
    expensive_turns: int = 5
    turn_usd: float = 0.5
    drift: int = 6
    wait_s: float = 600.0
    reads: int = 4
    leak: float = 0.5
    leak_turns: int = 6
    leak_tokens: int = 2000
    errors: float = 0.5
    errors_from: int = 8
    rejected: int = 5
    doubt_s: float = 900.0
    heartbeat_s: float = 300.0
    budget: float = 0.9
    repeats: int = 5
    idle: int = 12


ABOUT_TOOLS = frozenset({"loop", "retry_storm", "error_rate", "repeated_reads", "slow_tool"})
"""Signals of a run that are about the tools that they cite, not about the run as a whole."""


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was noticed: what, how much, beyond which threshold, and the positions that show it.

    ``about`` names the tools, the voter, the model or the actions that it concerns, where it is about some.
    """

    code: str
    message: str
    cites: tuple[int, ...] = ()
    agent: str = ""
    run: int = 0
    about: tuple[str, ...] = ()
    value: float = 0.0
    threshold: float = 0.0


def signals(
    state: State, profile: Profile, now_ms: int, thresholds: Thresholds, *, agent: str = "", run: int = 0
) -> list[Signal]:
    """Everything that is to be noticed, of all agents or one, of all runs that are remembered or one.

    ``halted``, ``broken_chain`` and ``conflict`` are about the log as a whole, and so about everybody on it.
    """
    runs = runs_of(profile, agent, run)
    found: list[Signal] = [*_unsafe(state, now_ms, thresholds, agent, run)]
    found += _voters(state, profile, thresholds, agent, run)
    found += _models(profile, thresholds, agent, run)
    for one in runs:
        found += _run(state, one, now_ms, thresholds)
    found += _life(state, now_ms, thresholds, {one.agent for one in runs})
    return found


# --- what is unsafe or in doubt ---------------------------------------------------------------------------------


def _unsafe(state: State, now_ms: int, limits: Thresholds, agent: str, run: int) -> Iterable[Signal]:
    if state.halted:
        yield Signal(code="halted", message=f"a critical entry is not understood: {state.halted}")
    if state.broken:
        yield Signal(code="broken_chain", message=state.broken[:MESSAGE_CHARS_MAX])
    if state.conflicts:
        yield Signal(
            code="conflict",
            message="a late result contradicts what was settled: an action may have happened twice, or not at all",
            cites=tuple(state.conflicts[-8:]),
            about=tuple(map(str, state.conflicts[-8:])),
            value=float(len(state.conflicts)),
        )
    for action in state.doubtful():
        if (agent and action.intent.agent != agent) or (run and action.intent.run != run):
            continue
        begun = state.incarnations.get(action.attempts[-1].incarnation) if action.attempts else None
        since_ms = begun.last_ms if begun is not None and begun.last_ms else action.proposed_ms
        age_s = max(0, now_ms - since_ms) / 1000
        if limits.doubt_s and age_s >= limits.doubt_s:
            yield Signal(
                code="in_doubt",
                message=f"nobody knows whether {named(action.intent)} happened, for {_span(age_s)}: {action.reason}"[
                    :MESSAGE_CHARS_MAX
                ],
                cites=(action.id,),
                agent=action.intent.agent,
                run=action.intent.run,
                about=(str(action.id),),
                value=age_s,
                threshold=limits.doubt_s,
            )


def _life(state: State, now_ms: int, limits: Thresholds, agents: set[str]) -> Iterable[Signal]:
    """Processes that hold an agent with open work, and of which nothing was heard for long."""
    if not limits.heartbeat_s:
        return
    for name in sorted(agents):
        held = state.agents.get(name)
        life = state.incarnations.get(held.holder) if held is not None and held.holder else None
        if life is None or life.left or state.control_over(name):
            continue
        work = [key for key in state.open_actions if state.actions[key].intent.agent == name]
        work = [key for key in work if state.actions[key].status == "executing"]
        age_s = max(0, now_ms - life.last_ms) / 1000
        if work and age_s >= limits.heartbeat_s:
            yield Signal(
                code="silent_process",
                message=f"the process that plays {name} was not heard for {_span(age_s)} and has work in hand",
                cites=(*work[:8],),
                agent=name,
                value=age_s,
                threshold=limits.heartbeat_s,
            )


# --- voters, models --------------------------------------------------------------------------------------


def _voters(state: State, profile: Profile, limits: Thresholds, agent: str, run: int) -> Iterable[Signal]:
    people = {
        name for policy in state.policies.values() for name, known in policy.voters.items() if known.kind == "human"
    }
    mine = {step.position for one in runs_of(profile, agent, run) for step in one.steps} if run else set()
    for asked in sorted(agents_of(profile, agent, run) & profile.silence.keys()):
        for name, silence in profile.silence[asked].items():
            cites = tuple(one for one in silence.positions if not run or one in mine)
            count = len(cites) if run else silence.count
            if limits.silent and count >= limits.silent and name not in people:
                yield Signal(
                    code="silent_voter",
                    message=f"{name} gave no vote on the last {count} actions that it was asked about",
                    cites=cites,
                    agent=asked,
                    run=run,
                    about=(name,),
                    value=float(count),
                    threshold=float(limits.silent),
                )


def prices_of(sums: Sums) -> dict[str, float]:
    """What a token of each model costs on average (USD), where every answer of it has a price."""
    return {
        name: tally.cost_usd / tally.tokens
        for name, tally in sums.models.items()
        if tally.priced and tally.tokens and tally.priced == tally.count
    }


def rival_of(name: str, price: float, kinds: dict[str, int], every: Sums, prices: dict[str, float]) -> str:
    """The cheapest other model that did at least half of these kinds of turns; "" if none is cheaper."""
    rivals = [
        (prices[other], other)
        for other, theirs in every.kinds.items()
        if other != name and prices.get(other) and _shared(kinds, theirs) >= 0.5
    ]
    best = min(rivals, default=(price, ""))
    return best[1] if best[0] < price else ""


def _models(profile: Profile, limits: Thresholds, agent: str, run: int) -> Iterable[Signal]:
    """A model that costs many times what another one costs for turns of the same kind, or too much a turn.

    What it costs is of the part asked for; what others do for how much, the whole log says.
    """
    sums, every = sums_of(profile, agent, run), sums_of(profile)
    prices = prices_of(every)
    for name, price in prices_of(sums).items():
        tally, mine = sums.models[name], sums.kinds.get(name, {})
        cites = tuple(position for _, position, model in sums.dearest if model == name)[:8]
        enough = limits.expensive and sum(mine.values()) >= limits.expensive_turns
        rival = rival_of(name, price, mine, every, prices) if enough else ""
        if rival and price >= limits.expensive * prices[rival]:
            yield Signal(
                code="expensive_model",
                message=(
                    f"{name} costs {price / prices[rival]:.0f} times as much per token as {rival}, which does the "
                    f"same kinds of turns here ({tally.cost_usd:.4f} USD so far)"
                ),
                cites=cites,
                agent=agent,
                run=run,
                about=(name,),
                value=price / prices[rival],
                threshold=limits.expensive,
            )
        elif limits.turn_usd and tally.cost_usd / tally.count >= limits.turn_usd:
            yield Signal(
                code="expensive_model",
                message=f"{name} costs {tally.cost_usd / tally.count:.2f} USD a turn",
                cites=cites,
                agent=agent,
                run=run,
                about=(name,),
                value=tally.cost_usd / tally.count,
                threshold=limits.turn_usd,
            )


def _shared(mine: dict[str, int], theirs: dict[str, int]) -> float:
    """Which share of one model's turns is of a kind that the other model does too."""
    total = sum(mine.values())
    return sum(count for kind, count in mine.items() if kind in theirs) / total if total else 0.0


# --- one run ----------------------------------------------------------------------------------------------------


def _run(state: State, run: RunProfile, now_ms: int, limits: Thresholds) -> Iterable[Signal]:
    def signal(code: str, message: str, cites: Iterable[int], value: float, threshold: float) -> Signal:
        shown = tuple(cites)
        tools = {step.tool for step in run.steps if step.position in shown} if code in ABOUT_TOOLS else set()
        return Signal(
            code=code,
            message=message[:MESSAGE_CHARS_MAX],
            cites=shown,
            agent=run.agent,
            run=run.id,
            about=tuple(sorted(tools)),
            value=value,
            threshold=threshold,
        )

    known = state.runs.get(run.id)
    storm = run.retries >= limits.retries + 2 and run.retries * 2 > run.actions
    if limits.retries and (run.chain_max >= limits.retries or storm):
        count = max(run.chain_max, run.retries if storm else 0)
        yield signal(
            "retry_storm", f"{run.retries} of {run.actions} actions try an earlier one again", run.chain_at, count,
            limits.retries,
        )  # fmt: skip
    context = run.contexts[-1] if run.contexts else 0
    if limits.context and context >= limits.context and context >= limits.context_growth * max(1, run.context_first):
        yield signal(
            "growing_context",
            f"the model is shown {context} tokens a turn, {run.context_first} at first"
            + (f", after {run.compactions} compactions" if run.compactions else ", and nothing was compacted"),
            run.contexts_at[-4:],
            context,
            limits.context,
        )
    yield from _slow(run, limits, signal)
    spent = run.model.tokens
    if limits.leak and run.turns >= limits.leak_turns and spent >= limits.leak_tokens:
        share = (run.wasted_tokens + run.side_tokens) / (spent + run.side_tokens)
        if share >= limits.leak:
            yield signal(
                "budget_leak",
                f"{share:.0%} of {run.tokens} tokens brought nothing: turns that settled nothing new, voters, "
                "compactions",
                run.wasted_at,
                share,
                limits.leak,
            )
    for repeat in run.repeats.values():
        if limits.reads and repeat.effect == "read" and repeat.same + 1 >= limits.reads:
            yield signal(
                "repeated_reads",
                f"{repeat.tool} told the same {repeat.same + 1} times with nothing changed in between "
                f"(about {repeat.tokens} tokens)",
                repeat.positions,
                repeat.same + 1,
                limits.reads,
            )
    if known is not None and known.status == "running":
        watched = watching.Thresholds(repeats=limits.repeats, idle=limits.idle, budget=limits.budget)
        for one in watching.signals(state, known, watched, now_ms):
            code = "error_rate" if one.code == "errors" else one.code
            yield signal(code, one.message, one.cites or [run.last], len(one.cites), 0)
    else:
        yield from _past(run, limits, signal)
    if limits.rejected and run.streak >= limits.rejected:
        yield signal(
            "rejected_streak", f"the last {run.streak} proposals were refused", run.streak_at, run.streak,
            limits.rejected,
        )  # fmt: skip
    if limits.drift:
        cites = drifting(run, limits.drift)
        if cites:
            yield signal(
                "drift",
                f"the last {len(cites)} calls have nothing in common with the task or what it led to",
                cites,
                len(cites),
                limits.drift,
            )
    if known is not None and known.status == "running":
        yield from _waiting(state, run, now_ms, limits, signal)


def _slow(run: RunProfile, limits: Thresholds, signal: Make) -> Iterable[Signal]:
    """Tools whose latest calls take long, and most of the run's time."""
    calls: dict[str, list[Step]] = {}
    for step in run.steps:
        if step.ms:
            calls.setdefault(step.tool, []).append(step)
    worked_ms = run.tool_ms + run.model.ms + run.wait_ms
    for tool, steps in calls.items():
        total_ms = sum(step.ms for step in steps)
        mean_s = total_ms / len(steps) / 1000
        enough = limits.slow_tool_s and len(steps) >= limits.slow_tool_calls
        if enough and mean_s >= limits.slow_tool_s and total_ms >= limits.slow_tool_share * worked_ms:
            worst = sorted(steps, key=lambda step: -step.ms)[:8]
            message = f"{tool} takes {_span(mean_s)} a call, {total_ms / worked_ms:.0%} of the run's time"
            yield signal("slow_tool", message, [step.position for step in worst], mean_s, limits.slow_tool_s)


def _past(run: RunProfile, limits: Thresholds, signal: Make) -> Iterable[Signal]:
    """What was to be noticed in a run that is over."""
    if limits.repeats and len(run.loop_at) >= limits.repeats:
        yield signal("loop", run.loop, run.loop_at[-8:], len(run.loop_at), limits.repeats)
    if limits.idle and run.idle_max >= limits.idle:
        cites = [step.position for step in run.steps[-limits.idle :]]
        yield signal(
            "stall", f"nothing new came of {run.idle_max} actions in a row", cites, run.idle_max, limits.idle
        )
    settled = run.done + run.failed
    if limits.errors and settled >= limits.errors_from and run.failed >= limits.errors * settled:
        cites = [step.position for step in run.steps if step.status == "failed"]
        yield signal(
            "error_rate", f"{run.failed} of {settled} calls failed", cites[-8:], run.failed / settled, limits.errors
        )


def _waiting(state: State, run: RunProfile, now_ms: int, limits: Thresholds, make: Make) -> Iterable[Signal]:
    """A run that is neither finished nor held back by anybody, and in which nothing happens."""
    held = state.control_over(run.agent, run.id)
    quiet_s = max(0, now_ms - run.last_ms) / 1000
    if not limits.wait_s or held or quiet_s < limits.wait_s:
        return
    open_ = [key for key in state.open_actions if state.actions[key].intent.run == run.id]
    if any(state.actions[key].retry_at_ms > now_ms for key in open_):
        return
    what = "nothing is open"
    if open_:
        first = state.actions[open_[0]]
        what = f"{first.intent.tool} is {first.status}"
    yield make(
        "stuck_wait",
        f"nothing happened for {_span(quiet_s)}; {what}",
        open_[:8] or [run.last],
        quiet_s,
        limits.wait_s,
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
