"""Every example runs as it stands, in an empty directory, and says what it promises."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from examples.main_job.prepare import TASK, Demo, Expected, prepare
from examples.main_job.prove import prove
from examples.main_job.story import COLUMNS, Story

from logact import open_log

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

SAID = {
    "quickstart": ["Order A17 is refunded."],
    "own_loop": ["search: done: search: 600 per minute", "login: stopped: not_too_low: that locks people out"],
    "source_agent": [
        "proposed ['notes.txt', 'taxes.txt']",
        "False not validated: it is proposed",
        "True notes.txt is removed ['taxes.txt']",
        "False ['taxes are kept for ten years'] ['taxes.txt']",
        "{} True",
    ],
    "source_recovery": [
        "first -> proposed first",
        "second -> skipped second",
        "third -> proposed archive",
        "own first -> executed sent to first after 2 retries",
        "own second -> failed_final None after 3 retries",
        "shipped first -> executed sent to first after 2 retries",
        "shipped second -> failed_final None after 3 retries",
    ],
    "source_introspection": [
        "issues: ['look 2 times', 'look 2 times', 'look 2 times']",
        "health: healthy",
        "a model says: The shelf is looked at again and again. cites 1",
        "looks before: 12 - after: 0",
    ],
    "source_swarm": [
        f"{kind} ['jam', 'label of jam'] ['jam is on the shelf', 'label of jam is on the shelf']"
        for kind in ("OwnMultiAgent", "MultiAgentLogAct")
    ],
    "source_voters": ["-> sent to ann@example.org", "['action unsafe']", "['resources exhausted']", "['it is rude']"],
    "source_interceptor": [
        "OwnInterceptor -> dropped scratch",
        "OwnInterceptor: stopped by rule: no-production",
        "rules -> dropped scratch",
        "rules: stopped by rule: no-production",
    ],
}


def run(*command: str, where: Path, timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
    """A command of its own, without the settings of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGACT_")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=where,
        env={**environment, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_every_example_is_run() -> None:
    """No example is left out of these tests."""
    files = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"}
    assert files == set(SAID)
    assert {path.name for path in EXAMPLES.iterdir() if (path / "__main__.py").exists()} == {"main_job", "served"}


@pytest.mark.parametrize("name", sorted(SAID))
def test_an_example(name: str, tmp_path: Path) -> None:
    """It ends well and prints what it is about."""
    done = run(str(EXAMPLES / f"{name}.py"), where=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in SAID[name]:
        assert text in done.stdout


def test_the_quickstart_knows_that_it_ran(tmp_path: Path) -> None:
    """The second time it refunds nothing."""
    run(str(EXAMPLES / "quickstart.py"), where=tmp_path)
    again = run(str(EXAMPLES / "quickstart.py"), where=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("This task was finished before")


@pytest.mark.slow
@pytest.mark.timeout(400)  # seconds on an idle machine, minutes on a crowded one
def test_the_main_job(tmp_path: Path) -> None:
    """A small form of ``make demo``: killed twice, proven at the end, in 80 columns."""
    options = ["--home", str(tmp_path / "demo"), "--files", "250", "--kills", "2", "--seed", "4"]
    done = run("-m", "examples.main_job", *options, where=tmp_path, timeout_s=350)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 8 proofs hold." in done.stdout
    assert "3, 2 ended by SIGKILL" in done.stdout
    assert "the built-in scripted planner drives" in done.stdout
    assert "REFUSED delete_file" in done.stdout
    long = [line for line in done.stdout.splitlines() if len(line) > COLUMNS and str(tmp_path) not in line]
    assert long == []


def proofs_of(demo: Demo, expected: Expected) -> dict[str, bool]:
    """What the proofs say of a workspace on which no agent has worked."""

    async def look() -> dict[str, bool]:
        async with open_log("memory:") as log:
            found = await prove(demo, expected, log, Story(), None)
        return {proof.claim: proof.holds for proof in found}

    return asyncio.run(look())


def test_the_proofs_of_the_main_job_can_fail(tmp_path: Path) -> None:
    """They are not vacuous: work that was not done, files that were changed and deleted, are seen."""
    demo, expected = prepare(tmp_path / "demo", seed=1, files_max=60, shell=False)
    assert len(expected.moved) >= 20 and TASK
    idle = proofs_of(demo, expected)
    assert not idle["one run, begun once, answered once"]
    assert not idle["the manifest is what sha256sum says"]
    assert not idle["quarantine holds exactly the duplicates"]
    assert not idle["no file is lost or changed, none is new"]
    for name, target in expected.moved.items():
        (demo.workspace / name).rename(demo.workspace / target)
    assert proofs_of(demo, expected)["quarantine holds exactly the duplicates"]
    assert proofs_of(demo, expected)["no file is lost or changed, none is new"]
    kept = next(path for path in sorted((demo.workspace / "stdlib").rglob("*.py")) if path.stat().st_size)
    kept.write_text("changed")
    assert not proofs_of(demo, expected)["no file is lost or changed, none is new"]
    (demo.outside / "keep.txt").unlink()
    assert not proofs_of(demo, expected)["what the planted file asked for never began"]


def test_served(tmp_path: Path) -> None:
    """The served example: six parts with a token each do the job, and a stolen driver's token is good for nothing."""
    done = run("-m", "examples.served", where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told_by_served(done.stdout)


def told_by_served(said: str) -> None:
    """What the served example says, whatever it is served over."""
    assert "answer: A17 is paid. B99 was not allowed." in said
    assert said.count("refused to the driver's token") == 5
    assert "in the ledger: ['A17 1250']" in said
    assert "executor (executor) wrote" in said and "ann (client) wrote 1 Input, 1 Run" in said
    codes = said.split("all ended: ")[1].strip().split(", ")
    assert len(codes) == 7 and all(code.endswith(" 0") for code in codes)
