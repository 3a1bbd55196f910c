"""The ``sqlite:`` engine: many durable logs in one local file, shared by any number of processes.

* Durable: write-ahead log with ``synchronous=FULL``, one flush per commit; concurrent appends share commits.
* Fair: processes take turns through ``FILE.lock``.
* Pushed: followers are woken through ``FILE.bell`` (inotify), and look by themselves every 100 ms in case a
  writer died between commit and ring. Where there is no inotify they look every 5 to 20 ms.

This file owns URLs, waiting and the choice between event loop and worker thread. SQL lives in ``sqlite_tables``,
transactions and error meanings in ``sqlite_store`` and ``sqlite_schema``, batches in ``group_commit``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from logact import env as environment
from logact.errors import LogError, UnknownLogUrl
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page
from logact.logs.group_commit import GroupCommit, Item
from logact.logs.names import check_log_name
from logact.logs.sqlite_files import filesystem_of
from logact.logs.sqlite_store import INLINE_SCAN_RECORDS_MAX, SqliteStore

LOOK_S = 0.1
"""How often a follower looks by itself although the bell works."""

POLL_S_MIN, POLL_S_MAX = 0.005, 0.02
"""How often it looks where there is no bell: often after news, ever less while nothing happens."""


class SqliteEngine(Engine):
    """One log of one SQLite file. Belongs to one event loop at a time; may be closed and opened again elsewhere.

    ``news_by_bell``, ``news_by_look`` and ``news_by_self`` count how followers here learnt of records.
    """

    def __init__(self, path: Path, log: str = "main", *, unsafe_network: bool = False, url: str = "") -> None:
        check_log_name(log)
        self.path = path.absolute()
        self.url = url or f"sqlite:///{self.path}" + (f"?log={log}" if log != "main" else "")
        self.store = SqliteStore(self.path, log, unsafe_network=unsafe_network)
        self.look_s = LOOK_S
        self.news_by_bell = self.news_by_look = self.news_by_self = 0
        self._group = GroupCommit(self.store)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: list[tuple[int, asyncio.Future[bool]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._listening = False
        self._belled = False
        self._rung = True  # whether there may be news that nobody has looked for
        self._pause_s = POLL_S_MIN

    @property
    def commits(self) -> int:
        """How many transactions this engine has committed; fewer than its appends where they came together."""
        return self.store.commits

    # --- life ------------------------------

    async def open(self) -> None:
        self._attach()
        if not self.store.is_open:
            self._stop_listening()  # what listened before there was a file
        self.store.create = self.create
        await environment.current().in_thread(self.store.open)
        self.log_id = self.store.log_id

    async def close(self) -> None:
        self._attach()
        env = environment.current()
        end = env.monotonic() + self.store.lock_wait_s
        while not self._group.idle and env.monotonic() < end:
            await env.sleep(0.001)  # what is under way settles first
        self._stop_listening()
        await env.in_thread(self.store.close)
        self._wake(everyone=True)  # whoever still follows finds the log closed

    def _attach(self) -> None:
        """Belong to the running loop: what belonged to an earlier one (futures, timers, readers) is void."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._stop_listening()
            self._waiters.clear()
            self._group = GroupCommit(self.store)
            self._loop = loop

    # --- writing ------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        record, fresh = await self._submit(self.store.append(draft))
        return int(record), bool(fresh)

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self._submit(self.store.put_blob(digest, data))

    async def erase(self, record: int, index: int) -> None:
        await self._submit(self.store.erase(record, index))
        await environment.current().in_thread(self.store.scrub)

    async def trim(self, before: int) -> None:
        while await self._submit(self.store.trim(before)):
            pass

    async def _submit(self, item: Item) -> Any:
        self._attach()
        seen = self.store.seen
        found = await self._group.submit(item)
        if self._waiters and self.store.seen > seen:
            self.news_by_self += self._wake()
        return found

    # --- reading ------------------------------

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        brief = self.store.seen - after <= INLINE_SCAN_RECORDS_MAX // 2
        if brief:
            try:
                page = self.store.read(after, limit, matching, brief=True)
            except LogError as error:
                if not _may_pass(error):
                    raise
                page = await environment.current().in_thread(self.store.read, after, limit, matching, brief=False)
        else:
            page = await environment.current().in_thread(self.store.read, after, limit, matching, brief=False)
        self.store.seen = max(self.store.seen, page.upto if page.upto > after else 0)
        return page

    async def tail(self) -> int:
        try:
            return self.store.tail()
        except LogError as error:
            if not _may_pass(error):
                raise
            await environment.current().sleep(0.01)
            return await environment.current().in_thread(self.store.tail)

    async def last_checkpoint(self) -> int:
        return await environment.current().in_thread(self.store.last_checkpoint)

    def hint(self) -> int:
        return self.store.seen

    async def get_blob(self, digest: str) -> bytes:
        return await environment.current().in_thread(self.store.get_blob, digest)

    async def backup(self, target: Path | str) -> None:
        """Write a consistent copy of the whole file, all its logs, to a new file of mode 0600, while agents run.

        Raises UsageError if the target exists, LogFull, LogReadOnly, LogUnavailable.
        """
        await environment.current().in_thread(self.store.backup, Path(target))

    # --- waiting for news ------------------------------

    async def wait(self, after: int, timeout_s: float) -> bool:
        self._attach()
        if self.store.seen > after:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        entry = (after, future)
        self._waiters.append(entry)
        timeout = loop.call_later(max(timeout_s, 0.0), _time_is_over, future)
        try:
            self._start_listening()
            if self._rung or not self._belled:
                self._look()  # after listening began: whatever is committed from here on rings
            return await future
        finally:
            timeout.cancel()
            if entry in self._waiters:
                self._waiters.remove(entry)

    def _start_listening(self) -> None:
        if not self._listening:
            self._listening = True
            self._belled = self.store.bell.watch(self._heard)
            if self._belled:
                self.store.lock.listen()
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self.look_s if self._belled else self._pause_s, self._tick)

    def _stop_listening(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.store.bell.unwatch()
        self._listening = self._belled = False
        self._rung = True

    def _heard(self) -> None:
        self._rung = True
        self.news_by_bell += self._look()

    def _tick(self) -> None:
        self._timer = None
        self._rung = True  # the bell may have been missed: whoever waits next looks too
        found = self._look()
        self.news_by_look += found
        self._pause_s = POLL_S_MIN if found else min(self._pause_s * 1.5, POLL_S_MAX)
        if self._waiters:
            self._start_listening()

    def _look(self) -> int:
        """Wake those for whom there is news; how many."""
        if not self._waiters:
            return 0
        self._rung = False
        try:
            self.store.tail()
        except LogError:
            # not an absence: whoever waits looks now, and meets the error in its own read
            return self._wake(everyone=True)
        return self._wake()

    def _wake(self, *, everyone: bool = False) -> int:
        woken = 0
        for entry in list(self._waiters):
            after, future = entry
            if everyone or after < self.store.seen:
                self._waiters.remove(entry)
                if not future.done():
                    future.set_result(True)
                    woken += 1
        return woken

    def info(self) -> EngineInfo:
        notes = [f"file {self.path}, log {self.store.name}"]
        if self.store.is_open and not self._listening:
            wakes = "inotify on a doorbell file, once somebody follows"
        elif self._belled:
            wakes = "inotify on a doorbell file"
        else:
            wakes = f"looking every {POLL_S_MIN * 1000:g} to {POLL_S_MAX * 1000:g} ms"
            if self._listening:
                notes.append("inotify is not available here, so followers poll.")
        if self.store.lock.missing:
            notes.append(self.store.lock.missing)
        if self.store.read_only:
            notes.append("Opened for reading only.")
        if self.store.unsafe_network:
            notes.append(
                f"The check for network file systems is off; this is {filesystem_of(self.path) or 'unknown'}."
            )
        return EngineInfo(
            url=self.url,
            engine="sqlite",
            survives="the end of any process, and power loss (flushed before it is acknowledged)",
            wakes_by=wakes,
            notes=tuple(notes),
        )


def _may_pass(error: LogError) -> bool:
    """Whether a read that could not wait may do better in a thread, where it can."""
    return error.code == "read_failed"


def _time_is_over(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


def engine_from_url(url: str) -> SqliteEngine:
    """``sqlite:///relative.db``, ``sqlite:////absolute.db``; options ``?log=NAME`` and ``?unsafe_network=1``.

    Raises UnknownLogUrl, UsageError.
    """
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    rest = url.partition(":")[2]
    if not rest.startswith("///") or not path or path.endswith("/"):
        absolute = "/" if rest.startswith("/") and not rest.startswith("//") else ""  # sqlite:/var/ops.db
        raise UnknownLogUrl(
            "This is not the URL of a SQLite file",
            received=url,
            expected="sqlite:///relative.db or sqlite:////absolute/path.db",
            todo=f"try sqlite:///{absolute}{unquote(parts.netloc + parts.path).lstrip('/') or 'ops.db'}",
        )
    if not path.isprintable() and "\0" in path:
        raise UnknownLogUrl("A file's name cannot hold a zero byte", received=url, todo="leave %00 out of the URL")
    if path == ":memory:":
        raise UnknownLogUrl("SQLite in memory is not shared", received=url, todo="use memory: instead")
    if parts.fragment:
        raise UnknownLogUrl("A # in a file name must be written %23", received=url)
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in {"log", "unsafe_network"} or name in options:
            raise UnknownLogUrl(
                "The log URL has an option that is unknown or given twice",
                received=name,
                expected="log=NAME, unsafe_network=1",
                todo="correct the URL",
            )
        options[name] = value
    unsafe = options.get("unsafe_network", "0")
    if unsafe not in {"0", "1"}:
        raise UnknownLogUrl("unsafe_network is a switch", received=unsafe, expected="0 or 1")
    return SqliteEngine(Path(path), options.get("log", "main"), unsafe_network=unsafe == "1", url=url)


__all__ = ["SqliteEngine", "engine_from_url"]
