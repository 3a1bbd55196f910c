"""Recordings: what was answered is played back exactly, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from logact.entry import Call, ToolSpec, Usage
from logact.errors import ModelRefused, ModelUnavailable, SpecError, UsageError
from logact.models.base import Image, Message, Model, ModelAnswer, ModelRequest
from logact.models.recorded import RecordedModel, RecordingModel, request_digest
from logact.models.scripted import ScriptedModel, ScriptItem

ANSWER = ModelAnswer(
    text="näher",
    calls=(
        Call(id="c", tool="t", arguments={"a": [1, None, {"b": 2.5}]}),
        Call(id="d", tool="t", broken="b", raw="{"),
    ),
    stop="tool_calls",
    usage=Usage(input_tokens=1, output_tokens=2, cached_tokens=3, cost_usd=0.25),
    model="m",
)


def ask(model: Model, request: ModelRequest) -> ModelAnswer:
    return asyncio.run(model.answer(request))


def user(*texts: str, system: str = "") -> ModelRequest:
    return ModelRequest(system=system, messages=tuple(Message(role="user", text=text) for text in texts))


FULL = ModelRequest(
    system="be good",
    messages=(
        Message(role="user", text="look", images=(Image(data=b"\x00\xff", media_type="image/png"),)),
        Message(role="assistant", calls=ANSWER.calls),
        Message(role="tool", text="no", call_id="c", tool="t", is_error=True),
    ),
    tools=(ToolSpec(name="t", description="d", parameters={"type": "object"}, effect="read"),),
    answer_schema={"type": "object"},
    max_output_tokens=7,
)


def record(path: Path, exchanges: list[tuple[ModelRequest, ScriptItem]]) -> None:
    for request, reply in exchanges:
        given: ScriptItem = reply
        ask(RecordingModel(ScriptedModel([given] * 5), path), request)


def test_what_was_recorded_is_played_back_exactly(tmp_path: Path) -> None:
    """Every field of an answer survives: calls, broken calls, usage, stop, model."""
    path = tmp_path / "recording"
    given = ask(RecordingModel(ScriptedModel(lambda request: ANSWER), path), FULL)
    assert given == ANSWER
    assert ask(RecordedModel(path), FULL) == ANSWER


def test_a_line_holds_the_digest_the_request_and_the_answer(tmp_path: Path) -> None:
    """A recording can be read without LogAct, and lets a person see what was asked."""
    path = tmp_path / "recording"
    record(path, [(FULL, ANSWER)])
    (line,) = path.read_text().splitlines()
    exchange = json.loads(line)
    assert exchange["digest"] == request_digest(FULL)
    assert exchange["request"]["messages"][2] == {
        "role": "tool", "text": "no", "call_id": "c", "tool": "t", "is_error": True
    }  # fmt: skip
    assert exchange["answer"]["text"] == "näher"


def test_a_recording_is_for_its_owner_only(tmp_path: Path) -> None:
    """Conversations hold private things: the file is created with 0600 whatever the umask."""
    path = tmp_path / "recording"
    before = os.umask(0)
    try:
        record(path, [(user("a"), "b")])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_line_is_synced_before_the_answer_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash right after an answer cannot lose it."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    path = tmp_path / "recording"
    for number in range(3):
        record(path, [(user(str(number)), "x")])
        assert synced[-1] == path.stat().st_size
    assert len(synced) == 3


def test_equal_requests_get_their_answers_in_order(tmp_path: Path) -> None:
    """The order of the recording holds among equal requests, the last answer is repeated, others don't interfere."""
    path = tmp_path / "recording"
    record(path, [(user("a"), "1"), (user("b"), "other"), (user("a"), "2"), (user("a"), "3")])
    model = RecordedModel(path)
    assert [ask(model, user("a")).text for _ in range(2)] == ["1", "2"]
    assert ask(model, user("b")).text == "other"
    assert [ask(model, user("a")).text for _ in range(3)] == ["3", "3", "3"]


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    """The order of keys does not matter; any other difference does."""
    one = ModelRequest(answer_schema={"a": 1, "b": 2})
    assert request_digest(one) == request_digest(ModelRequest(answer_schema={"b": 2, "a": 1}))
    others = [user("x"), user("x", system="s"), user("x", "x"), ModelRequest(answer_schema={"a": 1}), ModelRequest()]
    assert len({request_digest(each) for each in [one, *others]}) == 6


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (user("first", "third"), 'messages[1].text: recorded "second", asked "third"'),
        (user("first"), 'messages[1]: recorded {"role":"user","text":"second"}, asked nothing'),
        (user("first", "second", system="new"), 'system: recorded nothing, asked "new"'),
        (user("first", "second", "more"), 'messages[2]: recorded nothing, asked {"role":"user","text":"more"}'),
    ],
)
def test_an_unrecorded_request_shows_the_nearest_difference(tmp_path: Path, asked: ModelRequest, shown: str) -> None:
    """The message names the place where the nearest recorded request differs, with both values."""
    path = tmp_path / "recording"
    record(path, [(user("something else", system="far"), "x"), (user("first", "second"), "x")])
    with pytest.raises(ModelRefused) as caught:
        ask(RecordedModel(path), asked)
    assert shown in str(caught.value)


def test_a_difference_deep_in_a_long_text_is_shown_where_it_is(tmp_path: Path) -> None:
    """Of a long prompt the part around the difference is shown, not its beginning."""
    path = tmp_path / "recording"
    record(path, [(user("same " * 1000 + "old end"), "x")])
    with pytest.raises(ModelRefused, match=r"recorded \"….*old end\", asked \"….*new end\""):
        ask(RecordedModel(path), user("same " * 1000 + "new end"))


def test_an_empty_recording_says_so(tmp_path: Path) -> None:
    """An empty file is a recording without answers, not an error of its own."""
    path = tmp_path / "recording"
    path.touch()
    with pytest.raises(ModelRefused, match="empty recording"):
        ask(RecordedModel(path), user("a"))


def test_a_torn_last_line_spoils_only_itself(tmp_path: Path) -> None:
    """Cut at every byte of its last line, a recording still plays the lines before it."""
    path = tmp_path / "recording"
    record(path, [(user("a"), "1")])
    first = path.stat().st_size
    record(path, [(user("b"), "2")])
    whole = path.read_bytes()
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        model = RecordedModel(path)
        assert ask(model, user("a")).text == "1"
        complete = size == len(whole) - 1  # only the line's end is missing
        assert model.torn == ([] if complete or size == first else [2])
        if not complete:
            with pytest.raises(ModelRefused):
                ask(model, user("b"))


def test_recording_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    """A further exchange is not glued to the torn line; a miss names the torn lines."""
    path = tmp_path / "recording"
    record(path, [(user("a"), "1"), (user("b"), "2")])
    path.write_bytes(path.read_bytes()[:-10])
    record(path, [(user("c"), "3")])
    model = RecordedModel(path)
    assert [ask(model, user(text)).text for text in "ac"] == ["1", "3"]
    with pytest.raises(ModelRefused, match="torn lines: 2"):
        ask(model, user("b"))


def test_failures_are_not_recorded(tmp_path: Path) -> None:
    """A recording holds what was answered; an error passes through and leaves no line."""
    path = tmp_path / "recording"
    model = RecordingModel(ScriptedModel([ModelUnavailable("down"), "up"]), path)
    with pytest.raises(ModelUnavailable):
        ask(model, user("a"))
    assert not path.exists()
    assert ask(model, user("a")).text == "up"
    assert len(path.read_bytes().splitlines()) == 1


def test_many_answers_at_once_are_whole_lines(tmp_path: Path) -> None:
    """Concurrent exchanges never mix within a line."""
    path = tmp_path / "recording"
    model = RecordingModel(ScriptedModel(lambda request: request.messages[0].text * 1000), path)

    async def main() -> None:
        await asyncio.gather(*(model.answer(user(str(number))) for number in range(50)))

    asyncio.run(main())
    recorded = RecordedModel(path)
    assert recorded.torn == []
    assert [ask(recorded, user(str(number))).text for number in range(50)] == [str(n) * 1000 for n in range(50)]


def test_a_recording_that_cannot_be_written_gives_no_answer(tmp_path: Path) -> None:
    """A recording with holes would fail later, far from the cause."""
    model = RecordingModel(ScriptedModel(["x"]), tmp_path / "missing" / "recording")
    with pytest.raises(UsageError, match="cannot be written"):
        ask(model, user("a"))


def test_a_missing_recording_is_named_at_once(tmp_path: Path) -> None:
    """Found when the model is built, before anything was asked."""
    with pytest.raises(SpecError, match="cannot be read"):
        RecordedModel(tmp_path / "missing")
