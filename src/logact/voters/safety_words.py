"""What the words of a command become: variables, substitutions, braces and tildes, as far as they are known.

A text that isn't known holds ``UNKNOWN``; a name or relative path below the current directory ``INSIDE``.
Unquoted globs become private characters, so that a quoted ``*`` stays what it is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_places import GLOBS, HOME, INSIDE, UNKNOWN
from logact.voters.safety_secrets import is_secret_name
from logact.voters.shell_parse import Piece, Word

ALTERNATIVES_MAX = 64
FIELDS_MAX = 2000
_TO_GLOB = {plain: private for private, plain in GLOBS.items()}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d{1,6}|[A-Za-z])\.\.(-?\d{1,6}|[A-Za-z])(\.\.-?\d{1,6})?")
KNOWN = {"HOME": HOME, "PWD": ".", "IFS": " ", "TMPDIR": "/tmp", "PPID": "1", "UID": "1000", "EUID": "1000"}  # noqa: S108


class Scope:
    """What is known where a command runs: variables, functions, and the directories it may run in."""

    def __init__(self, bases: list[str]) -> None:
        self.variables: dict[str, list[str]] = {}
        self.functions: dict[str, Any] = {}
        self.running: tuple[str, ...] = ()
        self.bases = bases
        self.loop = False
        self.fed = ""  # what a pipe brings: "", INSIDE or UNKNOWN

    def copy(self) -> Scope:
        """For a subshell: what it changes stays in it."""
        new = Scope(list(self.bases))
        new.variables, new.functions = dict(self.variables), dict(self.functions)
        new.running, new.loop, new.fed = self.running, self.loop, self.fed
        return new

    def values(self, name: str) -> list[str]:
        """What a variable may hold."""
        if name in self.variables:
            return self.variables[name]
        if name in ("?", "#", "$", "!"):
            return ["0"]
        if name in KNOWN:
            return [KNOWN[name]]
        if is_secret_name(name):
            raise Unsafe("shell.secrets", f"${name} is named like a secret")
        return [UNKNOWN]


Substitute = Callable[[Any, Scope], str]
"""Judges the command of a substitution; answers what its output is."""


def expand(word: Word, scope: Scope, substitute: Substitute) -> list[str]:
    """The fields that a word becomes; alternatives one after another. Raises Unsafe."""
    found: list[list[str]] = [[""]]
    quoted = False
    for number, piece in enumerate(word):
        quoted = quoted or piece.quoted
        values = _values(piece, scope, substitute)
        if number == 0 and piece.kind == "text" and not piece.quoted and piece.text.startswith("~"):
            values = [_tilde(piece.text, alone=len(word) == 1)]
        split = piece.kind in ("variable", "command", "unknown") and not piece.quoted
        if len(found) * len(values) > ALTERNATIVES_MAX:
            raise undecidable("too many alternatives")
        found = [_joined(fields, value, split) for fields in found for value in values]
    if _has_braces(word):
        if any(piece.quoted for piece in word):
            raise undecidable("braces with quotes")
        found = [[one for field in fields for one in _braces(field)] for fields in found]
    flat = [field for fields in found for field in fields if field or quoted]
    if len(flat) > FIELDS_MAX:
        raise undecidable("too many words")
    return flat


def text_of(word: Word, scope: Scope, substitute: Substitute) -> list[str]:
    """The possible values of a word that isn't split: an assignment's, a here-document's."""
    found = [""]
    for number, piece in enumerate(word):
        values = _values(piece, scope, substitute)
        if number == 0 and piece.kind == "text" and not piece.quoted and piece.text.startswith("~"):
            values = [_tilde(piece.text, alone=len(word) == 1)]
        found = [before + value for before, value in itertools.product(found, values)]
        if len(found) > ALTERNATIVES_MAX:
            raise undecidable("too many alternatives")
    return found


def _values(piece: Piece, scope: Scope, substitute: Substitute) -> list[str]:
    if piece.kind == "text":
        return [piece.text]
    if piece.kind == "glob":
        return [_TO_GLOB[piece.text]]
    if piece.kind == "variable":
        values = scope.values(piece.text)
        return values if piece.quoted else [_globbed(value) for value in values]
    if piece.kind == "command":
        return [substitute(piece.tree, scope)]
    if piece.kind == "process":
        substitute(piece.tree, scope)
        return ["/dev/stdin"]
    if piece.kind == "arithmetic":
        return ["0"]
    if piece.text and is_secret_name(piece.text):
        raise Unsafe("shell.secrets", f"${piece.text} is named like a secret")
    return [UNKNOWN]


def _joined(fields: list[str], value: str, split: bool) -> list[str]:
    parts = re.split(r"[ \t\n]+", value) if split else [value]
    if len(parts) > 1 and UNKNOWN in value:
        raise undecidable("a value that is partly unknown and split")
    return [*fields[:-1], fields[-1] + parts[0], *parts[1:]]


def _tilde(text: str, *, alone: bool) -> str:
    head, slash, rest = text.partition("/")
    if head == "~" and (slash or alone):
        return HOME + slash + rest
    if head == "~+":
        return "." + slash + rest
    return "/home/" + head[1:] + slash + rest if re.fullmatch(r"~[\w-]+", head) else text


def _globbed(value: str) -> str:
    return "".join(_TO_GLOB.get(one, one) for one in value)


def _has_braces(word: Word) -> bool:
    text = "".join(piece.text for piece in word if not piece.quoted and piece.kind in ("text", "glob"))
    if any(piece.kind not in ("text", "glob") for piece in word):
        return bool(re.search(r"\{.*(,|\.\.).*\}", text))
    return bool(re.search(r"\{.*(,|\.\.).*\}", text, re.DOTALL))


def _braces(field: str, depth: int = 0) -> list[str]:
    for found in _BRACES.finditer(field):
        inner = found[1]
        if "," in inner:
            options = inner.split(",")
        elif span := _RANGE.fullmatch(inner):
            options = _range(span[1], span[2])
        else:
            continue
        if depth > 6 or len(options) > ALTERNATIVES_MAX * 4:
            raise undecidable("too many braces")
        made = (field[: found.start()] + one + field[found.end() :] for one in options)
        return [one for part in made for one in _braces(part, depth + 1)]
    return [field]


def _range(first: str, last: str) -> list[str]:
    if first.lstrip("-").isdigit() != last.lstrip("-").isdigit():
        raise undecidable("a range that mixes letters and numbers")
    if first.lstrip("-").isdigit():
        low, high = int(first), int(last)
        step = 1 if high >= low else -1
        if abs(high - low) > FIELDS_MAX:
            return [INSIDE]  # only digits
        return [str(one) for one in range(low, high + step, step)]
    step = 1 if ord(last) >= ord(first) else -1
    return [chr(one) for one in range(ord(first), ord(last) + step, step)]
