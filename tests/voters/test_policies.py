"""Policies: what each expression means, who is asked, what is refused, and that no vote can bend them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logact.core import deciding, voting
from logact.core.expressions import GROUPS, SHAPES, parts
from logact.core.voting import evaluate, probability, problems, wanted
from logact.entry import Abort, Commit, Effect, Policy, Vote, VoterInPolicy
from logact.errors import SpecError
from logact.runtime.entering import policy_from
from logact.voters.base import FunctionVoter
from logact.voters.combine import (
    all_of,
    any_of,
    case,
    cases,
    escalate,
    first_of,
    k_of,
    majority_of,
    open_to_all,
    override,
    veto,
    weighted,
)
from tests.voters.kit import Script, abstain, approve, policy, reject

MARKS: dict[str, bool | None] = {"+": True, "-": False, "0": None}


def votes_of(text: str) -> dict[str, Vote]:
    """``"a+ b- c0"`` as votes, in that order; ``b-=name`` gives the rejection a class, ``a+.7`` a confidence."""
    found = {}
    for one in text.split():
        name, mark, rest = one[0], one[1], one[2:]
        code = rest[1:] if rest.startswith("=") else ""
        confidence = float(rest) if rest.startswith(".") else None
        found[name] = Vote(
            approved=MARKS[mark], reason=f"{name} says {mark}", hint=f"hint {name}", code=code, confidence=confidence
        )
    return found


CASES: list[tuple[Any, str, str, str]] = [
    # expression, votes, outcome, asked next
    (all_of("a", "b"), "", "wait", "ab"),
    (all_of("a", "b"), "a+", "wait", "b"),
    (all_of("a", "b"), "a-", "reject", ""),
    (all_of("a", "b"), "a+ b0", "approve", ""),
    (all_of("a", "b"), "a0 b0", "reject", ""),
    (all_of("a", any_of("b", "c")), "a+ b0 c0", "reject", ""),
    (any_of("a", "b"), "a- ", "wait", "b"),
    (any_of("a", "b"), "a- b+", "approve", ""),
    (any_of("a", "b"), "a- b-", "reject", ""),
    (k_of(2, "a", "b", "c"), "a+", "wait", "bc"),
    (k_of(2, "a", "b", "c"), "a+ b- c+", "approve", ""),
    (k_of(2, "a", "b", "c"), "a- b-", "reject", ""),
    (k_of(2, "a", "b", "c"), "a+ b0 c0", "reject", ""),
    (k_of(1, "a", "b", veto=True), "a-", "reject", ""),
    (k_of(2, "a", "b", "c", veto=True), "a+ b+", "approve", ""),
    (majority_of("a", "b", "c"), "a+ b+", "approve", ""),
    (majority_of("a", "b", "c"), "a+ b-", "wait", "c"),
    (majority_of("a", "b"), "a+ b-", "reject", ""),
    (majority_of("a", "b", "c"), "a+ b0 c0", "approve", ""),
    (majority_of("a", "b", "c"), "a0 b0 c0", "reject", ""),
    (weighted({"a": 2, "b": 1}, 0.6), "a+", "approve", ""),
    (weighted({"a": 2, "b": 1}, 0.7), "a+", "wait", "b"),
    (weighted({"a": 2, "b": 1}, 0.7), "a+ b+.7", "approve", ""),
    (weighted({"a": 2, "b": 1}, 0.9), "a+ b+.6", "reject", ""),
    (weighted({"a": 1, "b": 1}, 0.4), "a-.5 b-.5", "reject", ""),  # nobody approved
    (veto("a", over=any_of("b", "c")), "b+", "wait", "a"),
    (veto("a", over="b"), "a- b+", "reject", ""),
    (veto("a", over="b"), "a0 b+", "approve", ""),
    (veto("a", over="b"), "a+", "wait", "b"),
    (first_of("a", "b"), "", "wait", "ab"),
    (first_of("a", "b"), "b- a+", "reject", ""),
    (first_of("a", "b"), "b0 a+", "approve", ""),
    (first_of("a", "b"), "b0 a0", "reject", ""),
    (escalate("a", "b", "c"), "", "wait", "a"),
    (escalate("a", "b", "c"), "a0", "wait", "b"),
    (escalate("a", "b", "c"), "a+", "approve", ""),
    (escalate("a", "b", "c"), "a0 b0 c-", "reject", ""),
    (escalate("a", "b", "c"), "c+", "wait", "a"),  # a later stage that answers first decides nothing
    (escalate("a", "b"), "a0 b0", "reject", ""),
    (escalate(all_of("a", "b"), "c"), "a0 b0", "wait", "c"),
    (override("a", "b", ["post-*"]), "", "wait", "a"),
    (override("a", "b", ["post-*"]), "a+", "approve", ""),
    (override("a", "b", ["post-*"]), "a-=post-x", "wait", "b"),
    (override("a", "b", ["post-*"]), "a-=post-x b+", "approve", ""),
    (override("a", "b", ["post-*"]), "a-=post-x b-", "reject", ""),
    (override("a", "b", ["post-*"]), "a-=post-x b0", "reject", ""),
    (override("a", "b", ["post-*"]), "a-=rm b+", "reject", ""),
    (override("a", "b", ["*"]), "a- b+", "reject", ""),  # without a class nothing is overturned
    (override("a", "b", ["a/post"]), "a-=post b+", "approve", ""),
    (override("a", "b", ["c/post"]), "a-=post b+", "reject", ""),
    (override(all_of("a", "c"), "b", ["post"]), "a-=post b+", "wait", "c"),
    (override(all_of("a", "c"), "b", ["post"]), "a-=post b+ c-", "reject", ""),
    (override(all_of("a", "c"), "b", ["post"]), "a-=post c+", "wait", "b"),
    (cases(case("a", tool="pay*"), otherwise="b"), "", "wait", "a"),
    (cases(case("a", tool="get*"), otherwise="b"), "a+", "wait", "b"),
    (cases(case("a", effect="read")), "a+", "reject", ""),
    (cases(case(k_of(2, "a", "b"), effect=["irreversible"])), "a+ b+", "approve", ""),
    (all_of("a", open_to_all("a test")), "a-", "reject", ""),
    (open_to_all("a test"), "", "approve", ""),
    ({}, "a+", "reject", ""),
]


@pytest.mark.parametrize(("need", "votes", "outcome", "asked"), CASES, ids=lambda value: str(value)[:60])
def test_meaning(need: Any, votes: str, outcome: str, asked: str) -> None:
    """Each expression comes to what the documentation says, and asks only those who can still change it."""
    under = policy(need)
    verdict = evaluate(under, "irreversible", votes_of(votes), "pay_bill")
    assert verdict.outcome == outcome
    assert "".join(wanted(under, "irreversible", votes_of(votes), "pay_bill")) == asked
    assert problems(policy(need, "a", "b", "c")) == []


def test_the_reason_and_hint_are_the_rejecting_voters() -> None:
    """A rejection speaks with the words of who rejected; an overturned one says what was overturned and by whom."""
    rejected = evaluate(policy(all_of("a", "b")), "irreversible", votes_of("a+ b-"))
    assert (rejected.reason, rejected.hint, rejected.voter) == ("b says -", "hint b", "b")
    turned = evaluate(policy(override("a", "b", ["x"])), "irreversible", votes_of("a-=x b+"))
    assert turned.reason == "b: b says +; overturned a: a says -"


def test_reads_pass_where_a_case_says_nothing() -> None:
    """A closed case lets reads through, and nothing else."""
    closed = policy(cases(case("a", tool="pay")))
    outcomes = [evaluate(closed, effect, {}, "look").outcome for effect in ("read", "idempotent", "reversible")]
    assert outcomes == ["approve", "reject", "reject"]


UNUSABLE: list[tuple[Any, str]] = [
    ({"all": ["nobody"]}, "does not list"),
    ({"all": "a"}, "expected a list"),
    ({"any": ["a"], "all": ["b"]}, "has the keys"),
    ({"any": [{"all": []}]}, "at least one part"),
    ({"k": 3, "of": ["a", "b"]}, "expected 1 to 2"),
    ({"k": True, "of": ["a", "b"]}, "expected 1 to 2"),
    ({"k": 1, "of": ["a", "a"]}, "count twice"),
    ({"k": 1, "of": ["a", "b"], "veto": 1}, "expected true or false"),
    (weighted({"a": 1}, 0), "threshold"),
    (weighted({"a": 1}, float("nan")), "threshold"),
    (weighted({"a": -1}, 0.5), "above 0"),
    (weighted({}, 0.5), "expected voters"),
    ({"first": [{"all": ["a"]}]}, "names of voters"),
    (override("a", "b", []), "expected a list of the classes"),
    (override("a", "a", ["x"]), "overturn its own"),
    (cases(case("a")), "can never be reached"),
    (cases(case("a", effect="harmless")), "no effect 'harmless'"),
    (cases(case("a", tool="")) | {"cases": [{"tool": "", "need": "a"}]}, "tool is ''"),
    ({"cases": [{"need": "a", "tol": "x"}]}, "expected tool, effect or both"),
    ({"open": " "}, "needs a reason"),
    ({"none": ["a"]}, "has the keys"),
    ({1: ["a"]}, "has the keys"),
    (["a"], "expected a voter's name"),
    ({"all": ["shy"]}, "do not count"),
]


@pytest.mark.parametrize(("need", "said"), UNUSABLE, ids=lambda value: str(value)[:60])
def test_unusable_policies_are_refused(need: Any, said: str) -> None:
    """A policy that cannot be meant is refused with what is wrong; in a log it changes nothing, and is shown."""
    voters = {"a": VoterInPolicy(), "b": VoterInPolicy(), "shy": VoterInPolicy(shadow=True)}
    broken = Policy(version=1, voters=voters, need=need)
    assert said in "; ".join(problems(broken))
    script = Script()
    script.add(broken, "operator")
    assert "cannot be used" in script.state.verdict
    assert script.state.policy_of("ops") is None


def test_endless_expressions_are_refused() -> None:
    """Depth and size are limited, and evaluating what is beyond the limits rejects instead of recursing for ever."""
    deep: Any = "a"
    for _ in range(5000):
        deep = {"all": [deep]}
    wide = {"all": [{"any": ["a", "b"]}] * 400}
    assert "nests deeper" in problems(policy(deep, "a"))[0]
    assert "more than 500 parts" in problems(policy(wide, "a", "b"))[0]
    assert evaluate(policy(deep, "a"), "irreversible", votes_of("a+")).outcome == "reject"


def test_agents_take_expressions() -> None:
    """An agent's policy may be an expression over its voters; an unusable one is refused when the agent is made."""
    voters = [FunctionVoter(lambda entry: True, "a"), FunctionVoter(lambda entry: True, "b")]
    made = policy_from(any_of(voters[0], "b"), voters, "ops")
    assert made is not None and made.need == {"any": ["a", "b"]} and set(made.voters) == {"a", "b"}
    with pytest.raises(SpecError, match="names the voter 'c'"):
        policy_from(any_of("a", "c"), voters, "ops")


# --- properties ------------------------------

NAMES = ("a", "b", "c", "d")
LEAVES = st.sampled_from(NAMES)
EFFECT = st.sampled_from(["read", "idempotent", "reversible", "irreversible"])


def _groups(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    listed = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        listed.map(lambda found: {"all": found}),
        listed.map(lambda found: {"any": found}),
        listed.map(lambda found: {"majority": found}),
        listed.map(lambda found: {"escalate": found}),
        st.tuples(listed, st.integers(1, 3), st.booleans()).map(
            lambda found: {"k": min(found[1], len(found[0])), "of": found[0], "veto": found[2]}
        ),
        st.tuples(listed, inner).map(lambda found: {"veto": found[0], "over": found[1]}),
        st.lists(LEAVES, min_size=1, max_size=3, unique=True).map(lambda found: {"first": found}),
        st.tuples(
            st.dictionaries(LEAVES, st.sampled_from([0.5, 1, 2]), min_size=1), st.sampled_from([0.3, 0.5, 0.8, 1])
        ).map(lambda found: {"weighted": found[0], "threshold": found[1]}),
        st.tuples(inner, inner).map(lambda found: {"override": found[0], "by": found[1], "classes": ["x"]}),
        st.tuples(inner, inner).map(lambda found: {"cases": [{"tool": "p*", "need": found[0]}], "else": found[1]}),
    )


NEEDS = st.recursive(LEAVES, _groups, max_leaves=8)
VOTE = st.builds(
    Vote,
    approved=st.sampled_from([True, False, None]),
    confidence=st.sampled_from([None, 0.0, 0.4, 0.6, 1.0, 7.0]),
    code=st.sampled_from(["", "x", "y"]),
)
VOTES = st.dictionaries(LEAVES, VOTE, max_size=4)
KEYS = sorted({key for shape in SHAPES for key in shape} | set(GROUPS) | {"need", "tool", "effect"})
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), LEAVES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(need=st.one_of(NEEDS, JUNK), votes=VOTES, effect=EFFECT)
def test_evaluate_is_total(need: Any, votes: Mapping[str, Vote], effect: Effect) -> None:
    """Whatever stands in a policy, evaluating it answers; what ``problems`` refuses never raises either."""
    under = Policy(version=1, voters={name: VoterInPolicy() for name in NAMES}, need=need)
    assert evaluate(under, effect, votes, "pay").outcome in ("approve", "reject", "wait")
    problems(under)
    asked = wanted(under, effect, votes, "pay")
    assert not set(asked) & set(votes)


@settings(max_examples=400, deadline=None)
@given(need=NEEDS, votes=VOTES)
def test_who_waits_is_who_is_asked(need: Any, votes: Mapping[str, Vote]) -> None:
    """A policy waits exactly while there is somebody to ask: no wait that nobody can end, no vote that is idle."""
    under = policy(need, *NAMES)
    waits = evaluate(under, "irreversible", votes, "pay").outcome == "wait"
    assert waits == bool(wanted(under, "irreversible", votes, "pay"))


@settings(max_examples=400, deadline=None)
@given(need=NEEDS, votes=VOTES)
def test_asking_ends(need: Any, votes: Mapping[str, Vote]) -> None:
    """Asking whoever is wanted, whatever they say, ends in a decision after at most one vote of each voter."""
    under, heard = policy(need, *NAMES), dict[str, Vote]()
    for _ in range(len(NAMES) + 1):
        asked = wanted(under, "irreversible", heard, "pay")
        if not asked:
            break
        heard[asked[0]] = votes.get(asked[0], abstain())
    assert evaluate(under, "irreversible", heard, "pay").outcome in ("approve", "reject")


@settings(max_examples=400, deadline=None)
@given(need=NEEDS, votes=VOTES)
def test_decisions_stand(need: Any, votes: Mapping[str, Vote]) -> None:
    """Once the votes decide, no further vote changes the decision, whoever casts it.

    But for k of n with a veto: there a rejection that comes before the commit still rejects.
    """
    under = policy(need, *NAMES)
    before = evaluate(under, "irreversible", votes, "pay").outcome
    if before == "wait" or (before == "approve" and _vetoes(need)):
        return
    for name in NAMES:
        if name not in votes:
            for further in (approve(), reject(), reject(code="x"), abstain()):
                after = evaluate(under, "irreversible", {**votes, name: further}, "pay").outcome
                assert after == before


def _vetoes(need: Any) -> bool:
    return isinstance(need, dict) and (need.get("veto") is True or any(_vetoes(part) for part in parts(need)))


def _mentions(need: Any, key: str) -> bool:
    return isinstance(need, dict) and (key in need or any(_mentions(part, key) for part in parts(need)))


@settings(max_examples=400, deadline=None)
@given(need=NEEDS, votes=VOTES, name=LEAVES)
def test_an_approval_never_hurts(need: Any, votes: Mapping[str, Vote], name: str) -> None:
    """Turning one rejection into an approval never turns an approval of the whole into a rejection."""
    if name not in votes or votes[name].approved is not False:
        return
    under = policy(need, *NAMES)
    before = evaluate(under, "irreversible", votes, "pay").outcome
    better = {**votes, name: msgspec.structs.replace(votes[name], approved=True)}
    after = evaluate(under, "irreversible", better, "pay").outcome
    if before == "approve":
        # a judgement that never came may be waited for again only where a stage had been skipped
        assert after == "approve" or (after == "wait" and _mentions(need, "override")) or _odd(votes[name])


def _odd(vote: Vote) -> bool:
    """A confidence outside of 0 to 1 counts as a certain rejection on either side."""
    return vote.confidence is not None and not 0 <= vote.confidence <= 1


@settings(max_examples=400, deadline=None)
@given(need=NEEDS, votes=VOTES)
def test_nothing_passes_without_an_approval(need: Any, votes: Mapping[str, Vote]) -> None:
    """Silence and abstentions alone never approve, in any expression that opens nothing."""
    under = policy(need, *NAMES)
    nobody = {name: msgspec.structs.replace(vote, approved=None) for name, vote in votes.items()}
    assert evaluate(under, "irreversible", nobody, "pay").outcome != "approve"
    rejecting = {name: msgspec.structs.replace(vote, approved=False) for name, vote in votes.items()}
    assert evaluate(under, "irreversible", rejecting, "pay").outcome != "approve"


def test_probability() -> None:
    """An approval is never worth less than a rejection, and a confidence that cannot be is worth nothing."""
    assert [probability(approve(confidence=one)) for one in (None, 1.0, 0.7, 0.2, 7.0)] == [1.0, 1.0, 0.7, 0.5, 0.0]
    assert [probability(reject(confidence=one)) for one in (None, 1.0, 0.7, 0.2)] == pytest.approx([0, 0, 0.3, 0.5])


# --- votes in a log ------------------------------

EACH = [
    all_of("a", "b"),
    any_of("a", "b"),
    k_of(2, "a", "b"),
    majority_of("a", "b"),
    weighted({"a": 1, "b": 1}, 0.9),
    veto("a", over="b"),
    first_of("a", "b"),
    escalate("a", "b"),
    override("a", "b", ["x"]),
    cases(case(all_of("a", "b"), tool="pay")),
]


@pytest.mark.parametrize("need", EACH, ids=str)
def test_votes_that_must_not_count(need: Any) -> None:
    """Under every policy: a forged, foreign, second or contradicting vote changes nothing.

    Nor does one for other arguments, in shadow, or too late; a commit that the votes don't carry takes no effect.
    """
    script = Script()
    run = script.begin(policy(need, "a", "b", "c"))
    action = script.propose(run)
    assert "may not vote as" in script.vote(action, "a", approve(), author="b")
    assert "may not vote as" in script.vote(action, "a", approve(), role="client")
    assert "may not append" in script.vote(action, "a", approve(), role="driver")
    assert "not a voter" in script.vote(action, "mallory", approve())
    assert script.vote(action, "b", approve(shadow=True)) == ""
    forged = Vote(approved=True, intent=action.id, voter="a", arguments_digest="another")
    script.add(forged, "voter", "a")
    assert "other arguments" in script.state.verdict
    assert action.votes == {}
    script.add(Commit(intent=action.id), "decider")
    assert "the votes do not carry it" in script.state.verdict
    assert script.vote(action, "a", reject()) == ""
    assert "voted on action" in script.vote(action, "a", reject())
    assert "voted on action" in script.vote(action, "a", approve())
    script.vote(action, "b", reject())
    decision = deciding.decide(script.state, action, 0)
    assert isinstance(decision, Abort)
    script.add(Commit(intent=action.id), "decider")
    assert "the votes do not carry it" in script.state.verdict
    script.add(decision, "decider")
    assert action.status == "rejected"
    assert "rejected already" in script.vote(action, "b", approve())
    script.add(Commit(intent=action.id), "decider")
    assert action.status == "rejected"


@pytest.mark.parametrize("need", EACH, ids=str)
def test_a_silent_voter_ends_in_an_abort(need: Any) -> None:
    """Under every policy a wait ends at its deadline with an expiry in the log that names who was silent."""
    script = Script()
    action = script.propose(script.begin(policy(need, "a", "b")))
    assert deciding.decide(script.state, action, 0) is None
    assert deciding.overdue(script.state, 9_999_999) == []
    (expiry,) = deciding.overdue(script.state, 10_000_000)
    assert "no vote came from a" in expiry.reason
    script.add(expiry, "decider")
    assert action.status == "rejected"
    assert "rejected already" in script.vote(action, "a", approve())


@pytest.mark.parametrize(
    ("mutant", "caught_by"),
    [
        ("_all", "all"),
        ("_majority", "majority"),
        ("_weighted", "weighted"),
        ("_first", "first"),
        ("_veto", "veto"),
        ("_escalate", "escalate"),
        ("_override", "override"),
        ("_at_least", "k"),
        ("_case", "cases"),
    ],
)
def test_mutants_are_caught(mutant: str, caught_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table above bites: for each expression a plausible mistake makes one of its lines fail."""
    real = getattr(voting, mutant)
    mistakes: dict[str, Any] = {
        "_all": lambda inner, heard: voting._at_least(1, heard),
        "_majority": lambda heard: voting._at_least(1, heard),
        "_weighted": lambda weights, threshold, votes: real(dict.fromkeys(weights, 1), threshold, votes),
        "_first": lambda inner, votes: real(inner, {name: votes[name] for name in inner if name in votes}),
        "_veto": lambda heard: heard[-1],
        "_escalate": lambda inner, about, depth: voting._at_least(1, [voting._one(p, about.votes) for p in inner]),
        "_override": lambda need, about, depth: real({**need, "classes": ["*", ""]}, about, depth),
        "_at_least": lambda count, heard, veto=False: real(1, heard, veto=veto),
        "_case": lambda need, about: need["cases"][0]["need"],
    }
    monkeypatch.setattr(voting, mutant, mistakes[mutant])
    wrong = [
        (need, votes)
        for need, votes, outcome, _ in CASES
        if isinstance(need, dict)
        and caught_by in need
        and all(isinstance(part, str) for part in parts(need))
        and evaluate(policy(need), "irreversible", votes_of(votes), "pay_bill").outcome != outcome
    ]
    assert wrong


# --- repeated tries ------------------------------


def test_repeated_rejections_are_stopped() -> None:
    """The fourth try of an action that was rejected three times in its run is aborted unasked; another one is not."""
    script = Script()
    run = script.begin(policy(all_of("a")))
    for _ in range(deciding.REJECTIONS_MAX):
        action = script.propose(run, arguments={"to": "eve"})
        script.vote(action, "a", reject())
        decision = deciding.decide(script.state, action, 0)
        assert isinstance(decision, Abort) and decision.code == "rejected"
        script.add(decision, "decider")
    again = deciding.decide(script.state, script.propose(run, arguments={"to": "eve"}), 0)
    assert isinstance(again, Abort) and again.code == "repeated" and "3 times" in again.reason
    assert deciding.decide(script.state, script.propose(run, arguments={"to": "bob"}), 0) is None


def test_a_rejection_for_now_is_not_counted() -> None:
    """What may be different later (a rate) can be tried as often as the run's limits allow."""
    script = Script()
    run = script.begin(policy(all_of("a")))
    for _ in range(deciding.REJECTIONS_MAX + 1):
        action = script.propose(run)
        script.vote(action, "a", reject(code=deciding.NOT_NOW))
        decision = deciding.decide(script.state, action, 0)
        assert isinstance(decision, Abort) and decision.code == deciding.NOT_NOW
        script.add(decision, "decider")
