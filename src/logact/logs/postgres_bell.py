"""How followers learn of appends: LISTEN and NOTIFY, on a connection of its own and outside of every append.

NOTIFY takes one lock for the whole server when it commits; inside an append it would make all appends of all logs
queue up behind each other's flushes. So whoever appended tells afterwards, and only if somebody listens: a listener
holds an advisory lock shared, which the append itself notices. While one NOTIFY is under way later news gathers.

A notification is only a hint: it may be lost with its connection, or come from somebody else. Nothing here reads.
"""

from __future__ import annotations

from collections.abc import Callable

from logact.logs.postgres_schema import LOCK_CLASS
from logact.logs.postgres_wire import Answer, Wire

NOTIFY = b"SELECT pg_notify($1, $2)"


class Bell:
    """Rings for others, and hears them. One connection; lost ones are replaced when somebody asks."""

    def __init__(self, log: int, heard: Callable[[int], None], silent: Callable[[], None]) -> None:
        self.channel = f"logact_{log}"
        self.log = log
        self.wire: Wire | None = None
        self.listening = False
        self.rings = 0
        self._heard = heard
        self._silent = silent  # the connection is gone: whoever waits looks for itself
        self._news = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection that works, as far as known."""
        return self.wire is not None and not self.wire.closed

    def use(self, wire: Wire) -> None:
        """Ring and listen over this connection from now on."""
        self.wire, self.listening = wire, False

    def ring(self, record: int) -> None:
        """Tell others that records up to this one are there."""
        self._news = max(self._news, record)
        wire = self.wire
        if wire is None or wire.closed or wire.busy or not self._news:
            return
        news, self._news = self._news, 0
        self.rings += 1
        wire.send(NOTIFY, [self.channel.encode(), str(news).encode()], self._rung)

    def _rung(self, answer: Answer | Exception) -> None:
        if self._news:
            self.ring(0)
        if not self.connected:
            self._silent()

    async def listen(self) -> bool:
        """Hear others from now on; False if this connection cannot (it is busy, or broke meanwhile)."""
        wire = self.wire
        if wire is None or wire.closed or wire.busy:
            return False
        await wire.ask(f"LISTEN {self.channel}".encode())
        await wire.ask(f"SELECT pg_advisory_lock_shared({LOCK_CLASS}, {self.log})".encode())
        self.listening = True
        if self._news:
            self.ring(0)
        return True

    def hear(self, said: bytes) -> None:
        """A notification came."""
        if said.isdigit() and len(said) < 19:
            self._heard(int(said))

    def close(self) -> None:
        """Hang up."""
        if self.wire is not None:
            self.wire.close()
        self.wire, self.listening = None, False
