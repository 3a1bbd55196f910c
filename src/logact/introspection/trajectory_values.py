"""Values of recordings from elsewhere: texts, times and tokens in whatever form they come. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from logact.entry import Usage


def text_of(value: Any) -> str:
    """A text out of what may be a text, parts with texts, or anything."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        parts = [_part(one) if isinstance(one, dict) else text_of(one) for one in value]
        return "\n".join(part for part in parts if part)
    return msgspec.json.encode(value).decode(errors="replace")


def _part(one: dict[str, Any]) -> str:
    """A part's text; of one without (an image) only that it was there."""
    if "text" in one or "content" in one:
        return text_of(one.get("text", one.get("content")))
    return f"[{text_of(one.get('type')) or 'a part without text'}]"


def time_of(one: dict[str, Any]) -> int:
    """Wall time in ms (0: not recorded): ISO text, or seconds or ms since 1970."""
    given = one.get("timestamp", one.get("created_at", one.get("created")))
    if isinstance(given, str):
        try:
            return int(datetime.fromisoformat(given).timestamp() * 1000)
        except ValueError:
            return 0
    if isinstance(given, int | float) and not isinstance(given, bool) and 1e8 < given < 1e14:
        return int(given if given > 1e11 else given * 1000)
    return 0


def usage_of(given: dict[str, Any]) -> Usage:
    """Tokens and cost; what a cache had is part of the input, whether the provider counts it there or beside it."""

    def number(*names: str) -> int:
        return next((int(given[name]) for name in names if isinstance(given.get(name), int)), 0)

    details = given.get("prompt_tokens_details", given.get("input_tokens_details"))
    inside = details.get("cached_tokens") if isinstance(details, dict) else None
    fresh = number("input_tokens", "prompt_tokens")
    beside = number("cache_read_input_tokens")  # Anthropic's input_tokens are those that no cache had
    made = number("cache_creation_input_tokens")
    cached = beside or number("cached_tokens") or (inside if isinstance(inside, int) else 0)
    cost = given.get("cost_usd")
    return Usage(
        input_tokens=fresh + beside + made,
        output_tokens=number("output_tokens", "completion_tokens"),
        cached_tokens=cached,
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
    )


_REJECTED = "REJECTED: "


def failure_in(text: str) -> str:
    """What a call's result says of a failure, in the words in which ``conversing`` exports one ("" if nothing).

    ``FAILED (kind): message`` gives ``kind: message``, and ``REJECTED: reason`` gives ``rejected: reason``.
    """
    failed = re.match(r"FAILED \((\w+)\): ", text)
    if failed is not None:
        return f"{failed[1]}: {text[failed.end() :]}"
    return f"rejected: {text[len(_REJECTED) :]}" if text.startswith(_REJECTED) else ""
