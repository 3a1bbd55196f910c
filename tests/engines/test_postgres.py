"""What PostgreSQL adds to the contract: settings, roles, migrations, wake-ups, damage, and the fate of appends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from benchmarks.servers.postgres import PostgresServer

from logact import codec
from logact.entry import Intent, NewEntry, Notice, position_of
from logact.errors import AppendUnknown, LogCorrupt, LogError, LogLocked, LogReadOnly, LogTooNew, UsageError
from logact.logs import postgres_schema as schema
from logact.logs.base import Condition, where
from logact.logs.postgres import PostgresEngine, engine_from_url
from logact.logs.postgres_connect import is_certain, meaning
from logact.logs.postgres_wire import Lost, ServerError, Wire
from logact.testing.conformance import Pen, note, numbers_of, read_all
from tests.cli_help import here
from tests.engines.proxy import Proxy

T = TypeVar("T")
NUMBERS = count(1)


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    """A database for this module."""
    return postgres.database("own")


@pytest.fixture
def url(postgres: PostgresServer, database: str) -> str:
    """The URL of a fresh log."""
    return postgres.url(database, f"log-{next(NUMBERS)}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresEngine]:
    """An engine on a URL, open."""
    engine = engine_from_url(url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's coroutine, for a minute at most."""

    async def inside() -> T:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(inside())


# --- settings, roles, migrations ----------------------------------------------------------------------------------


def test_a_server_that_may_forget_is_refused(postgres: PostgresServer) -> None:
    """``synchronous_commit=off`` is refused when the log is opened, unless the URL accepts the loss."""
    lax = postgres.database("lax")
    postgres.sql("ALTER DATABASE lax SET synchronous_commit = off")

    async def work() -> None:
        with pytest.raises(UsageError, match=r"synchronous_commit=off.*unsafe_durability=1"):
            await engine_from_url(postgres.url(lax)).open()
        async with opened(postgres.url(lax, options="&unsafe_durability=1")) as engine:
            await Pen(engine).write()
            info = engine.info()
            assert "NOT power loss" in info.survives and "unsafe_durability" in " ".join(info.notes)

    run(work)


def test_a_session_that_was_made_to_forget_appends_nothing(postgres: PostgresServer, url: str) -> None:
    """The append itself checks too: a setting that a pooler's session was left with cannot slip through."""

    async def work() -> None:
        async with opened(url) as engine:
            await Pen(engine).write()
            wire = engine._pen.wire
            assert wire is not None
            await wire.ask(b"SET synchronous_commit = off")
            with pytest.raises(UsageError, match="synchronous_commit=off"):
                await Pen(engine, "other").write()
            assert await engine.tail() == 1

    run(work)


def test_roles_can_do_no_more_than_they_should(postgres: PostgresServer) -> None:
    """The shipped script: readers read, writers append and change nothing, operators also erase and trim."""
    database = postgres.database("roles")
    done = subprocess.run(
        [sys.executable, "-m", "logact.logs.postgres_schema"], capture_output=True, text=True, check=True, timeout=60
    )
    script = postgres.write("schema.sql", done.stdout)
    place: list[str | Path] = ["-h", postgres.directory, "-p", str(postgres.port), "-U", "logact", "-d", database]
    postgres.run(postgres.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *place, "-f", script)
    for name in ("reader", "writer", "operator"):
        postgres.sql(f"CREATE ROLE a_{name} LOGIN IN ROLE logact_{name}")
    postgres.sql("CREATE ROLE nobody_much LOGIN")

    async def work() -> None:
        async with opened(postgres.url(database, user="a_writer")) as writer:
            records = [await Pen(writer, f"pen {turn}").write(note("x"), key=f"k{turn}") for turn in range(3)]
            await writer.put_blob(codec.digest(b"b"), b"b")
            before = await read_all(writer)
            with pytest.raises(LogReadOnly, match="logact_operator"):
                await writer.erase(records[0], 0)
            with pytest.raises(LogReadOnly):
                await writer.trim(records[2])
            for statement in (
                "UPDATE logact.records SET body = ''",
                "DELETE FROM logact.records",
                "INSERT INTO logact.records VALUES (1, 9, 0, '[]', '')",
                "TRUNCATE logact.records",
                "UPDATE logact.logs SET tail = 0",
                "DELETE FROM logact.writers",
                "DELETE FROM logact.keys",
                "UPDATE logact.blobs SET data = ''",
                "DROP SCHEMA logact CASCADE",
                "CREATE OR REPLACE FUNCTION logact.trim(p_log integer, p_before bigint, p_most integer)"
                " RETURNS boolean LANGUAGE sql AS 'SELECT true'",
            ):
                wire = await writer._pool._take(None)
                with pytest.raises(ServerError) as caught:
                    await wire.ask(statement.encode())
                wire.close()
                assert caught.value.sqlstate == "42501", statement
            async with opened(postgres.url(database, user="a_reader")) as reader:
                assert await read_all(reader) == before
                assert await numbers_of(reader, where(kinds=["Notice"])) == records
                assert await reader.get_blob(codec.digest(b"b")) == b"b"
                with pytest.raises(LogReadOnly, match="logact_writer"):
                    await Pen(reader, "r").write()
                with pytest.raises(LogReadOnly):
                    await reader.put_blob(codec.digest(b"c"), b"c")
            assert await read_all(writer) == before
        with pytest.raises(LogReadOnly, match="may not make one"):
            await engine_from_url(postgres.url(database, "other", user="a_reader")).open()
        with pytest.raises(LogReadOnly):
            await engine_from_url(postgres.url(database, user="nobody_much")).open()
        async with opened(postgres.url(database, user="a_operator")) as operator:
            await operator.erase(records[0], 0)
            await operator.trim(records[1])
            assert [stored.record for stored in (await operator.read(records[0])).records] == records[1:]

    run(work)


def test_migrations(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many processes open a fresh or an older database at once: one brings it up to date. A newer one is refused."""
    database = postgres.database("migrations")

    async def open_many() -> list[str]:
        engines = [engine_from_url(postgres.url(database)) for _ in range(4)]
        await asyncio.gather(*(engine.open() for engine in engines))
        for engine in engines:
            await engine.close()
        return [engine.log_id for engine in engines]

    ids = run(open_many)
    assert len(set(ids)) == 1
    released = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*released, ("ALTER TABLE logact.logs ADD COLUMN more integer",)))
    assert run(open_many) == ids, "an older schema is brought up to date, its log is the same"
    assert postgres.sql("SELECT version FROM logact.format", database=database) == str(len(released) + 1)
    monkeypatch.setattr(schema, "MIGRATIONS", released)
    with pytest.raises(LogTooNew, match="Upgrade LogAct"):
        run(open_many)


def test_a_database_that_may_not_be_set_up(postgres: PostgresServer) -> None:
    """A role without rights is told who has to do what."""
    database = postgres.database("bare")
    postgres.sql("CREATE ROLE guest LOGIN")
    with pytest.raises(LogReadOnly, match=r"python -m logact\.logs\.postgres_schema"):
        run(engine_from_url(postgres.url(database, user="guest")).open)


# --- wake-ups -----------------------------------------------------------------------------------------------------


def test_followers_are_told_and_nobody_else(url: str) -> None:
    """Without followers nobody is notified; with one it hears of appends, without looking for itself."""

    async def work() -> None:
        async with opened(url) as one, opened(url) as two:
            pen = Pen(one)
            await pen.write()
            assert one._bell.rings == 0 and not one._bell.connected
            two.followers.look_s = 60.0
            seen = await two.tail()
            for _ in range(5):
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(two.wait(seen, 60.0))
                    while not two._bell.listening:
                        await asyncio.sleep(0.001)
                    await asyncio.sleep(0.005)
                    await pen.write()
                assert waiting.result() is True
                seen = await two.tail()
            assert one._bell.rings >= 4
            assert two.followers.news_by_bell + two.followers.news_by_look >= 5
            assert two.followers.news_by_bell >= 3

    run(work)


def test_a_lost_notification_is_made_up_for(postgres: PostgresServer, database: str, url: str) -> None:
    """A follower whose listening connection was killed, or whose ring never came, finds the record all the same."""

    async def work() -> None:
        async with opened(url) as one, opened(url) as two:
            two.followers.look_s = 0.05
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(two.wait(0, 60.0))
                while not two._bell.listening:
                    await asyncio.sleep(0.001)
                one._bell.ring = lambda record: None  # type: ignore[method-assign]
                await Pen(one).write()
            assert waiting.result() is True and two.followers.news_by_bell == 0
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(two.wait(1, 60.0))
                await asyncio.sleep(0.01)
                ended = await asyncio.to_thread(
                    postgres.sql,
                    "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity "
                    f"WHERE datname = '{database}' AND query LIKE '%pg_advisory_lock_shared%'",
                )
                assert ended == "1"  # the listening one alone: an append under way would rightly end unknown
                await Pen(one, "after").write()
            assert waiting.result() is True
            assert len(await read_all(two)) == 2

    run(work)


def test_a_reader_that_was_cancelled_leaves_its_connection_usable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statement was prepared, and nobody was there to note it: the name was given away again, and refused."""
    honest = Wire.ask
    cancelled: list[bytes] = []

    async def ask(self: Wire, statement: bytes, *values: Any, **more: Any) -> Any:
        answer = await honest(self, statement, *values, **more)
        if statement.startswith(b"PREPARE") and not cancelled:
            cancelled.append(statement)
            raise asyncio.CancelledError
        return answer

    async def work() -> None:
        async with opened(url) as engine:
            await Pen(engine).write()
            monkeypatch.setattr(Wire, "ask", ask)
            with pytest.raises(asyncio.CancelledError):
                await engine.read(0, 1)
            assert len((await engine.read(0, 1)).records) == 1
        assert cancelled

    run(work)


def test_a_forged_notification_moves_nothing(postgres: PostgresServer, database: str, url: str) -> None:
    """Anybody in the database can notify: it may wake a follower, but never makes the log look longer."""

    async def work() -> None:
        async with opened(url) as engine:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(engine.wait(0, 60.0))
                while not engine._bell.listening:
                    await asyncio.sleep(0.001)
                for said in ("nonsense", "9" * 30, "999999"):
                    await asyncio.to_thread(
                        postgres.sql, f"NOTIFY {engine._bell.channel}, '{said}'", database=database
                    )
            assert waiting.result() is True
            assert engine.hint() == 0 and await engine.tail() == 0
            assert await engine.wait(0, 0.01) is False

    run(work)


# --- fates --------------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_unknown_and_its_repeat_finds_it(postgres: PostgresServer, database: str, url: str) -> None:
    """The server heard, the answer was lost: AppendUnknown; the same bytes again give the record, not fresh."""
    with Proxy(postgres.port) as network:

        async def work() -> None:
            async with opened(url.replace(f":{postgres.port}/", f":{network.port}/")) as engine:
                pen = Pen(engine)
                await pen.write()
                draft = pen.draft(note("lost"))
                network.lose_answers(1)
                with pytest.raises(AppendUnknown) as caught:
                    await engine.append(draft)
                assert not caught.value.definite
                record, fresh = await engine.append(draft)
                assert (record, fresh) == (2, False)
                assert await numbers_of(engine) == [1, 2]
                network.cut()
                with pytest.raises(AppendUnknown):
                    await engine.append(Pen(engine, "cut").draft())  # it had been sent when the connection broke
                network.restore()
                await Pen(engine, "later").write()

        run(work)


def test_what_was_never_sent_is_definite(postgres: PostgresServer, url: str) -> None:
    """No server: appends fail definitely, since nothing was sent; when it is back, they go on."""
    with Proxy(postgres.port) as network:
        far = url.replace(f":{postgres.port}/", f":{network.port}/") + "&patience=0.1"

        async def work() -> None:
            async with opened(far) as engine:
                network.cut()
                await asyncio.sleep(0.05)
                for _ in range(2):
                    with pytest.raises(LogError) as caught:
                        await Pen(engine).write()
                    assert caught.value.definite and "127.0.0.1" in str(caught.value)
                with pytest.raises(LogError):
                    await engine.tail()
                network.restore()
                assert await Pen(engine).write() == 1

        run(work)


def test_a_held_log_is_a_definite_error(postgres: PostgresServer, url: str) -> None:
    """While another session holds the log's row an append waits for ``timeout`` and then certainly did not happen."""

    async def work() -> None:
        async with opened(url) as holder, opened(f"{url}&timeout=0.2") as engine:
            wire = await holder._pool._take(None)
            await wire.ask(b"BEGIN")
            await wire.ask(b"UPDATE logact.logs SET tail = tail WHERE id = " + holder._number())
            pens = [Pen(engine, f"pen {index}") for index in range(3)]
            answers = await asyncio.gather(*(pen.write() for pen in pens), return_exceptions=True)
            assert all(isinstance(answer, LogLocked) and answer.definite for answer in answers), answers
            await wire.ask(b"ROLLBACK")
            wire.close()
            assert await asyncio.gather(*(pen.write() for pen in pens)) == [1, 2, 3]

    run(work)


@pytest.mark.parametrize(
    ("sqlstate", "severity", "certain"),
    [
        ("53100", "ERROR", True),
        ("57014", "ERROR", True),
        ("55P03", "ERROR", True),
        ("42501", "ERROR", True),
        ("40001", "ERROR", True),
        ("40003", "ERROR", False),
        ("57P01", "FATAL", False),
        ("57P02", "FATAL", False),
        ("08006", "ERROR", False),
        ("XX000", "ERROR", False),
        ("58030", "ERROR", False),
        ("53100", "PANIC", False),
        ("", "FATAL", False),
    ],
)
def test_only_an_aborted_transaction_is_certain(sqlstate: str, severity: str, certain: bool) -> None:
    """An error is definite only if the server certainly rolled back; anything else is AppendUnknown."""
    error = ServerError(sqlstate, severity, "why")
    assert is_certain(error) is certain
    assert meaning(error, appending=True).definite is certain
    assert meaning(error, appending=False).definite
    assert isinstance(meaning(Lost("gone"), appending=True), AppendUnknown)


def test_forged_headers_stop_no_reader(url: str) -> None:
    """A writer that calls the function itself may give headers that make no sense: they match nothing, none fails."""

    async def work() -> None:
        async with opened(url) as engine:
            good = await Pen(engine).write(note("good"))
            forged = [
                "1",
                '"x"',
                "{}",
                "[1]",
                "[[]]",
                '[["Intent","driver","","",1e300,"x"]]',
                "[null]",
                "[[[],{},1,2]]",
            ]
            for number, heads in enumerate(forged):
                item = f'[{{"w":"evil {number}","n":1,"o":1,"s":1,"z":2212294583,"h":{heads}}}]'
                values = [engine._number(), item.encode(), b"1", b"t"]
                await engine._pool.ask(b"SELECT logact.append($1, $2, $3, $4)", values, (False, False, True, False))
            assert await engine.tail() == 1 + len(forged)
            for matching in (where(kinds=["Notice"]), where(kinds=["Notice"], roles=["client"])):
                assert await numbers_of(engine, matching) == [good]
            for matching in (where(runs=[5]), where(actions=[5]), where(agents=["x"])):
                assert await numbers_of(engine, matching) == []
            condition = Condition(0, where(runs=[5], actions=[7]))
            await Pen(engine, "late").write(condition=condition)

    run(work)


# --- texts and damage ---------------------------------------------------------------------------------------------


def test_texts_that_postgresql_cannot_hold(url: str) -> None:
    """Names and keys with NUL in them are told apart from those that only look alike."""

    async def work() -> None:
        async with opened(url) as engine:
            agents = ["a\0b", "a\\0b", "a\\\\0b", "a\\b"]
            records = []
            for agent in agents:
                entry = NewEntry(payload=Intent(run=1000, agent=agent, tool=agent), role="driver", name="d")
                pen = Pen(engine, f"pen {agent}")
                records.append(await pen.write(entry, key=agent))
            for agent, record in zip(agents, records, strict=True):
                assert await numbers_of(engine, where(agents=[agent])) == [record]
                assert await numbers_of(engine, where(tools=[agent])) == [record]
                condition = Condition(position_of(record - 1), where(agents=[agent]))
                with pytest.raises(LogError):
                    await Pen(engine, f"late {agent}").write(condition=condition)
            assert len(set(records)) == len(agents)

    run(work)


def test_damage_is_found(postgres: PostgresServer, database: str, url: str) -> None:
    """A record whose bytes were changed, or that is gone, is an error for whoever reads it, filter or not."""

    async def work() -> None:
        async with opened(url) as engine:
            pen = Pen(engine)
            for _ in range(6):
                await pen.write()
            log = engine._log
            change = f"UPDATE logact.records SET body = 'x' || body WHERE log = {log} AND record = 5"
            await asyncio.to_thread(postgres.sql, change, database=database)
            assert len((await engine.read(0, 4)).records) == 4
            with pytest.raises(LogCorrupt, match="checksum"):
                await engine.read(4)
            drop = f"DELETE FROM logact.records WHERE log = {log} AND record = 3"
            await asyncio.to_thread(postgres.sql, drop, database=database)
            page = await engine.read(0)
            assert [stored.record for stored in page.records] == [1, 2] and page.upto == 2
            with pytest.raises(LogCorrupt, match="3 is missing"):
                await engine.read(2)
            with pytest.raises(LogCorrupt, match="missing"):
                await engine.read(0, 4, where(kinds=["Vote"]))

    run(work)


def test_a_large_page_is_cut(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A page holds about 8 MiB, with or without a filter; what is left follows, and nothing is left out."""

    async def work() -> None:
        async with opened(url) as engine:
            records = [
                await Pen(engine, f"pen {turn}").write(*[Notice(code="x", message="y" * 200_000)] * 4)
                for turn in range(14)
            ]
            for matching in (None, where(kinds=["Notice"])):
                page = await engine.read(0, 512, matching)
                assert 8 <= len(page.records) < 14 and page.upto == page.records[-1].record
                assert await numbers_of(engine, matching) == records

    run(work)


def test_appends_that_come_together_share_transactions(url: str) -> None:
    """A hundred appends at once are a few transactions; a draft that the server cannot take spoils no other."""

    async def work() -> None:
        async with opened(url) as engine:
            pens = [Pen(engine, f"pen {index}") for index in range(100)]
            before = engine.batches
            assert sorted(await asyncio.gather(*(pen.write() for pen in pens))) == list(range(1, 101))
            assert engine.batches - before <= 5

    run(work)


# --- secrets ------------------------------------------------------------------------------------------------------


def test_no_command_shows_a_password(
    postgres: PostgresServer, database: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever is asked of a log whose URL holds a password, with or without success, the password is not shown."""
    secret = "hunter2-hunter2"
    good = url.replace("logact@", f"logact:{secret}@")
    bad = f"postgresql://logact:{secret}@127.0.0.1:1/x?patience=0"

    async def work() -> None:
        async with opened(url) as engine:
            await Pen(engine).write(NewEntry(payload=Notice(code="x", message="y"), role="client", name="c"))

    run(work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logact.toml").write_text(f'[agent]\nname = "ann"\n[log]\nurl = "{good}"\n')
    commands = [
        ["log", "show"],
        ["log", "show", "--json"],
        ["log", "verify"],
        ["log", "stats"],
        ["actions"],
        ["pending"],
        ["doubt"],
        ["pause"],
        ["resume"],
        ["fork"],
        ["approve", "1000"],
        ["state"],
        ["health"],
    ]
    shown = []
    for command in commands:
        for place in (good, bad):
            verb, *rest = command
            words = [verb, rest[0], place, *rest[1:]] if verb == "log" else [verb, place, *rest]
            shown.append((words, here(*words)))
    shown.append((["doctor"], here("doctor", "logact.toml")))
    assert any(secret in word for words, _ in shown for word in words)
    for words, done in shown:
        assert secret not in done.stdout + done.stderr, words
    assert "itself holds a secret" in shown[-1][1].stdout
    assert sum(done.returncode == 0 for _, done in shown) >= 8, [(words, done.returncode) for words, done in shown]
