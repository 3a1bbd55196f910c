"""The logs of one server: opened on first use, closed when nobody has used them for long, and the notices in them.

A refused attempt is written into the log that it was aimed at, as a Notice of the server's own incarnation; at a
limited rate, with a count of those left out, so that nobody can fill a log by being refused.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from logact import env as environment
from logact.entry import NewEntry, Notice
from logact.errors import LogActError, LogError, LogMissing, TooManyRequests
from logact.logs.base import SharedLog
from logact.logs.url import open_log
from logact.server.guard import Guard
from logact.server.limits import Limits, Rates
from logact.server.names import OWN, check_name, url_of
from logact.server.tokens import Token, TokenBook

REFUSED = "refused"


class Served:
    """One open log, with who uses it now."""

    def __init__(self, name: str, log: SharedLog, limits: Limits) -> None:
        self.name = name
        self.log = log
        self.guard = Guard(log, limits.blob_bytes_max)
        self.users = 0
        self.opening = asyncio.Lock()


class Hub:
    """All logs of one engine, and the server's own log with its tokens."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.url = url
        self.limits = limits
        self.book = TokenBook(open_log(url_of(url, OWN)))
        self.logs: OrderedDict[str, Served] = OrderedDict()
        self.notices = Rates(limits.notices_per_s)
        self.left_out: dict[str, int] = {}  # by log, of which no more than may be open have one

    async def start(self) -> None:
        """Open the server's own log and read the tokens."""
        await self.book.load()

    async def follow(self) -> None:
        """Learn of new and revoked tokens until cancelled; the server's own log may fail for a while."""
        pause_s = 0.1
        while True:
            try:
                await self.book.follow()
            except LogError:
                await environment.current().sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    async def close(self) -> None:
        """Close all logs."""
        for served in self.logs.values():
            await served.log.close()
        self.logs.clear()
        await self.book.log.close()

    @asynccontextmanager
    async def use(self, name: str, *, create: bool = False) -> AsyncIterator[Served]:
        """A log, open while it is used; ``create`` makes it where there is none, else that is LogMissing.

        Raises UsageError for a name that cannot be served, and the log's errors.
        """
        check_name(name)
        served = self.logs.get(name)
        if served is None:
            await self._make_room()
            served = self.logs.get(name)  # somebody may have come first
            if served is None:
                served = self.logs[name] = Served(name, open_log(url_of(self.url, name)), self.limits)
        self.logs.move_to_end(name)
        served.users += 1
        try:
            await self._open(served, create=create)
            yield served
        finally:
            served.users -= 1

    async def _open(self, served: Served, *, create: bool) -> None:
        try:
            async with served.opening:
                served.log.engine.create = create
                await served.log.open()
        except LogMissing as error:
            if served.users == 1 and self.logs.get(served.name) is served:
                del self.logs[served.name]  # nothing is kept of a name that stands for nothing
            raise LogMissing(
                "There is no log of this name on the server",
                received=served.name,
                todo="correct ?log=NAME; an operator's token, or one for this log by name, makes it",
            ) from error

    async def _make_room(self) -> None:
        if len(self.logs) < self.limits.logs_open_max:
            return
        idle = next((one for one in self.logs.values() if not one.users), None)
        if idle is None:
            raise TooManyRequests("Too many logs are in use", expected=f"at most {self.limits.logs_open_max}")
        del self.logs[idle.name]
        self.left_out.pop(idle.name, None)
        await idle.log.close()

    async def note(self, name: str, token: Token | None, error: LogActError, client: str) -> None:
        """Write a refused attempt down, in the log that it was aimed at or (none, no ``name``) in the server's own.

        Best effort, at a limited rate: what is left out is counted in the next one.
        """
        left_out = self.left_out.get(name, 0)
        if self.notices.take(name):
            self._leave_out(name)
            return
        who = f"{token.name} ({token.id})" if token is not None else "nobody known"
        data = {"code": error.code, "token": token.id if token else "", "client": client, "left_out": left_out}
        notice = Notice(code=REFUSED, message=f"refused to {who}: {str(error)[:500]}", data=data)
        entry = NewEntry(payload=notice, role="supervisor", name="server")
        try:
            if name:
                async with self.use(name) as served:
                    await served.log.append(entry)
            else:
                await self.book.log.append(entry)
            self.left_out.pop(name, None)
        except LogMissing:
            await self.note("", token, error, client)
        except LogError:
            self._leave_out(name)

    def _leave_out(self, name: str) -> None:
        """Count a notice that was not written; of logs that are closed by now nothing is kept."""
        if not name or name in self.logs:
            self.left_out[name] = self.left_out.get(name, 0) + 1
