"""Running one command to its end: bounded time, memory, processes and output, and nothing left behind.

However a run ends (by itself, by a limit, cancelled), every process of it is dead when :func:`run` returns. In the
sandbox that is the kernel's own promise: all processes of a process namespace die with its first one. Without it,
the process group is killed, and all that carry our mark in their environment; one that hides from both survives.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from logact import env as environment
from logact.tools.answers import ToolError
from logact.tools.sandbox import Limits

T = TypeVar("T")

WATCH_SECONDS = 0.05
_MARKER = "LOGACT_COMMAND"


class Outcome(msgspec.Struct, kw_only=True):
    """How a command ended. ``limit`` names the limit that ended it; ``exit_code`` is negative for a signal."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool = False
    limit: str = ""


class Bounded:
    """Keeps the beginning and the end of a stream, and counts what it drops in between."""

    def __init__(self, bytes_max: int) -> None:
        self._head_max = bytes_max // 2
        self._tail_max = bytes_max - self._head_max
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Take in more of the stream."""
        room = self._head_max - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        excess = len(self._tail) - self._tail_max
        if excess > 0:
            del self._tail[:excess]
            self.dropped += excess

    def text(self) -> str:
        """What was kept; a line in the middle says how much is missing."""
        if not self.dropped:
            return bytes(self._head + self._tail).decode("utf-8", "replace")
        head, tail = (bytes(part).decode("utf-8", "replace") for part in (self._head, self._tail))
        return f"{head}\n... [{self.dropped} bytes left out] ...\n{tail}"


async def run(
    command: Callable[[int], Sequence[str]],
    *,
    limits: Limits,
    variables: Mapping[str, str],
    directory: Path,
    confined: bool,
) -> Outcome:
    """Run ``command(status_fd)``. ``variables`` is the whole environment that the process gets.

    Raises a definite :class:`ToolError` if the command certainly was not begun.
    """
    marker = environment.current().identifier()
    if not confined:
        variables = {**variables, _MARKER: marker}
    read, write = zip(*(os.pipe() for _ in range(4)), strict=True)  # stdout, stderr, the sandbox's report, stdin
    handles = [*read, *write]
    try:
        spawning = asyncio.create_subprocess_exec(
            *command(write[2]),
            stdin=read[3],
            # pipes of our own: asyncio's wait() would not return before the last process that inherited its
            # pipes has closed them, and there is no public way to give them up
            stdout=write[0],
            stderr=write[1],
            env=dict(variables),
            cwd=directory,
            start_new_session=True,
            pass_fds=(write[2],) if confined else (),
        )
        try:
            # a cancellation in here would leave a process that nobody knows of, so it waits
            child, cancelled = await _despite_cancellation(spawning)
        except OSError as error:
            raise ToolError(f"The command cannot be started: {error}", kind="environment", definite=True) from error
        for handle in (*write[:3], read[3]):
            handles.remove(handle)
            os.close(handle)
        running = _Running(child, read[2], write[3], limits, "" if confined else marker)
        try:
            if cancelled is not None:
                raise cancelled
            for handle, into, ready in ((read[0], running.stdout, running.go), (read[1], running.stderr, None)):
                handles.remove(handle)
                await running.collect(handle, into, ready)
            await running.finish()
        finally:
            # also when cancelled: nothing may go on after we have returned
            _, cancelled = await _despite_cancellation(running.kill())
        if cancelled is not None:
            raise cancelled
        return running.outcome()
    finally:
        for handle in handles:
            os.close(handle)


async def _despite_cancellation(work: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """Finish ``work`` even if we are cancelled meanwhile. The caller has to raise the cancellation it gets."""
    task = asyncio.ensure_future(work)  # awaited right here: it cannot outlive this call
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break  # raised below, by the task's own result
    return task.result(), cancelled


class _Collector(asyncio.Protocol):
    """Takes in a pipe as fast as it comes, keeping only what :class:`Bounded` keeps.

    ``ready`` is called at the first byte, which is not part of the output.
    """

    def __init__(self, into: Bounded, ready: Callable[[], None] | None) -> None:
        self.into = into
        self.ready = ready
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        if self.ready is not None:
            self.ready()
            self.ready = None
            data = data[1:]
        self.into.add(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class _Running:
    def __init__(
        self, child: asyncio.subprocess.Process, status: int, stdin: int, limits: Limits, marker: str
    ) -> None:
        self.child = child
        self.status = status
        self.stdin = stdin
        self.began = False
        self.limits = limits
        self.confined = not marker
        self.stdout = Bounded(limits.output_bytes)
        self.stderr = Bounded(limits.output_bytes)
        self.limit = ""
        self._marker = f"{_MARKER}={marker}".encode()
        self._report = b""
        self._first: int | None = None  # a handle of the sandbox's first process
        self._pipes: list[tuple[asyncio.ReadTransport, _Collector]] = []
        os.set_blocking(status, False)

    def go(self) -> None:
        """The sandbox stands: let the command begin."""
        self.began = True
        self._read_status()  # now, while the sandbox's first process is certainly there to get a handle of
        try:
            os.write(self.stdin, b"go\n")
        except OSError:
            pass  # it has died; its exit code tells

    async def collect(self, handle: int, into: Bounded, ready: Callable[[], None] | None) -> None:
        """Read a pipe from now on; it is closed with everything else."""
        pipe = os.fdopen(handle, "rb", 0)
        try:
            opened = await asyncio.get_running_loop().connect_read_pipe(lambda: _Collector(into, ready), pipe)
        except BaseException:
            pipe.close()
            raise
        self._pipes.append(opened)

    async def finish(self) -> None:
        """Until it ends or reaches a limit."""
        try:
            async with asyncio.timeout(self.limits.seconds), asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                await self.child.wait()
                watch.cancel()
        except TimeoutError:
            self.limit = f"the time limit of {self.limits.seconds:g} s"

    async def kill(self) -> None:
        """Kill everything that still runs, and wait until it is gone."""
        self._read_status()
        if self._first is not None:
            try:
                # its end is the end of the whole process namespace; a handle cannot hit a reused process id
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await _until_readable(self._first)  # it has ended once the last process of its namespace has
        self._kill_group()
        await self.child.wait()
        if self._first is not None:
            os.close(self._first)
            self._first = None
        for transport, collector in self._pipes:
            try:
                # all who held the other end are dead, so the rest of the output is there already
                async with asyncio.timeout(1):
                    await collector.ended.wait()
            except TimeoutError:
                pass  # unconfined, and one that hid has survived
            transport.close()

    def outcome(self) -> Outcome:
        """What came of it. Raises if the sandbox failed before the command began."""
        self._read_status()
        code = self.child.returncode if self.child.returncode is not None else -signal.SIGKILL
        if not self.began:
            text = self.stderr.text().strip()[:500] or self.limit or f"exit code {code}"
            raise ToolError(f"The command did not begin: {text}", kind="environment", definite=True)
        reported = _number(self._report, "exit-code") if self.confined else None
        if reported is not None:
            code = reported
        return Outcome(
            exit_code=code,
            stdout=self.stdout.text(),
            stderr=self.stderr.text(),
            truncated=bool(self.stdout.dropped or self.stderr.dropped),
            limit=self.limit,
        )

    async def _watch(self) -> None:
        """The limits that the kernel does not count for a tree of processes (or not at all, for root)."""
        while not self.limit:
            self._read_status()
            threads, memory = _usage(self.child.pid, self.limits.processes)
            if threads > self.limits.processes + 2:  # two of them are the sandbox's own
                self.limit = f"the limit of {self.limits.processes} processes"
            elif memory > self.limits.memory_bytes:
                self.limit = f"the memory limit of {self.limits.memory_bytes} bytes"
            else:
                await asyncio.sleep(WATCH_SECONDS)
        await self.kill()

    def _read_status(self) -> None:
        try:
            while data := os.read(self.status, 4096):
                self._report += data
        except BlockingIOError:
            pass
        pid = _number(self._report, "child-pid")
        if self._first is None and pid is not None and self.child.returncode is None:
            try:
                self._first = os.pidfd_open(pid)
            except OSError:
                pass  # it has just ended, or the kernel is older than 5.3: then the group is killed, not waited for

    def _kill_group(self) -> None:
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        if self.confined:
            return
        for _ in range(5):  # one may have forked while we were looking
            others = _with_marker(self._marker)
            if not others:
                return
            for pid in others:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass


async def _until_readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(handle, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(handle)


def _with_marker(marker: bytes) -> list[int]:
    """Processes that inherited our mark in their environment, wherever they moved to; no zombies."""
    found = []
    for name in os.listdir("/proc") if Path("/proc/self").exists() else ():  # noqa: PTH208 - only the names matter
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                    if marker in file.read():
                        found.append(int(name))
            except OSError:
                continue  # it has ended, or is not ours
    return found


def _number(report: bytes, name: str) -> int | None:
    """A number out of bubblewrap's status lines."""
    for line in report.splitlines():
        try:
            found = msgspec.json.decode(line, type=dict[str, int])
        except msgspec.MsgspecError:
            continue  # the last line is not complete yet
        if name in found:
            return found[name]
    return None


def _usage(pid: int, most: int) -> tuple[int, int]:
    """How many threads run beneath a process, and how much memory they hold in bytes; stops soon after ``most``."""
    threads_seen = own = shared = 0
    queue = [pid]
    while queue and threads_seen <= most + 8:
        process = queue.pop()
        try:
            threads = os.listdir(f"/proc/{process}/task")  # noqa: PTH208 - a Path for each would double the cost
            with open(f"/proc/{process}/status") as file:  # noqa: PTH123
                for line in file:
                    if line.startswith("RssAnon:"):
                        own += int(line.split()[1]) * 1024
                    elif line.startswith("RssShmem:"):
                        # shared between them: counted once, by who has most of it
                        shared = max(shared, int(line.split()[1]) * 1024)
            threads_seen += len(threads)
            for thread in threads[: most + 8]:
                with open(f"/proc/{process}/task/{thread}/children") as file:  # noqa: PTH123
                    queue += [int(child) for child in file.read().split()]
        except (OSError, ValueError):
            continue  # it has just ended
    return threads_seen, own + shared
