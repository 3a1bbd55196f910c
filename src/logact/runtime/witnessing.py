"""Writes the log's head to a witness while an agent works, and refuses to act on a log that lost what it saw.

A witness, kept elsewhere than the log (``logs/witness.py``), shows that the log's last entries were cut off, or that
an old copy was put in its place.
"""

from __future__ import annotations

import asyncio
import os

from logact.core.state import State
from logact.entry import Entry, Notice
from logact.errors import SALVAGE, LogActError, LogCorrupt, LogUnavailable
from logact.logs.base import SharedLog
from logact.logs.network_url import redacted
from logact.logs.signing import SigningKey, load_key
from logact.logs.verify import verify
from logact.logs.witness import Head, Witness, in_force, signed, was_acted_on, witness_at
from logact.runtime.host import Host
from logact.runtime.tail import Tail

WITNESS_EVERY_S = 1.0
"""How often at most the head is written."""


CLOSE_S = 5.0
"""How long the last head may hold a process up that leaves."""


class WitnessKeeper:
    """Keeps one witness of one log, from the process's own fold: ``load``, the fold, ``admit``, ``run``.

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
        self.known = False  # whether the witness holds anything of this log
        self.checked = False  # whether the log is the one that the witness saw
        self.written = -1
        self._heads: dict[int, Head] = {}
        host.tail.observe(self._observe)

    async def load(self) -> None:
        """Read what the witness saw, before the log is read. LogActError if it cannot be read."""
        log_id = (await self.host.log.open()).log_id
        heads, _ = in_force(await self.witness.read(log_id), self.signer.public if self.signer is not None else "")
        if not self.witness.name.startswith("/") and "://" in self.witness.name:
            heads = [head for head in heads if head.log == log_id]  # many logs may share it
        self.known = any(head.log == log_id for head in heads)
        self._heads = {head.position: head for head in heads}

    def _observe(self, state: State, entry: Entry) -> None:
        head = self._heads.pop(entry.position, None) if self._heads else None
        if head is not None and head.log == state.log and head.chain != state.chain and not self.differs:
            self.differs = f"at position {entry.position} the witness saw another history"

    async def admit(self) -> None:
        """After the log was read, and before anything is written: ``check``, and have a new log's witness begin.

        So whoever finds something of an agent in the log finds something in its witness, too. Raises LogCorrupt, and
        LogUnavailable if the witness cannot be written.
        """
        known = self.known
        if not known and self.host.state.position:
            await self.load()  # another process may have begun it since, and then written to the log
            await self.host.tail.catch_up()
            known = self.known
        self.check()
        if not known:
            await write_first(self.witness, self._head(), self.signer)
            self.known = True

    def check(self) -> None:
        """After the log was read: raise LogCorrupt if it is not the one that the witness saw, or if there is none
        though agents have acted: it was deleted, or the disk that it is on is not there."""
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
                todo="run `logact log verify --witness`, and look where the newer copy is; if that is lost, or this "
                "is a repaired log, `logact log witness SPEC` has the witness go on from here",
            )
        if not self.known and not others and was_acted_on(state):
            raise LogCorrupt(
                "The log's witness is gone",
                received=f"{self.witness.name}, with no head of this log",
                expected="what was written down there while agents acted on the log",
                todo="look where it is, and whether its disk is mounted; if it is lost, or was named just now, "
                "`logact log witness SPEC` has it begin with the log as it is",
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
        head = self._head()
        try:
            await self.witness.write(signed(head, self.signer) if self.signer is not None else head)
        except (OSError, LogActError):
            return

    def _head(self) -> Head:
        return head_of(self.host.state, self.host.env.wall_ms())

    async def close(self) -> None:
        """Write what is not written yet (of a log that was seen to be the right one), and let go."""
        try:
            async with asyncio.timeout(CLOSE_S):
                if self.checked:
                    await self.write()
        except TimeoutError:
            pass  # it proves a second less
        await self.witness.close()


def head_of(state: State, time_ms: int, *, begins: bool = False) -> Head:
    """The head of a log at the end of a fold."""
    return Head(log=state.log, position=state.position, chain=state.chain, time_ms=time_ms, begins=begins)


async def write_first(witness: Witness, head: Head, signer: SigningKey | None) -> None:
    """Write a head without which nothing may go on. LogActError if that is not possible."""
    try:
        await witness.write(signed(head, signer) if signer is not None else head)
    except OSError as error:
        raise LogUnavailable(
            "The witness cannot be written",
            received=f"{redacted(witness.name)}: {error.strerror}",
            expected="a place that is there",
            todo="check that its directory exists, and that its disk is mounted",
        ) from error


async def begin_witness(
    log: SharedLog,
    place: str | os.PathLike[str],
    *,
    signing_key: str | os.PathLike[str] | None = None,
    name: str = "operator",
    reason: str = "",
) -> Head:
    """Have a witness begin with a log as it is now; what it saw of this log before counts no more. Returns its head.

    For a log that agents acted on before it had this witness, or that was repaired. The log says who did it. Raises
    LogCorrupt if the log is damaged, LogUnavailable if the witness cannot be read or written, UsageError, SpecError.
    """
    signer = load_key(signing_key) if signing_key else None
    report = await verify(log)
    if not report.sound:
        raise LogCorrupt(
            "No witness begins with a damaged log",
            received=f"position {report.problems[0].position}: {report.problems[0].what}",
            todo=SALVAGE,
        )
    witness = witness_at(place, of=log.url)
    try:
        await witness.read(log.log_id)  # somebody's other file is not written to
        said = f"the witness {redacted(witness.name)} begins here" + (f": {reason}" if reason else "")
        await log.append(Notice(code="witness_begins", message=said), role="operator", name=name)
        tail = Tail(log)
        head = head_of(await tail.start(), tail.env.wall_ms(), begins=True)
        await write_first(witness, head, signer)
        return head
    finally:
        await witness.close()
