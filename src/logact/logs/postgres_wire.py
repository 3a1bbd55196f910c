"""One connection to PostgreSQL, used one statement at a time through libpq's own asynchronous calls.

psycopg connects (names, hosts, TLS, passwords); from then on this file sends a statement, and the event loop calls
back when the answer is there. So no task runs in the background, a caller that goes away disturbs nobody, and an
append costs less than a cursor would.

This file knows nothing of logs. It says what happened to a statement, never what that means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import Diagnostic, OperationalError

Answered = Callable[["Answer | Exception"], None]

_FINE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class ServerError(Exception):
    """The server answered with an error. ``sqlstate`` has five letters; FATAL means that it also hung up."""

    def __init__(self, sqlstate: str, severity: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.severity = severity


class Lost(Exception):
    """The connection broke, or the server did not answer in time: nobody knows what became of the statement."""


class Answer:
    """The rows of an answer, as bytes; ``warnings`` are what the server remarked meanwhile."""

    __slots__ = ("_result", "warnings")

    def __init__(self, result: pq.abc.PGresult, warnings: tuple[str, ...]) -> None:
        self._result = result
        self.warnings = warnings

    def __len__(self) -> int:
        return self._result.ntuples

    def raw(self, row: int, column: int) -> bytes | None:
        """A value as it came; None for NULL."""
        return self._result.get_value(row, column)

    def number(self, row: int, column: int) -> int:
        """An integer that came in binary form."""
        return int.from_bytes(self._result.get_value(row, column) or b"", "big", signed=True)


class Wire:
    """A connection that belongs to the running event loop."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        answer_s_max: float,
        *,
        heard: Callable[[bytes], None] | None = None,
        lost: Callable[[], None] | None = None,
    ) -> None:
        self.connection = connection
        self.answer_s_max = answer_s_max
        self.closed = False
        self.prepared: dict[bytes, bytes] = {}  # statements that this connection knows, and their names
        self.names = 0  # names that were given away
        self._heard = heard
        self._when_lost = lost
        self._pq = connection.pgconn
        self._pq.nonblocking = 1
        self._loop = asyncio.get_running_loop()
        self._answered: Answered | None = None
        self._result: pq.abc.PGresult | None = None
        self._warnings: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        connection.add_notice_handler(self._remarked)
        self._socket = self._pq.socket
        self._loop.add_reader(self._socket, self._readable)

    @property
    def busy(self) -> bool:
        """Whether a statement is under way."""
        return self._answered is not None

    def send(
        self,
        statement: bytes,
        values: Sequence[bytes | None],
        answered: Answered,
        *,
        prepared: bool = False,
        binary: Sequence[bool] = (),
    ) -> None:
        """Send a statement; ``answered`` is called once, with its answer, ServerError or Lost. Must not be busy."""
        formats = [pq.Format.BINARY if flag else pq.Format.TEXT for flag in binary] or None
        self._answered = answered
        self._result = None
        self._warnings.clear()
        self._timer = self._loop.call_later(self.answer_s_max, self._late)
        try:
            if prepared:
                self._pq.send_query_prepared(statement, values, formats, pq.Format.BINARY)
            else:
                self._pq.send_query_params(statement, values, param_formats=formats, result_format=pq.Format.BINARY)
            self._flush()
        except (OperationalError, OSError) as error:
            self._lose(str(error))

    async def ask(
        self,
        statement: bytes,
        values: Sequence[bytes | None] = (),
        *,
        prepared: bool = False,
        binary: Sequence[bool] = (),
    ) -> Answer:
        """Send a statement and wait for its answer. Whoever is cancelled leaves the connection busy for a while."""
        future: asyncio.Future[Answer] = self._loop.create_future()

        def answered(answer: Answer | Exception) -> None:
            if future.done():
                return
            if isinstance(answer, Answer):
                future.set_result(answer)
            else:
                future.set_exception(answer)

        self.send(statement, values, answered, prepared=prepared, binary=binary)
        return await future

    def close(self, why: str = "closed") -> None:
        """Hang up. A statement under way is Lost."""
        self._lose(why)

    # --- inside ------------------------------

    def _flush(self) -> None:
        if self._pq.flush():  # more is left than the socket takes now
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._writable)
        elif self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _writable(self) -> None:
        try:
            self._pq.consume_input()  # a server that waits to be read from would not read on
            self._flush()
        except OperationalError as error:
            self._lose(str(error))

    def _readable(self) -> None:
        try:
            self._pq.consume_input()
            if self._writing:
                self._flush()
            self._take()
            while (notification := self._pq.notifies()) is not None:
                if self._heard is not None:
                    self._heard(notification.extra)
        except OperationalError as error:
            self._lose(str(error))

    def _take(self) -> None:
        while self._answered is not None and not self._pq.is_busy():
            result = self._pq.get_result()
            if result is None:
                self._settle()
            elif self._result is None or self._result.status in _FINE:
                self._result = result

    def _settle(self) -> None:
        answered, self._answered = self._answered, None
        result, self._result = self._result, None
        if self._timer is not None:
            self._timer.cancel()
        answer: Answer | Exception
        if result is None:
            answer = Lost("no answer")
        elif result.status in _FINE:
            answer = Answer(result, tuple(self._warnings))
        else:
            answer = _error(result)
        if isinstance(answer, Lost) or (isinstance(answer, ServerError) and answer.severity != "ERROR"):
            self._hang_up()
        if answered is not None:
            answered(answer)

    def _remarked(self, diagnostic: Diagnostic) -> None:
        if diagnostic.severity_nonlocalized not in {"NOTICE", "INFO", "LOG", "DEBUG"}:
            self._warnings.append(diagnostic.message_primary or "")

    def _late(self) -> None:
        self._lose(f"no answer within {self.answer_s_max:g} s")

    def _lose(self, why: str) -> None:
        answered, self._answered = self._answered, None
        self._hang_up()
        if answered is not None:
            answered(Lost(why.strip() or "the connection broke"))
        if self._when_lost is not None:
            self._when_lost()

    def _hang_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.closed:
            self.closed = True
            try:
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)
            except RuntimeError:
                pass  # the loop that it belonged to is closed
            self._pq.finish()


def _error(result: pq.abc.PGresult) -> ServerError:
    def field(which: pq.DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    severity = field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) or "FATAL"
    return ServerError(
        field(pq.DiagnosticField.SQLSTATE), severity, field(pq.DiagnosticField.MESSAGE_PRIMARY) or "no message"
    )
