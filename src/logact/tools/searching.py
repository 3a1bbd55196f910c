"""Searching with a model's regular expression, in a process that can be killed.

Python's ``re`` holds the interpreter while it backtracks, and a short pattern can take hours on a short line; a
thread could not be stopped, and the event loop would stand still. So a small child process matches, reads only
what it is handed (file contents through a pipe, opened here, confined), and is killed when its time is over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from logact import env as environment
from logact.tools.answers import ToolError
from logact.tools.confine import FILE_FLAGS, Root, refused

SEARCH_SECONDS_MAX = 20.0
SEARCH_FILE_BYTES_MAX = 8 * 1024 * 1024
SHOWN_CHARACTERS_MAX = 300
"""The most that is shown of a matching line."""
LINE_CHARACTERS_MAX = 4_000
"""Longer lines are only searched up to here."""

_CHILD = r"""
import json, re, struct, sys
source, limit, shown, longest = json.loads(sys.argv[1])
matches = re.compile(source).search
read, write = sys.stdin.buffer.read, sys.stdout.write
found = 0
while head := read(8):
    name_size, size = struct.unpack("!II", head)
    name, text = read(name_size).decode("utf-8", "replace"), read(size)
    if b"\0" in text[:8192]:
        continue
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        if matches(line[:longest]):
            found += 1
            if found > limit:
                break
            write(json.dumps({"path": name, "line": number, "text": line[:shown]}) + "\n")
    if found > limit:
        break
write(json.dumps({"more": found > limit}) + "\n")
"""


async def search(root: Root, pattern: str, path: str, files: str, limit: int) -> dict[str, Any]:
    """Matching lines beneath ``path``. The child is killed after 20 seconds, on errors and when cancelled."""
    skipped: list[str] = []
    failed: list[ToolError] = []
    settings = msgspec.json.encode([pattern, limit, SHOWN_CHARACTERS_MAX, LINE_CHARACTERS_MAX]).decode()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _CHILD, settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    if child.stdin is None or child.stdout is None:
        raise ToolError("The search process has no pipes", kind="environment", definite=True)
    stdin, stdout = child.stdin, child.stdout
    contents = _contents(root, path, files, skipped)

    async def feed() -> None:
        try:
            while (item := await environment.current().in_thread(next, contents, None)) is not None:
                name, text = item
                stdin.write(struct.pack("!II", len(name), len(text)) + name + text)
                await stdin.drain()
        except ConnectionError:
            pass  # the child has found enough, or died; its output tells
        except ToolError as error:
            failed.append(error)
        finally:
            stdin.close()

    try:
        async with asyncio.timeout(SEARCH_SECONDS_MAX), asyncio.TaskGroup() as group:
            group.create_task(feed())
            output = group.create_task(stdout.read(-1))
            group.create_task(child.wait())
    except TimeoutError as error:
        raise ToolError(
            f"The search took more than {SEARCH_SECONDS_MAX:g} s; use a simpler pattern or fewer files",
            kind="timeout",
            definite=True,
        ) from error
    finally:
        if child.returncode is None:
            try:
                # not child.kill(): that one also reaps, behind the back of who waits for the child
                os.kill(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended by itself
        await asyncio.shield(child.wait())
    if failed:
        raise failed[0]
    lines = [msgspec.json.decode(line) for line in output.result().splitlines()]
    if not lines or "more" not in lines[-1]:
        raise ToolError("The search process broke off", kind="transient", definite=True)
    result: dict[str, Any] = {"matches": lines[:-1], "truncated": lines[-1]["more"]}
    if skipped:
        result["skipped"] = skipped[:20]
    return result


def _contents(root: Root, path: str, files: str, skipped: list[str]) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each file to search. Files over 8 MiB, and those that cannot be read, are skipped."""
    with root.place(path) as place:
        there = place.stat()
        if there is None:
            raise refused(f"{path!r} does not exist")
        relative = place.relative
    if stat.S_ISREG(there.st_mode):
        with root.open_file(path) as (handle, state):
            if state.st_size > SEARCH_FILE_BYTES_MAX:
                raise refused(f"{path!r} has more than {SEARCH_FILE_BYTES_MAX} bytes")
            yield os.fsencode(relative), _read(handle)
        return
    for found in root.walk(path):
        if found.kind != "file" or not (fnmatchcase(found.name, files) or fnmatchcase(found.relative, files)):
            continue
        if found.size > SEARCH_FILE_BYTES_MAX:
            skipped.append(found.relative)
            continue
        try:
            handle = os.open(found.name, FILE_FLAGS, dir_fd=found.parent)
        except OSError:
            skipped.append(found.relative)
            continue
        try:
            yield os.fsencode(found.relative), _read(handle)
        finally:
            os.close(handle)


def _read(handle: int) -> bytes:
    chunks, size = [], 0
    while size <= SEARCH_FILE_BYTES_MAX and (chunk := os.read(handle, 1024 * 1024)):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)
