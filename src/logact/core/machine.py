"""The state machine: ``apply(state, entry) -> state``, the meaning of every kind of entry.

An entry takes effect only if its precondition holds in the fold of everything before it; otherwise it is kept,
counted, shown (``state.verdict`` says why), and changes nothing. So any number of drivers, deciders, executors
and recoverers may run, crash and restart with no coordination beyond the log.

``apply`` is total: it never raises for any entry. It consumes the state that it is given and returns it
changed; whoever needs the old one folds again or copies first. It reads no clock and does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from logact.core import holes, rights
from logact.core.acting import on_finding, on_output, on_recovery, on_result, on_started, on_undone
from logact.core.controlling import on_cancel, on_claim, on_control, on_fence, on_heartbeat, on_policy
from logact.core.forking import on_fork
from logact.core.judging import on_abort, on_commit, on_expiry, on_vote
from logact.core.proposing import on_compaction, on_inference, on_input, on_intent, on_run
from logact.core.settling import chained
from logact.core.state import Ignored, Incarnation, State
from logact.entry import (
    KINDS,
    MAY_APPEND,
    RECORD_ENTRIES_MAX,
    Entry,
    ErasedPayload,
    Unknown,
)

IGNORED_KEPT = 100
KEYS_KEPT = 10_000
INCARNATIONS_KEPT = 1000

MOVER = "moved-"
"""Begins the names of writers whose one record stands in a copy where the original was sealed."""

SEALED = "sealed"
"""What stands in the digest of the whole for such a record."""
SILENT_KEPT = 2000
"""How many lives are kept although some of them never said goodbye."""


_LIMITED = frozenset(kind for _, kind in rights.LIMITS) - {"Vote"}  # whose vote it is, ``on_vote`` asks the policy


_BEGINNING = frozenset(
    ("Inference", "Compaction", "Intent", "Vote", "Commit", "Abort", "Expiry", "Started", "Recovery")
)
"""Kinds that a fenced incarnation may not write any more; what became of what it had begun, it may still say."""


def initial(log: str = "", *, keep: bool = False) -> State:
    """The fold of nothing. ``keep`` never lets go of settled actions (for views)."""
    return State(log=log, keep=keep)


def fold(state: State, entries: Iterable[Entry]) -> State:
    """Apply entries in order."""
    for entry in entries:
        state = apply(state, entry)
    return state


def apply(state: State, entry: Entry) -> State:
    """The state after one more entry. Total and deterministic; consumes ``state``."""
    if entry.position <= state.position:
        return state  # read twice: positions are unique and increasing, so this one is known
    state.position = entry.position
    why = _record_problem(state, entry)
    if not why:
        why = _entry_problem(state, entry)
        if not why:
            handler = _HANDLERS.get(entry.kind)
            if isinstance(entry.payload, ErasedPayload):
                why, stand_in = holes.erased(state, entry)
                if handler is not None and stand_in is not None:
                    handler(state, entry, stand_in)
            elif handler is not None:
                why = handler(state, entry, entry.payload)
    state.verdict = why
    state.counts[entry.kind] = state.counts.get(entry.kind, 0) + 1
    if why:
        state.ignored_count += 1
        state.ignored.append(Ignored(entry.position, entry.kind, why))
        if len(state.ignored) > IGNORED_KEPT:
            del state.ignored[0]
    return state


def _record_problem(state: State, entry: Entry) -> str:
    """Follow the writer's chain once per record; a record that is there twice takes no effect the second time."""
    record = entry.position // RECORD_ENTRIES_MAX
    if entry.position % RECORD_ENTRIES_MAX:
        return entry.forged or ("the record is a duplicate" if state.duplicate == record else "")
    state.sealed = False  # it goes on after all
    state.chain = chained(state.chain, SEALED if _ends_a_segment(entry) else entry.record_hash)
    if entry.forged:
        return entry.forged  # it must not touch the chain of the writer whose name it took, nor use up a key
    writer = entry.author.incarnation
    life = state.incarnations.get(writer)
    if life is None:
        life = state.incarnations[writer] = Incarnation(role=entry.author.role, name=entry.author.name)
        if len(state.incarnations) > INCARNATIONS_KEPT:
            _forget_the_gone(state)
        if entry.number > 1 and state.forgotten:
            life.number, life.hash = entry.number - 1, entry.previous  # it was silent for long, and let go
    if life.number == entry.number and life.hash == entry.record_hash:
        state.duplicate = record
        return "the record is a duplicate"
    if entry.key:
        if entry.key in state.keys:
            state.duplicate = record
            life.number, life.hash = entry.number, entry.record_hash
            return "its idempotency key was used before"
        state.keys[entry.key] = entry.position
        if len(state.keys) > KEYS_KEPT:
            del state.keys[next(iter(state.keys))]
    if (entry.number != life.number + 1 or entry.previous != life.hash) and not state.broken:
        state.broken = (
            f"position {entry.position}: record {entry.number} of writer {writer} does not follow "
            f"its record {life.number}"
        )
    life.number, life.hash = entry.number, entry.record_hash
    life.last, life.last_ms = entry.position, entry.time_ms
    return ""


def _ends_a_segment(entry: Entry) -> bool:
    """Whether a record only says that the log goes on elsewhere: in a copy another stands in its place."""
    if entry.kind == "Seal":
        return getattr(entry.payload, "segment", "") != ""
    return entry.author.incarnation.startswith(MOVER)


def _forget_the_gone(state: State) -> None:
    """Lives that said goodbye may go, but for those whose open actions somebody still has to settle."""
    needed = {one.incarnation for key in state.open_actions for one in state.actions[key].attempts}
    needed |= {held.holder for held in state.agents.values()}
    gone = [key for key, life in state.incarnations.items() if life.left and key not in needed]
    for key in gone[: INCARNATIONS_KEPT // 2]:
        del state.incarnations[key]
    if len(state.incarnations) <= SILENT_KEPT:
        return
    # killed processes never say goodbye: those that were silent for longest go, though one may only be idle
    silent = sorted((life.last, key) for key, life in state.incarnations.items() if life.last and key not in needed)
    for _, key in silent[: SILENT_KEPT // 2]:
        del state.incarnations[key]
        state.forgotten += 1


def _entry_problem(state: State, entry: Entry) -> str:
    if state.log and entry.log != state.log:
        return f"it was written for another log ({entry.log})"
    state.log = state.log or entry.log
    known = KINDS.get(entry.kind)
    if known is None or entry.version > known.VERSION:
        if entry.critical and not state.halted:
            state.halted = f"{entry.kind} version {entry.version} at position {entry.position}"
        return f"this version does not know {entry.kind} version {entry.version}"
    if isinstance(entry.payload, Unknown):
        return f"its payload does not fit a {entry.kind}"
    if state.fenced and entry.kind in _BEGINNING and entry.author.incarnation in state.fenced:
        at = state.fenced[entry.author.incarnation]
        return f"its writer was found hung at position {at}, and is fenced off"
    allowed = MAY_APPEND.get(entry.author.role)  # type: ignore[call-overload]
    if allowed is None or entry.kind not in allowed:
        return f"the role {entry.author.role!r} may not append a {entry.kind}"
    if entry.kind in _LIMITED and not isinstance(entry.payload, ErasedPayload):
        return rights.beyond(entry.author.role, entry.author.name, entry.payload)
    return ""


def _checkpoint(state: State, entry: Entry, _: Any) -> str:
    state.checkpoint = entry.position
    state.counted_at_checkpoint = sum(state.counts.values())
    return ""


def _seal(state: State, _: Entry, seal: Any) -> str:
    state.sealed = seal.segment == ""  # else the log goes on elsewhere, under the same positions
    return ""


_HANDLERS: dict[str, Callable[[State, Entry, Any], str]] = {
    "Run": on_run,
    "Input": on_input,
    "Inference": on_inference,
    "Compaction": on_compaction,
    "Intent": on_intent,
    "Vote": on_vote,
    "Commit": on_commit,
    "Abort": on_abort,
    "Expiry": on_expiry,
    "Cancel": on_cancel,
    "Started": on_started,
    "Result": on_result,
    "Undone": on_undone,
    "Output": on_output,
    "Recovery": on_recovery,
    "Finding": on_finding,
    "Policy": on_policy,
    "Control": on_control,
    "Fence": on_fence,
    "Fork": on_fork,
    "Claim": on_claim,
    "Heartbeat": on_heartbeat,
    "Notice": holes.on_notice,
    "Checkpoint": _checkpoint,
    "Seal": _seal,
}
