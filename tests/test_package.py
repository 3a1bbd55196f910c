"""The package as users get it: a wheel, installed into an empty environment without any extra, runs the main job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT_S = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def said(*command: object, cwd: Path, expect: int = 0) -> str:
    """What a command prints; it must end with the exit code that is expected."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LOGACT", "VIRTUAL"))
    }
    done = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environment,
    )
    assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel. The tools that build it are installed already, so that nothing is fetched for it."""
    target = tmp_path_factory.mktemp("dist")
    said(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT, cwd=ROOT)
    (found,) = target.glob("logact-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a fresh environment that holds the wheel and what it needs, nothing else."""
    place = tmp_path_factory.mktemp("fresh")
    said(sys.executable, "-m", "venv", "--without-pip", place, cwd=place)
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "--disable-pip-version-check"]
    said(*pip, "install", "-q", "--no-compile", wheel, cwd=place)
    return place / "bin"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module and the marker for type checkers are inside; tests and benchmarks are not."""
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("logact/__init__.py", "logact/py.typed", "logact/core/machine.py", "logact/testing/conformance.py"):
        assert name in names
    assert [name for name in names if not name.startswith(("logact/", "logact-"))] == []
    assert any(name.endswith("LICENSE") for name in names)


def test_it_needs_little(installed: Path) -> None:
    """Without an extra only a few packages come along."""
    code = "import importlib.metadata as found; print(*(one.name for one in found.distributions()))"
    names = {name.lower() for name in said(installed / "python", "-c", code, cwd=installed).split()}
    assert names == {"logact", "msgspec", "click"}


def test_the_commands_of_a_first_day(installed: Path, tmp_path: Path) -> None:
    """Help, init, run, and the log afterwards, as a newcomer types them."""
    logact = installed / "logact"
    assert "run" in said(logact, "--help", cwd=tmp_path)
    said(logact, "init", cwd=tmp_path)
    (tmp_path / "script.json").write_text(json.dumps(["I am done."]))
    model = f"scripted:{tmp_path / 'script.json'}"
    assert said(logact, "run", "logact.toml", "say hello", "--model", model, cwd=tmp_path).strip() == "I am done."
    said(logact, "run", "logact.toml", "say hello", "--model", model, cwd=tmp_path, expect=2)
    shown = said(logact, "log", "show", "logact.toml", cwd=tmp_path)
    for text in ("say hello", "I am done."):
        assert text in shown
    said(logact, "log", "verify", "logact.toml", cwd=tmp_path)


def test_the_library_of_a_first_day(installed: Path, tmp_path: Path) -> None:
    """A scripted agent on a file, twice: the log is there the second time."""
    code = """
import logact
from logact.models.scripted import call

@logact.tool(effect="read")
def look(at: str) -> str:
    "Look."
    return "saw " + at

for place in range(2):
    model = logact.ScriptedModel([call("look", at="x"), "done"])
    agent = logact.LogActAgent("ann", logact.open_log("sqlite:///ops.db"), model=model, tools=[look])
    print(agent.run_sync("go", new=True).run)
"""
    first, second = said(installed / "python", "-c", code, cwd=tmp_path).split()
    assert int(second) > int(first)


def test_a_missing_extra_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    """What needs an extra names the exact command."""
    code = """
import os
import logact
os.environ["OPENAI_API_KEY"] = "none"
try:
    logact.LogActAgent("ann", logact.open_log("memory:"), model="openai:gpt-4o").run_sync("go")
except logact.LogActError as error:
    print(error.code, error)
"""
    text = said(installed / "python", "-c", code, cwd=tmp_path)
    assert text.startswith("missing_extra")
    assert "logact[llm]" in text
