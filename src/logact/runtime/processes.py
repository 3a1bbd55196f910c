"""Processes of the operating system, as a supervisor needs them: started, watched, ended with all that they started.

A child is the leader of a session of its own and carries a mark in its environment, so that it is found again when
nobody remembers it. Ending one for good stops it first, so that it can neither start more nor report half a result,
then kills what it started, then itself. This module decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from logact import env as environment
from logact.env import ProcessIdentity
from logact.runtime.supervised import VARIABLE

MARK = "LOGACT_SUPERVISION"
"""The variable that says which supervision (of which agent on which log) a process belongs to."""

LOOK_S = 0.05
ERROR_LINES_KEPT = 20
LINE_BYTES_MAX = 64_000
_SUBREAPER = 36  # Linux: the option of prctl that makes this process the parent of its descendants' orphans


class Child:
    """One started process: who it is, its pulse, its last words."""

    def __init__(self, process: asyncio.subprocess.Process, identity: ProcessIdentity, pipe: int) -> None:
        self.process = process
        self.identity = identity
        self.words: deque[str] = deque(maxlen=ERROR_LINES_KEPT)
        self._pipe = pipe
        self._rest = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.identity.pid

    @property
    def code(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs, as far as this process has heard."""
        return self.process.returncode

    def pulse(self) -> int | None:
        """The latest position that it said it has read to, since this was last asked; None if it said none."""
        data = self._rest + self._heard()
        *lines, self._rest = data.split(b"\n")
        told = [int(line) for line in lines[-1:] if line.isdigit()]
        return told[-1] if told else None

    def _heard(self) -> bytes:
        data = b""
        try:
            while more := os.read(self._pipe, 65536):
                data += more
        except (BlockingIOError, OSError):
            pass
        return data

    async def errors(self) -> AsyncIterator[str]:
        """What it writes to standard error, line by line, until it ends."""
        stream = self.process.stderr
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # a line beyond the limit: dropped
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self.words.append(text)
            yield text

    async def wait(self) -> int:
        """Its exit code, below 0 for a signal."""
        return await self.process.wait()

    def ask_to_end(self) -> None:
        """SIGTERM, to it alone: it tells what it started. One that is stopped is let go on to hear it."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            send(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL to it and to all that it started; returns when they are gone."""
        if self.code is None:
            await kill_tree(self.identity)
        await self.wait()

    def close(self) -> None:
        """Let go of its pipe."""
        with contextlib.suppress(OSError):
            os.close(self._pipe)


class System:
    """The operating system as this module uses it: the one door to it. The simulator puts its own in place."""

    async def start(self, command: Sequence[str], mark: str, variables: Mapping[str, str]) -> Child:
        """Start a process. Raises OSError."""
        return await _spawn(command, mark, variables)

    def marked(self, mark: str) -> list[ProcessIdentity]:
        """Who carries a mark and lives, but for this process."""
        return _carrying(mark)

    def descendants(self, pid: int) -> list[ProcessIdentity]:
        """Who lives beneath a process, nearest first."""
        return _beneath(pid)

    def send(self, pid: int, number: int, *, group: bool = False) -> None:
        """A signal to a process, or to the group that it leads; to whom it can still reach."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            (os.killpg if group else os.kill)(pid, number)

    def adopt_orphans(self, wanted: bool) -> None:
        """See :func:`adopt_orphans`."""
        if sys.platform.startswith("linux"):
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(wanted), 0, 0, 0)

    def children(self) -> list[int]:
        """The children of this process."""
        return _children(os.getpid())

    def reap(self, pid: int) -> None:
        """Take note of the end of a child, if it has come."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


_REAL = System()
_system: contextvars.ContextVar[System] = contextvars.ContextVar("logact_system", default=_REAL)


def use(system: System) -> None:
    """Put another system in place for the current context. For simulators."""
    _system.set(system)


async def start(command: Sequence[str], *, mark: str, variables: Mapping[str, str] | None = None) -> Child:
    """Start a process that belongs to the supervision ``mark``. Raises OSError."""
    return await _system.get().start(command, mark, variables or {})


async def _spawn(command: Sequence[str], mark: str, variables: Mapping[str, str]) -> Child:
    read, write = os.pipe()
    os.set_blocking(read, False)
    me = os.getpid()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **variables, MARK: mark, VARIABLE: f"{write}:{me}"},
            pass_fds=(write,),
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    return Child(process, identify(process.pid), read)


def identify(pid: int) -> ProcessIdentity:
    """The identity of a process of this machine."""
    mine = environment.current().process()
    return msgspec.structs.replace(mine, pid=pid, started=environment.start_tick(pid) or 0)


def marked(mark: str) -> list[ProcessIdentity]:
    """The processes of a supervision that live on this machine, but for this one (Linux; elsewhere none is found)."""
    return _system.get().marked(mark)


def _carrying(mark: str) -> list[ProcessIdentity]:
    wanted, me = f"{MARK}={mark}".encode(), os.getpid()
    found = []
    for pid in _pids():
        try:
            carried = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is somebody else's
        if pid != me and wanted in carried:
            found.append(identify(pid))
    return [one for one in found if one.started]


async def end(identity: ProcessIdentity, grace_s: float) -> bool:
    """End a process that may be nobody's child: asked first, killed after ``grace_s``. Whether it was killed."""
    env = environment.current()
    if not env.alive(identity):
        return False
    for number in (signal.SIGTERM, signal.SIGCONT):
        send(identity.pid, number)
    limit = env.monotonic() + grace_s
    while env.alive(identity) and env.monotonic() < limit:
        await env.sleep(LOOK_S)
    if not env.alive(identity):
        return False
    await kill_tree(identity)
    return True


async def kill_tree(identity: ProcessIdentity) -> None:
    """Stop a process, kill what it started, kill it, and wait until all of them are gone."""
    env = environment.current()
    if not env.alive(identity):
        return
    send(identity.pid, signal.SIGSTOP)
    tree = descendants(identity.pid)
    for one in tree:
        send(one.pid, signal.SIGKILL)
    _system.get().send(identity.pid, signal.SIGKILL, group=True)  # it may be gone, or lead none: it is hit below
    send(identity.pid, signal.SIGKILL)
    while any(env.alive(one) for one in (identity, *tree)):
        await env.sleep(LOOK_S)


def descendants(pid: int) -> list[ProcessIdentity]:
    """All processes beneath one, nearest first (where /proc is)."""
    return _system.get().descendants(pid)


def _beneath(pid: int) -> list[ProcessIdentity]:
    found: list[ProcessIdentity] = []
    queue = deque([pid])
    while queue:
        for child in _children(queue.popleft()):
            found += [one for one in [identify(child)] if one.started]
            queue.append(child)
    return found


def adopt_orphans(wanted: bool) -> None:
    """Become (or cease to be) the parent of what this process's children leave behind when they die (Linux)."""
    _system.get().adopt_orphans(wanted)


async def end_strays(known: Sequence[int]) -> list[int]:
    """Kill and reap the children of this process that are none of ``known``: what a dead child had started."""
    system = _system.get()
    strays = [pid for pid in system.children() if pid not in known]
    for pid in strays:
        await kill_tree(identify(pid))
        system.reap(pid)
    return strays


def send(pid: int, number: int) -> None:
    """A signal, to whom it can still reach."""
    _system.get().send(pid, number)


def _pids() -> list[int]:
    try:
        return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass  # it has just ended, or there is no /proc
    return found
