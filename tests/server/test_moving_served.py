"""A served log that moves beneath its server: clients notice nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from logact import open_log
from logact.entry import NewEntry, Notice
from logact.runtime.moving import move
from logact.runtime.tail import Tail
from tests.server.kit import ServerProcess, token_file


def note(message: str) -> NewEntry:
    return NewEntry(payload=Notice(code="n", message=message), role="client", name="all")


def test_clients_of_a_served_log_notice_no_move(tmp_path: Path) -> None:
    """One client goes on writing and another reading while the operator moves the log; a new one finds all of it."""
    one, two = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    server = ServerProcess(one)
    url = server.url(token_file=token_file(tmp_path, server.token()))

    async def scenario() -> None:
        async with open_log(url) as client, open_log(url) as reader:
            tail = Tail(reader)
            await tail.start()
            assert (await client.append(note("before"))).position == 1000
            async with open_log(one) as operator:
                moved = await move(operator, two)
            assert moved.position == 2000
            assert (await client.append(note("after"))).position == 3000
            assert (await tail.catch_up()).position == 3000 and not tail.state.broken
        async with open_log(url) as client:
            assert [entry.position async for entry in client.read()] == [1000, 2000, 3000]
        async with open_log(two) as log:
            assert await log.tail() == 3000

    try:
        asyncio.run(scenario())
    finally:
        server.stop()
