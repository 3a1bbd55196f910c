"""What a decider does next: from the fold to a commit, an abort, or an expiry. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Mapping

from logact.core import voting
from logact.core.settling import rejection_key
from logact.core.state import Action, State
from logact.entry import Abort, Commit, Expiry, Intent, Policy, Vote

DECIDE_WITHIN_MS = 60_000
START_WITHIN_MS = 600_000

REJECTIONS_MAX = 3
"""After so many rejections of one action (tool and arguments) in a run, it is aborted without asking anybody."""

NOT_NOW = "not_now"
"""The class of a rejection that may be different later (a rate, a lack of memory): a further try is welcome then."""


def decide(state: State, action: Action, now_ms: int) -> Commit | Abort | None:
    """The decision on an undecided action, or None while votes are missing."""
    if action.status != "proposed":
        return None
    run = state.runs.get(action.intent.run)
    if run is not None and run.hole:
        return Abort(intent=action.id, code="hole", reason=f"the run has a hole at position {run.hole}: it is over")
    bound = state.bound_since(action.intent.agent)
    if bound > action.id:
        return Abort(
            intent=action.id, code="policy_changed", reason=f"a binding policy came into force at position {bound}"
        )
    if repeated(state, action.intent, action.policy):
        return refusal(state, action)
    return judge(state.policy_for(action), action, action.votes, now_ms)


def judge(policy: Policy | None, action: Action, votes: Mapping[str, Vote], now_ms: int) -> Commit | Abort | None:
    """The decision that these votes carry under this policy."""
    verdict = voting.evaluate(policy, action.intent.effect, votes, action.intent.tool)
    if verdict.outcome == "wait":
        return None
    if verdict.outcome == "approve":
        within_ms = policy.start_within_ms if policy is not None else START_WITHIN_MS
        return Commit(
            intent=action.id,
            reason=verdict.reason,
            policy=action.policy,
            start_by_ms=now_ms + within_ms if within_ms else 0,
        )
    reason = f"{verdict.voter}: {verdict.reason}" if verdict.voter else verdict.reason
    vote = votes.get(verdict.voter)
    code = NOT_NOW if vote is not None and vote.code == NOT_NOW else "rejected"
    return Abort(intent=action.id, reason=reason or "rejected", code=code, hint=verdict.hint)


def repeated(state: State, intent: Intent, policy: int) -> int:
    """How often this action was rejected in its run under this policy, once that is too often (0: it is not)."""
    run = state.runs.get(intent.run)
    count = run.rejected.get(rejection_key(policy, intent), 0) if run is not None else 0
    return count if count >= REJECTIONS_MAX else 0


def refusal(state: State, action: Action) -> Abort:
    """The abort of an action that was rejected too often to be judged again."""
    return Abort(
        intent=action.id,
        code="repeated",
        reason=f"it was rejected {repeated(state, action.intent, action.policy)} times in this run",
        hint="Do not propose it again: do something else, or answer with what is missing.",
    )


def overdue(state: State, now_ms: int) -> list[Expiry]:
    """The expiries that have to be in the log before anything else is judged."""
    found: list[Expiry] = []
    for key in state.open_actions:
        action = state.actions[key]
        if action.status == "proposed" and 0 < action.intent.deadline_ms <= now_ms:
            silent = awaited(state, action)
            waited = f"; no vote came from {', '.join(silent)}" if silent else ""
            found.append(Expiry(intent=key, reason=f"no decision before the deadline{waited}"))
        elif action.status == "validated" and 0 < action.start_by_ms <= now_ms:
            found.append(Expiry(intent=key, reason="not started in time"))
    return found


def next_deadline_ms(state: State) -> int:
    """The earliest deadline of anything that waits (wall clock, ms); 0 if nothing does."""
    times = [
        state.actions[key].intent.deadline_ms
        if state.actions[key].status == "proposed"
        else state.actions[key].start_by_ms
        for key in state.open_actions
        if state.actions[key].status in ("proposed", "validated")
    ]
    return min((time for time in times if time), default=0)


def awaited(state: State, action: Action) -> list[str]:
    """The voters that an undecided action waits for now, and whose votes count."""
    return voting.wanted(state.policy_for(action), action.intent.effect, action.votes, action.intent.tool)
