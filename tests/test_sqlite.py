"""The SQLite engine among processes, on sick disks, and with files that are not what they should be."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from logact import codec
from logact.errors import (
    AppendUnknown,
    LogCorrupt,
    LogError,
    LogFull,
    LogLocked,
    LogTooNew,
    LogUnavailable,
    UnknownLogUrl,
    UsageError,
)
from logact.logs import sqlite_files, sqlite_schema
from logact.logs.base import SharedLog
from logact.logs.file_lock import FairLock
from logact.logs.sqlite import SqliteEngine, engine_from_url
from logact.logs.url import open_log
from logact.testing.conformance import Pen, note, numbers_of, read_all

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def child(script: str, *arguments: object, **more: Any) -> subprocess.Popen[str]:
    """A process that runs a script; ``path`` and ``argument`` are in place."""
    head = (
        "import asyncio, os, sys, signal, sqlite3\nfrom pathlib import Path\n"
        "from logact.logs.sqlite import SqliteEngine\nfrom logact.logs.base import SharedLog\n"
        "from logact.testing.conformance import Pen, note, read_all\n"
        "path, arguments = Path(sys.argv[1]), sys.argv[2:]\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **more,
    )


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """What a process wrote, once it has ended well."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out.splitlines()


async def written(path: Path, count: int = 10) -> None:
    async with SharedLog(SqliteEngine(path)) as log:
        for turn in range(count):
            await log.append(note(f"{turn} " + "x" * 500))


# --- URLs ------------------------------


def test_urls() -> None:
    """Three slashes are relative, four absolute; ``log`` names one of many logs in the file."""
    assert engine_from_url("sqlite:///a/b.db").path == Path.cwd() / "a/b.db"
    assert engine_from_url("sqlite:////tmp/b%20c.db?log=x/y").path == Path("/tmp/b c.db")
    assert engine_from_url("sqlite:////tmp/b.db?log=x/y").store.name == "x/y"
    assert isinstance(open_log("sqlite:///b.db").engine, SqliteEngine)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://host/a.db", "sqlite:///host/a.db"),
        ("sqlite:a.db", "sqlite:///"),
        ("sqlite:///", "sqlite:///ops.db"),
        ("sqlite:///dir/", "relative.db"),
        ("sqlite:///:memory:", "memory:"),
        ("sqlite:///a.db?mode=ro", "mode"),
        ("sqlite:///a.db?log=a&log=b", "twice"),
        ("sqlite:///a.db?log=", "letters"),
        ("sqlite:///a.db?log=a%20b", "letters"),
        ("sqlite:///a.db?unsafe_network=yes", "0 or 1"),
        ("sqlite:///a#b.db", "%23"),
    ],
)
def test_urls_that_cannot_be_used(url: str, says: str) -> None:
    """A URL that cannot be used is refused with what to write instead."""
    with pytest.raises((UnknownLogUrl, UsageError), match=says.replace("?", r"\?")):
        engine_from_url(url)


# --- files ------------------------------


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Database, write-ahead log, shared memory, bell and lock all have mode 0600."""

    async def work() -> None:
        async with SharedLog(SqliteEngine(tmp_path / "a.db")) as log:
            await log.append(note("x"))
            names = {entry.name for entry in tmp_path.iterdir()}
            assert names == {"a.db", "a.db-wal", "a.db-shm", "a.db.bell", "a.db.lock"}
            for entry in tmp_path.iterdir():
                assert stat.S_IMODE(entry.stat().st_mode) == 0o600, entry

    previous = os.umask(0)
    try:
        run(work())
    finally:
        os.umask(previous)


def test_settings_are_the_durable_ones(tmp_path: Path) -> None:
    """Every connection flushes at each commit, and the file is in write-ahead mode."""
    run(written(tmp_path / "a.db"))
    connection = sqlite_schema.connect(tmp_path / "a.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_not_a_database(tmp_path: Path) -> None:
    """A file of something else is refused, and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"These are my notes, and not a database at all. " * 100)
    before = path.read_bytes()
    with pytest.raises(LogCorrupt, match="not a SQLite database"):
        run(SqliteEngine(path).open())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]  # a lock and a bell lay beside it


def test_another_programs_database(tmp_path: Path) -> None:
    """A SQLite file of another program is refused, and left as it is."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another program"):
        run(SqliteEngine(path).open())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]  # a lock and a bell lay beside it


def test_a_newer_file(tmp_path: Path) -> None:
    """A file of a newer format is refused, and left as it is."""
    path = tmp_path / "new.db"
    run(written(path, 1))
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={len(sqlite_schema.MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LogTooNew, match="Upgrade LogAct"):
        run(SqliteEngine(path).open())
    assert path.read_bytes() == before


def test_an_older_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations that a file has not seen are applied at the next opening, once, and keep what is there."""
    path = tmp_path / "old.db"
    run(written(path, 3))
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, ("CREATE TABLE later (x)",)))

    async def count() -> int:
        async with SharedLog(SqliteEngine(path)) as log:
            return len(await read_all(log.engine))

    assert [run(count()), run(count())] == [3, 3]


def test_what_is_no_file_keeps_its_mode(tmp_path: Path) -> None:
    """An empty file becomes its owner's alone; a pipe or a device does not (root's ``/dev/null`` became 0600)."""
    pipe, empty = tmp_path / "pipe", tmp_path / "empty"
    os.mkfifo(pipe)
    empty.touch()
    for path, mode in ((pipe, 0o666), (empty, 0o600)):
        path.chmod(0o666)
        sqlite_files.create(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3", "fuse.sshfs"])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A file on a network file system is refused with what to do, unless its user takes the risk."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n")
    monkeypatch.setattr(sqlite_files, "MOUNTS", mounts)
    with pytest.raises(LogUnavailable, match="unsafe_network=1"):
        run(SqliteEngine(tmp_path / "a.db").open())
    assert not (tmp_path / "a.db").exists()
    engine = engine_from_url(f"sqlite:///{tmp_path}/a.db?unsafe_network=1")

    async def work() -> None:
        async with SharedLog(engine) as log:
            await log.append(note("x"))
            assert any(kind in line for line in engine.info().notes)

    run(work())


def test_the_innermost_mount_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local directory below a network one is local."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x / nfs rw 0 0\n/dev/y {tmp_path} ext4 rw 0 0\nz {tmp_path}/a nfs rw 0 0\n")
    monkeypatch.setattr(sqlite_files, "MOUNTS", mounts)
    assert sqlite_files.filesystem_of(tmp_path / "b.db") == "ext4"
    assert sqlite_files.filesystem_of(tmp_path / "a" / "b.db") == "nfs"


def test_a_missing_directory(tmp_path: Path) -> None:
    """A log in a directory that does not exist says how to make it."""
    with pytest.raises(LogUnavailable, match="mkdir -p"):
        run(SqliteEngine(tmp_path / "no" / "a.db").open())


def test_a_file_that_vanished(tmp_path: Path) -> None:
    """Once the file is deleted or replaced nothing is acknowledged any more: it would go nowhere."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        pen = Pen(engine)
        await pen.write()
        (tmp_path / "a.db").rename(tmp_path / "b.db")
        with pytest.raises(LogUnavailable, match="gone"):
            await pen.write()
        with pytest.raises(LogUnavailable, match="gone"):
            await engine.tail()
        (tmp_path / "a.db").write_bytes(b"")
        with pytest.raises(LogUnavailable, match="replaced"):
            await pen.write()
        await engine.close()

    run(work())


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    """Before open and after close every operation raises LogUnavailable."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        draft = Pen(engine).draft()
        await engine.close()
        for attempt in (engine.append(draft), engine.read(0), engine.tail(), engine.get_blob("x"), engine.trim(1)):
            with pytest.raises(LogUnavailable, match="not open"):
                await attempt

    run(work())


READ_ONLY = """
import concurrent.futures.thread  # before this process may no longer read its own library
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
async def main():
    engine = SqliteEngine(path)
    await engine.open()
    print(len(await read_all(engine)))
    try:
        await engine.append(Pen(engine).draft())
    except Exception as error:
        print(type(error).__name__, error.definite)
    await engine.close()
try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error.definite)
"""


def test_a_file_that_may_only_be_read() -> None:
    """A log that may not be written can be read, and an append says LogReadOnly."""
    place = Path(tempfile.mkdtemp())  # not below tmp_path, which another user may not enter
    try:
        run(written(place / "a.db", 3))
        keeper = sqlite3.connect(place / "a.db")  # a reader that keeps the -shm file in place
        keeper.execute("SELECT count(*) FROM logs").fetchone()
        for entry in place.iterdir():
            entry.chmod(0o444)
        place.chmod(0o555)
        assert lines_of(child(READ_ONLY, place / "a.db")) == ["3", "LogReadOnly True"]
        keeper.close()
    finally:
        place.chmod(0o755)
        for entry in place.iterdir():
            entry.unlink()
        place.rmdir()


# --- damage and full disks ------------------------------


def test_a_damaged_page(tmp_path: Path) -> None:
    """A broken page is LogCorrupt for reads and appends; it never reads as an absence."""
    path = tmp_path / "a.db"
    run(written(path, 400))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xa5" * (size - 4096 * 8))

    async def work() -> None:
        engine = SqliteEngine(path)
        with pytest.raises(LogCorrupt):
            await engine.open()
            await read_all(engine)
        await engine.close()

    run(work())


def test_a_flipped_bit(tmp_path: Path) -> None:
    """A changed byte inside a record, which SQLite cannot see, is LogCorrupt."""
    path = tmp_path / "a.db"
    run(written(path, 20))
    data = path.read_bytes()
    assert data.count(b'"message":"7 xxx') == 1
    path.write_bytes(data.replace(b'"message":"7 xxx', b'"message":"7 xyx'))

    async def work() -> None:
        async with SharedLog(SqliteEngine(path)) as log:
            with pytest.raises(LogCorrupt, match="Record 8"):
                await read_all(log.engine)

    run(work())


def test_a_missing_record(tmp_path: Path) -> None:
    """A record deleted behind the engine's back is LogCorrupt, not a shorter log."""
    path = tmp_path / "a.db"
    run(written(path, 20))
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM records WHERE id & 1099511627775 = 8")
    connection.commit()
    connection.close()

    async def work() -> None:
        async with SharedLog(SqliteEngine(path)) as log:
            with pytest.raises(LogCorrupt, match="Record 8"):
                await read_all(log.engine)

    run(work())


async def _fill(engine: SqliteEngine, text: str) -> tuple[int, LogError]:
    pen = Pen(engine)
    for done in range(100_000):
        try:
            await pen.write(note(text))
        except LogError as error:
            return done, error
    raise AssertionError("the disk never filled")


def test_a_full_database(tmp_path: Path) -> None:
    """At the size limit an append is LogFull, definitely; everything before it stays, and room helps."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        pen = engine.store._writing()
        pen.execute("PRAGMA max_page_count=40")
        done, error = await _fill(engine, "x" * 2000)
        assert isinstance(error, LogFull) and error.definite
        assert len(await read_all(engine)) == done > 0
        pen.execute("PRAGMA max_page_count=1000000")
        await Pen(engine, "later").write()
        await engine.close()

    run(work())


def test_a_neighbour_that_does_not_fit(tmp_path: Path) -> None:
    """In a group commit an append that does not fit fails alone."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        await Pen(engine, "first").write()
        engine.store._writing().execute("PRAGMA max_page_count=30")
        large = Pen(engine, "large").draft(note("x" * 250_000))
        small = [Pen(engine, f"small {index}").draft() for index in range(6)]
        answers = await asyncio.gather(
            *(engine.append(draft) for draft in [*small[:3], large, *small[3:]]), return_exceptions=True
        )
        assert isinstance(answers.pop(3), LogFull)
        assert all(isinstance(answer, tuple) for answer in answers), answers
        assert len(await read_all(engine)) == 7
        await engine.close()

    run(work())


def _can_mount(place: Path) -> bool:
    place.mkdir()
    return (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
        ).returncode
        == 0
    )


def test_a_full_disk(tmp_path: Path) -> None:
    """On a full disk an append is LogFull (or its fate is open); what was acknowledged is there, and room helps."""
    place = tmp_path / "small"
    if not _can_mount(place):
        pytest.skip("mounting a small file system needs root")
    try:

        async def work() -> None:
            engine = SqliteEngine(place / "a.db")
            await engine.open()
            (place / "ballast").write_bytes(b"x" * 300_000)
            done, error = await _fill(engine, "x" * 2000)
            assert isinstance(error, LogFull), repr(error)
            found = len(await read_all(engine))
            assert found == done
            await engine.close()
            (place / "ballast").unlink()
            again = SqliteEngine(place / "a.db")
            await again.open()
            assert len(await read_all(again)) == done
            await Pen(again, "later").write()
            await again.close()

        run(work())
    finally:
        subprocess.run(["umount", place], check=False)


LIMITED = """
import resource
async def main():
    engine = SqliteEngine(path)
    await engine.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    pen = Pen(engine)
    done = 0
    while True:
        try:
            await pen.write(note("x" * 3000))
        except Exception as error:
            print(done, type(error).__name__, error.definite, flush=True)
            break
        done += 1
    os._exit(0)
asyncio.run(main())
"""


def test_a_commit_that_fails_in_between_is_unknown(tmp_path: Path) -> None:
    """An I/O error in the commit itself leaves the fate open; what was acknowledged is there."""
    (line,) = lines_of(child(LIMITED, tmp_path / "a.db"))
    done, name, definite = line.split()
    assert (name, definite) == (AppendUnknown.__name__, "False")

    async def work() -> int:
        async with SharedLog(SqliteEngine(tmp_path / "a.db")) as log:
            return len(await read_all(log.engine))

    assert run(work()) in {int(done), int(done) + 1}


# --- locks ------------------------------


def test_another_program_holds_the_database(tmp_path: Path) -> None:
    """A transaction of another program makes appends LogLocked after the limit; reads go on; then all is well."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        pen = Pen(engine)
        await pen.write()
        engine.store.lock_wait_s = 0.05
        intruder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogLocked) as caught:
            await pen.write()
        assert caught.value.definite
        assert len(await read_all(engine)) == 1
        intruder.execute("ROLLBACK")
        intruder.close()
        await pen.write()
        await engine.close()

    run(work())


HOLDER = """
from logact.logs.file_lock import FairLock
lock = FairLock(path)
lock.open(0o600)
lock.try_acquire()
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_stopped_process_holds_the_lock(tmp_path: Path) -> None:
    """Behind a process that hangs an append is LogLocked after the limit; its death sets the lock free."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        pen = Pen(engine)
        await pen.write()
        holder = child(HOLDER, engine.store.lock.path)
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        engine.store.lock_wait_s = 0.05
        answers = await asyncio.gather(
            *(engine.append(Pen(engine, str(index)).draft()) for index in range(3)), return_exceptions=True
        )
        assert all(isinstance(answer, LogLocked) for answer in answers), answers
        engine.store.lock_wait_s = 30.0
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(pen.write())
            await asyncio.sleep(0.02)
            holder.kill()
        assert waiting.result() == 2
        holder.communicate()
        await engine.close()

    run(work())


def test_the_lock_is_first_come_first_served(tmp_path: Path) -> None:
    """Whoever stands in line is served before the one who has just let go, and in order."""
    path = tmp_path / "lock"
    locks = [FairLock(path) for _ in range(4)]
    for lock in locks:
        lock.open(0o600)
    if not locks[0]._ranges:
        pytest.skip("no byte-range locks by open file here")
    order: list[int] = []
    tried = threading.Event()

    def queue(place: int) -> None:
        assert locks[place].acquire(30.0, time.monotonic)
        order.append(place)
        tried.wait(30.0)
        locks[place].release()

    assert locks[0].try_acquire()
    threads = []
    for place in (1, 2, 3):
        threads.append(threading.Thread(target=queue, args=(place,)))
        threads[-1].start()
        _until(lambda place=place: _tickets(locks[0]) >= place)  # type: ignore[misc]
    locks[0].release()
    assert not locks[0].try_acquire(), "the one who let go overtook those who wait"
    tried.set()
    queue(0)
    for thread in threads:
        thread.join()
    assert order == [1, 2, 3, 0]
    for lock in locks:
        lock.close()


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def _tickets(lock: FairLock) -> int:
    """How many tickets were drawn so far."""
    stored = lock.path.read_bytes()
    return int.from_bytes(stored, sys.byteorder) - 16 if stored else 0


# --- many processes ------------------------------


CONTENDER = """
async def main():
    engine = SqliteEngine(path)
    await engine.open()
    pen = Pen(engine, arguments[0])
    print("ready", flush=True)
    sys.stdin.readline()
    while await engine.tail() < int(arguments[1]):
        await pen.write()
    print(pen.number)
    await engine.close()
asyncio.run(main())
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    """Four processes that append as fast as they can until the log is full get comparable shares, none starves."""
    run(written(tmp_path / "a.db", 1))
    processes = [child(CONTENDER, tmp_path / "a.db", f"writer {index}", 1200) for index in range(4)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    shares = [int(lines_of(process)[-1]) for process in processes]
    assert sum(shares) >= 1199
    assert min(shares) >= 100, shares  # SQLite alone leaves the slowest with a handful

    async def work() -> None:
        async with SharedLog(SqliteEngine(tmp_path / "a.db")) as log:
            assert await numbers_of(log.engine) == list(range(1, sum(shares) + 2))
            await _chains(log)

    run(work())


async def _chains(log: SharedLog) -> None:
    last: dict[str, tuple[int, str]] = {}
    for stored in await read_all(log.engine):
        codec.check_record(stored.body)
        head, record_hash = codec.read_head(stored.body)
        assert (head.number - 1, head.previous) == last.get(head.writer, (0, ""))
        last[head.writer] = (head.number, record_hash)


TALKER = """
async def main():
    engine = SqliteEngine(path)
    await engine.open()
    pen = Pen(engine)
    for line in sys.stdin:
        await pen.write()
    await engine.close()
asyncio.run(main())
"""


def test_followers_in_other_processes_are_woken_by_the_bell(tmp_path: Path) -> None:
    """Each append of another process wakes a follower through the bell; none is found by looking."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        engine.look_s = 3600.0
        await engine.open()
        if not engine.store.bell.watch(lambda: None):
            pytest.skip("no inotify here")
        engine.store.bell.unwatch()
        talker = child(TALKER, tmp_path / "a.db")
        assert talker.stdin is not None
        for turn in range(20):
            waiting = asyncio.ensure_future(engine.wait(turn, 30.0))
            await asyncio.sleep(0)
            talker.stdin.write("one more\n")
            talker.stdin.flush()
            assert await waiting is True
        assert "inotify" in engine.info().wakes_by
        talker.communicate(timeout=30)
        assert (engine.news_by_bell, engine.news_by_look) == (20, 0)
        await engine.close()

    run(work())


def test_a_bell_that_never_rings_is_made_up_for(tmp_path: Path) -> None:
    """A commit whose writer died before it rang is found by looking."""

    async def work() -> None:
        one, two = SqliteEngine(tmp_path / "a.db"), SqliteEngine(tmp_path / "a.db")
        await one.open()
        await two.open()
        one.store.bell.close()
        two.look_s = 0.01
        waiting = asyncio.ensure_future(two.wait(0, 30.0))
        await asyncio.sleep(0)
        await Pen(one).write()
        assert await waiting is True
        assert (two.news_by_bell, two.news_by_look) == (0, 1)
        await one.close()
        await two.close()

    run(work())


def test_nobody_rings_for_nobody(tmp_path: Path) -> None:
    """Where no other engine listens the bell is left alone, so that a lone agent does not wake itself."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        if not engine.store.lock._ranges:
            pytest.skip("no byte-range locks by open file here")
        waiting = asyncio.ensure_future(engine.wait(0, 30.0))
        await asyncio.sleep(0)
        await Pen(engine).write()
        assert await waiting is True
        assert (tmp_path / "a.db.bell").stat().st_size == 0
        assert engine.news_by_self == 1
        await engine.close()

    run(work())


VICTIM = """
async def main():
    engine = SqliteEngine(path)
    await engine.open()
    async def one(name):
        pen = Pen(engine, name)
        while True:
            record = await pen.write(note(name + " " + str(pen.number + 1) + "x" * 300))
            sys.stdout.write(f"{record} {name} {pen.number}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(one(f"{os.getpid()}-{index}") for index in range(3)))
asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """A process killed in the middle of its appends loses nothing that it had acknowledged, and leaves no half."""
    acknowledged: dict[int, tuple[str, int]] = {}
    for turn in range(4):
        victim = child(VICTIM, tmp_path / "a.db")
        assert victim.stdout is not None
        lines = [victim.stdout.readline() for _ in range(40 + 37 * turn)]
        victim.send_signal(signal.SIGKILL)
        lines.extend(victim.stdout.readlines())
        victim.communicate()
        for line in lines:
            if line.endswith("\n"):
                record, name, number = line.split()
                assert int(record) not in acknowledged
                acknowledged[int(record)] = (name, int(number))

    async def work() -> None:
        async with SharedLog(SqliteEngine(tmp_path / "a.db")) as log:
            found = {stored.record: codec.read_head(stored.body)[0] for stored in await read_all(log.engine)}
            assert sorted(found) == list(range(1, len(found) + 1))
            for record, (name, number) in acknowledged.items():
                assert (found[record].writer, found[record].number) == (name, number)
            await _chains(log)
            await log.append(note("after"))

    run(work())
    assert len(acknowledged) >= 40


@pytest.mark.parametrize(("point", "kept"), [("sqlite:staged", 4), ("sqlite:committed", 5)])
def test_a_kill_around_the_commit(tmp_path: Path, point: str, kept: int) -> None:
    """Killed before the commit the record is not there; after it, it is. The next process goes on at once."""
    script = """
async def main():
    engine = SqliteEngine(path)
    await engine.open()
    pen = Pen(engine)
    for _ in range(10):
        await pen.write()
asyncio.run(main())
"""
    victim = child(script, tmp_path / "a.db", env={**os.environ, "LOGACT_CRASH_AT": f"{point}:5"})
    victim.communicate(timeout=30)
    assert victim.returncode == -signal.SIGKILL

    async def work() -> None:
        async with SharedLog(SqliteEngine(tmp_path / "a.db")) as log:
            assert len(await read_all(log.engine)) == kept
            await log.append(note("after"))

    run(work())


# --- group commit ------------------------------


def test_appends_that_come_together_share_commits(tmp_path: Path) -> None:
    """A hundred concurrent appends take far fewer commits, and each its own record."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        pens = [Pen(engine, f"pen {index}") for index in range(100)]
        records = await asyncio.gather(*(pen.write() for pen in pens))
        assert sorted(records) == list(range(1, 101))
        assert engine.commits <= 10
        before = engine.commits
        for pen in pens[:10]:
            await pen.write()
        assert engine.commits == before + 10
        await engine.close()

    run(work())


def test_a_batch_outlives_its_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader of a group commit is cancelled while its batch is in a thread: its neighbours are still served."""
    monkeypatch.setattr("logact.logs.sqlite_store.INLINE_COMMIT_S_MAX", 0.0)

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        engine.store._commit_s = 1.0
        for turn in range(20):
            drafts = [Pen(engine, f"{turn} {index}").draft() for index in range(5)]
            tasks = [asyncio.ensure_future(engine.append(draft)) for draft in drafts]
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            tasks[0].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers[0], asyncio.CancelledError)
            assert all(isinstance(answer, tuple) for answer in answers[1:]), answers
            await engine.append(drafts[0])
        assert len(await read_all(engine)) == 100
        await engine.close()

    run(work())


def test_a_loop_that_ended_in_the_middle(tmp_path: Path) -> None:
    """An engine that was never closed goes on in the next event loop, whatever was under way in the last."""
    engine = SqliteEngine(tmp_path / "a.db")

    async def first() -> None:
        await engine.open()
        await Pen(engine).write()
        engine.store._commit_s = 1.0
        leaving = asyncio.ensure_future(engine.append(Pen(engine, "leaving").draft()))
        following = asyncio.ensure_future(engine.wait(50, 30.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del leaving, following  # asyncio.run cancels them

    async def second() -> int:
        await Pen(engine, "second").write()
        assert await engine.wait(0, 1.0) is True
        await engine.append(Pen(engine, "leaving").draft())
        count = len(await read_all(engine))
        await engine.close()
        return count

    run(first())
    assert run(second()) == 3


# --- the rest ------------------------------


def test_closing_wakes_followers(tmp_path: Path) -> None:
    """A follower of a log that is closed under it learns so at once."""

    async def work() -> None:
        log = SharedLog(SqliteEngine(tmp_path / "a.db"))

        async def follow() -> None:
            async for _ in log.follow():
                pass

        await log.open()
        task = asyncio.ensure_future(follow())
        await asyncio.sleep(0.01)
        await log.engine.close()
        with pytest.raises(LogUnavailable, match="not open"):
            await task

    run(work())


def test_backup_while_agents_run(tmp_path: Path) -> None:
    """A backup is a consistent, private, single file that opens as the same log, taken while appends go on."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        async with SharedLog(engine) as log:
            running = True

            async def write(index: int) -> None:
                pen = Pen(engine, f"pen {index}")
                while running:
                    await pen.write()

            async with asyncio.TaskGroup() as group:
                for index in range(3):
                    group.create_task(write(index))
                for turn in range(3):
                    before = await engine.tail()
                    target = tmp_path / f"copy {turn}.db"
                    await engine.backup(target)
                    assert stat.S_IMODE(target.stat().st_mode) == 0o600
                    async with SharedLog(SqliteEngine(target)) as copy:
                        numbers = await numbers_of(copy.engine)
                        assert copy.log_id == log.log_id
                        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= before
                        await _chains(copy)
                running = False
            with pytest.raises(UsageError, match="exists already"):
                await engine.backup(tmp_path / "copy 0.db")
            with pytest.raises(LogUnavailable):
                await engine.backup(tmp_path / "no" / "copy.db")
        assert not list(tmp_path.glob(".*.part"))

    run(work())


def test_what_was_erased_is_in_no_file(tmp_path: Path) -> None:
    """After an erasure the bytes are neither in the database nor in its write-ahead log."""
    secret = b"correct horse battery staple"

    def copies() -> int:
        script = "print(sum(entry.read_bytes().count(arguments[0].encode()) for entry in path.iterdir()))"
        return int(lines_of(child(script, tmp_path, secret.decode()))[0])

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        record = await Pen(engine).write(note(secret.decode()))
        assert copies() > 0
        await engine.erase(record, 0)
        assert copies() == 0
        await engine.close()

    run(work())


def test_checkpoints_keep_the_write_ahead_log_small(tmp_path: Path) -> None:
    """Thousands of appends leave a write-ahead log of a few megabytes, through checkpoints off the event loop."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        pen = Pen(engine)
        for _ in range(60):
            await pen.write(*(note("x" * 2000) for _ in range(100)))
        assert engine.store.checkpoints >= 2
        assert (tmp_path / "a.db-wal").stat().st_size < 8_000_000
        await engine.close()

    run(work())


def test_many_logs_in_one_file(tmp_path: Path) -> None:
    """Logs of one file have their own ids, numbers and seals, and grow side by side."""

    async def work() -> None:
        logs = [open_log(f"sqlite:///{tmp_path}/a.db?log=log-{index}") for index in range(5)]
        for turn in range(10):
            await asyncio.gather(*(log.append(note(f"{turn}")) for log in logs))
        assert len({log.log_id for log in logs}) == 5
        for log in logs:
            assert await numbers_of(log.engine) == list(range(1, 11))
            await log.close()

    run(work())


def test_without_a_bell_the_engine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where inotify is missing, info() says that followers poll."""
    monkeypatch.setattr("logact.logs.doorbell._libc", None)

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "a.db")
        await engine.open()
        waiting = asyncio.ensure_future(engine.wait(0, 30.0))
        await asyncio.sleep(0)
        assert "looking every" in engine.info().wakes_by
        assert any("poll" in line for line in engine.info().notes)
        await Pen(engine).write()
        assert await waiting is True
        await engine.close()

    run(work())
