"""Broken versions of claims on sub-tasks: who holds one, when it ends, what completes it. Its check catches each."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

import msgspec

from logact.core import claiming, controlling
from logact.core.state import RunState, State
from logact.entry import Claim, Entry
from logact.swarm import claims as swarm_claims
from logact.swarm.claims import Claims
from logact.testing.mutants_hanging import Case
from logact.testing.plan import PROCESSES, Event, Plan

ANSWERED = "after_intent_vote_commit_started_output_result"
"""Where an agent stands that has answered, and has not said yet that its task is done."""


def _set(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(owner, name, value))


def _honours_lapsed_claims(stack: ExitStack) -> None:
    """Whose claim lapsed may complete the task all the same."""
    honest = claiming._release

    def release(state: State, entry: Entry, run: RunState, held: Any, claim: Claim) -> str:
        refused = honest(state, entry, run, held, claim)
        if refused and claim.result and claim.task not in run.done:
            run.done[claim.task] = claim.result
            run.held.pop(claim.task, None)
            return ""
        return refused

    _set(stack, claiming, "_release", release)


def _last_claim_wins(stack: ExitStack) -> None:
    """A later claim takes a task from who holds it."""
    honest = claiming.on_task_claim

    def claimed(state: State, entry: Entry, claim: Claim) -> str:
        run = state.runs.get(claim.run)
        if run is not None and not claim.release and not claim.lapses:
            run.held.pop(claim.task, None)
        return honest(state, entry, claim)

    _claimed_by(stack, claimed)


def _done_is_no_end(stack: ExitStack) -> None:
    """What was completed may be claimed, and completed, once more."""
    honest = claiming.on_task_claim

    def claimed(state: State, entry: Entry, claim: Claim) -> str:
        run = state.runs.get(claim.run)
        if run is not None and run.status == "running":
            run.done.pop(claim.task, None)
        return honest(state, entry, claim)

    _claimed_by(stack, claimed)


def _claimed_by(stack: ExitStack, claimed: Any) -> None:
    _set(stack, controlling, "on_task_claim", claimed)


def _lapses_at_once(stack: ExitStack) -> None:
    """Everybody else's claim counts as lost."""
    _set(stack, Claims, "_lost", lambda self, held, silent_s: held.incarnation != self.host.incarnation)


def _any_lapse_counts(stack: ExitStack) -> None:
    """A lapse ends whatever claim there is, also one that was renewed since."""
    honest = claiming._lapse

    def lapse(state: State, entry: Entry, run: RunState, held: Any, claim: Claim) -> str:
        renamed = msgspec.structs.replace(claim, lapses=held.position) if held is not None else claim
        return honest(state, entry, run, held, renamed)

    _set(stack, claiming, "_lapse", lapse)


def _ignores_doubts(stack: ExitStack) -> None:
    """A task is taken over although something may have happened for it that must not happen twice."""
    _set(stack, claiming, "unrepeatable", lambda *_: 0)
    _set(stack, swarm_claims, "unrepeatable", lambda *_: 0)


def _never_lapses(stack: ExitStack) -> None:
    """Nobody ends the claims of the dead."""

    async def nothing(self: Claims, agent: str) -> int:
        return 0

    _set(stack, Claims, "end_the_lost", nothing)


def _with_silence(plan: Plan) -> Plan:
    """One agent stops for longer than its claim lasts, and the mortal one dies at work."""
    name = PROCESSES["swarm"][0]
    mortal = PROCESSES["swarm"][-2]
    events = (Event(0.15, "hang", name, 3.0), Event(0.2, "kill", mortal, 0.5))
    return msgspec.structs.replace(plan, events=events, points=(), steps=(), models=((1, "slow"), (2, "slow")))


def _with_late_ends(plan: Plan) -> Plan:
    """Two agents stop behind their answers, and wake up when their claims are over."""
    hangs = tuple((name, ANSWERED, 0, 9.0) for name in PROCESSES["swarm"][:2])
    return msgspec.structs.replace(plan, hangs=hangs, events=(), points=(), steps=())


def _with_waking_up(plan: Plan) -> Plan:
    """Two agents stop for about as long as their claims last; what the others append meanwhile is slow."""
    sleepers, others = PROCESSES["swarm"][:2], PROCESSES["swarm"][2:4]
    events = tuple(Event(0.02 + 0.05 * at, "hang", name, 1.5) for at, name in enumerate(sleepers))
    appends = tuple((name, nth, "slow") for name in others for nth in range(3, 60))
    calm = msgspec.structs.replace(plan, hangs=(), points=(), steps=(), reads=(), models=(), voters=())
    return msgspec.structs.replace(calm, events=events, appends=appends)


def _with_doubts(plan: Plan) -> Plan:
    """Everybody stops behind the first effect for longer than a claim lasts."""
    hangs = tuple((name, "after_effect", 0, 3.0 * at + 6) for at, name in enumerate(PROCESSES["swarm"][:3]))
    return msgspec.structs.replace(plan, hangs=hangs, events=(), points=(), steps=())


CASES: tuple[Case, ...] = (
    Case("honours_lapsed_claims", 14, "claims_are_honoured", _honours_lapsed_claims, _with_late_ends),
    Case("last_claim_wins", 14, "claims_are_honoured", _last_claim_wins),
    Case("lapses_at_once", 14, "claims_are_honoured", _lapses_at_once, _with_silence),
    Case("any_lapse_counts", 14, "claims_are_honoured", _any_lapse_counts, _with_waking_up),
    Case("done_is_no_end", 15, "no_task_done_twice", _done_is_no_end),
    Case("ignores_doubts", 15, "no_task_done_twice", _ignores_doubts, _with_doubts),
    Case("never_lapses", 16, "no_task_lost", _never_lapses, _with_silence),
)
