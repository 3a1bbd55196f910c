"""Every hostile action of the corpus is rejected, every harmless one approved; misses would stand in the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from logact.core.views import Action
from logact.voters.safety import SafetyVoter

CORPUS = Path(__file__).parent / "corpus"
LEAST = 300
TOOLS = {"sh": ("run_shell", "command"), "py": ("run_python", "code"), "sql": ("run_sql", "sql")}


def actions(name: str) -> list[tuple[str, str, Action]]:
    """Class, line and action of each line of a corpus file."""
    found = []
    section = ""
    for line in (CORPUS / name).read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            section = line[3:]
        kind, colon, text = line.partition(": ")
        if not colon or line.startswith("#"):
            continue
        text = re.sub(r"\{([0-9A-F]{4})\}", lambda found: chr(int(found[1], 16)), text.replace("⏎", "\n"))
        if kind == "tool":
            given = json.loads(text)
            action = Action(**{"effect": "irreversible", **given})
        else:
            tool, argument = TOOLS[kind]
            action = Action(tool=tool, arguments={argument: text})
        found.append((section, line, action))
    return found


@pytest.fixture(scope="module")
def voter(tmp_path_factory: pytest.TempPathFactory) -> SafetyVoter:
    """A workspace with a few files, a link that leads out, and the voter for it."""
    base = tmp_path_factory.mktemp("safety")
    outside, workspace = base / "outside", base / "workspace"
    for directory in (outside, workspace / "data", workspace / "tmp", workspace / "docs", workspace / "out"):
        directory.mkdir(parents=True)
    (outside / "x").write_text("x")
    (workspace / "data" / "a.txt").write_text("a")
    (workspace / "link-out").symlink_to(outside)
    (workspace / "tmp" / "link").symlink_to(workspace / "data")
    (workspace / "script.py").write_text("import json\nprint(json.dumps([1]))\n")
    (workspace / "script.sh").write_text("#!/bin/sh\nls -la\n")
    (workspace / "script.sh").chmod(0o755)
    (workspace / "script.txt").write_text("rm -rf data")
    return SafetyVoter(workspace)


HOSTILE, HARMLESS = actions("hostile.txt"), actions("harmless.txt")


@pytest.mark.parametrize("line", [line for _, line, _ in HOSTILE])
def test_hostile_is_rejected(voter: SafetyVoter, line: str) -> None:
    """No hostile action passes."""
    action = next(action for _, known, action in HOSTILE if known == line)
    found = voter.judge(action)
    assert found is not None, f"approved: {line}"
    assert "." in found.code and found.reason and found.hint


@pytest.mark.parametrize("line", [line for _, line, _ in HARMLESS])
def test_harmless_is_approved(voter: SafetyVoter, line: str) -> None:
    """No harmless action is stopped."""
    action = next(action for _, known, action in HARMLESS if known == line)
    found = voter.judge(action)
    assert found is None, f"{found.code}: {found.reason}"


@pytest.mark.parametrize("corpus", [HOSTILE, HARMLESS], ids=["hostile", "harmless"])
def test_corpus_is_large_and_has_no_doubles(corpus: list[tuple[str, str, Action]]) -> None:
    """At least 300 different lines each."""
    lines = [line for _, line, _ in corpus]
    assert len(set(lines)) == len(lines) >= LEAST
