"""Writes the log's head to a second file while an agent works, and refuses to act on a log that lost what it saw.

A log alone cannot show that its last entries were cut off, or that it was put back from an old copy. A witness file,
kept elsewhere than the log, can.
"""

from __future__ import annotations

from pathlib import Path

from logact.core.state import State
from logact.entry import Entry
from logact.errors import LogActError, LogCorrupt
from logact.logs.verify import Head, Witness, read_witness
from logact.runtime.host import Host

WITNESS_EVERY_S = 1.0
"""How often at most the head is written."""


class WitnessKeeper:
    """Keeps one witness file of one log, from the process's own fold."""

    def __init__(self, host: Host, path: Path, *, every_s: float = WITNESS_EVERY_S) -> None:
        self.host = host
        self.path = path
        self.every_s = every_s
        self.witness = Witness(path)
        self.differs = ""
        self.written = -1
        self._heads: dict[int, Head] = {}
        if path.exists():
            self._heads = {head.position: head for head in read_witness(path)}
        host.tail.observe(self._observe)

    def _observe(self, state: State, entry: Entry) -> None:
        head = self._heads.pop(entry.position, None) if self._heads else None
        if head is not None and head.log == state.log and head.chain != state.chain and not self.differs:
            self.differs = f"at position {entry.position} the witness saw another history"

    def check(self) -> None:
        """After the log was read: raise LogCorrupt if it is not the one that the witness saw."""
        state = self.host.state
        others = {head.log for head in self._heads.values()} - {state.log}
        newest = max((head.position for head in self._heads.values() if head.log == state.log), default=0)
        wrong = self.differs
        if others:
            wrong = f"the witness file is of another log ({', '.join(sorted(others))})"
        elif newest > state.position:
            wrong = f"the log ends at {state.position}, and the witness saw entries up to {newest}"
        if wrong:
            raise LogCorrupt(
                "The log is not the one that its witness saw",
                received=wrong,
                expected=f"what {self.path} says",
                todo="run `logact log verify --witness`, and look where the newer copy is",
            )
        self._heads.clear()

    async def run(self) -> None:
        """Write heads until cancelled."""
        tail = self.host.tail
        while True:
            await tail.until(lambda state: state.position != self.written)
            self.write()
            await self.host.env.sleep(self.every_s)

    def write(self) -> None:
        """Write the present head, durably. A witness that cannot be written stops nobody: it only proves less."""
        self.written = self.host.state.position
        try:
            self.witness.write(self.host.state)
        except (OSError, LogActError):
            return
