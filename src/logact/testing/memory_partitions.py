"""Partitions in memory: what an arbitrated engine needs of a broker, without a broker. For tests and the simulator.

Several engines may stand on one :class:`MemoryBroker`, each with ``MemoryPartitions`` of its own, as processes have.
Acknowledgements and news come by separate ways, each in its own time, as from a real broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from logact.errors import AppendUnknown, ReadFailed
from logact.logs.partitions import Messages, Place


class MemoryBroker:
    """The messages of one log. ``script`` holds fates of coming sends to ``log``: "lost", "committed", or "fine"."""

    def __init__(self) -> None:
        self.messages: dict[Place, list[bytes]] = {"log": [], "state": [], "blobs": []}
        self.first: dict[Place, int] = {"log": 0, "state": 0, "blobs": 0}
        self.followers: list[MemoryPartitions] = []
        self.script: list[str] = []

    def put(self, place: Place, value: bytes) -> int:
        """Append a message; its offset. Followers are told."""
        self.messages[place].append(value)
        if place == "log":
            for follower in self.followers:
                follower.ring()
        return len(self.messages[place]) - 1

    def partitions(self) -> MemoryPartitions:
        """As one process has them."""
        return MemoryPartitions(self)


class MemoryPartitions:
    """One process's way to a :class:`MemoryBroker`."""

    settings = ("Messages are kept in memory.",)
    create = True

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cursor = 0
        self._news: Callable[[Messages], None] | None = None
        self._ringing = self._held = False
        self._lost: Callable[[str], None] | None = None

    def hold(self, held: bool) -> None:
        """Deliver no news while it is held."""
        self._held = held
        self.ring()

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ringing = False

    async def close(self) -> None:
        self._news = None
        if self in self.broker.followers:
            self.broker.followers.remove(self)

    def send(self, place: Place, value: bytes, sent: Callable[[int], None] | None = None) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        fate = self.broker.script.pop(0) if place == "log" and self.broker.script else "fine"

        def acknowledge(offset: int) -> None:
            if sent is not None:
                sent(offset)
            if not future.done():
                future.set_result(offset)

        def arrive() -> None:
            if fate != "lost":
                offset = self.broker.put(place, value)
            if fate == "fine":
                loop.call_soon(acknowledge, offset)
            elif not future.done():
                future.set_exception(AppendUnknown("No answer came", received=fate))

        loop.call_soon(arrive)
        return future

    def follow(self, offset: int, news: Callable[[Messages], None], lost: Callable[[str], None]) -> None:
        self._cursor, self._news, self._lost = offset, news, lost
        self.broker.followers.append(self)
        self.ring()

    def ring(self) -> None:
        """There may be news."""
        if self._loop is not None and not self._loop.is_closed() and not self._ringing:
            self._ringing = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._ringing = False
        found = self.broker.messages["log"][self._cursor : self._cursor + 10]
        if self._news is None or self._held or not found:
            return
        if self._cursor < self.broker.first["log"]:
            self._news = None
            if self._lost is not None:
                self._lost("deleted")
            return
        start = self._cursor
        self._cursor += len(found)
        self._news([(start + place, value) for place, value in enumerate(found)])
        self.ring()

    async def fetch(self, place: Place, offset: int, upto: int) -> Messages:
        await asyncio.sleep(0)
        if offset < self.broker.first[place]:
            raise ReadFailed("These messages were deleted", received=f"offset {offset}")
        return list(enumerate(self.broker.messages[place]))[offset : min(upto, offset + 100)]

    async def bounds(self, place: Place) -> tuple[int, int]:
        await asyncio.sleep(0)
        return self.broker.first[place], len(self.broker.messages[place])

    async def delete_before(self, place: Place, offset: int) -> None:
        await asyncio.sleep(0)
        first = self.broker.first[place]
        self.broker.first[place] = max(first, min(offset, len(self.broker.messages[place])))
        for gone in range(first, self.broker.first[place]):
            self.broker.messages[place][gone] = b""


__all__ = ["MemoryBroker", "MemoryPartitions"]
