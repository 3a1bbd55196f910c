"""Witnesses: where a log's head was at earlier times, kept elsewhere than the log. A file, or another log.

A log alone cannot show that its last entries were cut off, or that an old copy was put in its place. A witness can,
as far as it is out of reach of whoever did that. Heads may carry a signature (``signing``), so that
whoever can write to the witness, too, cannot make up a head that fits.

Nothing is judged here: ``verify`` and the agents' ``WitnessKeeper`` compare.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from logact.core.state import State
from logact.entry import NewEntry, Notice, end_of
from logact.errors import LogError, LogUnavailable, UsageError
from logact.logs.base import SharedLog, where
from logact.logs.signing import SigningKey, holds

HEAD = "head"
"""The code of the notices that hold heads in a log that is another log's witness."""

LOOK_BACK_RECORDS = 20_000
"""How far back heads are looked for in such a log: the last ones are what counts."""


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a witness remembers: at this position the digest of everything up to there was ``chain``.

    ``begins``: a person said that the witness begins here, so earlier heads of this log count no more.
    """

    log: str
    position: int
    chain: str
    time_ms: int = 0
    begins: bool = False
    signature: str = ""

    def signed_text(self) -> str:
        """What a signature covers; no record's hash looks like it."""
        mark = "\nbegins" if self.begins else ""
        return f"head\n{self.log}\n{self.position}\n{self.chain}\n{self.time_ms}{mark}"


class Witness(abc.ABC):
    """Where heads are kept."""

    name: str

    @abc.abstractmethod
    async def read(self, log_id: str = "") -> list[Head]:
        """The heads that are there, of whatever logs, oldest first. LogActError if they cannot be read.

        Where many logs share a witness the latest heads are read; all of them, if none is of ``log_id``.
        """

    @abc.abstractmethod
    async def write(self, head: Head) -> None:
        """Add one, durably; harmless to repeat. OSError or LogActError if that is not possible."""

    async def close(self) -> None:
        """Let go of what is open."""
        return


class FileWitness(Witness):
    """Heads in a file, a JSON line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    async def read(self, log_id: str = "") -> list[Head]:
        return read_heads(self.path) if self.path.exists() else []

    async def write(self, head: Head) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(head) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LogWitness(Witness):
    """Heads as notices in another log; many logs may share it."""

    def __init__(self, log: SharedLog) -> None:
        self.log = log
        self.name = log.url
        self._writer = log.writer()

    async def read(self, log_id: str = "") -> list[Head]:
        await self.log.open()
        start = max(0, await self.log.engine.tail() - LOOK_BACK_RECORDS)
        found = await self._read_after(start)
        if start and log_id and not any(head.log == log_id for head in found):
            found = await self._read_after(0)  # it was silent for long, while others were not
        return found

    async def _read_after(self, start: int) -> list[Head]:
        found = []
        async for entry in self.log.read_kept(end_of(start), matching=where(kinds=["Notice"])):
            if isinstance(entry.payload, Notice) and entry.payload.code == HEAD:
                try:
                    found.append(msgspec.convert(entry.payload.data, Head))
                except msgspec.ValidationError:
                    continue  # somebody else's notice
        return found

    async def write(self, head: Head) -> None:
        data: dict[str, Any] = msgspec.to_builtins(head)
        said = Notice(code=HEAD, message=f"{head.log} at {head.position}", data=data)
        try:
            await self._writer.append([NewEntry(payload=said, role="checkpointer", name="witness")])
        except LogError:
            self._writer = self.log.writer()  # the fate of the last head is of no interest: the next one says more
            raise

    async def close(self) -> None:
        await self.log.close()


def witness_at(place: str | os.PathLike[str], *, of: str = "") -> Witness:
    """The witness at a path or a log's URL. ``of`` is the log's own URL, which it may not be. UsageError."""
    text = os.fspath(place)
    if "://" not in text:
        return FileWitness(Path(text))
    from logact.logs.url import open_log

    if of and text.partition("?")[0] == of.partition("?")[0]:
        raise UsageError(
            "A log cannot be its own witness",
            received=text,
            expected="a file, or a log that is kept elsewhere",
            todo="whoever cuts this log's tail off would cut off the witness, too",
        )
    return LogWitness(open_log(text))


async def heads_at(place: str | os.PathLike[str] | None, log_id: str = "") -> list[Head]:
    """The heads of the witness at a path or URL, if one is given; ``log_id`` as in :meth:`Witness.read`.

    LogActError if it cannot be read.
    """
    if place is None:
        return []
    if "://" not in os.fspath(place):
        return read_heads(Path(place))
    witness = witness_at(place)
    try:
        return await witness.read(log_id)
    finally:
        await witness.close()


def read_heads(path: Path) -> list[Head]:
    """The heads in a witness file; torn lines are ignored. LogUnavailable if it cannot be read, or holds no head but
    something else: nothing is added to somebody's other file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogUnavailable(
            "The witness cannot be read",
            received=str(error),
            expected="a file of heads",
            todo="check --witness, or `[log] witness` of the specification",
        ) from error
    found = []
    for line in data.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Head))
        except msgspec.DecodeError:
            continue
    if not found and data.strip() and not data.startswith(_TORN[: len(data)]):
        raise LogUnavailable(
            "The witness cannot be read",
            received=f"{path}, which holds something else",
            expected="a file of heads",
            todo="put it back from where it was kept, or name another file",
        )
    return found


_TORN = b'{"log":"'
"""How a head begins: a first one that was cut off is no other file."""


def signed(head: Head, key: SigningKey) -> Head:
    """The head with a signature."""
    return msgspec.structs.replace(head, signature=key.sign(head.signed_text()))


def forged(heads: Sequence[Head], public: str) -> list[Head]:
    """Those heads that do not carry a good signature of this public key. SpecError if it is none."""
    return [head for head in heads if not holds(public, head.signed_text(), head.signature)]


def in_force(heads: Sequence[Head], public: str = "") -> tuple[list[Head], list[Head]]:
    """The heads that count, and those that were made up: they lack a signature of ``public``, where one is given.

    Of each log those count that came since the last one that begins it anew.
    """
    bad = forged(heads, public) if public else []
    made_up = {id(head) for head in bad}
    kept: dict[str, list[Head]] = {}
    for head in heads:
        if id(head) not in made_up:
            mine = kept.setdefault(head.log, [])
            if head.begins:
                mine.clear()
            mine.append(head)
    return [head for mine in kept.values() for head in mine], bad


def was_acted_on(state: State) -> bool:
    """Whether an agent or a part of one acted on the log: what a witness that keeps it would have seen."""
    return bool(state.agents) or any(
        life.birth is not None and life.birth.part for life in state.incarnations.values()
    )
