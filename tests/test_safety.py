"""The safety pack beside its corpus: options, what is undecidable, what is missing, and what a vote says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logact.core.views import Action, log_entry
from logact.entry import BlobRef, Intent
from logact.errors import SpecError
from logact.tools.files import Workspace
from logact.voters.safety import SafetyVoter
from logact.voters.safety_secrets import secret_in
from logact.voters.shell_parse import Undecidable, parse


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    (root / "tmp").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    return root


def code_of(voter: SafetyVoter, tool: str, effect: Any = "irreversible", /, **arguments: Any) -> str:
    """The code of the first finding; "" if there is none."""
    found = voter.judge(Action(tool=tool, arguments=arguments, effect=effect))
    return found.code if found else ""


def test_a_vote_says_code_reason_and_hint(workspace: Path) -> None:
    """The model learns what to do instead."""
    voter = SafetyVoter(workspace)
    intent = Intent(run=1, agent="a", tool="delete_file", arguments={"path": "a.txt"})
    vote = voter.check(log_entry(intent))
    assert vote.approved is False
    assert vote.reason == "path.delete: 'a.txt' would be lost (path)"
    assert "quarantine" in vote.hint and "tmp/**" in vote.hint
    harmless = Intent(run=1, agent="a", tool="read_file", arguments={"path": "a.txt"}, effect="read")
    assert voter.check(log_entry(harmless)).approved is True
    assert voter.is_safe(Action(tool="read_file", arguments={"path": "a.txt"}, effect="read"))


def test_arguments_that_are_not_at_hand_are_rejected(workspace: Path) -> None:
    """Large arguments that were not loaded are never taken for empty ones."""
    intent = Intent(run=1, agent="a", tool="write_file", arguments_blob=BlobRef("x", 1))
    assert SafetyVoter(workspace).check(log_entry(intent)).approved is False


def test_our_own_file_tools(workspace: Path) -> None:
    """Every built-in file tool passes inside of the workspace, and only the deletion is stopped."""
    voter = SafetyVoter(workspace)
    for tool in Workspace(workspace).tools:
        arguments = {name: "x.txt" for name in tool.parameters["properties"] if name in ("path", "source", "target")}
        expected = "path.delete" if tool.name == "delete_file" else ""
        assert code_of(voter, tool.name, tool.effect, **arguments) == expected, tool.name
        outside = dict.fromkeys(arguments, "/etc/x")
        assert code_of(voter, tool.name, tool.effect, **outside) == "path.outside", tool.name


def test_deleting(workspace: Path) -> None:
    """Patterns, and ``allow_delete``, which never covers whole trees, many files or the outside."""
    assert code_of(SafetyVoter(workspace), "delete_file", path="tmp/x") == ""
    assert code_of(SafetyVoter(workspace, deletable=()), "delete_file", path="tmp/x") == "path.delete"
    open_one = SafetyVoter(workspace, allow_delete=True, many=3)
    assert code_of(open_one, "delete_file", path="a.txt") == ""
    assert code_of(open_one, "delete_files", paths=["a", "b", "c", "d"]) == "path.mass_delete"
    assert code_of(open_one, "delete_file", path="/etc/x") == "path.outside"
    assert code_of(open_one, "run_shell", command="rm a.txt") == ""
    assert code_of(open_one, "run_shell", command="rm *.txt") == "shell.mass_delete"
    assert code_of(open_one, "run_shell", command="rm -r data") == "shell.recursive_delete"
    assert code_of(open_one, "delete_user", user_id=3) == ""
    assert code_of(SafetyVoter(workspace, allow_tools=["delete_user"]), "delete_user", user_id=3) == ""


@pytest.mark.parametrize(
    "options",
    [
        {"deletable": ("**",)},
        {"deletable": ("*/x",)},
        {"deletable": ("/etc/**",)},
        {"deletable": ("../x/**",)},
        {"deletable": "tmp/**"},
        {"hosts": "example.com"},
        {"inputs": {"run.command": "bash"}},
        {"inputs": {"command": "shell"}},
    ],
)
def test_options_that_open_everything_or_mean_nothing_are_refused(workspace: Path, options: Any) -> None:
    """A typing error in the options never opens something."""
    with pytest.raises(SpecError):
        SafetyVoter(workspace, **options)


def test_what_an_argument_is_can_be_declared(workspace: Path) -> None:
    """Declarations go before names."""
    assert code_of(SafetyVoter(workspace), "tool", thing="rm -rf data") == ""
    voter = SafetyVoter(workspace, inputs={"tool.thing": "shell", "*.note": "ignore"})
    assert code_of(voter, "tool", thing="rm -rf data") == "shell.recursive_delete"
    assert code_of(voter, "tool", note="DROP TABLE x") == ""
    assert code_of(voter, "tool", steps=[{"thing": "rm -rf data"}]) == "shell.recursive_delete"


def test_what_the_operator_opened(workspace: Path) -> None:
    """Programs, hosts, project code and directories are opened by name."""
    assert code_of(SafetyVoter(workspace), "run_shell", command="mytool x") == "shell.unknown_program"
    assert code_of(SafetyVoter(workspace, programs=["mytool"]), "run_shell", command="mytool x") == ""
    send = "curl -d hello https://api.example.com/x"
    assert code_of(SafetyVoter(workspace), "run_shell", command=send) == "shell.exfiltration"
    assert code_of(SafetyVoter(workspace, hosts=["api.example.com"]), "run_shell", command=send) == ""
    assert code_of(SafetyVoter(workspace), "run_shell", command="pytest -q") == "shell.project_code"
    opened = SafetyVoter(workspace, project_code=True)
    assert code_of(opened, "run_shell", command="pytest -q && make build && python3 unknown.py") == ""
    assert code_of(opened, "run_shell", command="npm publish") == "shell.publish"
    elsewhere = workspace.parent / "elsewhere"
    elsewhere.mkdir()
    assert code_of(SafetyVoter(workspace), "write_file", path=str(elsewhere / "x")) == "path.outside"
    assert code_of(SafetyVoter(workspace, writable=[elsewhere]), "write_file", path=str(elsewhere / "x")) == ""
    assert code_of(SafetyVoter(workspace, readable=[elsewhere]), "run_shell", command=f"cat {elsewhere}/x") == ""


def test_a_script_in_the_workspace_is_judged_by_what_stands_in_it(workspace: Path) -> None:
    """Writing a script first and running it then is no way round."""
    voter = SafetyVoter(workspace)
    for name, text, run, code in (
        ("a.sh", "#!/bin/sh\nrm -rf data\n", "sh a.sh", "shell.recursive_delete"),
        ("b.sh", "#!/bin/bash\nls\n", "./b.sh", ""),
        ("c.py", "import shutil\nshutil.rmtree('data')\n", "python3 c.py", "python.recursive_delete"),
        ("d.py", "print(1)\n", "python3 d.py", ""),
        ("e.sh", ". ./a.sh\n", "bash e.sh", "shell.recursive_delete"),
        ("f.sh", "./f.sh\n", "sh f.sh", "shell.undecidable"),
        ("g", "#!/usr/bin/perl\nprint 1\n", "./g", "shell.undecidable"),
    ):
        (workspace / name).write_text(text)
        assert code_of(voter, "run_shell", command=run) == code, name


def test_without_a_workspace_relative_paths_count_as_inside() -> None:
    """Useful for tools that are confined by themselves."""
    voter = SafetyVoter()
    assert code_of(voter, "write_file", path="a/b") == ""
    assert code_of(voter, "write_file", path="../b") == "path.outside"
    assert code_of(voter, "write_file", path="/etc/b") == "path.outside"


def test_sql_without_its_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra only one plain SELECT passes; nothing is guessed."""
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    voter = SafetyVoter()
    for good in ("SELECT 1", "select a, b from t where x = 'drop it' order by a;", "SELECT count(a) FROM t"):
        assert code_of(voter, "run_sql", sql=good) == "", good
    for bad in (
        "DELETE FROM t WHERE id = 1",
        "SELECT 1; DROP TABLE t",
        "SELECT pg_sleep(10)",
        "SELECT 1 -- x",
        "SELECT * INTO x FROM t",
        "WITH x AS (SELECT 1) SELECT 1",
        "SELECT 'a\\'; DROP TABLE t; --'",
        "INSERT INTO t VALUES (1)",
        "SELECT `a` FROM t",
        "SELECT 'open",
    ):
        assert code_of(voter, "run_sql", sql=bad) == "sql.undecidable", bad


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPL2",
        "token: ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "glpat-abcdefghijklmnopqrst",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "sk-" + "a1B2" * 6,
        'password = "9fK3mQ8zLw2Xv7Rt5Yp1"',
        "https://user:hunter22@example.com/x",
    ],
)
def test_secrets_are_seen(text: str) -> None:
    """Well-known formats, and random values with telling names."""
    assert secret_in(f"hello {text} bye")


@pytest.mark.parametrize(
    "text",
    [
        "the token is in the vault",
        "password: secret://db@1",
        "api_key=your-key-goes-here",
        "sha256 0123456789abcdef" * 4,
    ],
)
def test_talk_about_secrets_is_no_secret(text: str) -> None:
    """Names and references pass."""
    assert not secret_in(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "'",
            '"',
            "`",
            "$(",
            "${",
            "(",
            "{ ls",
            "if x; then y",
            "for",
            "case x in",
            "<<E\n",
            "ls |",
            "&& ls",
            "ls >",
        ),
        *(")", "]]x (", "a=(1)", "((1))", "$[1]", "x(", "function", "!(a)", "ls \\", "\x1b[0m", "done", "<<<"),
    ],
)
def test_the_shell_parser_refuses_what_it_does_not_understand(text: str) -> None:
    """Never another exception, and never a milder reading."""
    with pytest.raises(Undecidable):
        parse(text)


def test_any_text_gets_an_answer(workspace: Path) -> None:
    """Cut anywhere, a command is judged or refused; nothing else is raised."""
    voter = SafetyVoter(workspace)
    text = "for f in $(ls a*); do X=\"${f}\" cat <<'E' | sed 's/a/b/' >o; done\nx\nE\n"
    text += "if [ -f a ]; then (b); fi; c() { d; }"
    for end in range(len(text)):
        voter.judge(Action(tool="run_shell", arguments={"command": text[:end]}))
        voter.judge(Action(tool="run_shell", arguments={"command": text[end:]}))
        voter.judge(Action(tool="run_python", arguments={"code": text[:end]}))
        voter.judge(Action(tool="run_sql", arguments={"sql": text[:end]}))


@pytest.mark.parametrize(
    "text", ["(" * 5000, "$(" * 2000, "{ " * 2000, "`" * 3001, "((((((" * 900, "[" * 9000, "eval " * 5000]
)
def test_deep_nesting_is_refused(workspace: Path, text: str) -> None:
    """Depth is limited, so that no input ends the process."""
    for tool, argument in (("run_shell", "command"), ("run_python", "code"), ("run_sql", "sql")):
        assert code_of(SafetyVoter(workspace), tool, **{argument: text}).endswith("undecidable")


def test_config_is_plain_data(workspace: Path) -> None:
    """Its digest stands on every vote, and changes with the options."""
    one, two = SafetyVoter(workspace), SafetyVoter(workspace, allow_delete=True)
    msgspec.json.encode(one.config())
    assert one.in_policy().config != two.in_policy().config
