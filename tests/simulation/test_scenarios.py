"""Moments that matter, one by one: each puts a certain event between two certain steps of the real code."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from logact.core.settling import ANSWER
from logact.entry import Cancel, Control, Finding, Input, Intent, NewEntry, Notice, Recovery, Run, Undone, Vote
from logact.logs.base import Filter, SharedLog
from logact.models.scripted import Reply, call
from logact.runtime.assembly import play_decider, play_driver, play_executor, play_recoverer, play_voter
from logact.runtime.executor import Executor
from logact.runtime.tail import Tail
from logact.testing.forging import StrangeAndCritical, append_raw
from logact.testing.plan import Fate, Plan
from logact.testing.programs import DECIDE_WITHIN_MS
from logact.testing.scenarios import Stage
from logact.testing.town import Budget
from logact.testing.world import Process

Turns = Sequence[Reply]

TWO: Turns = [[call("put", item="one"), call("pay", item="two")], "done"]
THREE: Turns = [[call("put", item="one"), call("pay", item="two"), call("book", item="three")], "done"]
ONE: Turns = [[call("pay", item="one")], "done"]


def judges(stage: Stage) -> None:
    """Both voters and a decider, each in its process."""
    stage.world.start("guard", stage.part(play_voter, names=["guard"]))
    stage.world.start("budget", stage.part(play_voter, names=["budget"]))
    stage.world.start("decider", stage.part(play_decider))


def begin(stage: Stage) -> None:
    """A client gives the agent a task."""
    run = stage.write(Run(agent="ops", title="task"), "client")
    stage.write(Input(run=run, text="task"), "client")


def test_a_binding_policy_that_overtakes_an_inline_batch_governs_it() -> None:
    """Nothing that was judged under the old policy is committed after a binding one."""
    stage = Stage()
    newer: list[int] = []

    def change() -> None:
        now = stage.state.policies[stage.state.policy_at["ops"]]
        version = now.version
        policy = msgspec.structs.replace(now, version=version + 1, expected=version, binding=True, note="strict")
        newer.append(stage.write(policy, "operator"))

    async def main() -> None:
        stage.world.hooks["agent", "before_intent_vote_commit_started"] = change
        stage.world.start("agent", stage.inline(TWO))
        await stage.until(lambda: stage.done["agent"])

    stage.play(main)
    assert newer
    for commit in stage.entries("Commit", effective=True):
        assert stage.state.actions[commit.action].policy == newer[0]
    assert sorted(stage.effects) == ["one", "two"]


def test_of_two_executors_one_starts_an_action_although_neither_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the append's own condition both starts are in the log; the first counts, and only its writer acts."""
    monkeypatch.setattr(Executor, "start_unless", staticmethod(lambda action: Filter(())))
    stage = Stage(Plan(schedule=0))

    async def main() -> None:
        judges(stage)
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.has("one", "validated"))
        stage.world.start("executor-1", stage.part(play_executor, name="executor-1"))
        stage.world.start("executor-2", stage.part(play_executor, name="executor-2"))
        await stage.until(lambda: stage.has("one", "executed"))

    stage.play(main)
    action = stage.action("one").id
    starts = [entry for entry in stage.entries("Started") if entry.action == action]
    assert len(starts) == 2
    assert len([entry for entry in stage.entries("Started", effective=True) if entry.action == action]) == 1
    assert stage.effects == ["one"]


@pytest.mark.parametrize("schedule", range(6))
def test_two_agents_cannot_both_spend_the_last_unit(schedule: int) -> None:
    """Both see one unit left and propose at once; votes that depend on history let one of them through."""
    stage = Stage(Plan(schedule=schedule))

    async def main() -> None:
        for name in ("left", "right"):
            turns: Turns = [[call("send", item=name)], "done"]
            stage.world.start(
                name, stage.inline(turns, name=name, voters=[Budget(stage.town, limit=1)], task=f"task {name}")
            )
        await stage.until(lambda: stage.done["left"] and stage.done["right"])

    stage.play(main)
    assert len(stage.effects) == 1
    assert sorted(stage.action(name).status for name in ("left", "right")) == ["executed", "rejected"]


def test_a_crash_after_an_inference_never_asks_the_model_again() -> None:
    """The stored answer goes on with its calls."""
    stage = Stage()

    async def main() -> None:
        stage.world.hooks["agent", "after_inference"] = lambda: stage.world.crash("agent")
        stage.world.start("agent", stage.inline(THREE))
        await stage.until(lambda: stage.done["agent"])

    stage.play(main)
    assert stage.world.lives["agent"] == 2
    assert dict(stage.town.asked) == {("ops", 0): 1, ("ops", 1): 1}
    assert sorted(stage.effects) == ["one", "three", "two"]


def test_a_crash_after_two_of_three_intents_proposes_the_third() -> None:
    """Each call of the turn has one intent, and the model was asked once."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.start("executor", stage.part(play_executor))

        def crash_at_the_second() -> None:
            stage.world.hooks["driver", "after_intent"] = lambda: stage.world.crash("driver")

        stage.world.hooks["driver", "after_intent"] = crash_at_the_second
        stage.world.start("driver", stage.part(play_driver, THREE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: any(run.status == "finished" for run in stage.state.runs.values()))

    stage.play(main)
    assert stage.world.lives["driver"] == 2
    assert stage.town.asked["ops", 0] == 1
    intents = [entry.payload for entry in stage.entries("Intent", effective=True) if entry.tool != ANSWER]
    assert sorted(intent.call for intent in intents if isinstance(intent, Intent)) == [0, 1, 2]
    assert sorted(stage.effects) == ["one", "three", "two"]


def test_a_commit_that_nobody_started_is_started_by_whoever_comes() -> None:
    """Everybody dies after the commit; an executor alone finishes the action."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.has("one", "validated"))
        for name in ("driver", "guard", "budget", "decider"):
            stage.world.kill(name)
        await stage.pass_time(5.0)
        assert stage.effects == []
        stage.world.start("executor", stage.part(play_executor))
        await stage.until(lambda: stage.has("one", "executed"))

    stage.play(main)
    assert stage.effects == ["one"]


def test_a_deadline_that_passes_while_all_are_dead_ends_in_the_log_before_anything_is_judged() -> None:
    """Whoever comes next writes the expiry first; an approval that comes after it is refused."""
    stage = Stage()

    async def main() -> None:
        stage.world.start("driver", stage.part(play_driver, ONE))
        stage.world.start("guard", stage.part(play_voter, names=["guard"]))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.has("one", "proposed") and stage.action("one").votes)
        stage.world.kill("driver")
        stage.world.kill("guard")
        await stage.pass_time(DECIDE_WITHIN_MS / 1000 + 10)
        stage.town.answers.setdefault(("budget", "one"), set()).add(True)
        stage.world.start("decider", stage.part(play_decider))
        await stage.until(lambda: stage.has("one", "rejected"), 5.0)
        stage.write(Vote(approved=True, intent=stage.action("one").id, voter="budget"), "voter", "budget")
        stage.world.start("executor", stage.part(play_executor))
        await stage.pass_time(10.0)

    stage.play(main)
    assert [entry.kind for entry in stage.entries("Expiry", "Commit", "Started")] == ["Expiry"]
    assert stage.entries("Vote")[-1].position == stage.entries("Vote", effective=False)[-1].position
    assert stage.effects == []


def test_an_executor_that_wakes_up_behind_a_fence_finishes_nothing_but_what_it_had_begun() -> None:
    """Its effect counts once, through its late result; whatever comes next is the new holder's."""
    stage = Stage()

    async def main() -> None:
        stage.world.hooks["old", "before_effect"] = lambda: stage.world.freeze("old", 30.0)

        async def old(process: Process) -> None:
            try:
                await stage.inline(TWO)(process)
            except Exception as error:
                stage.done[type(error).__name__] += 1

        stage.world.start("old", old)
        await stage.until(lambda: stage.has("one", "executing"))
        stage.world.start("new", stage.inline(TWO, takeover=True))
        await stage.until(lambda: stage.done["new"])
        await stage.pass_time(60.0)

    stage.play(main)
    fence = stage.entries("Fence", effective=True)[-1]
    new = fence.author.incarnation
    assert all(entry.author.incarnation == new for entry in stage.entries("Started", effective=True)[1:])
    assert stage.effects.count("two") == 1
    assert not stage.state.conflicts


def test_a_doubt_whose_finding_lost_a_race_is_written_again() -> None:
    """Was set aside before the log said so: any entry in between left the action to nobody for ever."""
    stage = Stage()

    def overtaken() -> None:
        stage.write(Undone(intent=stage.action("one").id), "voter")

    async def main() -> None:
        judges(stage)
        stage.world.hooks["executor", "after_effect"] = lambda: stage.world.kill("executor")
        stage.world.hooks["recoverer", "before_finding_notice"] = overtaken
        stage.world.start("executor", stage.part(play_executor))
        stage.world.start("recoverer", stage.part(play_recoverer))
        stage.world.start("driver", stage.part(play_driver, [[call("send", item="one")], "done"]))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.entries("Undone"))
        await stage.until(lambda: stage.has("one", "in_doubt"), 30.0)

    stage.play(main)
    assert [entry.payload.code for entry in stage.entries("Notice") if isinstance(entry.payload, Notice)]


def test_a_late_result_that_contradicts_a_settlement_is_a_conflict() -> None:
    """A person said that it did not happen; it had, and its executor says so when it wakes up."""
    stage = Stage()

    async def main() -> None:
        stage.world.hooks["executor", "after_effect"] = lambda: stage.world.freeze("executor", 20.0)
        judges(stage)
        stage.world.start("executor", stage.part(play_executor))
        stage.world.start("driver", stage.part(play_driver, [[call("send", item="one")], "done"]))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.effects)
        stage.world.kill("driver")  # nobody tries it again
        action = stage.action("one").id
        stage.write(Finding(code="in_doubt", message="it looks dead", cites=(action,)), "supervisor")
        stage.write(Recovery(intent=action, attempt=1, settlement="not_happened", evidence="a person"), "operator")
        assert stage.has("one", "failed")
        await stage.until(lambda: stage.state.conflicts)

    stage.play(main)
    assert stage.state.conflicts == [stage.action("one").id]
    assert "CONFLICT" in stage.checker.verdicts[stage.entries("Result", effective=False)[-1].position]


@pytest.mark.parametrize("fate", ["committed_then_error", "error_then_committed", "lost"])
@pytest.mark.parametrize("nth", range(0, 12, 3))
def test_an_append_of_unknown_fate_is_repeated_and_never_doubled(fate: Fate, nth: int) -> None:
    """Each record of a writer is in the log once, whatever became of the answer."""
    stage = Stage(Plan(schedule=3, appends=(("agent", nth, fate),)))

    async def main() -> None:
        stage.world.start("agent", stage.inline(THREE))
        await stage.until(lambda: stage.done["agent"])
        await stage.pass_time(5.0)

    stage.play(main)
    if nth < 6:
        assert stage.world.fired[f"append_{fate}"] == 1
    firsts = [entry for entry in stage.checker.entries if entry.position % 1000 == 0]
    numbers = [(entry.author.incarnation, entry.number) for entry in firsts]
    assert len(numbers) == len(set(numbers))
    assert sorted(stage.effects) == ["one", "three", "two"]


def test_a_pause_before_the_start_holds_and_a_resume_lets_go() -> None:
    """Nothing starts while the log is paused, by nobody; then it does."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.has("one", "validated"))
        stage.write(Control(verb="pause"), "operator")
        stage.world.start("executor", stage.part(play_executor))
        await stage.pass_time(10.0)
        assert not stage.entries("Started")
        stage.write(Control(verb="resume"), "operator")
        await stage.until(lambda: stage.has("one", "executed"), 5.0)

    stage.play(main)
    assert stage.effects == ["one"]


def test_a_pause_that_overtakes_a_start_wins() -> None:
    """The executor has decided to start, and the pause is in the log first: it does not."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.hooks["executor", "before_started"] = lambda: stage.write(Control(verb="pause"), "operator")
        stage.world.start("executor", stage.part(play_executor))
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.state.paused)
        await stage.pass_time(10.0)
        assert stage.effects == []
        stage.write(Control(verb="resume"), "operator")
        await stage.until(lambda: stage.has("one", "executed"), 5.0)

    stage.play(main)
    assert stage.effects == ["one"]


def test_a_cancel_before_the_start_is_final() -> None:
    """What was committed and cancelled is never started; the model hears of it."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.has("one", "validated"))
        stage.write(Cancel(intent=stage.action("one").id, reason="no"), "operator")
        stage.world.start("executor", stage.part(play_executor))
        await stage.until(lambda: any(run.status == "finished" for run in stage.state.runs.values()))

    stage.play(main)
    assert stage.action("one").code == "cancelled"
    assert stage.effects == []


def test_a_cancel_of_an_attempt_that_a_crash_interrupted_is_told_as_unknown() -> None:
    """Was told to the model as cancelled before it ran: that was a guess, and wrong."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.hooks["executor", "after_effect"] = lambda: stage.world.kill("executor")
        stage.world.start("executor", stage.part(play_executor))
        stage.world.start("recoverer", stage.part(play_recoverer))
        stage.world.start("driver", stage.part(play_driver, [[call("put", item="one")], "done"]))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.effects and stage.action("one").restart_allowed)
        stage.write(Cancel(intent=stage.action("one").id, reason="no more"), "operator")
        await stage.until(lambda: stage.heard)

    stage.play(main)
    assert stage.has("one", "superseded")
    assert stage.effects == ["one"]
    assert stage.heard == ["CANCELLED: no more. It had been started, and it is UNKNOWN whether it happened."]


def test_a_cancel_that_comes_after_the_end_of_the_call_is_too_late() -> None:
    """Was ending the whole process: a call that has ended cannot be interrupted any more."""
    stage = Stage()

    def cancel() -> None:
        stage.write(Cancel(intent=stage.action("one").id, reason="too late"), "operator")

    async def main() -> None:
        judges(stage)
        stage.world.hooks["executor", "before_result"] = cancel
        stage.world.start("executor", stage.part(play_executor))
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: any(run.status == "finished" for run in stage.state.runs.values()))

    stage.play(main)
    assert stage.has("one", "executed")
    assert stage.world.lives["executor"] == 1


def test_an_unknown_critical_entry_stops_acting_and_not_reading() -> None:
    """After it nothing is decided or started by anybody, and every fold goes on."""
    stage = Stage()

    async def main() -> None:
        judges(stage)
        stage.world.start("driver", stage.part(play_driver, ONE))
        await stage.pass_time(0.1)
        begin(stage)
        await stage.until(lambda: stage.has("one", "validated"))
        strange = NewEntry(payload=StrangeAndCritical(wish="?"), role="operator", name="x")
        append_raw(stage.checker, stage.log, strange)
        stage.world.start("executor", stage.part(play_executor))
        await stage.pass_time(10.0)
        last = stage.write(Control(verb="pause"), "operator")

        async def reader(process: Process) -> None:
            tail = Tail(SharedLog(stage.log.port(process)))
            state = await tail.start()
            assert state.position == last
            stage.done["read"] += 1

        stage.world.start("reader", reader)
        await stage.until(lambda: stage.done["read"])

    stage.play(main)
    assert not stage.entries("Started")
    assert stage.effects == []


@pytest.mark.parametrize("form", ["inline", "decoupled"])
def test_an_unknown_critical_entry_that_overtakes_a_start_stops_it_too(form: str) -> None:
    """Was acting on a start that stands after something that this version does not understand."""
    stage = Stage()

    def strange() -> None:
        append_raw(stage.checker, stage.log, NewEntry(payload=StrangeAndCritical(), role="operator", name="x"))

    async def main() -> None:
        if form == "inline":
            stage.world.hooks["agent", "before_intent_vote_commit_started"] = strange

            async def agent(process: Process) -> None:
                try:
                    await stage.inline(ONE)(process)
                except Exception as error:
                    stage.done[type(error).__name__] += 1

            stage.world.start("agent", agent)
        else:
            judges(stage)
            stage.world.hooks["executor", "before_started"] = strange
            stage.world.start("executor", stage.part(play_executor))
            stage.world.start("driver", stage.part(play_driver, ONE))
            await stage.pass_time(0.1)
            begin(stage)
        await stage.until(lambda: stage.state.halted)
        await stage.pass_time(10.0)

    stage.play(main)
    assert stage.effects == []


def test_a_process_that_is_stopped_twice_is_woken_at_the_end_of_all_faults() -> None:
    """A short stop within a long one hides that the process is stopped from nobody."""
    stage = Stage()

    async def main() -> None:
        stage.world.start("agent", stage.inline(TWO))
        await stage.until(lambda: stage.has("one", "executing"))
        stage.world.freeze("agent", 5000.0)
        await stage.pass_time(1.0)
        stage.world.freeze("agent", 1.0)
        await stage.pass_time(40.0)
        assert not stage.done["agent"]
        stage._calm()
        await stage.pass_time(20.0)
        assert stage.done["agent"]

    stage.play(main)
