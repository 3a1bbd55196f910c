"""Writes the log's head to a witness while an agent works, and refuses to act on a log that lost what it saw.

A witness, kept elsewhere than the log (``logs/witness.py``), shows that the log's last entries were cut off, or that
an old copy was put in its place.
"""

from __future__ import annotations

import asyncio
import os

from logact.core.state import State
from logact.entry import Entry
from logact.errors import LogActError, LogCorrupt
from logact.logs.signing import load_key
from logact.logs.witness import Head, forged, signed, witness_at
from logact.runtime.host import Host

WITNESS_EVERY_S = 1.0
"""How often at most the head is written."""


CLOSE_S = 5.0
"""How long the last head may hold a process up that leaves."""


class WitnessKeeper:
    """Keeps one witness of one log, from the process's own fold: ``load``, the fold, ``check``, ``run``.

    ``signing_key`` (a key's file) signs what is written; then heads without its signature are not believed.
    """

    def __init__(
        self,
        host: Host,
        place: str | os.PathLike[str],
        *,
        signing_key: str | os.PathLike[str] | None = None,
        every_s: float = WITNESS_EVERY_S,
    ) -> None:
        self.host = host
        self.every_s = every_s
        self.witness = witness_at(place, of=host.log.url)
        self.signer = load_key(signing_key) if signing_key else None
        self.differs = ""
        self.checked = False  # whether the log is the one that the witness saw
        self.written = -1
        self._heads: dict[int, Head] = {}
        host.tail.observe(self._observe)

    async def load(self) -> None:
        """Read what the witness saw, before the log is read. LogActError if it cannot be read."""
        heads = await self.witness.read()
        if self.signer is not None:
            bad = {id(head) for head in forged(heads, self.signer.public)}
            heads = [head for head in heads if id(head) not in bad]
        if not self.witness.name.startswith("/") and "://" in self.witness.name:
            heads = [head for head in heads if head.log == self.host.log.log_id]  # many logs may share it
        self._heads = {head.position: head for head in heads}

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
                expected=f"what {self.witness.name} says",
                todo="run `logact log verify --witness`, and look where the newer copy is",
            )
        self._heads.clear()
        self.checked = True

    async def run(self) -> None:
        """Write heads until cancelled."""
        tail = self.host.tail
        while True:
            await tail.until(lambda state: state.position != self.written)
            await self.write()
            await self.host.env.sleep(self.every_s)

    async def write(self) -> None:
        """Write the present head, durably. A witness that cannot be written stops nobody: it only proves less."""
        state = self.host.state
        if state.position == self.written or not state.position:
            return
        self.written = state.position
        head = Head(log=state.log, position=state.position, chain=state.chain, time_ms=self.host.env.wall_ms())
        try:
            await self.witness.write(signed(head, self.signer) if self.signer is not None else head)
        except (OSError, LogActError):
            return

    async def close(self) -> None:
        """Write what is not written yet (of a log that was seen to be the right one), and let go."""
        try:
            async with asyncio.timeout(CLOSE_S):
                if self.checked:
                    await self.write()
        except TimeoutError:
            pass  # it proves a second less
        await self.witness.close()
