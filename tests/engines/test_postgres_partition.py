"""A primary that is cut off from its synchronous standby: it runs, keeps its clients, and acknowledges nothing."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.servers import wait_until
from benchmarks.servers.postgres import SUPERUSER, PostgresServer

from logact.errors import AppendUnknown, LogError
from logact.testing.conformance import Pen, note, numbers_of
from tests.engines.proxy import Proxy
from tests.engines.test_postgres import opened, run


def test_a_primary_without_its_standby_acknowledges_nothing() -> None:
    """An append there is unknown, and no repeat is acknowledged; a promoted standby has all that was, and goes on;
    the old primary goes on answering reads without what came since, which is why it has to be shut off.
    """
    with PostgresServer() as primary, Proxy(primary.port) as network:
        primary.database("torn")
        with primary.standby() as standby:
            source = f"host=127.0.0.1 port={network.port} user={SUPERUSER} application_name=standby"
            standby.configure(primary_conninfo=source)
            standby.reload()
            wait_until(lambda: network.connections > 0, "the standby follows through the proxy")
            primary.make_synchronous()
            run(lambda: _torn(primary, standby, network))


async def _torn(primary: PostgresServer, standby: PostgresServer, network: Proxy) -> None:
    async with opened(primary.url("torn", "torn", options="&timeout=1&patience=1")) as old:
        pen = Pen(old)
        acknowledged = [await pen.write() for _ in range(3)]
        network.stall()
        draft = pen.draft(note("never acknowledged"))
        with pytest.raises(AppendUnknown):
            await old.append(draft)
        with pytest.raises(LogError):
            await old.append(draft)  # behind the first one, which waits for the standby
        await asyncio.to_thread(standby.promote)
        async with opened(standby.url("torn", "torn")) as new:
            assert await numbers_of(new) == acknowledged
            later = await Pen(new, "later").write(note("on the new primary"))
            assert await new.append(draft) == (later + 1, True), "its writer repeats it where the log goes on"
            assert await numbers_of(new) == [*acknowledged, later, later + 1]
            assert await numbers_of(old) == acknowledged, "the old primary has no news, and does not say so"
