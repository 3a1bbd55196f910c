"""Brokers that die, hang and come back while agents write: nothing acknowledged is lost, nothing is doubled.

Whoever is killed is started again at the end of each test, so that the cluster is whole for the next one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from benchmarks.servers.kafka import KafkaBroker, KafkaCluster

from logact import codec
from logact.entry import NewEntry
from logact.errors import AppendUnknown, LogError
from logact.logs.base import SharedLog, Writer
from logact.logs.kafka import KafkaEngine
from logact.logs.url import open_log
from logact.testing.conformance import Pen, note, read_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WAIT_S = 90.0


def leader(cluster: KafkaCluster, log: SharedLog) -> KafkaBroker:
    """The broker that leads a log's partition."""
    assert isinstance(log.engine, KafkaEngine)
    return cluster.leader(log.engine.wanted.topic("log"))


class Load:
    """Writers that never stop. ``acknowledged`` holds every position that was answered, by its message."""

    def __init__(self, logs: list[SharedLog], writers: int) -> None:
        self.logs = logs
        self.writers = writers
        self.acknowledged: dict[str, int] = {}
        self.over = False

    async def write(self, number: int) -> None:
        """One writer: entry after entry; what stays unknown is settled by the pen itself."""
        pen: Writer = self.logs[number % len(self.logs)].writer()
        turn = 0
        while not self.over:
            message = f"{number} {turn}"
            try:
                done = await pen.append([NewEntry(payload=note(message), role="client", name="load")])
            except AppendUnknown:
                await pen.settle()  # it may be there: find out, and go on
                turn += 1
                continue
            except LogError:
                await asyncio.sleep(0.05)
                continue
            self.acknowledged[message] = done.position
            turn += 1

    async def until(self, count: int) -> None:
        """Wait until so many more entries are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(WAIT_S):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.02)

    async def during(self, harm: Callable[[], None], before: int = 60, after: int = 60) -> None:
        """Write; do the harm in the middle; go on until as many entries came through afterwards."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.writers):
                group.create_task(self.write(number))
            await self.until(before)
            await asyncio.to_thread(harm)
            await self.until(after)
            self.over = True


async def check(url: str, load: Load) -> None:
    """From a fresh start: every acknowledged entry is at its position, each once, each writer's in its order."""
    async with open_log(url) as log:
        found = [(entry.position, str(getattr(entry.payload, "message", ""))) async for entry in log.read()]
        times = Counter(message for _, message in found)
        assert [message for message, count in times.items() if count > 1] == []
        present = {message: position for position, message in found}
        lost = {message: at for message, at in load.acknowledged.items() if present.get(message) != at}
        assert lost == {}, f"{len(lost)} acknowledged entries are not where they were"
        for number in range(load.writers):
            turns = [int(message.split()[1]) for _, message in found if message.split()[0] == str(number)]
            assert turns == sorted(turns)
        last: dict[str, str] = {}
        for stored in await read_all(log.engine):
            head = codec.read_head(stored.body)[0]
            assert head.previous == last.get(head.writer, codec.GENESIS)
            last[head.writer] = codec.check_record(stored.body)


def test_the_leader_is_killed_under_load(cluster: KafkaCluster) -> None:
    """kill -9 of the partition's leader: appends go on by themselves, nothing is lost, nothing is doubled."""
    url = cluster.url("leader-killed")

    async def run() -> None:
        async with open_log(url) as one, open_log(url) as two:
            load = Load([one, two], writers=6)
            first = leader(cluster, one)
            await load.during(first.kill)
            assert leader(cluster, one) is not first
            await check(url, load)

    asyncio.run(run())


def test_a_deposed_leader_falsifies_no_tail(cluster: KafkaCluster) -> None:
    """The leader hangs, another is elected and acknowledges, the old one wakes up: no tail is behind."""
    url = cluster.url("leader-deposed", "&timeout_s=3")

    async def run() -> None:
        async with open_log(url) as one, open_log(url) as two:
            await one.append(note("before"))
            assert await two.tail() == await one.tail()
            old = leader(cluster, one)
            await asyncio.to_thread(old.pause)
            async with asyncio.timeout(WAIT_S):
                last = await one.append(note("meanwhile"), key="meanwhile")
            await asyncio.to_thread(old.resume)
            tails = await asyncio.gather(*(log.tail() for log in (one, two)))
            assert min(tails) >= last.position
            assert [str(getattr(entry.payload, "message", "")) async for entry in two.read()] == [
                "before",
                "meanwhile",
            ]

    asyncio.run(run())


def test_an_append_without_a_majority_is_unknown_and_comes_once(cluster: KafkaCluster) -> None:
    """Two of three brokers hang: the append is indefinite, not refused; it lands once, however often it was sent."""
    url = cluster.url("no-majority", "&timeout_s=1")

    async def run() -> None:
        async with open_log(url) as log:
            pen = Pen(log.engine)
            await pen.write(note("first"))
            stays = leader(cluster, log)
            others = [broker for broker in cluster.brokers if broker is not stays]
            for broker in others:
                broker.pause()
            draft = pen.draft(note("second"))
            for _ in range(2):
                with pytest.raises(AppendUnknown) as caught:
                    await log.engine.append(draft)
                assert not caught.value.definite
            for broker in others:
                broker.resume()
            answer: tuple[int, bool] | None = None
            async with asyncio.timeout(WAIT_S):
                while answer is None:
                    try:
                        answer = await log.engine.append(draft)
                    except LogError:
                        await asyncio.sleep(0.1)
            assert await log.engine.append(draft) == (answer[0], False)
            messages = [str(getattr(entry.payload, "message", "")) async for entry in log.read()]
            assert messages == ["first", "second"]

    asyncio.run(run())
