"""Counts effects in a process of its own: what a crashing agent did to the world cannot be asked of the agent.

The server owns two append-only files. ``effects.jsonl`` holds one line for each effect, flushed to the disk before
it is acknowledged; ``acks.jsonl`` one line for each append that a log acknowledged to a child. It serves a unix
socket with one JSON object per line each way, and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, child_environment

START_S_MAX = 20.0
ANSWER_S_MAX = 30.0


class RecorderServer:
    """The counting process. ``happened`` is by external key, so that probes can ask for one action's effect."""

    def __init__(self, directory: Path) -> None:
        self.effects = (directory / "effects.jsonl").open("ab")
        self.acks = (directory / "acks.jsonl").open("ab")
        self.happened: Counter[str] = Counter()
        self.selector = selectors.DefaultSelector()
        self.buffers: dict[socket.socket, bytes] = {}

    def serve(self, path: Path) -> None:
        """Serve until standard input ends."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(64)
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            ready = [key.fileobj for key, _ in self.selector.select()]
            # what a dead process sent before it died counts before what its successor asks: old connections first
            for client in list(self.buffers):
                if client in ready:
                    self._receive(client)
            if listener in ready:
                client, _ = listener.accept()
                self.buffers[client] = b""
                self.selector.register(client, selectors.EVENT_READ)
            if sys.stdin in ready:
                return

    def _receive(self, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(client)
            del self.buffers[client]
            client.close()
            return
        *lines, self.buffers[client] = (self.buffers[client] + data).split(b"\n")
        for line in lines:
            answer = json.dumps(self._handle(json.loads(line), line)).encode() + b"\n"
            try:
                client.sendall(answer)
            except OSError:
                pass  # it died before the answer: what it reported is recorded all the same

    def _handle(self, message: dict[str, Any], line: bytes) -> dict[str, Any]:
        verb = message["verb"]
        if verb == "happened":
            return {"happened": self.happened[message["key"]] > 0}
        if verb == "acked":
            self.acks.write(line + b"\n")
            self.acks.flush()
            return {"ok": True}
        self.effects.write(line + b"\n")
        self.effects.flush()
        os.fsync(self.effects.fileno())
        self.happened[message["key"]] += 1 if verb == "effect" else -1
        return {"ok": True}


class RecorderClient:
    """A blocking connection to the recorder. Nothing is done before its answer is there."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_S_MAX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send one message and wait for the answer."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise ConnectionError("the effect recorder is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()


class Recorder:
    """The recorder as its parent sees it: starts the process, reads its files, ends it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "recorder.sock"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.effect_recorder", str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
        )
        if self._process.stdout is None or self._process.stdout.readline() != b"ready\n":
            self._process.kill()
            raise RuntimeError("the effect recorder did not start")

    def effects(self) -> list[dict[str, Any]]:
        """Every effect that happened, in order."""
        return _lines(self.directory / "effects.jsonl")

    def acks(self) -> list[dict[str, Any]]:
        """Every append that was acknowledged to a child, in order."""
        return _lines(self.directory / "acks.jsonl")

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(START_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def wait_for(path: Path, seconds: float = START_S_MAX) -> None:
    """Wait until a file exists."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not appear")
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    home = Path(sys.argv[1])
    RecorderServer(home).serve(home / "recorder.sock")
