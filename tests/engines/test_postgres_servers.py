"""PostgreSQL servers of several kinds: old ones, with passwords and TLS, behind a pooler, with a standby, killed."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from benchmarks.servers.pgbouncer import PROGRAM, PgBouncer
from benchmarks.servers.postgres import DEFAULT, SUPERUSER, PostgresServer, places

from logact import open_log
from logact.entry import NewEntry
from logact.errors import AppendUnknown, LogUnavailable, UsageError
from logact.logs.base import Engine
from logact.logs.postgres import PostgresEngine, engine_from_url
from logact.testing.conformance import EngineConformance, Pen, note, numbers_of
from tests.engines.certificates import Certificates, make
from tests.engines.proxy import Proxy
from tests.engines.test_postgres import opened, run

NUMBERS = count(1)


class Anywhere(EngineConformance):
    """The suite against any URL. Its tests are called one by one: what depends on the server, not on this process."""

    NAMES = (
        "test_condition_on_a_filter",
        "test_checks_come_in_order",
        "test_filters_agree_with_their_definition",
        "test_of_concurrent_conditional_appends_one_wins",
        "test_neighbours_in_a_group_commit",
        "test_trim",
        "test_erase",
        "test_blobs",
        "test_last_checkpoint",
        "test_wait",
        "test_two_engines_on_one_log",
        "test_everything_is_there_after_reopening",
        "test_followers_see_everything_once_and_in_order",
    )

    def __init__(self, url_of: Callable[[str], str]) -> None:
        self.url_of = url_of

    async def make_engine(self) -> Engine:
        return engine_from_url(self.url_of(f"log-{next(NUMBERS)}"))

    async def another(self, engine: Engine) -> Engine:
        assert isinstance(engine, PostgresEngine)
        return PostgresEngine(engine.url)

    def run(self) -> None:
        """All of them."""
        for name in self.NAMES:
            getattr(self, name)()


@pytest.mark.parametrize("version", sorted(set(places()) - {DEFAULT}))
def test_older_servers(version: str) -> None:
    """What is particular to the SQL works on every version that this machine has or Maven can fetch."""
    with PostgresServer(version) as server:
        Anywhere(lambda log: server.url("postgres", log)).run()

        async def work() -> str:
            async with opened(server.url("postgres", "info")) as engine:
                return " ".join(engine.info().notes)

        assert f"PostgreSQL {version}" in run(work)


@pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed: the transaction pooler is not tested here")
def test_behind_a_transaction_pooler(postgres: PostgresServer) -> None:
    """PgBouncer in transaction mode is noticed and said, and the contract holds as it does without."""
    postgres.database("pooled")
    with PgBouncer(postgres) as pooler:
        Anywhere(lambda log: pooler.url("pooled", log)).run()

        async def work() -> None:
            async with opened(pooler.url("pooled", "said")) as engine:
                info = engine.info()
                assert "looking every" in info.wakes_by and "pooler" in " ".join(info.notes)
                assert await engine.wait(0, 0.02) is False and not engine._bell.listening

        run(work)


class Unlucky(Proxy):
    """Breaks connections at the moment at which they would be prepared for appends, a few times."""

    left = 3

    def spoils(self, data: bytes, *, answers: bool) -> bool:
        if answers or b"PREPARE logact_append" not in data or not self.left:
            return False
        self.left -= 1
        return True


def test_a_connection_that_breaks_before_it_is_prepared(postgres: PostgresServer) -> None:
    """Was LogUnavailable at once, whatever the patience: it is one more connection that did not come about."""
    database = postgres.database("unlucky")
    with Unlucky(postgres.port) as network:

        async def work() -> None:
            async with opened(f"postgresql://{SUPERUSER}@127.0.0.1:{network.port}/{database}?log=a") as engine:
                assert await Pen(engine).write() == 1

        run(work)
        assert network.resets == 3


# --- passwords and TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The server, for a while with settings of its own, and with a user ann that needs a password."""
    rules = postgres.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("host all ann 127.0.0.1/32 scram-sha-256\n" + before)
    postgres.reload()
    postgres.sql("CREATE ROLE ann LOGIN PASSWORD 'open sesame'", "CREATE DATABASE vault OWNER ann")
    yield postgres
    rules.write_text(before)
    postgres.configure(fsync="on", full_page_writes="on")
    postgres.reload()


class TlsFront(Proxy):
    """Encrypted connections for a server that was built without: it answers the request for TLS, and forwards."""

    def __init__(self, port: int, made: Certificates) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(made.cert, made.key)
        super().__init__(port)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(8) != struct.pack(">II", 8, 80877103):
            raise ConnectionError("no TLS was asked for")
        writer.write(b"S")
        await writer.start_tls(self._context)


def test_files_that_are_not_flushed_are_refused(guarded: PostgresServer) -> None:
    """``fsync=off`` and ``full_page_writes=off`` are refused when the log is opened, and fine once they are on."""

    async def work() -> None:
        for lax, other in (("fsync", "full_page_writes"), ("full_page_writes", "fsync")):
            await _with(guarded, **{lax: "off", other: "on"})
            with pytest.raises(UsageError, match=f"{lax}=off"):
                await engine_from_url(guarded.url("postgres")).open()
        await _with(guarded, fsync="on", full_page_writes="on")
        async with opened(guarded.url("postgres", "flushed")) as engine:
            assert await Pen(engine).write() == 1

    run(work)


async def _with(server: PostgresServer, **settings: str) -> None:
    """Reload settings, and wait until new sessions have them."""
    server.configure(**settings)
    server.reload()
    for name, value in settings.items():
        while await asyncio.to_thread(server.sql, f"SHOW {name}") != value:
            await asyncio.sleep(0.01)


def test_passwords_and_certificates(
    guarded: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Password and authority come from files or the environment; what is wrong is refused, and nothing is shown."""
    made, stranger = make(tmp_path), make(tmp_path, "stranger")
    secret, wrong = tmp_path / "password", tmp_path / "wrong"
    secret.write_text("open sesame\n")
    wrong.write_text("open barley\n")
    said: list[str] = []

    async def work(base: str) -> None:
        async with opened(f"{base}&ca={made.ca}&password_file={secret}") as engine:
            assert await Pen(engine).write() == 1
            assert "checked against" in " ".join(engine.info().notes)
        monkeypatch.setenv("LOGACT_POSTGRES_PASSWORD", "open sesame")
        monkeypatch.setenv("LOGACT_POSTGRES_CA", str(made.ca))
        async with opened(base) as engine:
            assert await engine.tail() == 1
        monkeypatch.delenv("LOGACT_POSTGRES_CA")
        for url, says in (
            (f"{base}&ca={stranger.ca}", "certificate"),
            (base, "certificate"),
            (f"{base}&ca={made.ca}&password_file={wrong}", "password"),
        ):
            with pytest.raises(LogUnavailable, match=says) as caught:
                await engine_from_url(url).open()
            said.append(str(caught.value))
        async with opened(base.replace("verify", "unverified")) as engine:
            info = engine.info()
            said.append(repr(info))
            assert "not checked" in " ".join(info.notes)
        plain = base.replace("verify", "off").replace("ann@", "ann:open sesame@")
        with pytest.raises(LogUnavailable) as caught:
            await engine_from_url(plain).open()
        said.append(str(caught.value))

    with TlsFront(guarded.port, made) as front:
        run(lambda: work(f"postgresql://ann@127.0.0.1:{front.port}/vault?tls=verify"))
    assert len(said) == 5
    for text in [*said, *capfd.readouterr()]:
        assert "sesame" not in text and "barley" not in text


# --- a standby, and kills -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its synchronous standby. The last test kills the primary for good."""
    with PostgresServer() as primary:
        primary.database("pair")
        with primary.standby() as standby:
            primary.make_synchronous()
            yield primary, standby


def test_a_repeat_is_not_acknowledged_before_the_standby_has_it(pair: tuple[PostgresServer, PostgresServer]) -> None:
    """A commit whose wait for the standby was broken off is unknown; its repeat waits until the standby has it."""
    primary, standby = pair
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    async def until_it_waits() -> None:
        while await asyncio.to_thread(primary.sql, waiting) != "1":
            await asyncio.sleep(0.01)

    async def work() -> None:
        async with opened(primary.url("pair", "repeat")) as engine:
            assert "standby" in engine.info().survives
            pen = Pen(engine)
            await pen.write()
            draft = pen.draft(note("doubtful"))
            standby.pause()
            try:
                async with asyncio.TaskGroup() as group:
                    first = group.create_task(_outcome(engine.append(draft)))
                    await until_it_waits()
                    await asyncio.to_thread(primary.sql, cancel)
                assert isinstance(first.result(), AppendUnknown) and "warning" in str(first.result())
                assert await engine.tail() == 2, "it is there, for everyone to see"
                async with asyncio.TaskGroup() as group:
                    again = group.create_task(_outcome(engine.append(draft)))
                    await until_it_waits()
                    assert not again.done()
                    standby.resume()
                assert again.result() == (2, False)
            finally:
                standby.resume()

    run(work)


async def _outcome(work: object) -> object:
    (found,) = await asyncio.gather(work, return_exceptions=True)  # type: ignore[call-overload]
    return found


def test_a_server_that_is_killed_under_load(pair: tuple[PostgresServer, PostgresServer]) -> None:
    """kill -9 of every process of the server, and a restart: nothing acknowledged is lost, nothing doubled."""
    primary, _ = pair

    async def strike(done: Counted) -> None:
        await done.grows(60)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(primary.start)
        await done.grows(60)

    run(lambda: _under_load(primary.url("pair", "kills"), strike))


def test_the_primary_is_lost_and_the_standby_promoted(pair: tuple[PostgresServer, PostgresServer]) -> None:
    """With both hosts in the URL writers go on after a promotion by themselves; nothing is lost, nothing doubled."""
    primary, standby = pair
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"  # the first one takes no writes at first
    url = f"postgresql://{SUPERUSER}@{hosts}/pair?log=promoted&tls=off"

    async def strike(done: Counted) -> None:
        await done.grows(60)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.promote)
        await asyncio.to_thread(standby.configure, synchronous_standby_names="")
        standby.reload()
        await done.grows(60)

    run(lambda: _under_load(url, strike))


class Counted:
    """What was acknowledged to the writers under load."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.stop = False

    async def grows(self, by: int) -> None:
        """Wait until so many more appends were acknowledged."""
        enough = len(self.acknowledged) + by
        while len(self.acknowledged) < enough:
            await asyncio.sleep(0.005)


async def _under_load(url: str, strike: Callable[[Counted], object]) -> None:
    """Four writers append what nobody else does, while ``strike`` strikes; then the log is compared."""
    done = Counted()
    async with open_log(url) as log:

        async def write(name: int) -> None:
            pen = log.writer()
            turn = 0
            while not done.stop:
                turn += 1
                try:
                    at = await pen.append([NewEntry(payload=note(f"{name}-{turn}"), role="client", name="load")])
                except LogUnavailable:
                    turn -= 1  # certainly not there
                    continue
                done.acknowledged[f"{name}-{turn}"] = at.position
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for name in range(4):
                group.create_task(write(name))
            await strike(done)  # type: ignore[misc]
            done.stop = True
    async with open_log(url) as log:
        there: dict[str, list[int]] = {}
        async for entry in log.read():
            there.setdefault(getattr(entry.payload, "message", ""), []).append(entry.position)
        numbers = await numbers_of(log.engine)
    assert numbers == list(range(1, len(numbers) + 1)), "numbers have no gaps"
    for message, position in done.acknowledged.items():
        assert there.get(message) == [position], (message, position, there.get(message))
    assert all(len(positions) == 1 for positions in there.values())
