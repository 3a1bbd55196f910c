"""The scripted model: a script is a pure function of the conversation, so it survives a restart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from logact.entry import Call, ToolSpec, Usage
from logact.env import Env, use
from logact.errors import ModelRefused, ModelUnavailable, SpecError
from logact.models.base import Image, Message, Model, ModelAnswer, ModelRequest
from logact.models.scripted import (
    REQUESTS_KEPT_MAX,
    ScriptedModel,
    ScriptItem,
    call,
    estimate_usage,
    last_results,
    say,
    scripted_from,
    turn_of,
)


def ask(model: Model, request: ModelRequest) -> ModelAnswer:
    return asyncio.run(model.answer(request))


def user(text: str = "go") -> ModelRequest:
    return ModelRequest(messages=(Message(role="user", text=text),))


def then(request: ModelRequest, answer: ModelAnswer, result: str = "done") -> ModelRequest:
    """The request that follows when each call of ``answer`` gave ``result``."""
    messages = [*request.messages, Message(role="assistant", text=answer.text, calls=answer.calls)]
    messages += [Message(role="tool", text=result, call_id=each.id, tool=each.tool) for each in answer.calls]
    return ModelRequest(system=request.system, messages=tuple(messages), tools=request.tools)


def test_a_list_is_answered_by_the_place_in_the_conversation() -> None:
    """A fresh model from the same list continues where the conversation stands, not at the list's beginning."""
    script: list[ScriptItem] = [call("read", path="a"), [call("read", path="b"), call("read", path="c")], "finished"]
    first = ask(ScriptedModel(script), user())
    second_request = then(user(), first)
    second = ask(ScriptedModel(script), second_request)
    third = ask(ScriptedModel(script), then(second_request, second))
    assert [each.arguments["path"] for each in (*first.calls, *second.calls)] == ["a", "b", "c"]
    assert (third.text, third.calls, third.stop) == ("finished", (), "stop")
    assert first.stop == second.stop == "tool_calls"


def test_the_same_request_gets_the_same_answer() -> None:
    """Asked twice with nothing in between, the model gives the same answer, ids of calls included."""
    model = ScriptedModel([call("read", path="a"), "end"])
    assert ask(model, user()) == ask(model, user()) == ask(ScriptedModel([call("read", path="a"), "end"]), user())
    assert model.asked == 2


def test_ids_of_calls_never_repeat_within_a_conversation() -> None:
    """Ids stay unique over turns, and also after a compaction made the conversation shorter."""
    model = ScriptedModel(lambda request: [call("a"), call("b")])
    request, seen = user(), list[str]()
    for _ in range(3):
        answer = ask(model, request)
        seen += [each.id for each in answer.calls]
        request = then(request, answer)
    assert len(set(seen)) == len(seen) == 6
    for kept in (3, 6):  # the last one or two turns
        compacted = ModelRequest(messages=(Message(role="user", text="summary"), *request.messages[-kept:]))
        used = {each.id for message in compacted.messages for each in message.calls}
        assert not {each.id for each in ask(model, compacted).calls} & used


def test_a_list_at_its_end_refuses() -> None:
    """A conversation that is longer than the script gets a definite error, not a silent stop."""
    with pytest.raises(ModelRefused, match="at its end"):
        ask(ScriptedModel([]), user())


def test_errors_of_a_list_are_raised_once_and_take_no_place() -> None:
    """An error before a reply is raised first; the next request gets the reply."""
    model = ScriptedModel([ModelUnavailable("down"), ModelUnavailable("still down"), "up"])
    for message in ("down", "still down"):
        with pytest.raises(ModelUnavailable, match=message):
            ask(model, user())
    assert ask(model, user()).text == "up"


def test_functions_may_be_sync_or_async_and_give_any_reply() -> None:
    """Every reply form of a function becomes a complete answer."""

    async def later(request: ModelRequest) -> Call:
        await asyncio.sleep(0)
        return call("tool", request=request.messages[-1].text)

    assert ask(ScriptedModel(later), user("hi")).calls[0].arguments == {"request": "hi"}
    assert ask(ScriptedModel(lambda request: "text"), user()).text == "text"
    assert ask(ScriptedModel(lambda request: say("said")), user()).text == "said"
    whole = ModelAnswer(text="t", stop="length", usage=Usage(input_tokens=7), model="other")
    assert ask(ScriptedModel(lambda request: whole), user()) == whole
    assert ask(ScriptedModel([lambda request: "from a list"]), user()).text == "from a list"


@pytest.mark.parametrize("nothing", [None, 3, [], ["text"], {}])
def test_a_script_that_gives_no_reply_says_so(nothing: object) -> None:
    """What is not a reply is a mistake in the script, named as such."""
    with pytest.raises(SpecError, match="gave no reply"):
        ask(ScriptedModel(lambda request: nothing), user())  # type: ignore[arg-type, return-value]


def test_one_reply_instead_of_a_list_is_refused() -> None:
    """A bare text would otherwise be taken for a list of one-letter replies."""
    with pytest.raises(SpecError, match="list of replies or a function"):
        ScriptedModel("hello")


def test_what_a_function_raises_passes_through() -> None:
    """A mistake in a script surfaces as itself, not dressed as a model's failure."""

    def wrong(request: ModelRequest) -> str:
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"):
        ask(ScriptedModel(wrong), user())


def test_usage_is_characters_by_four() -> None:
    """The stated rule: all characters of the request by four, rounded up, and 1000 tokens for an image."""
    request = ModelRequest(
        system="12345",
        messages=(
            Message(role="user", text="123", images=(Image(data=b"x", media_type="image/png"),)),
            Message(role="assistant", calls=(Call(id="i", tool="ab", arguments={"a": 1}),)),
        ),
        tools=(ToolSpec(name="ab", description="cd", parameters={}),),
    )
    # 5 + 3 + ("ab" + '{"a":1}') + ("ab" + "cd" + "{}") = 23 characters
    usage = estimate_usage(request, "12345", (Call(id="i", tool="t", raw="xyz"),))
    assert usage == Usage(input_tokens=6 + 1000, output_tokens=3)
    assert ask(ScriptedModel(["12345"]), user("12345")).usage == Usage(input_tokens=2, output_tokens=2)


def test_answers_are_marked_scripted() -> None:
    """No scripted answer can be mistaken for a provider's."""
    assert ask(ScriptedModel(["x"], name="mine"), user()).model == "scripted"
    assert ScriptedModel(["x"]).name == "scripted"


def test_the_delay_goes_through_the_environment() -> None:
    """A simulated clock sees the delay; no real time passes."""
    slept: list[float] = []

    class Fake(Env):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)

    async def main() -> None:
        use(Fake())
        await ScriptedModel(["x"], delay_s=5.0).answer(user())

    asyncio.run(main())
    assert slept == [5.0]


def test_requests_are_kept_within_a_limit() -> None:
    """Inspection of a long run needs no unbounded memory."""
    model = ScriptedModel(lambda request: "x")
    for number in range(REQUESTS_KEPT_MAX + 5):
        ask(model, user(str(number)))
    assert model.asked == REQUESTS_KEPT_MAX + 5
    assert [model.requests[0].messages[0].text, len(model.requests)] == ["5", REQUESTS_KEPT_MAX]


def test_helpers_read_the_conversation() -> None:
    """``turn_of`` counts answers; ``last_results`` gives the results of the latest turn only."""
    answer = ask(ScriptedModel([[call("a"), call("b")]]), user())
    request = then(user(), answer, "fine")
    assert turn_of(request) == 1
    assert [(each.tool, each.text) for each in last_results(request)] == [("a", "fine"), ("b", "fine")]
    assert last_results(user()) == ()


ITEMS = [
    {"call": "read", "arguments": {"path": "a"}},
    [{"call": "b"}, {"call": "c", "id": "own"}],
    {"error": "model_unavailable", "message": "down"},
    {"text": "cut", "stop": "length"},
    "end",
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_scripts_come_from_json_files(tmp_path: Path, suffix: str) -> None:
    """Both file forms give the same script, errors and explicit ids included."""
    path = tmp_path / f"script{suffix}"
    path.write_text(json.dumps(ITEMS) if suffix == ".json" else "\n\n".join(map(json.dumps, ITEMS)))
    model = scripted_from(str(path))
    first = ask(model, user())
    request = then(user(), first)
    second = ask(model, request)
    request = then(request, second)
    assert (first.calls[0].arguments, [each.id for each in second.calls]) == ({"path": "a"}, ["call-1-0", "own"])
    with pytest.raises(ModelUnavailable, match="down"):
        ask(model, request)
    third = ask(model, request)
    assert (third.text, third.stop) == ("cut", "length")
    assert ask(model, then(request, third)).text == "end"


def test_scripts_come_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function, a list or a model in a file or module is a script."""
    path = tmp_path / "my_script.py"
    path.write_text(
        "from logact.models.scripted import ScriptedModel\n"
        "def answer(request): return 'function'\n"
        "replies = ['list']\n"
        "model = ScriptedModel(['model'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for target, text in [
        (f"{path}", "function"),
        (f"{path}:replies", "list"),
        (f"{path}:model", "model"),
        ("my_script:answer", "function"),
    ]:
        assert ask(scripted_from(target), user()).text == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "holds no list"),
        ("[3]", "item 1: not a script item"),
        ('["a", {"call": 3}]', "item 2: not a call"),
        ('[{"call": "a", "arguments": 3}]', "arguments are an object"),
        ('[{"call": "a", "arguments": {}, "x": 1}]', "not a call"),
        ('[{"error": "unheard"}]', "no such error"),
        ("[[]]", "not a script item"),
    ],
)
def test_bad_script_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    """A script that cannot be used is refused before anything is asked, with the place of the mistake."""
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(SpecError, match=message):
        scripted_from(str(path))


@pytest.mark.parametrize(
    "target", ["", "nothing", "no_such_module_here:x", "json:no_such", "json:__name__", "gone.py"]
)
def test_bad_script_targets_are_named(target: str) -> None:
    """A target that holds no script is a specification error, never an import error."""
    with pytest.raises(SpecError):
        scripted_from(target)


def test_the_model_door_imports_no_provider() -> None:
    """Scripted agents work without the ``llm`` extra, and start fast."""
    heavy = {"pydantic", "pydantic_ai", "openai", "anthropic", "httpx2", "stamina"}
    code = f"import logact.models, sys; print([m for m in sys.modules if m.partition('.')[0] in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
