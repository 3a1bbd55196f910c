"""The agent's public calls: whole runs, messages, streams, the finer calls, and who plays an agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logact import Action, LogActAgent, SharedLog, ToolError, Vote, open_log
from logact.entry import Control, Entry, Fence, Inference, Input, Intent, Limits, Policy, Result, Run, Started
from logact.errors import (
    ActionFailed,
    ActionRejected,
    AgentBusy,
    AgentError,
    ArgumentError,
    Fenced,
    InDoubt,
    LimitReached,
    ModelUnavailable,
    RunFinished,
    RunStopped,
    SpecError,
    UsageError,
)
from logact.models.base import ModelAnswer, ModelRequest
from logact.models.scripted import call
from tests.runtime.kit import Counter, agent, entries, folded, memory_log, payloads, run, simple, statuses


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A log that lives for the test, on two engines."""
    return f"sqlite:///{tmp_path}/log.db" if request.param == "sqlite" else f"memory:{tmp_path.name}"


def test_run_sync_twice(url: str) -> None:
    """A run, and later another one, each by one call; the log has both."""
    counter = Counter()
    for place in range(2):
        one = agent(open_log(url), [call("send", to=str(place)), f"done {place}"], tools=counter.tools())
        answer = one.run_sync("go", new=True)
        assert (answer.text, answer.ok) == (f"done {place}", True)
    assert counter.done == ["send 0", "send 1"]


def test_a_finished_task_is_not_done_again(url: str) -> None:
    """The same task again says that it was finished; nothing happens."""
    counter = Counter()
    agent(open_log(url), [call("send"), "done"], tools=counter.tools()).run_sync("go")
    with pytest.raises(RunFinished, match="new=True"):
        agent(open_log(url), [call("send"), "done"], tools=counter.tools()).run_sync("go")
    assert len(counter.done) == 1


def test_a_dry_run_is_not_the_task_itself() -> None:
    """After a dry run the task can be done for real, and the other way round (it said that it was finished)."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        script = [[call("send", to="x"), call("look", at="y")], "done"]
        await agent(log, script, tools=counter.tools()).run("go", dry_run=True)
        assert counter.done == ["look y"]
        assert (await statuses(log))["send"] == "rejected"
        await agent(log, script, tools=counter.tools()).run("go")
        assert counter.done == ["look y", "send x", "look y"]

    run(main())


def test_an_unfinished_run_is_taken_up_where_it_stands(url: str) -> None:
    """After an error of the model the same call goes on: nothing is asked or done twice."""
    counter = Counter()
    with pytest.raises(ModelUnavailable):
        agent(open_log(url), [call("send"), ModelUnavailable("away")], tools=counter.tools()).run_sync("go")
    answer = agent(open_log(url), [call("send"), "done"], tools=counter.tools()).run_sync("go")
    assert answer.text == "done"
    assert len(counter.done) == 1


def test_any_unfinished_run_is_taken_up_without_a_task() -> None:
    """Without a task the unfinished run goes on; without one of those it says so."""

    async def main() -> None:
        log = memory_log()
        with pytest.raises(ModelUnavailable):
            await agent(log, [ModelUnavailable("away")]).run("go")
        assert (await agent(log, ["done"]).run()).text == "done"
        with pytest.raises(UsageError, match="no unfinished run"):
            await agent(log, ["done"]).run()
        with pytest.raises(UsageError, match="needs a task"):
            await agent(log, ["done"]).run("")

    run(main())


def test_one_key_is_one_run() -> None:
    """Two calls under one key are one run."""

    async def main() -> None:
        log = memory_log()
        first = await agent(log, ["one"]).run("go", key="k", new=True)
        second = await agent(log, ["two"]).run("go", key="k", new=True)
        assert (first.run, first.text) == (second.run, second.text)
        assert len(await payloads(log, Run)) == 1

    run(main())


def test_a_further_message_continues_the_conversation() -> None:
    """``send`` goes on with everything that was said."""

    async def main() -> None:
        log = memory_log()

        def script(request: ModelRequest) -> str:
            return " | ".join(message.text for message in request.messages if message.role == "user")

        await agent(log, script).run("one")
        answer = await agent(log, script).send("two")
        assert answer.text == "one | two"
        with pytest.raises(UsageError, match="no such run"):
            await agent(log, script).send("x", run=77)
        with pytest.raises(UsageError, match="needs a text"):
            await agent(log, script).send(" ")

    run(main())


def test_nobody_continues_anothers_run() -> None:
    """An agent does not drive a run of another agent (it did)."""

    async def main() -> None:
        log = memory_log()
        theirs = await agent(log, ["x"], name="bob").run("go")
        with pytest.raises(UsageError, match="no such run"):
            await agent(log, ["x"]).send("more", run=theirs.run)
        with pytest.raises(UsageError, match="no such run"):
            await agent(log, ["x"]).send("more")

    run(main())


def test_a_message_while_the_model_thinks_is_answered() -> None:
    """What the user says while the model is thinking gets an answer of its own (it was lost)."""

    async def main() -> None:
        log = memory_log()
        asked, said = asyncio.Event(), asyncio.Event()

        async def script(request: ModelRequest) -> str:
            texts = [message.text for message in request.messages if message.role == "user"]
            if len(texts) == 1:
                asked.set()
                await said.wait()
            return f"answer to {texts[-1]}"

        one = agent(log, script)
        async with one:
            task = asyncio.ensure_future(one.run("first"))
            await asked.wait()
            state = await one.state()
            await log.append(Input(run=max(state.runs), text="second"), role="client", name="ann")
            said.set()
            answer = await task
        assert answer.text == "answer to second"
        assert [inference.turn for inference in await payloads(log, Inference)] == [1, 2]

    run(main())


def test_a_message_amid_tools_is_answered_in_the_same_run() -> None:
    """What the user says while a tool runs is in the next request, after the results."""

    async def main() -> None:
        log = memory_log()
        began, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            began.set()
            await go_on.wait()
            return "slow result"

        seen: list[list[str]] = []

        def script(request: ModelRequest) -> Any:
            seen.append([f"{message.role}: {message.text}" for message in request.messages])
            return "done" if len(seen) > 1 else call("slow")

        one = agent(log, script, tools=[simple(slow)])
        async with one:
            task = asyncio.ensure_future(one.run("first"))
            await began.wait()
            (begun,) = (await one.state()).runs
            await log.append(Input(run=begun, text="hurry"), role="client", name="ann")
            go_on.set()
            await task
        assert seen[1] == ["user: first", "assistant: ", "tool: slow result", "user: hurry"]

    run(main())


def test_stream_gives_each_entry() -> None:
    """Entries come as they become visible; the output is among them, and what ends the run is raised."""

    async def main() -> None:
        log = memory_log()
        one = agent(log, [call("look", at="x"), "done"], tools=Counter().tools())
        kinds = [entry.kind async for entry in one.stream("go")]
        for kind in ("Run", "Input", "Inference", "Intent", "Commit", "Started", "Result", "Output"):
            assert kind in kinds
        with pytest.raises(RunFinished):
            _ = [entry async for entry in one.stream("go")]

    run(main())


def test_stream_works_inside_a_life() -> None:
    """The same within ``async with`` (it gave nothing)."""

    async def main() -> None:
        one = agent(memory_log(), ["done"])
        async with one:
            assert "Output" in [entry.kind async for entry in one.stream("go")]

    run(main())


def test_a_stream_may_be_left() -> None:
    """Whoever stops listening stops the run; it can be taken up again."""

    async def main() -> None:
        counter, log = Counter(), memory_log()

        async def script(request: ModelRequest) -> Any:
            if len(request.messages) > 1:
                await asyncio.sleep(60)
            return call("send")

        stream = agent(log, script, tools=counter.tools()).stream("go")
        async for entry in stream:
            if entry.kind == "Result":
                break
        await stream.aclose()  # type: ignore[attr-defined]
        assert (await agent(log, [call("send"), "done"], tools=counter.tools()).run("go")).text == "done"
        assert len(counter.done) == 1

    run(main())


def test_observers_see_entries_until_they_go() -> None:
    """An observer is called for each entry, also when it comes in the middle of a life, and not after it left."""

    async def main() -> None:
        one = agent(memory_log(), ["a", "b", "c"])
        seen: list[str] = []

        def look(state: Any, entry: Entry) -> None:
            seen.append(entry.kind)

        async with one:
            one.observe(look)
            await one.run("go")
            assert "Output" in seen
            one.unobserve(look)
            count = len(seen)
            await one.send("more")
            assert len(seen) == count

    run(main())


# --- the finer calls ---


def test_propose_validate_execute(url: str) -> None:
    """The three phases by hand: nothing runs before the third."""

    async def main() -> None:
        counter = Counter()
        async with open_log(url) as log, agent(log, tools=counter.tools(), voters=[lambda _: True]) as one:
            entry = await one.propose_action(Action(tool="send", arguments={"to": "x"}))
            assert (entry.status, entry.agent_id) == ("proposed", "ann")
            refused = await one.execute_action(entry)
            assert (refused.success, refused.error) == (False, "not validated: it is proposed")
            judged = await one.validate_action(entry)
            assert judged.approved
            assert counter.done == []
            done = await one.execute_action(entry)
            assert (done.success, done.result) == (True, "sent x")
            again = await one.execute_action(entry)
            assert (again.success, again.error) == (False, "not validated: it is executed")
        assert counter.done == ["send x"]

    run(main())


def test_a_rejected_action_says_who_and_why() -> None:
    """Validation gives the votes, the reason and the hint; ``act`` raises them."""

    async def main() -> None:
        counter = Counter()

        def never(_: Any) -> Vote:
            return Vote(approved=False, reason="no", hint="ask somebody")

        one = agent(memory_log(), tools=counter.tools(), voters=[never])
        async with one:
            judged = await one.validate_action(await one.propose_action(Action(tool="send")))
            assert (judged.approved, judged.reason, judged.hint) == (False, "never: no", "ask somebody")
            assert [vote.voter for vote in judged.votes] == ["never"]
            with pytest.raises(ActionRejected, match="never: no"):
                await one.act(Action(tool="send"))
        assert counter.done == []

    run(main())


def test_act_gives_the_value_or_raises() -> None:
    """One call for the three phases."""

    async def fails() -> str:
        raise ToolError("broken", definite=True)

    async def main() -> None:
        one = agent(memory_log(), tools=[*Counter().tools(), simple(fails)])
        assert await one.act(Action(tool="look", arguments={"at": "x"})) == "saw x"
        with pytest.raises(ActionFailed, match="broken"):
            await one.act(Action(tool="fails"))
        with pytest.raises(ArgumentError, match="no such tool"):
            await one.act(Action(tool="nothing"))
        with pytest.raises(ArgumentError):
            await one.act(Action(tool="look", arguments={"wrong": 1}))
        with pytest.raises(UsageError, match="no such run"):
            await one.propose_action(Action(tool="look"), run=77)

    run(main())


def test_acting_beside_a_run_acts_once_each() -> None:
    """A caller's own actions beside a run of the same life: each happens once (they happened twice)."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        script = [*[call("send", to=f"model {place}") for place in range(5)], "done"]
        one = agent(log, script, tools=counter.tools())
        async with one:
            mine = (one.act(Action(tool="send", arguments={"to": f"me {place}"})) for place in range(5))
            await asyncio.gather(one.run("go"), *mine)
        assert sorted(counter.done) == sorted(f"send {who} {place}" for who in ("me", "model") for place in range(5))
        assert len(await payloads(log, Started)) == len(await payloads(log, Result))

    run(main())


def test_a_bad_policy_is_refused_at_once() -> None:
    """A policy that cannot be used is a mistake of whoever set the agent up: nothing begins under an older one."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        await agent(log, ["x"]).run("opens everything")
        with pytest.raises(SpecError, match="cannot be used"):
            wrong = Policy(version=1, agent="ann", need={"all": ["nobody"]})
            await agent(log, [call("send"), "x"], tools=counter.tools(), policy=wrong).run("go")
        assert counter.done == []

    run(main())


def test_an_unreadable_policy_in_the_log_opens_nothing() -> None:
    """A policy entry that cannot be read changes nothing: only reads pass, as before it."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        for bad in (Policy(version=1, need={"all": ["nobody"]}), Policy(version=-1, need={"open": "x"})):
            await log.append(bad, role="operator", name="op")
        one = LogActAgent(
            "ann", log, model=agent(log, [[call("send"), call("look")], "x"]).model, tools=counter.tools()
        )
        await one.run("go")
        assert counter.done == ["look "]
        assert (await folded(log)).policy_at == {}

    run(main())


# --- structured answers, limits, control ---


class Sum(msgspec.Struct):
    """A form that an answer may have."""

    total: int


def test_a_structured_answer_is_given_as_asked() -> None:
    """The value has the type; one that does not fit goes back to the model."""

    async def main() -> None:
        log = memory_log()
        script = [call("answer", value={"total": "many"}), "no json", call("answer", value={"total": 3})]
        answer = await agent(log, script, answer_type=Sum).run("add")
        assert answer.value == Sum(3)
        broken = [one.calls[0].broken for one in await payloads(log, Inference)]
        assert "does not have the form" in broken[0]
        assert "through the tool 'answer'" in broken[1]

    run(main())


def test_a_text_that_is_the_json_is_taken() -> None:
    """A model that writes the JSON as text has answered."""
    answer = agent(memory_log(), ['```json\n{"total": 4}\n```'], answer_type=Sum).run_sync("add")
    assert answer.value == Sum(4)


def test_two_answers_in_one_turn_are_one() -> None:
    """The first answer that passes ends the run (two in one turn waited for each other for ever)."""

    async def main() -> None:
        log = memory_log()
        script = [[call("answer", value={"total": 1}), call("answer", value={"total": 2})]]
        answer = await agent(log, script, answer_type=Sum).run("add")
        assert answer.value == Sum(1)

    run(main())


def test_an_answer_goes_out_after_the_turns_other_calls() -> None:
    """An answer beside other calls waits until they have ended."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        script = [[call("answer", value={"total": 1}), call("send", to="x")]]
        answer = await agent(log, script, tools=counter.tools(), answer_type=Sum).run("add")
        assert (answer.value, counter.done) == (Sum(1), ["send x"])
        kinds = [entry.kind for entry in await entries(log)]
        assert kinds.index("Output") > kinds.index("Result")

    run(main())


def test_an_answer_that_a_voter_rejects_goes_back() -> None:
    """The answer is an action: a voter may refuse it, and the model tries another."""

    async def main() -> None:
        def polite(entry: Any) -> Vote:
            return Vote(approved="please" in entry.action.arguments.get("text", "please"), reason="say please")

        log = memory_log()
        answer = await agent(log, ["give", "give please"], voters=[polite]).run("ask")
        assert answer.text == "give please"
        assert len(await payloads(log, Intent)) == 2

    run(main())


@pytest.mark.parametrize(
    "limits", [Limits(turns=2), Limits(actions=2), Limits(tokens=1)], ids=["turns", "actions", "tokens"]
)
def test_a_limit_ends_a_run_with_an_answer(limits: Limits) -> None:
    """At a limit the run ends with an answer that says so; continuing it at the same limit says so too."""

    async def main() -> None:
        log = memory_log()
        counter = Counter()
        endless = agent(log, lambda _: call("look", at="x"), tools=counter.tools(), limits=limits)
        answer = await endless.run("go")
        assert not answer.ok
        assert "limit of" in answer.reason
        assert "I stopped" in answer.text
        with pytest.raises(LimitReached):
            await endless.send("go on")

    run(main())


def test_a_stopped_run_says_so() -> None:
    """A stop from outside ends the run of a waiting caller."""

    async def main() -> None:
        log = memory_log()
        began = asyncio.Event()

        async def script(request: ModelRequest) -> str:
            began.set()
            await asyncio.sleep(0.01)
            return "done"

        one = agent(log, script)
        task = asyncio.ensure_future(one.run("go"))
        await began.wait()
        await log.append(Control(verb="stop"), role="operator", name="op")
        with pytest.raises(RunStopped):
            await task
        with pytest.raises(RunStopped, match="No run can begin"):
            await agent(log, ["x"]).run("other")

    run(main())


def test_a_paused_run_waits_and_goes_on() -> None:
    """While paused nothing starts; after the resume everything goes on."""

    async def main() -> None:
        log = memory_log()
        counter = Counter()
        await log.append(Control(verb="pause"), role="operator", name="op")
        task = asyncio.ensure_future(agent(log, [call("send"), "done"], tools=counter.tools()).run("go"))
        await asyncio.sleep(0.05)
        assert counter.done == []
        await log.append(Control(verb="resume"), role="operator", name="op")
        assert (await task).text == "done"
        assert len(counter.done) == 1

    run(main())


# --- one player at a time ---


def test_two_lives_of_one_agent_at_once_are_refused() -> None:
    """Another process (or life) that plays the agent is named, and what to do about it."""

    async def main() -> None:
        log = memory_log()
        async with agent(log, ["x"]):
            with pytest.raises(AgentBusy, match="takeover"):
                await agent(log, ["y"]).run("go")
        assert (await agent(log, ["y"]).run("go")).text == "y"

    run(main())


def test_two_agents_of_different_names_share_a_log() -> None:
    """Agents of other names don't disturb each other."""

    async def main() -> None:
        log = memory_log()
        counter = Counter()
        both = (
            agent(log, [call("send", to=name), call("look"), name], name=name, tools=counter.tools())
            for name in ("ann", "bob", "cat")
        )
        answers = await asyncio.gather(*(one.run("go") for one in both))
        assert [answer.text for answer in answers] == ["ann", "bob", "cat"]
        assert sorted(counter.done)[3:] == ["send ann", "send bob", "send cat"]

    run(main())


def test_a_takeover_fences_the_old_life() -> None:
    """Whoever takes over goes on; the old life starts nothing any more, and is told so (it went on asking)."""

    async def main() -> None:
        log = memory_log()
        counter = Counter()
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: ModelRequest) -> Any:
            asked.set()
            await go_on.wait()
            return call("send", to="old")

        old = asyncio.ensure_future(agent(log, slow, tools=counter.tools()).run("go"))
        await asked.wait()
        new = agent(log, [call("send", to="new"), "done"], tools=counter.tools(), takeover=True)
        answer = await new.run("go")
        go_on.set()
        with pytest.raises(Fenced, match="took this agent over"):
            await old
        assert answer.text == "done"
        assert counter.done == ["send new"]
        assert [fence.epoch for fence in await payloads(log, Fence)] == [1, 2]

    run(main())


def test_a_cancelled_run_can_be_taken_up_in_the_same_life() -> None:
    """A run that was cancelled while a tool ran: the same life settles the action by its effect (it hung)."""

    async def main() -> None:
        log = memory_log()
        began = asyncio.Event()
        tries: list[int] = []

        async def slow() -> str:
            tries.append(1)
            began.set()
            if len(tries) == 1:
                await asyncio.sleep(60)
            return "ok"

        one = agent(log, [call("slow"), "done"], tools=[simple(slow, "idempotent")])
        async with one:
            task = asyncio.ensure_future(one.run("go"))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await one.run("go")).text == "done"
        assert len(tries) == 2

    run(main())


def test_a_cancelled_strict_action_is_a_doubt_in_the_same_life() -> None:
    """The same with an irreversible tool: nobody guesses, a person is asked."""

    async def main() -> None:
        log = memory_log()
        began = asyncio.Event()

        async def slow() -> str:
            began.set()
            await asyncio.sleep(60)
            return "ok"

        one = agent(log, [call("slow"), "done"], tools=[simple(slow)])
        async with one:
            task = asyncio.ensure_future(one.run("go"))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(InDoubt, match="in doubt"):
                await one.run("go")
        assert (await statuses(log))["slow"] == "in_doubt"

    run(main())


def test_recover_from_failure_settles_what_a_life_left() -> None:
    """Reads are started again, and the state says where the agent stands."""

    async def main() -> None:
        log = memory_log()
        counter = Counter()
        one = agent(log, tools=counter.tools())
        async with one:
            await one.validate_action(await one.propose_action(Action(tool="put", arguments={"to": "x"})))
        state = await agent(log, tools=counter.tools()).recover_from_failure()
        assert counter.done == ["put x"]
        assert state.open_actions == {}
        assert state.snapshot() == state.digest != ""

    run(main())


def test_an_agent_needs_a_log_and_a_name() -> None:
    """What cannot work is refused at once, with what to do."""
    with pytest.raises(UsageError, match="open_log"):
        LogActAgent("ann")
    with pytest.raises(UsageError, match="name"):
        LogActAgent("no spaces", memory_log())
    with pytest.raises(SpecError, match="answer"):
        LogActAgent("ann", memory_log(), tools=[simple(lambda: 1, name="answer")])
    with pytest.raises(UsageError, match="no model"):
        LogActAgent("ann", memory_log()).run_sync("go")
    assert issubclass(AgentBusy, AgentError)


def test_images_go_to_the_model() -> None:
    """Images given with a task reach the model as bytes; the log names their digests."""

    async def main() -> None:
        log = memory_log()
        seen: list[bytes] = []

        def script(request: ModelRequest) -> ModelAnswer:
            seen.extend(image.data for message in request.messages for image in message.images)
            return ModelAnswer(text="a dot")

        await agent(log, script).run("what is it", images=[(b"\x89PNG", "image/png")])
        assert seen == [b"\x89PNG"]
        (given,) = await payloads(log, Input)
        assert given.parts[0].blob is not None

    run(main())


def test_logs_given_by_position_or_name_are_the_same() -> None:
    """The log may be the second argument or ``log=``."""
    log = SharedLog(memory_log().engine)
    assert LogActAgent("ann", log).log is LogActAgent("ann", log=log).log is log
