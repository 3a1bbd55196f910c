"""How votes combine: from a policy's expression and the votes so far to approve, reject or wait.

An expression (``Policy.need``) is data::

    {"all": ["safety", "rules"]}            every one must be heard, none may reject, one must approve
    {"any": ["rules", {"all": [...]}]}      the first that approves is enough
    {"k": 2, "of": ["a", "b", "c"]}         at least two must approve
    {"open": "the reason, for the record"}  everything passes; opening is explicit and logged

An empty expression, or one over no voters, is closed: reads pass, nothing else. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from logact.entry import Effect, Policy, Vote

Outcome = Literal["approve", "reject", "wait"]

NO_VOTER = (
    "no voter is configured, so only reads pass; give the agent voters=[...], or set a policy that says what is open"
)


class Verdict(NamedTuple):
    """What the votes so far amount to, with the reason and the hint of whoever decided it."""

    outcome: Outcome
    reason: str = ""
    hint: str = ""
    voter: str = ""


def problems(policy: Policy) -> list[str]:
    """What is wrong with a policy; a policy with problems never takes effect."""
    found: list[str] = []
    _look(policy.need, policy.voters, "need", found)
    if policy.version <= 0:
        found.append(f"version must be positive, not {policy.version}")
    if policy.decide_within_ms <= 0:
        found.append(f"decide_within_ms must be positive, not {policy.decide_within_ms}")
    return found


DEPTH_MAX = 20
"""How deep expressions may nest."""


def _look(need: Any, voters: Mapping[str, Any], where: str, found: list[str], depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        found.append(f"the expression nests deeper than {DEPTH_MAX} levels")
        return
    if isinstance(need, str):
        if need not in voters:
            found.append(f"{where} names the voter {need!r}, which the policy does not list")
        elif voters[need].shadow:
            found.append(f"{where} needs the voter {need!r}, whose votes do not count (shadow)")
        return
    if not isinstance(need, dict):
        found.append(f"{where} is {need!r}; expected a voter's name or an expression")
        return
    keys = set(need)
    if not need or keys == {"open"}:
        if need and not (isinstance(need["open"], str) and need["open"].strip()):
            found.append(f"{where}: opening everything needs a reason, received {need['open']!r}")
        return
    if keys in ({"all"}, {"any"}):
        parts = need["all"] if "all" in need else need["any"]
    elif keys == {"k", "of"}:
        parts = need["of"]
        if not isinstance(need["k"], int) or (isinstance(parts, list) and not 0 < need["k"] <= len(parts)):
            found.append(f"{where}: k is {need['k']!r}; expected 1 to {len(parts) if isinstance(parts, list) else 0}")
    else:
        found.append(f"{where} has the keys {sorted(keys)}; expected all, any, k and of, or open")
        return
    if not isinstance(parts, list):
        found.append(f"{where} lists {parts!r}; expected a list")
        return
    for place, part in enumerate(parts):
        _look(part, voters, f"{where}[{place}]", found, depth + 1)


def names(need: Any) -> list[str]:
    """The voters that an expression names, in order, each once."""
    if isinstance(need, str):
        return [need]
    if not isinstance(need, dict):
        return []
    found: dict[str, None] = {}
    for parts in need.values():
        if isinstance(parts, list):
            for part in parts:
                found.update(dict.fromkeys(names(part)))
    return list(found)


def wanted(policy: Policy | None) -> list[str]:
    """The voters to be asked under a policy: those its expression needs, then those in shadow."""
    if policy is None:
        return []
    needed = names(policy.need)
    return needed + [name for name, voter in policy.voters.items() if voter.shadow and name not in needed]


def evaluate(policy: Policy | None, effect: Effect, votes: Mapping[str, Vote]) -> Verdict:
    """What the votes so far amount to under a policy, for an action with this effect."""
    need = policy.need if policy is not None else {}
    if isinstance(need, dict) and "open" in need:
        return Verdict("approve", f"open: {need['open']}")
    if not names(need):
        if effect == "read":
            return Verdict("approve", "reads pass without voters")
        return Verdict("reject", NO_VOTER)
    return _combine(need, votes)


def _combine(need: Any, votes: Mapping[str, Vote]) -> Verdict:
    if isinstance(need, str):
        vote = votes.get(need)
        if vote is None:
            return Verdict("wait", f"waiting for {need}", voter=need)
        if vote.approved is None:
            return Verdict("wait", "abstained", voter=need)  # the caller tells it from silence by the vote
        return Verdict("approve" if vote.approved else "reject", vote.reason, vote.hint, need)
    if "all" in need:
        return _all(need["all"], votes)
    if "any" in need:
        return _at_least(1, need["any"], votes)
    return _at_least(need["k"], need["of"], votes)


def _abstained(part: Any, votes: Mapping[str, Vote]) -> bool:
    return isinstance(part, str) and part in votes and votes[part].approved is None


def _all(parts: list[Any], votes: Mapping[str, Vote]) -> Verdict:
    heard = [(part, _combine(part, votes)) for part in parts]
    for _, verdict in heard:
        if verdict.outcome == "reject":
            return verdict
    for part, verdict in heard:
        if verdict.outcome == "wait" and not _abstained(part, votes):
            return verdict
    approved = [verdict for _, verdict in heard if verdict.outcome == "approve"]
    if not approved:
        return Verdict("reject", "every voter abstained; at least one must approve")
    return Verdict(
        "approve", "; ".join(f"{verdict.voter}: {verdict.reason}" for verdict in approved if verdict.reason)
    )


def _at_least(count: int, parts: list[Any], votes: Mapping[str, Vote]) -> Verdict:
    heard = [(part, _combine(part, votes)) for part in parts]
    approved = [verdict for _, verdict in heard if verdict.outcome == "approve"]
    if len(approved) >= count:
        return Verdict(
            "approve", "; ".join(f"{verdict.voter}: {verdict.reason}" for verdict in approved if verdict.reason)
        )
    open_ones = [verdict for part, verdict in heard if verdict.outcome == "wait" and not _abstained(part, votes)]
    if len(approved) + len(open_ones) >= count:
        return Verdict("wait", open_ones[0].reason)
    rejected = [verdict for _, verdict in heard if verdict.outcome == "reject"]
    if rejected:
        return rejected[0]
    return Verdict("reject", f"only {len(approved)} of {count} needed voters approved")
