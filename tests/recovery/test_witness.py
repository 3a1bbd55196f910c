"""Witnesses in files and in other logs, signed or not; and what is verified in the background."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from logact import codec
from logact.entry import Control, Finding, Notice, end_of, position_of
from logact.errors import LogCorrupt, UsageError
from logact.logs.signing import create_key
from logact.logs.verify import verify
from logact.logs.witness import FileWitness, Head, LogWitness, forged, heads_at, read_heads, signed
from logact.runtime.host import Host
from logact.runtime.tail import Tail
from logact.runtime.verifying import BackgroundCheck
from tests.recovery.test_damage import log_of, rows, written
from tests.server.kit import ServerProcess, token_file


async def test_another_log_is_a_witness(tmp_path: Path) -> None:
    """The heads of two logs stand in a third; an agent refuses to act on the one that lost entries only."""
    place = f"sqlite:///{tmp_path}/heads.db"
    await written(tmp_path / "a.db", witness=place)
    await written(tmp_path / "other.db", witness=place)
    shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
    await written(tmp_path / "a.db", task="again", witness=place)
    shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
    async with log_of(tmp_path / "a.db") as log:
        assert not (await verify(log, witness=place)).sound
        assert (await verify(log)).sound, "by itself it is a perfect log"
    with pytest.raises(LogCorrupt, match="witness saw entries up to"):
        await written(tmp_path / "a.db", task="once more", witness=place)
    await written(tmp_path / "other.db", task="again", witness=place)
    async with log_of(tmp_path / "other.db") as log:
        report = await verify(log, witness=place)
        assert report.sound and report.witnessed >= 2


def test_a_served_log_is_a_witness(tmp_path: Path) -> None:
    """Heads on a server: who owns the log's file cannot take them back, and an old backup is refused."""
    server = ServerProcess(f"sqlite:///{tmp_path}/served.db")

    async def work(place: str) -> None:
        await written(tmp_path / "a.db", witness=place)
        shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
        await written(tmp_path / "a.db", task="again", witness=place)
        async with log_of(tmp_path / "a.db") as log:
            assert (await verify(log, witness=place)).witnessed
        shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
        with pytest.raises(LogCorrupt, match="witness saw entries up to"):
            await written(tmp_path / "a.db", task="once more", witness=place)

    try:
        server.make("heads")
        asyncio.run(work(server.url("heads", token_file=token_file(tmp_path, server.token()))))
    finally:
        server.stop()


async def test_a_log_is_not_its_own_witness(tmp_path: Path) -> None:
    """Whoever cuts a log's tail off would cut off the heads in it, so it is refused."""
    with pytest.raises(UsageError, match="its own witness"):
        await written(tmp_path / "a.db", witness=f"sqlite:///{tmp_path}/a.db")


@pytest.mark.parametrize("kind", ["file", "log"])
async def test_signed_heads_cannot_be_made_up(tmp_path: Path, kind: str) -> None:
    """Who can write to log and witness, but has no key, can neither hide a cut tail nor stop an agent."""
    key = create_key(tmp_path / "heads.key")
    other_key = create_key(tmp_path / "other.key")
    place = str(tmp_path / "heads") if kind == "file" else f"sqlite:///{tmp_path}/heads.db"
    await written(tmp_path / "a.db", witness=place, signing_key=tmp_path / "heads.key")
    public = key.public
    async with log_of(tmp_path / "a.db") as log:
        assert (await verify(log, witness=place, key=public)).sound
        log_id = log.log_id
    made_up = Head(log=log_id, position=position_of(9999), chain="0" * 64)
    for head in (made_up, signed(made_up, other_key)):
        if kind == "file":
            await FileWitness(Path(place)).write(head)
        else:
            async with log_of(tmp_path / "heads.db") as heads:
                await LogWitness(heads).write(head)
    async with log_of(tmp_path / "a.db") as log:
        report = await verify(log, witness=place, key=public)
        assert [one.what for one in report.problems] == [
            "the witness's head of this position is not signed by the key"
        ] * 2
        other = await verify(log, witness=place, key=other_key.public)
        assert not other.sound and other.witnessed == 0
    await written(tmp_path / "a.db", task="again", witness=place, signing_key=tmp_path / "heads.key")
    assert len(forged(await heads_at(place), public)) == 2


async def test_a_changed_head_is_not_signed_any_more(tmp_path: Path) -> None:
    """A signature covers log, position, chain and time."""
    key = create_key(tmp_path / "heads.key")
    head = signed(Head(log="a", position=1000, chain="c", time_ms=5), key)
    await FileWitness(tmp_path / "heads").write(head)
    assert read_heads(tmp_path / "heads") == [head]
    assert forged([head], key.public) == []
    for change in ({"log": "b"}, {"position": 2000}, {"chain": "d"}, {"time_ms": 6}, {"signature": ""}):
        changed = msgspec.structs.replace(head, **change)
        assert forged([changed], key.public) == [changed]


async def checked(file: Path) -> BackgroundCheck:
    """A process that starts from the last checkpoint, and what its background check finds."""
    async with log_of(file) as log:
        host = Host(log, "ops", tail=Tail(log))
        await host.tail.start()
        assert host.tail.checkpoint is not None and not host.state.broken, "the start itself sees nothing wrong"
        check = BackgroundCheck(host, begin_s=0.0, share=1.0)
        assert check.needed
        await asyncio.wait_for(check.run(), 30)
        return check


async def test_damage_before_the_checkpoint_is_found_in_the_background(tmp_path: Path) -> None:
    """The start reads nothing there; the background check finds it, says so once, and pauses the log once."""
    file = tmp_path / "a.db"
    await written(file, checkpoint_every=20)
    assert (await checked(file)).problems == ()
    number, body = rows(file, "SELECT id, body FROM records ORDER BY id LIMIT 1 OFFSET 3")[0]
    at = body.index(b"item") + 10
    rows(file, "UPDATE records SET body = ? WHERE id = ?", body[:at] + b"?" + body[at + 1 :], number)
    with pytest.raises(LogCorrupt):
        codec.check_record(rows(file, "SELECT body FROM records WHERE id = ?", number)[0][0])
    for _ in range(2):
        found = (await checked(file)).problems
        assert found and found[0].position == position_of(4)
    async with log_of(file) as log:
        told = [entry.payload async for entry in log.read(end_of(4)) if isinstance(entry.payload, Finding | Control)]
    assert [type(one).__name__ for one in told] == ["Finding", "Control"]
    assert isinstance(told[0], Finding) and told[0].code == "log_damaged"
    assert isinstance(told[1], Control) and (told[1].verb, told[1].scope) == ("pause", "log")


async def test_notices_of_others_are_no_heads(tmp_path: Path) -> None:
    """A witness log may hold anything else, too."""
    async with log_of(tmp_path / "heads.db") as log:
        await log.append(Notice(code="head", message="of cabbage"), role="client", name="cook")
        assert await LogWitness(log).read() == []
