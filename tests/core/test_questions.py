"""The pure questions that parts ask of a fold: deciding, executing, recovering, driving, views, invariants, state."""

from __future__ import annotations

import msgspec
import pytest

from logact import codec
from logact.core import deciding, driving, executing, invariants, recovering, settling, views, voting
from logact.core.state import Attempt
from logact.entry import Abort, Commit, Compaction, Input, Limits, Policy, Usage, Vote, VoterInPolicy
from logact.errors import InvariantViolated
from tests.core.build import Log, ambiguous, call, definite


@pytest.fixture
def log() -> Log:
    """A log whose policy needs the voter v."""
    made = Log()
    made.policy("v", start_within_ms=500)
    return made


@pytest.fixture
def opened() -> Log:
    """A log on which everything passes."""
    made = Log()
    made.open_policy()
    return made


# --- deciding ---


def test_a_decision_waits_for_votes(log: Log) -> None:
    """Without the votes there is no decision; with them there is one, with the time to start by."""
    action = log.propose(log.run())
    assert deciding.decide(log.state, log.action(action), 100) is None
    log.vote(action, reason="fine")
    decision = deciding.decide(log.state, log.action(action), 100)
    assert isinstance(decision, Commit)
    assert (decision.intent, decision.start_by_ms, decision.policy) == (action, 600, 1000)
    log.say(decision)
    assert not log.why
    assert deciding.decide(log.state, log.action(action), 100) is None


def test_a_rejection_becomes_an_abort_with_its_reason(log: Log) -> None:
    """Who rejected and why, with the hint, stands in the abort."""
    action = log.propose(log.run())
    log.vote(action, approved=False, reason="no", hint="ask")
    decision = deciding.decide(log.state, log.action(action), 100)
    assert isinstance(decision, Abort)
    assert (decision.reason, decision.hint, decision.code) == ("v: no", "ask", "rejected")


def test_what_a_binding_policy_overtook_is_aborted(log: Log) -> None:
    """The decider aborts what the fold would not let it commit."""
    action = log.propose(log.run())
    log.vote(action)
    at = log.policy("w", binding=True)
    decision = deciding.decide(log.state, log.action(action), 100)
    assert isinstance(decision, Abort)
    assert decision.code == "policy_changed"
    assert str(at) in decision.reason


def test_without_a_policy_the_decision_is_closed() -> None:
    """Reads are committed, all else is aborted with what to do."""
    log = Log()
    run = log.run()
    read, act = log.propose(run, "look", effect="read"), log.propose(run)
    assert isinstance(deciding.decide(log.state, log.action(read), 0), Commit)
    refused = deciding.decide(log.state, log.action(act), 0)
    assert isinstance(refused, Abort)
    assert refused.reason == voting.NO_VOTER


def test_what_is_overdue(log: Log) -> None:
    """Deadlines of decisions and of starts; the earliest is known, whatever is settled has none."""
    run = log.run()
    undecided = log.propose(run, deadline_ms=50)
    committed = log.propose(run, deadline_ms=10)
    log.vote(committed)
    log.commit(committed, start_by_ms=70)
    assert deciding.next_deadline_ms(log.state) == 50
    assert deciding.overdue(log.state, 49) == []
    (expiry,) = deciding.overdue(log.state, 50)
    assert (expiry.intent, expiry.reason) == (undecided, "no decision before the deadline; no vote came from v")
    assert [one.intent for one in deciding.overdue(log.state, 70)] == [undecided, committed]
    for one in deciding.overdue(log.state, 70):
        log.say(one)
        assert not log.why
    assert deciding.next_deadline_ms(log.state) == 0


def test_a_decision_of_the_decider_always_takes_effect(log: Log) -> None:
    """What the pure question answers, the fold takes: no decider turns in circles."""
    run = log.run()
    for approved in (True, False, None):
        action = log.propose(run)
        log.vote(action, approved=approved)
        decision = deciding.decide(log.state, log.action(action), 10)
        if decision is not None:
            log.say(decision)
            assert not log.why


# --- voting ---


@pytest.mark.parametrize(
    ("need", "votes", "outcome"),
    [
        ({"all": ["a", "b"]}, {"a": True}, "wait"),
        ({"all": ["a", "b"]}, {"a": True, "b": True}, "approve"),
        ({"all": ["a", "b"]}, {"a": True, "b": None}, "approve"),
        ({"all": ["a", "b"]}, {"a": None, "b": None}, "reject"),
        ({"all": ["a", "b"]}, {"a": False}, "reject"),
        ({"any": ["a", "b"]}, {"a": False}, "wait"),
        ({"any": ["a", "b"]}, {"b": True}, "approve"),
        ({"any": ["a", "b"]}, {"a": False, "b": False}, "reject"),
        ({"any": ["a", "b"]}, {"a": None, "b": None}, "reject"),
        ({"k": 2, "of": ["a", "b", "c"]}, {"a": True}, "wait"),
        ({"k": 2, "of": ["a", "b", "c"]}, {"a": True, "b": False}, "wait"),
        ({"k": 2, "of": ["a", "b", "c"]}, {"a": True, "c": True}, "approve"),
        ({"k": 2, "of": ["a", "b", "c"]}, {"a": False, "b": False}, "reject"),
        ({"k": 2, "of": ["a", "b", "c"]}, {"a": None, "b": None}, "reject"),
        ({"any": ["a", {"all": ["b", "c"]}]}, {"b": True, "c": True}, "approve"),
        ({"all": ["a", {"any": ["b", "c"]}]}, {"a": True, "b": False}, "wait"),
        ({"open": "why"}, {}, "approve"),
        ({}, {}, "reject"),
        ({"all": []}, {}, "reject"),
    ],
)
def test_how_votes_combine(need: dict[str, object], votes: dict[str, bool | None], outcome: str) -> None:
    """All, any, and k of n, nested; abstentions never approve, silence is waited for."""
    policy = Policy(version=1, need=need, voters={name: VoterInPolicy() for name in "abc"})
    given = {name: Vote(approved=approved, voter=name) for name, approved in votes.items()}
    assert voting.evaluate(policy, "irreversible", given).outcome == outcome


@pytest.mark.parametrize(
    "need",
    [
        {"all": ["nobody"]},
        {"all": "a"},
        {"k": 4, "of": ["a", "b"]},
        {"k": 0, "of": ["a"]},
        {"k": "2", "of": ["a"]},
        {"open": ""},
        {"open": 1},
        {"some": ["a"]},
        {"all": ["s"]},
        {"all": [3]},
    ],
)
def test_policies_that_cannot_be_used(need: dict[str, object]) -> None:
    """A policy that names nobody, counts wrongly, opens without a reason or relies on a shadow has problems."""
    voters = {"a": VoterInPolicy(), "b": VoterInPolicy(), "s": VoterInPolicy(shadow=True)}
    assert voting.problems(Policy(version=1, need=need, voters=voters))


def test_one_voter_is_not_two() -> None:
    """Two of two is not reached by one voter who is named twice."""
    policy = Policy(version=1, need={"k": 2, "of": ["a", "a"]}, voters={"a": VoterInPolicy()})
    vote = {"a": Vote(approved=True, voter="a")}
    assert voting.problems(policy) or voting.evaluate(policy, "irreversible", vote).outcome != "approve"


# --- executing ---


def test_the_next_start_of_an_action(opened: Log) -> None:
    """Attempt and epoch of a start follow from the fold, and such a start takes effect."""
    action = opened.propose(opened.run())
    opened.commit(action)
    opened.fence()
    started = executing.start(opened.state, opened.action(action), lease_ms=5)
    assert (started.attempt, started.epoch, started.lease_ms) == (1, 1, 5)
    opened.say(started)
    assert executing.took_effect(opened.state, action, 1, "w")
    assert not executing.took_effect(opened.state, action, 1, "other")
    assert not executing.took_effect(opened.state, action, 2, "w")
    assert not executing.took_effect(opened.state, 99, 1, "w")
    opened.fence()
    assert not executing.took_effect(opened.state, action, 1, "w"), "fenced off before it began"


def test_external_keys_differ_by_log_and_action() -> None:
    """The key is the same for every attempt, another for other actions and for forks."""
    keys = [executing.external_key(log, action) for log in ("a", "b") for action in (1, 2)]
    assert len(dict.fromkeys(keys)) == 4
    assert executing.external_key("a", 1) == keys[0]


# --- driving ---


def test_what_a_driver_does_next(opened: Log) -> None:
    """Infer, propose each call in order, wait, infer again, and at the end nothing."""
    run = opened.run()
    state = opened.run_state(run)
    assert driving.next_step(opened.state, state, 0).verb == "infer"
    inference = opened.infer(run, "a", "b")
    step = driving.next_step(opened.state, state, 0)
    assert (step.verb, step.call) == ("propose", 0)
    first = opened.started(run, "a", inference=inference, call=0)
    assert driving.next_step(opened.state, state, 0).verb == "wait"
    opened.result(first)
    step = driving.next_step(opened.state, state, 0)
    assert (step.verb, step.call) == ("propose", 1)
    opened.result(opened.started(run, "b", inference=inference, call=1))
    assert driving.next_step(opened.state, state, 0).verb == "infer"
    opened.control("stop")
    assert driving.next_step(opened.state, state, 0).verb == "done"


def test_answers_come_last_and_one_after_the_other(opened: Log) -> None:
    """An answer waits for the turn's other calls; of two answers the second waits for the first."""
    run = opened.run()
    inference = opened.infer(run, "answer", "look", "answer")
    answers = frozenset({0, 2})

    def step() -> driving.Step:
        return driving.next_step(opened.state, opened.run_state(run), 0, answer_calls=answers)

    assert step().call == 1
    opened.result(opened.started(run, "look", inference=inference, call=1))
    assert (step().verb, step().call) == ("propose", 0)
    first = opened.propose(run, "answer", inference=inference, call=0, effect="read")
    assert step().verb == "wait"
    opened.abort(first)
    assert (step().verb, step().call) == ("propose", 2)


def test_what_did_not_happen_is_proposed_again_until_it_is_given_up(opened: Log) -> None:
    """A crash's victim is retried a bounded number of times, then given up."""
    run = opened.run()
    inference = opened.infer(run, "send")
    before = 0
    for _ in range(recovering.RETRIES_MAX + 1):
        step = driving.next_step(opened.state, opened.run_state(run), 0)
        assert (step.verb, step.retry_of) == ("propose", before)
        action = opened.doubtful(run, inference=inference, retry_of=before)
        opened.recover(action, "not_happened")
        before = action
    step = driving.next_step(opened.state, opened.run_state(run), 0)
    assert (step.verb, step.retry_of) == ("give_up", before)
    opened.recover(before, "failed_final", attempt=0)
    assert driving.next_step(opened.state, opened.run_state(run), 0).verb == "infer"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(turns=1), "1 turns"),
        (Limits(actions=1), "1 actions"),
        (Limits(tokens=5), "5 tokens is reached (7 used)"),
        (Limits(seconds=2), "2 seconds"),
    ],
)
def test_limits(opened: Log, limits: Limits, reason: str) -> None:
    """A used-up limit concludes the run: of time at once, any other between turns only."""
    run = opened.run(limits=limits)
    assert driving.limit_reached(opened.run_state(run), 1000) == ""
    inference = opened.infer(run, "look", usage=Usage(input_tokens=5, output_tokens=2))
    amid = driving.next_step(opened.state, opened.run_state(run), 4000).verb
    assert amid == ("conclude" if limits.seconds else "propose")
    opened.result(opened.started(run, "look", inference=inference))
    step = driving.next_step(opened.state, opened.run_state(run), 4000)
    assert step.verb == "conclude"
    assert reason in step.reason


def test_a_context_above_its_budget_is_compacted_first(opened: Log) -> None:
    """Between turns, when there is enough to shorten; after it the model is asked."""
    run = opened.run()
    for _ in range(3):
        opened.infer(run, call("x", broken="y"), usage=Usage(input_tokens=100))
    state = opened.run_state(run)
    assert driving.next_step(opened.state, state, 0, context_tokens_max=50).verb == "compact"
    assert driving.next_step(opened.state, state, 0, context_tokens_max=500).verb == "infer"
    opened.say(Compaction(run=run, upto=state.context[1], summary="s"))
    assert driving.next_step(opened.state, state, 0, context_tokens_max=50).verb == "infer"


def test_a_run_without_an_input_waits(opened: Log) -> None:
    """Nothing to answer: nothing to ask."""
    from logact.entry import Run

    run = opened.say(Run(agent="ann"))
    assert driving.next_step(opened.state, opened.run_state(run), 0).verb == "wait"
    opened.say(Input(run=run, text="x"))
    assert driving.next_step(opened.state, opened.run_state(run), 0).verb == "infer"


# --- views, invariants, state ---


def test_a_view_shows_an_actions_life(log: Log) -> None:
    """The view has the proposal and what became of it; it is of its own, changing the fold does not change it."""
    run = log.run(text="the task")
    action = log.propose(run, arguments={"to": "x"}, reasoning="because")
    log.vote(action, reason="fine")
    entry = views.view(log.state, log.action(action))
    assert (entry.position, entry.agent_id, entry.status, entry.task) == (action, "ann", "proposed", "the task")
    assert (entry.action.tool, entry.action.arguments, entry.action.reasoning) == ("send", {"to": "x"}, "because")
    assert list(entry.votes) == ["v"]
    log.commit(action)
    log.start(action)
    log.result(action, error=definite())
    again = log.propose(run, arguments={"to": "x"}, retry_of=action)
    after = views.view(log.state, log.action(again), memory={"m": 1})
    assert (after.retry_count, after.memory) == (1, {"m": 1})
    failed = views.view(log.state, log.action(action))
    assert (failed.status, failed.attempts, failed.error) == ("failed", 1, definite())
    assert entry.status == "proposed"


def test_nothing_runs_that_the_fold_does_not_justify(opened: Log) -> None:
    """The gate in front of every effect names the invariant that would be broken."""
    digest = codec.digest_of({})
    action = opened.propose(opened.run())
    for attempt, name in ((1, "nothing_acts_unseen"),):
        with pytest.raises(InvariantViolated, match=name):
            invariants.check_may_run(opened.state, action, attempt, "w", digest)
    opened.commit(action)
    with pytest.raises(InvariantViolated, match="nothing_acts_unseen"):
        invariants.check_may_run(opened.state, action, 1, "w", digest)
    opened.start(action)
    invariants.check_may_run(opened.state, action, 1, "w", digest)
    with pytest.raises(InvariantViolated, match="no_double_effect"):
        invariants.check_may_run(opened.state, action, 2, "w", digest)
    with pytest.raises(InvariantViolated, match="no_double_effect"):
        invariants.check_may_run(opened.state, action, 1, "other", digest)
    with pytest.raises(InvariantViolated, match="approval_binds"):
        invariants.check_may_run(opened.state, action, 1, "w", "other")
    with pytest.raises(InvariantViolated, match="not in the log"):
        invariants.check_may_run(opened.state, 99, 1, "w", digest)


def test_the_check_of_states_is_not_vacuous(opened: Log) -> None:
    """Each property that the check names is missed when it is broken by hand."""
    action = opened.action(opened.started(opened.run()))
    invariants.check_state(opened.state)
    action.attempts.append(Attempt(2, "w", 0, 1))
    with pytest.raises(InvariantViolated, match="was started 2 times"):
        invariants.check_state(opened.state)
    action.attempts[1] = Attempt(3, "w", 0, 1)
    with pytest.raises(InvariantViolated, match="has attempts"):
        invariants.check_state(opened.state)
    del action.attempts[1]
    action.decided_at = 0
    with pytest.raises(InvariantViolated, match="without a commit"):
        invariants.check_state(opened.state)
    with pytest.raises(InvariantViolated, match="not in the table"):
        invariants.require("nonsense", True, "")


def test_states_know_what_waits(opened: Log) -> None:
    """Undecided, startable, unfinished and doubtful actions are disjoint."""
    run = opened.run()
    undecided = opened.propose(run)
    startable = opened.propose(run)
    opened.commit(startable)
    running = opened.started(run)
    doubt = opened.started(run)
    opened.result(doubt, error=ambiguous())
    restart = opened.started(run, effect="read")
    opened.recover(restart, "restart")
    state = opened.state
    assert [one.id for one in state.undecided()] == [undecided]
    assert [one.id for one in state.startable()] == [startable, restart]
    assert [one.id for one in state.unfinished()] == [running, doubt]
    assert [one.id for one in state.doubtful()] == [doubt]
    assert all(state.actions[key].is_open for key in state.open_actions)
    assert state.actions[running].current is not None
    assert state.actions[undecided].current is None


def test_a_state_is_small(opened: Log) -> None:
    """What a checkpoint holds of a settled action is little, whatever its arguments were."""
    run = opened.run()
    opened.result(opened.started(run, arguments={"text": "x" * 10_000}))
    assert len(msgspec.json.encode(opened.state)) < 3000
    assert settling.scopes_of(opened.action(max(opened.state.actions)).intent)[0] == "log"
