"""The file of a SQLite log: how it is opened, how it is known to be the same file still, how it is closed.

This file owns the lock, the bell and the connections, and what may be done with them before and after. It writes no
record: what is opened here is written and read by ``sqlite_store``, whose rules about threads hold here too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from logact import env as environment
from logact.errors import LogLocked, LogMissing, LogReadOnly, LogUnavailable
from logact.logs import sqlite_files as files
from logact.logs import sqlite_schema as schema
from logact.logs.doorbell import Doorbell
from logact.logs.file_lock import FairLock
from logact.logs.sqlite_readers import BUSY_PAUSE_S, Readers
from logact.logs.sqlite_tables import Tables

T = TypeVar("T")

LOCK_WAIT_S_MAX = 10.0
"""How long an append waits for other processes before LogLocked."""


class OpenFile:
    """One log of one file, opened and closed."""

    def __init__(self, path: Path, name: str, *, unsafe_network: bool) -> None:
        self.path = path
        self.name = name
        self.unsafe_network = unsafe_network
        self.lock = FairLock(path.with_name(path.name + ".lock"))
        self.bell = Doorbell(path.with_name(path.name + ".bell"))
        self.lock_wait_s = LOCK_WAIT_S_MAX
        self.log_id = ""
        self.read_only = False
        self.create = True
        self.is_open = False
        self.seen = 0  # the last record number known
        self._tables = Tables(0)
        self._identity = (0, 0)
        self._turn = threading.Lock()
        self._pen: sqlite3.Connection | None = None
        self._readers = Readers(path)

    # --- opening and closing ------------------------------

    def open(self) -> None:
        """Open the file and the log in it, creating both if they are missing."""
        if self.is_open:
            return
        if not self.path.parent.is_dir():
            raise LogUnavailable(
                "The directory of the log does not exist",
                received=str(self.path.parent),
                todo=f"create it (mkdir -p {self.path.parent}) or correct the URL",
            )
        if self.path.is_dir():
            raise LogUnavailable("The path of the log is a directory", received=str(self.path), todo="name a file")
        if not self.unsafe_network:
            files.check_local(self.path)
        self.read_only = not files.writable(self.path)
        if not self.create and not self.path.exists():
            raise LogMissing("There is no log", received=str(self.path), todo="check the path")
        try:
            if not self.read_only:
                self._look_first()
                self.lock.open(files.beside(self.path))
                self.bell.open(files.beside(self.path))
            if not self.lock.acquire(self.lock_wait_s, environment.current().monotonic):
                raise self._locked()
            try:
                if not self.read_only:
                    files.create(self.path)
                self._identity = files.identity(self.path)
                self._open_log()
            finally:
                self.lock.release()
        except OSError as error:
            self.close()
            raise files.from_os(error, self.path) from error
        except sqlite3.Error as error:
            self.close()
            raise schema.mapped(error, self.path, reading=False) from error
        except BaseException:
            self.close()
            raise
        self.is_open = True
        self.seen = self.tail()

    def _look_first(self) -> None:
        """Refuse a file that is no log before anything is made beside it. A file with a lock was opened before."""
        if self.lock.path.exists() or not self.path.exists() or self.path.stat().st_size == 0:
            return
        connection = schema.connect(self.path)
        try:
            schema.version_of(connection, self.path)
        except sqlite3.Error as error:
            if not schema.is_busy(error):  # under the lock there is time to wait
                raise
        finally:
            connection.close()

    def _open_log(self) -> None:
        connection = schema.connect(self.path, read_only=self.read_only)
        try:
            connection.execute(f"PRAGMA busy_timeout={int(self.lock_wait_s * 1000)}")
            schema.prepare(connection, self.path, read_only=self.read_only)
            find = "SELECT id, log_id FROM logs WHERE name = ?"
            row = connection.execute(find, (self.name,)).fetchone()
            if row is None:
                if not self.create:
                    raise LogMissing("The file holds no log of this name", received=self.name, todo="check ?log=NAME")
                if self.read_only:
                    raise LogReadOnly("There is no such log, and the file cannot be written", received=self.name)
                env = environment.current()
                connection.execute(
                    "INSERT OR IGNORE INTO logs (name, log_id, created_ms) VALUES (?, ?, ?)",
                    (self.name, env.identifier(), env.wall_ms()),
                )
                row = connection.execute(find, (self.name,)).fetchone()
            connection.execute("PRAGMA busy_timeout=0")
        except BaseException:
            connection.close()
            raise
        self._tables, self.log_id = Tables(int(row[0])), str(row[1])
        if self.read_only:
            connection.close()
        else:
            self._pen = connection
        self._readers.open(read_only=self.read_only)

    def close(self) -> None:
        """Release everything; what was acknowledged stays. Waits for a commit that is still under way."""
        mine = self._turn.acquire(timeout=self.lock_wait_s + 1)
        try:
            self.is_open = False
            # the last connection of all checkpoints the file: only under the lock, like every checkpoint
            held = self.lock.acquire(min(self.lock_wait_s, 2.0), environment.current().monotonic)
            try:
                self._readers.close()
                self._drop_pen()
            finally:
                if held:
                    self.lock.release()
            self.bell.close()
            self.lock.close()
        finally:
            if mine:
                self._turn.release()

    def _drop_pen(self) -> None:
        pen, self._pen = self._pen, None
        try:
            if pen is not None:
                pen.close()
        except sqlite3.Error:
            pass  # nothing is left to save: acknowledged records are flushed already

    # --- what has to hold ------------------------------

    def _check_open(self) -> None:
        if not self.is_open:
            raise LogUnavailable("The log is not open", received=str(self.path), todo="call open() first")
        try:
            same = files.identity(self.path) == self._identity
        except OSError as error:
            raise LogUnavailable(
                "The log's file is gone", received=f"{error.strerror} for {self.path}", todo="restore it and reopen"
            ) from error
        if not same:  # SQLite would go on with a file that no longer has a name
            raise LogUnavailable(
                "The log's file was replaced by another one", received=str(self.path), todo="close and open the log"
            )

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise LogReadOnly("The log was opened for reading: its file cannot be written", received=str(self.path))

    def _locked(self) -> LogLocked:
        return LogLocked(
            "Another process holds the log",
            received=f"no turn within {self.lock_wait_s:g} s at {self.lock.path}",
            todo="look for a process that is stopped or hangs, and try again",
        )

    def _writing(self) -> sqlite3.Connection:
        if self._pen is None:
            raise LogUnavailable("The log was closed in the middle of an append")
        return self._pen

    # --- where it ends ------------------------------

    def tail(self) -> int:
        """The last record's number."""
        self.seen = max(self.seen, self._reading(self._tables.tail, True))
        return self.seen

    def _reading(self, function: Callable[[sqlite3.Connection], T], brief: bool) -> T:
        self._check_open()
        return self._readers.call(function, 1 if brief else int(self.lock_wait_s / BUSY_PAUSE_S) + 1)
