"""Runs, inputs, inferences, compactions, intents, answers: where a driver stands, by the log alone."""

from __future__ import annotations

import pytest

from logact import codec
from logact.core import acting, proposing, settling
from logact.entry import Compaction, Heartbeat, Input, Output, Run, Usage, own
from tests.core.build import Log, ambiguous, call, definite, new


@pytest.fixture
def log() -> Log:
    """A log on which everything passes."""
    made = Log()
    made.open_policy()
    return made


def test_a_run_begins_with_its_position_as_its_id(log: Log) -> None:
    """A run's id is its entry's position; its first input is its context."""
    run = log.run("ann", "hello")
    state = log.run_state(run)
    assert (state.id, state.agent, state.title, state.status) == (run, "ann", "hello", "running")
    assert state.context == [run + 1]


def test_an_input_of_no_run_takes_no_effect(log: Log) -> None:
    """An input names a run that exists."""
    log.say(Input(run=77, text="x"))
    assert log.why == "there is no run 77"


def test_turns_follow_one_another(log: Log) -> None:
    """An inference counts only as the next turn of its run."""
    run = log.run()
    log.infer(run, "look", turn=2)
    assert log.why == f"run {run} is at turn 0, so turn 2 is not the next"
    log.infer(run, "look")
    assert not log.why
    log.infer(run, "look", turn=1)
    assert "is at turn 1" in log.why


def test_an_inference_waits_for_the_calls_of_the_turn_before(log: Log) -> None:
    """The next inference waits until every call of the turn is settled."""
    run = log.run()
    inference = log.infer(run, "look", "look")
    first = log.started(run, "look", inference=inference, call=0)
    log.result(first)
    log.infer(run, text="too early")
    assert log.why == "calls of turn 1 are not settled"
    second = log.started(run, "look", inference=inference, call=1)
    log.result(second)
    log.infer(run, text="now")
    assert not log.why


def test_results_join_the_context_in_the_order_of_calls(log: Log) -> None:
    """The context has the results in call order, whichever ended first."""
    run = log.run()
    inference = log.infer(run, "look", "look")
    first = log.started(run, "look", inference=inference, call=0)
    second = log.started(run, "look", inference=inference, call=1)
    late = log.result(second)
    early = log.result(first)
    assert log.run_state(run).context == [run + 1, inference, early, late]


def test_an_input_amid_a_turn_comes_after_its_results(log: Log) -> None:
    """What the user says while calls are open comes after the turn's results: providers want it so."""
    run = log.run()
    inference = log.infer(run, "look")
    said = log.say(Input(run=run, text="hurry"))
    action = log.started(run, "look", inference=inference)
    result = log.result(action)
    assert log.run_state(run).context == [run + 1, inference, result, said]
    assert log.run_state(run).inbox == []


def test_an_input_while_the_model_thinks_is_answered_later(log: Log) -> None:
    """A message that an inference had not seen comes after it, and keeps the run open (it was lost before)."""
    run = log.run()
    said = log.say(Input(run=run, text="one more thing"))
    inference = log.infer(run, text="the answer", context=(run + 1,))
    assert log.run_state(run).context == [run + 1, inference]
    answer = log.propose(run, settling.ANSWER, effect="read", inference=inference)
    log.commit(answer)
    output = log.answer(run, answer) + 1
    state = log.run_state(run)
    assert state.status == "running"
    assert state.context == [run + 1, inference, output, said]


def test_an_unseen_input_of_a_later_turn_is_kept_too(log: Log) -> None:
    """The same with a base: what came after everything that the inference names was not seen."""
    run = log.run()
    first = log.infer(run, "look", context=(run + 1,))
    action = log.started(run, "look", inference=first)
    result = log.result(action)
    said = log.say(Input(run=run, text="wait"))
    second = log.infer(run, call("look", broken="no such tool"), base=first, context=(result,))
    assert log.run_state(run).context == [run + 1, first, result, second, said]


def test_an_inference_that_names_nothing_is_taken_to_have_seen_everything(log: Log) -> None:
    """A driver that does not say what it saw moves no input."""
    run = log.run()
    said = log.say(Input(run=run, text="two"))
    inference = log.infer(run, text="x")
    assert log.run_state(run).context == [run + 1, said, inference]


def test_a_compaction_is_no_late_input(log: Log) -> None:
    """What stands in front of the context is older than what was seen, whatever its position says."""
    run = log.run()
    first = log.infer(run, call("x", broken="y"), context=(run + 1,))
    second = log.infer(run, call("x", broken="y"), base=first)
    compaction = log.say(Compaction(run=run, upto=first, summary="s"))
    third = log.infer(run, call("x", broken="y"), base=second)
    assert log.run_state(run).context == [compaction, second, third]


def test_broken_calls_are_settled_by_their_inference(log: Log) -> None:
    """A call that cannot be an action needs no settling; the next turn may begin."""
    run = log.run()
    inference = log.infer(run, call("nonsense", broken="there is no such tool"))
    assert log.run_state(run).waiting_calls == []
    assert log.run_state(run).context == [run + 1, inference]
    log.infer(run, text="ok")
    assert not log.why


def test_usage_adds_up(log: Log) -> None:
    """Tokens and money of a run are the sums over its inferences and compactions."""
    run = log.run()
    usage = Usage(input_tokens=10, output_tokens=5, cost_usd=0.5)
    log.infer(run, call("x", broken="y"), usage=usage)
    log.infer(run, call("x", broken="y"), usage=usage)
    log.say(Compaction(run=run, upto=run + 1, summary="s", usage=usage))
    state = log.run_state(run)
    assert (state.input_tokens, state.output_tokens, state.cost_usd) == (30, 15, 1.5)
    assert state.context_tokens == 0


def test_a_compaction_replaces_the_older_part(log: Log) -> None:
    """A compaction stands in the context where what it replaces stood."""
    run = log.run()
    first = log.infer(run, call("x", broken="y"))
    second = log.infer(run, call("x", broken="y"))
    compaction = log.say(Compaction(run=run, upto=first, summary="s"))
    assert log.run_state(run).context == [compaction, second]
    log.say(Compaction(run=run, upto=first, summary="again"))
    assert log.why == f"position {first} is not in the run's context"
    log.say(Compaction(run=99, upto=1, summary="s"))
    assert log.why == "there is no run 99"


def test_a_compaction_waits_for_open_calls(log: Log) -> None:
    """Nothing is compacted amid a turn."""
    run = log.run()
    log.infer(run, "look")
    log.say(Compaction(run=run, upto=run + 1, summary="s"))
    assert log.why == "calls of the present turn are not settled"


def test_one_intent_for_each_call(log: Log) -> None:
    """An intent's key is (inference, call): a second one for the same call takes no effect."""
    run = log.run()
    inference = log.infer(run, "look", "look")
    action = log.propose(run, "look", inference=inference, call=1)
    log.propose(run, "look", inference=inference, call=1)
    assert log.why == f"call 1 of inference {inference} is action {action} already"
    log.propose(run, "look", inference=inference, call=7)
    assert log.why == f"call 7 of inference {inference} is not open"
    log.propose(run, "look", inference=5, call=0)
    assert log.why == "call 0 of inference 5 is not open"


def test_a_settled_call_is_not_proposed_again(log: Log) -> None:
    """After a result, the call's place is taken for good."""
    run = log.run()
    inference = log.infer(run, "look", "look")
    log.result(log.started(run, "look", inference=inference, call=0))
    log.propose(run, "look", inference=inference, call=0)
    assert log.why == f"call 0 of inference {inference} is settled"


def test_an_intent_belongs_to_its_runs_agent(log: Log) -> None:
    """Nobody proposes for another agent's run, or for no run."""
    run = log.run("ann")
    log.propose(run, "look")
    assert not log.why
    from tests.core.build import intent

    log.say(intent(run, "look", agent="bob"))
    assert log.why == f"run {run} belongs to agent 'ann', not to 'bob'"
    log.say(intent(5, "look"))
    assert log.why == "there is no run 5"


def test_a_retry_is_the_same_action_again(log: Log) -> None:
    """A retry has its predecessor's tool and arguments, once, and only after an end that allows it."""
    run = log.run()
    first = log.started(run, "send", arguments={"to": "x"})
    log.propose(run, "send", arguments={"to": "x"}, retry_of=first)
    assert log.why == f"action {first} is executing, not failed"
    log.result(first, error=definite())
    log.propose(run, "send", arguments={"to": "y"}, retry_of=first)
    assert log.why == f"a retry of action {first} must have its tool and arguments"
    second = log.propose(run, "send", arguments={"to": "x"}, retry_of=first)
    assert not log.why
    assert log.action(first).retried_by == second
    log.propose(run, "send", arguments={"to": "x"}, retry_of=first)
    assert log.why == f"action {first} was tried again already, as {second}"
    log.propose(run, "send", retry_of=123)
    assert log.why == "there is no action 123 to try again"


def test_a_strict_action_that_may_have_happened_is_not_tried_again(log: Log) -> None:
    """An irreversible action starts again only after a definite failure."""
    from logact.entry import Failure

    run = log.run()
    action = log.started(run)
    log.result(action, error=Failure(kind="failed", message="halfway"))
    log.propose(run, retry_of=action)
    assert "may have happened, so it is not tried again" in log.why


@pytest.mark.parametrize("effect", ["read", "idempotent"])
def test_a_mild_action_that_failed_may_be_tried_again(log: Log, effect: str) -> None:
    """A failed read or idempotent action may be tried again whatever the failure was."""
    run = log.run()
    action = log.started(run, effect=effect)
    log.result(action, error=ambiguous("failed"))
    log.propose(run, effect=effect, retry_of=action)
    assert not log.why


def test_an_answer_ends_its_run(log: Log) -> None:
    """A committed answer that is released finishes the run, and closes what is left of the turn."""
    run = log.run()
    inference = log.infer(run, "look", text="x")
    answer = log.propose(run, settling.ANSWER, effect="read", inference=inference)
    log.commit(answer)
    at = log.answer(run, answer)
    state = log.run_state(run)
    assert (state.status, state.output, state.ok) == ("finished", at + 1, True)
    assert log.status(answer) == "executed"
    assert state.waiting_calls == []


def test_an_output_needs_a_committed_answer_of_its_run(log: Log) -> None:
    """What was not proposed, voted on and committed as an answer is no output."""
    run = log.run()
    other = log.run()
    answer = log.propose(run, settling.ANSWER, effect="read")
    log.say(Output(run=run, intent=answer, text="x"))
    assert log.why == f"the answer {answer} is proposed"
    log.commit(answer)
    log.say(Output(run=run, intent=answer, text="x"))
    assert log.why == f"the answer {answer} is validated"
    log.say(Output(run=other, intent=answer, text="x"))
    assert log.why == "an output belongs to a committed answer of its run"
    wrong = log.started(run, "look")
    log.say(Output(run=run, intent=wrong, text="x"))
    assert log.why == "an output belongs to a committed answer of its run"


def test_a_run_has_one_output(log: Log) -> None:
    """A second answer of a finished run changes nothing."""
    run = log.run()
    first = log.propose(run, settling.ANSWER, effect="read")
    second = log.propose(run, settling.ANSWER, effect="read")
    log.commit(first)
    log.commit(second)
    at = log.answer(run, first, "one")
    log.answer(run, second, "two")
    assert log.run_state(run).output == at + 1


def test_a_further_input_continues_a_finished_run(log: Log) -> None:
    """An input to a finished run goes on with its context."""
    run = log.run()
    inference = log.infer(run, text="done")
    answer = log.propose(run, settling.ANSWER, effect="read", inference=inference)
    log.commit(answer)
    output = log.answer(run, answer) + 1
    said = log.say(Input(run=run, text="more"))
    state = log.run_state(run)
    assert state.status == "running"
    assert state.context == [run + 1, inference, output, said]


def test_an_answer_of_no_call_adds_no_result_twice(log: Log) -> None:
    """The answer that a limit forces closes no turn, so its results are not in the context twice (they were)."""
    run = log.run()
    inference = log.infer(run, "look")
    result = log.result(log.started(run, "look", inference=inference))
    answer = log.propose(run, settling.ANSWER, effect="read")
    log.commit(answer)
    log.answer(run, answer)
    assert log.run_state(run).context == [run + 1, inference, result]


def test_a_finished_run_takes_no_more_of_its_models_calls(log: Log) -> None:
    """After the output, neither inferences nor intents of old calls count."""
    run = log.run()
    inference = log.infer(run, text="x")
    answer = log.propose(run, settling.ANSWER, effect="read", inference=inference)
    log.commit(answer)
    log.answer(run, answer)
    log.infer(run, text="again")
    assert log.why == f"run {run} is finished"
    log.propose(run, "look", inference=inference)
    assert log.why == f"run {run} is finished"
    log.propose(run, "look")
    assert not log.why, "a caller's own loop may go on"


def test_finished_runs_are_forgotten_within_bounds(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs that ended the oldest go; running ones stay."""
    monkeypatch.setattr(proposing, "RUNS_KEPT", 3)
    kept = log.run()
    for _ in range(4):
        run = log.run()
        answer = log.propose(run, settling.ANSWER, effect="read")
        log.commit(answer)
        log.answer(run, answer)
    assert kept in log.state.runs
    assert len(log.state.runs) == 3


def test_what_is_left_of_a_forgotten_run_never_starts(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open action of a run that was forgotten does not start: it may have been a dry run (it started before)."""
    monkeypatch.setattr(proposing, "RUNS_KEPT", 1)
    run = log.run(dry_run=True)
    left = log.propose(run)
    log.commit(left)
    answer = log.propose(run, settling.ANSWER, effect="read")
    log.commit(answer)
    log.answer(run, answer)
    log.run()
    assert run not in log.state.runs
    log.start(left)
    assert log.why == f"run {run} ended too long ago"


def test_a_digest_says_what_a_run_did(log: Log) -> None:
    """Equal histories have equal digests, and a settled action changes it."""
    digests = []
    for _ in range(2):
        other = Log()
        other.open_policy()
        run = other.run()
        before = other.run_state(run).digest
        other.result(other.started(run))
        digests.append((before, other.run_state(run).digest))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[0][1]


def test_references_inside_a_record_point_to_neighbours(log: Log) -> None:
    """A record may name its own first entry before it has a position."""
    at = log.record(new(Run(agent="ann"), "client"), new(Input(run=own(0), text="x"), "client"))
    assert log.run_state(at).context == [at + 1]


@pytest.mark.parametrize("erased", ["Inference", "Intent", "Commit", "Started", "Result"])
def test_a_run_with_a_gap_goes_no_further(log: Log, erased: str) -> None:
    """After an erasure in an unfinished run, nothing of it happens a second time (an erased intent was proposed
    again)."""
    run = log.run()
    inference = log.infer(run, "pay")
    action = log.started(run, "pay", inference=inference)
    log.result(action)
    again = Log()
    for body in log.bodies:
        kinds = [entry.kind for entry in codec.decode_record(body, 1)]
        again.store(codec.erase_payload(body, 0) if kinds[0] == erased else body)
    assert again.run_state(run).status == "stopped"
    assert all(not state.is_open or state.intent.run == run for state in again.state.actions.values())
    assert again.state.startable() == [] or acting.start_problem(again.state, again.state.startable()[0], "x", 0)


def test_an_erased_result_closes_its_action_unknown(log: Log) -> None:
    """An erased result leaves nothing in doubt: the action ended, what came of it was erased."""
    action = log.started(log.run())
    log.result(action)
    again = Log()
    for body in log.bodies[:-1]:
        again.store(body)
    again.store(codec.erase_payload(log.bodies[-1], 0))
    assert again.status(action) == "superseded"


def test_an_erased_critical_entry_halts(log: Log) -> None:
    """An erased policy or control is not as if it had never been: this version may read, not act."""
    again = Log()
    again.store(codec.erase_payload(log.bodies[0], 0))
    assert again.state.halted == "Policy at position 1000, whose payload was erased"


def test_a_run_without_an_answer_ends_with_its_life(log: Log) -> None:
    """A goodbye ends it well, a takeover not (it was running for ever); its doubts are settled all the same."""
    first = log.say(Run(agent="ann", ends_with_life=True), writer="one")
    other = log.say(Run(agent="bob", ends_with_life=True), writer="one")
    task = log.run()
    log.say(Heartbeat(agent="ann"), writer="one")
    log.say(Heartbeat(agent="ann", leaving=True), writer="two")
    assert {log.run_state(run).status for run in (first, other, task)} == {"running"}
    log.fence("ann", holder="one")
    started = log.started(first, "send", writer="one")
    assert log.run_state(first).status == "running"
    log.fence("ann", holder="three")
    assert (log.run_state(first).status, log.run_state(first).ok) == ("finished", False)
    assert log.status(started) == "in_doubt"
    log.recover(started, "happened", evidence="ann")
    assert log.status(started) == "executed"
    assert log.run_state(other).status == "running"
    log.say(Heartbeat(agent="bob", leaving=True), writer="one")
    assert (log.run_state(other).status, log.run_state(other).ok) == ("finished", True)
    assert log.run_state(task).status == "running"
