"""Damage: what is found, what refuses to act, what can be salvaged, and what a trim may drop."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from logact import codec
from logact.entry import Checkpoint, Notice
from logact.errors import LogCorrupt, UsageError
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.salvage import salvage
from logact.logs.url import open_log
from logact.logs.verify import verify
from logact.models.scripted import call
from logact.runtime.repairing import repair
from logact.runtime.tail import Tail
from logact.runtime.trimming import trim
from logact.runtime.witnessing import begin_witness
from tests.cli_help import here
from tests.recovery.kit import Flaky, an_agent

TURNS = 12
SCRIPT = [*[call("send", item=f"{number} " + "x" * 300 * number) for number in range(TURNS)], "done"]


def log_of(file: Path) -> SharedLog:
    """The log in a file."""
    return open_log(f"sqlite:///{file}")


async def written(file: Path, script: Any = SCRIPT, task: str = "go", **more: Any) -> Flaky:
    """A file with one finished run, and the tool that it used."""
    tool = Flaky()
    agent = an_agent(MemoryEngine(), script, [tool.tool], **more)
    agent.log = log_of(file)
    async with agent.log:
        await agent.run(task)
    return tool


def rows(file: Path, statement: str, *values: Any) -> list[Any]:
    """Run one statement on the file, as somebody with a SQLite shell would."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def bodies(file: Path) -> list[bytes]:
    """All record bodies of a file."""
    return [body for (body,) in rows(file, "SELECT body FROM records ORDER BY id")]


async def test_a_sound_file_is_salvaged_whole(tmp_path: Path) -> None:
    """Page by page the same records and blobs are found as SQLite finds; the copy is the same log, ready to act."""
    tool = await written(tmp_path / "a.db", [*SCRIPT[:-1], call("send", item="y" * 300_000), "done"])
    done = await repair(tmp_path / "a.db", tmp_path / "b.db")
    assert done.complete
    assert bodies(tmp_path / "b.db")[:-1] == bodies(tmp_path / "a.db")
    async with log_of(tmp_path / "a.db") as one, log_of(tmp_path / "b.db") as two:
        assert one.log_id == two.log_id
        assert (await verify(two)).sound
        agent = an_agent(MemoryEngine(), [call("send", item="new"), "more"], [tool.tool])
        agent.log = two
        assert (await agent.run("another")).ok


async def test_what_is_still_in_the_write_ahead_log_counts(tmp_path: Path) -> None:
    """A file that was copied while it was open has its last records in the write-ahead log only."""
    tool = Flaky()
    agent = an_agent(MemoryEngine(), SCRIPT, [tool.tool])
    agent.log = log_of(tmp_path / "a.db")
    async with agent.log:
        await agent.run("go")
        for suffix in ("", "-wal"):
            if (tmp_path / f"a.db{suffix}").exists():
                shutil.copy(tmp_path / f"a.db{suffix}", tmp_path / f"c.db{suffix}")
        count = len([entry async for entry in agent.log.read()])
    assert (await repair(tmp_path / "c.db", tmp_path / "d.db")).entries == count


async def test_a_flipped_bit_in_a_payload(tmp_path: Path) -> None:
    """It is found, nobody acts on it, and the repaired log has all but that payload, and verifies."""
    await written(tmp_path / "a.db")
    number, body = rows(
        tmp_path / "a.db", "SELECT id, body FROM records WHERE instr(CAST(body AS TEXT), '3 xxx') LIMIT 1"
    )[0]
    flipped = body.replace(b"3 xxx", b"3 xyx", 1)
    rows(tmp_path / "a.db", "UPDATE records SET body = ? WHERE id = ?", flipped, number)
    async with log_of(tmp_path / "a.db") as log:
        found = await verify(log)
        assert not found.sound
        assert found.problems[0].position // 1000 == number & (2**40 - 1)
    with pytest.raises(LogCorrupt):
        await written(tmp_path / "a.db", task="again")
    done = await repair(tmp_path / "a.db", tmp_path / "b.db")
    assert len(done.unreadable) == 1
    assert not done.missing
    async with log_of(tmp_path / "b.db") as log:
        assert not (await verify(log)).problems


async def test_dropped_and_reordered_records(tmp_path: Path) -> None:
    """Both are found; the repaired log says which positions are gone, and every run in it has ended."""
    await written(tmp_path / "a.db")
    numbers = [row[0] for row in rows(tmp_path / "a.db", "SELECT id FROM records ORDER BY id")]
    shutil.copy(tmp_path / "a.db", tmp_path / "swapped.db")
    one, two = numbers[5], numbers[6]
    for first, second in ((one, -1), (two, one), (-1, two)):
        rows(tmp_path / "swapped.db", "UPDATE records SET id = ? WHERE id = ?", second, first)
    async with log_of(tmp_path / "swapped.db") as log:
        assert not (await verify(log)).sound
    base = numbers[0] - 1
    rows(tmp_path / "a.db", "DELETE FROM records WHERE id IN (?, ?)", numbers[5], numbers[6])
    async with log_of(tmp_path / "a.db") as log:
        assert not (await verify(log)).sound
    done = await repair(tmp_path / "a.db", tmp_path / "b.db")
    assert done.missing == (((numbers[5] - base) * 1000, (numbers[6] - base) * 1000),)
    async with log_of(tmp_path / "b.db") as log:
        assert not (await verify(log)).problems
        state = (await history(log)).state
        assert all(run.status != "running" for run in state.runs.values())
        assert not state.startable()
    again = Flaky()
    agent = an_agent(MemoryEngine(), [call("send", item="new"), "more"], [again.tool])
    agent.log = log_of(tmp_path / "b.db")
    async with agent.log:
        assert (await agent.run("another")).ok
    assert len(again.calls) == 1


@pytest.mark.parametrize("seed", range(12))
async def test_bits_flipped_anywhere_in_the_file(tmp_path: Path, seed: int) -> None:
    """Whatever is hit, what is salvaged is what was written, and it is said that something is missing."""
    await written(tmp_path / "a.db", checkpoint_every=20)
    before = {codec.read_head(body)[1] for body in bodies(tmp_path / "a.db")}
    total = len(before)
    data = bytearray((tmp_path / "a.db").read_bytes())
    chance = random.Random(seed)
    for _ in range(6):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    (tmp_path / "bad.db").write_bytes(data)
    found = salvage(tmp_path / "bad.db")
    assert {codec.read_head(body)[1] for body in found.bodies.values()} <= before
    done = await repair(tmp_path / "bad.db", tmp_path / "b.db")
    assert done.records >= total - 12
    gone = sum((last - first) // 1000 + 1 for first, last in done.missing)
    assert done.records + gone == total or done.records + gone == max(found.bodies)
    async with log_of(tmp_path / "b.db") as log:
        assert not (await verify(log)).problems


async def test_a_record_number_that_a_flipped_bit_carried_away(tmp_path: Path) -> None:
    """A record that now claims to be the billionth does not make a billion missing ones of the repaired log."""
    await written(tmp_path / "a.db")
    count = len(bodies(tmp_path / "a.db"))
    rows(
        tmp_path / "a.db",
        "UPDATE records SET id = id + (1 << 33) WHERE id = (SELECT id FROM records LIMIT 1 OFFSET 5)",
    )
    found = salvage(tmp_path / "a.db")
    assert len(found.bodies) == count - 1 and "far from all others" in found.notes[-1]
    done = await repair(tmp_path / "a.db", tmp_path / "b.db")
    assert done.records == count - 1 and done.missing == ((6000, 6000),)


async def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    """Half of the file: what is there is salvaged, and the lost tail is told."""
    await written(tmp_path / "a.db")
    data = (tmp_path / "a.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(data[: len(data) * 6 // 10])
    done = await repair(tmp_path / "cut.db", tmp_path / "b.db")
    assert "cut off" in done.lost_tail
    assert not done.complete
    assert 0 < done.records < len(bodies(tmp_path / "a.db"))
    async with log_of(tmp_path / "b.db") as log:
        assert not (await verify(log)).problems


async def test_an_old_backup_and_a_lost_tail_are_found_through_a_witness(tmp_path: Path) -> None:
    """An agent with a witness refuses to act on a log that lost entries; verify and repair say so too."""
    heads = tmp_path / "elsewhere.heads"
    await written(tmp_path / "a.db", witness=heads)
    shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
    await written(tmp_path / "a.db", task="again", witness=heads)
    await written(tmp_path / "a.db", task="and again", witness=heads)
    shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
    async with log_of(tmp_path / "a.db") as log:
        assert not (await verify(log)).problems, "by itself it is a perfect log"
        assert not (await verify(log, witness=heads)).sound
    with pytest.raises(LogCorrupt, match="witness"):
        await written(tmp_path / "a.db", task="once more", witness=heads)
    done = await repair(tmp_path / "a.db", tmp_path / "b.db", witness=heads)
    assert "witness saw" in done.lost_tail
    with pytest.raises(UsageError, match="exists"):
        await repair(tmp_path / "a.db", tmp_path / "b.db")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9, 0.99], ids=lambda kept: f"{kept:.0%} of it left")
async def test_a_write_ahead_log_that_is_lost_or_cut(tmp_path: Path, kept: float) -> None:
    """What is left is a whole beginning of the log, no batch by half; a witness finds what is gone."""
    heads = tmp_path / "elsewhere.heads"
    await written(tmp_path / "a.db")  # in the file: the last to close moves everything there
    async with log_of(tmp_path / "a.db") as log:
        await begin_witness(log, heads)
    before = len(bodies(tmp_path / "a.db"))
    agent = an_agent(MemoryEngine(), SCRIPT, [Flaky().tool], witness=heads)
    agent.log = log_of(tmp_path / "a.db")
    async with agent.log:
        await agent.run("again")
        whole = [stored.body for stored in (await agent.log.engine.read(0)).records]
        journal = (tmp_path / "a.db-wal").read_bytes()
        shutil.copy(tmp_path / "a.db", tmp_path / "c.db")
        (tmp_path / "c.db-wal").write_bytes(journal[: int(len(journal) * kept)])
    async with log_of(tmp_path / "c.db") as log:
        left = [stored.body for stored in (await log.engine.read(0)).records]
        assert left == whole[: len(left)]
        assert before <= len(left) < len(whole)
        assert not (await verify(log)).problems, "by itself it is a perfect log"
        assert not (await verify(log, witness=heads)).sound


async def test_another_history_of_the_same_length_is_found(tmp_path: Path) -> None:
    """A log that went on differently after it was put back is not the one that the witness saw."""
    heads = tmp_path / "elsewhere.heads"
    await written(tmp_path / "a.db", witness=heads)
    shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
    await written(tmp_path / "a.db", task="again", witness=heads)
    shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
    await written(tmp_path / "a.db", task="otherwise")
    await written(tmp_path / "a.db", task="and longer")
    with pytest.raises(LogCorrupt, match="another history"):
        await written(tmp_path / "a.db", task="once more", witness=heads)


async def test_a_trim_keeps_what_is_open_and_what_a_run_needs(tmp_path: Path) -> None:
    """Before the last checkpoint but one everything goes, into a verified archive; agents go on."""
    file = tmp_path / "a.db"
    for number in range(4):
        await written(file, task=f"task {number}", checkpoint_every=25)
    async with log_of(file) as log:
        await log.tail()
        whole = len([entry async for entry in log.read()])
        done = await trim(log, archive=tmp_path / "archive.db")
        assert done.before
        assert not (await verify(log)).problems
        assert not (await trim(log)).before, "nothing more"
    async with log_of(tmp_path / "archive.db") as archive:
        assert len([entry async for entry in archive.read()]) == whole
    await written(file, task="after")
    async with log_of(file) as log:
        assert (await history(log)).trimmed
        assert not (await verify(log)).problems


def test_what_is_said_of_a_trimmed_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sound, without a count of "no effect" that only means the trim; its past is said to be gone, once."""
    monkeypatch.chdir(tmp_path)

    async def trimmed() -> tuple[int, int, int]:
        for number in range(4):
            await written(Path("a.db"), task=f"task {number}", checkpoint_every=25)
        async with log_of(tmp_path / "a.db") as log:
            before = (await trim(log, archive=Path("old.db"))).before
            kept = [one.payload.upto async for one in log.read(before - 1) if isinstance(one.payload, Checkpoint)]
            return before, kept[0], await log.tail() - 1000

    before, checkpoint, last = asyncio.run(trimmed())
    verified = here("log", "verify", "a.db")
    assert verified.returncode == 0
    assert "depends on what was trimmed" in " ".join(verified.stdout.split())
    assert "took no effect\n" not in verified.stdout and "were compared" not in verified.stdout
    found = json.loads(here("log", "verify", "a.db", "--json").stdout)
    assert (found["ok"], found["ineffective"], found["checkpoints"]) == (True, 0, 0)
    assert json.loads(here("log", "verify", "old.db", "--json").stdout)["checkpoints"] > 1
    refused = here("fork", f"a.db@{last}", "new.db")
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert said.count("received") == said.count("expected") == 1 and "fork the archive" in said.lower(), said
    assert f"begins at position {before}" in said
    assert here("fork", f"old.db@{last}", "new.db").returncode == 0
    # as of a position: the fold there, not that of the end
    middle = checkpoint + 4000
    both = [json.loads(here("state", f"{log}@{middle}", "--json").stdout) for log in ("a.db", "old.db")]
    assert middle - 1000 < both[0]["position"] <= middle
    for name in ("position", "chain", "runs", "open_actions", "policies"):
        assert both[0][name] == both[1][name], name
    early = here("state", f"a.db@{checkpoint - 1000}")
    assert early.returncode == 2 and f"expected {checkpoint} or later" in " ".join(early.stderr.split())


async def test_a_trim_without_checkpoints_drops_nothing(tmp_path: Path) -> None:
    """Two usable checkpoints have to stay; a damaged log is not trimmed at all."""
    await written(tmp_path / "a.db", checkpoint_every=0)
    async with log_of(tmp_path / "a.db") as log:
        done = await trim(log)
        assert not done.before
        assert "checkpoints" in done.held_by[0]
    number = rows(tmp_path / "a.db", "SELECT max(id) FROM records")[0][0]
    rows(tmp_path / "a.db", "DELETE FROM records WHERE id = ?", number - 2)
    async with log_of(tmp_path / "a.db") as log:
        with pytest.raises(LogCorrupt, match="not trimmed"):
            await trim(log)


async def test_a_fold_of_large_records_reaches_the_tail(tmp_path: Path) -> None:
    """Was ending at the first page that was cut by its bytes, so a process took up the agent on an old fold."""
    async with log_of(tmp_path / "a.db") as log:
        for _ in range(40):
            notes = [Notice(code="large", message="x" * 100_000) for _ in range(7)]
            await log.append(*notes, role="client")
        tail = Tail(log)
        await tail.start()
        assert tail.state.position // 1000 == 40
