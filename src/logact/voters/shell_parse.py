"""Parses shell commands (POSIX, with the common parts of bash) into a tree. Runs nothing, and expands nothing.

Whoever judges a command must see what the shell will see. So this parser is strict: what it doesn't understand
raises :class:`Undecidable`, and never becomes something milder.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

COMMAND_CHARS_MAX = 50_000
DEPTH_MAX = 30
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ue000-\uf8ff]")
"""Characters that hide what a text says: control, zero-width, direction marks, private use."""

RESERVED = frozenset(
    (
        *("if", "then", "elif", "else", "fi", "for", "in", "while", "until", "do", "done", "case", "esac"),
        *("{", "}", "!", "function", "select", "time", "[[", "]]", "coproc"),
    )
)
_OPERATORS = ("<<<", "<<-", "&>>", ";;&", "&&", "||", ";;", ";&", "<<", ">>", "<&", ">&", "<>", ">|", "&>", "|&")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "e": "\x1b", "r": "\r"}


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


class _Parser:
    """A recursive descent over one text. ``kind`` of the current token is "" at the end, "op", "word" or "nl"."""

    def __init__(self, source: str, depth: int) -> None:
        self.source = source
        self.depth = depth
        self.at = 0
        self.kind = ""
        self.text = ""
        self.word: Word = ()
        self.awaiting: list[tuple[str, bool, list[Word]]] = []
        self.advance()

    # --- tokens ------------------------------

    def advance(self) -> None:
        """Read the next token."""
        source = self.source
        while self.at < len(source):
            if source[self.at] in " \t":
                self.at += 1
            elif source.startswith("\\\n", self.at):
                self.at += 2
            elif source[self.at] == "#":
                end = source.find("\n", self.at)
                self.at = len(source) if end < 0 else end
            else:
                break
        self.word = ()
        if self.at >= len(source):
            if self.awaiting:
                raise Undecidable("a here-document without its end")
            self.kind = self.text = ""
            return
        one = source[self.at]
        if one == "\n":
            self.at += 1
            self.kind, self.text = "nl", "\n"
            self._here_documents()
            return
        if one in "<>" and source.startswith("(", self.at + 1):
            self._word()
            return
        for operator in _OPERATORS:
            if source.startswith(operator, self.at):
                self.at += len(operator)
                self.kind, self.text = "op", operator
                return
        if one in "|&;()<>":
            self.at += 1
            self.kind, self.text = "op", one
            return
        self._word()

    def _word(self) -> None:
        begin = self.at
        pieces: list[Piece] = []
        source = self.source
        while self.at < len(source):
            one = source[self.at]
            if one in " \t\n|&;()" or (one in "<>" and not source.startswith("(", self.at + 1)):
                if one == "(" and pieces and source[self.at - 1] in "?*+@!":
                    raise Undecidable("an extended glob")
                if one == "(" and self.at > begin and source[self.at - 1] == "=":
                    raise Undecidable("an array")
                break
            if one in "<>":
                self.at += 2
                pieces.append(Piece("process", "", True, self._command_until_paren()))
            else:
                pieces.extend(self._piece(one))
        self.kind, self.text, self.word = "word", source[begin : self.at], tuple(pieces)

    def _piece(self, one: str) -> list[Piece]:
        source = self.source
        if one == "'":
            end = source.find("'", self.at + 1)
            if end < 0:
                raise Undecidable("a quote that is not closed")
            text = source[self.at + 1 : end]
            self.at = end + 1
            return [Piece("text", text, True)]
        if one == '"':
            self.at += 1
            return self._double_quoted()
        if one == "\\":
            if source.startswith("\n", self.at + 1):
                self.at += 2
                return []
            if self.at + 1 >= len(source):
                raise Undecidable("a backslash at the end")
            self.at += 2
            return [Piece("text", source[self.at - 1], True)]
        if one == "$":
            return [self._dollar(quoted=False)]
        if one == "`":
            return [self._backquoted(quoted=False)]
        if one in "*?[":
            self.at += 1
            return [Piece("glob", one)]
        begin = self.at
        while self.at < len(source) and source[self.at] not in " \t\n|&;()<>'\"\\$`*?[":
            self.at += 1
        return [Piece("text", source[begin : self.at])]

    def _double_quoted(self, end: str = '"') -> list[Piece]:
        """Up to the closing quote; with ``end`` "" to the end of the text (a here-document)."""
        source = self.source
        pieces: list[Piece] = []
        text = ""
        while True:
            if self.at >= len(source):
                if end:
                    raise Undecidable("a quote that is not closed")
                break
            one = source[self.at]
            if one == end:
                self.at += 1
                break
            if one == "\\" and self.at + 1 < len(source) and source[self.at + 1] in '$`"\\\n':
                text += "" if source[self.at + 1] == "\n" else source[self.at + 1]
                self.at += 2
            elif one in "$`":
                if text:
                    pieces.append(Piece("text", text, True))
                    text = ""
                pieces.append(self._dollar(quoted=True) if one == "$" else self._backquoted(quoted=True))
            else:
                text += one
                self.at += 1
        return [*pieces, Piece("text", text, True)] if text or not pieces else pieces

    def _dollar(self, *, quoted: bool) -> Piece:
        source = self.source
        self.at += 1
        rest = source[self.at : self.at + 1]
        if source.startswith("((", self.at):
            end = source.find("))", self.at)
            inner = source[self.at + 2 : end]
            if end < 0 or not _is_arithmetic(inner):
                raise Undecidable("arithmetic with substitutions")
            self.at = end + 2
            return Piece("arithmetic", inner, True)
        if rest == "(":
            self.at += 1
            return Piece("command", "", quoted, self._command_until_paren())
        if rest == "{":
            end = source.find("}", self.at)
            inner = source[self.at + 1 : end] if end > 0 else ""
            self.at = end + 1
            return _parameter(inner, quoted)
        if rest == "'" and not quoted:
            return self._ansi_quoted()
        if rest == '"' and not quoted:
            raise Undecidable("a translated text")
        found = _NAME.match(source, self.at)
        if found:
            self.at = found.end()
            return Piece("variable", found[0], quoted)
        if rest and rest in "?#$!@*-0123456789":
            self.at += 1
            return Piece("variable", rest, quoted)
        if rest == "[":
            raise Undecidable("old arithmetic")
        return Piece("text", "$", True)

    def _ansi_quoted(self) -> Piece:
        source = self.source
        self.at += 1
        text = ""
        while True:
            if self.at >= len(source):
                raise Undecidable("a quote that is not closed")
            one = source[self.at]
            self.at += 1
            if one == "'":
                return Piece("text", text, True)
            if one != "\\":
                text += one
                continue
            found = re.compile(r"x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})").match(
                source, self.at
            )
            if found:
                self.at = found.end()
                number = int(found[4], 8) & 255 if found[4] else int(found[1] or found[2] or found[3], 16)
                if not 0 < number < 0x80:
                    raise Undecidable("an escaped character")
                text += chr(number)
            elif source[self.at : self.at + 1] in _SIMPLE_ESCAPES and self.at < len(source):
                text += _SIMPLE_ESCAPES[source[self.at]]
                self.at += 1
            else:
                raise Undecidable("an escape that is not understood")

    def _backquoted(self, *, quoted: bool) -> Piece:
        source = self.source
        self.at += 1
        inner = ""
        while self.at < len(source) and source[self.at] != "`":
            if source[self.at] == "\\" and self.at + 1 < len(source):
                if source[self.at + 1] not in "$`\\":
                    inner += "\\"
                inner += source[self.at + 1]
                self.at += 2
            else:
                inner += source[self.at]
                self.at += 1
        if self.at >= len(source):
            raise Undecidable("a backquote that is not closed")
        self.at += 1
        return Piece("command", "", quoted, parse(inner, self.depth + 1))

    def _command_until_paren(self) -> Sequence:
        """The command of ``$(…)``, with ``at`` after the parenthesis; leaves it after the closing one."""
        if self.depth > DEPTH_MAX:
            raise Undecidable("nested too deeply")
        inner = _Parser(self.source[self.at :], self.depth + 1)
        tree = inner.script((")",))
        if inner.text != ")" or inner.kind != "op":
            raise Undecidable("a parenthesis that is not closed")
        self.at += inner.at
        return tree

    def _here_documents(self) -> None:
        for end, strip, into in self.awaiting:
            lines: list[str] = []
            while True:
                if self.at >= len(self.source):
                    raise Undecidable("a here-document without its end")
                stop = self.source.find("\n", self.at)
                stop = len(self.source) if stop < 0 else stop
                line = self.source[self.at : stop]
                self.at = stop + 1
                line = line.lstrip("\t") if strip else line
                if line == end.removeprefix("\0"):
                    break
                lines.append(line + "\n")
            text = "".join(lines)
            if end.startswith("\0"):
                into.append((Piece("text", text, True),))
            else:
                inner = object.__new__(_Parser)
                inner.source, inner.depth, inner.at, inner.awaiting = text, self.depth + 1, 0, []
                into.append(tuple(inner._double_quoted("")))
        self.awaiting = []

    # --- grammar ------------------------------

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
            return _Pending(operator, target, None, into)
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


class _Pending(Redirect, frozen=True):
    """A here-document whose body stands further down."""

    into: list[Word] = []


def body_of(redirect: Redirect) -> Word | None:
    """A here-document's body."""
    if isinstance(redirect, _Pending):
        if not redirect.into:
            raise Undecidable("a here-document without its body")
        return redirect.into[0]
    return redirect.body


def _value(word: Word, found: re.Match[str]) -> Word:
    first = word[0]
    text = first.text[len(found[0]) :]
    rest = (Piece("text", text), *word[1:]) if text else word[1:]
    return (Piece("unknown"), *rest) if found[2] else rest


def _parameter(inner: str, quoted: bool) -> Piece:
    if _NAME.fullmatch(inner) or inner in ("?", "#", "@", "*", "!", "$") or inner.isdigit():
        return Piece("variable", inner, quoted)
    if re.fullmatch(r"#[A-Za-z_]\w*", inner):
        return Piece("arithmetic", inner, True)
    found = re.match(r"([A-Za-z_]\w*|[0-9@*])", inner)
    # ${x:-y} and the like: what they do is not followed, so their value is unknown
    if not found or any(one in inner for one in "$`({<>'\"\\") or inner[len(found[0]) :].startswith(("@", "[")):
        raise Undecidable(f"the expansion ${{{inner}}}")
    return Piece("unknown", found[0], quoted)


def _is_arithmetic(inner: str) -> bool:
    """Whether the text of ``$((…))`` is nothing but arithmetic; bash would run the rest as a command."""
    if not re.fullmatch(r"[A-Za-z0-9_ +*/%<>=!&|^~?:,()-]*", inner):
        return False
    depth = 0
    for one in inner:
        depth += (one == "(") - (one == ")")
        if depth < 0:
            return False
    return depth == 0
