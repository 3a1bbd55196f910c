"""Every command on a log whose beginning was trimmed: none dies of it, and it says what it cannot show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from logact.cli.main import root
from tests.cli_help import here, make

MODEL = """
import json, re

def answer(request):
    case = re.search(r"case (\\S+)", request.messages[-1].text).group(1)
    given = {"case": case, "verdict": "healthy"}
    for name in request.tools[0].parameters["required"]:
        given.setdefault(name, [])
    return json.dumps(given)
"""

MORE = """
[checkpoints]
every = 6

[health]
cron = "* * * * *"

[agent.limits]
turns = 9
"""

ASKED = ("--model", "scripted:judge.py:answer")

READS: dict[str, list[tuple[tuple[str, ...], int]]] = {
    "actions": [(("ops.db",), 0), (("ops.db", "KEPT"), 0), (("ops.db", "--run", "GONE"), 0)],
    "log backup": [(("ops.db", "copy.db"), 0)],
    "log export": [
        (("ops.db", *form), 0)
        for form in ((), ("--format", "messages"), ("--format", "anthropic"), ("--format", "otlp"))
    ]
    + [
        (("ops.db", "--format", "messages", "--run", "LAST"), 0),
        (("ops.db", "--format", "otlp", "--run", "GONE"), 2),
    ],
    "log repair": [(("ops.db", "mended.db"), 0)],
    "log show": [(("ops.db",), 0)],
    "log stats": [(("ops.db",), 0)],
    "log tail": [(("ops.db",), 0)],
    "log verify": [(("ops.db",), 0)],
    "state": [(("ops.db",), 0)],
    "pending": [(("ops.db",), 0)],
    "approvals": [(("ops.db",), 0), (("ops.db", "--drafts"), 0)],
    "backtest": [(("--policy", "logact.toml", "ops.db"), 0)],
    "doubt": [(("ops.db",), 0)],
    "diff": [(("ops.db", "ops.db"), 0)],
    "health": [(("ops.db",), 0), (("logact.toml", "--due"), 0), (("ops.db", *ASKED), 0)],
    "compare": [(("ops.db#LAST", "ops.db#LAST"), 0), (("ops.db#GONE", "ops.db#LAST"), 1)],
    "debug": [(("ops.db",), 0), (("ops.db", *ASKED), 0)],
    "cost": [(("ops.db", "--by", by), 0) for by in ("agent", "run", "model", "tool")],
    "ask": [(("ops.db", "What was paid?", *ASKED, *more), 1) for more in ((), ("--summarise",), ("--run", "LAST"))],
    "simulate": [(("logact.toml", "pay", "--seeds", "1", "--form", "inline"), 0)],
    "swarm show": [(("ops.db",), 2)],
    "supervise": [(("logact.toml", "--status"), 1)],
    "recover": [(("logact.toml",), 0)],
    "run": [(("logact.toml", "pay 3"), 2)],
}
"""Each command that reads a log, as it is called here, and what it has to end with. GONE is a run that was trimmed,
LAST one that was kept, KEPT an action of that."""

OTHERS = frozenset(
    {
        *("init", "log import", "rules check", "rules explain", "skill", "doctor", "bench"),  # read no log
        *("key create", "key show", "token create", "token list", "token revoke", "serve"),  # of a server, not a log
        *(
            "approve",
            "deny",
            "pause",
            "resume",
            "stop",
            "cancel",
            "policy",
            "undo",
            "log trim",
            "log witness",
        ),  # write an entry
        *("log move", "fork", "swarm run"),  # make a log, or work on one: tests of their own
        *("driver", "voter", "decider", "executor", "recoverer", "checkpointer"),  # play for ever
    }
)
"""Commands that have no past to read."""

PAST = {"actions", "log export", "log show", "log stats", "log tail", "approvals", "backtest", "ask"}
"""Those that would show what is gone, and so name the position from which on they know."""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands that do something."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from commands(inner, (*path, name))


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A directory with an agent whose log lost its first runs, and positions in it by name."""
    home = tmp_path_factory.mktemp("trimmed")
    spec = make(home)
    spec.write_text(spec.read_text() + MORE)
    (home / "judge.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for number in range(4):
            assert here("run", "logact.toml", f"pay {number}", "--quiet").returncode == 0
        done = here("log", "trim", "ops.db", "--json")
        before = json.loads(done.stdout)["before"]
        assert here("run", "logact.toml", "pay 4", "--quiet").returncode == 0
        runs = list(json.loads(here("state", "ops.db", "--json").stdout)["runs"])
        kept = [json.loads(line)["action"] for line in here("actions", "ops.db", "--json").stdout.splitlines()]
    assert int(runs[2]) < before, (runs, before)
    return home, {"GONE": runs[0], "LAST": runs[-1], "KEPT": str(kept[0]), "BEFORE": str(before)}


def test_every_command_is_known_here() -> None:
    """A new command has to be tried on a trimmed log, too."""
    assert set(commands(root)) == READS.keys() | OTHERS
    assert not READS.keys() & OTHERS


@pytest.mark.parametrize("name", READS)
def test_no_command_dies_of_a_trim(
    trimmed: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It ends as it does on a whole log; who would show what is gone says where the log begins."""
    home, named = trimmed
    shutil.copytree(home, tmp_path / "a", ignore=shutil.ignore_patterns("*.lock", "*.bell"))
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("COLUMNS", "200")
    for given, code in READS[name]:
        arguments = [_filled(one, named) for one in given]
        done = here(*name.split(), *arguments)
        said = done.stdout + done.stderr
        assert done.returncode == code, (arguments, said)
        assert "These records were trimmed" not in said, (arguments, said)
        if name in PAST and "KEPT" not in given:
            (line,) = [one for one in said.splitlines() if "what stood before position" in one]
            assert any(word.rstrip(".;").isdigit() for word in line.split()), line


def _filled(text: str, named: dict[str, str]) -> str:
    for name, position in named.items():
        text = text.replace(name, position)
    return text
