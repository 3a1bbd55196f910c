"""Every form of policy in the simulator, with votes that are slow, silent, late, doubled, contrary or forged."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import get_args

import pytest

from logact.core.expressions import problems
from logact.core.voting import evaluate
from logact.entry import Policy, Vote, VoterInPolicy
from logact.testing.ballots import JUDGES, OVERTURNED, POLICIES, ballot, could_pass, may_pass
from logact.testing.mutants import MUTANTS
from logact.testing.mutants_voting import POLICY_MISTAKES
from logact.testing.plan import Form
from logact.testing.systems import simulate
from tests.simulation.test_simulator import held

FALSE_VOTES = ("forged_vote", "forged_vote_again", "forged_vote_late", "forged_vote_other")
FAULTS = ("slow", "silent", "late", "raise", "nonsense", "contradicts")


def test_every_policy_is_kept_whatever_votes_come() -> None:
    """In every form of processes nothing passes and nothing is rejected but by the votes, and all comes to an end."""
    fired: Counter[str] = Counter()
    for policy in POLICIES:
        for form in get_args(Form):
            if form == "swarm":  # it has a policy of its own for who divides the task
                continue
            for seed in range(2 if form == "decoupled" else 1):
                outcome = simulate(ballot(policy, seed, form))
                held(outcome)
                fired.update(outcome.fired)
    never = [kind for kind in (*FALSE_VOTES, *(f"voter_{fault}" for fault in FAULTS)) if fired[kind] < 3]
    assert not never, "what never happened was not tested"


def test_every_policy_has_a_mutant() -> None:
    """The simulation's own test of mutants runs each of these until it is caught."""
    assert {policy for policy, _, _ in POLICY_MISTAKES.values()} == set(POLICIES)
    assert set(POLICY_MISTAKES) <= set(MUTANTS)


def test_the_policies_hold_every_key() -> None:
    """All, any, k of n (with and without veto), majority, weights, veto, first, escalate, override, cases, nested."""
    keys = {key for kind in POLICIES.values() for key in kind.need}
    assert keys == {"all", "any", "of", "k", "veto", "majority", "weighted", "threshold", "over"} | {
        *("first", "escalate", "override", "by", "classes", "cases", "else")
    }


OPINIONS = {
    "yes": Vote(approved=True),
    "hardly": Vote(approved=True, confidence=0.55),
    "no": Vote(approved=False, code="never"),
    "outside": Vote(approved=False, code=OVERTURNED, confidence=0.8),
    "nothing": Vote(approved=None),
    "silent": None,
}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_meaning_written_twice_is_one(policy: str) -> None:
    """For all votes in all orders, the sentences and ``evaluate`` approve the same, and no rejection comes early."""
    under = Policy(version=1, voters={name: VoterInPolicy() for name in JUDGES}, need=POLICIES[policy].need)
    assert problems(under) == []
    for tool, effect in (("look", "read"), ("pay", "irreversible"), ("book", "reversible"), ("drag", "irreversible")):
        for said in itertools.product(OPINIONS, repeat=len(JUDGES)):
            given = {
                name: vote for name, one in zip(JUDGES, said, strict=True) if (vote := OPINIONS[one]) is not None
            }
            for order in itertools.permutations(given):
                votes = {name: given[name] for name in order}
                outcome = evaluate(under, effect, votes, tool).outcome  # type: ignore[arg-type]
                assert (outcome == "approve") == may_pass(policy, votes, tool, effect), (tool, votes)
                assert outcome != "reject" or not could_pass(policy, votes, tool, effect), (tool, votes)
