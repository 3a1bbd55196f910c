"""Sees before it happens that two agents are about to change one object, and stops the second.

What others are about to change is folded from the log: an intent that does more than read holds its objects until it
ended, whoever proposed it and in whichever process. Where a root is given, paths are looked at (never into files), so
that one file under two names is one object. It asks nobody.
"""

from __future__ import annotations

import copy
import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from logact.core.acting import AMBIGUOUS
from logact.core.deciding import NOT_NOW
from logact.core.settling import ANSWER
from logact.core.views import LogEntry
from logact.entry import Abort, Cancel, Control, Entry, Expiry, Intent, Recovery, Result, Started, Undone, Vote
from logact.errors import SpecError
from logact.voters.base import Voter

ARGUMENTS = ("path", "file", "filename", "source", "target", "destination", "url", "object", "table", "record", "id")
"""The arguments that name what an action changes, unless a tool's own are given."""

ANYTHING = "*"
"""The object of an action whose arguments stand beside the log: it may be any."""

OPEN_MAX = 2000
"""How many open changes are remembered; beyond that every change waits."""


class ConflictVoter(Voter):
    """Rejects a change of an object that another agent is about to change, until that one ended.

    ``objects`` says, by tool, which arguments name what it changes (an empty list: it changes nothing that others
    might); other tools are judged by ``arguments``. A path conflicts with what lies in it. ``root`` is the directory
    that relative paths are meant from: with it, a link and what it leads to, a path from ``/`` and hard links of one
    file are one object. With ``ask`` the voter abstains instead of rejecting, for a policy such as
    ``escalate("conflict", "human:*")``. An agent does not conflict with itself. Reads always pass.

    Raises SpecError for objects that are no names.
    """

    quick = True
    kind = "conflict"
    scope = "log"

    def __init__(
        self,
        objects: Mapping[str, str | Sequence[str]] | None = None,
        name: str = "conflict",
        *,
        arguments: Sequence[str] = ARGUMENTS,
        ask: bool = False,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(name)
        self.objects = {
            tool: (given,) if isinstance(given, str) else tuple(given) for tool, given in (objects or {}).items()
        }
        wrong = [
            one for given in (*self.objects.values(), tuple(arguments)) for one in given if not isinstance(one, str)
        ]
        if wrong:
            raise SpecError("An object is named by an argument", received=repr(wrong[0]), expected="its name")
        self.arguments = tuple(arguments)
        self.ask = ask
        self.root = str(Path(root).absolute()) if root is not None else ""

    def config(self) -> dict[str, Any]:
        """What this voter judges by."""
        objects = {tool: list(given) for tool, given in self.objects.items()}
        root = {"root": self.root} if self.root else {}
        return {"objects": objects, "arguments": list(self.arguments), "ask": self.ask, **root}

    def for_replay(self) -> ConflictVoter:
        """By the names alone: where links led then, nobody knows."""
        past = copy.copy(self)
        past.root = ""
        return past

    # --- the vote ------------------------------

    def check(self, entry: LogEntry) -> Vote:
        """Approve unless another agent's open change is about the same object."""
        if entry.action.effect == "read" or entry.action.tool == ANSWER:
            return Vote(approved=True, reason="it changes nothing")
        wanted = self._objects(entry.action.tool, entry.action.arguments)
        memory = entry.memory or self.initial()
        if memory["lost"]:
            return self._no("more changes are open than this voter remembers", 0, "")
        places: dict[str, frozenset[str]] = {}
        for position, change in memory["open"].items():
            if change["agent"] == entry.agent_id or int(position) == entry.position:
                continue
            for theirs in change["objects"]:
                for mine in wanted:
                    if self._same(mine, theirs, places):
                        what = mine if mine != ANYTHING else theirs
                        why = f"{change['agent']} is about to change {what} (action {position}, {change['tool']})"
                        return self._no(why, int(position), change["agent"])
        return Vote(approved=True, reason="nobody else is about to change it")

    def _same(self, mine: str, theirs: str, places: dict[str, frozenset[str]]) -> bool:
        if not self.root or ANYTHING in (mine, theirs):
            return same_object(mine, theirs)
        for name in (mine, theirs):
            if name not in places:
                places[name] = _places(self.root, name)
        return _within(mine, theirs) or any(_within(one, other) for one in places[mine] for other in places[theirs])

    def _no(self, why: str, action: int, agent: str) -> Vote:
        hint = f"Wait until action {action} of {agent} has ended and look again, or do something else first."
        return Vote(approved=None if self.ask else False, reason=why, hint=hint if action else "", code=NOT_NOW)

    def _objects(self, tool: str, arguments: Mapping[str, Any]) -> list[str]:
        names = self.objects.get(tool, self.arguments)
        return sorted({named(arguments[name]) for name in names if arguments.get(name) not in (None, "")})

    # --- memory ------------------------------

    def initial(self) -> dict[str, Any]:
        """No open changes. ``lost`` counts those that did not fit."""
        return {"open": {}, "lost": 0}

    def observe(self, memory: dict[str, Any], entry: Entry) -> dict[str, Any]:
        """The open changes after one more entry."""
        said = entry.payload
        if isinstance(said, Intent):
            if said.effect == "read" or said.tool == ANSWER:
                return memory
            objects = self._objects(said.tool, said.arguments) if said.arguments_blob is None else [ANYTHING]
            if not objects:
                return memory
            if len(memory["open"]) >= OPEN_MAX:
                return {**memory, "lost": memory["lost"] + 1}
            change = {
                "agent": said.agent,
                "run": said.run,
                "tool": said.tool,
                "effect": said.effect,
                "objects": objects,
                "started": False,
            }
            return {**memory, "open": {**memory["open"], str(entry.position): change}}
        ended = self._ended(memory["open"], said)
        if isinstance(said, Started) and str(said.intent) in memory["open"]:
            change = {**memory["open"][str(said.intent)], "started": True}
            return {**memory, "open": {**memory["open"], str(said.intent): change}}
        if not ended:
            return memory
        return {**memory, "open": {at: kept for at, kept in memory["open"].items() if at not in ended}}

    @staticmethod
    def _ended(held: Mapping[str, Mapping[str, Any]], said: Any) -> set[str]:
        """The open changes that an entry ends."""
        if isinstance(said, Abort | Expiry | Undone):
            return {str(said.intent)} & held.keys()
        if isinstance(said, Recovery):
            return {str(said.intent)} & held.keys() if said.settlement != "restart" else set()
        if isinstance(said, Result):
            change = held.get(str(said.intent))
            if change is None:
                return set()
            error = said.error
            doubtful = error is not None and not error.definite and error.kind in AMBIGUOUS
            return set() if doubtful and change["effect"] in ("reversible", "irreversible") else {str(said.intent)}
        if isinstance(said, Cancel) and not said.scope:
            change = held.get(str(said.intent))
            return {str(said.intent)} if change is not None and not change["started"] else set()
        if isinstance(said, Cancel) or (isinstance(said, Control) and said.verb == "stop"):
            scope = said.scope
            return {
                at
                for at, change in held.items()
                if not change["started"]
                and scope in ("log", f"agent:{change['agent']}", f"run:{change['run']}", f"action:{at}")
            }
        return set()


def named(value: Any) -> str:
    """What an argument names: paths in one form, anything else as it is."""
    text = value if isinstance(value, str) else repr(value)
    if "://" in text or ("/" not in text and text not in (".", "..")):
        return text
    return posixpath.normpath(text)


def same_object(mine: str, theirs: str) -> bool:
    """Whether two objects are one, or one lies in the other, as far as names tell.

    Nobody knows here what a relative path is relative to: it may be every path that ends like it.
    """
    if ANYTHING in (mine, theirs) or "." in (mine, theirs):
        return True
    if mine.startswith("/") != theirs.startswith("/") and "://" not in mine + theirs:
        return _ends_alike(mine, theirs) if mine.startswith("/") else _ends_alike(theirs, mine)
    return _within(mine, theirs)


def _within(mine: str, theirs: str) -> bool:
    """Whether one is the other, or lies in it. Both are relative to one directory, or neither is."""
    if mine == theirs or "." in (mine, theirs):
        return True
    return mine.startswith(theirs.rstrip("/") + "/") or theirs.startswith(mine.rstrip("/") + "/")


def _ends_alike(full: str, relative: str) -> bool:
    """Whether a path from ``/`` may be a relative one, lie in it, or hold it."""
    parts = [part for part in relative.split("/") if part != ".."]
    there = full.split("/")[1:]
    return full == "/" or any(there[at : at + len(parts)] == parts[: len(there) - at] for at in range(len(there)))


def _places(root: str, name: str) -> frozenset[str]:
    """Where a name leads: the path without links, and of a file with several names also which file it is."""
    if "://" in name or "\0" in name:
        return frozenset((name,))
    try:
        path = Path(root, name).resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        return frozenset((str(Path(root, name)),))
    try:
        state = path.stat()
    except OSError:  # nothing there yet
        return frozenset((str(path),))
    many = stat.S_ISREG(state.st_mode) and state.st_nlink > 1
    return frozenset((str(path), f"file {state.st_dev}:{state.st_ino}") if many else (str(path),))
