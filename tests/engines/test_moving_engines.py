"""One log moves over every engine while an agent runs on it; and a part is cut off from a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from benchmarks.servers.nats import NatsCluster
from benchmarks.servers.postgres import PostgresServer

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.entry import NewEntry, Notice
from logact.errors import LogUnavailable
from logact.models import call, say
from logact.runtime.moving import move
from logact.runtime.tail import Tail
from tests.engines.kafka_kit import KafkaLike
from tests.engines.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_one_log_over_every_engine(
    postgres: PostgresServer, nats: NatsCluster, kafka: KafkaLike, tmp_path: Path
) -> None:
    """A log moves from a file to PostgreSQL, NATS, Kafka and back to a file within one run: one history."""
    places = [
        f"sqlite:///{tmp_path}/one.db",
        postgres.url(postgres.database("moving")),
        nats.url("moving"),
        kafka.url("moving"),
        f"sqlite:///{tmp_path}/two.db",
    ]
    done: list[int] = []

    @tool(effect="irreversible", timeout_s=120)
    async def work(n: int) -> str:
        """Do it, and move the log on meanwhile."""
        done.append(n)
        if n % 2 == 0:
            async with open_log(places[0]) as other:
                await move(other, places[n // 2 + 1])
        return "ok"

    async def scenario() -> None:
        model = ScriptedModel([*(call("work", n=n) for n in range(8)), say("done")])
        async with open_log(places[0]) as log:
            answer = await LogActAgent("ops", log, [lambda entry: True], model=model, tools=[work]).run("go")
            assert answer.ok and done == list(range(8))
        told = []
        for place in places:
            async with open_log(place) as log:
                state = await Tail(log, from_checkpoint=False).start()
                assert not state.broken and state.runs[answer.run].status == "finished"
                told.append((state.chain, state.position, [entry.position async for entry in log.read()]))
        assert all(one == told[0] for one in told)

    asyncio.run(scenario())


def test_a_part_is_cut_off_from_a_real_server(postgres: PostgresServer, tmp_path: Path) -> None:
    """While the network is cut: reads say their age, proposals are kept and appended once, nothing is decided."""
    database = postgres.database("cutoff")
    options = f"&timeout=2&patience=2&local={tmp_path / 'copy'}"

    def note(message: str) -> NewEntry:
        return NewEntry(payload=Notice(code="n", message=message), role="driver", name="ops")

    async def scenario(network: Proxy) -> None:
        url = postgres.url(database).replace(f":{postgres.port}/", f":{network.port}/")
        async with open_log(url + options) as log, open_log(postgres.url(database)) as direct:
            await log.append(note("before"))
            assert len([entry async for entry in log.read()]) == 1
            network.cut()
            for _ in range(20):
                if log.stale_s is not None:
                    break
                await log.tail()
                await asyncio.sleep(0.1)
            stale = log.stale_s
            assert stale is not None and len([entry async for entry in log.read()]) == 1
            with pytest.raises(LogUnavailable):
                await log.seal()
            waiting = asyncio.ensure_future(log.append(note("meanwhile")))
            await asyncio.sleep(1.0)
            assert not waiting.done() and await direct.tail() == 1000
            network.restore()
            assert (await asyncio.wait_for(waiting, 60)).position == 2000
            messages = [entry.payload.message async for entry in direct.read() if isinstance(entry.payload, Notice)]
            assert messages == ["before", "meanwhile"]

    with Proxy(postgres.port) as network:
        asyncio.run(scenario(network))
