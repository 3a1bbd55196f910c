"""What a decider does next: from the fold to a commit, an abort, or an expiry. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Mapping

from logact.core import voting
from logact.core.state import Action, State
from logact.entry import Abort, Commit, Expiry, Policy, Vote

DECIDE_WITHIN_MS = 60_000
START_WITHIN_MS = 600_000


def decide(state: State, action: Action, now_ms: int) -> Commit | Abort | None:
    """The decision on an undecided action, or None while votes are missing."""
    if action.status != "proposed":
        return None
    bound = state.bound_since(action.intent.agent)
    if bound > action.id:
        return Abort(
            intent=action.id, code="policy_changed", reason=f"a binding policy came into force at position {bound}"
        )
    return judge(state.policy_for(action), action, action.votes, now_ms)


def judge(policy: Policy | None, action: Action, votes: Mapping[str, Vote], now_ms: int) -> Commit | Abort | None:
    """The decision that these votes carry under this policy."""
    verdict = voting.evaluate(policy, action.intent.effect, votes)
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
    return Abort(intent=action.id, reason=reason or "rejected", code="rejected", hint=verdict.hint)


def overdue(state: State, now_ms: int) -> list[Expiry]:
    """The expiries that have to be in the log before anything else is judged."""
    found: list[Expiry] = []
    for key in state.open_actions:
        action = state.actions[key]
        if action.status == "proposed" and 0 < action.intent.deadline_ms <= now_ms:
            silent = [name for name in voting.names(_need(state, action)) if name not in action.votes]
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


def _need(state: State, action: Action) -> object:
    policy = state.policy_for(action)
    return policy.need if policy is not None else {}
