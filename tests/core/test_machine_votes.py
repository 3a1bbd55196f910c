"""Votes, policies, commits, aborts, expiries: who decides what may run."""

from __future__ import annotations

import pytest

from logact.entry import Expiry, VoterInPolicy
from tests.core.build import Log, intent


@pytest.fixture
def log() -> Log:
    """A log whose policy needs the voter v."""
    made = Log()
    made.policy("v")
    return made


def test_a_commit_needs_the_votes_of_the_policy(log: Log) -> None:
    """A commit without the votes takes no effect; with them it does."""
    action = log.propose(log.run())
    log.commit(action)
    assert log.why == "the votes do not carry it: waiting for v"
    log.vote(action)
    log.commit(action)
    assert log.status(action) == "validated"


def test_a_rejected_action_is_not_committed(log: Log) -> None:
    """A rejecting vote keeps the commit from taking effect; an abort does."""
    action = log.propose(log.run())
    log.vote(action, approved=False, reason="no")
    log.commit(action)
    assert log.why == "the votes do not carry it: no"
    log.abort(action, reason="v said no", hint="ask")
    state = log.action(action)
    assert (state.status, state.reason, state.hint, state.happened) == ("rejected", "v said no", "ask", False)


def test_a_voter_votes_once(log: Log) -> None:
    """The first vote of a voter counts; a second is kept and changes nothing."""
    action = log.propose(log.run())
    log.vote(action, approved=False)
    log.vote(action, approved=True)
    assert log.why == f"'v' voted on action {action} already"
    assert log.action(action).votes["v"].approved is False


def test_only_voters_of_the_policy_vote(log: Log) -> None:
    """A vote by somebody whom the policy does not list takes no effect."""
    action = log.propose(log.run())
    log.vote(action, "stranger")
    assert log.why == "'stranger' is not a voter of the policy in force at the intent"


def test_nobody_votes_in_anothers_name(log: Log) -> None:
    """The author's name is the voter's; only a person's vote comes from a client."""
    log.policy("v", "boss", listed={"v": VoterInPolicy(), "boss": VoterInPolicy(kind="human")})
    action = log.propose(log.run())
    log.vote(action, "v", name="eve")
    assert log.why == "voter 'eve' may not vote as 'v'"
    log.vote(action, "v", role="client")
    assert log.why == "client 'v' may not vote as 'v'"
    log.vote(action, "boss", role="voter")
    assert log.why == "voter 'boss' may not vote as 'boss'"
    log.vote(action, "boss", role="client")
    assert not log.why


def test_a_vote_binds_to_arguments(log: Log) -> None:
    """A vote that names other arguments than the intent's takes no effect."""
    action = log.propose(log.run(), arguments={"to": "x"})
    log.vote(action, arguments_digest="something else")
    assert log.why == "the vote is for other arguments"
    log.vote(action, arguments_digest=log.action(action).intent.arguments_digest)
    assert not log.why


def test_a_vote_comes_before_the_decision(log: Log) -> None:
    """After the decision votes change nothing; for no action they never did."""
    action = log.propose(log.run())
    log.abort(action)
    log.vote(action)
    assert log.why == f"action {action} is rejected already"
    log.vote(77)
    assert log.why == "there is no open action 77"


@pytest.mark.parametrize("scope", ["log", "agent:ann", "tool:send", "run"])
def test_a_vote_on_history_counts_only_if_it_saw_all_of_it(log: Log, scope: str) -> None:
    """With ``seen`` before something in its scope that stands before the intent, a vote does not count."""
    run = log.run()
    scope = f"run:{run}" if scope == "run" else scope
    first = log.propose(run)
    second = log.propose(run)
    log.vote(second, scope=scope, seen=first - 1)
    assert log.why == f"something in scope {scope!r} came between position {first - 1} and the intent"
    log.vote(second, scope=scope, seen=first)
    assert not log.why


def test_what_comes_after_the_intent_does_not_matter_to_its_votes(log: Log) -> None:
    """A vote judged at the intent counts, whatever came later: two that wait don't refuse each other."""
    run = log.run()
    first = log.propose(run)
    log.propose(run)
    log.vote(first, scope="agent:ann", seen=first - 1)
    assert not log.why


@pytest.mark.parametrize("scope", ["agent:ann", "tool:send", "run"])
def test_other_scopes_do_not_spoil_a_vote(log: Log, scope: str) -> None:
    """An action of another agent, run and tool leaves votes on a narrower scope as they are."""
    other = log.run("bob")
    mine = log.run("ann")
    scope = f"run:{mine}" if scope == "run" else scope
    log.propose(other, "look")
    action = log.propose(mine)
    log.vote(action, scope=scope, seen=0)
    assert not log.why


@pytest.mark.parametrize("scope", ["agent:bob", "tool:look", "run:5", "budget"])
def test_a_scope_that_is_not_the_intents_proves_nothing(log: Log, scope: str) -> None:
    """A vote that depends on a scope which the fold does not follow for this intent does not count (it did)."""
    action = log.propose(log.run())
    log.vote(action, scope=scope, seen=action - 1)
    assert log.why == f"{scope!r} is no scope of this intent"


def test_two_undecided_intents_cannot_both_spend_the_rest(log: Log) -> None:
    """An earlier undecided intent counts as something that came in between."""
    run = log.run()
    seen = log.state.position
    log.propose(run)
    second = log.propose(run)
    log.vote(second, scope="agent:ann", seen=seen)
    assert "came between" in log.why


def test_decisions_and_results_count_as_history(log: Log) -> None:
    """Commits, starts and ends move a scope on as intents do."""
    run = log.run()
    first = log.propose(run)
    log.vote(first)
    decided = log.commit(first)
    second = log.propose(run)
    log.vote(second, scope="run:" + str(run), seen=decided - 1)
    assert "came between" in log.why


def test_a_shadow_vote_is_kept_and_never_counts(log: Log) -> None:
    """Votes marked as shadow, and votes of voters in shadow, carry nothing."""
    log.policy("v", listed={"v": VoterInPolicy(), "s": VoterInPolicy(shadow=True)}, need={"all": ["v"]})
    action = log.propose(log.run())
    log.vote(action, "s")
    assert not log.why
    log.vote(action, "v", shadow=True)
    assert log.action(action).votes == {}
    log.vote(action, "v")
    assert list(log.action(action).votes) == ["v"]


def test_the_policy_at_the_intent_decides(log: Log) -> None:
    """A later policy does not change what an earlier intent needs."""
    action = log.propose(log.run())
    log.policy("other")
    log.vote(action, "other")
    assert "is not a voter" in log.why
    log.vote(action, "v")
    log.commit(action)
    assert log.status(action) == "validated"


def test_a_binding_policy_stops_commits_of_older_intents(log: Log) -> None:
    """No commit of an intent from before a binding policy takes effect; later ones go by the new one."""
    run = log.run()
    action = log.propose(run)
    log.vote(action)
    at = log.policy("w", binding=True)
    log.commit(action)
    assert log.why == f"the binding policy at {at} is newer than the intent"
    later = log.propose(run)
    log.vote(later, "w")
    log.commit(later)
    assert not log.why


def test_a_binding_policy_of_another_agent_stops_nothing(log: Log) -> None:
    """An agent's binding policy is that agent's affair."""
    action = log.propose(log.run("ann"))
    log.vote(action)
    log.policy("w", agent="bob", binding=True)
    log.commit(action)
    assert not log.why


def test_a_policy_is_compared_and_set(log: Log) -> None:
    """A policy takes effect only on the version that it expects, and only forward."""
    log.policy("w", expected=0)
    assert log.why == "it expects policy version 0, but 1 is in force"
    log.policy("w", expected=1, version=1)
    assert log.why == "its version 1 is not above 1"
    log.policy("w", expected=1, version=5)
    assert not log.why
    log.policy("x")
    assert log.state.policy_of("ann") is not None


def test_an_agents_policy_goes_before_the_logs(log: Log) -> None:
    """An agent with a policy of its own is under that; the others under the log's."""
    log.policy("w", agent="ann")
    ann, bob = log.propose(log.run("ann")), log.propose(log.run("bob"))
    log.vote(ann, "v")
    assert "is not a voter" in log.why
    log.vote(ann, "w")
    log.vote(bob, "v")
    log.commit(ann)
    log.commit(bob)
    assert log.status(ann) == log.status(bob) == "validated"


def test_an_unusable_policy_changes_nothing(log: Log) -> None:
    """A policy with problems never takes effect; the one before it stays."""
    log.policy("v", need={"all": ["nobody"]})
    assert log.why.startswith("it cannot be used: ")
    log.policy("v", decide_within_ms=0)
    assert "decide_within_ms must be positive" in log.why
    action = log.propose(log.run())
    log.commit(action)
    assert "waiting for v" in log.why


def test_policies_are_kept_only_while_needed(log: Log) -> None:
    """Old policies go when no open action is under them."""
    action = log.propose(log.run())
    for _ in range(5):
        log.policy("v")
    assert sorted(log.state.policies) == [1000, log.state.position]
    log.abort(action)
    log.policy("v")
    assert list(log.state.policies) == [log.state.position]


def test_without_a_policy_only_reads_pass() -> None:
    """Closed by default: no policy lets reads pass and nothing else, and says how to change that."""
    log = Log()
    run = log.run()
    read = log.propose(run, "look", effect="read")
    log.commit(read)
    assert log.status(read) == "validated"
    act = log.propose(run)
    log.commit(act)
    assert "no voter is configured, so only reads pass; give the agent voters=" in log.why


def test_opening_is_explicit_and_says_why() -> None:
    """An open policy lets everything pass, and its reason stands on the commit."""
    log = Log()
    log.policy(need={"open": "a trial"})
    action = log.propose(log.run())
    log.commit(action)
    assert log.action(action).reason == "open: a trial"


def test_the_first_decision_wins(log: Log) -> None:
    """Commit and abort exclude each other; whichever stands first counts."""
    run = log.run()
    first, second = log.propose(run), log.propose(run)
    log.vote(first)
    log.commit(first)
    log.abort(first)
    assert log.why == f"action {first} is validated already"
    log.abort(second)
    log.commit(second)
    assert log.why == f"action {second} is rejected already"
    log.abort(99)
    assert log.why == "there is no open action 99"
    log.commit(99)
    assert log.why == "there is no open action 99"


def test_expiry_ends_what_waits_too_long(log: Log) -> None:
    """An expiry rejects an undecided action with a deadline, or a committed one with a time to start by."""
    run = log.run()
    undecided = log.propose(run, deadline_ms=10)
    log.say(Expiry(intent=undecided))
    assert (log.status(undecided), log.action(undecided).code) == ("rejected", "expired")
    committed = log.propose(run)
    log.vote(committed)
    log.commit(committed, start_by_ms=10)
    log.say(Expiry(intent=committed, reason="late"))
    assert (log.status(committed), log.action(committed).reason) == ("rejected", "late")
    log.start(committed)
    assert log.why == f"action {committed} is rejected"


def test_expiry_needs_a_deadline(log: Log) -> None:
    """What has no deadline does not expire, nor does what has ended."""
    run = log.run()
    action = log.propose(run)
    log.say(Expiry(intent=action))
    assert log.why == f"action {action} is proposed: nothing to expire"
    log.vote(action)
    log.commit(action)
    log.say(Expiry(intent=action))
    assert log.why == f"action {action} is validated: nothing to expire"
    log.say(Expiry(intent=99))
    assert log.why == "there is no open action 99"


def test_approval_after_expiry_is_refused(log: Log) -> None:
    """After the expiry stands in the log, neither a vote nor a commit counts."""
    action = log.propose(log.run(), deadline_ms=10)
    log.say(Expiry(intent=action))
    log.vote(action)
    assert "is rejected already" in log.why
    log.commit(action)
    assert "is rejected already" in log.why


def test_rejection_settles_the_call(log: Log) -> None:
    """The model is told of a rejection as of any other end: the call is settled by the abort."""
    run = log.run()
    inference = log.infer(run, "send")
    action = log.propose(run, inference=inference)
    abort = log.abort(action)
    assert log.run_state(run).context[-1] == abort


def test_what_a_changed_policy_overtook_is_proposed_again(log: Log) -> None:
    """An abort for a changed policy does not settle the call; the retry does."""
    run = log.run()
    inference = log.infer(run, "send")
    action = log.propose(run, inference=inference)
    log.abort(action, code="policy_changed")
    assert log.run_state(run).waiting_calls == [0]
    again = log.propose(run, inference=inference, retry_of=action)
    assert not log.why
    abort = log.abort(again)
    assert log.run_state(run).context[-1] == abort


def test_undecided_and_startable_are_in_order(log: Log) -> None:
    """What waits is listed in the order of the log."""
    run = log.run()
    first, second, third = (log.propose(run) for _ in range(3))
    log.vote(second)
    log.commit(second)
    assert [action.id for action in log.state.undecided()] == [first, third]
    assert [action.id for action in log.state.startable()] == [second]


def test_a_forged_digest_of_arguments_is_seen(log: Log) -> None:
    """An intent's digest stands as given; what does not fit its arguments never runs (see the executor)."""
    action = log.say(intent(log.run(), arguments={"to": "x"}, arguments_digest="forged"))
    assert log.action(action).intent.arguments_digest == "forged"
