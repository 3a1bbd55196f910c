"""Real servers for tests and benchmarks: one small file for each kind, this one holds what they share.

A server runs on free ports of 127.0.0.1, in a directory of its own below the system's temporary directory, as an
unprivileged user where the caller is root. Whoever starts one ends it: ``with PostgresServer() as server``.
Nothing here is part of the package.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

START_S_MAX = 60.0
UNPRIVILEGED = "nobody"

S = TypeVar("S", bound="Server")


class ServerFailed(RuntimeError):
    """A server did not start or stop; the end of what it said is in the message."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all different. Somebody may take one before it is used: then start again."""
    listeners = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def wait_until(ready: Callable[[], bool], what: str, seconds: float = START_S_MAX) -> None:
    """Look every 20 ms until it is so; ServerFailed after ``seconds``."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise ServerFailed(f"after {seconds:g} s still not: {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Server:
    """One server process and its directory. Subclasses say how it is started and when it is ready."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"logact-{name}-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._user = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        self.directory.chmod(0o755)
        self.own(self.directory)

    # --- what subclasses say ------------------------------

    def command(self) -> Sequence[str]:
        """The server's command line. It must not put itself into the background."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    # --- life ------------------------------

    def start(self: S) -> S:
        """Start the process and wait until it serves."""
        self.starts += 1
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
                **self.identity(),
            )

        def ready() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise ServerFailed(f"ended with {self.process.returncode}: {self.said()}")
            return self.ready()

        try:
            wait_until(ready, f"{self.directory.name} serves")
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> None:
        """End the process with a signal, and if it does not end, with SIGKILL."""
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL to the process and all that it started, at once: nobody is left to tidy up."""
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)  # so that it does not see its children die
            family = children(process.pid)
            for pid in family:
                _signal(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            wait_until(lambda: not any(map(lives, family)), "all processes are gone")
        self.process = None

    def pause(self) -> None:
        """SIGSTOP to the process and all that it started: a machine that hangs."""
        self._all(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to all of them."""
        self._all(signal.SIGCONT)

    def _all(self, number: int) -> None:
        if self.process is not None:
            for pid in [self.process.pid, *children(self.process.pid)]:
                _signal(pid, number)

    def close(self) -> None:
        """End the process and remove its directory."""
        self.resume()
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self: S) -> S:
        return self if self.process is not None else self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # --- help for subclasses ------------------------------

    @property
    def output(self) -> Path:
        """Where everything goes that the process prints."""
        return self.directory / "output.txt"

    def said(self, characters: int = 2000) -> str:
        """The end of what the process printed."""
        return self.output.read_text(errors="replace")[-characters:] if self.output.exists() else ""

    def identity(self) -> dict[str, Any]:
        """Arguments of ``subprocess`` that make a child run as the unprivileged user."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Give paths to the user as whom the server runs."""
        if self._user is not None:
            for path in paths:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file in the server's directory, which the server can read."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        self.own(path)
        return path

    def run(self, *command: str | Path, **more: Any) -> str:
        """Run a command to its end as the server's user; what it printed. ServerFailed if it fails."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(part) for part in command],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S_MAX,
            check=False,
            **self.identity(),
            **more,
        )
        if done.returncode:
            raise ServerFailed(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"[-2000:])
        return done.stdout


def children(pid: int) -> list[int]:
    """Every process below another one, however they are grouped."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def lives(pid: int) -> bool:
    """Whether a process runs: it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def close_all(servers: Iterable[Server]) -> None:
    """Close several servers, whatever becomes of each."""
    for server in servers:
        try:
            server.close()
        except (OSError, ServerFailed, subprocess.SubprocessError):
            continue
