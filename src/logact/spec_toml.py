"""The text side of specifications: in which line a key stands, and values as TOML text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from logact.errors import SpecError

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")


def line_of(text: str, steps: Sequence[str | int]) -> int:
    """The line (from 1) where a path of the file stands; 0 if it is not found (an inline table, say)."""
    table: list[str | int] = []
    counts: dict[str, int] = {}
    best, depth = 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            name = header.group(2).strip("\"'")
            if header.group(1) == "[[":
                counts[name] = counts.get(name, -1) + 1
                table = [*name.split("."), counts[name]]
            else:
                table = list(name.split("."))
            here = table
        else:
            key, equals, _ = line.partition("=")
            if not equals or key.lstrip().startswith("#"):
                continue
            here = [*table, *(part.strip().strip("\"'") for part in key.split("."))]
        matched = len(here) if here == list(steps[: len(here)]) else 0
        if matched > depth:
            best, depth = number, matched
    return best


def pairs(table: dict[str, Any]) -> list[str]:
    """A table's lines, one for each key."""
    return [f"{_key(name)} = {_toml(value)}" for name, value in table.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # a JSON string is a TOML basic string, but for DEL, which TOML wants escaped
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    raise SpecError("TOML cannot hold this value", received=repr(value), expected="texts, numbers, lists, tables")
