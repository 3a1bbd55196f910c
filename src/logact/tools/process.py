"""Running one command to its end: bounded time, memory, processes and output, and nothing left behind.

However a run ends (by itself, by a limit, cancelled), every process of it is dead when :func:`run` returns. In the
sandbox that is the kernel's own promise: all processes of a process namespace die with its first one. Without it,
the process group and all known descendants are killed, and one that hid from both may survive.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from logact.tools.answers import ToolError
from logact.tools.sandbox import Limits

WATCH_SECONDS = 0.05
_CHUNK_BYTES = 64 * 1024


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
    status_read, status_write = os.pipe()
    try:
        try:
            child = await asyncio.create_subprocess_exec(
                *command(status_write),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(variables),
                cwd=directory,
                start_new_session=True,
                pass_fds=(status_write,) if confined else (),
            )
        except OSError as error:
            raise ToolError(f"The command cannot be started: {error}", kind="environment", definite=True) from error
        finally:
            os.close(status_write)
        running = _Running(child, status_read, limits, confined)
        try:
            await running.finish()
        finally:
            # also when cancelled: nothing may go on after we have returned
            await _despite_cancellation(running.kill())
        return running.outcome()
    finally:
        os.close(status_read)


async def _despite_cancellation(work: object) -> None:
    """Finish ``work`` even if we are cancelled meanwhile; the cancellation goes on afterwards."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


class _Running:
    def __init__(self, child: asyncio.subprocess.Process, status: int, limits: Limits, confined: bool) -> None:
        self.child = child
        self.status = status
        self.limits = limits
        self.confined = confined
        self.stdout = Bounded(limits.output_bytes)
        self.stderr = Bounded(limits.output_bytes)
        self.limit = ""
        self._report = b""
        self._first: int | None = None  # a handle of the sandbox's first process
        os.set_blocking(status, False)

    async def finish(self) -> None:
        """Until it ends or reaches a limit."""
        try:
            async with asyncio.timeout(self.limits.seconds), asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                group.create_task(self._collect(self.child.stdout, self.stdout))
                group.create_task(self._collect(self.child.stderr, self.stderr))
                await self.child.wait()
                watch.cancel()
                if not self.confined:
                    self._kill_group()  # what was left in the background holds the pipes open
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
        if self.child.returncode is None and self._first is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self.child.wait()), 2)  # it reaps the sandbox, then ends
            except TimeoutError:
                pass
        self._kill_group()
        await self.child.wait()
        if self._first is not None:
            os.close(self._first)
            self._first = None

    def outcome(self) -> Outcome:
        """What came of it. Raises if the sandbox failed before the command began."""
        self._read_status()
        code = self.child.returncode if self.child.returncode is not None else -signal.SIGKILL
        if self.confined:
            reported = _number(self._report, "exit-code")
            if reported is None and not self.limit:
                text = self.stderr.text().strip()[:500]
                # bubblewrap reports an exit code if, and only if, it has begun the command; it fails with 1
                raise ToolError(
                    f"The sandbox failed: {text or f'exit code {code}'}", kind="environment", definite=code == 1
                )
            if reported is not None:
                code = reported
        return Outcome(
            exit_code=code,
            stdout=self.stdout.text(),
            stderr=self.stderr.text(),
            truncated=bool(self.stdout.dropped or self.stderr.dropped),
            limit=self.limit,
        )

    async def _collect(self, stream: asyncio.StreamReader | None, into: Bounded) -> None:
        while stream is not None and (data := await stream.read(_CHUNK_BYTES)):
            into.add(data)

    async def _watch(self) -> None:
        """The limits that the kernel does not count for a tree of processes (or not at all, for root)."""
        while not self.limit:
            self._read_status()
            processes, memory = _usage(self.child.pid, self.limits.processes)
            if processes > self.limits.processes + 3:  # two of them are the sandbox's own, one sets limits
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
            except ProcessLookupError:
                pass

    def _kill_group(self) -> None:
        others = [] if self.confined else _descendants(self.child.pid, 10_000)
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


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


def _descendants(pid: int, most: int) -> list[int]:
    """All processes beneath one, itself left out; stops counting soon after ``most``."""
    found: list[int] = []
    queue = [pid]
    while queue and len(found) <= most + 8:
        parent = queue.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")  # noqa: PTH208 - a Path for each would double the cost
        except OSError:
            continue  # it has just ended
        for thread in threads[:64]:
            try:
                with open(f"/proc/{parent}/task/{thread}/children") as file:  # noqa: PTH123
                    children = [int(child) for child in file.read().split()]
            except OSError:
                continue
            found += children
            queue += children
    return found


def _usage(pid: int, most: int) -> tuple[int, int]:
    """How many processes run beneath one, and how much memory they hold, in bytes."""
    pids = _descendants(pid, most)
    own = shared = 0
    for child in pids[: most + 8]:
        try:
            with open(f"/proc/{child}/status") as file:  # noqa: PTH123
                for line in file:
                    if line.startswith("RssAnon:"):
                        own += int(line.split()[1]) * 1024
                    elif line.startswith("RssShmem:"):
                        shared = max(shared, int(line.split()[1]) * 1024)
        except (OSError, ValueError):
            continue
    return len(pids), own + shared
