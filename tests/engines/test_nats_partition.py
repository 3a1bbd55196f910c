"""NATS nodes that run but do not reach each other: whoever is on the wrong side is told nothing that is not so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
from benchmarks.crash_parts import Company, play
from benchmarks.crash_stage import Found, Stage
from benchmarks.engines.stage import EngineStage
from benchmarks.servers.nats import NatsNode

from logact import open_log
from logact.errors import LogError
from logact.logs.base import Draft
from logact.logs.nats import engine_from_url
from logact.logs.nats_link import leads
from logact.testing.conformance import Pen, note, read_all
from tests.engines.agent_job import prove
from tests.engines.nats_kit import TornCluster, configured

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TornCluster]:
    """Three nodes behind proxies; whole again at the end of each test."""
    cluster = TornCluster(configured(tmp_path_factory.mktemp("torn")))
    with cluster:
        yield cluster


class WrongSide:
    """A client that knows one node only, and what it asks for while that node is cut off."""

    def __init__(self, node: NatsNode, log: str) -> None:
        self.engine = engine_from_url(f"nats://127.0.0.1:{node.port}?log={log}")
        self.draft: Draft
        self.asked: dict[str, asyncio.Future[object]] = {}

    async def ask(self) -> None:
        """Append, and prove the tail: neither can be done there."""
        self.draft = Pen(self.engine, "wrong side").draft(note("from the wrong side"))
        wanted: dict[str, Coroutine[object, object, object]] = {
            "append": self.engine.append(self.draft),
            "tail": self.engine.tail(),
        }
        self.asked = {name: asyncio.ensure_future(work) for name, work in wanted.items()}

    def read_on(self) -> None:
        """Look for more than it has read."""
        self.asked["read"] = asyncio.ensure_future(self.engine.read(self.engine.hint()))

    def answered(self) -> dict[str, object]:
        """What was answered so far, but for errors that say that nobody knows."""
        done = {name: one for name, one in self.asked.items() if one.done()}
        return {name: one.result() for name, one in done.items() if not isinstance(one.exception(), LogError)}

    async def end(self) -> tuple[int, bool]:
        """What became of the append, repeated byte for byte if it was given up."""
        await asyncio.gather(*self.asked.values(), return_exceptions=True)
        if isinstance(self.asked["append"].exception(), LogError):
            return await self.engine.append(self.draft)
        return self.asked["append"].result()  # type: ignore[return-value]


def test_an_agent_goes_on_where_the_majority_is(torn: TornCluster, tmp_path: Path) -> None:
    """The node that leads the log is cut off under an agent and keeps its clients: it acknowledges nothing and calls
    the log nowhere finished; the agent's parts go over to the others and end their job; then all nodes agree.
    """

    async def story(stage: Stage) -> Found:
        at = 0

        def look(_: Company, position: int) -> float:
            nonlocal at
            at = position
            return 0.05

        playing = asyncio.ensure_future(play(Company(stage, "torn"), look))
        while at < 4000 and not playing.done():  # they have begun to work
            await asyncio.sleep(0.02)
        leader = await asyncio.to_thread(torn.leader_of, "torn")
        wrong = WrongSide(leader, "torn")
        await wrong.engine.open()
        torn.isolate(leader, silently=True)
        await wrong.ask()
        found = await playing
        async with open_log(torn.url("torn")) as log:
            right_tail = await log.engine.tail()
        assert right_tail > wrong.engine.hint() + 10, "the job went on without the node that led"
        assert wrong.answered() == {}
        raw = await wrong.engine.link.api("STREAM.INFO.LOGACT_torn")
        assert raw["state"]["last_seq"] < right_tail, "the node itself still says that the log ends long before"
        torn.heal()
        record, _ = await wrong.end()
        assert record > right_tail, "it came after the healing, and once"
        seen = await read_all(wrong.engine)
        assert [stored.record for stored in seen if stored.body == wrong.draft.body] == [record]
        await wrong.engine.close()
        for node in torn.nodes:
            there = engine_from_url(f"nats://127.0.0.1:{node.port}?log=torn")
            await there.open()
            assert (await read_all(there))[: len(seen)] == seen
            await there.close()
        return found

    with EngineStage(tmp_path, torn.url, rounds=1) as stage:
        prove(stage, asyncio.run(story(stage)))


def test_who_leads() -> None:
    """Only a leader that heard from a majority just now is believed: not one that is alone, and not a follower."""

    def described(*heard_s: float, leader: str = "a") -> dict[str, object]:
        return {
            "leader": leader,
            "replicas": [{"name": str(at), "active": int(s * 1e9)} for at, s in enumerate(heard_s)],
        }

    assert leads(None) and leads(described()) and leads(described(0.01, 1.9)) and leads(described(0.5, 60))
    assert leads(described(1, 1, 9, 9))
    for alone in (described(4, 4), described(0, 0), described(1, 9, 9, 9), described(1, 1, leader="")):
        assert not leads(alone)
