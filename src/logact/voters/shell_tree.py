"""What the shell's parser gives: words made of pieces, and the commands made of words. Shapes only."""

from __future__ import annotations

from typing import Any

import msgspec


class Undecidable(Exception):
    """The text can't be judged for certain; the message says why."""


class Piece(msgspec.Struct, frozen=True):
    """A part of a word. ``kind``: text, glob (unquoted), variable, command, arithmetic, process, unknown.

    ``quoted`` says that its value is not split into words; ``tree`` is the command of a substitution.
    """

    kind: str
    text: str = ""
    quoted: bool = False
    tree: Any = None


Word = tuple[Piece, ...]


class Redirect(msgspec.Struct, frozen=True):
    """``operator`` with its target; ``body`` is a here-document's (its pieces)."""

    operator: str
    target: Word
    body: Word | None = None


class Simple(msgspec.Struct, frozen=True):
    """Assignments, words and redirections."""

    assignments: tuple[tuple[str, Word], ...] = ()
    words: tuple[Word, ...] = ()
    redirects: tuple[Redirect, ...] = ()


class Pipeline(msgspec.Struct, frozen=True):
    """Commands joined by ``|``."""

    commands: tuple[Any, ...]


class Sequence(msgspec.Struct, frozen=True):
    """Commands one after another, whatever joins them (``;``, ``&&``, ``||``, ``&``, newline)."""

    commands: tuple[Any, ...]
    background: bool = False


class Compound(msgspec.Struct, frozen=True):
    """A group, subshell, loop or condition: its bodies run in some order, any number of times.

    ``variable`` and ``values`` are those of ``for``.
    """

    kind: str
    bodies: tuple[Any, ...]
    redirects: tuple[Redirect, ...] = ()
    variable: str = ""
    values: tuple[Word, ...] = ()


class Function(msgspec.Struct, frozen=True):
    """A function's definition."""

    name: str
    body: Any


class Pending(Redirect, frozen=True):
    """A here-document whose body stands further down."""

    into: list[Word] = []


def body_of(redirect: Redirect) -> Word | None:
    """A here-document's body."""
    if isinstance(redirect, Pending):
        if not redirect.into:
            raise Undecidable("a here-document without its body")
        return redirect.into[0]
    return redirect.body
