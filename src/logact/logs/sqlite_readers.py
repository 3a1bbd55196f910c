"""Reading connections of one SQLite file, and the online copy made through one.

A connection is taken out of the stock by whoever reads and is put back afterwards, so no two threads ever share
one. Readers never wait for writers; they write nothing.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from logact import env as environment
from logact.errors import UsageError
from logact.logs import sqlite_files as files
from logact.logs import sqlite_schema as schema

T = TypeVar("T")

SPARE_READERS_MAX = 4
BUSY_PAUSE_S = 0.002


class Readers:
    """A small stock of connections. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_only = False
        self._idle: list[sqlite3.Connection] = []
        self._closed = True

    def open(self, *, read_only: bool) -> None:
        """Begin to keep connections."""
        self.read_only = read_only
        self._closed = False

    def close(self) -> None:
        """Close what is idle; what is in use closes itself when it comes back."""
        self._closed = True
        while self._idle:
            _close(self._idle.pop())

    def call(self, function: Callable[[sqlite3.Connection], T], tries: int) -> T:
        """Call a function with a connection of its own; again, up to ``tries`` times, while the file is busy."""
        while True:
            connection = None
            try:
                connection = self._take()
                return function(connection)
            except sqlite3.Error as error:
                if connection is not None:
                    _close(connection)
                    connection = None
                tries -= 1
                if not schema.is_busy(error) or tries <= 0:
                    raise schema.mapped(error, self.path, reading=True) from error
            finally:
                if connection is not None:
                    self._put_back(connection)
            time.sleep(BUSY_PAUSE_S)  # somebody recovers the file after a crash

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = schema.connect(self.path, read_only=self.read_only)
            connection.execute("PRAGMA query_only=ON")
            return connection

    def _put_back(self, connection: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= SPARE_READERS_MAX:
            _close(connection)
        else:
            self._idle.append(connection)


def _close(connection: sqlite3.Connection) -> None:
    try:
        connection.close()
    except sqlite3.Error:
        pass  # it was only reading


def copy_to(readers: Readers, target: Path) -> None:
    """Write a consistent copy of the whole file to a new one of mode 0600, while others read and write."""
    target = target.absolute()
    if target.exists():
        raise UsageError("The target of the backup exists already", received=str(target), todo="name a new file")
    part = target.with_name(f".{target.name}.{environment.current().identifier()}.part")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            copy = schema.connect(part)
            try:
                readers.call(lambda connection: connection.backup(copy), 1)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, and nothing beside it
            finally:
                copy.close()
            os.link(part, target)  # unlike a rename it never replaces a file
        finally:
            part.unlink(missing_ok=True)
        files.flush_directory(target.parent)
    except OSError as error:
        raise files.from_os(error, target) from error
    except sqlite3.Error as error:
        raise schema.mapped(error, target, reading=False) from error
