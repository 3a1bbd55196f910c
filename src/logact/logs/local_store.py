"""The file behind a local copy: records and blobs that were read, and drafts that wait for the log to come back.

Blocking. Drafts are flushed to disk before ``keep`` returns; records that were read can be read again, so they are
not. One process writes it (a lock beside it), others may look. It knows nothing of any log's meaning.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from logact import codec
from logact.errors import LogUnavailable, UsageError
from logact.logs.contract import Draft, StoredRecord
from logact.logs.file_lock import FairLock

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (record INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ranges (above INTEGER PRIMARY KEY, upto INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    place INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT NOT NULL, number INTEGER NOT NULL, draft BLOB NOT NULL,
    kept_ms INTEGER NOT NULL, UNIQUE (writer, number)
);
"""


class Waiting(msgspec.Struct, frozen=True):
    """A draft in the outbox, and when it was kept (wall clock, ms)."""

    place: int
    draft: Draft
    kept_ms: int


class LocalStore:
    """One file with the copy of one log. ``mine`` says whether this process may write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mine = False
        self._lock = FairLock(path.with_name(path.name + ".lock"))
        self._connection: sqlite3.Connection | None = None
        self._outbox: sqlite3.Connection | None = None  # flushes each commit

    def open(self) -> None:
        """Open the file, created if it is missing. Raises LogUnavailable."""
        if self._connection is not None:
            return
        try:
            self._lock.open(0o600)
            self.mine = self._lock.try_acquire()
            self.path.touch(mode=0o600)
            self._connection = self._connected("NORMAL")
            self._connection.executescript(_TABLES)
            self._outbox = self._connected("FULL")
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise LogUnavailable(
                "The local copy cannot be opened", received=f"{self.path}: {error}", todo="correct ?local=FILE"
            ) from error

    def _connected(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        return connection

    def close(self) -> None:
        """Release everything."""
        for connection in (self._connection, self._outbox):
            if connection is not None:
                connection.close()
        self._connection = self._outbox = None
        if self.mine:
            self._lock.release()
        self._lock.close()
        self.mine = False

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LogUnavailable("The local copy is closed", received=str(self.path))
        return self._connection

    def _flushed(self) -> sqlite3.Connection:
        self._db()
        if self._outbox is None:
            raise LogUnavailable("The outbox is closed", received=str(self.path))
        return self._outbox

    def _one(self, statement: str, *values: Any) -> Any:
        row = self._db().execute(statement, values).fetchone()
        return row[0] if row is not None else None

    # --- whose copy it is ------------------------------

    def log_id(self) -> str:
        """The id of the log that this is a copy of; empty for a new file."""
        return str(self._one("SELECT value FROM meta WHERE name = 'log'") or "")

    def belongs_to(self, log_id: str) -> None:
        """Note whose copy it is. UsageError if it is another log's."""
        known = self.log_id()
        if known and known != log_id:
            raise UsageError(
                "The local copy is of another log",
                received=f"{self.path}, a copy of {known}",
                expected=f"a copy of {log_id}, or a new file",
                todo="name another file with ?local=",
            )
        if not known and self.mine:
            self._db().execute("INSERT INTO meta VALUES ('log', ?)", (log_id,))

    def seen(self, wall_ms: int) -> None:
        """Note when the log was reached last."""
        if self.mine:
            self._db().execute("INSERT OR REPLACE INTO meta VALUES ('seen', ?)", (str(wall_ms),))

    def seen_ms(self) -> int:
        """When the log was reached last (wall clock, ms); 0 if never."""
        return int(self._one("SELECT value FROM meta WHERE name = 'seen'") or 0)

    # --- the copy ------------------------------

    def put(self, after: int, upto: int, records: Iterable[StoredRecord]) -> None:
        """Keep what one read returned: everything that stands above ``after``, up to ``upto``."""
        if not self.mine or upto <= after:
            return
        db = self._db()
        db.execute("BEGIN")
        db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", [(one.record, one.body) for one in records])
        touching = db.execute(
            "SELECT above, upto FROM ranges WHERE above <= ? AND upto >= ?", (upto, after)
        ).fetchall()
        db.executemany("DELETE FROM ranges WHERE above = ?", [(row[0],) for row in touching])
        above = min([after, *(row[0] for row in touching)])
        db.execute("INSERT INTO ranges VALUES (?, ?)", (above, max([upto, *(row[1] for row in touching)])))
        db.execute("COMMIT")

    def get(self, after: int, limit: int) -> tuple[list[StoredRecord], int] | None:
        """Up to ``limit`` records above ``after``, and up to where nothing is missing; None if that is not here."""
        row = (
            self._db()
            .execute(
                "SELECT upto FROM ranges WHERE above <= ? AND upto >= ? ORDER BY upto DESC LIMIT 1", (after, after)
            )
            .fetchone()
        )
        if row is None:
            return None
        found = self._db().execute(
            "SELECT record, body FROM records WHERE record > ? AND record <= ? ORDER BY record LIMIT ?",
            (after, row[0], limit),
        )
        records = [StoredRecord(record, body) for record, body in found]
        return records, records[-1].record if len(records) == limit else row[0]

    def end(self) -> int:
        """The last record up to which anything was read."""
        return int(self._one("SELECT max(upto) FROM ranges") or 0)

    def last_checkpoint(self) -> int:
        """The last record here that may hold a checkpoint; 0 if there is none."""
        return int(
            self._one("SELECT max(record) FROM records WHERE instr(body, CAST('\"Checkpoint\"' AS BLOB)) > 0") or 0
        )

    def erase(self, record: int, index: int) -> None:
        """Erase one payload of a record, if it is here."""
        body = self._one("SELECT body FROM records WHERE record = ?", record)
        if body is not None and self.mine:
            erased = codec.erase_payload(bytes(body), index)
            self._db().execute("UPDATE records SET body = ? WHERE record = ?", (erased, record))

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a blob."""
        if self.mine:
            self._db().execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, data))

    def get_blob(self, digest: str) -> bytes | None:
        """A blob, if it is here."""
        found = self._one("SELECT data FROM blobs WHERE digest = ?", digest)
        return bytes(found) if found is not None else None

    # --- the outbox ------------------------------

    def keep(self, draft: Draft, wall_ms: int) -> None:
        """Put a draft at the end of the outbox; durable on return. One that waits there already stays where it is."""
        self._flushed().execute(
            "INSERT OR IGNORE INTO outbox (writer, number, draft, kept_ms) VALUES (?, ?, ?, ?)",
            (draft.writer, draft.number, msgspec.msgpack.encode(draft), wall_ms),
        )

    def waiting(self) -> list[Waiting]:
        """What is in the outbox, in order."""
        rows = self._flushed().execute("SELECT place, draft, kept_ms FROM outbox ORDER BY place")
        return [Waiting(place, msgspec.msgpack.decode(draft, type=Draft), kept) for place, draft, kept in rows]

    def done(self, place: int) -> None:
        """A draft's fate is known: it leaves the outbox."""
        self._flushed().execute("DELETE FROM outbox WHERE place = ?", (place,))
