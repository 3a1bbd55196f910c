"""A bad network: a TCP proxy between a log's server and its clients that delays, stalls, cuts and refuses.

It runs in a thread of its own, so that tests use it from anywhere::

    with Proxy(server.port) as network:
        url = f"postgresql://logact@127.0.0.1:{network.port}/job"
        network.stall()      # bytes no longer arrive, connections stay open
        network.resume()     # what was held back arrives now
        network.cut()        # every connection is reset, new ones are refused
        network.restore()
        network.delay_s = 0.05
        network.deafen()     # requests arrive, answers do not, and the connection stays open: until resume()
        network.lose_answers(1)  # requests arrive, the answer does not, the connection breaks: done or not?
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

CHUNK = 64 * 1024


class Proxy:
    """Forwards a free port of 127.0.0.1, or ``listen``, to ``port`` of it. ``connections`` and ``resets`` count."""

    def __init__(self, port: int, listen: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.target = port
        self.delay_s = 0.0
        self.connections = self.resets = self.answers_lost = self.answers_held = 0
        self.port = 0
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._flowing: asyncio.Event
        self._answering: asyncio.Event
        self._refusing = False
        self._to_lose = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener = socket.create_server(listen)
        self.port = int(self._listener.getsockname()[1])
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="proxy")
        self._thread.start()
        started.wait(10)

    # --- faults; from any thread ------------------------------

    def stall(self) -> None:
        """From now on nothing arrives, in either direction; nobody is told."""
        self._do(self._flowing.clear)

    def deafen(self) -> None:
        """From now on requests arrive and are carried out, and no answer comes back; nobody is told."""
        self._do(self._answering.clear)

    def resume(self) -> None:
        """What was held back arrives."""
        self._do(self._flow)

    def reset(self) -> None:
        """Every connection breaks now; new ones are welcome. What was held back is lost."""
        self._do(self._reset)

    def cut(self) -> None:
        """Every connection breaks, and new ones are refused at once."""
        self._do(lambda: self._refuse(True))

    def restore(self) -> None:
        """New connections are forwarded again, and bytes flow."""
        self._do(lambda: self._refuse(False))

    def lose_answers(self, count: int) -> None:
        """The next ``count`` times that the server answers, its connection breaks instead: the request was heard."""
        self._do(lambda: setattr(self, "_to_lose", count))

    # --- life ------------------------------

    def close(self) -> None:
        """Break everything and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # --- inside ------------------------------

    def _do(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10), "the proxy hangs"

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing, self._answering = asyncio.Event(), asyncio.Event()
        self._flow()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.call_soon(started.set)
        try:
            self._loop.run_forever()
        finally:
            self._loop.remove_reader(self._listener)  # before the server closes: it drops what was accepted just now
            self._loop.run_until_complete(self._end())
            server.close()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _end(self) -> None:
        """Break every connection. What was accepted is served first: a task cancelled unbegun closes none."""
        self._refusing = True
        self._flow()
        for _ in range(40):
            self._reset()
            await asyncio.sleep(0.005)
            if len(asyncio.all_tasks()) == 1:
                break
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0.005)  # what was aborted lets go of its socket

    def _flow(self) -> None:
        self._flowing.set()
        self._answering.set()

    def _reset(self) -> None:
        for pair in list(self._open):
            self._break(pair)

    def _break(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        if pair in self._open:
            self._open.remove(pair)
            self.resets += 1
            for writer in pair:
                _abort(writer)

    def _refuse(self, refusing: bool) -> None:
        self._refusing = refusing
        if refusing:
            self._reset()
        else:
            self._flow()

    def _welcomes(self) -> bool:
        return not self._refusing

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not self._welcomes():
            _abort(writer)
            return
        self.connections += 1
        try:
            await self._welcome(reader, writer)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):  # nobody listens there, or the proxy is closed meanwhile
            _abort(writer)
            return
        pair = (writer, far_writer)
        self._open.add(pair)
        if not self._welcomes():  # that has changed while the server was asked
            self._break(pair)
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, pair, answers=False))
                group.create_task(self._pump(far_reader, writer, pair, answers=True))
        except* (OSError, ConnectionError):
            pass
        except* asyncio.CancelledError:
            self._break(pair)  # the proxy is closed: asyncio would complain of a handler that was cancelled
        finally:
            self._open.discard(pair)
            for one in pair:
                one.close()

    def spoils(self, data: bytes, *, answers: bool) -> bool:
        """Whether the connection breaks instead of passing this on. Runs on the proxy's own thread."""
        if not answers or not self._to_lose:
            return False
        self._to_lose -= 1
        self.answers_lost += 1
        return True

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What happens before anything is forwarded: for those who put TLS or a greeting in front."""

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        answers: bool,
    ) -> None:
        while data := await reader.read(CHUNK):
            if self.spoils(data, answers=answers):
                self._break(pair)
                return
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._flowing.wait()
            if answers and not self._answering.is_set():
                self.answers_held += 1
                await self._answering.wait()
            writer.write(data)
            await writer.drain()
        if not writer.is_closing() and writer.can_write_eof():
            writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, not with a goodbye."""
    transport = writer.transport
    connection = transport.get_extra_info("socket")
    if connection is not None:
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    transport.abort()
