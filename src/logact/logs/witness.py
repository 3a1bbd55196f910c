"""Witnesses: where a log's head was at earlier times, kept elsewhere than the log. A file, or another log.

A log alone cannot show that its last entries were cut off, or that an old copy was put in its place. A witness can,
as far as it is out of reach of whoever did that. Heads may carry a signature (Ed25519), so that whoever can write to
the witness, too, cannot make up a head that fits.

Nothing is judged here: ``verify`` and the agents' ``WitnessKeeper`` compare.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from logact.entry import NewEntry, Notice, position_of
from logact.errors import LogActError, LogError, MissingExtra, UsageError
from logact.logs.base import SharedLog, where

HEAD = "head"
"""The code of the notices that hold heads in a log that is another log's witness."""

LOOK_BACK_RECORDS = 20_000
"""How far back heads are looked for in such a log: the last ones are what counts."""


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a witness remembers: at this position the digest of everything up to there was ``chain``."""

    log: str
    position: int
    chain: str
    time_ms: int = 0
    key: str = ""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """What a signature covers."""
        return f"logact-head\n{self.log}\n{self.position}\n{self.chain}\n{self.time_ms}".encode()


class Witness(abc.ABC):
    """Where heads are kept."""

    name: str

    @abc.abstractmethod
    async def read(self) -> list[Head]:
        """The heads that are there, of whatever logs. LogActError if they cannot be read."""

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

    async def read(self) -> list[Head]:
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

    async def read(self) -> list[Head]:
        await self.log.open()
        start = max(0, await self.log.engine.tail() - LOOK_BACK_RECORDS)
        found = []
        async for entry in self.log.read(position_of(start), matching=where(kinds=["Notice"])):
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


async def heads_at(place: str | os.PathLike[str] | None) -> list[Head]:
    """The heads of the witness at a path or URL, if one is given. LogActError if it cannot be read."""
    if place is None:
        return []
    if "://" not in os.fspath(place):
        return read_heads(Path(place))
    witness = witness_at(place)
    try:
        return await witness.read()
    finally:
        await witness.close()


def read_heads(path: Path) -> list[Head]:
    """The heads in a witness file; a torn last line is ignored. LogActError if it cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LogActError("The witness cannot be read", received=str(error), expected="a file of heads") from error
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Head))
        except msgspec.DecodeError:
            continue
    return found


# --- signatures ------------------------------


class Signer:
    """Signs heads with an Ed25519 key: 64 hexadecimal digits, as ``logact log key`` writes them."""

    def __init__(self, secret: str) -> None:
        ed25519 = _ed25519()
        try:
            self._key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret.strip()))
        except ValueError as error:
            raise UsageError(
                "This is no signing key",
                received=f"{len(secret.strip())} characters",
                expected="64 hexadecimal digits",
                todo="make one with `logact log key FILE`",
            ) from error
        self.public = self._key.public_key().public_bytes_raw().hex()

    def signed(self, head: Head) -> Head:
        """The head with this key's signature."""
        signature = self._key.sign(head.signed_bytes()).hex()
        return msgspec.structs.replace(head, key=self.public, signature=signature)


def new_key() -> str:
    """A fresh signing key."""
    return str(_ed25519().Ed25519PrivateKey.generate().private_bytes_raw().hex())


def forged(heads: Sequence[Head], public: str) -> list[Head]:
    """Those heads that do not carry a good signature of this public key."""
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public.strip()))
    except ValueError as error:
        raise UsageError(
            "This is no public key",
            received=public[:80],
            expected="64 hexadecimal digits, as `logact log key` prints",
        ) from error
    bad = []
    for head in heads:
        try:
            key.verify(bytes.fromhex(head.signature), head.signed_bytes())
        except (InvalidSignature, ValueError):
            bad.append(head)
    return bad


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("Signatures need the package cryptography", todo='pip install "logact[sign]"') from error
    return ed25519
