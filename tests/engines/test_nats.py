"""What the NATS engine adds to the contract: settings it checks, one server, late repetitions, seals."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from benchmarks.servers.nats import CONFIGURATION, NatsCluster

from logact import codec
from logact.entry import Seal, position_of
from logact.errors import (
    AppendUnknown,
    BlobMissing,
    ChainConflict,
    ConditionFailed,
    LogActError,
    LogCorrupt,
    LogSealed,
    LogTrimmed,
    LogUnavailable,
    UnknownLogUrl,
)
from logact.logs import nats as nats_engine
from logact.logs import nats_checks, nats_link
from logact.logs.base import Condition, Page, SharedLog, where
from logact.logs.nats import NatsEngine, engine_from_url, token_of
from logact.logs.nats_link import Silence
from logact.testing.conformance import Pen, note, read_all

_numbers = count()


@pytest.fixture
def url(nats: NatsCluster) -> str:
    """A log that is not there yet."""
    return nats.url(f"log-{next(_numbers)}")


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """One server, outside of any cluster, that flushes when it likes to."""
    place = tmp_path_factory.mktemp("careless")
    text = CONFIGURATION.read_text()
    assert "sync_interval: always" in text
    (place / "nats.conf").write_text(text.replace("sync_interval: always", "").partition("cluster {")[0])
    with NatsCluster(nodes=1, configuration=place / "nats.conf") as server:
        yield server


_open: list[NatsEngine] = []  # the engines of the test that runs


async def opened(url: str) -> NatsEngine:
    engine = engine_from_url(url)
    await engine.open()
    _open.append(engine)
    return engine


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        try:
            async with asyncio.timeout(60):
                await work
        finally:
            while _open:
                await _open.pop().close()

    asyncio.run(bounded())


# --- what an acknowledgement is worth ------------------------------


def test_flushing_servers_are_checked(nats: NatsCluster) -> None:
    """Only with the monitoring addresses of all servers the engine says that the log survives a power cut."""

    async def work() -> None:
        whole = await opened(nats.url("sync", monitor=nats.monitor))
        assert whole.sync.safe and len(whole.sync.always) == 3
        assert "power loss of all" in whole.info().survives and "1 of 3" in whole.info().survives
        for monitor in ("", nats.monitor.partition(",")[0], "http://127.0.0.1:1"):
            part = await opened(nats.url("sync", monitor=monitor))
            assert not part.sync.safe and "not a power loss" in part.info().survives
            assert any("UNKNOWN" in one for one in part.info().notes)

    run(work())


def test_careless_servers_are_refused_unless_opened_by_name(careless: NatsCluster) -> None:
    """A server that acknowledges before it flushes is refused; ``allow_unsafe_sync=1`` opens it, with a label."""

    async def work() -> None:
        with pytest.raises(LogUnavailable, match="sync_interval"):
            await opened(careless.url("careless", monitor=careless.monitor))
        engine = await opened(careless.url("careless", monitor=careless.monitor, allow_unsafe_sync=1))
        info = engine.info()
        assert any("NOT POWER-SAFE" in one for one in info.notes)
        assert any("Only one server" in one for one in info.notes)
        assert "no power loss" in info.survives
        assert engine.stream.info["config"]["num_replicas"] == 1
        pen = Pen(engine)
        assert await engine.tail() == 0
        record = await pen.write()
        assert await engine.tail() == record

    run(work())


ACCOUNTS = """
accounts {
  SYS {
    users: [{user: system, password: hush}]
    exports: [{service: "$SYS.REQ.SERVER.PING.VARZ", response_type: stream}]
  }
  AGENTS {
    jetstream: enabled
    users: [
      {user: agents, password: hush}
      {user: barred, password: hush, permissions: {publish: {deny: "$SYS.>"}}}
    ]
    imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ"}}]
  }
}
system_account: SYS
"""


@pytest.mark.parametrize("careful", [True, False])
def test_servers_are_asked_where_the_account_may_ask(careful: bool, tmp_path: Path) -> None:
    """Without any monitoring address: checked, or refused by name; who may not ask is told that it is unknown."""
    text = CONFIGURATION.read_text().partition("cluster {")[0] + ACCOUNTS
    (tmp_path / "nats.conf").write_text(text if careful else text.replace("sync_interval: always", ""))

    async def work(port: int) -> None:
        url = f"nats://agents:hush@127.0.0.1:{port}?log=asked"
        if careful:
            engine = await opened(url)
            assert engine.sync.safe and "Checked: sync_interval is always" in " ".join(engine.info().notes)
        else:
            with pytest.raises(LogUnavailable, match="sync_interval is not always"):
                await opened(url)
        barred = await opened(url.replace("agents", "barred"))
        assert any("UNKNOWN" in one for one in barred.info().notes) and not barred.sync.safe

    with NatsCluster(nodes=1, configuration=tmp_path / "nats.conf") as server:
        run(work(server.nodes[0].port))


def test_old_servers_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lacks what LogAct uses is named as too old, before anything is made on it."""
    for version in ("2.9.10", "2.11.99-RC.1", "1.4", "", "nonsense"):
        with pytest.raises(LogUnavailable, match="too old"):
            nats_checks.check_version(version)
    for version in ("2.12.0", "2.15.1", "3.0.0-beta"):
        nats_checks.check_version(version)
    monkeypatch.setattr(nats_checks, "SERVER_LEAST", (99, 0))
    with pytest.raises(LogUnavailable, match=r"99\.0 or newer"):
        run(opened(url))  # type: ignore[arg-type]


def test_changed_settings_are_refused(url: str) -> None:
    """A stream that was told to drop old messages, or that is no log, does not open."""

    async def work() -> None:
        engine = await opened(url)
        config = dict(engine.stream.info["config"])
        await engine.link.insist(f"STREAM.UPDATE.{engine.stream.name}", {**config, "max_age": 3600 * 10**9})
        with pytest.raises(LogUnavailable, match="max_age"):
            await opened(url)
        foreign = {**config, "max_age": 0, "metadata": {"logact.log_id": "x", "logact.format": "99"}}
        await engine.link.insist(f"STREAM.UPDATE.{engine.stream.name}", foreign)
        with pytest.raises(LogUnavailable, match="format 99"):
            await opened(url)

    run(work())


def test_processes_that_make_a_log_together_make_one(url: str) -> None:
    """Several processes open a log that is not there yet at the same moment: it is the same log for all of them."""

    async def work() -> None:
        engines = await asyncio.gather(*(opened(url) for _ in range(5)))
        assert len({engine.log_id for engine in engines}) == 1
        records = await asyncio.gather(*(Pen(engine, engine.log_id).write(key="first") for engine in engines))
        assert len(set(records)) == 1 and len(await read_all(engines[0])) == 1

    run(work())


def test_urls() -> None:
    """What cannot be a log's URL is refused before anything is connected; no two names become one subject."""
    for bad in (
        "nats://h/path",
        "nats://h?replicas=9",
        "nats://h?monitor=h:8222",
        "nats://h?allow_unsafe_sync=yes",
        "nats://h?surprise=1",
        "nats://",
    ):
        with pytest.raises(UnknownLogUrl):
            engine_from_url(bad)
    names = ["a.b", "a/b", "a-b", "a_b", "a=2Eb".replace("=", "-"), "x" * 256, "x" * 255 + "."]
    tokens = [token_of(name) for name in names]
    assert len(set(tokens)) == len(names)
    assert not any(set(token) & set("./*> ") for token in tokens) and max(map(len, tokens)) < 200


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server: a definite error that names the address, without the password."""
    monkeypatch.setattr(nats_link, "CONNECT_S_MAX", 0.5)

    async def work() -> None:
        with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1") as caught:
            await opened("nats://me:hush@127.0.0.1:1")
        assert "hush" not in str(caught.value) and caught.value.definite

    run(work())


# --- fates of appends ------------------------------


def test_an_answer_that_is_lost_is_found_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of append whose acknowledgement is lost once is found, once, as this call's own."""

    async def work() -> None:
        engine = await opened(url)
        send, lost = engine.link.send, 0

        async def deaf(subject: str, payload: bytes, headers: dict[str, str]) -> tuple[int, bool]:
            nonlocal lost
            answer = await send(subject, payload, headers)
            if ".r." in subject and headers["Nats-Msg-Id"] not in heard:
                heard.add(headers["Nats-Msg-Id"])
                lost += 1
                raise Silence("lost on the way")
            return answer

        heard: set[str] = set()
        monkeypatch.setattr(engine.link, "send", deaf)
        pen = Pen(engine)
        first = await pen.send(pen.draft())
        second = await pen.send(pen.draft(condition=Condition(position_of(first[0]), where(kinds=["Vote"]))))
        third = await pen.send(pen.draft(note("keyed"), key="k"))
        assert [fresh for _, fresh in (first, second, third)] == [True] * 3 and lost == 3
        assert [stored.record for stored in await read_all(engine)] == [first[0], second[0], third[0]]

    run(work())


def test_a_repetition_beyond_the_duplicate_window(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any help of message ids, a record that arrives again much later is refused by its writer's place."""

    async def work() -> None:
        engine = await opened(url)
        send = engine.link.send
        sent: list[tuple[str, bytes, dict[str, str]]] = []

        async def forgetful(subject: str, payload: bytes, headers: dict[str, str]) -> tuple[int, bool]:
            without = {name: value for name, value in headers.items() if name != "Nats-Msg-Id"}
            sent.append((subject, payload, without))
            return await send(subject, payload, without)

        monkeypatch.setattr(engine.link, "send", forgetful)
        pen = Pen(engine)
        for _ in range(3):
            await pen.write()
        await pen.write(note("keyed"), key="k")
        for late in sent:
            with pytest.raises(nats_link.Refused, match="wrong last sequence"):
                await send(*late)
        assert len(await read_all(engine)) == 4

    run(work())


def test_silence_is_indefinite_and_nobody_is_definite(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that may have happened ends in AppendUnknown, one that certainly did not in LogUnavailable."""
    monkeypatch.setattr("logact.logs.nats_attempt.WINDOW_S", 0.05)

    async def work() -> None:
        engine = await opened(url)

        async def fails(*_: object) -> tuple[int, bool]:
            raise problem

        monkeypatch.setattr(engine.link, "send", fails)
        for problem, expected in (
            (nats_link.Silence("no answer"), AppendUnknown),
            (nats_link.Nobody("no leader"), LogUnavailable),
            (nats_link.Refused(10077, 503, "store failed"), AppendUnknown),
        ):
            for key in ("", "k"):
                with pytest.raises(expected) as caught:
                    await engine.append(Pen(engine, repr(problem)).draft(key=key))
                error = caught.value
                assert isinstance(error, LogActError) and error.definite is (expected is LogUnavailable)

    run(work())


def test_a_part_that_leaves_while_an_answer_arrives_leaves(url: str) -> None:
    """The client's own wait returns the answer and forgets that its task was cancelled."""

    async def work() -> None:
        engine = await opened(url)
        waits = engine.link.client._resp_map

        async def ask_for_ever() -> None:
            while True:
                await engine.link.leader_says(engine.stream.name)

        for _ in range(5):
            asking = asyncio.ensure_future(ask_for_ever())
            while not any(future.done() for future in waits.values()):
                await asyncio.sleep(0)
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=5)
            assert done and asking.cancelled()

    run(work())


def test_a_record_behind_a_seal_is_void(url: str) -> None:
    """An append that landed behind the seal in a race is refused to its writer and hidden from every reader."""

    async def work() -> None:
        one, two = await opened(url), await opened(url)
        await two.stream.follower.close()  # it will not see the seal before its own append
        two.stream.follower._heard = 1e12
        two.stream.follower._broken = False
        seal = await Pen(one, "sealer").write(Seal())
        late = asyncio.ensure_future(two.append(Pen(two, "late").draft()))
        await asyncio.sleep(0.2)
        two.stream.follower._broken = True
        with pytest.raises(LogSealed):
            await late
        raw = await one.link.insist(f"STREAM.INFO.{one.stream.name}")
        assert raw["state"]["messages"] == 2, "the record did land behind the seal"
        for engine in (one, two, await opened(url)):
            assert [stored.record for stored in await read_all(engine)] == [seal]
            assert await engine.tail() == seal

    run(work())


def test_conditional_appends_share_a_commit(url: str) -> None:
    """Conditional and keyed appends that come together go out together; those that bear on each other do not."""

    async def work() -> None:
        one, two = await opened(url), await opened(url)
        pens = [Pen(one, f"pen {number}") for number in range(40)]
        noise = [Pen(two, f"noise {number}") for number in range(10)]
        start = Condition(0, where(agents=["nobody"]))
        drafts = [
            pen.draft(key=f"key {number % 10}" if number < 20 else "", condition=start)
            for number, pen in enumerate(pens)
        ]
        same = [pen.draft(note("same"), key="same") for pen in (Pen(one, "a"), Pen(one, "b"), Pen(one, "c"))]
        rivals = [
            Pen(one, f"rival {number}").draft(note("x", code="rival"), condition=Condition(0)) for number in range(3)
        ]
        answers = await asyncio.gather(
            *(one.append(draft) for draft in [*drafts, *same, *rivals]),
            *(pen.write() for pen in noise),
            return_exceptions=True,
        )
        kept, refused_, shared = answers[:40], answers[43:46], answers[40:43]
        assert [type(answer).__name__ for answer in kept[:10]] == ["tuple"] * 10
        assert sum(isinstance(answer, tuple) and answer[1] for answer in kept[:20]) == 10, "one for each key"
        assert all(isinstance(answer, tuple) and answer[1] for answer in kept[20:])
        assert sorted(answer[1] for answer in shared if isinstance(answer, tuple)) == [False, False, True]
        assert sum(isinstance(answer, ConditionFailed) for answer in refused_) >= 2
        assert one.pen.race.together >= 20 and one.pen.race.batches < 40
        records = await read_all(one)
        assert [stored.record for stored in records] == [stored.record for stored in await read_all(two)]
        assert len(records) == 10 + 20 + 1 + 10 + 3 - sum(isinstance(one_, ConditionFailed) for one_ in refused_)

    run(work())


def test_plain_appends_share_a_commit_and_no_fault(url: str) -> None:
    """Plain appends that come together go out together; one that the server refuses fails none of the others."""

    async def work() -> None:
        engine = await opened(url)
        odd = Pen(engine, "odd")
        await engine.erase(await odd.write(), 0)  # the server no longer knows this writer's last record
        pens = [odd, *(Pen(engine, f"pen {number}") for number in range(30))]
        for turn in range(1, 4):
            records = await asyncio.gather(*(pen.write(note(f"{pen.name} {turn}")) for pen in pens))
            assert len(set(records)) == len(pens)
        assert len(await read_all(engine)) == 1 + 3 * len(pens)
        assert engine.pen.convoy.together >= 30

    run(work())


def test_busy_writers_do_not_starve_a_condition(nats: NatsCluster, url: str) -> None:
    """A conditional append comes through although two other processes' engines write as fast as they can."""

    async def work() -> None:
        engines = [await opened(url) for _ in range(3)]
        stop = False

        async def noise(engine: NatsEngine, name: str) -> None:
            pen = Pen(engine, name)
            while not stop:
                await pen.write()

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(noise(engines[number % 2], f"noise {number}"))
            pen = Pen(engines[2], "careful")
            for _ in range(5):
                await pen.write(condition=Condition(0, where(agents=["nobody"])))
            stop = True

    run(work())


# --- what is kept beside the log ------------------------------


def test_a_summary_bounds_an_opening(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long log was read once, the next opening starts from the summary and knows every writer and key."""
    monkeypatch.setattr(nats_engine, "SUMMARY_MESSAGES", 50)

    async def work() -> None:
        engine = await opened(url)
        pens = [Pen(engine, f"pen {number}") for number in range(60)]
        await asyncio.gather(*(pen.write(note(pen.name), key=pen.name) for pen in pens))
        records = [stored.record for stored in await read_all(engine)]
        again = await opened(url)
        assert again.stream.memory.began == 0
        third = await opened(url)
        assert third.stream.memory.began == await engine.tail() or third.stream.memory.began >= records[-1]
        assert [stored.record for stored in await read_all(third)] == records
        other = Pen(third, "other")
        assert (await third.append(other.draft(note("pen 7"), key="pen 7")))[1] is False
        with pytest.raises(ChainConflict):
            await third.append(Pen(third, "pen 7").draft(note("other words")))
        assert len(await read_all(third)) == 60

    run(work())


def test_a_message_that_somebody_deleted_is_damage(url: str) -> None:
    """A record that is gone without having been erased or trimmed is LogCorrupt, never skipped."""

    async def work() -> None:
        engine = await opened(url)
        pen = Pen(engine)
        records = [await pen.write() for _ in range(5)]
        await engine.link.insist(f"STREAM.MSG.DELETE.{engine.stream.name}", {"seq": records[2]})
        with pytest.raises(LogCorrupt, match=f"Record {records[2]} is missing"):
            await opened(url)

    run(work())


def test_erased_bytes_leave_the_servers_and_other_processes(nats: NatsCluster, url: str) -> None:
    """After an erasure neither another process that had read the entry nor any server's store holds the words."""

    async def work() -> None:
        words = "the-quick-brown-secret"
        async with SharedLog(engine_from_url(url)) as one, SharedLog(engine_from_url(url)) as two:
            position = (await one.append(note(words))).position
            await one.append(note("after"))
            assert words in [getattr(entry.payload, "message", "") async for entry in two.read()]
            await one.erase(position, "asked for")
            for log in (one, two):
                assert words not in str([entry async for entry in log.read()])
            engine = one.engine
            assert isinstance(engine, NatsEngine)
            said = str([await engine.stream.one(stored.record) for stored in await read_all(engine)])
            assert words not in said
            places = [path for node in nats.nodes for path in node.directory.rglob("*.blk")]
            blocks = [path for path in places if engine.stream.name in str(path)]
            assert blocks and not any(words.encode() in path.read_bytes() for path in blocks)

    run(work())


def test_another_process_trims(url: str) -> None:
    """A reader that is not told of a trim finds out when it reads what is gone."""

    async def work() -> None:
        one, two = await opened(url), await opened(url)
        pen = Pen(one)
        records = [await pen.write() for _ in range(10)]
        await one.trim(records[5])
        three = await opened(url)
        for engine in (one, three):
            with pytest.raises(LogTrimmed):
                await engine.read(0)
        two.stream.memory.cached_from = 10**9  # nothing is cached any more
        with pytest.raises(LogTrimmed):
            await two.read(0)
        assert [stored.record for stored in (await two.read(records[4])).records] == records[5:]

    run(work())


def test_who_slept_through_a_trim_goes_on_behind_it(url: str) -> None:
    """A follower that never got what was trimmed goes on with what is kept, and knows the trimmed keys."""

    async def work() -> None:
        one, two = await opened(url), await opened(url)
        pen = Pen(one)
        await pen.write(note("before"))
        await two.stream.catch_up()
        await two.stream.follower.close()
        records = [await pen.write(note(str(turn)), key=f"k{turn}") for turn in range(10)]
        await one.trim(records[-1] + 1)
        assert await two.tail() == records[-1]
        assert (await two.append(Pen(two, "other").draft(note("3"), key="k3"))) == (records[3], False)
        last = await pen.write(note("after"))
        assert [stored.record for stored in (await two.read(records[-1])).records] == [last]

    run(work())


def test_large_blobs_come_in_parts(url: str) -> None:
    """A blob much larger than a message comes back; one whose first part was never written is not there."""

    async def work() -> None:
        engine = await opened(url)
        data = bytes(range(256)) * 10_000
        digest = codec.digest(data)
        with pytest.raises(BlobMissing):
            await engine.get_blob(digest)
        await engine.put_blob(digest, data)
        assert await engine.get_blob(digest) == data
        side = engine.stream.side
        await side._put("b.half.1", b"second part", {})
        with pytest.raises(BlobMissing):
            await engine.get_blob("half")

    run(work())


def test_how_often_a_follower_reads_and_asks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question to the leader for each piece of news: a page of what was pushed is followed by one that asks; a
    page that asked says that it is the end, and nobody reads again.
    """

    async def work() -> None:
        one, two = await opened(url), await opened(url)
        pen, seen, pages = Pen(one), 0, list[Page]()
        honest = two.read

        async def counted(*how: Any) -> Page:
            pages.append(await honest(*how))
            return pages[-1]

        async def follow() -> None:
            nonlocal seen
            async for _ in SharedLog(two).follow():
                seen += 1

        async def more(records: int) -> tuple[int, int]:
            """How many pages and questions that many records cost, which come one by one."""
            before, asks = len(pages), two.stream.asks
            for _ in range(records):
                wanted = seen + 1
                await pen.write()
                while seen < wanted or not pages[-1].end or not two._waiters:
                    await asyncio.sleep(0.005)
            return len(pages) - before, two.stream.asks - asks

        monkeypatch.setattr(two, "read", counted)
        following = asyncio.ensure_future(follow())
        while not two._waiters:
            await asyncio.sleep(0.005)
        assert await more(10) == (20, 10)
        following.cancel()
        before = two.stream.memory.tail
        two.stream.follower._broken = True  # it does not hear of what comes
        record = await pen.write()
        page = await honest(before)
        assert [stored.record for stored in page.records] == [record] and page.end
        await asyncio.gather(following, return_exceptions=True)

    run(work())
