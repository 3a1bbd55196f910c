"""Recorded conversations from elsewhere: read in their forms, marked, settled, unable to act, and there once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from logact import LogActAgent, open_log
from logact.entry import Inference, Intent, Notice, Result
from logact.errors import UsageError
from logact.introspection.history import history
from logact.introspection.importing import effect_of, import_trajectories
from logact.introspection.profile_scope import sums_of
from logact.introspection.profiler import folded
from logact.introspection.trajectories import read_trajectories
from tests.cli_help import fits, here, lines_of
from tests.runtime.kit import run

OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "How warm is it in Oslo?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
            {"id": "b", "type": "function", "function": {"name": "get_weather", "arguments": "{broken"}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "4 degrees"},
    {"role": "assistant", "content": "It is 4 degrees."},
]

AGENTDOJO = {
    "suite_name": "banking",
    "pipeline_name": "some-model",
    "user_task_id": "user_task_1",
    "utility": True,
    "messages": [
        {"role": "user", "content": "Pay the bill."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": "send_money", "args": {"amount": 5}, "id": None}],
        },
        {"role": "tool", "content": "", "tool_call_id": None, "error": "ValueError: no such account"},
        {"role": "assistant", "content": "It cannot be paid.", "tool_calls": None},
    ],
}

CLAUDE = [
    {
        "type": "user",
        "sessionId": "s",
        "timestamp": "2026-11-01T10:00:00.000Z",
        "message": {"role": "user", "content": "Fix the test."},
    },
    {
        "type": "assistant",
        "sessionId": "s",
        "timestamp": "2026-11-01T10:00:04.000Z",
        "message": {
            "id": "m1",
            "role": "assistant",
            "model": "claude-x",
            "content": [{"type": "text", "text": "I look."}],
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7},
        },
    },
    {
        "type": "assistant",
        "sessionId": "s",
        "timestamp": "2026-11-01T10:00:05.000Z",
        "message": {
            "id": "m1",
            "role": "assistant",
            "model": "claude-x",
            "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "pytest"}}],
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7},
        },
    },
    {
        "type": "user",
        "sessionId": "s",
        "timestamp": "2026-11-01T10:00:25.000Z",
        "message": {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": "1 failed"}],
        },
    },
    {
        "type": "assistant",
        "sessionId": "s",
        "timestamp": "2026-11-01T10:00:30.000Z",
        "message": {
            "id": "m2",
            "role": "assistant",
            "model": "claude-x",
            "content": [{"type": "tool_use", "id": "t2", "name": "Read", "input": {"file_path": "a.py"}}],
        },
    },
]


def bytes_of(form: str) -> bytes:
    if form == "openai":
        return json.dumps({"messages": OPENAI}).encode()
    if form == "agentdojo":
        return json.dumps(AGENTDOJO).encode()
    return "\n".join(json.dumps(line) for line in CLAUDE).encode()


async def imported(form: str, log: Any) -> Any:
    return await import_trajectories(log, read_trajectories(bytes_of(form)), source="a file")


@pytest.mark.parametrize(
    ("form", "tool", "effect", "status"),
    [
        ("openai", "get_weather", "read", "executed"),
        ("agentdojo", "send_money", "irreversible", "failed"),
        ("claude-code", "Bash", "irreversible", "failed"),
    ],
)
def test_each_form_is_found_out_and_read(form: str, tool: str, effect: str, status: str) -> None:
    """The form is found out, every entry takes effect, and the calls stand there with what came of them."""

    async def work() -> None:
        async with open_log("memory:") as log:
            report = await imported(form, log)
            told = await history(log)
            assert told.ineffective == {}
            first = next(one for _, one in sorted(told.state.actions.items()))
            assert (first.intent.tool, first.intent.effect, first.status) == (tool, effect, status)
            assert report.agents[0].startswith("imported:")
            notices = [one.payload async for one in log.read() if isinstance(one.payload, Notice)]
            assert notices[0].code == "imported"
            assert notices[0].data["format"] == form
            assert notices[0].data["source"] == "a file"

    run(work())


def test_nothing_of_it_can_act() -> None:
    """No imported action is open or startable, no run goes on, and no agent can take the name."""

    async def work() -> None:
        async with open_log("memory:") as log:
            for form in ("openai", "agentdojo", "claude-code"):
                await imported(form, log)
            told = await history(log)
            assert told.state.open_actions == {}
            assert told.state.startable() == []
            assert {one.status for one in told.state.runs.values()} <= {"finished", "stopped"}
            for name in {one.agent for one in told.state.runs.values()}:
                with pytest.raises(UsageError, match="name is not usable"):
                    LogActAgent(name, log)

    run(work())


def test_a_recording_without_its_end() -> None:
    """A call without a result is failed, and its effect unknown; a run without an answer is stopped."""

    async def work() -> None:
        async with open_log("memory:") as log:
            await imported("claude-code", log)
            told = await history(log)
            last = max(told.state.actions.items())[1]
            assert last.intent.tool == "Read"
            assert last.error is not None
            assert (last.error.kind, last.error.definite) == ("no_result", False)
            assert [one.status for one in told.state.runs.values()] == ["stopped"]

    run(work())


def test_times_and_tokens_of_a_recording() -> None:
    """Where a recording has times and tokens they are the log's; where not, tokens are estimated, which is said."""

    async def work() -> None:
        async with open_log("memory:") as log:
            report = await imported("claude-code", log)
            entries = [one async for one in log.read()]
            said = next(one for one in entries if isinstance(one.payload, Inference))
            assert isinstance(said.payload, Inference)
            assert said.payload.latency_ms == 4000
            assert (said.payload.usage.input_tokens, said.payload.usage.cached_tokens) == (100, 90)
            result = next(one.payload for one in entries if isinstance(one.payload, Result))
            assert result.duration_ms == 21_000
            assert said.time_ms == 1_793_527_204_000
            assert report.estimated  # the last answer has none
        async with open_log("memory:") as log:
            assert (await imported("openai", log)).estimated
            known = await folded(log)
            assert sums_of(known.profile).models["(unnamed)"].input_tokens > 0

    run(work())


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 90}}, (100, 90)),
        ({"input_tokens": 100, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 90}}, (100, 90)),
        ({"input_tokens": 4, "output_tokens": 7, "cache_read_input_tokens": 90}, (94, 90)),
        ({"input_tokens": 4, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 6}, (100, 90)),
        ({"prompt_tokens": "many", "prompt_tokens_details": 3}, (0, 0)),
    ],
)
def test_cached_tokens_are_part_of_the_input(usage: dict[str, Any], expected: tuple[int, int]) -> None:
    """Whether a provider counts what its cache had within the input or beside it, it counts once."""
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "usage": usage}]
    (found,) = read_trajectories(json.dumps(messages).encode())
    assert found.turns[1].usage is not None
    assert (found.turns[1].usage.input_tokens, found.turns[1].usage.cached_tokens) == expected


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    """The same recording stands in the log once, however often it is imported."""

    async def work() -> None:
        async with open_log(f"sqlite:///{tmp_path}/a.db") as log:
            first = await imported("openai", log)
            tail = await log.tail()
            again = await imported("openai", log)
            assert (again.runs, again.known, again.entries) == (first.runs, 1, 0)
            assert await log.tail() == tail

    run(work())


def test_beside_a_live_agent() -> None:
    """An import into a log in use leaves its agents, their policies and their runs as they were."""

    async def work() -> None:
        from tests.runtime.kit import agent

        async with open_log("memory:") as log:
            mine = agent(log, ["done"])
            await mine.run("a task")
            before = await mine.state()
            await imported("openai", log)
            after = await mine.state()
            assert after.runs == before.runs
            assert (await agent(log, ["again"]).run("another")).text == "again"

    run(work())


def test_broken_calls_stay_broken() -> None:
    """A call whose arguments are not JSON is shown as such, and is no action."""

    async def work() -> None:
        async with open_log("memory:") as log:
            await imported("openai", log)
            entries = [one.payload async for one in log.read()]
            said = next(one for one in entries if isinstance(one, Inference))
            assert said.calls[1].broken.startswith("the arguments are not valid JSON")
            assert len([one for one in entries if isinstance(one, Intent) and one.tool != "answer"]) == 1

    run(work())


@pytest.mark.parametrize("data", [b"", b"not json", b"[1, 2]", b'{"a": 1}', b'{"messages": []}', b"[" * 5000])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    """Whatever is no recording is an error of the user, never a traceback, and nothing is written."""
    with pytest.raises(UsageError):
        read_trajectories(data)


def test_effects_are_guessed_to_the_safe_side() -> None:
    """Names that say that they read are taken for reads; nothing else is."""
    reads = ("get_day", "search_emails", "Read", "Grep", "mcp__files__read_file", "list_files", "WebFetch")
    others = ("send_mail", "Bash", "Write", "getaway", "reading_room_delete", "update", "Edit", "")
    assert [effect_of(one) for one in reads] == ["read"] * len(reads)
    assert [effect_of(one) for one in others] == ["irreversible"] * len(others)


ODD: dict[str, list[dict[str, Any]]] = {
    "an answer to no call": [
        {"role": "user", "content": "hi"},
        {"role": "tool", "tool_call_id": "x", "content": "lost"},
        {"role": "assistant", "content": "hello"},
    ],
    "one answer too many": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
        {"role": "tool", "tool_call_id": "b", "content": "lost"},
    ],
    "a role that there is not": [
        {"role": "user", "content": "hi"},
        {"role": "narrator", "content": "lost"},
        {"role": "assistant", "content": "hello"},
    ],
}


@pytest.mark.parametrize("name", ODD)
def test_what_fits_nowhere_is_counted(name: str, tmp_path: Path) -> None:
    """Messages without a place are left out of the runs, and said to be; the rest is imported."""
    (tmp_path / "odd.json").write_text(json.dumps(ODD[name]))
    done = here("log", "import", tmp_path / "past.db", tmp_path / "odd.json")
    assert done.returncode == 0
    assert "Left out: 1 message or conversation that fitted nowhere" in done.stdout
    fits(done.stdout)


def test_a_torn_line_is_said(tmp_path: Path) -> None:
    """A transcript that breaks off within a line is read up to there, and the line is counted."""
    whole = "\n".join(json.dumps(one) for one in ODD["one answer too many"][:3])
    (tmp_path / "torn.jsonl").write_text(whole + '\n{"role": "assis')
    done = here("log", "import", tmp_path / "past.db", tmp_path / "torn.jsonl", "--json")
    assert lines_of(done.stdout)[0]["lost"] == 1


def test_one_bad_file_does_not_keep_the_others_out(tmp_path: Path) -> None:
    """Of many files those that are no recordings are named, the rest is imported; none at all is an error."""
    (tmp_path / "good.json").write_text(json.dumps(ODD["a role that there is not"]))
    bad = {"half.json": '[{"role": ', "empty.json": "", "other.json": '{"a": 1}', "bytes.json": "\x00\x01"}
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in ("half.json", "good.json", "empty.json", "other.json", "bytes.json", "none")]
    done = here("log", "import", tmp_path / "past.db", *files)
    assert done.returncode == 1
    assert done.stdout.startswith("Imported 1 run of ")
    assert done.stdout.count("left out") >= len(bad) + 1
    fits(done.stdout)
    again = here("log", "import", tmp_path / "past.db", files[0], files[2])
    assert (again.returncode, again.stdout) == (2, "")


def test_the_older_form_of_calls_and_parts_without_text() -> None:
    """``function_call`` is a call, and an image leaves a word where it was."""
    picture = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    messages = [
        {"role": "user", "content": picture},
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"at": 1}'}},
        {"role": "function", "name": "look", "content": "a cat"},
        {"role": "assistant", "content": "A cat."},
    ]
    (found,) = read_trajectories(json.dumps(messages).encode())
    assert found.left_out == 0
    assert found.turns[0].said == "what is this?\n[image_url]"
    assert [(one.tool, one.arguments) for one in found.turns[1].calls] == [("look", {"at": 1})]
    assert found.turns[1].told[0].text == "a cat"
