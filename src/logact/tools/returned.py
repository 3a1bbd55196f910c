"""What a tool returned, as the log can hold it.

A call that returned has had its effect, so no value of any kind makes a failure of it: a model that is told of a
failure may do the thing again. This file owns the one conversion; it never cuts a long value (``runtime.values``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from logact import codec
from logact.env_guest import guest
from logact.tools import schema
from logact.tools.answers import ImageResult

TEXT_CHARACTERS_MAX = 10_000
"""How much of the ``repr`` of a value stands for it where JSON cannot hold the value itself."""


def returned(value: Any) -> Any:
    """The value as plain data that JSON holds; images stay as they are. Never raises for any value.

    Structs, dataclasses, enums, paths, dates, sets, tuples and bytes (base64) become their JSON forms. NaN
    and infinities become null in the log. Anything else, or what holds it, goes round in a circle or nests too deep,
    becomes its ``repr``, behind words that say so and name what to return instead.
    """
    if value is None or isinstance(value, ImageResult | bool | float):
        return value
    try:
        with guest():
            items = [*value] if isinstance(value, list | tuple) else []
        if any(isinstance(item, ImageResult) for item in items):
            return [item if isinstance(item, ImageResult) else _as_data(item) for item in items]
    except Exception:
        return _as_text(value)
    return _as_data(value)


def _as_data(value: Any) -> Any:
    """The value as JSON holds it, or text in its place."""
    try:
        with guest():  # a value may convert itself
            plain = schema.plain(value)
        try:
            data = msgspec.json.encode(plain)
        except UnicodeEncodeError:
            plain = _replaced(plain)
            data = msgspec.json.encode(plain)
        codec.check_depth(data)
    except Exception:  # a value may fail in any way of its own
        return _as_text(value)
    return plain


def _as_text(value: Any) -> str:
    head = f"[{type(value).__name__}: JSON cannot hold this value; return text, numbers, lists or objects of them]"
    try:
        with guest():
            text = repr(value)[:TEXT_CHARACTERS_MAX]
    except Exception:
        return head
    return f"{head} {text}".encode("utf-8", "replace").decode()


def _replaced(value: Any) -> Any:
    """Text with lone surrogates (file names can hold them) made printable."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return value
