"""The whole recovery table from one source: effect, what the tool declares, what is known of executor and probe.

``cells`` is the product of everything; ``RULES`` says what becomes of each, first match first, in the words of
docs/recovery.md. The real lives behind it are in tests/runtime/test_recoverer.py and tests/supervision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from logact.core import recovering
from logact.core.state import Action
from logact.entry import EFFECTS, Effect, Intent

DOCS = Path(__file__).parent.parent.parent / "docs" / "recovery.md"


class Cell(NamedTuple):
    """One case: the action's effect, what its tool has, and what is known."""

    effect: Effect
    probe: bool
    safe_undo: bool
    gone: bool
    unknown: bool
    ended: bool
    offered: bool


def cells() -> Iterator[Cell]:
    """Every case that can come up."""
    for effect, flags in product(EFFECTS, product((False, True), repeat=6)):
        cell = Cell(effect, *flags)
        if cell.unknown and not cell.probe:
            continue  # only a probe can be unable to tell
        yield cell


def mild(cell: Cell) -> bool:
    """Whether doing it twice is doing it once."""
    return cell.effect in ("read", "idempotent")


RULES: list[tuple[str, str, Callable[[Cell], bool]]] = [
    ("wait", "| any | yes | | waits", lambda one: not one.gone),
    ("close", "is not started again", lambda one: mild(one) and one.ended),
    ("ask", "is not offered any more", lambda one: mild(one) and not one.offered),
    ("restart", "| `read`, `idempotent` | no | | started again under the same key |", mild),
    ("probe", "| a probe | asked", lambda one: one.probe and one.offered and not one.unknown),
    ("undo", "`safe_undo` | undone", lambda one: one.effect == "reversible" and one.safe_undo and one.offered),
    ("ask", "a probe that cannot tell", lambda one: one.unknown),
    ("ask", "**in doubt**: a person decides", lambda one: True),
]


def name(cell: Cell) -> str:
    """A cell in words, for test ids."""
    return "-".join([cell.effect, *(key for key in cell._fields[1:] if getattr(cell, key))])


@pytest.mark.parametrize("cell", list(cells()), ids=name)
def test_each_cell_is_what_the_table_says(cell: Cell) -> None:
    """The pure question gives, for each case, the step that its row names."""
    verb = next(verb for verb, _, holds in RULES if holds(cell))
    intent = Intent(
        run=1,
        agent="a",
        tool="t",
        effect=cell.effect,
        probe=cell.probe,
        undo=cell.effect == "reversible",
        safe_undo=cell.safe_undo,
    )
    step = recovering.next_step(
        Action(id=1, intent=intent, status="executing"),
        holder_gone=cell.gone,
        effect_now=cell.effect if cell.offered else None,
        can_probe=cell.probe and cell.offered,
        can_undo=cell.safe_undo and cell.offered,
        probe_said_unknown=cell.unknown,
        ended=cell.ended,
    )
    assert step.verb == verb, step
    assert step.reason


@pytest.mark.parametrize("now", EFFECTS)
@pytest.mark.parametrize("then", EFFECTS)
def test_the_stricter_of_then_and_now_counts(then: Effect, now: Effect) -> None:
    """A tool that became stricter, or milder, since its action was proposed is settled by the stricter one."""
    action = Action(id=1, intent=Intent(run=1, agent="a", tool="t", effect=then), status="executing")
    step = recovering.next_step(action, holder_gone=True, effect_now=now, can_probe=False, can_undo=False)
    strict = max(EFFECTS.index(then), EFFECTS.index(now)) >= EFFECTS.index("reversible")
    assert step.verb == ("ask" if strict else "restart")


def test_each_rule_is_a_row_of_the_page_and_decides_some_cell() -> None:
    """No rule is idle, and the page says each of them."""
    text = DOCS.read_text()
    decided = [next(row for _, row, holds in RULES if holds(cell)) for cell in cells()]
    for _, row, _ in RULES:
        assert row in text, row
        assert row in decided, row


def test_each_row_of_the_page_is_a_rule() -> None:
    """The page promises nothing that no cell tests: each row of its table is the row of some rule."""
    lines = DOCS.read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("| effect | executor alive"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    assert len(rows) >= len(RULES)
    for row in rows:
        assert any(said in row for _, said, _ in RULES), row
