"""The synchronous half of the SQLite engine: one log in one file, its transactions and its reads.

Every method blocks, and may run on the event loop or in a worker thread. Writing uses one connection, guarded by
``_turn`` from ``stage`` to ``commit`` or ``undo``; each read takes a connection of its own from a small stock. So no
connection is ever used by two threads at once.

The file itself is opened, watched and closed in ``sqlite_open``. This file decides nothing about threads, batches or
wake-ups (``group_commit`` and ``sqlite`` do).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from logact import env as environment
from logact.entry import record_of
from logact.errors import AppendUnknown, LogError, LogUnavailable, UsageError
from logact.logs import sqlite_schema as schema
from logact.logs.base import Draft, Filter, Page
from logact.logs.group_commit import Item, Staged
from logact.logs.sqlite_open import OpenFile
from logact.logs.sqlite_readers import BUSY_PAUSE_S, copy_to

INLINE_COMMIT_S_MAX = 0.0004
"""Commits that lately took less than this run on the event loop: a thread's hop would cost as much."""

INLINE_BYTES_MAX = 64 * 1024
INLINE_ITEMS_MAX = 32
PAGE_BYTES_MAX = 8 * 1024 * 1024
SCAN_RECORDS_MAX = 4096
INLINE_PAGE_BYTES_MAX = 256 * 1024
INLINE_SCAN_RECORDS_MAX = 128
CHECKPOINT_PAGES = 1000

_SLOW_SAMPLE_S = 0.002


class SqliteStore(OpenFile):
    """One log of one file. ``commits``, ``checkpoints`` and ``inline_commits`` count what happened here."""

    def __init__(self, path: Path, name: str, *, unsafe_network: bool) -> None:
        super().__init__(path, name, unsafe_network=unsafe_network)
        self.commits = self.inline_commits = self.checkpoints = 0
        self._commit_s = INLINE_COMMIT_S_MAX / 2
        self._changes = 0  # of the connection, when the transaction began
        self._hurried = False  # this commit runs on the event loop: leave the checkpoint to the next one
        self._pages = 0  # written since the last checkpoint by all processes, roughly

    # --- transactions (the Store of group_commit) ------------------------------

    def quick(self, items: Sequence[Item]) -> bool:
        """Few and small items, and no checkpoint due."""
        return (
            len(items) <= INLINE_ITEMS_MAX
            and self._pages < CHECKPOINT_PAGES
            and sum(item.size for item in items) <= INLINE_BYTES_MAX
        )

    def quick_commit(self) -> bool:
        """Whether the disk was fast lately."""
        self._hurried = self._commit_s < INLINE_COMMIT_S_MAX
        self.inline_commits += self._hurried
        return self._hurried

    def stage(self, items: Sequence[Item], wait: bool) -> Staged:
        """Begin a transaction and apply the items; see ``group_commit.Store``."""
        for item in items:
            item.error = item.found = None
        self._hurried = False
        try:
            if not self._begin(wait):
                return "later"
        except LogError as error:
            for item in items:
                item.error = error
            return "settled"
        try:
            for item in items:
                try:
                    item.found = item.apply()
                except (LogError, UsageError) as error:
                    item.error = error
        except Exception as error:
            self.undo()
            if len(items) > 1:
                return "apart"
            items[0].error = (
                schema.mapped(error, self.path, reading=False) if isinstance(error, sqlite3.Error) else error
            )
            return "settled"
        except BaseException:
            self.undo()
            for item in items:
                item.error = LogUnavailable("The append was interrupted before its commit")
            raise
        return "open"

    def _begin(self, wait: bool) -> bool:
        clock = environment.current().monotonic
        end = clock() + self.lock_wait_s
        tries = int(self.lock_wait_s / BUSY_PAUSE_S) + 1
        if not self._turn.acquire(wait, self.lock_wait_s if wait else -1):
            if wait:
                raise self._locked()
            return False
        begun = held = False
        try:
            self._check_writable()
            held = self.lock.acquire(self.lock_wait_s, clock) if wait else self.lock.try_acquire()
            if not held:
                if wait:
                    raise self._locked()
                return False
            while not begun:
                try:
                    if self._pen is None:
                        self._pen = schema.connect(self.path)
                    self._pen.execute("BEGIN IMMEDIATE")
                    begun = True
                except sqlite3.Error as error:
                    tries -= 1
                    if not schema.is_busy(error) or (wait and (clock() >= end or tries <= 0)):
                        raise schema.mapped(error, self.path, reading=False) from error
                    if not wait:
                        return False
                    time.sleep(BUSY_PAUSE_S)  # another program than LogAct: it does not know our lock
        finally:
            if not begun:
                if held:
                    self.lock.release()
                self._turn.release()
        self._changes = self._writing().total_changes
        self._tables.begin()
        return True

    def commit(self, items: Sequence[Item]) -> bool:
        """Commit what was staged; see ``group_commit.Store``."""
        wrote = False
        try:
            pen = self._writing()
            try:
                wrote = pen.total_changes != self._changes
                env = environment.current()
                env.point("sqlite:staged")
                began = env.monotonic()
                pen.execute("COMMIT")
                env.point("sqlite:committed")
            except sqlite3.Error as error:
                if not (self._roll_back() and schema.is_certain(error)):
                    self._doubt(items, error)
                    return True
                if len(items) > 1:
                    return False
                items[0].error = schema.mapped(error, self.path, reading=False)
                return True
            except BaseException as error:
                self._doubt(items, error)
                raise
            for item in items:
                item.result = item.found
            self.seen = max(self.seen, self._tables.committed())
            if wrote:
                took_s = env.monotonic() - began
                self.commits += 1
                self._commit_s += 0.2 * (min(took_s, _SLOW_SAMPLE_S) - self._commit_s)
                self._pages = self._tally(sum(3 + item.size // 4096 for item in items))
                if self._pages >= CHECKPOINT_PAGES and not self._hurried:
                    self._checkpoint("PASSIVE")
        finally:
            self._end(wrote)
        return True

    def _checkpoint(self, how: str) -> None:
        """Move the write-ahead log into the file. Under the lock, so that it never meets a writer."""
        try:
            self._pages = self._tally(-1)
            if self._pen is not None:
                self._pen.execute(f"PRAGMA wal_checkpoint({how})").fetchall()
                self.checkpoints += 1
        except sqlite3.Error:
            pass  # the records are durable without it; a sick disk will show at the next append

    def _doubt(self, items: Sequence[Item], error: BaseException) -> None:
        """A COMMIT failed in a way that may still have written it."""
        self._roll_back()
        self._drop_pen()  # its idea of the write-ahead log is not to be trusted
        for item in items:
            if item.error is not None:  # it was judged next to neighbours whose own fate is open
                item.error = LogUnavailable("The commit failed; this append was not part of it", received=str(error))
            else:
                item.error = AppendUnknown(
                    "The commit failed, and may have happened or not",
                    received=f"{getattr(error, 'sqlite_errorname', type(error).__name__)} ({error})",
                    todo="repeat it byte for byte, or read the log",
                )

    def _tally(self, pages: int) -> int:
        try:
            return self.lock.tally(pages)
        except OSError:
            return 0  # a full disk; SQLite's own checkpoint is the net

    def undo(self) -> None:
        """Take the staged transaction back."""
        self._roll_back()
        self._end(False)

    def _roll_back(self) -> bool:
        """Whether the transaction is certainly rolled back."""
        try:
            if self._pen is not None and self._pen.in_transaction:
                self._pen.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _end(self, wrote: bool) -> None:
        self.lock.release()
        if wrote and self.lock.anyone_listens():
            self.bell.ring()
        self._turn.release()

    # --- what goes into a transaction ------------------------------

    def append(self, draft: Draft) -> Item:
        """The work of appending one record; its result is (record number, fresh)."""
        size = len(draft.body) + sum(len(data) for _, data in draft.blobs)
        if draft.condition is not None:
            size += 500 * max(0, self.seen - record_of(draft.condition.after))  # what it makes us look through
        return Item(lambda: self._tables.append(self._writing(), draft), size)

    def put_blob(self, digest: str, data: bytes) -> Item:
        """The work of storing a blob."""
        return Item(lambda: self._tables.put_blob(self._writing(), digest, data), len(data))

    def erase(self, record: int, index: int) -> Item:
        """The work of erasing a payload."""
        return Item(lambda: self._tables.erase(self._writing(), record, index))

    def trim(self, before: int) -> Item:
        """The work of dropping some records below ``before``; its result is whether more remain to be dropped."""
        return Item(lambda: self._tables.trim(self._writing(), before), INLINE_BYTES_MAX + 1)

    def scrub(self) -> None:
        """Move everything into the file and empty the write-ahead log, so that what was erased is in neither."""
        try:
            if self._begin(wait=True):
                try:
                    self._roll_back()
                    self._checkpoint("TRUNCATE")
                finally:
                    self._end(False)
        except LogError:
            pass  # a later checkpoint does it

    # --- reading ------------------------------

    def read(self, after: int, limit: int, matching: Filter | None, *, brief: bool) -> Page:
        """One page; a brief one looks at little and may be read on the event loop."""
        scan = INLINE_SCAN_RECORDS_MAX if brief else SCAN_RECORDS_MAX
        size = INLINE_PAGE_BYTES_MAX if brief else PAGE_BYTES_MAX
        return self._reading(
            lambda connection: self._tables.read(connection, after, limit, matching, scan_max=scan, bytes_max=size),
            brief,
        )

    def last_checkpoint(self) -> int:
        """The last record that holds a checkpoint; 0 if there is none."""
        return self._reading(self._tables.last_checkpoint, False)

    def get_blob(self, digest: str) -> bytes:
        """The bytes of a blob."""
        return self._reading(lambda connection: self._tables.get_blob(connection, digest), False)

    def backup(self, target: Path) -> None:
        """A consistent copy of the whole file, while others read and write."""
        self._check_open()
        copy_to(self._readers, target)
