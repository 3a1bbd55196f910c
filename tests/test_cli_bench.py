"""``logact bench``: what it prints was measured, and nothing of it stays where it should not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_help import fits, inside, lines_of, logact

TIMED = ("append", "follow", "action")


def test_a_file_is_measured_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure has samples behind it; what was counted is what the log held; the directory is left empty."""
    monkeypatch.chdir(tmp_path)
    shown = inside("bench", "--seconds", "0.5", "--json")
    assert shown.exit_code == 0, shown.output
    (found,) = [line for line in lines_of(shown.stdout) if isinstance(line, dict)]
    for name in (*TIMED, "flush"):
        assert found[name]["samples"] >= 5
        assert 0 < found[name]["median_ms"] <= found[name]["p99_ms"]
    assert found["entries"] >= 16 + 2 * 5
    assert found["appends_per_s"] > 0
    assert found["replay_per_s"] > 0
    assert not found["notes"]
    assert list(tmp_path.iterdir()) == []


def test_it_is_read_on_a_terminal() -> None:
    """Eighty columns; a log in memory has no disk whose flush could be measured."""
    shown = inside("bench", "memory:", "--seconds", "0.3")
    assert shown.exit_code == 0
    fits(shown.stdout)
    assert "flush" not in shown.stdout.splitlines()[1]
    assert all(name in shown.stdout for name in (*TIMED, "16 writers", "replay"))


@pytest.mark.parametrize(
    "arguments", [["sqlite:///ops.db"], ["ops.db"], ["nothing:x"], ["--seconds", "0"], ["--seconds", "99999"]]
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """A file that holds a user's log is never written to; no engine, no time: exit code 2, nothing made."""
    shown = logact("bench", *arguments, cwd=tmp_path)
    assert shown.returncode == 2
    assert "received" in shown.stderr
    assert list(tmp_path.iterdir()) == []
