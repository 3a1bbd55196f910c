"""An engine of somebody else: installed by pip as a package, found by its entry point, held to the suite."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples" / "little_engine"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip installed the example."""
    place = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", place / "site", wheel(place)], check=True, timeout=120)
    return place / "site"


def wheel(place: Path) -> Path:
    """The example as a wheel, written here so that no build tool has to be there."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    points = project["entry-points"]["logact.engines"]
    files = {
        "little_engine.py": (EXAMPLE / "little_engine.py").read_text(),
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": "[logact.engines]\n"
        + "".join(f"{name} = {target}\n" for name, target in points.items()),
    }
    found = place / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(found, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in files)
        archive.writestr(f"{stem}.dist-info/RECORD", f"{record}{stem}.dist-info/RECORD,,\n")
    return found


def python(installed: Path, *command: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with what is installed there."""
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        cwd=where,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_is_found_by_its_entry_point(installed: Path, tmp_path: Path) -> None:
    """With the package installed its URLs work everywhere; without it they are unknown."""
    url = f"little://{tmp_path}/ops"
    code = f"""
import asyncio
from logact import LogActAgent, ScriptedModel, open_log
log = open_log({url!r})
print(LogActAgent("ann", log, model=ScriptedModel(["done"])).run_sync("hello").text)
print(type(log.engine).__name__, log.engine.info().url)
"""
    done = python(installed, "-c", code, where=tmp_path)
    assert done.stdout.split("\n")[:2] == ["done", f"LittleEngine {url}"], done.stderr
    shown = python(installed, "-m", "logact.cli", "log", "show", url, where=tmp_path)
    assert "Output" in shown.stdout or "done" in shown.stdout, shown.stderr
    missing = python(tmp_path, "-m", "logact.cli", "log", "show", url, where=tmp_path)
    assert missing.returncode == 2 and "No engine serves this log URL" in missing.stderr


def test_it_passes_the_suite(installed: Path, tmp_path: Path) -> None:
    """The conformance suite, adopted in three lines, runs against what is installed."""
    suite = tmp_path / "test_little_engine.py"
    suite.write_text((EXAMPLE / "test_little_engine.py").read_text())
    done = python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite), where=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and int(done.stdout.split(" passed")[0].split()[-1]) >= 45
