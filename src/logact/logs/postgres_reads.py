"""Reading pages from PostgreSQL: the statements, and how their rows become a page that leaves nothing out.

Each page is one statement, so one snapshot of the log. This file opens no connection and waits for nothing.
"""

from __future__ import annotations

import zlib

import msgspec

from logact.errors import LogCorrupt, LogUnavailable
from logact.logs import refusals
from logact.logs.base import READ_RECORDS_MAX, Filter, Page, StoredRecord
from logact.logs.postgres_append import filter_clauses
from logact.logs.postgres_wire import Answer

PAGE_BYTES_MAX = 8 * 1024 * 1024
SCAN_RECORDS_MAX = 4096

TAIL = b"SELECT tail FROM logact.logs WHERE id = $1"
CHECKPOINT = b"SELECT CASE WHEN checkpoint >= first THEN checkpoint ELSE 0 END FROM logact.logs WHERE id = $1"
BLOB = b"SELECT data FROM logact.blobs WHERE log = $1 AND digest = $2"

# columns: first, tail, upper (the last record that was looked at), how many of those are there, how many fit; then
# record, crc and body of each that fits and does not make the page too large
_PAGE = """SELECT l.first, l.tail, l.upper, l.there, r.fitting, r.record, r.crc, r.body
    FROM (
        SELECT id, first, tail, least(tail, $2::bigint + $3::bigint) AS upper, {there} AS there
        FROM logact.logs WHERE id = $1::integer
    ) l LEFT JOIN LATERAL (
        SELECT record, crc, body, fitting FROM (
            SELECT record, crc, body, count(*) OVER () AS fitting,
                sum(octet_length(body)) OVER (ORDER BY record) - octet_length(body) AS before
            FROM (
                SELECT record, crc, body FROM logact.records
                WHERE log = l.id AND record > $2::bigint AND record <= l.upper{fits}
                ORDER BY record LIMIT $4::integer
            ) picked
        ) measured WHERE before < {bytes}
    ) r ON true ORDER BY r.record"""
_COUNT = (
    "(SELECT count(*) FROM logact.records WHERE log = logs.id AND record > $2::bigint"
    " AND record <= least(tail, $2::bigint + $3::bigint))"
)
PLAIN = _PAGE.format(there="0::bigint", fits="", bytes=PAGE_BYTES_MAX).encode()
FILTERED = _PAGE.format(
    there=_COUNT, fits=" AND logact.fits(heads, record, $5::jsonb)", bytes=PAGE_BYTES_MAX
).encode()


def question(log: int, after: int, limit: int, matching: Filter | None) -> tuple[bytes, list[bytes | None]]:
    """The statement for a page, and its values."""
    limit = min(limit, READ_RECORDS_MAX)
    window = limit if matching is None else SCAN_RECORDS_MAX
    values: list[bytes | None] = [str(value).encode() for value in (log, max(after, 0), window, limit)]
    if matching is None:
        return PLAIN, values
    return FILTERED, [*values, msgspec.json.encode(filter_clauses(matching))]


def page(answer: Answer, after: int, limit: int, matching: Filter | None) -> Page:
    """The page that an answer to ``question`` holds. Raises LogTrimmed, LogCorrupt, LogUnavailable."""
    if not len(answer):
        raise LogUnavailable("The log was removed from its database", todo="restore a backup")
    first, tail, upper, there = (answer.number(0, column) for column in range(4))
    if after < first - 1:
        raise refusals.trimmed(after, first)
    if upper <= after:
        return Page((), after, end=True)
    if matching is not None and there != upper - after:
        raise LogCorrupt(
            "Records are missing",
            received=f"{there} of {upper - after} after record {after}",
            todo="restore a backup; `logact log verify` shows how far the log can be trusted",
        )
    found: list[StoredRecord] = []
    for row in range(len(answer) if answer.raw(0, 5) is not None else 0):
        record = answer.number(row, 5)
        if matching is None and record != after + 1 + row:
            break  # a hole: the next page begins at it, and says what it is
        found.append(StoredRecord(record, _checked(answer, row, record)))
    if matching is None and not found:
        raise LogCorrupt(
            f"Record {after + 1} is missing",
            received=f"tail {tail}",
            expected=f"record {after + 1}",
            todo="restore a backup",
        )
    whole = matching is not None and len(found) == answer.number(0, 4) < min(limit, READ_RECORDS_MAX)
    upto = upper if whole or not found else found[-1].record
    return Page(tuple(found), upto, end=upto == tail)


def _checked(answer: Answer, row: int, record: int) -> bytes:
    body = answer.raw(row, 7) or b""
    if zlib.crc32(body) != answer.number(row, 6):
        raise refusals.bad_checksum(record, len(body), answer.number(row, 6))
    return body
