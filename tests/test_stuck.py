"""A log that cannot be written for a while, and a system without locks: people are told, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from logact import Action, open_log
from logact.cli.stuck import Stuck
from logact.entry import NewEntry, Result
from logact.errors import LogActError, LogFull
from logact.logs import file_lock
from logact.logs.base import Appended
from logact.runtime import executor, host
from logact.runtime.host import Host
from tests.cli_help import fits, here, lines_of, make
from tests.runtime.kit import Counter, agent, memory_log, payloads, run

FULL = LogFull("The disk is full", received="SQLITE_FULL from ops.db", todo="free space, then try again")


class Disk:
    """A disk that is full for the next ``fails`` results."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
        self.fails = fails
        real = Host.append

        async def append(mine: Host, entries: Sequence[NewEntry], **how: Any) -> Appended:
            if self.fails and any(isinstance(one.payload, Result) for one in entries):
                self.fails -= 1
                raise FULL
            return await real(mine, entries, **how)

        monkeypatch.setattr(Host, "append", append)
        monkeypatch.setattr(host, "STUCK_SAID_S", 0.0)


def test_a_full_disk_is_told_once_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the error and the time that is left; the result is written once there is room."""
    Disk(monkeypatch, 3)
    told: list[tuple[LogActError | None, float]] = []

    async def main() -> None:
        log, count = memory_log(), Counter()
        one = agent(log, tools=count.tools())
        one.stuck = lambda error, left_s: told.append((error, left_s))
        assert await one.act(Action(tool="send", arguments={"to": "x"})) == "sent x"
        assert count.done == ["send x"]
        assert len(await payloads(log, Result)) == 1

    run(main())
    (first, left_s), last = told
    assert first is FULL
    assert executor.RESULT_RETRY_S_MAX - 5 < left_s <= executor.RESULT_RETRY_S_MAX
    assert last == (None, 0.0)


@pytest.mark.parametrize("option", ["", "--quiet", "--json"])
def test_run_says_that_the_log_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """What is wrong, until when it is tried again, and what to do (a minute of silence, then an error)."""
    spec = make(tmp_path)
    Disk(monkeypatch, 2)
    done = here("run", spec, *([option] if option else []), "pay the invoice")
    assert done.returncode == 0, done.stderr
    if option == "--json":
        lines = lines_of(done.stdout)
        stuck = next(one for one in lines if one["event"] == "stuck")
        assert stuck["code"] == "log_full"
        assert stuck["until_ms"] > next(one for one in lines if one["event"] == "run")["time_ms"]
        assert "unstuck" in [one["event"] for one in lines]
        return
    said = " ".join(done.stderr.split())
    assert said.count("STUCK") == 1
    for words in ("The disk is full", "SQLITE_FULL", "tried again until", "free space", "can be written again"):
        assert words in said
    fits(done.stderr)


def test_many_actions_that_are_stuck_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten actions on a full disk are one message, and one when all of them are through."""
    stuck = Stuck()
    for _ in range(10):
        stuck(FULL, 60.0)
    for _ in range(10):
        stuck(None, 0.0)
    said = capsys.readouterr().err
    assert said.count("STUCK") == 1
    assert said.count("written again") == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("_NONE", True, "fcntl"), ("_SETLK", None, "Byte-range locks"), ("", None, "")],
)
def test_doctor_says_which_locks_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, words: str
) -> None:
    """The engine says so, and doctor shows it; the log works all the same."""
    spec = make(tmp_path)
    if name:
        monkeypatch.setattr(file_lock, name, value)
    if name == "_NONE":
        monkeypatch.setattr(file_lock, "fcntl", None)
    assert here("run", spec, "pay the invoice").returncode == 0
    checks = [json.loads(line) for line in here("doctor", spec, "--json").stdout.splitlines()]
    notes = [one["message"] for one in checks if one["check"] == "log" and one["verdict"] == "note"]
    assert any(words in one for one in notes) if words else not any("ocks" in one for one in notes)

    async def info() -> tuple[str, ...]:
        async with open_log(f"sqlite:///{tmp_path / 'ops.db'}") as log:
            return log.engine.info().notes

    assert any("take turns" in one for one in asyncio.run(info())) is bool(words)
