"""Proposals that can be applied: as actions that are voted on, in the file, with comments kept, and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logact import ActionInterceptor, ActionRule, LogActAgent, ScriptedModel, open_log
from logact.errors import SpecError
from logact.introspection.performance import Change, Proposal
from logact.spec import load_spec, parse_spec
from logact.spec_change import NAME, change_tool, changed, choose, propose
from tests.cli_help import here, lines_of
from tests.runtime.kit import run

TEXT = """\
# the shop's clerk
[agent]
name = "clerk"   # as in the ledger
context_tokens_max = 50000  # plenty

[agent.limits]
turns = 40

[[voters]]
use = "safety"
"""


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("agent.context_tokens_max", 16000, "context_tokens_max = 16000  # plenty"),
        ("agent.model", "openai:small", 'model = "openai:small"'),
        ("agent.limits.turns", 9, "turns = 9"),
        ("agent.limits.actions", 30, "actions = 30"),
        ("checkpoints.every", 500, "every = 500"),
        ("agent.reuse_reads_s", 600, "reuse_reads_s = 600"),
    ],
)
def test_one_setting_is_one_line(setting: str, value: Any, line: str) -> None:
    """A change touches its own line (or adds one); comments and the rest of the file stay."""
    made = changed(TEXT, Change(setting=setting, value=value))
    new = [one for one in made.splitlines() if one not in TEXT.splitlines()]
    assert line in new
    assert len(new) <= 2  # a new table brings its header
    assert "# the shop's clerk" in made
    found: Any = parse_spec(made)
    for step in setting.split("."):
        found = getattr(found, step)
    assert found == value


def test_tools_are_added_to_those_that_are_hidden() -> None:
    """A further change hides further tools, and shows none again."""
    once = changed(TEXT, Change(setting="agent.hide_tools", value=("look", "put")))
    assert parse_spec(once).agent.hide_tools == ["look", "put"]
    twice = changed(once, Change(setting="agent.hide_tools", value=("put", "send")))
    assert parse_spec(twice).agent.hide_tools == ["look", "put", "send"]
    assert [one for one in once.splitlines() if one not in TEXT.splitlines()] == ['hide_tools = ["look", "put"]']


@pytest.mark.parametrize("inside", ["turns = 40", "turns = 40, seconds = 9", "seconds = 9", "", " seconds = 9 "])
def test_inline_tables_too(inside: str) -> None:
    """Within an inline table one pair is set, and all comments stay."""
    text = f'# mine\n[agent]\nname = "clerk"\nlimits = {{ {inside} }}  # enough\n# [agent.limits] is another way\n'
    made = changed(text, Change(setting="agent.limits.turns", value=9))
    found = parse_spec(made).agent
    assert found.limits.turns == 9 and found.limits.seconds == (9 if "seconds" in inside else 0)
    assert [line for line in made.splitlines() if not line.startswith("limits")] == [
        line for line in text.splitlines() if not line.startswith("limits")
    ]
    assert "}  # enough" in made


@pytest.mark.parametrize("setting", ["agent.limits.actions", "agent.limits.turns", "agent.context_tokens_max"])
def test_every_comment_of_what_init_writes_stays(tmp_path: Path, setting: str) -> None:
    """The file that `logact init` wrote keeps all of its lines but one."""
    assert here("init", tmp_path).returncode == 0
    text = (tmp_path / "logact.toml").read_text()
    made = changed(text, Change(setting=setting, value=7))
    gone = [line for line in text.splitlines() if line not in made.splitlines()]
    assert len(gone) <= 1 and len(made.splitlines()) - len(text.splitlines()) <= 1


def test_a_rule_is_one_more_voter() -> None:
    """A rule that denies is added beside the voters that there are."""
    rule: dict[str, object] = {"name": "no-wipe", "decision": "deny", "tool": "wipe"}
    made = parse_spec(changed(TEXT, Change(rule=rule)))
    assert [(one.use, one.rules) for one in made.voters] == [("safety", []), ("rules", [rule])]
    again = parse_spec(changed(changed(TEXT, Change(rule=rule)), Change(rule={**rule, "name": "other"})))
    assert [one.name for one in again.voters] == ["", "", "rules-more"]


@pytest.mark.parametrize(
    "change",
    [
        Change(setting="policy.need", value="x"),
        Change(setting="agent.limits.turns", value=0),
        Change(setting="agent.limits.turns", value=1.5),
        Change(setting="agent.name", value="other"),
        Change(setting="agent.hide_tools", value=()),
        Change(setting="agent.hide_tools", value="look"),
        Change(setting="agent.reuse_reads_s", value=-1),
        Change(rule={"name": "open", "decision": "allow", "tool": "*"}),
        Change(rule={"name": "odd", "decision": "deny", "nonsense": 1}),
        Change(),
        Change(setting="agent.model", value="m", rule={"name": "x", "decision": "deny"}),
        Change(setting="agent.limits.turns", value=41),
        Change(setting="agent.limits.turns", value=40),
        Change(setting="agent.context_tokens_max", value=10**9),
        Change(setting="agent.model_timeout_s", value=10**6),
    ],
)
def test_nothing_is_loosened(change: Change) -> None:
    """What is not on the list, a rule that opens something, and more than the limit in force is refused."""
    with pytest.raises(SpecError):
        changed(TEXT, change)


def test_of_two_for_one_setting_the_tighter_is_proposed() -> None:
    """What loosens a limit, does nothing, or is less tight than another proposal is left out, with why."""
    spec = parse_spec(TEXT)

    def limit(title: str, setting: str, value: Any) -> Proposal:
        change = Change(setting=setting, value=value)
        return Proposal(kind="parameter", title=title, why="it loops", cites=(1000,), change=change)

    chosen, left = choose(
        [
            limit("wide", "agent.limits.actions", 30),
            limit("tight", "agent.limits.actions", 20),
            limit("more", "agent.limits.turns", 100),
            limit("hide", "agent.hide_tools", ("look",)),
            limit("hide more", "agent.hide_tools", ("look", "peek")),
        ],
        spec,
    )
    assert [one.title for one in chosen] == ["tight", "hide", "hide more"]
    assert {one.title: one.reason for one in left} == {
        "wide": "instead of it: agent.limits.actions = 20",
        "more": "agent.limits.turns is 40, and 100 would loosen it",
    }


def clerk(log: Any, path: Path, *rules: ActionRule) -> LogActAgent:
    voter = ActionInterceptor(list(rules) or [ActionRule("nothing-else", "deny", tool="wipe")])
    return LogActAgent("clerk", log, [voter], model=ScriptedModel(["done"]), tools=[change_tool(path)])


PROPOSALS = [
    Proposal(kind="parameter", title="Compact", why="it grows", cites=(1000,),
             change=Change(setting="agent.context_tokens_max", value=16000)),
    Proposal(kind="other", title="Think", why="it helps", cites=(1000,)),
    Proposal(kind="model", title="Cheaper", why="it costs", cites=(1000,),
             change=Change(setting="agent.model", value="openai:small")),
]  # fmt: skip


def test_a_proposal_is_voted_on_and_undone(tmp_path: Path) -> None:
    """Each change is an intent with votes; one that is refused changes nothing; undo puts the file back."""
    path = tmp_path / "logact.toml"
    path.write_text(TEXT)

    async def work() -> None:
        keep = ActionRule("keep-the-model", "deny", tool=NAME, arguments={"setting": "agent.model"})
        async with open_log("memory:") as log:
            agent = clerk(log, path, keep)
            done = await propose(agent, PROPOSALS, load_spec(path))
            assert [(one.title, one.applied) for one in done] == [("Compact", True), ("Cheaper", False)]
            assert "keep-the-model" in done[1].reason
            spec = load_spec(path)
            assert (spec.agent.context_tokens_max, spec.agent.model) == (16000, "")
            await agent.undo(done[0].action)
            assert path.read_text() == TEXT

    run(work())


def test_undo_leaves_what_others_wrote(tmp_path: Path) -> None:
    """A file that somebody edited since is not put back over their work."""
    path = tmp_path / "logact.toml"
    path.write_text(TEXT)

    async def work() -> None:
        async with open_log("memory:") as log:
            agent = clerk(log, path)
            done = await propose(agent, PROPOSALS[:1], load_spec(path))
            path.write_text(path.read_text() + "\n# mine\n")
            report = await agent.undo(done[0].action)
            assert "# mine" in path.read_text()
            assert "16000" in path.read_text()
            assert "changed since" in report.in_words()

    run(work())


def test_without_voters_nothing_is_changed(tmp_path: Path) -> None:
    """An agent without voters lets only reads pass, so it changes no specification either."""
    path = tmp_path / "logact.toml"
    path.write_text(TEXT)

    async def work() -> None:
        async with open_log("memory:") as log:
            agent = LogActAgent("clerk", log, model=ScriptedModel(["done"]), tools=[change_tool(path)])
            done = await propose(agent, PROPOSALS[:1], load_spec(path))
            assert not done[0].applied
        assert path.read_text() == TEXT

    run(work())


# --- from the log to the file ------------------------------

PARTS = """\
from logact import ScriptedModel, tool
from logact.entry import Usage
from logact.models import ModelAnswer, call


@tool(effect="read")
def look(path: str) -> str:
    \"\"\"Look.\"\"\"
    with open("looks", "a") as file:
        file.write(path + "\\n")
    return "plum"


@tool(effect="read")
def peek(path: str) -> str:
    \"\"\"Peek.\"\"\"
    raise ValueError("closed")


@tool(effect="read")
def unused(text: str) -> str:
    \"\"\"Nobody wants this.\"\"\"
    return text


def allow(entry):
    return True


def model(name, usd):
    script = [*(call("look", path="a") for _ in range(4)), *(call("peek", path=str(n)) for n in range(2)), "seen"]

    def answer(request):
        turn = sum(one.role == "assistant" for one in request.messages)
        used = Usage(input_tokens=100, output_tokens=9, cost_usd=109 * usd)
        said = script[turn]
        if isinstance(said, str):
            return ModelAnswer(text=said, usage=used, model=name)
        return ModelAnswer(calls=(said,), usage=used, model=name)

    return ScriptedModel(answer, name=f"openai:{name}")
"""

SPEC = """\
[agent]
name = "clerk"
model = "openai:big"
[log]
url = "sqlite:///ops.db"
[[tools]]
use = "parts.py:look"
[[tools]]
use = "parts.py:peek"
[[tools]]
use = "parts.py:unused"
[[voters]]
use = "parts.py:allow"
"""


def test_what_the_log_shows_is_applied_by_votes_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache, a model and a choice of tools: found in the log, voted on, made in the file, in force, taken back."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PARTS)
    path = tmp_path / "logact.toml"
    path.write_text(SPEC)
    from logact.spec import build_agent
    from logact.spec_parts import load_object

    async def worked(name: str, usd: float) -> None:
        agent = build_agent(load_spec(path), model=load_object("parts.py:model", load_spec(path))(name, usd))
        async with agent.log:
            for _ in range(3):
                await agent.run("look", new=True)

    run(worked("big", 9e-6))
    run(worked("little", 1e-6))
    done = lines_of(here("debug", path, "--apply", "--json").stdout)[0]
    assert [one["applied"] for one in done["applied"]] == [True] * 4, done["applied"]
    assert all(one["cites"] for one in done["performance"]["proposals"])
    after = load_spec(path).agent
    assert (after.model, after.reuse_reads_s) == ("openai:little", 600)
    assert sorted(after.hide_tools) == ["peek", "unused"]
    looks = (tmp_path / "looks").read_text().splitlines()
    run(worked("little", 1e-6))
    again = (tmp_path / "looks").read_text().splitlines()
    assert len(again) == len(looks) + 1, "one read of twelve: the changes name no file, so they may concern each"
    last = here("log", "show", path, "--json").stdout
    assert last.count('"change_specification"') >= 4
    once_more = here("debug", path, "--apply", "--json")
    assert once_more.returncode == 0, once_more.stderr
    assert not [one for one in lines_of(once_more.stdout)[0]["applied"] if one["applied"]], "all is in force already"
    for one in reversed([one for one in done["applied"] if one["applied"]]):
        assert here("undo", path, one["action"]).returncode == 0
    assert path.read_text() == SPEC


def test_a_file_is_changed_because_of_its_own_agent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another agent on the log wasted changes nothing here, and cannot be asked for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PARTS)
    for name in ("clerk", "other"):
        (tmp_path / f"{name}.toml").write_text(SPEC.replace('"clerk"', f'"{name}"'))
    from logact.spec import build_agent
    from logact.spec_parts import load_object

    async def worked() -> None:
        spec = load_spec(tmp_path / "clerk.toml")
        agent = build_agent(spec, model=load_object("parts.py:model", spec)("big", 9e-6))
        async with agent.log:
            for _ in range(3):
                await agent.run("look", new=True)

    run(worked())
    mine = here("debug", "other.toml", "--apply")
    assert "No proposal can be applied" in mine.stdout and mine.returncode == 0
    assert here("debug", "other.toml", "--apply", "--agent", "clerk").returncode == 2
    assert (tmp_path / "other.toml").read_text() == SPEC.replace('"clerk"', '"other"')
