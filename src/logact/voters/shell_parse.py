"""Parses shell commands (POSIX, with the common parts of bash) into a tree. Runs nothing, and expands nothing.

Whoever judges a command must see what the shell will see. So this parser is strict: what it doesn't understand
raises :class:`Undecidable`, and never becomes something milder.
"""

from __future__ import annotations

import re
from typing import Any

from logact.voters.shell_tokens import DEPTH_MAX, Tokens
from logact.voters.shell_tree import (
    Compound,
    Function,
    Pending,
    Piece,
    Pipeline,
    Redirect,
    Sequence,
    Simple,
    Undecidable,
    Word,
    body_of,
)

__all__ = [
    "ODD",
    "Compound",
    "Function",
    "Piece",
    "Pipeline",
    "Redirect",
    "Sequence",
    "Simple",
    "Undecidable",
    "Word",
    "body_of",
    "parse",
]

COMMAND_CHARS_MAX = 50_000
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ue000-\uf8ff]")
"""Characters that hide what a text says: control, zero-width, direction marks, private use."""

RESERVED = frozenset(
    (
        *("if", "then", "elif", "else", "fi", "for", "in", "while", "until", "do", "done", "case", "esac"),
        *("{", "}", "!", "function", "select", "time", "[[", "]]", "coproc"),
    )
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")


def parse(text: str, depth: int = 0) -> Sequence:
    """The tree of a script. Raises Undecidable."""
    if len(text) > COMMAND_CHARS_MAX:
        raise Undecidable(f"longer than {COMMAND_CHARS_MAX} characters")
    if depth > DEPTH_MAX:
        raise Undecidable("nested too deeply")
    odd = ODD.search(text)
    if odd:
        raise Undecidable(f"it holds the invisible or control character U+{ord(odd[0]):04X}")
    parser = _Parser(text, depth)
    tree = parser.script(())
    if parser.kind:
        raise Undecidable(f"unexpected {parser.text!r}")
    return tree


class _Parser(Tokens):
    """A recursive descent over one text."""

    def substituted(self, text: str) -> tuple[Sequence, int]:
        """The command at the beginning of a text up to its closing parenthesis, and where it ends."""
        if self.depth > DEPTH_MAX:
            raise Undecidable("nested too deeply")
        inner = _Parser(text, self.depth + 1)
        tree = inner.script((")",))
        if inner.text != ")" or inner.kind != "op":
            raise Undecidable("a parenthesis that is not closed")
        return tree, inner.at

    def backquoted(self, text: str) -> Sequence:
        """The command that a text is."""
        return parse(text, self.depth + 1)

    def is_op(self, *texts: str) -> bool:
        """Whether the current token is one of these operators."""
        return self.kind == "op" and self.text in texts

    def is_reserved(self, *texts: str) -> bool:
        """Whether the current token is one of these reserved words, unquoted."""
        return self.kind == "word" and self.text in texts

    def expect(self, text: str) -> None:
        """Take this reserved word or operator."""
        if self.text != text or self.kind not in ("op", "word"):
            raise Undecidable(f"expected {text!r}, found {self.text!r}")
        self.advance()

    def newlines(self) -> None:
        """Skip line ends."""
        while self.kind == "nl":
            self.advance()

    def script(self, stop: tuple[str, ...]) -> Sequence:
        """Commands up to one of the operators or reserved words in ``stop``."""
        commands: list[Any] = []
        background = False
        if self.depth > DEPTH_MAX:
            raise Undecidable("nested too deeply")
        while True:
            self.newlines()
            if not self.kind or (self.text in stop and self.kind in ("op", "word")):
                return Sequence(tuple(commands), background)
            commands.append(self.pipeline())
            while self.is_op("&&", "||"):
                self.advance()
                self.newlines()
                commands.append(self.pipeline())
            if self.is_op(";", "&"):
                background = background or self.text == "&"
                self.advance()
            elif self.kind and self.kind != "nl" and not (self.text in stop and self.kind == "op"):
                raise Undecidable(f"unexpected {self.text!r}")

    def pipeline(self) -> Any:
        """Commands joined by ``|``."""
        while self.is_reserved("!", "time"):
            self.advance()
            if self.kind == "word" and self.text == "-p":
                self.advance()
        commands = [self.command()]
        while self.is_op("|", "|&"):
            self.advance()
            self.newlines()
            commands.append(self.command())
        return commands[0] if len(commands) == 1 else Pipeline(tuple(commands))

    def command(self) -> Any:
        """A simple or compound command, or a function."""
        self.depth += 1
        try:
            return self._command()
        finally:
            self.depth -= 1

    def _command(self) -> Any:
        if self.is_op("("):
            self.advance()
            if self.is_op("("):
                raise Undecidable("an arithmetic command")
            body = self.script((")",))
            self.expect(")")
            return Compound("subshell", (body,), self.redirects())
        if self.kind != "word" or self.text not in RESERVED:
            return self.simple()
        word = self.text
        if word == "{":
            self.advance()
            body = self.script(("}",))
            self.expect("}")
            return Compound("group", (body,), self.redirects())
        if word == "if":
            return self._if()
        if word in ("while", "until"):
            self.advance()
            condition = self.script(("do",))
            return self._loop((condition,))
        if word == "for":
            return self._for()
        if word == "case":
            return self._case()
        if word == "[[":
            return self._test()
        if word == "function":
            self.advance()
            name = self.text
            self.advance()
            if self.is_op("("):
                self.advance()
                self.expect(")")
            return self._function(name)
        raise Undecidable(f"{word!r} is not understood here")

    def _if(self) -> Compound:
        bodies: list[Any] = []
        while self.is_reserved("if", "elif"):
            self.advance()
            bodies.append(self.script(("then",)))
            self.expect("then")
            bodies.append(self.script(("elif", "else", "fi")))
        if self.is_reserved("else"):
            self.advance()
            bodies.append(self.script(("fi",)))
        self.expect("fi")
        return Compound("if", tuple(bodies), self.redirects())

    def _loop(self, bodies: tuple[Any, ...], variable: str = "", values: tuple[Word, ...] = ()) -> Compound:
        self.expect("do")
        body = self.script(("done",))
        self.expect("done")
        return Compound("loop", (*bodies, body), self.redirects(), variable, values)

    def _for(self) -> Compound:
        self.advance()
        if self.is_op("("):
            raise Undecidable("an arithmetic for")
        variable = self.text
        if self.kind != "word" or not _NAME.fullmatch(variable):
            raise Undecidable("a for without a name")
        self.advance()
        values: list[Word] = [(Piece("unknown"),)]
        self.newlines()
        if self.is_reserved("in"):
            self.advance()
            values = []
            while self.kind == "word":
                values.append(self.word)
                self.advance()
        if self.is_op(";"):
            self.advance()
        self.newlines()
        return self._loop((), variable, tuple(values))

    def _case(self) -> Compound:
        self.advance()
        bodies: list[Any] = [Simple(words=((Piece("text", "true"),), self.word))]
        self.advance()
        self.newlines()
        self.expect("in")
        self.newlines()
        while not self.is_reserved("esac"):
            if self.is_op("("):
                self.advance()
            while self.kind == "word" or self.is_op("|"):
                if self.kind == "word":
                    bodies.append(Simple(words=((Piece("text", "true"),), self.word)))
                self.advance()
            self.expect(")")
            bodies.append(self.script((";;", ";&", ";;&", "esac")))
            if self.is_op(";;", ";&", ";;&"):
                self.advance()
            self.newlines()
        self.expect("esac")
        return Compound("case", tuple(bodies), self.redirects())

    def _test(self) -> Simple:
        words: list[Word] = [(Piece("text", "test"),)]
        self.advance()
        while not self.is_reserved("]]"):
            if not self.kind or self.kind == "nl":
                raise Undecidable("[[ without ]]")
            if self.kind == "word":
                words.append(self.word)
            elif self.text not in ("&&", "||", "(", ")", "<", ">"):
                raise Undecidable(f"{self.text!r} in [[ ]]")
            self.advance()
        self.advance()
        return Simple(words=tuple(words), redirects=self.redirects())

    def _function(self, name: str) -> Function:
        self.newlines()
        body = self.command()
        if not isinstance(body, Compound):
            raise Undecidable("a function without a body")
        return Function(name, body)

    def redirects(self) -> tuple[Redirect, ...]:
        """The redirections that follow a compound command."""
        found: list[Redirect] = []
        while True:
            one = self.redirect()
            if one is None:
                return tuple(found)
            found.append(one)

    def redirect(self) -> Redirect | None:
        """One redirection, if there is one here; a number before it is its descriptor."""
        number = self.kind == "word" and (self.text.isdigit() or re.fullmatch(r"\{\w+\}", self.text))
        if (
            number
            and self.source[self.at : self.at + 1] in ("<", ">")
            and not self.source.startswith("(", self.at + 1)
        ):
            self.advance()
        if not (self.kind == "op" and self.text[0] in "<>&" and self.text not in ("&", "&&")):
            return None
        operator = self.text
        self.advance()
        if self.kind != "word":
            raise Undecidable("a redirection to nothing")
        target, text = self.word, self.text
        if operator in ("<<", "<<-"):
            quoted = any(one in text for one in "'\"\\")
            if any(piece.kind != "text" for piece in target):
                raise Undecidable("a here-document with a strange end")
            end = "".join(piece.text for piece in target)
            into: list[Word] = []
            self.awaiting.append((("\0" if quoted else "") + end, operator == "<<-", into))
            self.advance()
            return Pending(operator, target, None, into)
        self.advance()
        return Redirect(operator, target)

    def simple(self) -> Any:
        """Assignments, words and redirections; or a function's definition."""
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            one = self.redirect()
            if one is not None:
                redirects.append(one)
            elif self.kind == "word":
                found = _ASSIGNMENT.match(self.text)
                first = self.word[0] if self.word else Piece("text")
                if found and not words and first.kind == "text" and not first.quoted:
                    assignments.append((found[1], _value(self.word, found)))
                else:
                    words.append(self.word)
                self.advance()
            elif self.is_op("(") and len(words) == 1 and not assignments and not redirects:
                name = "".join(piece.text for piece in words[0])
                self.advance()
                self.expect(")")
                return self._function(name)
            else:
                break
        if not (assignments or words or redirects):
            raise Undecidable(f"unexpected {self.text!r}" if self.kind else "it ends too early")
        return Simple(tuple(assignments), tuple(words), tuple(redirects))


def _value(word: Word, found: re.Match[str]) -> Word:
    first = word[0]
    text = first.text[len(found[0]) :]
    rest = (Piece("text", text), *word[1:]) if text else word[1:]
    return (Piece("unknown"), *rest) if found[2] else rest
