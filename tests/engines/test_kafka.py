"""What is Kafka's own: names and settings of topics, TLS and users, snapshots, trims, blobs in pieces."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from benchmarks.servers.kafka import PASSWORD, USER, KafkaCluster
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from logact import codec
from logact.entry import BlobRef, Checkpoint
from logact.errors import LogCorrupt, LogUnavailable, UnknownLogUrl, UsageError
from logact.logs.kafka import KafkaEngine, client_options, engine_from_url
from logact.logs.kafka_settings import PLACES, Wanted
from logact.logs.network_url import parse
from logact.logs.url import open_log
from logact.testing.arbitrated import MemoryArbitratedEngine
from logact.testing.conformance import Pen, note, numbers_of
from logact.testing.memory_partitions import MemoryPartitions
from tests.engines.kafka_kit import KafkaLike


def admin(kafka: KafkaLike) -> AdminClient:
    hosts = kafka.bootstrap if isinstance(kafka, KafkaCluster) else f"127.0.0.1:{kafka.port}"
    return AdminClient({"bootstrap.servers": hosts, "log_level": 0})


def make(kafka: KafkaLike, name: str, *, partitions: int = 1, copies: int = 3, **config: str) -> None:
    """A topic as somebody else made it."""
    topic = f"test.{name}"
    fine = {
        "min.insync.replicas": "2",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "unclean.leader.election.enable": "false",
    }
    whole = {**fine, **{key.replace("_", "."): value for key, value in config.items()}}
    client = admin(kafka)
    for future in client.create_topics([NewTopic(topic, partitions, copies, config=whole)]).values():
        future.result(20)


@pytest.fixture
def real(kafka: KafkaLike) -> KafkaCluster:
    """Brokers that know all settings; the emulator keeps some of them only."""
    if not isinstance(kafka, KafkaCluster):
        pytest.skip("the emulator does not have these settings")
    return kafka


def refused(url: str) -> str:
    """Opening this log is refused; the message."""

    async def run() -> None:
        async with open_log(url):
            pass

    with pytest.raises(UsageError) as caught:
        asyncio.run(run())
    return str(caught.value)


def test_topics_that_could_lose_records_are_refused(real: KafkaCluster) -> None:
    """Few copies, a low minimum, unclean elections, retention: refused by name, or opened and labelled as unsafe."""
    cases = {
        "few-copies": ({"copies": 2}, "2 copies"),
        "low-minimum": ({"min_insync_replicas": "1"}, "min.insync.replicas=1"),
        "unclean": ({"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable=true"),
        "forgetful": ({"retention_ms": "3600000"}, "retention.ms=3600000"),
        "small": ({"max_message_bytes": "5000"}, "max.message.bytes=5000"),
    }
    for name, (how, what) in cases.items():
        make(real, name, **how)  # type: ignore[arg-type]
        assert what in refused(real.url(name)), name

    async def anyway() -> None:
        async with open_log(real.url("low-minimum", "&unsafe=1")) as log:
            await log.append(note("well"))
            info = log.engine.info()
            assert "nothing for sure" in info.survives
            assert any("UNSAFE" in one and "min.insync.replicas=1" in one for one in info.notes)

    asyncio.run(anyway())


def test_topics_that_cannot_hold_a_log_are_never_opened(real: KafkaCluster) -> None:
    """More than one partition has no order, compaction drops records: not even with unsafe=1."""
    make(real, "wide", partitions=2)
    make(real, "compact", cleanup_policy="compact")
    assert "more than one partition" in refused(real.url("wide", "&unsafe=1"))
    assert "compacted" in refused(real.url("compact", "&unsafe=1"))


def test_a_cluster_that_is_too_small(real: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five copies on three brokers: the message says what is needed."""
    monkeypatch.setattr("logact.logs.kafka_settings.TOO_SMALL_S", 0.3)
    assert "5 brokers" in refused(real.url("five", "&copies=5"))


def test_a_sound_log_says_so(real: KafkaCluster) -> None:
    """No note of an ordinary log speaks of danger; what it survives is said."""

    async def run() -> None:
        async with open_log(real.url("sound")) as log:
            info = log.engine.info()
            assert "loss of 1 of 3 brokers" in info.survives and "power cut" in info.survives
            assert not [one for one in info.notes if "UNSAFE" in one]
            assert any("does not flush" in one for one in info.notes)

    asyncio.run(run())


def test_tls_and_a_user(real: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the right password and authority it works; with others it is refused, and no message holds the secret."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "ca.pem").write_text(real.key_and_certificate.partition("-----END PRIVATE KEY-----\n")[2])
    url = f"kafka://{USER}@{real.secure_hosts}/test?log=secure&sasl=plain&ca={tmp_path / 'ca.pem'}"

    async def run(whole: str) -> str:
        async with open_log(whole) as log:
            await log.append(note("secret"))
            assert "encrypted" in " ".join(log.engine.info().notes)
            return repr(log.engine.info()) + log.url

    assert PASSWORD not in asyncio.run(run(f"{url}&password_file={tmp_path / 'password'}"))
    monkeypatch.setenv("LOGACT_KAFKA_PASSWORD", PASSWORD)
    asyncio.run(run(url))
    monkeypatch.setattr("logact.logs.kafka_settings.WAIT_S_MAX", 2.0)
    monkeypatch.setenv("LOGACT_KAFKA_PASSWORD", "wrong/secret")
    with pytest.raises(LogUnavailable) as caught:
        asyncio.run(run(url))
    assert "wrong/secret" not in str(caught.value) and "Kafka cannot be reached" in str(caught.value)
    monkeypatch.setenv("LOGACT_KAFKA_PASSWORD", PASSWORD)
    with pytest.raises(LogUnavailable):
        asyncio.run(run(url.replace("&ca=", "&tls=verify&nothing=").partition("&nothing=")[0]))


def test_urls() -> None:
    """Ports, prefixes and mechanisms as written; what is not known is refused."""
    options = client_options(
        parse("kafka://ann@a:1,[::1]/x?sasl=scram-sha-256&tls=off", engine="kafka", options=["sasl"])
    )
    assert options["bootstrap.servers"] == "a:1,[::1]:9092"
    assert options["sasl.mechanism"] == "SCRAM-SHA-256" and options["security.protocol"] == "SASL_PLAINTEXT"
    assert engine_from_url("kafka://localhost").wanted.topic("log") == "logact.main"
    assert engine_from_url("kafka://localhost/p?log=a/b_c").wanted.topic("state") == "p.a_-b__c_.state"
    for wrong in ("?reads=perhaps", "?copies=0", "?sasl=none", "?unsafe=yes", "?surprise=1", "?timeout_s=soon"):
        with pytest.raises(UnknownLogUrl):
            engine_from_url("kafka://localhost/" + wrong)
    with pytest.raises(UsageError):
        engine_from_url("kafka://localhost/a b")
    with pytest.raises(UsageError):
        engine_from_url(f"kafka://localhost/{'x' * 200}?log={'y' * 60}")


def test_no_two_logs_share_a_topic() -> None:
    """Every name of a log has topics of its own, companions included."""
    names = ["a", "a_", "a__", "a/b", "a_-b", "a_.state", "a/.state", "a.state", "a_/", "a/_", "a/", "a//", "a_s"]
    topics = [Wanted(prefix="p", name=name).topic(place) for name in names for place in PLACES]
    assert len(set(topics)) == len(topics)


def test_an_opener_begins_with_the_last_snapshot(kafka: KafkaLike) -> None:
    """After many messages only those since the last snapshot are folded, and old snapshots are deleted."""
    url = kafka.url("snapshots")

    async def run() -> None:
        engine = engine_from_url(url)
        engine.snapshot_messages = 40
        await engine.open()
        pen = Pen(engine)
        numbers = [await pen.write(note(f"{turn}"), key=f"k{turn}") for turn in range(150)]
        assert engine.snapshots >= 3
        digest = engine.arbiter.digest()
        await engine.close()
        again = engine_from_url(url)
        await again.open()
        assert await again.tail() == numbers[-1]
        assert again.folded <= 60, "it read more than what came after the snapshot"
        low, high = await again.partitions.bounds("state")
        assert low > 0 and high - low <= 3
        assert await numbers_of(again) == numbers
        other = Pen(again, "other")
        assert await again.append(other.draft(note("3"), key="k3")) == (numbers[3], False)
        assert len(digest) == 64
        await again.close()

    asyncio.run(run())


def test_a_trim_deletes_messages(kafka: KafkaLike) -> None:
    """What was trimmed is deleted at the brokers, and the log opens from its snapshot; without one it is corrupt."""
    url = kafka.url("trimmed")

    async def run() -> None:
        engine = engine_from_url(url)
        await engine.open()
        pen = Pen(engine)
        numbers = [await pen.write() for _ in range(30)]
        checkpoint = Checkpoint(upto=1, chain="c", state=BlobRef(digest="d", size=1))
        last = await pen.write(checkpoint)
        await engine.trim(numbers[20])
        assert (await engine.partitions.bounds("log"))[0] == numbers[20] - 1
        await engine.close()
        again = engine_from_url(url)
        await again.open()
        assert [stored.record for stored in (await again.read(numbers[20] - 1)).records] == [*numbers[20:], last]
        assert await again.last_checkpoint() == last
        assert again.log_id == engine.log_id
        _, high = await again.partitions.bounds("state")
        await again.partitions.delete_before("state", high)
        await again.close()
        with pytest.raises(LogCorrupt):
            await engine_from_url(url).open()

    asyncio.run(run())


def test_large_blobs_go_in_pieces(kafka: KafkaLike) -> None:
    """Blobs beyond the size of a message come back whole, from another process's engine too."""
    url = kafka.url("blobs")
    data = os.urandom(2_500_000)

    async def run() -> None:
        async with open_log(url) as one, open_log(url) as two:
            digest = await one.put_blob(data)
            assert await two.get_blob(digest) == data
            place = one.engine.arbiter.blobs  # type: ignore[attr-defined]
            await one.tail()
            assert len(place[digest].offsets) == 3
            assert codec.digest(await two.get_blob(digest)) == digest

    asyncio.run(run())


def test_reads_that_trust_the_broker_send_no_marks(kafka: KafkaLike) -> None:
    """With reads=watermark nothing is written by reading, and the engine says what that means."""
    url = kafka.url("watermark")

    async def run() -> None:
        async with open_log(url) as writer, open_log(url + "&reads=watermark") as reader:
            done = await writer.append(note("x"))
            async with asyncio.timeout(20):
                while await reader.tail() != done.position:
                    await asyncio.sleep(0.01)
            assert len([entry async for entry in reader.read()]) == 1
            assert reader.engine.marks == 0  # type: ignore[attr-defined]
            assert "trust the broker" in " ".join(reader.engine.info().notes)

    asyncio.run(run())


def test_one_writer_reads_nothing_back(kafka: KafkaLike) -> None:
    """A lone writer's append is known by its acknowledgement; reading to the end costs one mark for all who ask."""
    url = kafka.url("alone")

    async def run() -> None:
        async with open_log(url) as log:
            engine = log.engine
            assert isinstance(engine, KafkaEngine)
            pen = Pen(engine)
            before = engine.marks
            for _ in range(20):
                await pen.write()
            assert engine.marks == before, "an append that succeeds sends no mark"
            await asyncio.gather(*(engine.tail() for _ in range(50)))
            assert engine.marks <= before + 2

    asyncio.run(run())


def test_a_reader_that_fell_behind_a_trim_begins_again() -> None:
    """Messages that a sleeping process had not read were trimmed by others: it goes on from a snapshot."""

    async def run() -> None:
        writer = MemoryArbitratedEngine()
        sleeper = MemoryArbitratedEngine(writer.broker)
        await writer.open()
        await sleeper.open()
        assert isinstance(sleeper.partitions, MemoryPartitions)
        sleeper.partitions.hold(True)
        pen = Pen(writer)
        numbers = [await pen.write() for _ in range(30)]
        await writer.trim(numbers[-2])
        sleeper.partitions.hold(False)
        async with asyncio.timeout(10):
            while not await sleeper.wait(numbers[-1] - 1, 0.05):
                pass
        assert await sleeper.tail() == numbers[-1]
        assert sleeper.arbiter.digest() == writer.arbiter.digest() or sleeper.arbiter.tail == writer.arbiter.tail
        assert [stored.record for stored in (await sleeper.read(numbers[-2] - 1)).records] == numbers[-2:]
        assert await Pen(sleeper, "late").write() > numbers[-1]
        await sleeper.close()
        await writer.close()

    asyncio.run(run())
