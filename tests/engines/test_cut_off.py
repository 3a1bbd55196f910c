"""A part with a local copy (``?local=FILE``) loses each engine for a while: what it reads, keeps and refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from benchmarks.servers.kafka import KafkaCluster
from benchmarks.servers.nats import CONFIGURATION, NatsCluster
from benchmarks.servers.postgres import PostgresServer

from logact import open_log
from logact.entry import Commit, NewEntry, Notice
from logact.errors import LogUnavailable
from logact.logs import arbitrated_fold, kafka_client, nats_attempt, nats_link, nats_stream
from logact.logs.base import SharedLog
from logact.testing.conformance import read_all
from tests.engines.kafka_kit import networks
from tests.engines.proxy import Proxy
from tests.server.kit import ServerProcess, token_file

PATIENCE_S = 1.0
"""How long an engine looks for its servers here; minutes of a real outage are the same, only longer."""


def told(message: str) -> NewEntry:
    """Something that a driver proposes."""
    return NewEntry(payload=Notice(code="n", message=message), role="driver", name="ops")


async def messages(log: SharedLog) -> list[str]:
    """What the log says, in order."""
    return [entry.payload.message async for entry in log.read() if isinstance(entry.payload, Notice)]


def impatient(patch: pytest.MonkeyPatch) -> None:
    """For as long as the network is cut."""
    for module in (nats_attempt, nats_link, nats_stream):
        patch.setattr(module, "WINDOW_S", PATIENCE_S)
    patch.setattr(arbitrated_fold, "ANSWER_S_MAX", PATIENCE_S)
    patch.setattr(kafka_client, "READ_S_MAX", PATIENCE_S)


async def lose_and_find(far: str, near: str, network: Proxy, place: Path) -> None:
    """A part behind the network, somebody else at the engine itself; the network is cut, and comes back."""
    async with open_log(near) as direct, open_log(f"{far}&local={place / 'copy'}") as part:
        for number in range(3):
            await direct.append(told(str(number)))
        assert await messages(part) == ["0", "1", "2"] and _age(part) is None
        with pytest.MonkeyPatch.context() as patch:
            impatient(patch)
            network.cut()
            await direct.append(told("meanwhile"))
            assert await messages(part) == ["0", "1", "2"], "it reads on from its copy"
            assert _age(part) is not None and "AWAY; what is read is" in " ".join(part.engine.info().notes)
            with pytest.raises(LogUnavailable, match="nothing is decided, started or acted upon"):
                await part.append(NewEntry(payload=Commit(intent=1000), role="decider", name="d"))
            proposing = asyncio.ensure_future(part.writer().append([told("proposed")]))
            await asyncio.sleep(0.2)
            assert not proposing.done() and "1 waiting" in " ".join(part.engine.info().notes)
            network.restore()
        async with asyncio.timeout(60):
            assert (await proposing).fresh
        assert await messages(part) == ["0", "1", "2", "meanwhile", "proposed"] and _age(part) is None
        assert await read_all(part.engine) == await read_all(direct.engine), "all agree"


def _age(log: SharedLog) -> float | None:
    return log.stale_s


def test_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    """A part that cannot reach PostgreSQL reads its labelled copy, keeps its proposal, decides nothing."""
    database = postgres.database("cut_off")
    with Proxy(postgres.port) as network:
        far = f"postgresql://logact@127.0.0.1:{network.port}/{database}?log=a&timeout=1&patience=1"
        asyncio.run(lose_and_find(far, postgres.url(database, "a"), network, tmp_path))


def test_nats(tmp_path: Path) -> None:
    """The same on NATS."""
    place = tmp_path / "nats.conf"
    place.write_text(CONFIGURATION.read_text().partition("cluster {")[0])
    with NatsCluster(nodes=1, configuration=place) as cluster, Proxy(cluster.nodes[0].port) as network:
        far = f"nats://127.0.0.1:{network.port}?log=a"
        asyncio.run(lose_and_find(far, cluster.url("a"), network, tmp_path))


def test_kafka(cluster: KafkaCluster, tmp_path: Path) -> None:
    """The same on Kafka."""
    far = cluster.url("cut-off", "&timeout_s=1", hosts=cluster.far_hosts)
    network = cast(Proxy, networks[cluster.id])
    asyncio.run(lose_and_find(far, cluster.url("cut-off"), network, tmp_path))


def test_served(tmp_path: Path) -> None:
    """The same on a served log."""
    server = ServerProcess(f"sqlite:///{tmp_path}/served.db")
    try:
        token = token_file(tmp_path, server.token(relay=True))
        with Proxy(server.port) as network:
            far = f"logact+http://127.0.0.1:{network.port}/?log=a&token_file={token}&timeout_s=1"
            asyncio.run(lose_and_find(far, f"{server.engine_url}?log=a", network, tmp_path))
    finally:
        assert server.stop() == (0, "")
