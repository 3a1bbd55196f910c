"""A fork that dies or fails half-way is no log that anybody uses."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from logact.errors import LogCorrupt
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.url import open_log
from logact.models.scripted import call
from logact.runtime.forking import fork
from tests.cli_help import here
from tests.recovery.kit import Flaky, an_agent, entries, folded

SCRIPT = [call("send", item="x" * 300_000), call("send", item="b"), "done"]


async def parent(file: Path) -> int:
    """A log in a file; the position of its first result."""
    async with open_log(f"sqlite:///{file}") as log:
        agent = an_agent(MemoryEngine(), SCRIPT, [Flaky().tool])
        agent.log = log
        await agent.run("go")
        results = [one.position async for one in log.read() if one.kind == "Result"]
        return results[0]


def refused(file: Path) -> None:
    """No command and no agent uses it, each says what to do, and the file stays as it is."""
    before = file.read_bytes()
    for command in (["state"], ["resume"], ["log", "show"]):
        shown = here(*command, str(file))
        assert shown.returncode == 3 and "delete it, and fork again" in " ".join(shown.stderr.split()), shown

    async def agent() -> int:
        tool = Flaky()
        async with open_log(f"sqlite:///{file}") as log:
            one = an_agent(MemoryEngine(), SCRIPT, [tool.tool])
            one.log = log
            tail = await log.tail()
            with pytest.raises(LogCorrupt, match="not completed"):
                await one.run()
            with pytest.raises(LogCorrupt, match="not completed"):
                await one.run("go", new=True)
            assert await log.tail() == tail, "nothing was appended"
        return len(tool.calls)

    assert asyncio.run(agent()) == 0
    assert len(before) > 0


@pytest.mark.parametrize("point", ["fork:record:1", "fork:moved:1"])
def test_a_fork_that_is_killed_is_refused(tmp_path: Path, point: str) -> None:
    """kill -9 in the middle: the half copy was a live log, whose run went on and did its action again."""
    position = asyncio.run(parent(tmp_path / "a.db"))
    command = [sys.executable, "-m", "logact.cli", "fork", f"{tmp_path}/a.db@{position}", f"{tmp_path}/half.db"]
    killed = subprocess.run(command, env={**os.environ, "LOGACT_CRASH_AT": point}, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    refused(tmp_path / "half.db")
    again = here("fork", f"{tmp_path}/a.db@{position}", f"{tmp_path}/half.db")
    assert again.returncode == 2 and "interrupted" in again.stderr
    assert here("fork", f"{tmp_path}/a.db@{position}", f"{tmp_path}/whole.db").returncode == 0
    assert here("state", f"{tmp_path}/whole.db").returncode == 0


def test_a_damaged_blob_leaves_no_log_behind(tmp_path: Path) -> None:
    """The copy ends at the blob, the command says that the target is to be deleted, and nobody uses it."""
    position = asyncio.run(parent(tmp_path / "a.db"))
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("UPDATE blobs SET data = substr(data, 2)")
    shown = here("fork", f"{tmp_path}/a.db@{position}", f"{tmp_path}/half.db")
    assert shown.returncode == 3 and "is not complete" in shown.stderr, shown
    refused(tmp_path / "half.db")


@pytest.mark.parametrize("target", ["{}/none/b.db", "postgresql://u:pw@127.0.0.1:1/x", "{}/full.db"])
def test_what_was_not_begun_is_not_to_be_deleted(tmp_path: Path, target: str) -> None:
    """A target that cannot be reached, or that holds a log, is somebody's: the command does not say to delete it."""
    position = asyncio.run(parent(tmp_path / "a.db"))
    asyncio.run(parent(tmp_path / "full.db"))
    shown = here("fork", f"{tmp_path}/a.db@{position}", target.format(tmp_path))
    assert shown.returncode in (2, 5) and "is not complete" not in shown.stderr, shown


def test_a_whole_fork_that_is_damaged_can_be_looked_at(tmp_path: Path) -> None:
    """Damage before the mark of its end makes it no half fork: verification names the damage."""
    position = asyncio.run(parent(tmp_path / "a.db"))
    assert here("fork", f"{tmp_path}/a.db@{position}", f"{tmp_path}/b.db").returncode == 0
    with sqlite3.connect(tmp_path / "b.db") as database:
        third = database.execute("SELECT id FROM records ORDER BY id LIMIT 1 OFFSET 2").fetchone()
        database.execute("UPDATE records SET body = substr(body, 1, length(body) - 1) || x'00' WHERE id = ?", third)
    shown = here("log", "verify", f"{tmp_path}/b.db")
    assert shown.returncode == 3 and "3000" in shown.stdout + shown.stderr, shown
    assert "fork again" not in shown.stdout + shown.stderr


async def test_a_fork_of_a_fork_is_no_half_one() -> None:
    """The mark that came along with the past is of another fork; from any point of a fork another one can begin."""
    engine = MemoryEngine()
    await an_agent(engine, [call("send", item="a"), "done"], [Flaky().tool]).run("go")
    one = MemoryEngine()
    await fork(SharedLog(engine), (await entries(engine, "Result"))[0].position, SharedLog(one))
    assert [entry.payload.step for entry in await entries(one, "Fork")] == ["begun", "done"]  # type: ignore[attr-defined]
    for record in range(1, one.tail_now() + 1):
        two = MemoryEngine()
        await fork(SharedLog(one), record * 1000, SharedLog(two), keep_parent=True)
        state = await folded(two)
        assert not state.halted and not state.forking
