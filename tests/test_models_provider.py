"""The provider client against a real server: exact bytes on the wire, every failure, and no key anywhere else."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from logact import env
from logact.entry import Call, ToolSpec, Usage
from logact.errors import (
    ModelError,
    ModelNonsense,
    ModelRateLimited,
    ModelRefused,
    ModelUnavailable,
    SpecError,
)
from logact.models.base import Image, Message, Model, ModelAnswer, ModelRequest
from logact.models.names import model_from_environment, model_from_name
from logact.models.provider import BACKOFF_S, Price, ProviderModel, endpoint_of
from logact.models.recorded import RecordedModel, RecordingModel
from logact.models.scripted import ScriptedModel
from tests.fake_provider import Ask, FakeProvider, Say

KEY = "sk-secret-0123456789"
PROTOCOLS = ["openai", "anthropic"]
both = pytest.mark.parametrize("protocol", PROTOCOLS)

SCHEMA = {
    "type": "object",
    "title": "Read",
    "properties": {
        "path": {"$ref": "#/$defs/path"},
        "title": {"type": "string", "title": "Title", "default": ".", "pattern": "^a+$"},
    },
    "$defs": {"path": {"type": "string", "minLength": 1}},
    "required": ["path"],
    "additionalProperties": False,
}
TOOLS = (ToolSpec(name="read", description="Read a file.", parameters=SCHEMA), ToolSpec(name="now"))
PNG = Image(data=b"\x89PNG\x00\xff", media_type="image/png")
PNG64 = base64.b64encode(PNG.data).decode()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, proxy or address of the machine that runs the tests reaches them."""
    for prefix in ("LOGACT", "OPENAI", "ANTHROPIC"):
        for name in ("MODEL", "BASE_URL", "API_KEY", "AUTH_TOKEN", "CUSTOM_HEADERS"):
            monkeypatch.delenv(f"{prefix}_{name}", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGACT_API_KEY", KEY)


class Clock(env.Env):
    """Time that passes only in sleeps; they are written down. Jitter is at its middle."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def random(self) -> float:
        return 0.5


def model_at(provider: FakeProvider, protocol: str, **options: Any) -> ProviderModel:
    if protocol == "anthropic":
        return ProviderModel("anthropic:claude-x", base_url=provider.anthropic_url, **options)
    return ProviderModel("gpt-x", base_url=provider.openai_url, **options)


def ask(model: Model, request: ModelRequest, clock: Clock | None = None) -> ModelAnswer:
    async def main() -> ModelAnswer:
        env.use(clock or Clock())
        return await model.answer(request)

    return asyncio.run(main())


def user(text: str = "hi") -> ModelRequest:
    return ModelRequest(messages=(Message(role="user", text=text),))


def exchange(protocol: str, say: Say, request: ModelRequest | None = None, **options: Any) -> tuple[ModelAnswer, Any]:
    """One answer, and the body that the server received."""
    with FakeProvider([say]) as provider:
        answer = ask(model_at(provider, protocol, **options), request or user())
        return answer, provider.received[0].body


def failure(protocol: str, script: Sequence[Say], **options: Any) -> tuple[ModelError, int, Clock]:
    """The error that comes out, how many requests the server saw, and the clock with the pauses."""
    clock = Clock()
    with FakeProvider(script) as provider:
        with pytest.raises(ModelError) as caught:
            ask(model_at(provider, protocol, **options), user(), clock)
        return caught.value, len(provider.received), clock


# --- what goes out ------------------------------


CONVERSATION = ModelRequest(
    system="Be good.",
    messages=(
        Message(role="user", text="look", images=(PNG,)),
        Message(
            role="assistant",
            text="reading",
            calls=(
                Call(id="c1", tool="read", arguments={"path": "ä"}),
                Call(id="c2", tool="x", broken="b", raw="{oops"),
            ),
        ),
        Message(role="tool", text="content", call_id="c1", tool="read"),
        Message(role="tool", text="broken call", call_id="c2", tool="x", is_error=True),
        Message(role="user", text="and?"),
        Message(role="assistant", text="nothing"),
        Message(role="user", text="go on"),
    ),
    tools=TOOLS,
)


def test_the_conversation_on_openais_wire() -> None:
    """System prompt, images, calls, results by id, errors and tools arrive as the protocol has them."""
    _, body = exchange("openai", Say(text="ok"), CONVERSATION, max_tokens=77)
    (system, look, reading, first, second, *rest) = body["messages"]
    assert system == {"role": "system", "content": "Be good."}
    assert look["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG64}"}},
    ]
    assert reading["content"] == "reading"
    assert [call["id"] for call in reading["tool_calls"]] == ["c1", "c2"]
    assert reading["tool_calls"][0]["function"]["name"] == "read"
    assert json.loads(reading["tool_calls"][0]["function"]["arguments"]) == {"path": "ä"}
    # a broken call goes back as valid JSON: servers parse the arguments of earlier calls
    assert json.loads(reading["tool_calls"][1]["function"]["arguments"]) == {"broken_arguments": "{oops"}
    assert first == {"role": "tool", "tool_call_id": "c1", "content": "content"}
    assert (second["role"], second["tool_call_id"]) == ("tool", "c2")
    assert json.loads(second["content"]) == {"error": "broken call"}
    assert [(each["role"], each["content"]) for each in rest] == [
        ("user", "and?"),
        ("assistant", "nothing"),
        ("user", "go on"),
    ]
    assert body["tools"] == [
        {"type": "function", "function": {"name": "read", "description": "Read a file.", "parameters": SCHEMA}},
        {
            "type": "function",
            "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
        },
    ]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("gpt-x", 77, False)


def test_the_conversation_on_anthropics_wire() -> None:
    """The same conversation in Anthropic's form, with native error marks."""
    _, body = exchange("anthropic", Say(text="ok"), CONVERSATION)
    look, reading, results, nothing, go_on = body["messages"]
    assert body["system"] == "Be good."
    assert look["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG64}
    assert [block["type"] for block in reading["content"]] == ["text", "tool_use", "tool_use"]
    assert reading["content"][1] == {"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "ä"}}
    assert reading["content"][2]["input"] == {"broken_arguments": "{oops"}
    assert [(b.get("tool_use_id"), b["type"], b.get("is_error")) for b in results["content"]] == [
        ("c1", "tool_result", False),
        ("c2", "tool_result", True),
        (None, "text", None),
    ]
    assert [nothing["role"], go_on["role"]] == ["assistant", "user"]
    assert [tool["name"] for tool in body["tools"]] == ["read", "now"]
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert body["max_tokens"] > 0  # the protocol demands it


@both
def test_images_arrive_byte_for_byte(protocol: str) -> None:
    """Images of users and of tools' results both reach the model, in order, in a valid conversation."""
    shot = Image(data=bytes(range(256)), media_type="image/jpeg")
    request = ModelRequest(
        messages=(
            Message(role="user", text="", images=(PNG,)),
            Message(role="assistant", calls=(Call(id="c1", tool="a"), Call(id="c2", tool="b"))),
            Message(role="tool", text="", images=(shot,), call_id="c1", tool="a"),
            Message(role="tool", text="two", call_id="c2", tool="b"),
        )
    )
    answer, body = exchange(protocol, Say(echo_images=True), request)
    shown = [line.partition(",") for line in answer.text.splitlines()]
    assert [(kind, base64.b64decode(data)) for kind, _, data in shown] == [
        ("image/png", PNG.data),
        ("image/jpeg", shot.data),
    ]
    if protocol == "openai":  # results cannot hold images there, and nothing may stand between calls and results
        assert [each["role"] for each in body["messages"]] == ["user", "assistant", "tool", "tool", "user"]


@both
def test_a_structured_answer_is_asked_for_as_a_tool(protocol: str) -> None:
    """``answer_schema`` adds a tool named ``answer``, unless the driver offers one already."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    def tools(body: Any) -> list[tuple[str, Any]]:
        inner = [tool.get("function", tool) for tool in body["tools"]]
        return [(tool["name"], tool.get("parameters") or tool.get("input_schema")) for tool in inner]

    request = ModelRequest(messages=user().messages, tools=TOOLS[:1], answer_schema=schema)
    answer, body = exchange(protocol, Say(calls=[Ask("answer", {"n": 3})]), request)
    assert tools(body) == [("read", SCHEMA), ("answer", schema)]
    assert answer.calls[0].arguments == {"n": 3}
    own = ModelRequest(
        messages=user().messages, tools=(ToolSpec(name="answer", parameters=SCHEMA),), answer_schema=schema
    )
    _, body = exchange(protocol, Say(text="x"), own)
    assert tools(body) == [("answer", SCHEMA)]


@both
def test_the_limit_of_a_request_goes_before_the_models(protocol: str) -> None:
    """``max_output_tokens`` of the request wins over ``max_tokens`` of the model."""
    request = ModelRequest(messages=user().messages, max_output_tokens=5)
    _, body = exchange(protocol, Say(text="x"), request, max_tokens=9)
    assert body["max_tokens"] == 5


def test_openais_own_models_are_asked_in_its_newer_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's newer models refuse ``max_tokens``; compatible servers often know nothing else."""
    with FakeProvider() as provider:
        ask(ProviderModel("openai:gpt-4o", base_url=provider.openai_url, max_tokens=5), user())
        body = provider.received[0].body
    assert (body["max_completion_tokens"], body["model"], "max_tokens" in body) == (5, "gpt-4o", False)


# --- what comes back ------------------------------


@both
def test_text_calls_and_usage_come_back(protocol: str) -> None:
    """Several calls of one turn keep their order; cached tokens are part of the input; tools may be unknown."""
    say = Say(text="so", calls=[Ask("read", {"path": "ä"}), Ask("unheard", {}), Ask("now")], usage=(100, 7, 40))
    answer, _ = exchange(protocol, say)
    assert (answer.text, answer.stop) == ("so", "tool_calls")
    assert [(call.tool, call.arguments, call.broken) for call in answer.calls] == [
        ("read", {"path": "ä"}, ""),
        ("unheard", {}, ""),
        ("now", {}, ""),
    ]
    assert len({call.id for call in answer.calls}) == 3
    assert answer.usage == Usage(input_tokens=100, output_tokens=7, cached_tokens=40)
    assert answer.model.endswith("-x-2026")


@both
def test_price_turns_tokens_into_cost(protocol: str) -> None:
    """Cached input has its own price, and costs as other input where none is given; no price, no cost."""
    say = Say(text="x", usage=(1_000_000, 100_000, 400_000))
    dear, _ = exchange(protocol, say, price=Price(input_usd=2.0, output_usd=10.0, cached_usd=0.5))
    assert dear.usage.cost_usd == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)
    plain, _ = exchange(protocol, say, price=Price(input_usd=2.0, output_usd=10.0))
    assert plain.usage.cost_usd == pytest.approx(2 + 1)
    assert exchange(protocol, say)[0].usage.cost_usd is None


BROKEN = [
    ('{"path":', "not valid JSON"),
    ("oops", "not valid JSON"),
    ('{"path": NaN}', "not valid JSON"),
    ('{"path": "\\ud800"}', "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ("[1]", "not an object but list"),
    ("null", "not an object but NoneType"),
]


@both
@pytest.mark.parametrize(("raw", "reason"), BROKEN, ids=[raw[:12] for raw, _ in BROKEN])
def test_broken_arguments_become_a_broken_call(protocol: str, raw: str, reason: str) -> None:
    """The driver gets the call with its text and the reason, so that it can tell the model; nothing is raised."""
    answer, _ = exchange(protocol, Say(calls=[Ask("read", raw), Ask("read", {"path": "a"})]))
    broken, whole = answer.calls
    assert (broken.tool, broken.raw, broken.arguments) == ("read", raw, {})
    assert reason in broken.broken
    assert (whole.arguments, whole.broken, whole.raw) == ({"path": "a"}, "", "")


@both
def test_a_call_without_a_name_is_broken(protocol: str) -> None:
    """No tool can be meant by it, so it can be no action."""
    answer, _ = exchange(protocol, Say(calls=[Ask("", "{}")]))
    assert answer.calls[0].broken == "the call names no tool"


@both
def test_equal_ids_of_calls_are_told_apart(protocol: str) -> None:
    """Results are matched by id: a server that numbers badly must not mix them up."""
    answer, _ = exchange(protocol, Say(calls=[Ask("a", {}, "same"), Ask("b", {}, "same"), Ask("c", {}, "same-1")]))
    assert [call.tool for call in answer.calls] == ["a", "b", "c"]
    assert len({call.id for call in answer.calls}) == 3


@both
def test_a_cut_off_answer_says_length(protocol: str) -> None:
    """A text that hit the limit is given with ``length``."""
    answer, _ = exchange(protocol, Say(text="half", stop="length" if protocol == "openai" else "max_tokens"))
    assert (answer.text, answer.stop) == ("half", "length")


@both
def test_a_cut_off_call_is_never_a_whole_one(protocol: str) -> None:
    """Arguments that parse may still lack their end when the limit struck: the last call is marked broken."""
    say = Say(
        calls=[Ask("write", {"path": "a", "text": "all"}), Ask("write", {"path": "b"})],
        stop="length" if protocol == "openai" else "max_tokens",
    )
    whole, cut = exchange(protocol, say)[0].calls
    assert (whole.broken, cut.arguments) == ("", {})
    assert "cut off" in cut.broken
    assert json.loads(cut.raw) == {"path": "b"}


@both
def test_a_filtered_answer_says_filter(protocol: str) -> None:
    """A refusal by the provider's filter is an answer with its own stop reason, not an error."""
    answer, _ = exchange(protocol, Say(stop="content_filter" if protocol == "openai" else "refusal"))
    assert (answer.text, answer.calls, answer.stop) == ("", (), "filter")


@both
def test_unknown_stop_reasons_are_passed_on(protocol: str) -> None:
    """A word that no version of LogAct knows reaches the log as it is."""
    assert exchange(protocol, Say(text="x", stop="tired"))[0].stop == "tired"


@both
def test_text_that_utf8_cannot_hold_is_repaired(protocol: str) -> None:
    """Lone surrogates come through JSON, and would break the log that stores the answer."""
    assert exchange(protocol, Say(text="a\ud800b"))[0].text == "a\ufffdb"


@both
def test_a_very_long_answer_comes_whole(protocol: str) -> None:
    """Length alone is no reason to refuse, up to the byte limit."""
    assert exchange(protocol, Say(text="y" * 3_000_000))[0].text == "y" * 3_000_000


@both
def test_an_endless_answer_is_not_read(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the byte limit the answer is dropped, and not asked for again."""
    monkeypatch.setattr("logact.models.wire.ANSWER_BYTES_MAX", 100_000)
    error, seen, _ = failure(protocol, [Say(text="y" * 200_000)])
    assert isinstance(error, ModelNonsense)
    assert "more than 100000 bytes" in str(error)
    assert seen == 1


# --- failures ------------------------------


TRANSIENT = {
    "rate limit": (Say(status=429), ModelRateLimited),
    "server error": (Say(status=500), ModelUnavailable),
    "bad gateway": (Say(status=502, body=b"<html>", content_type="text/html"), ModelUnavailable),
    "out of service": (Say(status=503), ModelUnavailable),
    "overloaded": (Say(status=529), ModelUnavailable),
    "stall": (Say(stall=True), ModelUnavailable),
    "trickle": (Say(text="x", trickle=True), ModelUnavailable),
    "cut before the body": (Say(text="x", cut=0), ModelUnavailable),
    "cut in the body": (Say(text="x" * 1000, cut=500), ModelUnavailable),
    "half JSON": (Say(body=b'{"choices": ['), ModelNonsense),
    "no JSON": (Say(body=b"<html>busy</html>", content_type="text/html"), ModelNonsense),
    "no body": (Say(body=b""), ModelNonsense),
    "a list": (Say(body=b"[]"), ModelNonsense),
    "null": (Say(body=b"null"), ModelNonsense),
    "an empty object": (Say(body=b"{}"), ModelNonsense),
    "no choices": (
        Say(body=b'{"id":"i","object":"chat.completion","created":1,"model":"m","choices":[]}'),
        ModelNonsense,
    ),
    "not UTF-8": (Say(body=b'{"a": "\xff"}'), ModelNonsense),
    "an empty answer": (Say(), ModelNonsense),
    "an empty text": (Say(text=""), ModelNonsense),
}
transient = pytest.mark.parametrize("what", TRANSIENT)


@both
@transient
def test_transient_failures_end_after_the_attempts(protocol: str, what: str) -> None:
    """Each is asked again, as often as allowed and no more, and ends in its own error."""
    say, kind = TRANSIENT[what]
    slow = say.stall or say.trickle
    error, seen, clock = failure(protocol, [say], attempts=2, timeout_s=0.5 if slow else 60.0)
    assert type(error) is kind
    assert (seen, len(clock.slept)) == (2, 1)


@both
@transient
def test_transient_failures_are_survived(protocol: str, what: str) -> None:
    """One failure and then an answer is an answer."""
    say, _ = TRANSIENT[what]
    slow = say.stall or say.trickle
    with FakeProvider([say, Say(text="fine")]) as provider:
        assert ask(model_at(provider, protocol, timeout_s=2.0 if slow else 60.0), user()).text == "fine"
        assert len(provider.received) == 2
        assert provider.received[0].raw == provider.received[1].raw


def said(message: str, **more: str) -> bytes:
    return json.dumps({"type": "error", "error": {"message": message, **more}}).encode()


REFUSALS = {
    "wrong key": (Say(status=401), "refused the key"),
    "forbidden": (Say(status=403), "refused the key"),
    "no such model": (Say(status=404), "does not know this model"),
    "bad request": (Say(status=400, body=said("tools[0]: bad name")), "tools[0]: bad name"),
    "too large": (Say(status=413), "status 413"),
    "moved": (Say(status=302, body=b"", headers={"location": "http://127.0.0.1:1/"}), "has moved"),
    "no quota": (Say(status=402, body=said("pay first", type="billing_error")), "quota is used up"),
}


@both
@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_are_not_asked_again(protocol: str, what: str) -> None:
    """What cannot get better is told at once, with what the provider said."""
    say, shown = REFUSALS[what]
    error, seen, clock = failure(protocol, [say])
    assert type(error) is ModelRefused
    assert shown in str(error)
    assert (seen, clock.slept) == (1, [])


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (
            "openai",
            said("maximum context length is 8192", type="invalid_request_error", code="context_length_exceeded"),
        ),
        ("anthropic", said("prompt is too long: 210000 tokens > 200000 maximum", type="invalid_request_error")),
    ],
)
def test_a_context_that_is_too_long_is_named(protocol: str, body: bytes) -> None:
    """The message says what to do about it; asking again would not help."""
    error, seen, _ = failure(protocol, [Say(status=400, body=body)])
    assert type(error) is ModelRefused
    assert "too long for the model" in str(error)
    assert seen == 1


def test_a_closed_port_is_unavailable() -> None:
    """Nothing listens: asked again, then told with the address."""
    with FakeProvider() as provider:
        url = provider.openai_url
    clock = Clock()
    with pytest.raises(ModelUnavailable) as caught:
        ask(ProviderModel("m", base_url=url, attempts=3), user(), clock)
    assert "cannot be reached" in str(caught.value)
    assert url in str(caught.value)
    assert len(clock.slept) == 2


@both
def test_the_providers_own_delay_is_kept(protocol: str) -> None:
    """The pause after a 429 is at least what ``Retry-After`` says, and the last error carries it."""
    error, seen, clock = failure(protocol, [Say(status=429, headers={"retry-after": "7"})], attempts=3)
    assert isinstance(error, ModelRateLimited)
    assert error.retry_after_s == 7.0
    assert seen == 3
    assert clock.slept == [7 + BACKOFF_S / 4, 7 + BACKOFF_S / 2]


@both
@pytest.mark.parametrize("header", ["soon", "-5", "", "inf", "nan"])
def test_a_nonsense_delay_is_ignored(protocol: str, header: str) -> None:
    """The ordinary pause holds instead."""
    error, _, clock = failure(protocol, [Say(status=429, headers={"retry-after": header})], attempts=2)
    assert isinstance(error, ModelRateLimited)
    assert clock.slept == [BACKOFF_S * 1.25]


@both
def test_a_delay_beyond_the_total_is_not_waited_for(protocol: str) -> None:
    """Whoever asked is told at once how long it would take."""
    error, seen, clock = failure(protocol, [Say(status=429, headers={"retry-after": "3600"})], total_s=60.0)
    assert isinstance(error, ModelRateLimited)
    assert (error.retry_after_s, seen, clock.slept) == (3600.0, 1, [])


def test_pauses_double_and_have_jitter() -> None:
    """The pauses grow by two, each with up to half of itself added; the clock and the dice are the environment's."""
    _, seen, clock = failure("openai", [Say(status=500)], attempts=5)
    assert seen == 5
    assert clock.slept == [BACKOFF_S * 2**turn * 1.25 for turn in range(4)]


def test_the_total_time_limits_the_attempts() -> None:
    """However many attempts are allowed, none begins after the total time."""
    _, seen, clock = failure("openai", [Say(status=500)], attempts=1000, total_s=10.0)
    assert clock.now < 10.0
    assert seen == len(clock.slept) + 1 == 5


@both
def test_cancellation_is_not_swallowed(protocol: str) -> None:
    """A cancelled request ends at once, is not asked again, and leaves nothing open."""

    async def main(provider: FakeProvider) -> None:
        task = asyncio.ensure_future(model_at(provider, protocol).answer(user()))
        while not provider.received:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with FakeProvider([Say(stall=True)]) as provider:
        asyncio.run(main(provider))
        assert len(provider.received) == 1


@both
@pytest.mark.parametrize("role", ["user", "tool"])
def test_what_is_no_image_is_not_sent(protocol: str, role: Literal["user", "tool"]) -> None:
    """A mistake of the caller is refused at once, not taken for the provider's."""
    odd = Message(role=role, images=(Image(data=b"x", media_type="text/x-odd"),), call_id="c", tool="t")
    with FakeProvider() as provider:
        with pytest.raises(ModelRefused, match="Not an image"):
            ask(model_at(provider, protocol), ModelRequest(messages=(odd,)))
        assert provider.received == []


# --- keys ------------------------------


@both
def test_the_key_is_sent_in_a_header_only(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the address, not in the body, and in no log of any library at any level."""
    caplog.set_level(logging.DEBUG)
    with FakeProvider() as provider:
        ask(model_at(provider, protocol), user())
        received = provider.received[0]
    assert [name for name, value in received.headers.items() if KEY in value] in (["authorization"], ["x-api-key"])
    assert KEY not in received.path
    assert KEY.encode() not in received.raw
    assert caplog.records
    assert not any(KEY in record.getMessage() for record in caplog.records)


@both
def test_no_error_shows_the_key(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """Even a provider that repeats the key in its errors cannot put it into ours, into a traceback or into a log."""
    caplog.set_level(logging.DEBUG)
    script = [
        Say(status=401, body=said(f"Incorrect key {KEY}")),
        Say(status=400, body=KEY.encode(), content_type="text/plain"),
        Say(status=500, body=said(f"Bearer {KEY}")),
        Say(body=KEY.encode()),
        Say(body=json.dumps({"error": KEY}).encode()),
        Say(body=f'"{KEY}"'.encode(), content_type="text/plain"),
        Say(status=302, body=KEY.encode(), headers={"location": f"/{KEY}"}),
    ]
    for say in script:
        error, _, _ = failure(protocol, [say], attempts=1)
        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert KEY not in shown
        assert error.__context__ is None
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("logact")]
    assert not any(KEY in line for line in ours)


def test_the_object_does_not_hold_the_key() -> None:
    """It is read from the environment at each request, so it can be changed, and never lies in a dump."""
    with FakeProvider() as provider:
        model = model_at(provider, "openai")
        ask(model, user())
    assert KEY not in repr(model)
    assert KEY not in repr(vars(model))


def test_a_missing_key_is_told_before_anything_is_sent() -> None:
    """The message names the variable to set."""
    for name, variable in [("openai:gpt-4o", "OPENAI_API_KEY"), ("anthropic:claude-x", "ANTHROPIC_API_KEY")]:
        with pytest.raises(ModelRefused, match=f"{variable} is not set"):
            ask(ProviderModel(name), user())


def test_a_providers_key_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY and ANTHROPIC_API_KEY belong to their providers, not to any other base URL."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.delenv("LOGACT_API_KEY")
    with FakeProvider() as provider:
        for name in ("m", "openai:gpt-4o", "ollama:llama3:8b"):
            ask(ProviderModel(name, base_url=provider.openai_url), user())
        ask(ProviderModel("anthropic:claude-x", base_url=provider.anthropic_url), user())
        assert len(provider.received) == 4
        assert not any("theirs" in value for received in provider.received for value in received.headers.values())


def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """``api_key_env`` wins, and is required once it is given."""
    monkeypatch.setenv("OTHER_KEY", " other \n")
    with FakeProvider() as provider:
        ask(model_at(provider, "openai", api_key_env="OTHER_KEY"), user())
        assert provider.received[0].headers["authorization"] == "Bearer other"
        with pytest.raises(ModelRefused, match="MISSING_KEY is not set"):
            ask(model_at(provider, "openai", api_key_env="MISSING_KEY"), user())
        monkeypatch.setenv("OTHER_KEY", "ké\ny")
        with pytest.raises(ModelRefused, match="no key holds") as caught:
            ask(model_at(provider, "openai", api_key_env="OTHER_KEY"), user())
        assert "ké" not in str(caught.value)


# --- names ------------------------------


@pytest.mark.parametrize(
    ("name", "base_url", "found"),
    [
        ("openai:gpt-4o", None, ("openai", "gpt-4o", None, "OPENAI_API_KEY", True, False)),
        ("anthropic:claude-x", None, ("anthropic", "claude-x", None, "ANTHROPIC_API_KEY", True, False)),
        (
            "ollama:llama3:8b",
            None,
            ("openai", "llama3:8b", "http://localhost:11434/v1", "LOGACT_API_KEY", False, True),
        ),
        ("http://h:1/v1#a/b:c", None, ("openai", "a/b:c", "http://h:1/v1", "LOGACT_API_KEY", False, True)),
        ("qwen:7b", "https://h/v1", ("openai", "qwen:7b", "https://h/v1", "LOGACT_API_KEY", False, True)),
        ("openai:gpt-4o", "https://h/v1", ("openai", "gpt-4o", "https://h/v1", "LOGACT_API_KEY", False, False)),
    ],
)
def test_names_of_endpoints(name: str, base_url: str | None, found: tuple[object, ...]) -> None:
    """Each form means one endpoint, one protocol and one key."""
    point = endpoint_of(name, base_url=base_url)
    assert found == (
        point.protocol,
        point.model,
        point.base_url,
        point.key_env,
        point.key_required,
        point.classic_limit,
    )


@pytest.mark.parametrize(
    "name",
    ["", "gpt-4o", "openai:", "unheard:x", "http://h/v1", "http://h/v1#", "http:///v1#m", "http://u:p@h/v1#m",
     "recorded:", "recording:file", "recording:file:", "recording::openai:x", "recording:file:nothing", "scripted:"],
)  # fmt: skip
def test_names_that_mean_nothing_are_refused(name: str) -> None:
    """A specification error with the forms that exist, not a failure at the first request."""
    with pytest.raises(SpecError) as caught:
        model_from_name(name)
    assert "u:p" not in str(caught.value)


def test_names_of_all_kinds(tmp_path: Path) -> None:
    """Every kind of model has a name; a recording wraps any other."""
    script, recording = tmp_path / "s.json", tmp_path / "r"
    script.write_text('["hello"]')
    assert isinstance(model_from_name(f"scripted:{script}"), ScriptedModel)
    model = model_from_name(f"recording:{recording}:scripted:{script}")
    assert isinstance(model, RecordingModel)
    assert ask(model, user()).text == "hello"
    played = model_from_name(f"recorded:{recording}")
    assert isinstance(played, RecordedModel)
    assert ask(played, user()).text == "hello"
    provider = model_from_name("openai:gpt-4o", timeout_s=3.0)
    assert isinstance(provider, ProviderModel)
    assert (provider.name, provider.timeout_s) == ("openai:gpt-4o", 3.0)
    assert repr(provider) == "ProviderModel('openai:gpt-4o')"
    shown = model_from_name("anthropic:claude-x", base_url="https://h/?secret=1").name
    assert shown == "anthropic:claude-x@https://h/"


def test_a_model_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOGACT_MODEL, LOGACT_BASE_URL and LOGACT_API_KEY are all that is needed for a compatible endpoint."""
    assert model_from_environment() is None
    with FakeProvider([Say(text="from there")]) as provider:
        monkeypatch.setenv("LOGACT_BASE_URL", provider.openai_url)
        with pytest.raises(SpecError, match="LOGACT_MODEL is not"):
            model_from_environment()
        monkeypatch.setenv("LOGACT_MODEL", "llama3")
        model = model_from_environment(attempts=1)
        assert isinstance(model, ProviderModel)
        assert ask(model, user()).text == "from there"
        assert provider.received[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("LOGACT_BASE_URL")
    monkeypatch.setenv("LOGACT_MODEL", "openai:gpt-4o")
    monkeypatch.setenv("LOGACT_API_KEY", "")
    with pytest.raises(ModelRefused, match="OPENAI_API_KEY is not set"):
        ask(model_from_environment() or ScriptedModel([]), user())


@pytest.mark.parametrize("options", [{"attempts": 0}, {"timeout_s": 0.0}, {"total_s": -1.0}])
def test_limits_that_cannot_hold_are_refused(options: dict[str, Any]) -> None:
    """A model without an attempt or without time is a mistake in the specification."""
    with pytest.raises(SpecError):
        ProviderModel("openai:gpt-4o", **options)


# --- life of the client ------------------------------


@both
def test_connections_are_kept_within_a_block(protocol: str) -> None:
    """``async with model`` answers several times and leaves nothing open; the model works on after it."""

    async def main(provider: FakeProvider) -> list[str]:
        model = model_at(provider, protocol)
        async with model:
            texts = [(await model.answer(user(str(turn)))).text for turn in range(3)]
        return [*texts, (await model.answer(user())).text]

    with FakeProvider() as provider:
        assert asyncio.run(main(provider)) == ["ok"] * 4


@both
def test_one_model_answers_many_at_once(protocol: str) -> None:
    """Concurrent requests of many agents don't get each other's answers."""

    async def main(provider: FakeProvider) -> list[str]:
        model = model_at(provider, protocol)
        images = [Image(data=str(number).encode(), media_type="image/png") for number in range(20)]
        requests = [ModelRequest(messages=(Message(role="user", text="x", images=(image,)),)) for image in images]
        return [answer.text for answer in await asyncio.gather(*map(model.answer, requests))]

    with FakeProvider([Say(echo_images=True)]) as provider:
        texts = asyncio.run(main(provider))
    assert [base64.b64decode(text.partition(",")[2]) for text in texts] == [str(n).encode() for n in range(20)]


def test_the_extra_is_imported_on_the_first_request_only() -> None:
    """Names, models and the environment work without it; the first request says what to install."""
    code = """
import asyncio, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic_ai", "openai", "anthropic", "httpx2"}:
            raise ModuleNotFoundError("blocked", name=name)
sys.meta_path.insert(0, Blocked())
from logact.errors import MissingExtra
from logact.models.base import Message, ModelRequest
from logact.models.names import model_from_name
model = model_from_name("ollama:llama3")
try:
    asyncio.run(model.answer(ModelRequest(messages=(Message(role="user", text="x"),))))
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'logact[llm]'" in done.stdout
