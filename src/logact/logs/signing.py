"""Signatures: Ed25519 by the author, over the hash of each record, checked by whoever reads with a key ring.

A record's hash covers its log, its writer, its place in the writer's chain, every entry's role and name, and the
digests of the payloads. So nobody can change, forge or take over a signed entry without the author's private key,
not even who may write the database. The signature stands beside the hash and is not covered by it: a log without
signatures is byte for byte what it was.

A key ring is a file outside of the log, in the readers' hands::

    [[keys]]
    public = "ed25519:..."
    roles = ["voter"]
    names = ["safety"]      # left out: any name
    until = 4711000         # left out: for ever; else entries from this position on are not accepted

With a key ring everything that has weight must be signed by a key that is for its role and name: every kind but
``Notice``. What is not counts as forged: no fold lets it take effect, and it is shown. This module holds the private
key in memory and never shows it.
"""

from __future__ import annotations

import base64
import binascii
import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from logact import codec
from logact.entry import MAY_APPEND, position_of
from logact.errors import MissingExtra, SpecError, UsageError

FREE_KINDS = frozenset({"Notice"})
"""Kinds that change nothing, and need no signature: a server without a key may say what it refused."""

_PREFIX = b"logact record 1\n"
_ALGORITHM = "ed25519:"
_FILE_BYTES_MAX = 1024 * 1024
CHECKED_KEPT = 50_000


class RingKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One author's public key, and for whom and how long it stands. No names: any name."""

    public: str
    roles: tuple[str, ...]
    names: tuple[str, ...] = ()
    until: int = 0
    comment: str = ""


class _RingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[RingKey, ...]


class SigningKey:
    """An author's private key."""

    def __init__(self, private: Any) -> None:
        self._private = private
        raw = private.public_key().public_bytes_raw()
        self.public = _ALGORITHM + _text(raw)
        self.ident = ident_of(raw)

    def sign(self, record_hash: str) -> str:
        """The signature over a record's hash, as it is stored: the key's id, a colon, the signature."""
        return f"{self.ident}:{_text(self._private.sign(_PREFIX + record_hash.encode()))}"

    def __repr__(self) -> str:
        return f"SigningKey({self.ident})"


class FileKeyring:
    """The keys that a reader accepts."""

    def __init__(self, keys: tuple[RingKey, ...]) -> None:
        self.keys: dict[str, tuple[Any, list[RingKey]]] = {}
        public = _cryptography().Ed25519PublicKey
        for key in keys:
            raw = _raw_public(key.public)
            unknown = [role for role in key.roles if role not in MAY_APPEND]
            if unknown or not key.roles:
                raise SpecError(
                    "A key of the ring needs roles",
                    received=repr(unknown),
                    expected="some of " + ", ".join(MAY_APPEND),
                )
            self.keys.setdefault(ident_of(raw), (public.from_public_bytes(raw), []))[1].append(key)
        self._good: dict[tuple[str, str], None] = {}  # (hash, signature) that were right; a fold is often repeated

    def check(self, head: codec.Head, record_hash: str, signature: str, record: int) -> str:
        """Why a record counts as forged ("" if it does not)."""
        weighty = [entry for entry in head.entries if entry.kind not in FREE_KINDS]
        if not signature:
            return "it is not signed" if weighty else ""
        ident, _, value = signature.partition(":")
        known = self.keys.get(ident)
        if known is None:
            return f"it is signed with a key that is not in the ring ({ident[:20]})"
        if not self._holds(known[0], record_hash, signature, value):
            return f"its signature does not hold (key {ident})"
        for entry in weighty:
            if not any(_stands_for(key, entry, position_of(record)) for key in known[1]):
                return f"the key {ident} does not stand for {entry.role} {entry.name!r} here"
        return ""

    def _holds(self, public: Any, record_hash: str, signature: str, value: str) -> bool:
        if (record_hash, signature) in self._good:
            return True
        try:
            public.verify(base64.urlsafe_b64decode(value + "=="), _PREFIX + record_hash.encode())
        except (_cryptography().InvalidSignature, ValueError, binascii.Error):
            return False
        if len(self._good) >= CHECKED_KEPT:
            del self._good[next(iter(self._good))]
        self._good[record_hash, signature] = None
        return True


def _stands_for(key: RingKey, entry: codec.EntryHead, position: int) -> bool:
    in_time = not key.until or position < key.until
    return in_time and entry.role in key.roles and (not key.names or entry.name in key.names)


def ident_of(public: bytes) -> str:
    """A key's id: the beginning of the digest of its public part."""
    return codec.digest(public)[:16]


def create_key(path: str | os.PathLike[str]) -> SigningKey:
    """A new key in a new file that only its owner may read. UsageError if the file exists."""
    private = _cryptography().Ed25519PrivateKey.generate()
    serial = _cryptography().serialization
    pem = private.private_bytes(serial.Encoding.PEM, serial.PrivateFormat.PKCS8, serial.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError("The file exists", received=str(path), todo="choose another name") from error
    except OSError as error:
        raise UsageError("The key cannot be written", received=f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return SigningKey(private)


def load_key(path: str | os.PathLike[str]) -> SigningKey:
    """The key in a file. Raises SpecError; the message says nothing of what is in the file."""
    crypto = _cryptography()
    try:
        data = Path(path).read_bytes()[:_FILE_BYTES_MAX]
        private = crypto.serialization.load_pem_private_key(data, password=None)
    except OSError as error:
        raise SpecError("The signing key cannot be read", received=f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, crypto.UnsupportedAlgorithm) as error:
        raise SpecError(
            "The signing key cannot be used",
            received=f"{path}, which holds something else",
            expected="an Ed25519 key as `logact key create` writes it",
        ) from error
    if not isinstance(private, crypto.Ed25519PrivateKey):
        raise SpecError("The signing key is of another kind", received=str(path), expected="an Ed25519 key")
    return SigningKey(private)


def holds(public: str, text: str, signature: str) -> bool:
    """Whether a signature of a text, as ``SigningKey.sign`` makes it, is by this public key. SpecError."""
    raw = _raw_public(public)
    ident, _, value = signature.partition(":")
    try:
        key = _cryptography().Ed25519PublicKey.from_public_bytes(raw)
        key.verify(base64.urlsafe_b64decode(value + "=="), _PREFIX + text.encode())
    except (_cryptography().InvalidSignature, ValueError, binascii.Error):
        return False
    return ident == ident_of(raw)


def load_keyring(path: str | os.PathLike[str]) -> FileKeyring:
    """The key ring in a file. Raises SpecError."""
    try:
        text = Path(path).read_bytes()[:_FILE_BYTES_MAX].decode()
        found = msgspec.convert(tomllib.loads(text), _RingFile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SpecError(
            "The key ring cannot be used",
            received=f"{path}: {error}",
            expected="[[keys]] tables, see docs/signing.md",
        ) from error
    return FileKeyring(found.keys)


def _raw_public(text: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(text.removeprefix(_ALGORITHM) + "==")
    except (ValueError, binascii.Error):
        raw = b""
    if not text.startswith(_ALGORITHM) or len(raw) != 32:
        raise SpecError(
            "This is not a public key", received=text[:60], expected=f"{_ALGORITHM}... as `logact key show` prints it"
        )
    return raw


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class _Cryptography(msgspec.Struct, frozen=True):
    Ed25519PrivateKey: Any
    Ed25519PublicKey: Any
    serialization: Any
    InvalidSignature: type[Exception]
    UnsupportedAlgorithm: type[Exception]


def _cryptography() -> _Cryptography:
    """What is used of the package, or MissingExtra."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Signatures need a package that is not installed",
            received=f"no {error.name}",
            todo="pip install 'logact[sign]'",
        ) from error
    return _Cryptography(
        ed25519.Ed25519PrivateKey,
        ed25519.Ed25519PublicKey,
        serialization,
        InvalidSignature,
        UnsupportedAlgorithm,
    )
