"""Reads argument values the way a tool would: URLs, e-mail addresses and paths as what they are, not as text.

Each reader answers ``None`` for what it can't read for certain. The caller decides what that means; it never
means "does not match, so it passes".
"""

from __future__ import annotations

import os
import re
from email.utils import parseaddr
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

_LOCAL_PART = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"{_LOCAL_PART}@([^\s@<>,;:\"()\[\]\\]+)")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_QUAD = re.compile(r"(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
PORTS = {"http": 80, "https": 443, "ftp": 21, "ws": 80, "wss": 443}


class Url(NamedTuple):
    """The parts of a URL that rules speak of; the host in lower case, ASCII, without a final dot."""

    scheme: str
    host: str
    port: int
    path: str


def host_of(text: str) -> str | None:
    """A host name in its one canonical form; None for what only some programs would read as a host."""
    name = text.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    if ":" in name:  # IPv6, already without its brackets
        return name if re.fullmatch(r"[0-9a-f:.]+", name) else None
    if _NUMERIC.fullmatch(name) and not (_QUAD.fullmatch(name) and all(int(part) < 256 for part in name.split("."))):
        return None  # 0x7f.1 or 2130706433: an address in disguise
    return name if _HOST.fullmatch(name) else None


def url_of(value: Any) -> Url | None:
    """A URL's parts. None for anything that two parsers could read differently."""
    if not isinstance(value, str) or _UNSAFE.search(value):
        return None
    try:
        parts = urlsplit(value)
        given = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname or "%" in parts.netloc:
        return None
    host = host_of(parts.hostname)
    if host is None:
        return None
    path = unquote(parts.path or "/")
    if "/../" in path + "/" or "/./" in path + "/" or "\\" in path:
        return None
    return Url(parts.scheme, host, given if given is not None else PORTS.get(parts.scheme, 0), path)


def domain_of(value: Any) -> str | None:
    """The domain of one e-mail address, ``a@b.example`` or ``Name <a@b.example>``."""
    if not isinstance(value, str) or any(ord(one) < 32 for one in value):
        return None
    text = value.strip()
    if text.endswith(">") and text.count("<") == 1:
        shown, text = text[: text.index("<")], text[text.index("<") + 1 : -1]
        if "@" in shown or "," in shown or parseaddr(value)[1] != text:
            return None
    found = _ADDRESS.fullmatch(text)
    return host_of(found[1]) if found else None


def place_of(value: Any, root: str, *, resolve: bool = True) -> str | None:
    """An absolute path without ``..`` and (if ``resolve``) without links, as far as it exists.

    Relative ones start at ``root``. ``~`` and NUL make it unreadable: a shell and a tool would differ.
    """
    if not isinstance(value, str) or not value or "\0" in value or value.startswith("~"):
        return None
    joined = value if value.startswith("/") else f"{root}/{value}"
    try:
        return os.path.realpath(joined) if resolve else os.path.normpath(joined)
    except (OSError, ValueError):
        return None


def is_under(place: str, directory: str) -> bool:
    """Whether a resolved path is a resolved directory or lies beneath it."""
    return place == directory or place.startswith(directory.rstrip("/") + "/")


def host_matches(host: str, patterns: tuple[str, ...]) -> bool:
    """Whether a canonical host is one of these names or globs (``*.example.com`` does not hold the bare name)."""
    return any(host == pattern or fnmatchcase(host, pattern) for pattern in patterns)


def same(left: Any, right: Any) -> bool:
    """Equality as JSON has it: 1 is not true, 1 is 1.0, and so inside of lists and objects."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)
