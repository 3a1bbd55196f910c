"""Values of any size into entries and back: what is large travels as a blob next to the log."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from logact import codec
from logact.entry import BlobRef

INLINE_BYTES_MAX = 16 * 1024
"""Larger values are moved to the blob store."""

OUTPUT_BYTES_MAX = 8 * 1024 * 1024
"""The largest value that a tool may return; what is beyond is cut, and marked as cut."""

PREVIEW_CHARS = 2000


class Stored(NamedTuple):
    """A value as an entry holds it: in place, or as a blob with its bytes; ``truncated`` if it was cut."""

    value: Any
    blob: BlobRef | None
    data: bytes
    truncated: bool


def pack(value: Any, *, bytes_max: int = OUTPUT_BYTES_MAX) -> Stored:
    """Prepare a JSON-able value for an entry. TypeError, ValueError or RecursionError if it cannot be stored."""
    truncated = False
    if isinstance(value, str) and len(value) > bytes_max:
        value, truncated = cut(value, bytes_max), True
    data = msgspec.json.encode(value)
    codec.check_depth(data)
    if len(data) > bytes_max:
        value, truncated = cut(data.decode(), bytes_max), True
        data = msgspec.json.encode(value)
    if len(data) <= INLINE_BYTES_MAX:
        return Stored(value, None, b"", truncated)
    text = value if isinstance(value, str) else data[: PREVIEW_CHARS * 2].decode(errors="replace")
    ref = BlobRef(digest=codec.digest(data), size=len(data), preview=text[:PREVIEW_CHARS])
    return Stored(None, ref, data, truncated)


def unpack(data: bytes) -> Any:
    """A packed value from its blob."""
    return msgspec.json.decode(data)


def printable(text: str) -> str:
    """The text with what UTF-8 cannot hold replaced (names of files may be such)."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str, chars_max: int) -> str:
    """The head and the tail of a text that is too long, with what was left out counted in the middle."""
    if len(text) <= chars_max:
        return text
    half = max(0, chars_max - 60) // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:] if half else ''}"
