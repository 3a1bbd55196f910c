"""Does verification find what somebody did to a log? Tampers with a copy, and asks ``logact.logs.verify``."""

from __future__ import annotations

import random
from contextlib import suppress

from logact import codec
from logact.core.invariants import require
from logact.errors import BlobMissing
from logact.logs.base import SharedLog, StoredRecord
from logact.logs.copying import blobs_of
from logact.logs.memory import MemoryEngine
from logact.logs.verify import Report, verify
from logact.testing.simulated_log import Base, at_once


def records_of(base: Base) -> list[StoredRecord]:
    """Every record of a log."""
    found: list[StoredRecord] = []
    cursor = 0
    while True:
        page = base.read_now(cursor, 512, None)
        found += page.records
        if page.upto <= cursor:
            return found
        cursor = page.upto


def blobs_in(base: Base, records: list[StoredRecord]) -> dict[str, bytes]:
    """The blobs that a log's records name, as far as they are there."""
    found: dict[str, bytes] = {}
    for stored in records:
        for entry in codec.decode_record(stored.body, stored.record):
            for digest in blobs_of(entry.payload):
                if digest not in found:
                    with suppress(BlobMissing):
                        found[digest] = base.get_blob_now(digest)
    return found


def report_on(log_id: str, bodies: list[bytes], blobs: dict[str, bytes]) -> Report:
    """What verification says of a log with these records and blobs."""
    engine = MemoryEngine("memory:copy")
    for digest, data in blobs.items():
        at_once(engine.put_blob(digest, data))
    engine.log_id = log_id
    engine.records = [(body, codec.read_head(body)[0].entries) for body in bodies]
    return at_once(verify(SharedLog(engine)))


def check_tampering_shows(base: Base, seed: int) -> None:
    """The honest log is sound, and a log with one record changed, dropped or moved is not."""
    records = records_of(base)
    bodies, blobs = [stored.body for stored in records], blobs_in(base, records)
    report = report_on(base.log_id, bodies, blobs)
    require("tampering_shows", report.sound, f"an honest log does not verify: {report.problems[:2]}")
    dice = random.Random(f"tamper {seed}")
    victims = _with_a_successor(bodies)
    if not victims:
        return
    at, after = dice.choice(victims)
    changed = list(bodies)
    how = dice.choice(("changed", "dropped", "moved"))
    if how == "changed":
        body = bodies[at]
        mark = b'"data":{"' if b'"data":{"' in body else b'"salt":"'
        place = body.rindex(mark) + len(mark)
        changed[at] = body[:place] + (b"X" if body[place : place + 1] != b"X" else b"Y") + body[place + 1 :]
    elif how == "dropped":
        del changed[at]
    else:
        changed[at], changed[after] = changed[after], changed[at]
    report = report_on(base.log_id, changed, blobs)
    require("tampering_shows", not report.sound, f"record {at + 1} was {how}, and the log verifies")


def _with_a_successor(bodies: list[bytes]) -> list[tuple[int, int]]:
    """Records after which their writer wrote another: their places, and the successors'."""
    last: dict[str, int] = {}
    found = []
    for place, body in enumerate(bodies):
        writer = codec.read_head(body)[0].writer
        if writer in last:
            found.append((last[writer], place))
        last[writer] = place
    return found
