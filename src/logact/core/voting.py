"""How votes combine: from a policy and the votes so far to approve, reject or wait, and who is asked next.

``expressions`` shows what a policy may say. Two rules hold of every expression. Silence never approves: what was not
heard is waited for, and a deadline ends the wait in an abort. And an abstention never approves: a group in which
nobody approved does not pass; ``all`` passes over a *voter* that abstains, never over a group.

``evaluate`` is total: it answers for any expression, also for one that ``problems`` refuses (by a rejection). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from logact.core.expressions import DEPTH_MAX, covers, fits, names, parts, problems
from logact.entry import Effect, Policy, Vote

__all__ = ["NO_VOTER", "Verdict", "evaluate", "names", "probability", "problems", "shadowed", "wanted"]

Outcome = Literal["approve", "reject", "wait", "abstain"]

NO_VOTER = (
    "no voter is configured, so only reads pass; give the agent voters=[...] (in a specification: [[voters]]), or "
    "set a policy that says what is open"
)

NOBODY = "every voter abstained; at least one must approve"

ROUNDING = 1e-9


class Verdict(NamedTuple):
    """What the votes so far amount to, with the reason and the hint of whoever decided it.

    Inside an expression a part may ``abstain``; a policy as a whole never does: it rejects.
    """

    outcome: Outcome
    reason: str = ""
    hint: str = ""
    voter: str = ""


class _About(NamedTuple):
    """What the expression is evaluated for."""

    effect: str
    tool: str
    votes: Mapping[str, Vote]


def evaluate(policy: Policy | None, effect: Effect, votes: Mapping[str, Vote], tool: str = "") -> Verdict:
    """What the votes so far amount to under a policy, for an action with this effect and tool.

    ``votes`` are in the order of the log.
    """
    verdict = _combine(policy.need if policy is not None else {}, _About(effect, tool, votes), 0)
    return Verdict("reject", verdict.reason or NOBODY, verdict.hint) if verdict.outcome == "abstain" else verdict


def wanted(policy: Policy | None, effect: Effect, votes: Mapping[str, Vote], tool: str = "") -> list[str]:
    """The voters whose votes count and can still change the outcome; of stages, only the present one's.

    Voters in shadow are not among them, see :func:`shadowed`.
    """
    if policy is None:
        return []
    return list(dict.fromkeys(_asked(policy.need, _About(effect, tool, votes), 0)))


def shadowed(policy: Policy | None) -> list[str]:
    """The voters that are asked and whose votes don't count."""
    return [] if policy is None else [name for name, voter in policy.voters.items() if voter.shadow]


def probability(vote: Vote) -> float:
    """How probable approval is by this vote: its confidence, on the side that it took. 0.5 for an abstention.

    A vote without a confidence is certain; one outside of 0 to 1 is nonsense and counts as a certain rejection.
    """
    if vote.approved is None:
        return 0.5
    sure = 1.0 if vote.confidence is None else vote.confidence
    if not 0 <= sure <= 1:
        return 0.0
    return max(sure, 0.5) if vote.approved else min(1 - sure, 0.5)


# --- the meaning of each expression ------------------------------


def _combine(need: Any, about: _About, depth: int) -> Verdict:
    if isinstance(need, str):
        return _one(need, about.votes)
    if not isinstance(need, dict) or depth > DEPTH_MAX:
        return Verdict("reject", "the policy's expression cannot be read")
    if "open" in need:
        return Verdict("approve", f"open: {need['open']}")
    inner = parts(need)
    if not inner:
        return _closed(about)
    try:
        return _group(need, inner, about, depth + 1)
    except (KeyError, TypeError, ValueError, OverflowError):
        return Verdict("reject", "the policy's expression cannot be read")


def _group(need: dict[str, Any], inner: list[Any], about: _About, depth: int) -> Verdict:
    if "override" in need:
        return _override(need, about, depth)
    if "cases" in need:
        chosen = _case(need, about)
        return _combine(chosen, about, depth) if chosen is not None else _closed(about)
    if "escalate" in need:
        return _escalate(inner, about, depth)
    if "weighted" in need:
        return _weighted(need["weighted"], need["threshold"], about.votes)
    if "first" in need:
        return _first(inner, about.votes)
    heard = [_combine(part, about, depth) for part in inner]
    if "all" in need:
        return _all(inner, heard)
    if "any" in need:
        return _at_least(1, heard)
    if "of" in need:
        return _at_least(int(need["k"]), heard, veto=need.get("veto") is True)
    if "majority" in need:
        return _majority(heard)
    if "over" in need:
        return _veto(heard)
    return Verdict("reject", "the policy's expression cannot be read")


def _one(name: str, votes: Mapping[str, Vote]) -> Verdict:
    vote = votes.get(name)
    if vote is None:
        return Verdict("wait", f"waiting for {name}", voter=name)
    if vote.approved is None:
        return Verdict("abstain", f"{name} abstained: {vote.reason}" if vote.reason else "", vote.hint, name)
    return Verdict("approve" if vote.approved else "reject", vote.reason, vote.hint, name)


def _closed(about: _About) -> Verdict:
    if about.effect == "read":
        return Verdict("approve", "reads pass without voters")
    return Verdict("reject", NO_VOTER)


def _said(approved: Sequence[Verdict]) -> Verdict:
    told = [f"{one.voter}: {one.reason}" if one.voter else one.reason for one in approved if one.reason]
    return Verdict("approve", "; ".join(told))


def _some(heard: Sequence[Verdict], outcome: Outcome) -> list[Verdict]:
    return [verdict for verdict in heard if verdict.outcome == outcome]


def _all(inner: list[Any], heard: list[Verdict]) -> Verdict:
    for outcome in ("reject", "wait"):
        for verdict in heard:
            if verdict.outcome == outcome:
                return verdict
    for part, verdict in zip(inner, heard, strict=True):
        if verdict.outcome == "abstain" and not isinstance(part, str):
            return Verdict("abstain" if _silent(heard) else "reject", verdict.reason or NOBODY, verdict.hint)
    approved = _some(heard, "approve")
    return _said(approved) if approved else _abstained(heard)


def _silent(heard: list[Verdict]) -> bool:
    return all(verdict.outcome == "abstain" for verdict in heard)


def _abstained(heard: Sequence[Verdict]) -> Verdict:
    told = next((verdict for verdict in heard if verdict.outcome == "abstain" and verdict.hint), Verdict("abstain"))
    return Verdict("abstain", NOBODY, told.hint)


def _at_least(count: int, heard: list[Verdict], *, veto: bool = False) -> Verdict:
    approved, rejected, waiting = _some(heard, "approve"), _some(heard, "reject"), _some(heard, "wait")
    if veto and rejected:
        return rejected[0]
    if len(approved) >= count:
        return _said(approved)
    if len(approved) + len(waiting) >= count:
        return Verdict("wait", waiting[0].reason, voter=waiting[0].voter)
    if rejected:
        return rejected[0]
    if not approved:
        return _abstained(heard)
    return Verdict("reject", f"only {len(approved)} of {count} needed voters approved")


def _majority(heard: list[Verdict]) -> Verdict:
    approved, rejected, waiting = _some(heard, "approve"), _some(heard, "reject"), _some(heard, "wait")
    ahead = len(approved) - len(rejected)
    if ahead > len(waiting):
        return _said(approved)
    if waiting and ahead + len(waiting) > 0:
        return Verdict("wait", waiting[0].reason, voter=waiting[0].voter)
    if rejected:
        first = rejected[0]
        told = f"{len(approved)} approved and {len(rejected)} rejected: {first.reason}"
        return Verdict("reject", told, first.hint, first.voter)
    return Verdict("wait", waiting[0].reason, voter=waiting[0].voter) if waiting else _abstained(heard)


def _weighted(weights: Mapping[str, float], threshold: float, votes: Mapping[str, Vote]) -> Verdict:
    """Each vote moves the margin by weight * (probability - threshold); who abstains moves nothing."""
    heard = [_one(name, votes) for name in weights]
    margin = sum(
        weight * (probability(votes[name]) - threshold)
        for name, weight in weights.items()
        if name in votes and votes[name].approved is not None
    )
    open_weight = sum(weight for name, weight in weights.items() if name not in votes)
    approved, waiting = _some(heard, "approve"), _some(heard, "wait")
    if approved and margin - open_weight * threshold >= -ROUNDING:
        return _said(approved)
    if waiting and margin + open_weight * (1 - threshold) >= -ROUNDING:
        return Verdict("wait", waiting[0].reason, voter=waiting[0].voter)
    rejected = _some(heard, "reject")
    if rejected:
        return rejected[0]
    if approved:
        return Verdict("reject", f"the voters approve, below the threshold of {threshold:g}", approved[0].hint)
    return _abstained(heard)


def _first(inner: list[Any], votes: Mapping[str, Vote]) -> Verdict:
    for name, vote in votes.items():
        if name in inner and vote.approved is not None:
            return _one(name, votes)
    silent = [name for name in inner if name not in votes]
    heard = [_one(name, votes) for name in inner]
    return _one(silent[0], votes) if silent else _abstained(heard)


def _veto(heard: list[Verdict]) -> Verdict:
    *vetoing, over = heard
    for outcome in ("reject", "wait"):
        for verdict in vetoing:
            if verdict.outcome == outcome and over.outcome != "reject":
                return verdict
    return over


def _escalate(inner: list[Any], about: _About, depth: int) -> Verdict:
    heard: list[Verdict] = []
    for part in inner:
        heard.append(_combine(part, about, depth))
        if heard[-1].outcome != "abstain":
            return heard[-1]
    return _abstained(heard)


def _case(need: Mapping[str, Any], about: _About) -> Any:
    for case in need["cases"]:
        if fits(case, about.tool, about.effect):
            return case["need"]
    return need.get("else")


def _override(need: Mapping[str, Any], about: _About, depth: int) -> Verdict:
    """The base decides; rejections of the named classes fall where ``by`` approves, and no others do."""
    base = _combine(need["override"], about, depth)
    if base.outcome != "reject":
        return base
    turned = _overturned(need, about)
    if turned is None:
        return base
    without = _combine(need["override"], turned, depth)
    if without.outcome == "wait":
        return without  # somebody who was not heard yet may reject for good
    if without.outcome != "approve":
        return base
    by = _combine(need["by"], about, depth)
    if by.outcome == "wait":
        return by
    if by.outcome != "approve":
        more = f" (not overturned: {by.reason})" if by.reason else ""
        return Verdict("reject", base.reason + more, by.hint or base.hint, base.voter)
    said = f"{by.voter}: {by.reason}" if by.voter else by.reason
    return Verdict("approve", f"{said}; overturned {base.voter}: {base.reason}")


def _overturned(need: Mapping[str, Any], about: _About) -> _About | None:
    """The same votes with the rejections of the named classes as approvals; None if there are none."""
    votes, found = dict(about.votes), False
    for name in names(need["override"]):
        vote = votes.get(name)
        if vote is not None and vote.approved is False and covers(need["classes"], name, vote.code):
            votes[name] = msgspec.structs.replace(vote, approved=True, confidence=None)
            found = True
    return about._replace(votes=votes) if found else None


# --- who is asked ------------------------------


def _asked(need: Any, about: _About, depth: int) -> list[str]:
    """The voters in an expression whose votes can still change what it comes to."""
    if _combine(need, about, depth).outcome != "wait":
        return []
    if isinstance(need, str):
        return [need]
    depth += 1
    if "cases" in need:
        return _asked(_case(need, about), about, depth)
    if "escalate" in need:
        waiting = [part for part in need["escalate"] if _combine(part, about, depth).outcome == "wait"]
        return _asked(waiting[0], about, depth) if waiting else []
    if "override" in need:
        base = _combine(need["override"], about, depth)
        if base.outcome == "wait":
            return _asked(need["override"], about, depth)
        turned = _overturned(need, about) or about
        still = _asked(need["override"], turned, depth)
        return still or _asked(need["by"], about, depth)
    return [name for part in parts(need) for name in _asked(part, about, depth)]
