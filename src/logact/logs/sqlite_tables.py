"""What a record is in SQLite: the checks and statements of an append, a read, a trim, for one log of a file.

Works on a connection that is given to it, inside a transaction where it writes. It catches no error of SQLite's,
opens nothing and commits nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from typing import Any

from logact import codec
from logact.codec import EntryHead
from logact.entry import record_of
from logact.errors import (
    SALVAGE,
    BlobMissing,
    LogCorrupt,
    LogTrimmed,
    LogUnavailable,
)
from logact.logs import refusals
from logact.logs.base import READ_RECORDS_MAX, Condition, Draft, Filter, Page, StoredRecord
from logact.logs.sqlite_schema import RECORD_BITS, RECORDS_MAX

TRIM_RECORDS_MAX = 2000
"""The most records that one transaction drops, so that a long trim lets others in between."""

HEADS_MAX = 4096
"""How many records' headers are remembered, for conditions."""

_INSERT = "INSERT INTO records (id, body, crc) VALUES (?, ?, ?)"
_LAST = "SELECT number, record, digest FROM writers WHERE log = ? AND writer = ?"
_REMEMBER = """INSERT INTO writers (log, writer, number, record, digest) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (log, writer) DO UPDATE SET number = excluded.number, record = excluded.record,
    digest = excluded.digest"""
_LOOK = """SELECT first, sealed,
    (SELECT id FROM records WHERE id > ?2 AND id <= ?3 ORDER BY id DESC LIMIT 1), number, record, digest
    FROM logs LEFT JOIN writers ON writers.log = logs.id AND writers.writer = ?4 WHERE logs.id = ?1"""
_STATE = """SELECT first, sealed,
    (SELECT id FROM records WHERE id > ?2 AND id <= ?3 ORDER BY id DESC LIMIT 1) FROM logs WHERE id = ?1"""
_PAGE = "SELECT id, body, crc FROM records WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"


class Tables:
    """One log's rows. Remembers the state of the transaction under way, and headers of recent records."""

    def __init__(self, log: int) -> None:
        self.log = log
        self._base = log << RECORD_BITS
        self._heads: dict[int, tuple[EntryHead, ...]] = {}
        self._state: tuple[int, bool, int] | None = None  # first, sealed, tail, as this transaction sees them
        self._staged: dict[int, tuple[EntryHead, ...]] = {}

    def begin(self) -> None:
        """A transaction begins: forget what an earlier one saw or left behind."""
        self._state = None
        self._staged.clear()

    def committed(self) -> int:
        """The transaction was committed; returns the tail that it saw, 0 if it did not look."""
        self._heads.update(self._staged)
        while len(self._heads) > HEADS_MAX:
            del self._heads[next(iter(self._heads))]
        return self._state[2] if self._state is not None else 0

    # --- writing ------------------------------

    def append(self, connection: sqlite3.Connection, draft: Draft) -> tuple[int, bool]:
        """Check a draft and insert it; every check comes before the first write. See ``Engine.append``."""
        refusals.check_size(draft)
        digest = hashlib.sha256(draft.body).digest()
        last = self._last_of(connection, draft.writer)
        number = last[0] if last is not None else 0
        if draft.number == number and last is not None:
            if last[2] != digest:
                raise refusals.other_bytes(draft, last[1])
            return last[1], False
        if draft.number != number + 1 and not (draft.begins and last is None):
            raise refusals.out_of_step(draft, number + 1)
        if draft.key:
            held = connection.execute(
                "SELECT record, content FROM keys WHERE log = ? AND key = ?", (self.log, draft.key)
            ).fetchone()
            if held is not None:
                if held[1] != draft.content:
                    raise refusals.key_conflict(draft, held[0])
                return held[0], False
        first, sealed, tail = self._look(connection)
        if sealed:
            raise refusals.sealed(tail)
        if draft.condition is not None:
            self._check(connection, draft, draft.condition, first, tail)
        for name, data in draft.blobs:
            self.put_blob(connection, name, data)
        record = tail + 1
        connection.execute(_INSERT, (self._base + record, draft.body, zlib.crc32(draft.body)))
        connection.execute(_REMEMBER, (self.log, draft.writer, draft.number, record, digest))
        if draft.key:
            connection.execute(
                "INSERT INTO keys (log, key, record, content) VALUES (?, ?, ?, ?)",
                (self.log, draft.key, record, draft.content),
            )
        if any(head.kind == "Seal" for head in draft.heads):
            connection.execute("UPDATE logs SET sealed = 1 WHERE id = ?", (self.log,))
            sealed = True
        if any(head.kind == "Checkpoint" for head in draft.heads):
            connection.execute("UPDATE logs SET checkpoint = ? WHERE id = ?", (record, self.log))
        self._state = (first, sealed, record)
        self._staged[record] = draft.heads
        return record, True

    def _check(
        self, connection: sqlite3.Connection, draft: Draft, condition: Condition, first: int, tail: int
    ) -> None:
        after = record_of(condition.after)
        if after > tail:
            raise refusals.condition_beyond(draft, tail)
        if after < first - 1:
            raise refusals.condition_trimmed(draft, first)
        for record in range(after + 1, tail + 1):
            if condition.unless is None or condition.unless.fits_record(self._heads_of(connection, record), record):
                raise refusals.came_between(draft, record)

    def _heads_of(self, connection: sqlite3.Connection, record: int) -> tuple[EntryHead, ...]:
        heads = self._staged.get(record) or self._heads.get(record)
        if heads is None:
            row = connection.execute(_PAGE, (self._base + record - 1, self._base + record, 1)).fetchone()
            if row is None:
                raise LogCorrupt(f"Record {record} is missing", todo=SALVAGE)
            heads = codec.read_head(self._checked(row))[0].entries
            self._heads[record] = heads
        return heads

    def put_blob(self, connection: sqlite3.Connection, digest: str, data: bytes) -> None:
        """Store a blob."""
        connection.execute(
            "INSERT INTO blobs (log, digest, data) VALUES (?, ?, ?) ON CONFLICT (log, digest) DO NOTHING",
            (self.log, digest, data),
        )

    def erase(self, connection: sqlite3.Connection, record: int, index: int) -> None:
        """Erase one payload of a record."""
        first, _, tail = self._look(connection)
        if record < first:
            raise LogTrimmed("This record was trimmed", received=str(record), expected=f"{first} or later")
        row = None
        if record <= tail:
            row = connection.execute(_PAGE, (self._base + record - 1, self._base + record, 1)).fetchone()
        if row is None:
            raise refusals.no_record(record, first, tail)
        body = self._checked(row)
        refusals.check_index(index, len(codec.read_head(body)[0].entries))
        body = codec.erase_payload(body, index)
        connection.execute("UPDATE records SET body = ?, crc = ? WHERE id = ?", (body, zlib.crc32(body), row[0]))

    def trim(self, connection: sqlite3.Connection, before: int) -> bool:
        """Drop some of the records below ``before``; whether more are left to drop."""
        first, sealed, tail = self._look(connection)
        before = min(before, tail + 1)
        if before <= first:
            return False
        step = min(before, first + TRIM_RECORDS_MAX)
        connection.execute("DELETE FROM records WHERE id > ? AND id < ?", (self._base, self._base + step))
        connection.execute("UPDATE logs SET first = ? WHERE id = ?", (step, self.log))
        self._state = (step, sealed, tail)
        return step < before

    # --- reading ------------------------------

    def _look(self, connection: sqlite3.Connection) -> tuple[int, bool, int]:
        """(first, sealed, tail) in the transaction under way."""
        if self._state is None:
            self._state = self._state_of(connection)
        return self._state

    def _last_of(self, connection: sqlite3.Connection, writer: str) -> tuple[int, int, bytes] | None:
        """A writer's last (number, record, digest). The transaction's first look finds the log's state as well."""
        if self._state is not None:
            found: tuple[int, int, bytes] | None = connection.execute(_LAST, (self.log, writer)).fetchone()
            return found
        row = connection.execute(_LOOK, (self.log, self._base, self._base + RECORDS_MAX, writer)).fetchone()
        self._state = self._read_state(row)
        return None if row[3] is None else (row[3], row[4], row[5])

    def _state_of(self, connection: sqlite3.Connection) -> tuple[int, bool, int]:
        return self._read_state(
            connection.execute(_STATE, (self.log, self._base, self._base + RECORDS_MAX)).fetchone()
        )

    def _read_state(self, row: Any) -> tuple[int, bool, int]:
        if row is None:
            raise LogUnavailable("The log was removed from its file", todo=SALVAGE)
        return row[0], bool(row[1]), row[0] - 1 if row[2] is None else row[2] - self._base

    def tail(self, connection: sqlite3.Connection) -> int:
        """The last record's number."""
        return self._state_of(connection)[2]

    def last_checkpoint(self, connection: sqlite3.Connection) -> int:
        """The last record with a checkpoint that is still kept; 0 if there is none."""
        row = connection.execute("SELECT first, checkpoint FROM logs WHERE id = ?", (self.log,)).fetchone()
        if row is None:
            raise LogUnavailable("The log was removed from its file", todo=SALVAGE)
        return int(row[1]) if row[1] >= row[0] else 0

    def read(
        self,
        connection: sqlite3.Connection,
        after: int,
        limit: int,
        matching: Filter | None,
        *,
        scan_max: int,
        bytes_max: int,
    ) -> Page:
        """One page: at most ``limit`` matches, ``scan_max`` records looked at, and about ``bytes_max`` bytes."""
        limit = min(limit, READ_RECORDS_MAX)
        if limit <= 0:
            return Page((), after)
        rows = min(limit if matching is None else scan_max, scan_max)
        found: list[StoredRecord] = []
        upto, size, end = after, 0, False
        cursor = connection.execute(_PAGE, (self._base + max(after, 0), self._base + RECORDS_MAX, rows))
        try:
            for row in cursor:
                record = row[0] - self._base
                if record != upto + 1:
                    break  # a hole: the next read starts at it, and says what it is
                body = self._checked(row)
                upto = record
                size += len(body)
                if matching is None or matching.fits_record(codec.read_head(body)[0].entries, record):
                    found.append(StoredRecord(record, body))
                    if len(found) >= limit:
                        break
                if size >= bytes_max:
                    break
            else:
                end = upto - after < rows  # fewer than were asked for: there are no more
        finally:
            cursor.close()
        return Page(tuple(found), upto, end) if upto > after else self._nothing(connection, after)

    def _nothing(self, connection: sqlite3.Connection, after: int) -> Page:
        """Nothing stands right after ``after``: at the tail, or trimmed, or damaged?"""
        first, _, tail = self._state_of(connection)
        if after < first - 1:
            raise refusals.trimmed(after, first)
        row = connection.execute(_PAGE, (self._base + after, self._base + RECORDS_MAX, 1)).fetchone()
        if row is not None and row[0] != self._base + after + 1:
            raise LogCorrupt(
                f"Record {after + 1} is missing",
                received=f"record {row[0] - self._base}, tail {tail}",
                expected=f"record {after + 1}",
                todo=SALVAGE,
            )
        return Page((), after, end=after >= tail)

    @staticmethod
    def _checked(row: tuple[Any, ...]) -> bytes:
        """The bytes of a row of records, if they are what was written."""
        number = row[0] & RECORDS_MAX
        if not isinstance(row[1], bytes) or zlib.crc32(row[1]) != row[2]:
            raise refusals.bad_checksum(number, len(row[1]), row[2])
        return row[1]

    def get_blob(self, connection: sqlite3.Connection, digest: str) -> bytes:
        """The bytes of a blob."""
        row = connection.execute("SELECT data FROM blobs WHERE log = ? AND digest = ?", (self.log, digest)).fetchone()
        if row is None:
            raise BlobMissing("There is no such blob in this log", received=digest)
        return bytes(row[0])
