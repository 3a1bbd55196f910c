"""The built-in file tools, confined to one directory tree: this file assembles and reads, ``changing`` writes.

Results are bounded in lines, entries and bytes, and say where they were cut. An error always means that nothing
was changed, unless it says otherwise.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from logact.tools.answers import ToolError
from logact.tools.base import Tool, tool
from logact.tools.confine import FILE_FLAGS, Found, Root, refused

READ_LINES_MAX = 2_000
READ_BYTES_MAX = 256 * 1024
LINE_BYTES_MAX = 16 * 1024
ENTRIES_MAX = 2_000
MATCHES_MAX = 200
PATTERN_CHARACTERS_MAX = 500
CHECKSUMS_MAX = 2_000
_CHUNK_BYTES = 1024 * 1024


class Workspace:
    """A directory tree, and the tools that work in it. Nothing outside of it can be reached through them.

    ``hide`` names files and directories inside of it that must stay out of reach, such as the log. ``read_only``
    leaves the changing tools out.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        hide: Iterable[str | os.PathLike[str]] = (),
        read_only: bool = False,
    ) -> None:
        self.root = Root(root, hide=hide)
        self.read_only = read_only

    @cached_property
    def tools(self) -> list[Tool]:
        """The tools, for an agent's list of tools."""
        reading = [
            tool(effect="read", untrusted=True)(self.read_file),
            tool(effect="read")(self.list_files),
            tool(effect="read", untrusted=True, timeout_s=60)(self.search_files),
            tool(effect="read")(self.checksum_files),
            tool(effect="read")(self.find_duplicates),
        ]
        if self.read_only:
            return reading
        from logact.tools.changing import Changes

        return reading + Changes(self.root).tools

    def read_file(self, path: str, offset: int = 0, limit: int = READ_LINES_MAX) -> dict[str, Any]:
        """Read lines of a text file.

        Args:
            path: The file, relative to the workspace.
            offset: How many lines to skip.
            limit: How many lines to read at most.
        """
        if offset < 0 or limit < 1:
            raise refused(f"offset {offset} and limit {limit}: expected an offset from 0 and a limit from 1")
        limit = min(limit, READ_LINES_MAX)
        lines: list[str] = []
        size = 0
        more = False
        with self.root.open_file(path) as (handle, state), os.fdopen(os.dup(handle), "rb") as stream:
            for number, (line, cut) in enumerate(_lines(stream, path)):
                if number < offset:
                    continue
                if len(lines) >= limit or size + len(line) > READ_BYTES_MAX:
                    more = True
                    break
                size += len(line)
                lines.append(line.decode("utf-8", "replace") + ("... [line cut]\n" if cut else ""))
        result: dict[str, Any] = {"text": "".join(lines), "lines": len(lines), "bytes": state.st_size}
        if more:
            result["next_offset"] = offset + len(lines)
        return result

    def list_files(self, path: str = ".", pattern: str = "*", recursive: bool = False) -> dict[str, Any]:
        """List files and directories with their sizes in bytes.

        Args:
            path: The directory, relative to the workspace.
            pattern: Only names (or relative paths) that match this, such as *.py.
            recursive: Whether to go into the directories.
        """
        entries: list[dict[str, Any]] = []
        for found in self.root.walk(path, recursive=recursive):
            if not _matches(found, pattern):
                continue
            if len(entries) >= ENTRIES_MAX:
                return {"entries": entries, "truncated": True}
            entry: dict[str, Any] = {"path": found.relative, "type": found.kind}
            if found.kind == "file":
                entry["size"] = found.size
            entries.append(entry)
        return {"entries": entries, "truncated": False}

    async def search_files(
        self, pattern: str, path: str = ".", files: str = "*", limit: int = MATCHES_MAX
    ) -> dict[str, Any]:
        """Find lines that match a regular expression.

        Args:
            pattern: A regular expression (Python's syntax).
            path: A file or directory, relative to the workspace.
            files: Only files whose name (or relative path) matches this, such as *.py.
            limit: How many matching lines to return at most.
        """
        if len(pattern) > PATTERN_CHARACTERS_MAX:
            raise refused(f"The pattern is longer than {PATTERN_CHARACTERS_MAX} characters")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise refused(f"{pattern!r} is not a regular expression: {error}") from error
        if limit < 1:
            raise refused(f"limit {limit}: expected at least 1")
        from logact.tools.searching import search

        return await search(self.root, pattern, path, files, min(limit, MATCHES_MAX))

    def checksum_files(self, path: str = ".") -> dict[str, Any]:
        """SHA-256 and size of every file beneath a directory (or of one file), and how much it is in all.

        For more than 2000 files use write_manifest, which writes them to a file.

        Args:
            path: A file or directory, relative to the workspace.
        """
        lines: list[str] = []
        count = total = 0
        for relative, size, digest in checksums(self.root, path):
            count += 1
            total += size
            if count <= CHECKSUMS_MAX:
                lines.append(f"{digest}  {size}  {relative}")
        return {"files": count, "bytes": total, "checksums": lines, "truncated": count > CHECKSUMS_MAX}

    def find_duplicates(self, path: str = ".") -> dict[str, Any]:
        """Find files with the same content. Empty files are left out.

        Args:
            path: The directory, relative to the workspace.
        """
        by_size: dict[int, list[str]] = {}
        for found in self.root.walk(path):
            if found.kind == "file" and found.size > 0:
                by_size.setdefault(found.size, []).append(found.relative)
        groups: list[dict[str, Any]] = []
        shown = 0
        wasted = 0
        truncated = False
        for size, paths in sorted(by_size.items(), reverse=True):
            if len(paths) < 2:
                continue
            by_digest: dict[str, list[str]] = {}
            for name in paths:
                _, _, digest = next(checksums(self.root, name))
                by_digest.setdefault(digest, []).append(name)
            for digest, same in sorted(by_digest.items(), key=lambda item: item[1]):
                if len(same) < 2:
                    continue
                wasted += size * (len(same) - 1)
                shown += len(same)
                if shown > ENTRIES_MAX:
                    truncated = True
                    continue
                groups.append({"sha256": digest, "size": size, "paths": same})
        return {"groups": groups, "wasted_bytes": wasted, "truncated": truncated}


def checksums(root: Root, path: str) -> Iterator[tuple[str, int, str]]:
    """Relative path, size in bytes and SHA-256 (hexadecimal) of each file beneath ``path``, sorted by path.

    The order is that of the paths' parts, so it does not depend on the file system. Links are left out.
    """
    with root.place(path) as place:
        there = place.stat()
        if there is None:
            raise refused(f"{path!r} does not exist")
        relative = place.relative
    if stat.S_ISREG(there.st_mode):
        with root.open_file(path) as (handle, _):
            size, digest = digest_handle(handle)
            yield relative, size, digest
        return
    for found in root.walk(path):
        if found.kind != "file":
            continue
        size, digest = digest_found(found)
        yield found.relative, size, digest


def digest_found(found: Found) -> tuple[int, str]:
    """Size and SHA-256 of a walked file, through its directory's handle."""
    try:
        handle = os.open(found.name, FILE_FLAGS, dir_fd=found.parent)
    except OSError as error:
        raise ToolError(f"{found.relative!r} cannot be read: {error.strerror}", definite=True) from error
    try:
        return digest_handle(handle)
    finally:
        os.close(handle)


def digest_handle(handle: int) -> tuple[int, str]:
    """Size in bytes and SHA-256 (hexadecimal) of an open file, from where it stands."""
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(handle, _CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _matches(found: Found, pattern: str) -> bool:
    return fnmatchcase(found.name, pattern) or fnmatchcase(found.relative, pattern)


def _lines(stream: Any, path: str) -> Iterator[tuple[bytes, bool]]:
    """Lines of at most LINE_BYTES_MAX bytes, and whether each was cut; refuses what is not text."""
    first = True
    while line := stream.readline(LINE_BYTES_MAX):
        if first and b"\0" in line:
            raise refused(f"{path!r} is not a text file")
        first = False
        cut = len(line) == LINE_BYTES_MAX and not line.endswith(b"\n")
        rest = line
        while cut and rest and not rest.endswith(b"\n"):
            rest = stream.readline(LINE_BYTES_MAX)
        yield line, cut
