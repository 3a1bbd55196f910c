"""What may be erased: nothing that others depend on, and nothing of what is under way. Owns that judgement only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logact.core import machine
from logact.core.holes import HARMLESS
from logact.core.state import State
from logact.entry import Entry
from logact.errors import LogCorrupt, LogError, LogTrimmed, UsageError
from logact.logs.checkpoints import earliest, latest

if TYPE_CHECKING:
    from logact.logs.base import SharedLog


async def check_erasable(log: SharedLog, entry: Entry) -> None:
    """Raise UsageError if whoever folds the log anew could not know what was in force, or what is to be done.

    A run that is under way would be over with a hole, and an action that is not settled could not be judged any
    more: the one is to be stopped first, the other settled. What ended keeps its end.
    """
    if entry.critical or (entry.kind == "Cancel" and not entry.action):
        raise UsageError(
            f"A {entry.kind} cannot be erased",
            received=f"position {entry.position}",
            expected="an entry that others do not depend on",
            todo="append a newer one instead",
        )
    if entry.kind in HARMLESS:
        return
    state = await _fold(log)
    of = entry.position if entry.kind == "Run" else entry.run
    action = state.actions.get(entry.position if entry.kind == "Intent" else entry.action)
    if action is not None and action.is_open:
        raise UsageError(
            f"Action {action.id} is not settled",
            received=f"its {entry.kind} at position {entry.position}, while it is {action.status}",
            expected="an entry of an action that has ended",
            todo="settle it first (`logact doubt LOG`), or take it back (`logact cancel LOG`)",
        )
    mine = state.runs.get(of)
    concerned = {of, mine.parent if mine is not None else 0} - {0}
    under_way = [
        one.id for one in state.runs.values() if one.status == "running" and (one.id in concerned or not concerned)
    ]
    if under_way:
        raise UsageError(
            f"Run {under_way[0]} is under way",
            received=f"a {entry.kind} at position {entry.position}",
            expected="an entry of a run that is over: a run with a hole is not gone on with",
            todo=f"let it end, or end it (`logact cancel LOG --run {under_way[0]}`), and erase then",
        )


async def _fold(log: SharedLog) -> State:
    """The fold of the log now; from its last checkpoint, if that can be read."""
    try:
        state, _ = await latest(log, LogCorrupt("No checkpoint can be used"))
    except LogError:  # a damaged checkpoint costs time, never correctness
        state = machine.initial(log.log_id)
    try:
        async for entry in log.read(state.position):
            state = machine.apply(state, entry)
    except LogTrimmed:
        state, _ = await earliest(log)
        async for entry in log.read(state.position):
            state = machine.apply(state, entry)
    return state
