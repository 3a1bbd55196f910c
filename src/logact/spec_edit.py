"""One setting of a specification's text set, with as little changed as possible. Pure.

It only offers ways, the gentlest first: who uses one parses it and compares it with what was wanted, so a way that
does not fit a file (a line within a long text, say) is harmless.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from logact.spec_toml import line_of, pairs

_VALUE = r"""(?:"[^"]*"|'[^']*'|\[[^\]]*\]|[^,}\s]+)"""


def ways(text: str, setting: str, value: Any) -> Iterator[str]:
    """The text with a setting (``agent.limits.turns``): in its line, its inline table, its table, or a new one."""
    *section, key = setting.split(".")
    line = pairs({key: value})[0]
    lines = text.split("\n")
    yield from _in_its_line(text, lines, [*section, key], line)
    yield from _in_its_inline_table(text, lines, section, key, line)
    yield from _beneath(lines, section, line)
    yield text.rstrip() + f"\n\n[{'.'.join(section)}]\n{line}\n"
    for depth in range(len(section) - 1, -1, -1):  # where the table is made of dotted keys
        yield from _beneath(lines, section[:depth], f"{'.'.join(section[depth:])}.{line}")


def _in_its_line(text: str, lines: list[str], steps: list[str], line: str) -> Iterator[str]:
    at = line_of(text, steps)
    begun = _begins(lines[at - 1], steps[-1]) if at else None
    if begun is None:
        return
    end = _end(lines, at)
    old = lines[at - 1 : end]
    if end > at and any("#" in one for one in old):
        return  # comments between the items of a list
    made = lines[at - 1][: begun.start(1)] + line + ("" if end > at else _comment(old[0]))
    yield "\n".join([*lines[: at - 1], made, *lines[end:]])


def _in_its_inline_table(text: str, lines: list[str], section: list[str], key: str, line: str) -> Iterator[str]:
    at = line_of(text, section)
    begun = _begins(lines[at - 1], section[-1]) if at else None
    if begun is None:
        return
    old = lines[at - 1]
    opened = old.find("{", begun.end())
    closed = next((place for place, one in enumerate(old) if one == "}" and _parses(old[: place + 1])), 0)
    if not 0 <= opened < closed:
        return
    body = old[opened + 1 : closed]
    there = re.search(rf"(?<![\w.-]){re.escape(key)}\s*=\s*{_VALUE}", body)
    if there:
        body = body[: there.start()] + line + body[there.end() :]
    elif body.strip():
        kept = body.rstrip()
        body = f"{kept}, {line}{body[len(kept) :]}"
    else:
        body = f" {line} "
    yield "\n".join([*lines[: at - 1], old[: opened + 1] + body + old[closed:], *lines[at:]])


def _beneath(lines: list[str], table: list[str], line: str) -> Iterator[str]:
    """One line more at the beginning of a table (of the whole file, for no table)."""
    if not table:
        yield "\n".join([line, *lines])
        return
    name = r"\s*\.\s*".join(map(re.escape, table))
    header = re.compile(rf"\s*\[\s*{name}\s*\]\s*(#.*)?$")
    for place, one in enumerate(lines):
        if header.match(one):
            yield "\n".join([*lines[: place + 1], line, *lines[place + 1 :]])


def _begins(line: str, key: str) -> re.Match[str] | None:
    """``key =`` at the beginning of a line, perhaps after the names of tables; group 1 is the key."""
    return re.match(rf"\s*(?:[\w-]+\s*\.\s*)*({re.escape(key)})\s*=\s*", line)


def _end(lines: list[str], at: int) -> int:
    """The last line of the value that begins in a line."""
    return next((end for end in range(at, len(lines) + 1) if _parses("\n".join(lines[at - 1 : end]))), at)


def _comment(line: str) -> str:
    """What follows the value in its line, with the spaces before it."""
    for place, one in enumerate(line):
        if one == "#" and _parses(line[:place]):
            kept = line[:place].rstrip()
            return line[len(kept) :]
    return ""


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
