"""Which blobs an entry names: whoever copies records from one log to another has to take them along. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from logact.entry import BlobRef, Payload


def blobs_of(payload: Payload) -> Iterator[str]:
    """The digests of all blobs that a payload names."""
    return (digest for digest, _ in sized_blobs_of(payload))


def sized_blobs_of(payload: Payload) -> Iterator[tuple[str, int]]:
    """The digests of all blobs that a payload names, each with its size in bytes (-1: the payload does not say)."""
    context: Any = getattr(payload, "context", ())
    yield from ((one, -1) for one in context if isinstance(one, str))
    yield from _references(payload)


def _references(value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, BlobRef):
        yield value.digest, value.size
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _references(getattr(value, field))
    elif isinstance(value, tuple):
        for one in value:
            yield from _references(one)
    elif isinstance(value, dict):
        for one in value.values():
            if isinstance(one, msgspec.Struct):
                yield from _references(one)
