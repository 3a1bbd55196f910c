"""The driver: what the model says becomes entries, once; what it gets wrong goes back, and is never an action."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from logact import Voter, codec
from logact.entry import Abort, Compaction, Control, Inference, Intent, Notice, Output, Result, Usage
from logact.errors import (
    LogCorrupt,
    MissingExtra,
    ModelError,
    ModelNonsense,
    ModelRefused,
    ModelUnavailable,
    ReadOnlyIncarnation,
)
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.base import Message, ModelAnswer, ModelRequest
from logact.models.scripted import call
from logact.runtime import asker as asker_module
from logact.testing.faults import FaultyEngine, Plan
from logact.tools import ImageResult
from tests.runtime.kit import Counter, agent, entries, folded, memory_log, opened, payloads, run, simple, statuses


def watched(*replies: Any) -> tuple[Callable[[ModelRequest], Any], list[tuple[Message, ...]]]:
    """A script by turns, and what it was shown each time."""
    shown: list[tuple[Message, ...]] = []

    def script(request: ModelRequest) -> Any:
        shown.append(request.messages)
        turn = sum(message.role == "assistant" for message in request.messages)
        return replies[min(turn, len(replies) - 1)]

    return script, shown


def test_an_inference_is_stored_before_anything_follows() -> None:
    """The model's answer, with what it saw, stands in the log before its first intent."""

    async def main() -> None:
        log = memory_log()
        await agent(log, [call("look", at="x"), "done"], tools=Counter().tools(), system="Be kind.").run("go")
        kinds = [entry.kind for entry in await entries(log)]
        assert kinds.index("Inference") < kinds.index("Intent")
        first, second = await payloads(log, Inference)
        assert first.context[1:] == (min((await folded(log)).runs) + 1,)
        assert await log.get_blob(str(first.context[0])) == b"Be kind."
        assert second.base
        assert len(second.context) == 1

    run(main())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (call("dance"), "There is no tool 'dance'"),
        (call("lok", at="x"), "Did you mean 'look'?"),
        (call("look", nonsense=1), "The call was not made"),
        (call("look", at=[1]), "The call was not made"),
        (call("answer", value=1), "Write the final answer as plain text"),
    ],
)
def test_a_wrong_call_goes_back_and_is_no_action(wrong: Any, why: str) -> None:
    """Unknown tools and arguments that don't fit never become intents; the model is told what to do."""

    async def main() -> None:
        log, counter = memory_log(), Counter()
        script, shown = watched(wrong, "done")
        await agent(log, script, tools=counter.tools()).run("go")
        assert counter.done == []
        assert [intent.tool for intent in await payloads(log, Intent)] == ["answer"]
        assert shown[1][-1].role == "tool"
        assert shown[1][-1].is_error
        assert why in shown[1][-1].text

    run(main())


def test_arguments_that_nest_too_deep_go_back() -> None:
    """Arguments that no entry could hold are a broken call, not the end of the run (it could never go on)."""

    async def main() -> None:
        deep: Any = 1
        for _ in range(300):
            deep = [deep]
        log = memory_log()
        script, shown = watched(call("look", at=deep), "done")
        assert (await agent(log, script, tools=Counter().tools()).run("go")).text == "done"
        assert "cannot be stored" in shown[1][-1].text

    run(main())


def test_several_calls_of_a_turn_run_in_order_and_are_all_answered() -> None:
    """Each call has exactly one answer, in call order, whatever became of it."""

    async def fails() -> str:
        raise RuntimeError("broken")

    async def main() -> None:
        log, counter = memory_log(), Counter()
        calls = [call("look", at="1"), call("nothing"), call("send", to="2"), call("fails"), call("put", to="3")]
        script, shown = watched(calls, "done")
        await agent(log, script, tools=[*counter.tools(), simple(fails, "read")]).run("go")
        assert counter.done == ["look 1", "send 2", "put 3"]
        answers = [message for message in shown[1] if message.role == "tool"]
        assert sorted(message.call_id for message in answers) == [f"call-0-{place}" for place in range(5)]
        texts = {message.call_id: message.text for message in answers}
        assert texts["call-0-0"] == "saw 1"
        assert "FAILED (failed): RuntimeError: broken" in texts["call-0-3"]

    run(main())


def test_a_rejection_is_told_with_its_hint() -> None:
    """The model learns that the action did not run, who refused it, and what to do instead."""
    from logact import Vote

    def never(entry: Any) -> Vote:
        return Vote(approved=entry.action.tool == "answer", reason="not today", hint="Ask tomorrow.")

    async def main() -> None:
        script, shown = watched(call("send"), "done")
        await agent(memory_log(), script, tools=Counter().tools(), voters=[never]).run("go")
        text = shown[1][-1].text
        assert text.startswith("REJECTED before it ran")
        assert "never: not today" in text
        assert text.endswith("Ask tomorrow.")

    run(main())


def test_errors_of_the_model_are_noted_and_raised() -> None:
    """A model that cannot be reached ends the call with its error; the log says so, and the run can go on."""

    async def main() -> None:
        log = memory_log()
        with pytest.raises(ModelRefused, match="wrong key"):
            await agent(log, [ModelRefused("wrong key")]).run("go")
        assert [notice.code for notice in await payloads(log, Notice)] == ["model_refused"]
        assert (await agent(log, ["done"]).run("go")).text == "done"

    run(main())


@pytest.mark.parametrize("answer", [None, "text", 3], ids=["none", "text", "number"])
def test_a_model_that_returns_nonsense_is_asked_a_few_times(answer: Any) -> None:
    """What is no answer is asked again, a bounded number of times, each time noted."""

    class Nonsense:
        name = "nonsense"
        asked = 0

        async def answer(self, request: ModelRequest) -> ModelAnswer:
            self.asked += 1
            return answer  # type: ignore[no-any-return]

    async def main() -> None:
        log, model = memory_log(), Nonsense()
        one = agent(log)
        one.model = model
        with pytest.raises(ModelNonsense):
            await one.run("go")
        assert model.asked == asker_module.NONSENSE_MAX
        assert len(await payloads(log, Notice)) == asker_module.NONSENSE_MAX

    run(main())


def test_an_error_of_the_models_client_is_an_error_of_the_model() -> None:
    """Whatever a client raises reaches the caller as a ModelError."""

    async def main() -> None:
        def script(_: ModelRequest) -> str:
            raise KeyError("choices")

        with pytest.raises(ModelError, match="KeyError: 'choices'"):
            await agent(memory_log(), script).run("go")

    run(main())


def test_a_wrong_setup_is_said_as_such() -> None:
    """A missing extra or a useless script is the caller's to mend: raised as it is, at once (it was "nonsense")."""

    async def main() -> None:
        def script(_: ModelRequest) -> str:
            raise MissingExtra("it needs an extra", todo="run pip install 'logact[llm]'")

        log = memory_log()
        with pytest.raises(MissingExtra, match="pip install"):
            await agent(log, script).run("go")
        assert await payloads(log, Notice) == []

    run(main())


def test_a_model_that_hangs_times_out() -> None:
    """A model that never answers is unavailable after its time."""

    async def main() -> None:
        async def script(_: ModelRequest) -> str:
            await asyncio.sleep(3600)
            return "never"

        with pytest.raises(ModelUnavailable, match="did not answer within"):
            await agent(memory_log(), script, model_timeout_s=0.02).run("go")

    run(main())


def test_a_compaction_is_an_entry_and_the_conversation_goes_on() -> None:
    """Above its budget the model shortens the context; the summary stands in the log and in the next request."""

    async def main() -> None:
        log = memory_log()

        def script(request: ModelRequest) -> ModelAnswer:
            big = Usage(input_tokens=1000, output_tokens=1)
            if "shorten conversations" in request.system:
                return ModelAnswer(text="THE SUMMARY")
            if any("THE SUMMARY" in message.text for message in request.messages):
                return ModelAnswer(text=f"done after {len(request.messages)} messages", usage=big)
            turn = sum(message.role == "assistant" for message in request.messages)
            return ModelAnswer(calls=(call("look", at=str(turn)),), usage=big if turn > 4 else Usage(input_tokens=1))

        answer = await agent(log, script, tools=Counter().tools(), context_tokens_max=500).run("go")
        (compaction,) = await payloads(log, Compaction)
        assert compaction.summary == "THE SUMMARY"
        assert answer.text.startswith("done after")
        state = await folded(log)
        kinds = {entry.position: entry.kind for entry in await entries(log)}
        assert kinds[state.runs[answer.run].context[0]] == "Compaction"

    run(main())


def test_images_of_results_reach_the_model() -> None:
    """A tool's image is shown to the model as bytes, beside its text."""

    async def draw() -> ImageResult:
        return ImageResult(data=b"\x89PNG", media_type="image/png", text="a dot")

    async def main() -> None:
        script, shown = watched(call("draw"), "done")
        await agent(memory_log(), script, tools=[simple(draw, "read")]).run("go")
        (image,) = shown[1][-1].images
        assert (shown[1][-1].text, image.data, image.media_type) == ("a dot", b"\x89PNG", "image/png")

    run(main())


def test_large_calls_travel_beside_the_log() -> None:
    """Arguments of any size reach the tool whole."""

    async def main() -> None:
        counter = Counter()
        text = "x" * 300_000
        await agent(memory_log(), [call("send", to=text), "done"], tools=counter.tools()).run("go")
        assert counter.done == ["send " + text]

    run(main())


def test_a_text_beyond_any_entry_is_cut() -> None:
    """A model that writes without end is cut in the middle, and the run ends (it could never go on)."""

    async def main() -> None:
        answer = await agent(memory_log(), ["é" * 500_000]).run("go")
        assert len(answer.text) <= asker_module.TEXT_CHARS_MAX
        assert "characters left out" in answer.text

    run(main())


@pytest.mark.parametrize("placement", ["inline", "async"])
def test_a_dry_run_votes_and_does_not_act(placement: Any) -> None:
    """Everything is proposed and voted on; only reads run, and the run comes to its end."""

    class Yes(Voter):
        def check(self, entry: Any) -> Any:
            return True

    async def main() -> None:
        log, counter = memory_log(), Counter()
        voter = Yes("v")
        voter.placement = placement
        script = [[call("send", to="x"), call("look", at="y")], "done"]
        answer = await agent(log, script, tools=counter.tools(), voters=[voter]).run("go", dry_run=True)
        assert answer.text == "done"
        assert counter.done == ["look y"]
        assert await statuses(log) == {"send": "rejected", "look": "executed", "answer": "executed"}

    run(main())


def test_a_broken_log_is_not_acted_on() -> None:
    """A log that does not verify is read, and not acted on."""

    async def main() -> None:
        engine = MemoryEngine()
        log = SharedLog(engine)
        counter = Counter()
        await agent(log, ["x"]).run("one")
        place = next(place for place, (body, _) in enumerate(engine.records) if b'"text":"one"' in body)
        body, heads = engine.records[place]
        engine.records[place] = (body.replace(b'"text":"one"', b'"text":"two"'), heads)
        with pytest.raises(LogCorrupt, match="does not verify"):
            await agent(log, [call("send"), "x"], tools=counter.tools()).run("two")
        assert counter.done == []

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_a_log_that_fails_changes_nothing_about_what_happens(seed: int) -> None:
    """With appends lost, doubled and late, and reads failing, each effect happens once and the run ends."""

    async def main() -> None:
        plan = Plan(lost=0.1, committed_then_error=0.1, error_then_committed=0.1, unavailable=0.02, seed=seed)
        engine = FaultyEngine(MemoryEngine(), plan)
        log, counter = SharedLog(engine), Counter()
        script = [[call("send", to="1"), call("look", at="2")], call("put", to="3"), "done"]
        for _ in range(20):
            try:
                answer = await agent(log, script, tools=counter.tools(), takeover=True).run("go")
            except Exception:
                continue
            break
        engine.change(Plan())
        assert answer.text == "done"
        assert counter.done.count("send 1") == 1
        state = await folded(log)
        assert state.broken == ""
        assert state.conflicts == []
        assert len(await payloads(log, Output)) >= 1
        assert await payloads(log, Abort) == []
        assert len(await payloads(log, Result)) >= 4

    run(main())


def test_a_log_that_is_not_understood_is_not_acted_on() -> None:
    """A critical entry of an unknown kind: this version may read, not act, and says so."""

    async def main() -> None:
        log, counter = memory_log(), Counter()
        await log.append(Control(verb="resume"), role="operator", name="op")
        body, heads = log.engine.records[0]  # type: ignore[attr-defined]
        raw = msgspec.json.decode(body)
        raw["head"]["entries"][0]["kind"] = "Teleport"
        raw["hash"] = codec.digest(msgspec.json.encode(raw["head"]))
        log.engine.records[0] = (msgspec.json.encode(raw), heads)  # type: ignore[attr-defined]
        with pytest.raises(ReadOnlyIncarnation, match="Teleport version 1"):
            await agent(log, [call("send"), "x"], tools=counter.tools()).run("go")
        assert counter.done == []

    run(main())


def test_two_policies_make_two_kinds_of_agents() -> None:
    """An agent's own policy does not open another agent's actions."""

    async def main() -> None:
        log, counter = memory_log(), Counter()
        await agent(log, ["x"], name="ann", policy=opened("ann")).run("go")
        await agent(log, [call("send"), "x"], name="bob", voters=[], tools=counter.tools()).run("go")
        assert counter.done == []

    run(main())
