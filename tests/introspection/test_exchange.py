"""A log for other tools, two runs side by side, and the commands that show all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from anthropic.types import MessageParam, ToolParam
from benchmarks.introspection_plants import played
from google.protobuf import json_format
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from logact import HumanVoter, LogActAgent, RetryRecovery, ScriptedModel, open_log, tool
from logact.entry import Inference, Intent, Result, Vote
from logact.errors import UsageError, WaitingForApproval
from logact.introspection.compare import compare
from logact.introspection.conversing import NO_RESULT, conversations, in_anthropics_form
from logact.introspection.exporting import traces
from logact.introspection.importing import import_trajectories
from logact.introspection.trajectories import read_trajectories
from logact.models import call
from logact.runtime.forking import fork
from tests.cli_help import here, lines_of
from tests.runtime.kit import run


def test_conversations_are_whole() -> None:
    """Every call has exactly one answer, in order; refusals are told; and what is exported can be imported again."""

    async def work() -> None:
        log, _ = await played(2, "budget_leak")
        async with log:
            found = await conversations(log)
        assert len(found) == 1
        messages = found[0]["messages"]
        assert messages[0]["role"] == "user"
        assert messages[-1]["content"] == "All customers of late parcels have a mail."
        asked = [call["id"] for one in messages for call in one.get("tool_calls", [])]
        told = [one["tool_call_id"] for one in messages if one["role"] == "tool"]
        assert asked == told
        assert any(
            one["content"].startswith("REJECTED: guard: a stranger") for one in messages if one["role"] == "tool"
        )
        async with open_log("memory:") as second:
            data = "\n".join(json.dumps(one) for one in found).encode()
            await import_trajectories(second, read_trajectories(data))
            again = await conversations(second)
        assert [one["role"] for one in again[0]["messages"]] == [one["role"] for one in messages]

    run(work())


def test_conversations_are_what_evaluation_tools_read(tmp_path: Path) -> None:
    """In both forms they fit the providers' own types; a call that was tried again has one answer (had two)."""
    failed: list[str] = []

    @tool(effect="idempotent")
    def put(path: str) -> str:
        """Put."""
        failed.append(path)
        if len(failed) == 1:
            raise ConnectionError("away")
        return "x" * 100_000

    def no(entry: Any) -> bool:
        return bool(entry.action.arguments.get("path") != "b")

    async def work() -> list[dict[str, Any]]:
        async with open_log(f"sqlite:///{tmp_path}/ops.db") as log:
            script: list[Any] = [[call("put", path="a"), call("put", path="b")], call("nowhere"), "done"]
            quick = RetryRecovery(max_retries=2, base_delay=0.001)
            voters, model = [no], ScriptedModel(script)
            ann = LogActAgent("ann", log, voters, model=model, tools=[put], system="Be good.", recovery=quick)
            await ann.run("go")
            return await conversations(log)

    (found,) = run(work())
    assert [one["role"] for one in found["messages"]] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert found["messages"][3]["content"] == "x" * 100_000
    assert found["messages"][4]["content"].startswith("REJECTED")
    pydantic.TypeAdapter(list[ChatCompletionMessageParam]).validate_python(found["messages"])
    pydantic.TypeAdapter(list[ChatCompletionToolParam]).validate_python(found["tools"])
    other = in_anthropics_form(found)
    pydantic.TypeAdapter(list[MessageParam]).validate_python(other["messages"])
    pydantic.TypeAdapter(list[ToolParam]).validate_python(other["tools"])
    assert other["system"] == "Be good."
    assert [one["role"] for one in other["messages"]] == ["user", "assistant"] * 3
    one, two = (read_trajectories(json.dumps(form).encode()) for form in (found, other))
    assert [(turn.said, turn.text, turn.calls, turn.told) for turn in one[0].turns] == [
        (turn.said, turn.text, turn.calls, turn.told) for turn in two[0].turns
    ]
    assert one[0].system == two[0].system == "Be good." and one[0].left_out == two[0].left_out == 0
    shown = here("log", "export", f"{tmp_path}/ops.db", "--format", "anthropic").stdout
    assert [json.loads(line) for line in shown.splitlines()] == [other]


@pytest.mark.parametrize("form", ["openai", "anthropic"])
def test_a_failure_that_was_exported_is_one_when_it_is_read_back(form: str) -> None:
    """What failed and what was refused came back as executed, so its errors were gone from health and debug."""

    @tool(effect="idempotent")
    def put(path: str) -> str:
        """Put."""
        raise ConnectionError(f"{path} is away")

    def no(entry: Any) -> bool:
        return bool(entry.action.arguments.get("path") != "b")

    async def work() -> list[str]:
        async with open_log("memory:") as log, open_log("memory:") as other:
            script: list[Any] = [[call("put", path="a"), call("put", path="b")], "done"]
            await LogActAgent("ann", log, [no], model=ScriptedModel(script), tools=[put]).run("go")
            (found,) = await conversations(log)
            said = found if form == "openai" else in_anthropics_form(found)
            await import_trajectories(other, read_trajectories(json.dumps(said).encode()))
            results = [one.payload async for one in other.read() if isinstance(one.payload, Result)]
            return [f"{one.error.kind}: {one.error.message}" for one in results if one.error is not None]

    failed, refused = run(work())
    assert failed.endswith("a is away") and not failed.startswith("recorded_error")
    assert refused.startswith("rejected: rejected: ")


def test_a_conversation_in_which_nobody_says_anything_is_counted() -> None:
    """It is no run, and does not vanish without a word."""
    said = {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": "gone"}]}
    lines = [said, {"messages": []}, {"messages": [{"role": "system", "content": "be good"}]}]
    found = read_trajectories("\n".join(map(json.dumps, lines)).encode())
    assert [one.left_out for one in found] == [2]


def test_a_call_that_is_open_has_an_answer_that_says_so() -> None:
    """While a person is waited for, the conversation can be read all the same, in both forms."""

    async def work() -> None:
        async with open_log("memory:") as log:
            model = ScriptedModel([call("peek"), "done"])
            ann = LogActAgent("ann", log, [HumanVoter("boss")], model=model, tools=[tool(effect="read")(peek)])
            with pytest.raises(WaitingForApproval):
                await ann.run("go", wait=False)
            (found,) = await conversations(log)
            assert found["messages"][-1]["content"] == NO_RESULT
            (block,) = in_anthropics_form(found)["messages"][-1]["content"]
            assert block["type"] == "tool_result" and block["content"] == NO_RESULT

    def peek() -> str:
        """Peek."""
        return "seen"

    run(work())


def test_traces_are_what_collectors_read() -> None:
    """The export fits OpenTelemetry's own messages; spans lie in their parents; ids are the same each time."""

    async def work() -> None:
        log, _ = await played(2)
        async with log:
            entries = [one async for one in log.read()]
            first, second = await traces(log), await traces(log)
        assert first == second
        parsed = json_format.ParseDict(_in_base64(first), TracesData())
        spans = parsed.resource_spans[0].scope_spans[0].spans
        kinds = [Inference, Intent, Vote]
        assert len(spans) == 1 + sum(isinstance(one.payload, kind) for one in entries for kind in kinds)
        by_id = {one.span_id: one for one in spans}
        roots = [one for one in spans if not one.parent_span_id]
        assert [one.name for one in roots] == ["invoke_agent clerk"]
        assert all(one.parent_span_id in by_id for one in spans if one not in roots)
        assert all(len(one.span_id) == 8 and len(one.trace_id) == 16 for one in spans)
        assert all(one.end_time_unix_nano >= one.start_time_unix_nano > 10**18 for one in spans)
        chat = next(one for one in spans if one.name == "chat small")
        attributes = {one.key: one.value for one in chat.attributes}
        assert attributes["gen_ai.usage.input_tokens"].int_value > 0

    run(work())


def _in_base64(value: Any) -> Any:
    """Ids of OTLP JSON are hexadecimal; protobuf's own JSON has base64 in their place."""
    import base64

    if isinstance(value, list):
        return [_in_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        key: base64.b64encode(bytes.fromhex(one)).decode() if key in ids else _in_base64(one)
        for key, one in value.items()
    }


def test_two_forks_side_by_side() -> None:
    """Runs of two logs are aligned by their calls: what both did, what only one did, what it cost."""

    async def work() -> None:
        one, _ = await played(3)
        two, _ = await played(3, "repeated_reads")
        async with one, two:
            found = await compare(one, two)
            assert not found.same_actions
            assert found.same_answer
            extra = [pair for pair in found.pairs if not pair.a]
            assert [pair.tool for pair in extra] == ["read_order"] * 4
            assert all(pair.b for pair in found.pairs)
            assert found.b.tokens > found.a.tokens > 0
            assert found.b.usd is not None
            assert found.a.usd is not None
            assert found.b.usd > found.a.usd
            same = await compare(one, one)
            assert (same.same_actions, same.same_answer) == (True, True)
            async with open_log("memory:") as copy:
                await fork(one, await one.tail(), copy, name="ann")
                assert (await compare(one, copy)).same_actions
            with pytest.raises(UsageError, match="no such run"):
                await compare(one, two, a_run=5)

    run(work())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a healthy run, and one with a run that loops."""
    home = tmp_path_factory.mktemp("logs")

    async def work() -> None:
        for name, fault in (("well", ""), ("loop", "loop")):
            async with open_log(f"sqlite:///{home}/{name}.db") as log:
                await played(3, fault, log=log)

    run(work())
    return str(home)


def test_health_on_the_command_line(database: str) -> None:
    """The verdict is the first line, the exit code is for monitoring, and JSON says the same."""
    well = here("health", f"{database}/well.db", "--all")
    assert (well.returncode, well.stdout.splitlines()[0]) == (0, "healthy")
    loop = here("health", f"{database}/loop.db", "--all")
    assert (loop.returncode, loop.stdout.splitlines()[0]) == (21, "runaway")
    assert "loop" in loop.stdout
    told = lines_of(here("health", f"{database}/loop.db", "--all", "--json").stdout)[0]
    assert (told["verdict"], told["exit_code"], told["signals"][0]["code"]) == ("runaway", 21, "loop")
    assert here("health", f"{database}/nothing.db").returncode == 5


def test_debug_and_cost_on_the_command_line(database: str) -> None:
    """Where it went, in words and as JSON; sums by each of the four agree."""
    shown = here("debug", f"{database}/loop.db")
    assert shown.returncode == 0
    assert "write_mail" in shown.stdout
    told = lines_of(here("debug", f"{database}/loop.db", "--json").stdout)[0]
    assert told["performance"]["proposals"][0]["change"]["setting"] == "agent.limits.actions"
    sums = {
        by: lines_of(here("cost", f"{database}/loop.db", "--by", by, "--json").stdout)[0]
        for by in ("agent", "run", "model")
    }
    assert len({one["tokens"] for one in sums.values()}) == 1
    assert all(sum(row["tokens"] for row in one["rows"]) == one["tokens"] for one in sums.values())
    assert "small" in here("cost", f"{database}/loop.db", "--by", "model").stdout


def test_compare_and_export_on_the_command_line(database: str, tmp_path: Path) -> None:
    """Two logs side by side; exports in each form, which import reads back."""
    shown = here("compare", f"{database}/well.db", f"{database}/loop.db")
    assert shown.returncode == 1
    assert "The actions differ." in shown.stdout
    assert here("compare", f"{database}/well.db", f"{database}/well.db#2000").returncode == 0
    out = tmp_path / "talk.jsonl"
    assert here("log", "export", f"{database}/loop.db", "--format", "messages", "-o", out).returncode == 0
    assert len(lines_of(out.read_text())) == 1
    spans = lines_of(here("log", "export", f"{database}/loop.db", "--format", "otlp").stdout)[0]
    assert spans["resourceSpans"]
    assert here("log", "export", f"{database}/loop.db", "-o", out).returncode == 2
    done = here("log", "import", tmp_path / "past.db", out)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "Imported 1 run of imported")
    again = here("log", "import", tmp_path / "past.db", out, "--json")
    assert lines_of(again.stdout)[0]["known"] == 1
    assert here("health", tmp_path / "past.db", "--all").returncode == 21
    assert here("log", "import", tmp_path / "past.db", tmp_path / "none.json").returncode == 2


def test_ask_on_the_command_line(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question goes to the model that is named; without any the message says how to name one."""
    from tests.fake_provider import Ask, FakeProvider, Say

    def replies(request: Any) -> Say:
        number = request["messages"][-1]["content"].split()[1]
        claims = [{"text": "It wrote seven times.", "cites": [2000]}]
        return Say(calls=[Ask("reply", {"case": number, "answer": claims})])

    for name in ("LOGACT_MODEL", "LOGACT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert "needs a model" in here("ask", f"{database}/loop.db", "Why?").stderr
    with FakeProvider([replies]) as provider:
        model = f"{provider.openai_url}#m"
        done = here("ask", f"{database}/loop.db", "What went wrong?", "--model", model)
        assert (done.returncode, done.stdout) == (0, "It wrote seven times. [2000]\n")
        with FakeProvider([Say(text="no idea")]) as silly:
            assert here("ask", f"{database}/loop.db", "Why?", "--model", f"{silly.openai_url}#m").returncode == 6
    found = lines_of(here("log", "show", f"{database}/loop.db", "--kind", "Finding", "--json").stdout)
    assert [one["payload"]["code"] for one in found].count("answer") == 1


def test_a_schedule_on_the_command_line(tmp_path: Path) -> None:
    """--due checks when it is due, and says so when it is not; without [health] the error says what to add."""
    (tmp_path / "logact.toml").write_text('[agent]\nname = "ann"\n[health]\ncron = "* * * * *"\n')
    begun = here("health", tmp_path / "logact.toml", "--due")
    assert (begun.returncode, begun.stdout) == (0, "Nothing is due.\n")
    (tmp_path / "plain.toml").write_text('[agent]\nname = "ann"\n')
    assert "add [health]" in here("health", tmp_path / "plain.toml", "--due").stderr.replace("Add", "add")


def test_changes_are_applied_on_the_command_line(tmp_path: Path) -> None:
    """--apply has the specification's agent vote on what can be changed, and the file is changed."""
    (tmp_path / "logact.toml").write_text(
        '[agent]\nname = "clerk"\n[log]\nurl = "sqlite:///a.db"\n[[voters]]\nuse = "rules"\n'
        'rules = [{ name = "same-model", decision = "deny", arguments = { setting = "agent.model" } }]\n'
    )

    async def work() -> None:
        async with open_log(f"sqlite:///{tmp_path}/a.db") as log:
            await played(3, "loop", log=log)

    run(work())
    done = here("debug", tmp_path / "logact.toml", "--apply", "--json")
    assert done.returncode == 0, done.stderr
    assert [one["applied"] for one in lines_of(done.stdout)[0]["applied"]] == [True]
    assert "actions = " in (tmp_path / "logact.toml").read_text()
    assert here("debug", tmp_path / "a.db", "--apply").returncode == 2
