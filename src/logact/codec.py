"""Entries to bytes and back: versions, digests, the hash chain.

A stored record is JSON with three parts::

    {"hash": H, "head": {...}, "payloads": [{"salt": S, "data": {...}}, ...], "signature": "KEY:SIGNATURE"}

``head`` names the log, the writer (one incarnation), the record's number in that writer's chain, the hash of
the writer's previous record, and for each entry its header with the salted digest of its payload. ``hash`` is
the SHA-256 of the head's bytes. So the chain covers headers and payload digests, and a payload can be erased
later without breaking it. The signature, if the author has a key, is over the hash (see ``logs/signing.py``); a
record without one has no such part. Digests are SHA-256 in URL-safe base 64 without padding (43 characters).

This module owns the stored form. It is pure: randomness and time are given to it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from logact.entry import (
    KINDS,
    RECORD_ENTRIES_MAX,
    Author,
    Entry,
    ErasedPayload,
    NewEntry,
    Payload,
    Unknown,
    position_of,
)
from logact.errors import SALVAGE, LogCorrupt, TooLarge, UsageError

FORMAT = 1
"""The format of the stored record. A reader refuses a file whose format is newer."""

PAYLOAD_BYTES_MAX = 256 * 1024
"""The largest encoded payload. Larger values travel as blobs."""

RECORD_BYTES_MAX = 900_000
"""The largest encoded record, so that every engine can hold it in one message."""

DEPTH_MAX = 100
"""How deep values may nest, so that whoever decodes a record has stack enough, however deep it stands itself."""

SALT_BYTES = 12
GENESIS = ""
"""What the first record of a chain names as its previous one."""


class EntryHead(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The header of one entry inside a record's head. Positions may be batch-relative (negative)."""

    kind: str
    role: str
    name: str
    digest: str
    agent: str = ""
    run: int = 0
    action: int = 0
    tool: str = ""
    causes: tuple[int, ...] = ()
    critical: bool = False
    version: int = 1


class Head(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The part of a record that its hash covers."""

    log: str
    writer: str
    number: int
    previous: str
    time: int
    entries: tuple[EntryHead, ...]
    key: str = ""


class _Box(msgspec.Struct, frozen=True):
    salt: str
    data: msgspec.Raw


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    hash: str
    head: msgspec.Raw
    payloads: tuple[_Box | None, ...]
    signature: str = ""


class EncodedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record as an engine stores it. ``content`` is the digest of what it says, without chain, time and salt."""

    body: bytes
    hash: str
    content: str
    heads: tuple[EntryHead, ...]


_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # base64.urlsafe_b64encode does the same, with more calls
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="deterministic").encode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_head = msgspec.json.Decoder(Head).decode
_decoders = {kind: msgspec.json.Decoder(cls).decode for kind, cls in KINDS.items()}
_decode_any = msgspec.json.Decoder().decode


def digest(data: bytes) -> str:
    """The SHA-256 of ``data``, as 43 characters of URL-safe base 64."""
    return binascii.b2a_base64(hashlib.sha256(data).digest(), newline=False).translate(_URL_SAFE)[:43].decode()


def canonical(value: Any) -> bytes:
    """The one JSON form of a value: keys sorted, no blanks. Equal values give equal bytes."""
    return _canonical(value)


def digest_of(value: Any) -> str:
    """The digest of a value's canonical JSON; what votes on arguments are bound to."""
    return digest(_canonical(value))


def encode_record(
    entries: Sequence[NewEntry],
    *,
    log: str,
    writer: str,
    number: int,
    previous: str,
    time_ms: int,
    randomness: bytes,
    key: str = "",
    sign: Callable[[str], str] | None = None,
) -> EncodedRecord:
    """Encode a batch. ``randomness`` must hold 12 bytes for each entry (its payload's salt).

    ``sign`` gives the signature of a hash.
    """
    if not 0 < len(entries) <= RECORD_ENTRIES_MAX:
        raise UsageError(
            "A record holds at least one entry",
            received=f"{len(entries)} entries",
            expected=f"1 to {RECORD_ENTRIES_MAX}",
            todo="split the batch",
        )
    salts = base64.urlsafe_b64encode(randomness).decode()
    heads: list[EntryHead] = []
    boxes: list[_Box] = []
    content = hashlib.sha256()
    for place, new in enumerate(entries):
        payload = new.payload
        cls = type(payload)
        data = _encode_payload(payload)
        content.update(data)
        salt = salts[place * 16 : place * 16 + 16]
        heads.append(
            EntryHead(
                kind=cls.__name__,
                role=new.role,
                name=new.name,
                digest=digest(salt.encode() + data),
                agent=new.agent or getattr(payload, "agent", ""),
                run=new.run or getattr(payload, "run", 0),
                action=getattr(payload, "intent", 0),
                tool=new.tool or getattr(payload, "tool", ""),
                causes=new.causes,
                critical=cls.CRITICAL,
                version=cls.VERSION,
            )
        )
        boxes.append(_Box(salt, msgspec.Raw(data)))
    tags = tuple(heads)
    head = _encode(
        Head(log=log, writer=writer, number=number, previous=previous, time=time_ms, entries=tags, key=key)
    )
    record_hash = digest(head)
    signature = sign(record_hash) if sign is not None else ""
    body = _encode(_Body(record_hash, msgspec.Raw(head), tuple(boxes), signature))
    if len(body) > RECORD_BYTES_MAX:
        raise TooLarge(
            "A record is too large",
            received=f"{len(body)} bytes in {len(entries)} entries",
            expected=f"at most {RECORD_BYTES_MAX}",
            todo="split the batch, or move large values to blobs",
        )
    whole = base64.urlsafe_b64encode(content.digest())[:43].decode()
    return EncodedRecord(body=body, hash=record_hash, content=whole, heads=tags)


def _encode_payload(payload: Payload) -> bytes:
    try:
        data = _encode(payload)
        check_depth(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"A {type(payload).__name__} entry holds something that is not JSON",
            received=str(error),
            expected=f"text, numbers, booleans, null, lists and objects, nested at most {DEPTH_MAX} deep",
            todo="convert the value first",
        ) from error
    if len(data) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"A {type(payload).__name__} entry is too large",
            received=f"{len(data)} bytes",
            expected=f"at most {PAYLOAD_BYTES_MAX}",
            todo="move large values to blobs with put_blob",
        )
    return data


def check_depth(data: bytes, most: int = DEPTH_MAX) -> None:
    """Raise ValueError if some JSON nests too deep."""
    if data.count(b"[") + data.count(b"{") <= most:
        return
    depth = 0
    for found in _BRACKETS.finditer(data):
        token = found.group()
        if token in b"[{":
            depth += 1
            if depth > most:
                raise ValueError(f"it nests deeper than {most} levels")
        elif token in b"]}":
            depth -= 1


def read_head(body: bytes) -> tuple[Head, str]:
    """The head of a stored record and its hash, without looking at payloads. Raises LogCorrupt."""
    try:
        box = _decode_body(body)
        return _decode_head(box.head), box.hash
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt("A stored record cannot be read", received=str(error)) from error


def signature_of(body: bytes) -> str:
    """A stored record's signature ("" if it has none). Raises LogCorrupt."""
    try:
        return _decode_body(body).signature
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt("A stored record cannot be read", received=str(error)) from error


def check_record(body: bytes) -> str:
    """Check a record's own digests (head and payloads) and return its hash. Raises LogCorrupt."""
    try:
        box = _decode_body(body)
        head = _decode_head(box.head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt("A stored record cannot be read", received=str(error)) from error
    if digest(bytes(box.head)) != box.hash:
        raise LogCorrupt(
            "A record's head does not match its hash", received=digest(bytes(box.head)), expected=box.hash
        )
    if len(head.entries) != len(box.payloads):
        raise LogCorrupt(
            "A record has lost payloads", received=f"{len(box.payloads)}", expected=f"{len(head.entries)}"
        )
    for place, (entry, payload) in enumerate(zip(head.entries, box.payloads, strict=True)):
        if payload is not None and digest(payload.salt.encode() + bytes(payload.data)) != entry.digest:
            raise LogCorrupt(f"Entry {place} of a record ({entry.kind}) does not match its digest")
    return box.hash


Check = Callable[[Head, str, str, int], str]
"""Why a record counts as forged ("" if it does not): of its head, hash, signature ("": it has none) and number."""


def decode_record(body: bytes, record: int, check: Check | None = None) -> list[Entry]:
    """The entries of a stored record, references resolved to positions.

    With a ``check``, entries of a record that fails it say so in ``forged``, and take no effect in any fold.

    A payload of an unknown kind, of a newer version, or that does not fit its kind becomes ``Unknown``: one bad
    entry never stops a log. Only a record whose frame is not readable at all raises LogCorrupt.
    """
    try:
        box = _decode_body(body)
        head = _decode_head(box.head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt(f"Record {record} cannot be read", received=str(error)) from error
    forged = "" if check is None else check(head, digest(bytes(box.head)), box.signature, record)
    found: list[Entry] = []
    first = record * RECORD_ENTRIES_MAX
    payloads, boxes = box.payloads, len(box.payloads)
    for place, entry in enumerate(head.entries):
        boxed = payloads[place] if place < boxes else None
        if check is not None and boxed is not None and not forged:
            intact = digest(boxed.salt.encode() + bytes(boxed.data)) == entry.digest
            forged = "" if intact else "its payload is not the one that was signed"
        run, action = entry.run, entry.action
        found.append(
            Entry(
                position=first + place,
                kind=entry.kind,
                payload=_decode_payload(entry, boxed, record),
                author=Author(entry.role, entry.name, head.writer),
                time_ms=head.time,
                log=head.log,
                agent=entry.agent,
                run=run if run >= 0 else first - 1 - run,
                action=action if action >= 0 else first - 1 - action,
                tool=entry.tool,
                causes=tuple([resolve(cause, record) for cause in entry.causes]) if entry.causes else (),
                critical=entry.critical,
                version=entry.version,
                key=head.key,
                number=head.number,
                previous=head.previous,
                record_hash=box.hash,
                size=len(boxed.data) if boxed is not None else 0,
                forged=forged,
            )
        )
    return found


def resolve(reference: int, record: int) -> int:
    """A reference as a position: negative ones point into the same record."""
    return reference if reference >= 0 else position_of(record, -1 - reference)


def _decode_payload(entry: EntryHead, box: _Box | None, record: int) -> Payload:
    if box is None:
        return ErasedPayload(kind=entry.kind)
    cls = KINDS.get(entry.kind)
    if cls is None or entry.version > cls.VERSION:
        return _unknown(entry.kind, box)
    try:
        payload: Payload = _decoders[entry.kind](box.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _unknown(entry.kind, box)
    changes = None
    for field in cls.REFERENCES:
        value = getattr(payload, field)
        if value < 0:
            changes = changes or {}
            changes[field] = resolve(value, record)
    return msgspec.structs.replace(payload, **changes) if changes is not None else payload


def _unknown(kind: str, box: _Box) -> Unknown:
    try:
        return Unknown(kind=kind, data=_decode_any(box.data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Unknown(kind=kind, data=repr(bytes(box.data)[:200]))


def erase_payload(body: bytes, index: int) -> bytes:
    """The same record with one payload and its salt gone; head and hash stay byte for byte."""
    box = _decode_body(body)
    payloads = tuple(None if place == index else kept for place, kept in enumerate(box.payloads))
    return _encode(_Body(box.hash, box.head, payloads, box.signature))


def content_of(body: bytes) -> str:
    """What ``EncodedRecord.content`` is of a stored record, as far as its payloads are still there."""
    return digest(b"".join(bytes(kept.data) for kept in _decode_body(body).payloads if kept is not None))


def damaged_payloads(body: bytes) -> list[int]:
    """The places of the payloads that do not match their digests. Raises LogCorrupt if the head itself does not."""
    try:
        box = _decode_body(body)
        head = _decode_head(box.head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt("A stored record cannot be read", received=str(error)) from error
    if digest(bytes(box.head)) != box.hash or len(head.entries) != len(box.payloads):
        raise LogCorrupt("A record's head does not match its hash")
    return [
        place
        for place, (entry, kept) in enumerate(zip(head.entries, box.payloads, strict=True))
        if kept is not None and digest(kept.salt.encode() + bytes(kept.data)) != entry.digest
    ]


def rebind(
    body: bytes, *, log: str, previous: str, number: int = 0, erase: Sequence[int] = (), behind: bytes = b""
) -> EncodedRecord:
    """The same record as another log holds it: its own log id and predecessor, so another hash; payloads as they are.

    A signature is left behind, since it was for the other hash.

    ``number`` is its new place in its writer's chain (0: as it is); ``erase`` are the places of payloads that the
    other log does not get, and the entries of the record ``behind`` come after its own. Raises LogCorrupt.
    """
    damaged = [place for place in damaged_payloads(body) if place not in erase]
    if damaged:
        raise LogCorrupt("A record's payloads do not match their digests", received=f"entries {damaged}")
    box = _decode_body(body)
    head = _decode_head(box.head)
    head = msgspec.structs.replace(head, log=log, previous=previous, number=number or head.number)
    payloads = tuple(None if place in erase else kept for place, kept in enumerate(box.payloads))
    if behind:
        more = _decode_body(behind)
        head = msgspec.structs.replace(head, entries=(*head.entries, *_decode_head(more.head).entries))
        payloads = (*payloads, *more.payloads)
    raw = _encode(head)
    record_hash = digest(raw)
    content = digest(b"".join(bytes(kept.data) for kept in payloads if kept is not None))
    moved = _encode(_Body(record_hash, msgspec.Raw(raw), payloads))
    return EncodedRecord(body=moved, hash=record_hash, content=content, heads=head.entries)


def check_blob(expected: str, data: bytes) -> None:
    """Raise LogCorrupt unless ``data`` has the digest under which it was stored."""
    found = digest(data)
    if found != expected:
        raise LogCorrupt("A blob does not match its digest", received=found, expected=expected, todo=SALVAGE)
