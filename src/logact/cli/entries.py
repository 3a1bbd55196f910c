"""How ``logact log show`` shows entries: as rows, in detail, on a timeline, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from logact.cli import describe, look
from logact.core.views import named
from logact.entry import Entry
from logact.introspection.history import History


def renderer(
    detail: bool, timeline: bool, as_json: bool, several: bool, first_ms: int
) -> Callable[[Entry, str], list[str]]:
    """How an entry is shown: a function of it and of why it took no effect."""
    if as_json:
        return lambda entry, verdict: [
            msgspec.json.encode(describe.entry_json(entry, verdict)).decode(errors="replace")
        ]
    if detail:
        return _detail
    if timeline:
        return lambda entry, verdict: _timeline(entry, verdict, first_ms)
    return lambda entry, verdict: _row(entry, verdict, several)


def head() -> list[str]:
    """The heading of rows."""
    return [look.paint(f"{'POSITION':>8}  {'TIME':8}  {'KIND':10}  WHAT", None, bold=True)]


def _row(entry: Entry, verdict: str, several: bool) -> list[str]:
    head = f"{entry.position:>8}  {look.clock(entry.time_ms)}  {look.pad(entry.kind, 10)}  "
    if several:
        head += look.pad(entry.agent or look.glyph("dot"), 8) + "  "
    room = look.width() - look.cells(head)
    text = describe.what(entry)
    if not verdict:
        return [head + look.fit(text, room)]
    why = f"{look.glyph('none')} no effect: {verdict}"
    return [head + look.fit(text, room), " " * 10 + look.paint(look.fit(why, look.width() - 10), "yellow")]


def _timeline(entry: Entry, verdict: str, first_ms: int) -> list[str]:
    offset = (entry.time_ms - first_ms) / 1000
    mark = describe.mark(entry) or " "
    text = f"{entry.kind.lower()} {describe.what(entry)}"
    if verdict:
        text = f"{look.glyph('none')} {text} (no effect: {verdict})"
    head = f"{offset:>+10.3f} s  {entry.position:>8}  {look.pad(mark, 2)} "
    return [head + look.fit(text, look.width() - look.cells(head))]


def strips(told: History, positions: set[int]) -> list[str]:
    """The lives of these actions as marks, and what the marks mean."""
    actions = [action for key, action in sorted(told.state.actions.items()) if key in positions]
    if not actions:
        return []
    rows = [
        [str(one.id), named(one.intent), describe.strip(told.effective(one.id), one.status), one.status]
        for one in actions
    ]
    legend = " ".join(
        f"{look.glyph(name)}\u00a0{word}"
        for name, word in (
            ("intent", "intent"),
            ("approve", "for"),
            ("reject", "against"),
            ("commit", "commit"),
            ("abort", "abort"),
            ("start", "start"),
            ("ok", "done"),
            ("error", "failed"),
            ("doubt", "in doubt"),
        )
    )
    return [
        "",
        *look.table(rows, head=["ACTION", "TOOL", "LIFE", "STATUS"], right=[0]),
        "",
        *(line.replace("\u00a0", " ") for line in look.wrapped("", legend, label_width=0)),
    ]


def _detail(entry: Entry, verdict: str) -> list[str]:
    title = f"{entry.kind} {entry.position}"
    lines = [look.paint(title, None, bold=True)]
    fields: dict[str, Any] = {
        "time": look.moment(entry.time_ms),
        "author": f"{entry.author.role} {entry.author.name} (incarnation {entry.author.incarnation})",
        "agent": entry.agent,
        "run": entry.run or "",
        "action": entry.action or "",
        "no effect": verdict,
    }
    payload = msgspec.to_builtins(entry.payload)
    fields |= {name: one for name, one in payload.items() if name not in ("agent", "run")}
    fields |= {
        "size": look.size(entry.size),
        "record": entry.record_hash,
        "follows": entry.previous,
        "key": entry.key,
    }
    names = [name for name, one in fields.items() if one not in ("", None, [], {})]
    for name in names:
        one = fields[name]
        text = one if isinstance(one, str) else msgspec.json.encode(one).decode(errors="replace")
        lines += look.wrapped(name, text, indent=2, label_width=max(map(len, names)) + 2)
    return [*lines, ""]
