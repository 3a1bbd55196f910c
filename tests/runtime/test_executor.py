"""The executor: what a tool does, whatever it is, becomes one result; what was not approved never runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logact import ToolError, codec
from logact.core import executing
from logact.entry import Cancel, Commit, Failure, Input, Intent, Output, Pin, Result, Run, Started, own
from logact.errors import AppendUnknown, LogUnavailable
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.runtime import executor as executor_module
from logact.runtime import values
from logact.runtime.recoverer import Recoverer
from logact.testing.faults import FaultyEngine, Plan
from logact.tools import ImageResult, Tool
from tests.runtime.kit import (
    Counter,
    Stage,
    agent,
    entries,
    folded,
    memory_log,
    opened,
    payloads,
    run,
    simple,
    statuses,
)


async def committed(stage: Stage, tool: str, arguments: dict[str, Any] | None = None, **changes: Any) -> int:
    """A committed action on an open log; its id."""
    if not stage.host.state.policy_at:
        await stage.say(opened())
    run_id = await stage.say(Run(agent="ann"), role="client")
    intent = stage.proposer.intent(stage.host.state.runs[run_id], tool, arguments or {})
    intent = msgspec.structs.replace(intent, **changes)
    small, blobs = stage.proposer.outsourced(intent)
    done = await stage.host.append([stage.host.about(intent, small, "driver", "ann")], blobs=blobs)
    await stage.say(Commit(intent=done.position), role="decider")
    assert stage.host.state.actions[done.position].status == "validated"
    return done.position


async def outcome(tool: Tool, arguments: dict[str, Any] | None = None, **secrets: str) -> Result:
    """What one call of a tool came to, as the log has it."""
    stage = await Stage(memory_log(), [tool], **secrets).open()
    action = await committed(stage, tool.name, arguments)
    assert await stage.executor.perform(action)
    (result,) = await payloads(stage.log, Result)
    return result


def test_the_chain_of_an_action() -> None:
    """Started is durable and folded before the tool runs; the result comes after it."""

    async def main() -> None:
        log = memory_log()
        seen: list[list[str]] = []

        async def peek() -> str:
            seen.append([entry.kind for entry in await entries(log)])
            return "ok"

        stage = await Stage(log, [simple(peek)]).open()
        action = await committed(stage, "peek")
        assert await stage.executor.perform(action)
        assert seen[0][-3:] == ["Intent", "Commit", "Started"]
        assert stage.host.state.actions[action].status == "executed"

    run(main())


def test_an_ordinary_error_of_a_tool_is_a_failure_that_proves_nothing() -> None:
    """An exception becomes a failure that is not definite."""

    def boom() -> str:
        raise RuntimeError("it broke")

    result = run(outcome(simple(boom)))
    assert result.error == Failure(kind="failed", message="RuntimeError: it broke")


def test_a_tool_may_say_how_it_failed() -> None:
    """A ToolError's kind, definiteness and delay stand in the log."""

    async def busy() -> str:
        raise ToolError("later", kind="transient", definite=True, retry_after_s=3.0)

    result = run(outcome(simple(busy)))
    assert result.error == Failure(kind="transient", message="later", definite=True, retry_after_s=3.0)


def test_a_failure_with_nonsense_in_it_is_still_a_result() -> None:
    """What a tool puts into its error is made to fit, and says nothing definite (the result took no effect)."""

    async def odd() -> str:
        raise ToolError("hm", kind="weird", definite="yes", retry_after_s="soon")  # type: ignore[arg-type]

    result = run(outcome(simple(odd)))
    assert result.error is not None
    assert (result.error.message, result.error.definite) == ("hm", False)


def test_an_error_in_bytes_that_are_no_text_is_still_a_result() -> None:
    """File names may hold what UTF-8 cannot; the result is written all the same (it was lost, and in doubt)."""

    async def odd() -> str:
        raise OSError("no such file: \udcff.txt")

    result = run(outcome(simple(odd)))
    assert result.error is not None
    assert "?.txt" in result.error.message


def test_a_tool_that_takes_too_long_times_out() -> None:
    """A timeout is a result of its own kind; a strict action is then in doubt."""

    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    async def main() -> None:
        stage = await Stage(memory_log(), [simple(slow, timeout_s=0.02)]).open()
        action = await committed(stage, "slow")
        await stage.executor.perform(action)
        state = stage.host.state.actions[action]
        assert (state.status, state.error and state.error.kind) == ("in_doubt", "timeout")

    run(main())


def test_a_cancel_interrupts_what_runs() -> None:
    """A cancel of a running action reaches its tool; the result says so."""

    async def main() -> None:
        began = asyncio.Event()

        async def slow() -> str:
            began.set()
            await asyncio.sleep(60)
            return "never"

        stage = await Stage(memory_log(), [simple(slow, "read")]).open()
        action = await committed(stage, "slow")
        task = asyncio.ensure_future(stage.executor.perform(action))
        await began.wait()
        await stage.say(Cancel(intent=action), role="client")
        assert await task
        (result,) = await payloads(stage.log, Result)
        assert result.error is not None
        assert result.error.kind == "cancelled"

    run(main())


def test_a_tool_that_gives_up_on_its_own_is_a_failure() -> None:
    """A tool that raises CancelledError without having been cancelled has failed (its action hung for ever)."""

    async def gives_up() -> str:
        raise asyncio.CancelledError

    result = run(outcome(simple(gives_up, "read")))
    assert result.error is not None
    assert result.error.kind == "cancelled"


def test_a_value_that_cannot_be_stored_is_a_failure_after_the_fact() -> None:
    """The tool ran, and its value cannot be kept: said so, not definite."""

    async def weird() -> Any:
        return {(1, 2): "tuple keys"}

    result = run(outcome(simple(weird)))
    assert result.error is None or not result.error.definite


@pytest.mark.parametrize("depth", [150, 5000])
def test_a_value_that_nests_too_deep_is_a_failure_after_the_fact(depth: int) -> None:
    """What nobody could decode again is not written (the executor died of it)."""

    async def deep() -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    result = run(outcome(simple(deep, "read")))
    if result.error is not None:
        assert not result.error.definite
    else:
        assert isinstance(result.value, str)


def test_output_without_end_is_cut() -> None:
    """A hundred megabytes become a blob of bounded size, marked as cut, head and tail kept."""

    async def shout() -> str:
        return "head" + "x" * 100_000_000 + "tail"

    result = run(outcome(simple(shout, "read")))
    assert result.truncated
    assert result.blob is not None
    assert result.blob.size <= values.OUTPUT_BYTES_MAX + 1000
    assert result.blob.preview.startswith("head")


def test_large_values_travel_beside_the_log() -> None:
    """A value above the inline limit is a blob that is there before its entry, and reads back whole."""

    async def much() -> list[int]:
        return list(range(20_000))

    async def main() -> None:
        log = memory_log()
        stage = await Stage(log, [simple(much, "read")]).open()
        await stage.executor.perform(await committed(stage, "much"))
        (result,) = await payloads(log, Result)
        assert result.value is None
        assert result.blob is not None
        assert values.unpack(await log.get_blob(result.blob.digest)) == list(range(20_000))

    run(main())


def test_an_image_is_a_part_of_the_result() -> None:
    """An image's bytes are stored beside the log, its text in the entry."""

    async def draw() -> ImageResult:
        return ImageResult(data=b"\x89PNG", media_type="image/png", text="a dot")

    async def main() -> None:
        log = memory_log()
        stage = await Stage(log, [simple(draw, "read")]).open()
        await stage.executor.perform(await committed(stage, "draw"))
        (result,) = await payloads(log, Result)
        assert result.value == "a dot"
        ref = result.parts[0].blob
        assert ref is not None
        assert (ref.media_type, await log.get_blob(ref.digest)) == ("image/png", b"\x89PNG")

    run(main())


# --- approval binds to what runs ---


async def refused(tools: list[Tool], tool: str, arguments: dict[str, Any] | None = None, **changes: Any) -> Failure:
    """The definite failure of an action that must not run."""
    stage = await Stage(memory_log(), tools).open()
    action = await committed(stage, tool, arguments, **changes)
    await stage.executor.perform(action)
    (result,) = await payloads(stage.log, Result)
    assert result.error is not None
    assert result.error.definite
    assert stage.host.state.actions[action].status == "failed"
    return result.error


def test_a_tool_of_another_version_does_not_run() -> None:
    """The approval was for another version of the tool; also one that names none covers none."""
    counter = Counter()
    for version in ("0", ""):
        failure = run(refused(counter.tools(), "send", tool_version=version))
        assert "is now version 1" in failure.message
    assert counter.done == []


def test_a_tool_with_a_stricter_effect_than_approved_does_not_run() -> None:
    """Who proposes cannot make a tool milder than it is: it passed as a read without any voter before."""
    counter = Counter()
    failure = run(refused(counter.tools(), "send", effect="read"))
    assert failure.message == "the effect of 'send' is irreversible; the approval was for read"
    assert counter.done == []


def test_a_tool_that_is_not_offered_does_not_run() -> None:
    """An action for a tool that this executor does not have certainly has no effect."""
    assert "is not offered here" in run(refused([], "gone")).message


def test_other_arguments_than_approved_do_not_run() -> None:
    """Arguments that don't fit the digest that votes are bound to are refused (they were tried again for ever)."""
    counter = Counter()
    failure = run(refused(counter.tools(), "send", {"to": "x"}, arguments_digest=codec.digest_of({"to": "y"})))
    assert failure.message == "its arguments are not those of its digest"
    assert counter.done == []


def test_arguments_that_are_gone_are_a_definite_failure() -> None:
    """A missing blob of arguments ends the action (it was tried again for ever)."""

    async def main() -> None:
        counter = Counter()
        engine = MemoryEngine()
        stage = await Stage(SharedLog(engine), counter.tools()).open()
        action = await committed(stage, "send", {"to": "x" * 20_000})
        engine._blobs.clear()
        await stage.executor.perform(action)
        (result,) = await payloads(stage.log, Result)
        assert result.error is not None
        assert result.error.message.startswith("its arguments are gone: ")
        assert result.error.definite
        assert counter.done == []

    run(main())


def test_large_arguments_run_whole() -> None:
    """Arguments beside the log reach the tool as they were."""

    async def main() -> None:
        counter = Counter()
        stage = await Stage(memory_log(), counter.tools()).open()
        await stage.executor.perform(await committed(stage, "send", {"to": "x" * 20_000}))
        assert counter.done == ["send " + "x" * 20_000]

    run(main())


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_changed_pin_stops_the_start(tmp_path: Path, change: str) -> None:
    """What an approval depends on is looked at again at the start; a file that is gone counts as changed (it ended
    the whole agent)."""
    script = tmp_path / "script.sh"
    script.write_text("one")
    ran: list[str] = []

    def execute(path: str) -> str:
        ran.append(path)
        return "ok"

    def pins(path: str) -> list[tuple[str, str]]:
        return [(path, codec.digest(Path(path).read_bytes()))]

    async def main() -> Result:
        stage = await Stage(memory_log(), [simple(execute, pins=pins)]).open()
        action = await committed(stage, "execute", {"path": str(script)})
        if change == "changed":
            script.write_text("two")
        else:
            script.unlink()
        await stage.executor.perform(action)
        (result,) = await payloads(stage.log, Result)
        return result

    result = run(main())
    assert result.error is not None
    assert result.error.definite
    assert ran == []


def test_pins_that_cannot_be_taken_are_refused_at_the_start() -> None:
    """A pin that cannot be looked at when it is proposed never runs, and ends nobody's run."""

    def pins() -> list[Pin]:
        raise OSError("no disk")

    failure = run(refused([simple(lambda: "x", name="execute", pins=pins)], "execute"))
    assert "cannot be checked: OSError: no disk" in failure.message


# --- secrets ---


def test_secrets_are_resolved_for_the_tool_only() -> None:
    """The tool gets the value; the log has the reference, also where the tool gives the value back."""
    got: list[str] = []

    async def login(token: str) -> dict[str, str]:
        got.append(token)
        return {"echo": f"token={token}"}

    async def main() -> None:
        log = memory_log()
        stage = await Stage(log, [simple(login)], github="s3cr3t-value").open()
        await stage.executor.perform(await committed(stage, "login", {"token": "secret://github"}))
        assert got == ["s3cr3t-value"]
        (result,) = await payloads(log, Result)
        assert result.value == {"echo": "token=secret://github"}
        assert all(b"s3cr3t-value" not in msgspec.json.encode(entry) for entry in await entries(log))

    run(main())


def test_secrets_in_errors_are_redacted() -> None:
    """A tool's error does not carry a secret into the log."""

    async def login(token: str) -> str:
        raise RuntimeError(f"bad token {token}")

    result = run(outcome(simple(login), {"token": "secret://github"}, github="s3cr3t-value"))
    assert result.error is not None
    assert result.error.message == "RuntimeError: bad token secret://github"


def test_an_unknown_secret_is_a_definite_failure() -> None:
    """A reference that nobody can resolve means that the tool did not run."""
    counter = Counter()
    result = run(outcome(counter.tools()[0], {"to": "secret://nobody"}))
    assert result.error is not None
    assert result.error.definite
    assert counter.done == []


# --- starts ---


def test_two_tasks_of_one_process_act_once() -> None:
    """An action that two tasks of one process want to run, runs once (a caller's own loop ran it a second time)."""

    async def main() -> None:
        counter = Counter()
        stage = await Stage(memory_log(), counter.tools()).open()
        action = await committed(stage, "send", {"to": "x"})
        loop = asyncio.ensure_future(stage.executor.run())
        results = await asyncio.gather(*(stage.executor.perform(action) for _ in range(3)))
        await stage.host.tail.until(lambda state: not state.actions[action].is_open)
        loop.cancel()
        assert counter.done == ["send x"]
        assert sum(results) <= 1

    run(main())


def test_a_loop_and_a_caller_act_once_whoever_comes_first() -> None:
    """The same where the log is slow, so that the loop sees the caller's start before the caller does."""

    class Slow(MemoryEngine):
        async def read(self, *args: Any, **more: Any) -> Any:
            await asyncio.sleep(0.002)
            return await super().read(*args, **more)

    async def main() -> None:
        counter = Counter()
        stage = await Stage(SharedLog(Slow()), counter.tools()).open()
        loops = [asyncio.ensure_future(one) for one in (stage.executor.run(), stage.host.tail.follow())]
        for place in range(20):
            action = await committed(stage, "send", {"to": str(place)})
            await stage.executor.perform(action)
            await stage.host.tail.until(lambda state, action=action: not state.actions[action].is_open)  # type: ignore[misc]
        for loop in loops:
            loop.cancel()
        assert counter.done == [f"send {place}" for place in range(20)]

    run(main())


def test_a_start_that_lost_a_race_runs_nothing() -> None:
    """If another process's start stands first, this one does not act."""

    async def main() -> None:
        counter = Counter()
        log = memory_log()
        first = await Stage(log, counter.tools()).open()
        action = await committed(first, "send")
        second = await Stage(log, counter.tools()).open()
        done = await asyncio.gather(first.executor.perform(action), second.executor.perform(action))
        assert sorted(done) == [False, True]
        assert len(counter.done) == 1

    run(main())


def test_an_action_of_an_external_host_is_not_run_here() -> None:
    """An external executor acts itself; this one leaves it alone."""

    async def main() -> None:
        stage = await Stage(memory_log(), Counter().tools()).open()
        await committed(stage, "send", external=True)
        assert stage.executor.due(stage.host.state) == []

    run(main())


def test_what_is_paused_late_or_halted_is_not_started() -> None:
    """The executor's own question before a start: nothing starts on a log that it must not act on."""

    async def main() -> None:
        stage = await Stage(memory_log(), Counter().tools()).open()
        action = stage.host.state.actions[await committed(stage, "send")]
        state, me = stage.host.state, stage.host.incarnation
        assert executing.may_start(state, action, me, 0) == ""
        action.start_by_ms = 5
        assert executing.may_start(state, action, me, 5) == "it is too late to start"
        action.start_by_ms = 0
        state.halted = "Teleport"
        assert "does not understand: Teleport" in executing.may_start(state, action, me, 0)
        state.halted, state.broken = "", "position 1"
        assert "does not verify: position 1" in executing.may_start(state, action, me, 0)

    run(main())


# --- results ---


def test_a_result_is_written_although_the_log_was_away() -> None:
    """What happened is not forgotten: the append is repeated until the log is back, and counts once."""

    async def main() -> None:
        counter = Counter()
        engine = FaultyEngine(MemoryEngine())
        stage = await Stage(SharedLog(engine), counter.tools()).open()
        action = await committed(stage, "send")
        engine.change(Plan(script=("fine", "unavailable", "committed_then_error", "lost")))
        assert await stage.executor.perform(action)
        assert stage.host.state.actions[action].status == "executed"
        assert len(await payloads(stage.log, Result)) >= 1
        assert len(counter.done) == 1
        assert (await folded(stage.log)).conflicts == []

    run(main())


def test_a_result_that_cannot_be_written_leaves_a_doubt_that_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the log stays away, the executor gives up; its own process then settles the action by its effect."""
    monkeypatch.setattr(executor_module, "RESULT_RETRY_S_MAX", 0.0)

    async def main() -> None:
        counter = Counter()
        engine = FaultyEngine(MemoryEngine())
        stage = await Stage(SharedLog(engine), counter.tools()).open()
        action = await committed(stage, "put")
        engine.change(Plan(script=("fine", "unavailable", "unavailable")))
        with pytest.raises(Exception, match="away"):
            await stage.executor.perform(action)
        assert stage.executor.lost(stage.host.state.actions[action])

    run(main())


def test_a_doubt_wakes_whoever_settles_it_once_nothing_of_the_action_runs_here() -> None:
    """The result's own record comes too early for that: no further entry has to come first."""

    async def send() -> str:
        raise ToolError("the line went dead", kind="ambiguous")

    async def main() -> None:
        stage = await Stage(memory_log(), [simple(send)]).open()
        action = await committed(stage, "send")
        start = stage.host.about(Intent(run=1, agent="ann", tool="send"), Started(intent=action), "executor", "x")
        await stage.host.append([start])
        recoverer = Recoverer(stage.host, stage.tools, agents=["ann"], executor=stage.executor)
        due = asyncio.ensure_future(stage.host.tail.until(recoverer.due))
        stage.executor.running[action] = None
        await asyncio.sleep(0)
        assert not due.done()
        await stage.executor.execute(action, 1)
        await asyncio.sleep(0)
        assert due.done()

    run(main())


def test_what_was_started_and_never_begun_is_given_up_as_not_happened() -> None:
    """It is said once, with certainty, and nobody of this life begins it afterwards."""

    async def main() -> None:
        counter = Counter()
        log = memory_log()
        stage = await Stage(log, counter.tools()).open()
        action = await committed(stage, "send")
        start = stage.host.about(Intent(run=1, agent="ann", tool="send"), Started(intent=action), "executor", "x")
        await stage.host.append([start])
        await stage.executor.give_up_unbegun()
        await stage.executor.give_up_unbegun()
        await stage.executor.execute(action, 1)
        (said,) = await payloads(log, Result)
        assert said.error is not None and said.error.definite and not counter.done
        assert stage.executor.due(stage.host.state) == []

    run(main())


def test_the_results_of_reads_ride_and_others_do_not() -> None:
    """Only results of reads and idempotent actions may wait for the next record; all others are flushed at once."""

    async def main() -> None:
        counter = Counter()
        stage = await Stage(memory_log(), counter.tools()).open()
        for tool, rides in (("look", True), ("put", True), ("send", False)):
            action = await committed(stage, tool)
            start = stage.host.about(Intent(run=1, agent="ann", tool=tool), Started(intent=action), "executor", "x")
            await stage.host.append([start])
            await stage.executor.execute(action, 1, ride=True)
            assert bool(stage.host.riding) == rides
            assert not rides or not stage.executor.lost(stage.host.state.actions[action])
            await stage.host.flush()
            assert stage.host.state.actions[action].status == "executed"

    run(main())


def test_an_answer_longer_than_an_entry_arrives_whole() -> None:
    """A long answer travels beside the log and is given to the caller as it was (it arrived empty)."""

    async def main() -> None:
        log = memory_log()
        text = "word " * 6000
        answer = await agent(log, [text]).run("talk")
        assert answer.text == text
        (output,) = await payloads(log, Output)
        assert len(output.text) == len(text)

    run(main())


def test_an_answer_that_no_entry_can_hold_is_refused_and_said() -> None:
    """A value above the limit ends as a failure that the model is told of; it does not stop the agent."""

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        await stage.say(opened())
        run_id = await stage.say(Run(agent="ann"), Input(run=own(0), text="x"), role="client")
        intent = stage.proposer.intent(stage.host.state.runs[run_id], "answer", {"text": "x" * 300_000})
        small, blobs = stage.proposer.outsourced(intent)
        done = await stage.host.append([stage.host.about(intent, small, "driver", "ann")], blobs=blobs)
        await stage.say(Commit(intent=done.position), role="decider")
        await stage.executor.perform(done.position)
        state = stage.host.state.actions[done.position]
        assert state.status == "failed"
        assert state.error is not None
        assert "write the rest to a file" in state.error.message

    run(main())


def test_the_same_tool_runs_in_every_run() -> None:
    """What this life began is remembered for as long as it may matter, not for ever."""

    async def main() -> None:
        stage = await Stage(memory_log(), Counter().tools()).open()
        for _ in range(5):
            await stage.executor.perform(await committed(stage, "look"))
        stage.executor._began |= {(place, 1) for place in range(executor_module.BEGAN_KEPT_MAX + 1)}
        await stage.executor.perform(await committed(stage, "look"))
        assert len(stage.executor._began) == 1

    run(main())


def test_a_model_cannot_ask_for_a_literal_secret() -> None:
    """A secret's value in arguments is refused before anything is proposed, and not written down."""

    async def main() -> None:
        counter = Counter()
        log = memory_log()
        script = [call("send", to="s3cr3t-value"), "done"]
        await agent(log, script, tools=counter.tools(), secrets={"key": "s3cr3t-value"}).run("go")
        assert counter.done == []
        assert "send" not in await statuses(log)
        assert all(b"s3cr3t-value" not in msgspec.json.encode(entry) for entry in await entries(log))

    run(main())


def test_errors_of_the_log_are_known_apart() -> None:
    """The executor repeats what may have happened and what certainly did not, and nothing else."""
    assert not AppendUnknown.definite
    assert LogUnavailable.definite
