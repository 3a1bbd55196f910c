"""The page about the command line is what the commands say."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from logact import errors
from logact.cli.docs import page
from logact.cli.main import COMMANDS, EXIT_CODES, root
from tests.cli_help import fits, inside, logact

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"


def test_page_is_current() -> None:
    """docs/cli.md is generated, and is the present one."""
    assert DOCS.read_text() == page(), "run: python -m logact.cli.docs > docs/cli.md"


def test_every_exit_code_is_in_all_three_places() -> None:
    """Those that errors end with are in the help of ``logact`` and in the table of the page."""
    table = set(
        map(int, re.findall(r"^\| (\d+) \|", page().split("## Exit codes")[1].split("\n## ")[0], re.MULTILINE))
    )
    in_help = set(map(int, re.findall(r"(?:^|  )(\d+)  +[a-z]", EXIT_CODES + "\n", re.MULTILINE)))
    in_help |= {int(found) for found in re.findall(r"(\d+) interrupted", EXIT_CODES)}
    by_errors = {cls.exit_code for cls in vars(errors).values() if hasattr(cls, "exit_code")}
    assert table == in_help and by_errors <= table


def every_command() -> list[list[str]]:
    found: list[list[str]] = [[]]
    context = click.Context(root)
    for name in COMMANDS:
        found.append([name])
        command = root.get_command(context, name)
        if isinstance(command, click.Group):
            found += [[name, inner] for inner in command.list_commands(context)]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_help_teaches(command: list[str]) -> None:
    """Every command's help fits eighty columns and shows an example; groups list what they hold."""
    shown = inside(*command, "--help")
    assert shown.exit_code == 0
    fits(shown.output)
    assert "\b" not in shown.output
    if command != ["log"]:
        assert re.search(r"Examples?:\n\s+logact ", shown.output), shown.output


def test_unknown_command_suggests() -> None:
    """A typing error is answered with the nearest command, and exit code 2."""
    done = logact("actoins")
    assert done.returncode == 2
    assert "'actions'" in done.stderr


def test_help_imports_no_command() -> None:
    """``logact --help`` imports neither an agent nor an engine, so that it is fast."""
    import subprocess
    import sys

    code = (
        "import sys; from logact.cli.main import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('logact.agent', 'sqlite3', 'asyncio', 'pydantic_ai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
