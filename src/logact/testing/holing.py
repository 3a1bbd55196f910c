"""A recorded log with a hole: an entry erased, or a record lost, and what a fold makes of the rest.

It judges by ``core.invariants`` and keeps nothing. The hole is made as an erasure and a repair make it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence

import msgspec

from logact.core import machine
from logact.core.holes import MISSING
from logact.core.invariants import check_state, require
from logact.core.state import Action, State
from logact.entry import Author, Cancel, Entry, ErasedPayload, Notice, position_of, record_of

DONE = frozenset({"rejected", "failed", "undone", "skipped", "failed_final", "superseded"})
"""Ends that must not turn into "executed"."""


def erased_at(entries: Sequence[Entry], position: int) -> list[Entry]:
    """The entries, one of which has lost its payload."""
    return [
        msgspec.structs.replace(one, payload=ErasedPayload(kind=one.kind)) if one.position == position else one
        for one in entries
    ]


def lost_at(entries: Sequence[Entry], record: int) -> list[Entry]:
    """The entries without one record; a notice stands in its place, as after a repair."""
    left = [one for one in entries if record_of(one.position) < record]
    instead = Entry(
        position=position_of(record),
        kind="Notice",
        payload=Notice(code=MISSING, message="this record was lost"),
        author=Author("operator", "repair", "repair"),
        time_ms=0,
        log=entries[0].log,
        number=1,
        record_hash="repair",
    )
    return [*left, instead, *(one for one in entries if record_of(one.position) > record)]


def closed(state: State) -> State:
    """The fold after every run was ended, as a repair ends them."""
    for run in list(state.runs):
        position = (record_of(state.position) + 1) * 1000
        end = Entry(
            position=position,
            kind="Cancel",
            payload=Cancel(scope=f"run:{run}", reason="records are missing"),
            author=Author("operator", "repair", f"repair{position}"),
            time_ms=0,
            log=state.log,
            number=1,
            record_hash=f"repair{position}",
        )
        state = machine.apply(state, end)
    return state


def check_hole(
    whole: State, holed: State, what: str, *, gone: Iterable[int] = (), claimed: Collection[int] = ()
) -> None:
    """Nothing that was started without a result has vanished, and no end has become a better one. ``gone`` are
    records, and actions whose result is what is gone: of those the fold may know nothing. ``claimed`` are actions
    of which somebody wrote a result who never started them; where a start may be lost, nothing tells him apart."""
    check_state(holed)
    without = set(gone)
    left = {one.id for one in holed.unfinished()}
    for action in whole.actions.values():
        if action.status in ("executing", "in_doubt") and not without & {action.id, record_of(action.id)}:
            found = holed.actions.get(action.id)
            now = found.status if found is not None else "unknown"
            known = action.id in left or _is_as_well(action, found, holed)
            require("holes_hide_nothing", known, f"{what}: action {action.id} is {now}, not in doubt")
    for action in holed.actions.values():
        before = whole.actions.get(action.id)
        better = (
            action.id not in claimed and before is not None and before.status in DONE and action.status == "executed"
        )
        was = before.status if before is not None else ""
        require("holes_hide_nothing", not better, f"{what}: action {action.id} was {was}, and is executed")


def _is_as_well(action: Action, found: Action | None, holed: State) -> bool:
    """Whether an action that may happen twice is known well enough without being in doubt: it waits to be started
    again, as without the hole; or it has a result of its first attempt, and what is gone is that it was started anew.
    """
    if found is None or action.intent.effect not in ("read", "idempotent"):
        return False
    waits = action.restart_allowed and found.id in holed.open_actions
    return waits or (found.status == "executed" and any(one.reported for one in action.attempts))


def check_holes(entries: Sequence[Entry], *, dice: random.Random | None = None, keep: bool = True) -> int:
    """Erase each entry and lose each record in turn (with ``dice``: three erased and two lost). Returns how many
    holes were made. InvariantViolated."""
    log = entries[0].log
    whole = machine.initial(log, keep=keep)
    claimed: set[int] = set()
    for entry in entries:
        whole = machine.apply(whole, entry)
        if entry.kind == "Result" and whole.verdict:
            claimed.add(entry.action)
    erased = list(entries)
    records = sorted({record_of(one.position) for one in entries})
    if dice is not None:
        erased = dice.sample(erased, min(3, len(erased)))
        records = dice.sample(records, min(2, len(records)))
    for entry in erased:
        state = machine.fold(machine.initial(log, keep=keep), erased_at(entries, entry.position))
        gone = [entry.action] if entry.kind == "Result" else []
        check_hole(whole, state, f"{entry.kind} {entry.position} erased", gone=gone, claimed=claimed)
    for record in records:
        state = closed(machine.fold(machine.initial(log, keep=keep), lost_at(entries, record)))
        check_hole(whole, state, f"record {record} lost", gone=[record], claimed=claimed)
    return len(erased) + len(records)


def check_holes_hide_nothing(entries: Sequence[Entry], seed: int) -> None:
    """A few holes in the log as it was right after some action began, and in all of it."""
    dice = random.Random(f"holes {seed}")
    begun = [place for place, entry in enumerate(entries) if entry.kind == "Started"]
    for end in [*dice.sample(begun, min(2, len(begun))), len(entries) - 1]:
        check_holes(entries[: end + 1], dice=dice)
