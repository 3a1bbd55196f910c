"""Finds the other segments of a log that has moved, from any one of them.

Each segment but the first holds two notes beside its records (as blobs under fixed names): ``ORIGIN``, written
before anything else, says which log it goes on from and whether that log's history is copied into it; ``BEGUN``,
written once the old segment is sealed, that it may be written and where it begins. Each segment but the last ends
with a ``Seal`` entry that names the next one. An engine takes nothing after a ``Seal``: the first one wins.

Whoever opens a segment whose move was interrupted after the seal finishes the move. This file decides nothing about
when a log moves.
"""

from __future__ import annotations

import msgspec

from logact import codec
from logact.core.machine import MOVER
from logact.entry import NewEntry, Notice, Seal
from logact.errors import BlobMissing, LogCorrupt, LogSealed, LogUnavailable, UsageError
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, StoredRecord
from logact.logs.copying import blobs_of
from logact.logs.segments import Chain, Part

ORIGIN = codec.digest(b"logact: which log this segment goes on from")
BEGUN = codec.digest(b"logact: where this segment begins")

SEGMENTS_MAX = 1000
COPIER = "copied"
"""The writer under which an engine holds copied records: all of them, in order, whoever copies."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment goes on from: a log's id, and the URL of the segment before it.

    ``copied`` says that the history is copied into it, from the record after ``base`` on.
    """

    log: str
    previous: str
    copied: bool = False
    base: int = 0


class Begun(msgspec.Struct, frozen=True):
    """The segment may be written: the one before it was sealed by record ``end``."""

    end: int


async def whole(engine: Engine) -> Engine:
    """The log that an opened engine is a segment of: the engine itself if it stands alone, else a chain, opened.

    Raises LogUnavailable (a segment cannot be reached), LogSealed (it was prepared for a move that did not happen).
    """
    chain = engine if isinstance(engine, Chain) else await _backwards(engine)
    if chain is None:
        seal = await seal_of(engine)
        if seal is None or not seal[1].segment:
            return engine
        chain = Chain(engine.log_id, [Part(engine, first=True)], [])
    parts, sealed = list(chain.parts), list(chain.sealed)
    while len(parts) < SEGMENTS_MAX:
        last = parts[-1]
        found = await seal_of(last.engine)
        if found is None or not found[1].segment:
            break
        following = await _opened(found[1].next)
        origin = await origin_of(following)
        if origin is None or origin.log != chain.log_id or following.log_id != found[1].segment:
            await following.close()
            raise LogUnavailable(
                "The log was moved, and what is there now is not it",
                received=found[1].next,
                expected=f"the segment {found[1].segment} of log {chain.log_id}",
                todo="restore it, or correct what its address leads to",
            )
        last.end = last.base + found[0]
        await finish(Chain(chain.log_id, parts, sealed), following, origin)
        sealed.append(last)
        if origin.copied:
            parts = [Part(following, origin.base)]
        else:
            parts.append(Part(following, last.end))
    if parts == chain.parts:
        return chain
    return Chain(chain.log_id, parts, sealed)


async def _backwards(engine: Engine) -> Chain | None:
    """The chain up to a segment that is not the first; None if it is the first."""
    origin = await origin_of(engine)
    if origin is None:
        return None
    begun = await _begun_of(engine)
    if begun is not None and origin.copied:
        return Chain(origin.log, [Part(engine, origin.base)], [])  # it needs nothing of what came before
    before = await _opened(origin.previous)
    earlier = await _backwards(before) or Chain(before.log_id, [Part(before, first=True)], [])
    last = earlier.last
    found = await seal_of(before)
    if earlier.log_id != origin.log or found is None or found[1].segment != engine.log_id:
        await earlier.close()
        raise LogSealed(
            "This segment was prepared for a move that has not happened",
            received=f"a segment of {origin.log}, which goes on at {origin.previous}",
            todo="open that log, or run `logact log move` again",
        )
    last.end = last.base + found[0]
    await finish(earlier, engine, origin)
    if origin.copied:
        return Chain(origin.log, [Part(engine, origin.base)], [*earlier.sealed, last])
    return Chain(origin.log, [*earlier.parts, Part(engine, last.end)], [*earlier.sealed, last])


async def _opened(url: str) -> Engine:
    from logact.logs.url import engine_for

    engine = engine_for(url)
    await engine.open()
    return engine


async def seal_of(engine: Engine) -> tuple[int, Seal] | None:
    """An engine's last record and the ``Seal`` that it is; None if it is none.

    A damaged record is none: a damaged log is opened all the same, to be looked at, and takes nothing after a seal.
    """
    tail = await engine.tail()
    if not tail:
        return None
    try:
        records = (await engine.read(tail - 1, 1)).records
        entries = [one for stored in records for one in codec.decode_record(stored.body, stored.record)]
    except LogCorrupt:
        return None
    return next(((tail, one.payload) for one in entries if isinstance(one.payload, Seal)), None)


async def origin_of(engine: Engine) -> Origin | None:
    """What an engine goes on from; None if it is a log's first segment."""
    try:
        return msgspec.json.decode(await engine.get_blob(ORIGIN), type=Origin)
    except BlobMissing:
        return None
    except msgspec.DecodeError as error:
        raise LogCorrupt("What a segment goes on from cannot be read", received=str(error)) from error


async def _begun_of(engine: Engine) -> Begun | None:
    try:
        return msgspec.json.decode(await engine.get_blob(BEGUN), type=Begun)
    except BlobMissing:
        return None
    except msgspec.DecodeError as error:
        raise LogCorrupt("Where a segment begins cannot be read", received=str(error)) from error


# --- finishing a move ------------------------------


async def finish(old: Chain, new: Engine, origin: Origin) -> None:
    """Make the new segment ready, once the last part of the old log is sealed by its ``end``. Harmless to repeat."""
    if await _begun_of(new) is not None:
        return
    if origin.copied:
        await copy(old, new, origin.base, old.last.end)
    await new.put_blob(BEGUN, msgspec.json.encode(Begun(old.last.end)))


async def copy(old: Engine, new: Engine, base: int, upto: int) -> int:
    """Copy what is missing of the records up to ``upto``, byte for byte, with their blobs; how many were copied.

    The record that seals the old segment has another in its place, since an engine takes nothing after a seal. Any
    number of processes may copy at once: the engine takes each record once.
    """
    copied = 0
    cursor = base + await new.tail()
    while cursor < upto:
        page = await old.read(cursor, min(READ_RECORDS_MAX, upto - cursor))
        for place, stored in enumerate(page.records):
            if stored.record != cursor + 1 + place:
                raise UsageError(
                    "This log has gaps between its records, so its history cannot be copied",
                    received=f"record {stored.record} after {cursor + place}",
                    todo="move without --copy: the history stays where it is",
                )
            await _copy_record(old, new, base, stored)
            copied += 1
        if page.upto <= cursor:
            raise LogCorrupt("A record is missing", received=f"nothing after record {cursor}", expected=str(upto))
        cursor = page.upto
    return copied


async def _copy_record(old: Engine, new: Engine, base: int, stored: StoredRecord) -> None:
    codec.check_record(stored.body)
    body = as_copied(old.log_id, stored)
    entries = codec.decode_record(body, stored.record)
    head, _ = codec.read_head(body)
    digests = dict.fromkeys(digest for entry in entries for digest in blobs_of(entry.payload))
    blobs = []
    for digest in digests:
        try:
            blobs.append((digest, await old.get_blob(digest)))
        except BlobMissing:
            continue  # it was missing there as well, and is as missing here
    number = stored.record - base
    record, _ = await new.append(
        Draft(
            writer=COPIER,
            number=number,
            body=body,
            content=codec.content_of(body),
            heads=head.entries,
            key=head.key,
            blobs=tuple(blobs),
        )
    )
    if record != number:
        raise LogCorrupt(
            "The target does not number its records without gaps, so the history cannot be copied into it",
            received=f"record {record} for {number}",
            todo="move without --copy: the history stays where it is",
        )


def as_copied(log_id: str, stored: StoredRecord) -> bytes:
    """What a copy holds of a record: its bytes; of one that seals a segment, the same other bytes whoever copies."""
    entries = codec.decode_record(stored.body, stored.record)
    if not any(entry.kind == "Seal" for entry in entries):
        return stored.body
    note = Notice(code="moved", message="the log moved here")
    encoded = codec.encode_record(
        [NewEntry(payload=note, role="operator", name="move")],
        log=log_id,
        writer=MOVER + entries[0].record_hash[:16],
        number=1,
        previous=codec.GENESIS,
        time_ms=entries[0].time_ms,
        randomness=bytes(codec.SALT_BYTES),
    )
    return encoded.body
