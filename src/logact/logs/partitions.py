"""What an arbitrated log needs of a broker: three totally ordered partitions of messages, and nothing else.

``Partitions`` is the plain statement of it; ``kafka_client`` is one over Apache Kafka, the test kit has one in
memory. Arbitration, snapshots and reads stand on this alone. This file does no I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

Place = Literal["log", "state", "blobs"]
"""``log`` holds what is arbitrated, ``state`` the snapshots of the arbitration, ``blobs`` the pieces of blobs."""

Messages = Sequence[tuple[int, bytes]]
"""Messages with their offsets, in order. Offsets rise; they may have gaps."""


class Partitions(Protocol):
    """Three partitions of one log, as one process has them, on the running event loop."""

    create: bool
    """Whether opening makes partitions where there are none, or raises LogMissing."""

    async def open(self) -> None:
        """Connect; create the partitions if they are missing (see ``create``); check their settings.

        Raises LogError, UsageError.
        """

    async def close(self) -> None:
        """Disconnect. What was not acknowledged may still arrive."""

    def send(self, place: Place, value: bytes, sent: Callable[[int], None] | None = None) -> asyncio.Future[int]:
        """Send a message. The future gives its offset once it is durable, after ``sent`` was called with it.

        The future raises AppendUnknown where the message may have arrived or may arrive later, and LogUnavailable,
        LogFull or TooLarge where it certainly does not. Cancelling the future does not stop the message.
        """

    def follow(self, offset: int, news: Callable[[Messages], None], lost: Callable[[str], None]) -> None:
        """Call ``news`` with the messages of ``log`` from ``offset`` on, as they come, each once and in order.

        ``lost`` is called, once, if following is over: the messages are gone.
        """

    async def fetch(self, place: Place, offset: int, upto: int) -> Messages:
        """The messages in [offset, upto), all or a first part of them. Raises ReadFailed.

        A first part is never empty if a message is there. ``upto`` must not be above what was acknowledged or seen.
        """

    async def bounds(self, place: Place) -> tuple[int, int]:
        """The first offset that is kept, and the one after the last; may lag. Raises ReadFailed."""

    async def delete_before(self, place: Place, offset: int) -> None:
        """Drop the messages below an offset. Raises LogUnavailable."""

    @property
    def settings(self) -> tuple[str, ...]:
        """What ``open`` found, for people."""


__all__ = ["Messages", "Partitions", "Place"]
