"""Recording what a model answers, and playing it back.

A recording is a file of JSON lines, one exchange each: the digest of the request, the request, the answer. It
holds whole conversations, so it is created for its owner only (0600). Playing it back needs no network and no key.

Failed requests are not recorded: a recording holds what was answered.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from logact import env
from logact.errors import ModelRefused, SpecError, UsageError
from logact.models.base import Model, ModelAnswer, ModelRequest

COMPARED_MAX = 1000
"""How many recorded requests are compared to find the nearest to one that was not recorded."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a recording."""

    digest: str
    request: ModelRequest
    answer: ModelAnswer


def request_digest(request: ModelRequest) -> str:
    """SHA-256, in hexadecimal, of the request as JSON with sorted keys. Equal requests have equal digests."""
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()


class RecordingModel:
    """Answers as ``inner`` does, and adds each exchange to the file at ``path``.

    The line is on disk (fsync) before the answer is given. Raises what ``inner`` raises, and UsageError if the file
    cannot be written: then the answer is not given either, since a recording with holes is none.
    """

    def __init__(self, inner: Model, path: str | Path) -> None:
        self.inner = inner
        self.name = inner.name
        self.path = Path(path)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RecordingModel({self.inner!r}, {str(self.path)!r})"

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """The inner model's answer, recorded."""
        answer = await self.inner.answer(request)
        said = msgspec.structs.replace(answer, retried=())  # who plays it back asks nobody again
        line = msgspec.json.encode(Exchange(digest=request_digest(request), request=request, answer=said)) + b"\n"
        try:
            await env.current().in_thread(self._append, line)
        except OSError as error:
            raise UsageError(f"The recording {self.path} cannot be written: {error}") from error
        return answer

    def _append(self, line: bytes) -> None:
        with self._lock:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = b"\n" + line  # a crash tore the last line: end it, so that it spoils only itself
                written = 0
                while written < len(line):
                    written += os.write(handle, line[written:])
                os.fsync(handle)
            finally:
                os.close(handle)


class RecordedModel:
    """Plays a recording back, by the digest of the request.

    Equal requests get their answers in the order of the recording, and the last one again after that. A request that
    was never recorded gets ModelRefused, which shows where the nearest recorded one differs. Lines that a crash tore
    are passed over; ``torn`` holds their numbers. Raises SpecError if there is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = f"recorded:{self.path}"
        self.torn: list[int] = []
        self._answers: dict[str, list[ModelAnswer]] = {}
        self._requests: list[ModelRequest] = []
        self._given: dict[str, int] = {}
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise SpecError(f"The recording {self.path} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                exchange = msgspec.json.decode(line, type=Exchange)
            except msgspec.DecodeError:
                self.torn.append(number)
                continue
            # not the digest in the file: a later version may give an old request another one
            digest = request_digest(exchange.request)
            if digest not in self._answers:
                self._requests.append(exchange.request)
            self._answers.setdefault(digest, []).append(exchange.answer)

    def __repr__(self) -> str:
        return f"RecordedModel({str(self.path)!r})"

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """The recorded answer, or ModelRefused."""
        digest = request_digest(request)
        answers = self._answers.get(digest)
        if answers is None:
            raise ModelRefused(
                f"{self.name} holds no answer to this request",
                received=self._difference(request),
                todo="record again with recording:FILE:MODEL, or ask as it was recorded",
            )
        given = self._given.get(digest, 0)
        self._given[digest] = given + 1
        return answers[min(given, len(answers) - 1)]

    def _difference(self, request: ModelRequest) -> str:
        torn = f"; torn lines: {', '.join(map(str, self.torn[:10]))}" if self.torn else ""
        if not self._requests:
            return f"a request to an empty recording{torn}"
        asked = msgspec.to_builtins(request)
        best: tuple[int, int, str] | None = None
        for recorded in self._requests[:COMPARED_MAX]:
            found = list(_differences(msgspec.to_builtins(recorded), asked, ""))
            same = _same_start(recorded, request)
            if best is None or (-same, len(found)) < best[:2]:
                best = (-same, len(found), found[0] if found else "no visible difference")
        more = f" ({best[1] - 1} more differences)" if best and best[1] > 1 else ""
        return f"one whose nearest recorded request differs at {best[2] if best else ''}{more}{torn}"


def _same_start(one: ModelRequest, other: ModelRequest) -> int:
    """How many messages two conversations share from their beginning."""
    count = 0
    for mine, theirs in zip(one.messages, other.messages, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _differences(recorded: Any, asked: Any, path: str) -> Iterator[str]:
    """Every place where two values differ, as ``path: recorded X, asked Y``."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for key in sorted({*recorded, *asked}, key=str):
            yield from _differences(recorded.get(key), asked.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(recorded, (list, tuple)) and isinstance(asked, (list, tuple)):
        for index in range(max(len(recorded), len(asked))):
            mine = recorded[index] if index < len(recorded) else None
            theirs = asked[index] if index < len(asked) else None
            yield from _differences(mine, theirs, f"{path}[{index}]")
    elif recorded != asked:
        yield f"{path}: recorded {_short(recorded, asked)}, asked {_short(asked, recorded)}"


def _short(value: Any, other: Any) -> str:
    """A value to show; of a long text, the part from a little before where it leaves ``other``."""
    if value is None:
        return "nothing"
    if isinstance(value, str) and isinstance(other, str) and len(value) > 60:
        same = next((at for at, pair in enumerate(zip(value, other, strict=False)) if pair[0] != pair[1]), len(other))
        start = max(0, same - 20)
        value = ("…" if start else "") + value[start : start + 60]
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:120]}…"
