"""A function's docstring as the descriptions that a model reads: Google style and reST. Pure text."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(
    r"^(args|arguments|parameters|params|returns?|raises|yields?|examples?|notes?|attributes|warnings?)\s*:\s*$", re.I
)
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_REST = re.compile(r"^:(param|parameter|arg|argument|type|returns?|rtype|raises)\b\s*([^:]*):\s*(.*)$")


def read_docstring(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The description, and one per argument, out of Google style (``Args:``) or reST (``:param x:``)."""
    description: list[str] = []
    found: dict[str, list[str]] = {}
    section, section_indent = "", 0
    target: list[str] | None = description
    for line in inspect.cleandoc(docstring or "").splitlines():
        text, indent = line.strip(), len(line) - len(line.lstrip())
        field = _REST.match(text)
        if field:
            name = field[2].split()[-1] if field[1] in ("param", "parameter", "arg", "argument") and field[2] else ""
            target = found.setdefault(name, []) if name else None
            if target is not None:
                target.append(field[3])
            continue
        if _SECTION.match(text) and indent == 0:
            section, section_indent, target = text.rstrip(" :").lower(), 0, None
            continue
        if section in ("args", "arguments", "parameters", "params"):
            entry = _GOOGLE.match(text)
            if text and indent > 0 and entry and (section_indent in (0, indent)):
                section_indent = indent
                target = found.setdefault(entry[1], [])
                target.append(entry[2])
                continue
            if text and indent == 0:
                section, target = "", description
        elif section and text and indent == 0:
            section, target = "", description
        if target is not None:
            target.append(text)
    paragraphs = re.sub(r"\n{3,}", "\n\n", "\n".join(description)).strip()
    return paragraphs, {name: " ".join(filter(None, lines)) for name, lines in found.items()}
