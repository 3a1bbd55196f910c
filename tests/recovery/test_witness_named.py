"""The witness that a specification names: asked by every command, missed where it is gone, begun anew by a person."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from logact.entry import NewEntry, Notice
from logact.errors import LogCorrupt, LogUnavailable, UsageError
from logact.logs.memory import MemoryEngine
from logact.logs.signing import create_key
from logact.logs.verify import verify
from logact.logs.witness import FileWitness, Head, LogWitness, heads_at, in_force, read_heads, signed
from logact.models.scripted import call
from logact.runtime.assembly import play_executor
from logact.runtime.host import Host
from logact.runtime.witnessing import WitnessKeeper, begin_witness
from tests.cli_help import here
from tests.recovery.kit import Flaky, an_agent
from tests.recovery.test_damage import log_of, rows
from tests.recovery.test_damage import written as written_at_length

SPEC = """
[agent]
name = "ops"

[log]
url = "sqlite:///a.db"
witness = "heads"
"""


async def written(file: Path, **more: Any) -> None:
    """A file with one more finished run of one action."""
    await written_at_length(file, [call("send", item="a"), "done"], **more)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a specification, a log that two runs left, its witness, and an old copy of the log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logact.toml").write_text(SPEC)

    async def work() -> None:
        await written(tmp_path / "a.db", witness=tmp_path / "heads")
        shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
        await written(tmp_path / "a.db", task="again", witness=tmp_path / "heads")

    asyncio.run(work())
    return tmp_path


def said(shown: Any) -> str:
    """What a command said, in one line."""
    return " ".join((shown.stdout + shown.stderr).split())


def test_an_old_backup_is_found_by_every_command(place: Path) -> None:
    """verify, repair and doctor ask the specification's witness (all three found nothing)."""
    assert here("log", "verify", "logact.toml").returncode == 0
    newest = max(head.position for head in read_heads(place / "heads"))
    shutil.copy("old.db", "a.db")
    verified = here("log", "verify", "logact.toml")
    assert verified.returncode == 3
    assert f"the witness saw entries up to {newest}" in said(verified), "the newest of them, not the first"
    assert here("log", "verify", "a.db").returncode == 0, "who names the file alone, has no witness"
    repaired = here("log", "repair", "logact.toml", "b.db")
    assert repaired.returncode == 1 and "log witness" in said(repaired)
    looked = here("doctor", "logact.toml", "--json")
    found = [json.loads(line) for line in looked.stdout.splitlines()]
    assert looked.returncode == 1
    assert [one["verdict"] for one in found if one["check"] == "witness"] == ["FAILED"]


def test_the_way_on_after_a_repair(place: Path) -> None:
    """The repaired log is refused until a person has the witness begin with it; then everything goes on, and the
    old copy is refused as before (was refused for good, and nothing said how)."""
    shutil.copy("old.db", "a.db")
    assert here("log", "repair", "logact.toml", "b.db").returncode == 1
    shutil.copy("b.db", "a.db")
    with pytest.raises(LogCorrupt, match="log witness"):
        asyncio.run(written(place / "a.db", task="more", witness=place / "heads"))
    begun = here("log", "witness", "logact.toml", "--reason", "the disk failed", "--json")
    assert begun.returncode == 0, said(begun)
    asyncio.run(written(place / "a.db", task="more", witness=place / "heads"))
    assert here("log", "verify", "logact.toml").returncode == 0
    assert here("doctor", "logact.toml").returncode == 0
    assert "the disk failed" in here("log", "show", "a.db", "--kind", "Notice", "--detail").stdout
    shutil.copy("b.db", "a.db")
    assert here("log", "verify", "logact.toml").returncode == 3


@pytest.mark.parametrize("how", ["missing", "empty", "torn", "garbage", "unmounted"])
def test_a_witness_that_is_gone_is_missed(place: Path, how: str) -> None:
    """Where agents acted, it is refused with what to do, and nothing is written to it (a new one was begun)."""
    heads = place / "heads"
    content = {"empty": b"", "torn": b'{"log":"fp1ev', "garbage": b"dear diary\n"}.get(how)
    heads.unlink()
    if content is not None:
        heads.write_bytes(content)
    witness = place / "nowhere" / "heads" if how == "unmounted" else heads
    kind = LogUnavailable if how == "garbage" else LogCorrupt
    with pytest.raises(kind) as raised:
        asyncio.run(written(place / "a.db", task="more", witness=witness))
    assert raised.value.todo
    assert content is None or heads.read_bytes() == content
    assert content is not None or not heads.exists()
    verified = here("log", "verify", "logact.toml")
    assert verified.returncode == (3 if how in ("empty", "torn") else 5)
    assert here("doctor", "logact.toml").returncode == 1


async def test_a_first_run_makes_its_witness_before_it_writes(tmp_path: Path) -> None:
    """An empty log needs no ceremony; a witness that cannot be written holds the agent up before its first entry."""
    with pytest.raises(LogUnavailable, match="cannot be written"):
        await written(tmp_path / "a.db", witness=tmp_path / "nowhere" / "heads")
    assert rows(tmp_path / "a.db", "SELECT count(*) FROM records") == [(0,)]
    await written(tmp_path / "a.db", witness=tmp_path / "heads")
    assert read_heads(tmp_path / "heads")[0].position == 0
    async with log_of(tmp_path / "b.db") as log:  # what people wrote there before is no life of an agent
        await log.append(Notice(code="hello", message="of a person"))
    await written(tmp_path / "b.db", witness=tmp_path / "heads_b")
    async with log_of(tmp_path / "b.db") as log:
        assert (await verify(log, witness=tmp_path / "heads_b")).sound


async def test_parts_that_start_at_once_do_not_miss_each_others_witness(tmp_path: Path) -> None:
    """One that looked at the witness before another one began it, and at the log after, looks again."""
    async with log_of(tmp_path / "a.db") as log, log_of(tmp_path / "a.db") as other:
        second = WitnessKeeper(Host(other, "ops", part="decider"), tmp_path / "heads")
        await second.load()
        first_host = Host(log, "ops", part="executor")
        first = WitnessKeeper(first_host, tmp_path / "heads")
        await first.load()
        await first_host.tail.start()
        await first.admit()
        await first_host.append([first_host.birth()])
        await second.host.tail.start()
        for _ in range(3):
            await first_host.append([NewEntry(payload=Notice(code="x", message="x"), role="client", name="c")])
        await first.write()
        await second.admit()
        assert second.checked


async def test_a_part_asks_a_log_that_is_its_witness(tmp_path: Path) -> None:
    """A part opens its log only then: was passing over all heads, since the log's id was not known yet."""
    heads = f"sqlite:///{tmp_path}/heads.db"
    await written(tmp_path / "a.db", witness=heads)
    shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
    await written(tmp_path / "a.db", task="again", witness=heads)
    shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
    agent = an_agent(MemoryEngine(), ["done"], [Flaky().tool], witness=heads)
    agent.log = log_of(tmp_path / "a.db")
    with pytest.raises(LogCorrupt, match="witness saw entries up to"):
        async with asyncio.timeout(20):
            await play_executor(agent.log, agent)
    await agent.log.close()


async def test_a_silent_log_is_found_far_back_in_a_shared_witness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wrote much since: its heads are looked for in the whole witness."""
    monkeypatch.setattr("logact.logs.witness.LOOK_BACK_RECORDS", 2)
    async with log_of(tmp_path / "heads.db") as log:
        for name in ("mine", "other", "other", "other"):
            await LogWitness(log).write(Head(log=name, position=1000, chain="c"))
        assert {head.log for head in await LogWitness(log).read("mine")} == {"mine", "other"}
        assert {head.log for head in await LogWitness(log).read("other")} == {"other"}


async def test_only_the_key_can_begin_a_signed_witness(tmp_path: Path) -> None:
    """A beginning without the signature hides no cut tail; one that is signed cannot be taken for a plain head."""
    key = create_key(tmp_path / "heads.key")
    seen = signed(Head(log="a", position=9000, chain="c"), key)
    begun = Head(log="a", position=1000, chain="d", begins=True)
    assert in_force([seen, begun], key.public) == ([seen], [begun])
    good = signed(begun, key)
    assert in_force([seen, good], key.public) == ([good], [])
    plain = Head(log="a", position=1000, chain="d", signature=good.signature)
    assert in_force([plain], key.public) == ([], [plain])
    other = Head(log="b", position=5000, chain="e")
    assert in_force([other, seen, begun])[0] == [other, begun], "of other logs everything counts"


async def test_no_witness_begins_with_a_damaged_log(tmp_path: Path) -> None:
    """Nor in somebody's other file: both stay as they are."""
    await written(tmp_path / "a.db")
    (tmp_path / "diary").write_text("dear diary\n")
    async with log_of(tmp_path / "a.db") as log:
        with pytest.raises(LogUnavailable, match="cannot be read"):
            await begin_witness(log, tmp_path / "diary")
        with pytest.raises(LogUnavailable, match="cannot be written"):
            await begin_witness(log, tmp_path / "nowhere" / "heads")
    rows(tmp_path / "a.db", "UPDATE records SET crc = crc + 1 WHERE id = (SELECT id FROM records LIMIT 1 OFFSET 3)")
    async with log_of(tmp_path / "a.db") as log:
        with pytest.raises(LogCorrupt, match="log repair"):
            await begin_witness(log, tmp_path / "heads")
    assert (tmp_path / "diary").read_text() == "dear diary\n" and not (tmp_path / "heads").exists()


def test_a_key_without_a_witness(place: Path) -> None:
    """It is an error of usage; with a specification's witness it is used (both were ignored)."""
    assert here("log", "verify", "a.db", "--key", "zzz").returncode == 2
    key = create_key(place / "heads.key")
    wrong = here("log", "verify", "logact.toml", "--key", key.public)
    assert wrong.returncode == 3 and "not signed by the key" in said(wrong)
    (place / "logact.toml").write_text(SPEC + 'signing_key = "heads.key"\n')
    unsigned = here("log", "verify", "logact.toml")
    assert unsigned.returncode == 3 and "not signed by the key" in said(unsigned), "the key that it names is used"
    assert here("log", "witness", "a.db").returncode == 2
    assert here("log", "witness", "logact.toml").returncode == 0
    assert asyncio.run(heads_at(place / "heads"))[-1].signature


async def test_a_head_of_a_log_is_no_other_file(tmp_path: Path) -> None:
    """A first head that was cut off at any byte is a torn line, not somebody's file."""
    await FileWitness(tmp_path / "heads").write(Head(log="a", position=1000, chain="c"))
    data = (tmp_path / "heads").read_bytes()
    for size in range(len(data) - 1):
        (tmp_path / "heads").write_bytes(data[:size])
        assert len(read_heads(tmp_path / "heads")) <= 1
    (tmp_path / "heads").write_bytes(b"[]\n")
    with pytest.raises(LogUnavailable, match="something else"):
        read_heads(tmp_path / "heads")
    with pytest.raises(UsageError, match="its own witness"):
        async with log_of(tmp_path / "a.db") as log:
            await log.append(Notice(code="x", message="x"))
            await begin_witness(log, f"sqlite:///{tmp_path}/a.db")
