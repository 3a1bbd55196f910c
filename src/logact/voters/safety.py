"""The safety pack: stops what destroys or leaks, judged on parsed input. What can't be judged is rejected."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from logact.core.views import Action, LogEntry
from logact.entry import Vote
from logact.errors import SpecError
from logact.voters.base import Voter
from logact.voters.rules_rule import plain
from logact.voters.safety_commands import Options
from logact.voters.safety_finding import NO_RETRY, TO_QUARANTINE, Finding, Unsafe, undecidable
from logact.voters.safety_inputs import DELETES, SENDS, Kind, check_inputs, kind_of
from logact.voters.safety_network import url as check_url
from logact.voters.safety_places import Places
from logact.voters.safety_python import PythonJudge
from logact.voters.safety_secrets import secret_in
from logact.voters.safety_shell import ShellJudge
from logact.voters.safety_sql import SqlJudge
from logact.voters.shell_parse import ODD, Undecidable

__all__ = ["Finding", "SafetyVoter"]

TEXTS_MAX = 10_000
DEPTH_MAX = 8
_PRIVATE = re.compile("[\ue000-\uf8ff]")


class SafetyVoter(Voter):
    """Rejects what destroys or leaks, and what it can't judge. Each rejection names a stable code.

    ``workspace`` is the directory that the tools work in. ``deletable`` are patterns in it (such as ``tmp/**``)
    whose contents may be deleted; elsewhere nothing is, unless ``allow_delete`` (then single files, never whole
    trees). ``readable`` and ``writable`` are further directories. ``inputs`` says what an argument is
    (``{"run_shell.command": "shell"}``); otherwise its name and content do. ``programs`` are further harmless
    programs, ``hosts`` may be sent to, ``project_code`` allows programs that run code that is not seen here (make,
    pytest, npm, scripts). ``allow_tools`` are destructive tools that others judge. ``sql_dialect`` is sqlglot's.

    Raises SpecError for options that mean nothing.
    """

    quick = True

    kind = "safety"

    def __init__(
        self,
        workspace: str | os.PathLike[str] | None = None,
        *,
        name: str = "safety",
        deletable: Sequence[str] = ("tmp/**",),
        allow_delete: bool = False,
        many: int = 20,
        readable: Iterable[str | os.PathLike[str]] = (),
        writable: Iterable[str | os.PathLike[str]] = (),
        inputs: Mapping[str, str] | None = None,
        programs: Iterable[str] = (),
        hosts: Sequence[str] = (),
        project_code: bool = False,
        allow_tools: Iterable[str] = (),
        sql_dialect: str = "",
    ) -> None:
        super().__init__(name)
        for option, given in (
            ("deletable", deletable),
            ("hosts", hosts),
            ("programs", programs),
            ("allow_tools", allow_tools),
        ):
            if isinstance(given, str):
                raise SpecError(f"{option} is a list of texts", received=repr(given), todo=f"write [{given!r}]")
        for pattern in deletable:
            parts = pattern.split("/")
            if not parts[0] or set(parts[0]) <= set("*?.") or ".." in parts:
                raise SpecError(
                    "deletable would open the whole workspace",
                    received=repr(pattern),
                    expected="a pattern such as tmp/**",
                )
        self.inputs = check_inputs(inputs or {})
        self.allow_tools = frozenset(allow_tools)
        self.hosts = tuple(hosts)
        self.allow_delete = allow_delete
        self.places = Places(
            workspace, readable=readable, writable=writable, deletable=deletable, allow_delete=allow_delete, many=many
        )
        self.options = Options(programs=frozenset(programs), project_code=project_code, hosts=self.hosts)
        self.sql = SqlJudge(sql_dialect)
        self.python = PythonJudge(self.places)

    def check(self, entry: LogEntry) -> Vote:
        """Approve what is judged harmless; reject the rest with a code, a reason and a hint."""
        if entry.intent.arguments_blob is not None and not entry.action.arguments:
            return Vote(approved=False, reason="arguments.undecidable: the arguments are not at hand", hint=NO_RETRY)
        found = self.judge(entry.action)
        if found is None:
            return Vote(approved=True, reason="action safe")
        where = f" ({found.where})" if found.where else ""
        why = f"{found.code}: {found.reason}{where}"
        return Vote(approved=False, reason=why, hint=found.hint, code=found.code)

    def is_safe(self, action: Action) -> bool:
        """Whether nothing is wrong with an action."""
        return self.judge(action) is None

    def judge(self, action: Action) -> Finding | None:
        """The first thing that is wrong with an action; None if nothing is."""
        where = ""
        try:
            paths = 0
            for name, value in _texts(action.arguments):
                where = name
                kind = self._kind(action, name, value)
                paths += kind in ("delete", "read", "write", "move")
                self._text(action, kind, value)
            where = ""
            self._tool(action, paths)
        except Unsafe as error:
            found = error.finding
            return Finding(code=found.code, reason=found.reason, hint=found.hint, where=where)
        except Undecidable as error:
            found = undecidable(str(error)).finding
            return Finding(code=found.code, reason=found.reason, hint=found.hint, where=where)
        return None

    def _kind(self, action: Action, name: str, value: str) -> Kind:
        last = re.sub(r"\[\d+\]", "", name).rsplit(".", 1)[-1]
        bare = re.sub(r"\[\d+\]", "", name)
        for key in (f"{action.tool}.{bare}", f"{action.tool}.{last}", f"*.{last}"):
            if key in self.inputs:
                return self.inputs[key]
        return kind_of(action.tool, last, value, action.arguments, action.effect)

    def _text(self, action: Action, kind: Kind, value: str) -> None:
        if kind == "ignore":
            return
        if kind in ("shell", "python", "sql"):
            self._code(kind, value)
        elif kind in ("path", "read", "write", "delete", "move"):
            self._path(action, kind, value)
        elif kind == "url":
            self._url(action, value)
        if kind in ("content", "url") and SENDS.search(action.tool):
            secret = secret_in(value)
            if secret:
                raise Unsafe("content.secret", f"it would send {secret}", "Leave the secret out.")

    def _code(self, kind: Kind, value: str) -> None:
        if _PRIVATE.search(value):
            raise undecidable("it holds private characters", kind)
        if kind == "sql":
            self.sql.check(value)
        elif kind == "python":
            self.python.check(value)
        else:
            found = ShellJudge(self.places, self.options, self.python).judge(value)
            if found is not None:
                raise Unsafe(found.code, found.reason, found.hint)

    def _path(self, action: Action, kind: Kind, value: str) -> None:
        if not value:
            return
        folded = unicodedata.normalize("NFKC", value)
        decoded = unquote(value)
        if ODD.search(value) or _PRIVATE.search(value) or "\\" in value:
            raise undecidable("a path with hidden characters or backslashes", "path")
        if any(_separators(one) != _separators(value) for one in (folded, decoded)):
            raise undecidable("a path with encoded or look-alike characters", "path")
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", value):
            raise undecidable("an address instead of a path", "path")
        if value.startswith("~"):
            raise Unsafe("path.outside", "~ is not in the workspace", "Use paths in the workspace.")
        if kind == "read":
            self.places.read(value)
        elif kind == "move":
            self.places.move(value)
            self.places.read(value)
            for name in (
                "target",
                "destination",
                "dest",
                "dst",
                "to_path",
                "target_path",
                "destination_path",
                "new_path",
            ):
                target = action.arguments.get(name)
                if isinstance(target, str) and target:
                    self.places.displace(value, target)
        elif kind == "delete":
            if action.tool in self.allow_tools:
                return
            recursive = any(
                bool(action.arguments.get(one)) for one in ("recursive", "recurse", "force_recursive", "tree")
            )
            recursive = recursive or bool(re.search(r"(?i)tree|recursive|director|folder|all", action.tool))
            count = max((len(one) for one in action.arguments.values() if isinstance(one, list)), default=1)
            if any(one in value for one in "*?["):
                raise Unsafe("path.mass_delete", f"{value[:100]!r} may be many files", TO_QUARANTINE)
            self.places.delete(value, recursive=recursive, count=count)
        else:
            self.places.write(value)

    def _url(self, action: Action, value: str) -> None:
        check_url(value, self.hosts, "url")
        method = str(action.arguments.get("method", "")).upper()
        if method == "DELETE" and not self.allow_delete:
            raise Unsafe("url.remote_delete", "it deletes something on another machine")

    def _tool(self, action: Action, paths: int) -> None:
        """A tool whose name says that it destroys, with no argument that could be judged."""
        if paths or action.effect == "read" or self.allow_delete or action.tool in self.allow_tools:
            return
        if DELETES.search(action.tool) and action.effect in ("irreversible", "idempotent"):
            raise Unsafe(
                "tool.destructive",
                f"{action.tool} destroys something that cannot be judged here",
                "Ask the user to do it.",
            )

    def config(self) -> dict[str, Any]:
        places = self.places
        return {
            "pack": 1,
            "workspace": places.root if places.real else "",
            "deletable": list(places.deletable),
            "allow_delete": self.allow_delete,
            "many": places.many,
            "readable": list(places.readable),
            "writable": list(places.writable),
            "inputs": plain(self.inputs),
            "programs": sorted(self.options.programs),
            "hosts": list(self.hosts),
            "project_code": self.options.project_code,
            "allow_tools": sorted(self.allow_tools),
            "sql_dialect": self.sql.dialect,
        }


def _separators(path: str) -> int:
    return path.count("/") + path.count("..") + path.count("\\")


def _texts(arguments: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every text in the arguments, with where it stands."""
    if depth > DEPTH_MAX:
        raise undecidable("arguments that nest too deeply", "arguments")
    if isinstance(arguments, str):
        yield name, arguments
    elif isinstance(arguments, Mapping):
        for key, value in arguments.items():
            yield from _texts(value, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(arguments, list | tuple):
        if name.rsplit(".", 1)[-1] in ("argv", "args", "command", "cmd") and all(
            isinstance(one, str) for one in arguments
        ):
            import shlex

            yield name, shlex.join(arguments)
            return
        if len(arguments) > TEXTS_MAX:
            raise undecidable("too many arguments", "arguments")
        for place, value in enumerate(arguments):
            yield from _texts(value, f"{name}[{place}]", depth + 1)
