"""How things look on a terminal: widths, columns, glyphs, times, colours. Prints nothing by itself.

Colour repeats what words and shapes say already; it is left out where nobody sees it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec

from logact import env
from logact.errors import UsageError

COLUMN_MIN = 12
WIDTH_MAX = 120
WIDTH_MIN = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")

STATUS_COLOURS = {
    "proposed": "yellow",
    "validated": "blue",
    "executing": "blue",
    "in_doubt": "magenta",
    "rejected": "red",
    "failed": "red",
    "failed_final": "red",
    "undone": "cyan",
    "skipped": "cyan",
    "superseded": "cyan",
    "running": "blue",
    "stopped": "red",
}
"""Only what is not simply done has a colour."""

_GLYPHS = {
    "intent": ("●", "o"),
    "approve": ("▲", "+"),
    "reject": ("▼", "-"),
    "abstain": ("△", "~"),
    "commit": ("◆", "C"),
    "abort": ("✗", "x"),
    "start": ("━", "="),
    "ok": ("■", "#"),
    "error": ("□", "!"),
    "doubt": ("[?", "[?"),
    "recovery": ("↳", ">"),
    "arrow": ("→", "->"),
    "dot": ("·", "-"),
    "run": ("▸", ">"),
    "pause": ("‖", "|"),
    "none": ("✕", "x"),
    "more": ("…", "~"),
}


def glyph(name: str) -> str:
    """A mark; in plain ASCII where the terminal knows nothing else."""
    fancy, plain = _GLYPHS[name]
    encoding = (getattr(sys.stdout, "encoding", "") or "ascii").lower().replace("-", "")
    return fancy if encoding.startswith("utf") else plain


def width() -> int:
    """Columns to use: the terminal's (or COLUMNS), within reason; 80 where there is none."""
    return max(WIDTH_MIN, min(shutil.get_terminal_size((80, 24)).columns, WIDTH_MAX))


def clean(text: str) -> str:
    """One line, with nothing in it that could move the cursor or hide text."""
    return _CONTROL.sub(" ", text).strip()


def cells(text: str) -> int:
    """How many columns a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def fit(text: str, room: int) -> str:
    """The text in at most ``room`` columns; what is cut is marked."""
    if cells(text) <= room:
        return text
    mark = glyph("more")
    taken, used = "", len(mark)
    for one in text:
        used += cells(one)
        if used > room:
            break
        taken += one
    return taken.rstrip() + mark if room > 0 else ""


def pad(text: str, room: int) -> str:
    """The text in exactly ``room`` columns."""
    text = fit(text, room)
    return text + " " * (room - cells(text))


def paint(text: str, colour: str | None, *, bold: bool = False) -> str:
    """Coloured text. ``click.echo`` takes the colours out again where nobody sees them."""
    if "NO_COLOR" in os.environ or (colour is None and not bold):
        return text
    return click.style(text, fg=colour, bold=bold or None)


def wrapped(label: str, text: str, *, indent: int = 0, label_width: int = 11) -> list[str]:
    """``label  text`` over as many lines as it takes, the text in a column of its own."""
    room = width() - indent - label_width
    lines: list[str] = []
    for paragraph in str(text).splitlines() or [""]:
        line = ""
        for word in _CONTROL.sub(" ", paragraph).split(" "):
            rest = word
            while cells(rest) > room:
                if line:
                    lines.append(line)
                    line = ""
                part = rest[: max(1, room // 2 if cells(rest[:room]) > room else room)]
                lines.append(part)
                rest = rest[len(part) :]
            if line and cells(line) + 1 + cells(rest) > room:
                lines.append(line)
                line = rest
            else:
                line = f"{line} {rest}" if line else rest
        lines.append(line)
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    first = " " * indent + pad(label, label_width) + lines[0]
    return [first.rstrip(), *((" " * (indent + label_width) + line).rstrip() for line in lines[1:])]


def table(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), right: Sequence[int] = ()) -> list[str]:
    """Aligned columns; the last one takes what room is left, and is cut there.

    Where long names leave it too little, the widest columns of text are cut first.
    """
    every = [*([head] if head else []), *rows]
    if not every:
        return []
    columns = len(every[0])
    widths = [max(cells(row[place]) for row in every) for place in range(columns - 1)]
    least = min(COLUMN_MIN, max(cells(row[-1]) for row in every))
    while sum(widths) + 2 * len(widths) + least > width():
        given = [place for place in range(columns - 1) if place not in right and widths[place] > COLUMN_MIN]
        if not given:
            break
        widths[max(given, key=widths.__getitem__)] -= 1
    room = max(10, width() - sum(widths) - 2 * len(widths))
    lines = []
    for row in every:
        parts = [
            " " * (widths[place] - cells(one)) + one if place in right else pad(one, widths[place])
            for place, one in enumerate(row[:-1])
        ]
        lines.append("  ".join([*parts, fit(row[-1], room)]).rstrip())
    return lines


# --- values ----------------------------------------------------------------------------------------------------


def value(found: Any, room: int = 200) -> str:
    """A value in one line."""
    if isinstance(found, str):
        return fit(clean(found), room)
    return fit(clean(msgspec.json.encode(found).decode(errors="replace")), room)


def plain(thing: Any) -> Any:
    """A struct as a JSON object with every key, defaults too: what machines read has stable keys."""
    if isinstance(thing, msgspec.Struct):
        return {name: plain(getattr(thing, name)) for name in thing.__struct_fields__}
    if isinstance(thing, dict):
        return {str(key): plain(one) for key, one in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(one) for one in thing]
    return thing


def arguments(given: dict[str, Any], room: int = 200) -> str:
    """A call's arguments in one line: ``path=a.txt limit=3``."""
    parts = []
    for name, one in given.items():
        text = value(one)
        if isinstance(one, str) and (" " in text or not text):
            text = f'"{text}"'
        parts.append(f"{name}={text}")
    return fit(" ".join(parts), room)


def duration(ms: float) -> str:
    """``12 ms``, ``3.4 s``, ``5 min 10 s``, ``2 h 5 min``."""
    if ms < 0.5:
        return "<1 ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(int(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def size(count: int) -> str:
    """``512 B``, ``3.2 kB``, ``1.5 MB``."""
    if count < 1000:
        return f"{count} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < factor * 1000 or unit == "GB":
            return f"{count / factor:.1f} {unit}"
    return str(count)


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


# --- times -----------------------------------------------------------------------------------------------------


def _local(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000).astimezone()


def clock(ms: int) -> str:
    """The time of day, local."""
    return _local(ms).strftime("%H:%M:%S") if ms else "-"


def moment(ms: int) -> str:
    """Date and time, local."""
    return _local(ms).strftime("%Y-%m-%d %H:%M:%S") if ms else "-"


def iso(ms: int) -> str:
    """Date and time with zone, for machines."""
    return _local(ms).isoformat(timespec="milliseconds")


_AGO = re.compile(r"-?(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_time(text: str) -> int:
    """Wall time in ms from ``-3h``, ``15min``, ``2026-11-22``, ``2026-11-22T10:00``, ``10:30``, ``today``."""
    text = text.strip()
    now_ms = env.current().wall_ms()
    ago = _AGO.fullmatch(text)
    if ago:
        return int(now_ms - float(ago.group(1)) * _UNITS[ago.group(2)])
    here = _local(now_ms)
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return int((midnight - timedelta(days=text == "yesterday")).timestamp() * 1000)
    clocked = re.fullmatch(r"(\d{1,2}):(\d\d)(?::(\d\d))?", text)
    try:
        if clocked:
            hour, minute, second = (int(part or 0) for part in clocked.groups())
            return int(midnight.replace(hour=hour, minute=minute, second=second).timestamp() * 1000)
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except ValueError:
        raise UsageError(
            "This is not a time",
            received=text,
            expected="-3h, -15min, -2d, today, 10:30, 2026-11-22 or 2026-11-22T10:30",
        ) from None
