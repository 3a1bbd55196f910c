"""Splits shell text into words and operators, with quoting, substitutions and here-documents. Expands nothing."""

from __future__ import annotations

import re

from logact.voters.shell_tree import Piece, Sequence, Undecidable, Word

DEPTH_MAX = 30
_OPERATORS = ("<<<", "<<-", "&>>", ";;&", "&&", "||", ";;", ";&", "<<", ">>", "<&", ">&", "<>", ">|", "&>", "|&")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "e": "\x1b", "r": "\r"}


class Tokens:
    """One text, token by token. ``kind`` of the current one is "" at the end, "op", "word" or "nl".

    The grammar says how the command in a substitution is read (``substituted``, ``backquoted``).
    """

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
        return Piece("command", "", quoted, self.backquoted(inner))

    def substituted(self, text: str) -> tuple[Sequence, int]:
        """The command at the beginning of a text up to its closing parenthesis, and where it ends."""
        raise NotImplementedError

    def backquoted(self, text: str) -> Sequence:
        """The command that a text is."""
        raise NotImplementedError

    def _command_until_paren(self) -> Sequence:
        """The command of ``$(…)``, with ``at`` after the parenthesis; leaves it after the closing one."""
        tree, end = self.substituted(self.source[self.at :])
        self.at += end
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
                inner = object.__new__(type(self))
                inner.source, inner.depth, inner.at, inner.awaiting = text, self.depth + 1, 0, []
                into.append(tuple(inner._double_quoted("")))
        self.awaiting = []


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
