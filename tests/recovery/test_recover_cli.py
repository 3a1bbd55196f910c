"""``logact recover``: what a crash left is settled, or given up, or judged by a model; the run itself waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_help import fits, here, lines_of, logact, start, wait_for
from tests.recovery import test_doubt_cli

FLAKY = """
from pathlib import Path
from logact import ScriptedModel, tool
from logact.models.scripted import call


@tool(effect="idempotent")
def send(item: str) -> str:
    \"\"\"Send an item by a line that is dead.\"\"\"
    raise ConnectionError("the line is dead")


@tool(effect="read")
def look() -> str:
    \"\"\"Look at the world.\"\"\"
    return "a: missing"


@tool(effect="idempotent")
def carry(item: str) -> str:
    \"\"\"Carry an item by hand.\"\"\"
    return f"{item} carried"


def yes(entry):
    return True


def in_order():
    return (Path(__file__).parent / "wrong").read_text()


model = ScriptedModel([call("send", item="a"), "It did not work."])
skip = {"decision": "skip", "reasoning": "no line"}
carried = {"tool": "carry", "arguments": {"item": "a"}}
other = {"decision": "alternative", "reasoning": "by hand", "actions": [carried]}
wrong = {"decision": "alternative", "reasoning": "by magic", "actions": [{"tool": "conjure", "arguments": {}}]}
by_hand = ScriptedModel([call("look"), call("answer", value=other)])
by_magic = ScriptedModel([call("answer", value=wrong)] * 20)
"""
SPEC = """
[agent]
name = "post"
model = "scripted:parts.py:model"

[[tools]]
use = "parts.py:send"

[[tools]]
use = "parts.py:look"

[[tools]]
use = "parts.py:carry"

[[voters]]
use = "parts.py:yes"
"""


@pytest.fixture
def failed(tmp_path: Path) -> tuple[Path, int]:
    """A specification whose run answered after an action that failed, and that action."""
    (tmp_path / "parts.py").write_text(FLAKY)
    spec = tmp_path / "logact.toml"
    spec.write_text(SPEC)
    assert here("run", spec, "send a").returncode == 0
    (one,) = [line for line in lines_of(here("actions", spec, "--json").stdout) if line.get("tool") == "send"]
    assert one["status"] == "failed"
    return spec, one["action"]


def test_what_a_crash_left_is_settled_and_no_more(tmp_path: Path) -> None:
    """In doubt: 4, as long as the probe cannot tell. Then it is settled, once, and the run has not gone on."""
    spec = test_doubt_cli.set_up(tmp_path)
    child = start("run", spec, "book room 12")
    wait_for(tmp_path / "booked")
    child.kill()
    child.communicate()
    unknown = logact("recover", spec)
    assert unknown.returncode == 4, unknown.stderr
    assert "executing → in doubt" in unknown.stdout
    fits(unknown.stdout)
    (tmp_path / "hotel").write_text("12")
    (tmp_path / "hold").unlink()
    told = logact("recover", spec, "--json")
    assert told.returncode == 0, told.stderr
    last = lines_of(told.stdout)[-1]
    assert last["event"] == "recovered_all"
    (settled,) = last["settled"]
    assert (settled["was"], settled["now"]) == ("in_doubt", "executed")
    assert "Nothing of travel was unfinished." in logact("recover", spec).stdout
    assert (tmp_path / "booked").read_text() == "12\n", "nothing was done twice"
    assert not [one for one in lines_of(logact("log", "show", spec, "--json").stdout) if one["kind"] == "Output"]
    went_on = logact("run", spec)
    assert went_on.stdout.strip() == "Room 12 is booked."


def test_a_failed_action_is_given_up(failed: tuple[Path, int]) -> None:
    """--skip closes it with the reason in the log; once only; nothing else can be skipped."""
    spec, action = failed
    done = logact("recover", spec, "--skip", action, "--reason", "the post is on strike")
    assert done.returncode == 0, done.stderr
    story = logact("actions", spec, action).stdout
    assert "skipped" in story
    assert "the post is on strike" in story
    again = logact("recover", spec, "--skip", action)
    assert again.returncode == 2
    assert "no failed action" in again.stderr


def test_a_model_proposes_how_to_go_on(failed: tuple[Path, int]) -> None:
    """--semantic: a look, then another plan, by a vote; a plan with tools that are not there is not done: 1."""
    spec, _ = failed
    refused = logact("recover", spec, "--semantic", "--model", "scripted:parts.py:by_magic", cwd=spec.parent)
    assert refused.returncode == 1, refused.stderr
    assert "Not carried out" in refused.stdout
    done = logact("recover", spec, "--semantic", "--model", "scripted:parts.py:by_hand", cwd=spec.parent)
    assert done.returncode == 0, done.stderr
    assert "by hand" in done.stdout
    fits(done.stdout)
    shown = lines_of(logact("actions", spec, "--json").stdout)
    assert [line["status"] for line in shown if line.get("tool") == "carry"] == ["executed"]


SEMANTIC = """
[recovery]
mode = "skip"

[recovery.semantic]
model = "scripted:parts.py:MODEL"
tools = ["look"]
check = "parts.py:in_order"
turns_max = 2
"""


def test_the_specification_says_how_a_model_recovers(failed: tuple[Path, int]) -> None:
    """Its model, limits and check are those of the file, and the mode is the fallback. (It was always "exact".)"""
    spec, action = failed
    wrong = spec.parent / "wrong"
    wrong.write_text("a is still missing")
    spec.write_text(SPEC + SEMANTIC.replace("MODEL", "by_hand"))
    misled = here("recover", spec, "--semantic", "--json")
    assert misled.returncode == 1, misled.stderr
    outcome = lines_of(misled.stdout)[-1]["semantic"]
    assert (outcome["decision"], outcome["fell_back"]) == ("alternative", "the check says: a is still missing")
    statuses = {one["action"]: one["status"] for one in lines_of(here("actions", spec, "--json").stdout)}
    assert statuses[action] == "skipped", "the mode of the file took over"
    wrong.write_text("")
    spec.write_text(SPEC + SEMANTIC.replace("MODEL", "by_magic"))
    told = here("recover", spec, "--semantic", "--json").stdout
    assert "the limit of 2 turns is reached" in lines_of(told)[-1]["semantic"]["fell_back"]
    assert (
        here("recover", spec, "--semantic", "--model", f"scripted:{spec.parent}/parts.py:by_hand").returncode == 0
    ), "goes before"


@pytest.mark.parametrize(
    "options", [["--semantic", "--skip", "4000"], ["--reason", "why"], ["--skip", "77"]], ids=" ".join
)
def test_what_makes_no_sense_is_refused(failed: tuple[Path, int], options: list[str]) -> None:
    """Two ways at once, a reason for nothing, an action that is not there: exit code 2, and what to do."""
    spec, _ = failed
    refused = logact("recover", spec, *options)
    assert refused.returncode == 2
    assert "received" in refused.stderr
