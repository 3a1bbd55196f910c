"""Where an agent may go on after damage before its checkpoint, people can look, and settle what is in doubt."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from logact import Tool, ToolError
from logact.errors import InDoubt, LogCorrupt
from logact.introspection.history import history
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from tests.cli_help import here
from tests.recovery.kit import an_agent
from tests.recovery.test_damage import log_of, rows, written

SCRIPT = [*[call("send", item=str(number)) for number in range(12)], call("send", item="last"), "done"]


async def plays(file: Path) -> bool:
    """A life of an agent that finished a run before, and whose last action ends in doubt; whether its run is done."""
    if not file.exists():
        await written(file, task="before")

    async def send(item: str) -> str:
        """Send an item."""
        if item == "last":
            raise ToolError("the line broke", kind="ambiguous")
        return "sent"

    tool = Tool(send, effect="irreversible")
    agent = an_agent(MemoryEngine(), SCRIPT, [tool], checkpoint_every=20)
    agent.log = log_of(file)
    async with agent.log:
        try:
            return (await agent.run("go")).ok
        except InDoubt:
            return False


def damage(file: Path, offset: int) -> None:
    """Make one record unreadable."""
    rows(file, "UPDATE records SET crc = crc + 1 WHERE id = (SELECT id FROM records LIMIT 1 OFFSET ?)", offset)


def test_people_can_settle_where_the_agent_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look begins at the checkpoint and says so; a settlement counts; the run goes on (all exited with 3)."""
    monkeypatch.chdir(tmp_path)
    assert not asyncio.run(plays(Path("a.db")))
    whole = json.loads(here("doubt", "a.db", "--json").stdout)
    damage(Path("a.db"), 3)
    shown = here("doubt", "a.db", "--json")
    assert shown.returncode == 4 and json.loads(shown.stdout)["action"] == whole["action"]
    assert "DAMAGED" in shown.stderr and "begins at the checkpoint" in " ".join(shown.stderr.split())
    for command in (["actions", "a.db"], ["state", "a.db"], ["log", "show", "a.db"], ["diff", "a.db", "a.db"]):
        looked = here(*command)
        assert looked.returncode == 0, command
        assert "DAMAGED" in looked.stderr, command
    number = str(whole["action"])
    assert here("doubt", "a.db", number, "--happened", "--reason", "seen").returncode == 0
    assert here("doubt", "a.db").returncode == 0
    assert asyncio.run(plays(Path("a.db")))
    early = here("state", "a.db@2000")
    assert early.returncode == 3 and "log repair" in " ".join(early.stderr.split())


async def test_the_questions_about_agents_are_answered_too(tmp_path: Path) -> None:
    """``get_history`` and the fold agree with the undamaged log on what is open."""
    await plays(tmp_path / "a.db")
    async with log_of(tmp_path / "a.db") as log:
        before = (await history(log)).state.open_actions
    damage(tmp_path / "a.db", 3)
    async with log_of(tmp_path / "a.db") as log:
        told = await history(log)
        assert before and told.state.open_actions == before
        assert told.damaged and "does not match" in told.damaged
        open_ones = {one.position for one in await log.get_history("ops") if one.status == "in_doubt"}
        assert open_ones == set(before)


async def test_damage_after_the_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    """There the agent does not act either: looking raises what is wrong."""
    await plays(tmp_path / "a.db")
    count = rows(tmp_path / "a.db", "SELECT count(*) FROM records")[0][0]
    damage(tmp_path / "a.db", count - 2)
    async with log_of(tmp_path / "a.db") as log:
        with pytest.raises(LogCorrupt):
            await history(log)
        with pytest.raises(LogCorrupt):
            await log.get_history("ops")
    damage(tmp_path / "a.db", 3)  # and with damage on both sides of it
    async with log_of(tmp_path / "a.db") as log:
        with pytest.raises(LogCorrupt):
            await history(log)
