"""The file tools that change something. Each says what its effect is, and how a doubt about it is settled.

``write_file``, ``make_directory`` and ``write_manifest`` may run twice. ``append_file`` and ``delete_file`` are
irreversible and have probes; ``move_file`` has a probe and an undo. Probes rely on the journal: an append cannot
be recognised by its text (the same line may be there already), so what the file was like before is written down
under the action's key first. That makes appending *probeable*, not idempotent: the journal is bounded and other
programs may rewrite the file, so a second attempt must not simply trust it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

from logact.tools import journal
from logact.tools.answers import ProbeAnswer, ToolContext, ToolError
from logact.tools.base import Tool, tool
from logact.tools.confine import Place, Root, from_os, kind_of, refused

NO_CONTEXT = ToolContext()
"""For a direct call, outside of any log: without a key nothing is written down for a probe."""

CONTENT_BYTES_MAX = 32 * 1024 * 1024


class Changes:
    """The changing tools of a workspace."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.tools: list[Tool] = [
            tool(effect="idempotent", destinations=("path",), content=("content",))(self.write_file),
            tool(effect="irreversible", probe=self._probe_append, destinations=("path",), content=("content",))(
                self.append_file
            ),
            tool(
                effect="reversible",
                probe=self._probe_move,
                undo=self._undo_move,
                destinations=("target",),
            )(self.move_file),
            tool(effect="irreversible", probe=self._probe_delete, destinations=("path",))(self.delete_file),
            tool(effect="idempotent", destinations=("path",))(self.make_directory),
            tool(effect="idempotent", destinations=("target",))(self.write_manifest),
        ]

    def write_file(self, path: str, content: str) -> dict[str, Any]:
        """Write a text file, replacing what is there. Missing directories are made.

        Args:
            path: The file, relative to the workspace.
            content: Its whole new text.
        """
        data = _bounded(content)
        with self.root.place(path, follow_last=False, create_parents=True, file=True) as place:
            mode = _file_mode(place, path)
            _write(place, data, mode, path)
            return {"path": place.relative, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def make_directory(self, path: str) -> dict[str, Any]:
        """Make a directory, and those above it. One that is there already is fine.

        Args:
            path: The directory, relative to the workspace.
        """
        with self.root.place(path, follow_last=False, create_parents=True) as place:
            try:
                os.mkdir(place.name, dir_fd=place.parent)
            except FileExistsError:
                there = place.stat()
                if there is None or not stat.S_ISDIR(there.st_mode):
                    raise refused(f"{path!r} is there already, and no directory") from None
                return {"path": place.relative, "made": False}
            except OSError as error:
                raise from_os(error, path) from error
            os.fsync(place.parent)
            return {"path": place.relative, "made": True}

    def write_manifest(self, path: str, target: str) -> dict[str, Any]:
        """Write SHA-256, size and path of every file beneath a directory to a file, sorted by path.

        Each line is: checksum, two spaces, size in bytes, two spaces, path. The target itself is left out.

        Args:
            path: The directory, relative to the workspace.
            target: The file to write, relative to the workspace.
        """
        from logact.tools.files import checksums

        everything = sorted(checksums(self.root, path))
        with self.root.place(target, follow_last=False, create_parents=True, file=True) as place:
            mode = _file_mode(place, target)
            lines: list[bytes] = []
            total = 0
            # the target must not appear in itself, or writing it twice would give two contents
            for relative, size, digest in everything:
                if relative == place.relative:
                    continue
                name = relative.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
                lines.append(f"{digest}  {size}  {name}\n".encode("utf-8", "surrogateescape"))
                total += size
            data = b"".join(lines)
            _write(place, data, mode, target)
            return {
                "path": place.relative,
                "files": len(lines),
                "bytes": total,
                "sha256": hashlib.sha256(data).hexdigest(),
            }

    # --- append ------------------------------

    def append_file(self, path: str, content: str, context: ToolContext = NO_CONTEXT) -> dict[str, Any]:
        """Append text to a file, which is made if it is missing.

        Args:
            path: The file, relative to the workspace.
            content: The text to add at its end.
        """
        data = _bounded(content)
        with (
            journal.locked(self.root) as top,
            self.root.place(path, follow_last=False, create_parents=True, file=True) as place,
        ):
            _file_mode(place, path)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                handle = os.open(place.name, flags, 0o666, dir_fd=place.parent)
            except OSError as error:
                raise from_os(error, path) from error
            try:
                before = os.fstat(handle)
                if not stat.S_ISREG(before.st_mode):
                    raise refused(f"{path!r} is a {kind_of(before.st_mode)}, not a file")
                try:
                    journal.remember(top, journal.saw(context.key, before, hashlib.sha256(data).hexdigest()))
                except OSError as error:
                    raise from_os(error, path) from error
                view = memoryview(data)
                while view:
                    view = view[os.write(handle, view) :]
                os.fsync(handle)
            except OSError as error:
                raise _half_done(handle, before, path, error) from error
            finally:
                os.close(handle)
            os.fsync(place.parent)
            return {"path": place.relative, "bytes": len(data), "size": before.st_size + len(data)}

    def _probe_append(self, path: str, content: str, context: ToolContext) -> ProbeAnswer:
        seen = journal.recall(self.root, context.key)
        if seen is None:
            return ProbeAnswer(None, detail="there is no record that this append began")
        data = content.encode()
        with self.root.place(path, follow_last=False) as place:
            relative = place.relative
            if place.stat() is None:
                return ProbeAnswer(None, detail="the file is gone")
        with self.root.open_file(path) as (handle, state):
            if (state.st_dev, state.st_ino) != (seen.device, seen.inode) or state.st_size < seen.size:
                return ProbeAnswer(None, detail="the file was replaced or cut since")
            if state.st_size == seen.size:
                if data and state.st_mtime_ns != seen.modified_ns:
                    return ProbeAnswer(None, detail="the file was written to since, and has its old size")
                return ProbeAnswer(not data, detail="the file is as it was before")
            os.lseek(handle, seen.size, os.SEEK_SET)
            there = os.read(handle, len(data))
        if there == data:
            value = {"path": relative, "bytes": len(data), "size": seen.size + len(data)}
            return ProbeAnswer(True, value, "the text stands where it was to be added")
        if data.startswith(there):
            return ProbeAnswer(None, detail=f"only the first {len(there)} of {len(data)} bytes were added")
        return ProbeAnswer(None, detail="something else stands where the text was to be added")

    # --- move ------------------------------

    def move_file(self, source: str, target: str, context: ToolContext = NO_CONTEXT) -> dict[str, Any]:
        """Move or rename a file or directory. Nothing is overwritten: the target must not exist.

        Args:
            source: What to move, relative to the workspace.
            target: Its new path, relative to the workspace.
        """
        with journal.locked(self.root) as top, self.root.place(source, follow_last=False) as old:
            _movable(old, source)
            state = old.stat()
            if state is None:
                raise refused(f"{source!r} does not exist")
            if old.must_be_directory and not stat.S_ISDIR(state.st_mode):
                raise refused(f"{source!r} is not a directory")
            with self.root.place(target, follow_last=False, create_parents=True) as new:
                _movable(new, target)
                if new.stat() is not None:
                    raise refused(f"{target!r} exists already; nothing is overwritten by a move")
                if new.must_be_directory and not stat.S_ISDIR(state.st_mode):
                    raise refused(f"{target!r} names a directory, and {source!r} is none")
                try:
                    journal.remember(top, journal.saw(context.key, state))
                    rename_to_free_name(old, new)
                except OSError as error:
                    raise from_os(error, target) from error
                os.fsync(new.parent)
                os.fsync(old.parent)
                return {"source": old.relative, "target": new.relative, "type": kind_of(state.st_mode)}

    def _probe_move(self, source: str, target: str, context: ToolContext) -> ProbeAnswer:
        seen = journal.recall(self.root, context.key)
        old, _ = self._look(source)
        new, relative = self._look(target)
        if old is not None and new is None:
            return ProbeAnswer(False, detail="the source is there and the target is not")
        if old is None and new is not None and seen is not None and seen.same(new):
            value = {"source": source, "target": relative, "type": kind_of(new.st_mode)}
            return ProbeAnswer(True, value, "the source is gone, and the target is what the source was")
        both = f"source {'there' if old else 'gone'}, target {'there' if new else 'missing'}"
        return ProbeAnswer(None, detail=f"{both}, and not known to be the same")

    def _undo_move(self, source: str, target: str, result: Any) -> str:
        with (
            journal.locked(self.root),
            self.root.place(target, follow_last=False) as new,
            self.root.place(source, follow_last=False, create_parents=True) as old,
        ):
            if new.stat() is None:
                raise refused(f"{target!r} is gone, so it cannot be moved back")
            if old.stat() is not None:
                raise refused(f"{source!r} exists again; nothing is overwritten by an undo")
            try:
                rename_to_free_name(new, old)
            except OSError as error:
                raise from_os(error, source) from error
            os.fsync(old.parent)
            os.fsync(new.parent)
            return f"moved {new.relative} back to {old.relative}"

    # --- delete ------------------------------

    def delete_file(self, path: str, context: ToolContext = NO_CONTEXT) -> dict[str, Any]:
        """Delete a file, a symbolic link (not what it points to) or an empty directory.

        Args:
            path: What to delete, relative to the workspace.
        """
        with journal.locked(self.root) as top, self.root.place(path, follow_last=False) as place:
            _movable(place, path)
            state = place.stat()
            if state is None:
                raise refused(f"{path!r} does not exist")
            directory = stat.S_ISDIR(state.st_mode)
            if place.must_be_directory and not directory:
                raise refused(f"{path!r} is not a directory")
            try:
                journal.remember(top, journal.saw(context.key, state))
                if directory:
                    os.rmdir(place.name, dir_fd=place.parent)
                else:
                    os.unlink(place.name, dir_fd=place.parent)
            except OSError as error:
                raise from_os(error, path) from error
            os.fsync(place.parent)
            return {"path": place.relative, "type": kind_of(state.st_mode), "size": state.st_size}

    def _probe_delete(self, path: str, context: ToolContext) -> ProbeAnswer:
        seen = journal.recall(self.root, context.key)
        state, relative = self._look(path)
        if state is None and seen is not None:
            value = {"path": relative, "type": kind_of(seen.mode), "size": seen.size}
            return ProbeAnswer(True, value, "it was there when the deletion began, and is gone")
        if state is not None and seen is not None and seen.same(state):
            return ProbeAnswer(False, detail="it is still there, as it was")
        if state is None:
            return ProbeAnswer(None, detail="it is gone, and there is no record that this deletion began")
        return ProbeAnswer(None, detail="something is there, and not known to be what was to be deleted")

    def _look(self, path: str) -> tuple[os.stat_result | None, str]:
        try:
            with self.root.place(path, follow_last=False) as place:
                return place.stat(), place.relative
        except ToolError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None, path  # a directory above it is missing
            raise


def rename_to_free_name(old: Place, new: Place) -> None:
    """Rename without ever replacing anything.

    The kernel is asked to refuse an existing target (``RENAME_NOREPLACE``). Where it cannot be, the check before
    the rename has to do, under the workspace's lock: only a program that ignores the lock could come in between.
    """
    import ctypes
    import errno

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        names = os.fsencode(old.name), os.fsencode(new.name)
        if rename(old.parent, names[0], new.parent, names[1], 1) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code))
        if code == errno.EINVAL and old.stat() is None:
            raise OSError(code, os.strerror(code))
    if new.stat() is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(old.name, new.name, src_dir_fd=old.parent, dst_dir_fd=new.parent)


def _bounded(content: str) -> bytes:
    data = content.encode()
    if len(data) > CONTENT_BYTES_MAX:
        raise refused(f"The content has {len(data)} bytes; at most {CONTENT_BYTES_MAX} are written at once")
    return data


def _movable(place: Place, path: str) -> None:
    if place.name == ".":
        raise refused(f"{path!r} is the workspace itself")


def _file_mode(place: Place, path: str) -> int | None:
    """The mode of the file that will be replaced; None if nothing is there. Refuses anything but a file."""
    if place.name == "." or place.must_be_directory:
        raise refused(f"{path!r} names a directory, not a file")
    there = place.stat()
    if there is None:
        return None
    if not stat.S_ISREG(there.st_mode):
        raise refused(f"{path!r} is a {kind_of(there.st_mode)}, not a file")
    return stat.S_IMODE(there.st_mode)


def _write(place: Place, data: bytes, mode: int | None, path: str) -> None:
    try:
        journal.write_atomically(place.parent, place.name, data, mode=mode)
    except OSError as error:
        # the rename may have happened before the last synchronisation failed
        raise ToolError(f"{path!r} could not be written: {error.strerror}", kind="environment") from error


def _half_done(handle: int, before: os.stat_result, path: str, error: OSError) -> ToolError:
    """The error of a write that broke off: definite only if the file certainly has its old size."""
    try:
        unchanged = os.fstat(handle).st_size == before.st_size
    except OSError:
        unchanged = False
    done = "nothing was added" if unchanged else "part of the text may have been added"
    return ToolError(f"{path!r}: {error.strerror}; {done}", kind="environment", definite=unchanged)
