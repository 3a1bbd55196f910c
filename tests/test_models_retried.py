"""What a provider failed at before it answered stands in the log with its answer, is shown, and is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from logact import LogActAgent, open_log
from logact.entry import Compaction, Inference, Notice, Retried
from logact.errors import ModelUnavailable
from logact.models.provider import BACKOFF_S
from logact.models.recorded import RecordedModel, RecordingModel
from tests.cli_help import here, lines_of, make
from tests.fake_provider import FakeProvider, Say
from tests.runtime.kit import payloads
from tests.test_models_provider import Clock, ask, model_at, user

HTML = Say(body=b"<html>nope")
MIXED = [Say(status=500), HTML, Say(status=500), Say(text="fine")]


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_what_was_survived_comes_with_the_answer(protocol: str) -> None:
    """By kind and status: how often, and how long was waited; nothing where nothing failed."""
    clock = Clock()
    with FakeProvider(MIXED) as provider:
        answer = ask(model_at(provider, protocol), user(), clock)
        assert ask(model_at(provider, protocol), user()).retried == ()
    first, second = answer.retried
    assert (first.kind, first.status, first.count) == ("model_unavailable", 500, 2)
    assert (second.kind, second.status, second.count) == ("model_nonsense", 0, 1)
    assert first.waited_ms == pytest.approx((clock.slept[0] + clock.slept[2]) * 1000)
    assert second.waited_ms == pytest.approx(clock.slept[1] * 1000)
    assert clock.slept[0] > BACKOFF_S


def test_the_log_holds_it_in_the_answers_own_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry and no further append; a failure for good has it in its notice."""
    monkeypatch.setenv("LOGACT_API_KEY", "k")
    monkeypatch.setattr("logact.models.provider.BACKOFF_S", 0.01)

    async def play(script: list[Say]) -> tuple[list[Inference], list[Notice], int]:
        log = open_log("memory:")
        with FakeProvider(script) as provider:
            agent = LogActAgent("ann", log, model=model_at(provider, "openai", attempts=3))
            try:
                await agent.run("say fine")
            except ModelUnavailable:
                pass
        return await payloads(log, Inference), await payloads(log, Notice), await log.tail()

    (said,), notices, tail = asyncio.run(play([Say(status=503), Say(text="fine")]))
    (plain,), _, plain_tail = asyncio.run(play([Say(text="fine")]))
    assert [(one.kind, one.status, one.count) for one in said.retried] == [("model_unavailable", 503, 1)]
    assert plain.retried == ()
    assert not notices
    assert tail == plain_tail
    assert b"retried" not in msgspec.json.encode(plain)
    none, (notice,), _ = asyncio.run(play([Say(status=503)]))
    assert not none
    assert notice.data["retried"][0]["count"] == 2


def test_older_entries_have_none() -> None:
    """The field is optional, also where a summary was written."""
    old = b'{"run":1,"turn":1,"text":"x"}'
    assert msgspec.json.decode(old, type=Inference).retried == ()
    assert msgspec.json.decode(b'{"run":1,"upto":1,"summary":"s"}', type=Compaction).retried == ()
    new = Inference(run=1, turn=1, retried=(Retried(kind="model_unavailable", status=500, waited_ms=1.5),))
    assert msgspec.json.decode(msgspec.json.encode(new), type=Inference) == new


def test_a_recording_asks_nobody_again(tmp_path: Path) -> None:
    """Who plays it back survives no errors, and says so."""
    with FakeProvider([Say(status=500), Say(text="fine")]) as provider:
        recording = RecordingModel(model_at(provider, "openai"), tmp_path / "r.jsonl")
        assert len(ask(recording, user()).retried) == 1
    assert ask(RecordedModel(tmp_path / "r.jsonl"), user()).retried == ()


def test_it_is_shown_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs, in the log's details and rows, and by ``debug`` as failures of the model."""
    monkeypatch.setenv("LOGACT_API_KEY", "k")
    monkeypatch.setattr("logact.models.provider.BACKOFF_S", 0.01)
    spec = make(tmp_path)
    with FakeProvider([Say(status=500), Say(status=500), Say(text="fine")]) as provider:
        ran = here("run", spec, "--model", f"{provider.openai_url}#m", "say fine")
        assert ran.stdout == "fine\n"
        assert "2 x model_unavailable (status 500)" in ran.stderr
    detail = here("log", "show", spec, "--kind", "Inference", "--detail").stdout
    assert "retried" in detail
    assert '"status":500' in detail
    assert "after 2 errors" in here("log", "show", spec, "--kind", "Inference").stdout
    found = lines_of(here("debug", spec, "--json").stdout)[0]["performance"]
    (error,) = found["errors"]
    assert (error["kind"], error["count"]) == ("model_unavailable 500", 2)
    assert found["models"][0]["failed"] == 2
