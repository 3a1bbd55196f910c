"""Paths confined to a root by directory handles: what is opened lies beneath the root, whatever races happen.

Every component of a path is opened on its own, relative to the handle of the one before, and never through a
symbolic link by the kernel. Links are read and walked by hand, so one that leads out of the root is refused and
one that stays inside works. ``..`` goes back to a handle that is held already; it never asks the file system
for a parent. So exchanging a directory for a link between check and use gains nothing: the use *is* the check.

Hidden paths (the log, tokens) are refused by name and by identity, so hard links don't help either. Names that
start with ``.logact-`` belong to the tools themselves. This module never follows a path that it was not given.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from logact.tools.answers import ToolError

PATH_BYTES_MAX = 4096
NAME_BYTES_MAX = 255
LINKS_MAX = 40
DEPTH_MAX = 128
"""How deep a subtree may be; each level holds one file descriptor while it is walked."""

RESERVED = ".logact-"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# without O_NONBLOCK, opening a named pipe would wait for its other end, maybe for ever
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def refused(message: str) -> ToolError:
    """The error for a path that cannot be used. Nothing has happened."""
    return ToolError(message, kind="permanent", definite=True)


class Place(msgspec.Struct, frozen=True):
    """A resolved path: the open handle of its parent directory, its name in there, and its path from the root.

    The root itself has the name ``.``; what is named need not exist. Valid while its ``with`` block lasts.
    """

    parent: int
    name: str
    relative: str
    must_be_directory: bool = False

    def stat(self) -> os.stat_result | None:
        """What is there, not following a link; None if nothing is."""
        try:
            return os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os(error, self.relative) from error


class Found(msgspec.Struct, frozen=True):
    """One entry of a walked subtree. ``parent`` is the open handle of its directory while it is the current one."""

    parent: int
    name: str
    relative: str
    kind: str
    size: int
    depth: int


class Root:
    """A directory that nothing gets out of. ``hide`` names what must not be reached even inside of it."""

    def __init__(self, path: str | os.PathLike[str], *, hide: Iterable[str | os.PathLike[str]] = ()) -> None:
        self.path = Path(path).resolve()
        if not self.path.is_dir():
            raise ToolError(f"The workspace {self.path} is not a directory", kind="environment", definite=True)
        self._given = Path(os.path.abspath(path))  # noqa: PTH100 - lexical on purpose: another name of the root
        self._hidden = tuple(Path(hidden).resolve() for hidden in hide)

    def open_root(self) -> int:
        """A handle of the root; the caller closes it."""
        try:
            return os.open(self.path, _DIRECTORY)
        except OSError as error:
            raise from_os(error, str(self.path)) from error

    @contextmanager
    def place(
        self, path: str, *, follow_last: bool = True, create_parents: bool = False, file: bool = False
    ) -> Iterator[Place]:
        """Resolve a path to its parent's handle. ``follow_last`` walks on if the last component is a link.

        ``create_parents`` makes missing directories above it; ``file`` refuses a path that asks for a directory.

        Raises a definite :class:`ToolError` for anything that does not lie beneath the root.
        """
        parts, must_be_directory = self._split(path)
        if file and must_be_directory:
            raise refused(f"{path!r} names a directory, not a file")
        handles: list[int] = []
        try:
            # only the resolving is inside of this try: an error of the caller's own block must not be taken for
            # one of "nothing has happened yet"
            try:
                handles.append(self.open_root())
                place = self._resolve(
                    path,
                    parts,
                    handles,
                    must_be_directory=must_be_directory,
                    follow_last=follow_last,
                    create_parents=create_parents,
                )
            except OSError as error:
                raise from_os(error, path) from error
            yield place
        finally:
            for handle in handles:
                os.close(handle)

    def _resolve(
        self,
        path: str,
        parts: list[str],
        handles: list[int],
        *,
        must_be_directory: bool,
        follow_last: bool,
        create_parents: bool,
    ) -> Place:
        guard = self._hidden_identities()
        names: list[str] = []
        links = 0
        last = ""
        queue = parts[::-1]
        while queue:
            part = queue.pop()
            if part == "..":
                if not names:
                    raise refused(f"{path!r} leads out of the workspace")
                names.pop()
                os.close(handles.pop())
                continue
            self._check_name(part, [*names, part], path)
            target = _read_link(part, handles[-1]) if queue or follow_last else None
            if target is not None:
                links += 1
                if links > LINKS_MAX:
                    raise refused(f"{path!r} goes through too many symbolic links")
                queue.extend(self._link_parts(target, path, names, handles)[::-1])
            elif queue:
                if create_parents and _is_missing(part, handles[-1]):
                    # a refusal further on must not leave directories behind, so all of the rest is checked first
                    if ".." in queue:
                        raise refused(f"{path!r} goes back out of a directory that does not exist")
                    rest = [*names, part]
                    for later in reversed(queue):
                        rest.append(later)
                        self._check_name(later, rest, path)
                handles.append(_open_directory(part, handles[-1], path, create_parents))
                names.append(part)
                _check_identity(os.fstat(handles[-1]), guard, path)
            else:
                last = part
        if not last and names:  # the path ended in "..": name what we stand in
            os.close(handles.pop())
            last = names.pop()
        if not last:
            return Place(handles[-1], ".", ".", True)
        place = Place(handles[-1], last, "/".join([*names, last]), must_be_directory)
        there = place.stat()
        if there is not None:
            _check_identity(there, guard, path)
        return place

    @contextmanager
    def open_file(self, path: str) -> Iterator[tuple[int, os.stat_result]]:
        """Open a regular file for reading: its descriptor and its state."""
        with self.place(path, file=True) as place:
            try:
                handle = os.open(place.name, FILE_FLAGS, dir_fd=place.parent)
            except OSError as error:
                raise from_os(error, path) from error
            try:
                state = os.fstat(handle)
                if not stat.S_ISREG(state.st_mode):
                    raise refused(f"{path!r} is a {kind_of(state.st_mode)}, not a file")
                _check_identity(state, self._hidden_identities(), path)
                yield handle, state
            finally:
                os.close(handle)

    @contextmanager
    def open_directory(self, path: str) -> Iterator[tuple[int, str]]:
        """Open a directory: its handle, and its path from the root (``.`` for the root)."""
        with self.place(path) as place:
            try:
                handle = _open_directory(place.name, place.parent, path, False)
            except OSError as error:
                raise from_os(error, path) from error
            try:
                _check_identity(os.fstat(handle), self._hidden_identities(), path)
                yield handle, place.relative
            finally:
                os.close(handle)

    def walk(self, path: str, *, recursive: bool = True) -> Iterator[Found]:
        """The entries beneath a directory, each level sorted by name; links are listed and never followed."""
        guard = self._hidden_identities()
        with self.open_directory(path) as (top, relative):
            yield from self._walk(top, "" if relative == "." else relative + "/", guard, recursive, 1)

    def _walk(
        self, handle: int, prefix: str, guard: set[tuple[int, int]], recursive: bool, depth: int
    ) -> Iterator[Found]:
        with os.scandir(handle) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            relative = prefix + name
            if name.startswith(RESERVED) or self._is_hidden(relative.split("/")):
                continue
            try:
                state = os.stat(name, dir_fd=handle, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away while we looked
            if (state.st_dev, state.st_ino) in guard:
                continue
            yield Found(handle, name, relative, kind_of(state.st_mode), state.st_size, depth)
            if recursive and stat.S_ISDIR(state.st_mode):
                if depth >= DEPTH_MAX:
                    raise refused(f"{relative!r} lies more than {DEPTH_MAX} levels deep")
                try:
                    inner = os.open(name, _DIRECTORY, dir_fd=handle)
                except OSError as error:
                    raise from_os(error, relative) from error
                try:
                    yield from self._walk(inner, relative + "/", guard, recursive, depth + 1)
                finally:
                    os.close(inner)

    def _split(self, path: str) -> tuple[list[str], bool]:
        if not isinstance(path, str) or "\0" in path:
            raise refused(f"{path!r} is not a path: it holds a NUL")
        try:
            if len(os.fsencode(path)) > PATH_BYTES_MAX:
                raise refused(f"The path is longer than {PATH_BYTES_MAX} bytes")
        except UnicodeEncodeError as error:
            raise refused(f"{path!r} is not a path: {error.reason}") from error
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if any(len(os.fsencode(part)) > NAME_BYTES_MAX for part in parts):
            raise refused(f"A name in the path is longer than {NAME_BYTES_MAX} bytes: it is too long")
        if path.startswith("/"):
            beneath = self._beneath(parts)
            if beneath is None:
                raise refused(f"{path!r} lies outside of the workspace; use a path relative to it")
            parts = beneath
        return parts, path.endswith(("/", "/.", "/..")) or path in ("", ".", "..")

    def _beneath(self, parts: list[str]) -> list[str] | None:
        """The rest of an absolute path's parts after the root's own; None if it does not begin with them."""
        for root in (self.path.parts[1:], self._given.parts[1:]):
            if tuple(parts[: len(root)]) == root:
                return parts[len(root) :]
        return None

    def _link_parts(self, target: str, path: str, names: list[str], handles: list[int]) -> list[str]:
        parts = [part for part in target.split("/") if part not in ("", ".")]
        if not target.startswith("/"):
            return parts
        beneath = self._beneath(parts)
        if beneath is None:
            raise refused(f"{path!r} goes through a symbolic link that leads out of the workspace")
        while names:  # an absolute link begins again at the root
            names.pop()
            os.close(handles.pop())
        return beneath

    def _check_name(self, part: str, names: list[str], path: str) -> None:
        if part.startswith(RESERVED):
            raise refused(f"{path!r} is reserved: names that start with {RESERVED!r} belong to the tools")
        if self._is_hidden(names):
            raise refused(f"{path!r} is out of reach of tools")

    def _is_hidden(self, names: list[str]) -> bool:
        if not self._hidden:
            return False
        full = self.path.joinpath(*names)
        return any(full == hidden or hidden in full.parents for hidden in self._hidden)

    def _hidden_identities(self) -> set[tuple[int, int]]:
        """Device and inode of everything hidden: catches hard links, and file systems that ignore case."""
        found = set()
        for hidden in self._hidden:
            try:
                state = hidden.stat()
            except OSError:
                continue
            found.add((state.st_dev, state.st_ino))
        return found


def kind_of(mode: int) -> str:
    """A file's kind in a word."""
    for test, word in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "link"),
    ):
        if test(mode):
            return word
    return "special file"


def from_os(error: OSError, path: str) -> ToolError:
    """An error of the operating system, raised before anything was changed, in words that a model can use."""
    text = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE):
        return ToolError(f"{path!r}: {text}", kind="environment", definite=True)
    if error.errno == errno.ENOENT:
        text = "does not exist"
    elif error.errno in (errno.ELOOP, errno.EMLINK):
        text = "is a symbolic link, or was exchanged for one meanwhile"
    elif error.errno == errno.ENOTDIR:
        text = "is not a directory, or goes through something that is none"
    elif error.errno == errno.ENAMETOOLONG:
        path, text = path[:100] + "...", "is too long"
    return ToolError(f"{path!r} {text}", kind="permanent", definite=True)


def _read_link(name: str, parent: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None  # no link, or nothing there
        raise


def _is_missing(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def _open_directory(name: str, parent: int, path: str, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError as error:
        if not create:
            raise from_os(error, path) from error
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        pass  # another call made it first
    os.fsync(parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _check_identity(state: os.stat_result, guard: set[tuple[int, int]], path: str) -> None:
    if (state.st_dev, state.st_ino) in guard:
        raise refused(f"{path!r} is out of reach of tools")
