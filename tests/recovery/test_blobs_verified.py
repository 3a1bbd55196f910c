"""Verification reads the blobs that entries name: digest and size, each once; what a repair lost is known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logact.entry import BlobRef, Checkpoint, Notice, Result, position_of
from logact.errors import SALVAGE, LogError
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.verify import PROBLEMS_MAX, verify
from logact.logs.verify_blobs import BlobCheck
from logact.models.scripted import call
from logact.runtime.repairing import repair
from tests.cli_help import here
from tests.recovery.test_damage import log_of, rows, written
from tests.recovery.test_witness import checked

LARGE = [call("send", item="y" * 300_000), "done"]


def flip(file: Path, digest: str = "") -> int:
    """Flip a bit in the middle of one blob of a file, or of all; how many there were."""
    found = [row for row in rows(file, "SELECT digest, data FROM blobs") if digest in ("", row[0])]
    for name, data in found:
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        rows(file, "UPDATE blobs SET data = ? WHERE digest = ?", changed, name)
    return len(found)


def naming(ref: BlobRef) -> Checkpoint:
    """An entry that takes effect and names a blob."""
    return Checkpoint(upto=1, chain="", state=ref)


async def blobs_at(file: Path) -> dict[str, int]:
    """The blobs that the log names, each with the first position that does."""
    from logact.logs.copying import blobs_of

    found: dict[str, int] = {}
    async with log_of(file) as log:
        async for entry in log.read():
            for digest in blobs_of(entry.payload):
                found.setdefault(digest, entry.position)
    return found


async def test_a_flipped_bit_in_any_blob_is_found(tmp_path: Path) -> None:
    """Every blob that entries name is read; the first bad position is named (was "sound")."""
    file = tmp_path / "a.db"
    await written(file, LARGE)
    where = await blobs_at(file)
    assert len(where) >= 2, "arguments and result are large"
    async with log_of(file) as log:
        report = await verify(log)
    assert report.sound and report.blobs == len(where)
    assert flip(file) == len(where)
    async with log_of(file) as log:
        report = await verify(log)
    assert [one.position for one in report.problems] == sorted(where.values())
    assert all("is damaged" in one.what for one in report.problems)


@pytest.mark.parametrize("size", ["right", "wrong"])
async def test_a_blob_that_is_missing_or_of_another_size(size: str) -> None:
    """It is found at the entry that names it; an erased payload names nothing any more, and is no damage."""
    log = SharedLog(MemoryEngine())
    digest = await log.put_blob(b"x" * 1000)
    ref = BlobRef(digest=digest if size == "wrong" else "A" * 43, size=999 if size == "wrong" else 1000)
    await log.append(Notice(code="note", message="first"))
    done = await log.append(naming(ref), role="checkpointer")
    report = await verify(log)
    expected = "1000 bytes, and the entry says 999" if size == "wrong" else "is missing"
    assert [one.position for one in report.problems] == [done.position]
    assert expected in report.problems[0].what
    await log.erase(done.position, "it was private")
    assert (await verify(log)).sound


async def test_what_takes_no_effect_names_what_it_likes() -> None:
    """A made-up reference of an entry that changes nothing is no damage; a damaged blob that it names is."""
    engine = MemoryEngine()
    log = SharedLog(engine)
    nothing = BlobRef(digest="none", size=1)
    await log.append(Checkpoint(upto=5, chain="no", state=nothing), role="driver", name="ops")
    await log.append(Result(intent=1, blob=nothing), role="executor", name="e")
    assert (await verify(log)).sound
    digest = await log.put_blob(b"x")
    done = await log.append(Result(intent=1, blob=BlobRef(digest=digest, size=1)), role="executor", name="e")
    engine._blobs[digest] = b"y"
    assert [one.position for one in (await verify(log)).problems] == [done.position]


async def test_a_blob_that_many_entries_name_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads follow the number of blobs, not that of references, and what is remembered is limited."""
    log = SharedLog(MemoryEngine())
    digests = [await log.put_blob(bytes([number]) * 100) for number in range(20)]
    for _ in range(5):
        refs = [naming(BlobRef(digest=one, size=100)) for one in digests]
        await log.append(*refs, role="checkpointer")
    read: list[str] = []

    async def counted(engine: MemoryEngine, digest: str) -> bytes:
        read.append(digest)
        return engine._blobs[digest]

    monkeypatch.setattr(MemoryEngine, "get_blob", counted)
    report = await verify(log)
    assert report.sound and report.blobs == 20 and read == digests
    monkeypatch.setattr("logact.logs.verify_blobs.SEEN_MAX", 3)
    check = BlobCheck(log, problems_max=10)
    await check.look([(entry, True) async for entry in log.read()])
    assert not check.problems
    assert len(check._seen) + len(check._seen_before) <= 6


async def test_a_read_error_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob that cannot be read now is raised, never taken for missing or for sound."""
    log = SharedLog(MemoryEngine())
    digest = await log.put_blob(b"x")
    await log.append(naming(BlobRef(digest=digest, size=1)), role="checkpointer")

    async def away(engine: MemoryEngine, digest: str) -> bytes:
        raise LogError("The store is away")

    monkeypatch.setattr(MemoryEngine, "get_blob", away)
    with pytest.raises(LogError, match="away"):
        await verify(log)


async def test_blobs_before_the_checkpoint_are_checked_in_the_background(tmp_path: Path) -> None:
    """The start reads no blob there; the background check does, and pauses the log (was never looked at)."""
    file = tmp_path / "a.db"
    await written(
        file, [*LARGE[:-1], *[call("send", item=str(number)) for number in range(12)], "done"], checkpoint_every=20
    )
    where = await blobs_at(file)
    assert (await checked(file)).problems == ()
    first = min(where, key=lambda digest: where[digest])
    assert flip(file, first) == 1
    found = (await checked(file)).problems
    assert found and found[0].position == where[first]


async def test_what_a_repair_could_not_save_is_known(tmp_path: Path) -> None:
    """The repaired log verifies, and says how many blobs are lost; what is damaged later is found."""
    await written(tmp_path / "a.db", LARGE)
    where = await blobs_at(tmp_path / "a.db")
    lost, later = sorted(where, key=lambda digest: where[digest])[:2]
    flip(tmp_path / "a.db", lost)
    assert (await repair(tmp_path / "a.db", tmp_path / "b.db")).missing_blobs == (lost,)
    async with log_of(tmp_path / "b.db") as log:
        report = await verify(log)
    assert report.sound and report.lost_blobs == 1
    assert any("could not save" in what for what in report.cannot_see)
    flip(tmp_path / "b.db", later)
    async with log_of(tmp_path / "b.db") as log:
        assert [one.position for one in (await verify(log)).problems] == [where[later]]


async def test_many_lost_blobs_hide_no_damage() -> None:
    """More lost blobs than problems are listed, and damage after them is still named."""
    log = SharedLog(MemoryEngine())
    lost = [f"{number:043}" for number in range(PROBLEMS_MAX + 20)]
    refs = [naming(BlobRef(digest=one, size=1)) for one in lost]
    await log.append(*refs, role="checkpointer")
    bad = naming(BlobRef(digest="B" * 43, size=1))
    last = await log.append(bad, role="checkpointer")
    said = Notice(code="repaired", message="lost", data={"missing_blobs": lost})
    await log.append(said, role="client", name="somebody")
    assert len((await verify(log)).problems) == PROBLEMS_MAX, "a client cannot forgive"
    await log.append(said, role="operator", name="repair")
    report = await verify(log)
    assert [one.position for one in report.problems] == [last.position] and report.lost_blobs == len(lost)
    assert last.position > position_of(1)


def test_damage_is_shown_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged blob, record or header: exit 3, and ``log repair`` is named once (was "restore a backup" alone)."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(written(Path("blob.db"), LARGE))
    sound = here("log", "verify", "blob.db")
    assert sound.returncode == 0 and "blobs were looked at" in sound.stdout
    Path("row.db").write_bytes(Path("blob.db").read_bytes())
    Path("head.db").write_bytes(b"?" * 16 + Path("blob.db").read_bytes()[16:])
    flip(Path("blob.db"))
    rows(Path("row.db"), "UPDATE records SET crc = crc + 1 WHERE id = (SELECT id FROM records LIMIT 1 OFFSET 3)")
    for name in ("blob.db", "row.db", "head.db"):
        shown = here("log", "verify", name)
        said = " ".join(shown.stdout.split())
        assert shown.returncode == 3 and said.count("logact log repair") == 1, name
    for name in ("row.db", "head.db"):
        refused = here("log", "show", name)
        assert refused.returncode == 3 and "logact log repair" in " ".join(refused.stderr.split()), name
    assert "logact log repair" in SALVAGE
