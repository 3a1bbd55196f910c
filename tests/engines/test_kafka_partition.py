"""Kafka brokers that run but do not reach each other: whoever is on the wrong side is told nothing that is not so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator

import pytest
from benchmarks.servers.kafka import KafkaBroker, missing
from confluent_kafka.admin import AdminClient

from logact import open_log
from logact.errors import LogError
from logact.logs import kafka_leader
from logact.logs.base import Draft, Page, SharedLog
from logact.logs.kafka import engine_from_url
from logact.testing.conformance import Pen, note, read_all
from tests.engines.kafka_kit import TornCluster
from tests.engines.test_kafka_crash import WAIT_S, Load, check, leader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def brokers() -> Iterator[TornCluster]:
    """Three brokers behind proxies."""
    if missing():
        pytest.skip("the emulator is one node: a cut needs Apache Kafka")
    with TornCluster() as cluster:
        yield cluster


@pytest.fixture
def torn(brokers: TornCluster) -> Iterator[TornCluster]:
    """The same, whole again afterwards."""
    yield brokers
    brokers.heal()


def said_by(broker: KafkaBroker, topic: str) -> int:
    """Who leads, by the word of one broker."""
    for _ in range(100):
        found = AdminClient({"bootstrap.servers": broker.address, "log_level": 0}).list_topics(topic, timeout=5.0)
        if found.orig_broker_id in (-1, broker.node):
            return int(found.topics[topic].partitions[0].leader)
    raise AssertionError("others answered")


class WrongSide:
    """A client that reaches no broker but the one that is cut off, and what it asks for meanwhile."""

    def __init__(self, torn: TornCluster, log: str) -> None:
        self.engine = engine_from_url(torn.url(log, "&timeout_s=4", hosts=torn.far_hosts))
        self.draft: Draft
        self.asked: list[asyncio.Future[object]] = []

    def ask(self) -> None:
        """Append, prove the tail, and read on."""
        self.draft = Pen(self.engine, "wrong side").draft(note("from the wrong side"))
        wanted: list[Coroutine[object, object, object]] = [
            self.engine.append(self.draft),
            self.engine.tail(),
            self.engine.read(self.engine.hint()),
        ]
        self.asked = [asyncio.ensure_future(work) for work in wanted]

    def answered(self) -> list[object]:
        """What was answered so far, but for errors that say that nobody knows, and records that are no end."""
        done = [one.result() for one in self.asked if one.done() and not isinstance(one.exception(), LogError)]
        return [one for one in done if not isinstance(one, Page) or one.end]

    async def end(self) -> int:
        """Where the append came to stand, repeated byte for byte until it is acknowledged."""
        await asyncio.gather(*self.asked, return_exceptions=True)
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    return (await self.engine.append(self.draft))[0]
                except LogError:
                    await asyncio.sleep(0.05)


class Follower:
    """Somebody who only listens. ``seen`` holds every position, in the order in which it came."""

    def __init__(self, log: SharedLog) -> None:
        self.log = log
        self.seen: list[int] = []

    async def listen(self) -> None:
        """Until the entry that ends it; what cannot be read just now is asked for again."""
        while True:
            try:
                async for entry in self.log.follow(self.seen[-1] if self.seen else 0):
                    self.seen.append(entry.position)
                    if getattr(entry.payload, "message", "") == "end":
                        return
            except LogError:
                await asyncio.sleep(0.05)

    async def come_to(self, position: int) -> None:
        """Wait until it has seen so much."""
        async with asyncio.timeout(WAIT_S):
            while not self.seen or self.seen[-1] < position:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("silently", [True, False], ids=["silently", "with resets"])
def test_writers_and_listeners_go_on_where_the_majority_is(
    torn: TornCluster, monkeypatch: pytest.MonkeyPatch, silently: bool
) -> None:
    """The broker that leads is cut off and keeps its clients: it acknowledges nothing and calls the log nowhere
    finished; writers, listeners and a reader who trusts brokers find the others, and every entry is there once.
    """
    monkeypatch.setattr(kafka_leader, "STALL_S", 1.0)
    monkeypatch.setattr(kafka_leader, "QUIET_S", 2.0)
    name = f"torn-{silently}"
    url = torn.url(name, "&timeout_s=4")

    async def run() -> None:
        async with (
            open_log(url) as one,
            open_log(url) as two,
            open_log(url) as three,
            open_log(url + "&reads=watermark") as four,
        ):
            load = Load([one, two], writers=4)
            followers = [Follower(three), Follower(four)]
            await one.append(note("begin"))
            old = leader(torn, one)
            wrong = WrongSide(torn, name)
            await wrong.engine.open()
            loop = asyncio.get_running_loop()

            def harm() -> None:
                torn.isolate(old, silently=silently)
                loop.call_soon_threadsafe(wrong.ask)

            async with asyncio.TaskGroup() as group:
                listening = [group.create_task(follower.listen()) for follower in followers]
                await load.during(harm, before=30)
                right_tail = await one.engine.tail()
                for follower in followers:
                    await follower.come_to(max(load.acknowledged.values()))
                assert wrong.asked and wrong.answered() == [] and wrong.engine.hint() < right_tail
                assert await asyncio.to_thread(said_by, old, wrong.engine.wanted.topic("log")) == old.node
                torn.heal()
                assert await wrong.end() > right_tail, "it came after the healing"
                await one.append(note("end"))
                await asyncio.gather(*listening)
            await check(url, load)
            assert len([1 for stored in await read_all(one.engine) if stored.body == wrong.draft.body]) == 1
            there = [entry.position async for entry in one.read()]
            assert [follower.seen for follower in followers] == [there, there]
            await wrong.engine.close()

    asyncio.run(run())
