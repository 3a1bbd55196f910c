"""Proposals that can be applied: as actions that are voted on, in the file, with comments kept, and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logact import ActionInterceptor, ActionRule, LogActAgent, ScriptedModel, open_log
from logact.errors import SpecError
from logact.introspection.performance import Change, Proposal
from logact.spec import load_spec, parse_spec
from logact.spec_change import NAME, change_tool, changed, propose
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


def test_inline_tables_too() -> None:
    """Where a line cannot be edited, the file is written anew with the same meaning."""
    text = '[agent]\nname = "clerk"\nlimits = { turns = 40 }\n'
    made = parse_spec(changed(text, Change(setting="agent.limits.turns", value=9)))
    assert made.agent.limits.turns == 9
    assert made.agent.name == "clerk"


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
        Change(rule={"name": "open", "decision": "allow", "tool": "*"}),
        Change(rule={"name": "odd", "decision": "deny", "nonsense": 1}),
        Change(),
        Change(setting="agent.model", value="m", rule={"name": "x", "decision": "deny"}),
    ],
)
def test_nothing_is_loosened(change: Change) -> None:
    """Whatever is not on the list of settings, or is a rule that opens something, is refused."""
    with pytest.raises(SpecError):
        changed(TEXT, change)


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
            done = await propose(agent, PROPOSALS)
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
            done = await propose(agent, PROPOSALS[:1])
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
            done = await propose(agent, PROPOSALS[:1])
            assert not done[0].applied
        assert path.read_text() == TEXT

    run(work())
