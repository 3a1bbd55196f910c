"""Snapshots of an :class:`Arbiter`: whoever opens a log starts from the last one, and reads only what came after.

A snapshot is cut into pieces that fit into messages of the partition for state. Each piece names the snapshot, so
that pieces of several writers may lie among each other, and each carries the digest of the whole: one that is
damaged, incomplete, or of another log is not used. This file sends and reads nothing.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable

import msgspec

from logact import codec
from logact.codec import EntryHead
from logact.logs.arbitration import VERSION, Arbiter, BlobPlace, Known
from logact.logs.winners import Winners

PIECE_BYTES_MAX = 800_000


class _State(msgspec.Struct, array_like=True):
    next: int
    log_id: str
    lookback: int
    tail: int
    first: int
    sealed: bool
    checkpoint: int
    writers: dict[str, Known]
    keys: dict[str, tuple[int, str]]
    blobs: list[BlobPlace]
    erased: list[tuple[int, tuple[int, ...]]]
    kinds: dict[str, int]
    recent: list[tuple[int, list[tuple[str, str, str, int, int, str]]]]
    floor: int
    base: int
    bits: bytes


class PieceHead(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The first line of a piece. ``anchor`` is the digest of the message just below ``upto``."""

    snapshot: str
    log: str
    upto: int
    anchor: str
    digest: str
    place: int
    count: int
    version: int = VERSION


class Snapshot(msgspec.Struct, frozen=True):
    """A whole snapshot as found: its state is decoded on use."""

    head: PieceHead
    data: bytes
    offset: int  # of its first piece


_state_decoder = msgspec.msgpack.Decoder(_State)
_encode_head = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(PieceHead).decode


def encode(arbiter: Arbiter) -> bytes:
    """The state as bytes; equal states give equal bytes."""
    state = _State(
        arbiter.next,
        arbiter.log_id,
        arbiter.lookback,
        arbiter.tail,
        arbiter.first,
        arbiter.sealed,
        arbiter.checkpoint,
        arbiter.writers,
        arbiter.keys,
        list(arbiter.blobs.values()),
        sorted(arbiter.erased.items()),
        arbiter.kinds,
        [
            (record, [(one.kind, one.role, one.agent, one.run, one.action, one.tool) for one in heads])
            for record, heads in arbiter.recent
        ],
        arbiter.floor,
        arbiter.winners.base,
        bytes(arbiter.winners.bits),
    )
    return msgspec.msgpack.encode(state, order="deterministic")


def decode(data: bytes) -> Arbiter:
    """The arbiter that was encoded. Raises msgspec.DecodeError."""
    state = _state_decoder.decode(data)
    found = Arbiter()
    found.next, found.log_id, found.lookback = state.next, state.log_id, state.lookback
    found.tail, found.first, found.sealed, found.checkpoint = state.tail, state.first, state.sealed, state.checkpoint
    found.saved = state.next
    found.writers, found.keys, found.kinds = state.writers, state.keys, state.kinds
    found.erased = dict(state.erased)
    found.blobs = {place.digest: place for place in state.blobs}
    found.recent = deque(
        (
            record,
            tuple(
                EntryHead(kind=kind, role=role, name="", digest="", agent=agent, run=run, action=action, tool=tool)
                for kind, role, agent, run, action, tool in heads
            ),
        )
        for record, heads in state.recent
    )
    found.floor = state.floor
    found.winners = Winners(state.base, state.bits)
    return found


def pieces(arbiter: Arbiter, snapshot: str, anchor: str) -> list[bytes]:
    """A snapshot as messages."""
    data = zlib.compress(encode(arbiter), 1)
    digest = codec.digest(data)
    parts = [data[start : start + PIECE_BYTES_MAX] for start in range(0, len(data), PIECE_BYTES_MAX)]
    return [
        _encode_head(
            PieceHead(
                snapshot=snapshot,
                log=arbiter.log_id,
                upto=arbiter.next,
                anchor=anchor,
                digest=digest,
                place=place,
                count=len(parts),
            )
        )
        + b"\n"
        + part
        for place, part in enumerate(parts)
    ]


def whole_snapshots(messages: Iterable[tuple[int, bytes]]) -> list[Snapshot]:
    """The complete and undamaged snapshots among some messages, the one that saw most first."""
    parts: dict[str, dict[int, tuple[int, PieceHead, bytes]]] = {}
    for offset, value in messages:
        line, _, data = value.partition(b"\n")
        try:
            head = _decode_head(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if head.version == VERSION:
            parts.setdefault(head.snapshot, {}).setdefault(head.place, (offset, head, data))
    found = []
    for pieces_of in parts.values():
        ordered = [pieces_of[place] for place in sorted(pieces_of)]
        offset, head, _ = ordered[0]
        data = b"".join(part for _, _, part in ordered)
        if len(ordered) == head.count and codec.digest(data) == head.digest:
            found.append(Snapshot(head, data, offset))
    return sorted(found, key=lambda one: one.head.upto, reverse=True)


def restore(snapshot: Snapshot) -> Arbiter | None:
    """The arbiter of a snapshot; None if it cannot be read or does not say the same as its head."""
    try:
        arbiter = decode(zlib.decompress(snapshot.data))
    except (msgspec.DecodeError, UnicodeDecodeError, zlib.error, ValueError, TypeError):
        return None
    same = arbiter.next == snapshot.head.upto and arbiter.log_id == snapshot.head.log
    return arbiter if same else None
