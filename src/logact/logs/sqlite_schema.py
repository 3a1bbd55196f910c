"""The SQLite file: its tables as numbered migrations, how it is opened, and what its errors mean.

A file holds many logs. A record's row id is ``log id * 2**40 + record number``, so each log lies together in one
B-tree and an append touches few pages. Every record carries a CRC of its bytes; SQLite itself has no checksums.

This file owns the format. It never reads or writes records.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from logact.errors import (
    SALVAGE,
    LogCorrupt,
    LogError,
    LogFull,
    LogLocked,
    LogReadOnly,
    LogTooNew,
    LogUnavailable,
    ReadFailed,
    TooLarge,
    UsageError,
)

APPLICATION_ID = 0x4C6F6741  # "LogA", in the file's header
RECORD_BITS = 40
RECORDS_MAX = (1 << RECORD_BITS) - 1

CHECKPOINT_PAGES_NET = 8000
"""SQLite's own checkpoint, in case ours cannot keep up; ours comes earlier, and in a worker thread."""

WAL_BYTES_KEPT = 64 * 1024 * 1024
"""A write-ahead log that grew beyond this is cut when it starts over."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE logs (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            log_id TEXT NOT NULL,
            created_ms INTEGER NOT NULL,
            first INTEGER NOT NULL DEFAULT 1,
            checkpoint INTEGER NOT NULL DEFAULT 0,
            sealed INTEGER NOT NULL DEFAULT 0
        )""",
        "CREATE TABLE records (id INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL)",
        """CREATE TABLE writers (
            log INTEGER NOT NULL,
            writer TEXT NOT NULL,
            number INTEGER NOT NULL,
            record INTEGER NOT NULL,
            digest BLOB NOT NULL,
            PRIMARY KEY (log, writer)
        ) WITHOUT ROWID""",
        """CREATE TABLE keys (
            log INTEGER NOT NULL,
            key TEXT NOT NULL,
            record INTEGER NOT NULL,
            content TEXT NOT NULL,
            PRIMARY KEY (log, key)
        ) WITHOUT ROWID""",
        """CREATE TABLE blobs (
            id INTEGER PRIMARY KEY,
            log INTEGER NOT NULL,
            digest TEXT NOT NULL,
            data BLOB NOT NULL,
            UNIQUE (log, digest)
        )""",
        # for people with a SQLite shell
        """CREATE VIEW log_records AS
            SELECT logs.name AS log, records.id & 1099511627775 AS record, CAST(records.body AS TEXT) AS body
            FROM records JOIN logs ON logs.id = records.id >> 40""",
    ),
)
"""One tuple of statements for each version of the file; ``PRAGMA user_version`` counts those applied."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to an existing file, set up for LogAct. Raises sqlite3.Error. Never creates a file."""
    uri = f"file:{quote(str(path))}?mode={'ro' if read_only else 'rw'}"
    found = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # FULL: the write-ahead log is flushed by each commit, before anyone can see it
        found.execute("PRAGMA synchronous=FULL")
        found.execute("PRAGMA fullfsync=ON")  # macOS: through the drive's cache too
        found.execute("PRAGMA cell_size_check=ON")
        found.execute("PRAGMA trusted_schema=OFF")
        found.execute("PRAGMA secure_delete=ON")  # erased means gone from the file
        found.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES_NET}")
        found.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
    except BaseException:
        found.close()
        raise
    return found


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a LogAct file; 0 for an empty one. Raises UsageError (another's), LogTooNew, sqlite3.Error."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if application != APPLICATION_ID and (application or version or tables):
        raise UsageError(
            "This SQLite file belongs to another program; nothing was changed",
            received=str(path),
            expected="a LogAct log, or a new file",
            todo="give the log a file of its own",
        )
    if version > len(MIGRATIONS):
        raise LogTooNew(
            "The file was written by a newer version of LogAct; nothing was changed",
            received=f"file format {version} in {path}",
            expected=f"at most {len(MIGRATIONS)}",
            todo="upgrade LogAct",
        )
    return version


def prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    """Check that the file is a LogAct file of a known version, and bring an older or empty one up to date.

    Raises UsageError (another program's database), LogTooNew, LogUnavailable, LogReadOnly, sqlite3.Error.
    """
    version = version_of(connection, path)
    if version == len(MIGRATIONS):
        return
    if read_only:
        raise LogReadOnly(
            "The file needs to be brought up to date, but cannot be written",
            received=str(path),
            todo="make it writable once",
        )
    mode = str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
    if mode != "wal":
        raise LogUnavailable(
            "SQLite cannot use a write-ahead log here",
            received=f"journal mode {mode} for {path}",
            expected="wal",
            todo="put the file on a local disk",
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


_FULL, _READONLY, _BUSY, _LOCKED, _CORRUPT, _NOTADB = 13, 8, 5, 6, 11, 26
_CANTOPEN, _TOOBIG, _IOERR = 14, 18, 10


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection stands in the way, so that trying again helps."""
    return code_of(error) in {_BUSY, _LOCKED}


def is_certain(error: sqlite3.Error) -> bool:
    """Whether a COMMIT that failed like this, and was rolled back, certainly did not happen.

    A full disk leaves the write-ahead log without the commit's last frame. Any other I/O error may strike in
    the flush, after the frames were written: they could come back to life in a recovery.
    """
    return code_of(error) in {_FULL, _BUSY, _LOCKED, _READONLY}


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where there is none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def mapped(error: sqlite3.Error, path: Path, *, reading: bool) -> LogError | UsageError:
    """What an error of SQLite means to the caller; for all but a failed COMMIT."""
    received = f"{getattr(error, 'sqlite_errorname', type(error).__name__)} ({error}) from {path}"
    match code_of(error):
        case 13:
            return LogFull("The disk is full", received=received, todo="free space, then try again")
        case 8:
            return LogReadOnly("The log cannot be written", received=received, todo="check the file's permissions")
        case 5 | 6 if not reading:
            return LogLocked(
                "Another program holds the database", received=received, todo="end that program's transaction"
            )
        case 11:
            return LogCorrupt("The file is damaged", received=received, todo=SALVAGE)
        case 26:
            return LogCorrupt(
                "The file is not a SQLite database, or its header is damaged",
                received=received,
                todo=f"check the path; if it is right, {SALVAGE}",
            )
        case 14:
            return LogUnavailable(
                "The file cannot be opened", received=received, todo="check that the directory exists"
            )
        case 18:
            return TooLarge("A value is larger than SQLite can hold", received=received, todo="split it")
    if reading:
        return ReadFailed("The log cannot be read", received=received, todo="try again; look at the disk's health")
    return LogUnavailable("The log cannot be written", received=received, todo="look at the disk's health")
