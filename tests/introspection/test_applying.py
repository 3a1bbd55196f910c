"""What `logact debug --apply` may do to a file: tighten it, once, for its own agent's sake; comments are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.cli.init import TEMPLATE
from logact.cli.introspect_lines import debug_lines
from logact.errors import SpecError
from logact.introspection.agentic import AgenticIntrospection, Debugged
from logact.introspection.asking import there
from logact.introspection.performance import Change, Performance, Proposal
from logact.models import call
from logact.models.scripted import turn_of
from logact.spec import load_spec, parse_spec
from logact.spec_change import change_tool, changed, propose
from tests.cli_help import here, lines_of
from tests.runtime.kit import memory_log, run

HELD = """\
[agent]
name = "ann"
hide_tools = ["look"]
reuse_reads_s = 30
context_tokens_max = 8000
model = "openai:small"
limits = { actions = 15, tokens = 9000 }
[[voters]]
use = "rules"
rules = [{ name = "no-wipe", decision = "deny", tool = "wipe" }]
"""


@tool(effect="read")
def look(shelf: int) -> str:
    """Look at a shelf."""
    return "plum jam"


def looping(name: str, log: Any, turns: int) -> LogActAgent:
    model = ScriptedModel(lambda request: call("look", shelf=7) if turn_of(request) < turns else "done")
    return LogActAgent(name, log, model=model, tools=[look])


def test_two_loops_are_one_limit() -> None:
    """Loops of different length ask for one limit, the tighter, which cites both (30 and 20 were proposed)."""

    async def work() -> None:
        async with open_log("memory:") as log:
            for turns in (15, 8):
                await looping("ann", log, turns).run(f"task {turns}", new=True)
            found = (await AgenticIntrospection().debug(log)).performance
            limits = [one for one in found.proposals if one.change and one.change.setting == "agent.limits.actions"]
            assert [one.change.value for one in limits if one.change] == [20]
            runs = {one.run: set(one.cites) for one in found.signals if one.code == "loop"}
            assert len(runs) == 2 and all(cites & set(limits[0].cites) for cites in runs.values())

    run(work())


def test_only_its_own_agent_counts(tmp_path: Path) -> None:
    """Another agent's waste in the same log changes nothing (ann's file was changed by what bob had done)."""
    for name in ("ann", "bob"):
        (tmp_path / f"{name}.toml").write_text(
            f'[agent]\nname = "{name}"\n[log]\nurl = "sqlite:///a.db"\n[[voters]]\nuse = "safety"\n'
        )
    text = (tmp_path / "ann.toml").read_text()

    async def work() -> None:
        async with open_log(f"sqlite:///{tmp_path}/a.db") as log:
            await looping("ann", log, 1).run("a task")
            await looping("bob", log, 9).run("a task")
            cites = [entry.position async for entry in log.read()]
            mine = await there(log, cites, "ann")
            assert mine and all([(await log.get(one)).agent == "ann" for one in mine]) and len(mine) < len(cites)

    run(work())
    done = here("debug", tmp_path / "ann.toml", "--apply")
    assert (done.returncode, (tmp_path / "ann.toml").read_text()) == (0, text), done.stdout
    assert here("debug", tmp_path / "ann.toml", "--apply", "--agent", "bob").returncode == 2
    first = lines_of(here("debug", tmp_path / "bob.toml", "--apply", "--json").stdout)[0]["applied"]
    assert [one["applied"] for one in first] == [True, True]
    second = here("debug", tmp_path / "bob.toml", "--apply")
    assert second.returncode == 0 and " ".join(second.stdout.split()).count(" already") == 2, second.stdout
    (tmp_path / "bob.toml").write_text((tmp_path / "ann.toml").read_text().replace("ann", "bob") + '[agent.limits]\n'
                                       'actions = 3\n')  # fmt: skip
    before = here("undo", tmp_path / "bob.toml", first[0]["action"])
    assert before.returncode == 1 and "is undone first" in " ".join(before.stdout.split())


def test_nothing_but_refusals_is_exit_code_1(tmp_path: Path) -> None:
    """Changes that the voters refuse, all of them, are told by the exit code (it was 0), also with --json."""
    path = tmp_path / "bob.toml"
    path.write_text('[agent]\nname = "bob"\n[log]\nurl = "sqlite:///a.db"\n')  # without voters only reads pass

    async def work() -> None:
        async with open_log(f"sqlite:///{tmp_path}/a.db") as log:
            await looping("bob", log, 9).run("a task")

    run(work())
    assert [here("debug", path, "--apply", *more).returncode for more in ((), ("--json",))] == [1, 1]
    assert here("debug", path).returncode == 0


def commented(name: str = "ann") -> str:
    return TEMPLATE.format(name=name)


@pytest.mark.parametrize(
    ("text", "setting", "value", "line"),
    [
        (commented(), "agent.limits.actions", 22, "limits = { turns = 50, seconds = 3600, actions = 22 }"),
        (commented(), "agent.limits.turns", 9, "limits = { turns = 9, seconds = 3600 }"),
        (commented(), "agent.reuse_reads_s", 600, "reuse_reads_s = 600"),
        ("[agent] # a\nname = 'ann'\nlimits = {} # b's", "agent.limits.turns", 9, "limits = { turns = 9 } # b's"),
        ("[agent] # a\nname = 'ann' # b", "agent.context_tokens_max", 9, "context_tokens_max = 9"),
        ("[agent]\nname = 'ann'\nlimits.turns = 50 # it's", "agent.limits.turns", 9, "limits.turns = 9 # it's"),
        ("[agent]\nname = 'ann'\nlimits.turns = 50 # a", "agent.limits.actions", 9, "limits.actions = 9"),
        ("[agent]\nname = 'ann' # a\nhide_tools = [\n 'x',\n]", "agent.hide_tools", ("y",),
         'hide_tools = ["x", "y"]'),
        ("[agent]\nname = 'a' # a\nlimits = { turns = 5 } # {x} \"", "agent.limits.turns", 4,
         'limits = { turns = 4 } # {x} "'),
        ("[agent]\r\nname = 'a' # a\r\nlimits = { turns = 5 } # b\r\n", "agent.limits.turns", 4,
         "limits = { turns = 4 } # b"),
        ("checkpoints = { every = 9 } # a\n[agent]\nname = 'ann'", "checkpoints.every", 8,
         "checkpoints = { every = 8 } # a"),
    ],
)  # fmt: skip
def test_every_comment_stays(text: str, setting: str, value: Any, line: str) -> None:
    """One line is changed or added, whatever the form of the table (the file of `logact init` lost its comments)."""
    made = changed(text, Change(setting=setting, value=value))
    assert [one for one in made.splitlines() if one not in text.splitlines()] == [line]
    assert made.count("#") == text.count("#")
    assert made.count("\r\n") in (0, made.count("\n"))
    found: Any = parse_spec(made)
    for step in setting.split("."):
        found = getattr(found, step)
    assert found in (value, ["x", "y"])


def test_rather_refused_than_without_comments() -> None:
    """A form that no line can be edited in is left alone where it holds comments, and rewritten where not."""
    text = "agent = { name = 'ann', limits = { turns = 50 } }"
    change = Change(setting="agent.limits.turns", value=9)
    assert parse_spec(changed(text, change)).agent.limits.turns == 9
    with pytest.raises(SpecError, match="by hand"):
        changed(f"{text}  # mine", change)


def test_a_proposal_without_a_reason_is_a_sentence() -> None:
    """Title, who says so, reason and positions, with no stops between nothing."""
    bare = Proposal(kind="other", title="It was refused.", why="", cites=(1003, 2000), by="scripted")
    told = " ".join(debug_lines(Debugged(performance=Performance(), proposals=(bare,)))[-1].split())
    assert told == "proposal It was refused (scripted) [1003 2000]."


def test_undo_puts_back_each_byte(tmp_path: Path) -> None:
    """The ends of a file's lines stay as they are, and are the same after the undo."""
    path = tmp_path / "logact.toml"
    path.write_bytes(HELD.replace("\n", "\r\n").encode())
    held = path.read_bytes()
    turns = Change(setting="agent.limits.turns", value=9)
    wish = Proposal(kind="parameter", title="Limit", why="it loops", cites=(1000,), change=turns)

    async def work() -> None:
        async with memory_log() as log:
            agent = LogActAgent("ann", log, [lambda entry: True], tools=[change_tool(path)])
            done = await propose(agent, [wish], load_spec(path))
            assert path.read_bytes() == held.replace(b"tokens = 9000 }", b"tokens = 9000, turns = 9 }")
            await agent.undo(done[0].action)
            assert path.read_bytes() == held

    run(work())
