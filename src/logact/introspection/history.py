"""A whole log, folded and told: the state, each action's story, and what took no effect. Read-only.

``history`` is what the command line shows. The questions about agents are methods of ``SharedLog``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from logact.core import machine
from logact.core.state import Action as ActionState
from logact.core.state import State
from logact.entry import Checkpoint, Control, Entry, Finding, end_of, position_of, record_of
from logact.errors import LogCorrupt, LogError, LogTrimmed, UsageError
from logact.logs.base import READ_RECORDS_MAX, SharedLog
from logact.logs.checkpoints import checked_state, earliest, kept_checkpoints, load_state
from logact.logs.verify import said
from logact.runtime.tail import Tail

Observer = Callable[[State, Entry], None]
Restorer = Callable[[Checkpoint], Awaitable[object]]


class History(msgspec.Struct, kw_only=True):
    """A log up to a position: its fold with every action kept, the entries of each action, in order.

    ``ineffective`` says, by position, why an entry took no effect; ``times_ms`` when the first and the last entry
    were written; ``trimmed`` that the beginning is gone and the fold starts at a checkpoint: what stands before
    position ``began`` is known only as far as that carries it; ``damaged`` what cannot be read before that
    checkpoint (then the fold starts there, too, as an agent's does, after the position ``begins_after``).
    """

    state: State
    stories: dict[int, list[Entry]] = {}
    ineffective: dict[int, str] = {}
    entries: int = 0
    bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    trimmed: bool = False
    damaged: str = ""
    begins_after: int = 0
    began: int = 0

    def action(self, position: int) -> ActionState | None:
        """The action whose intent stands at a position."""
        return self.state.actions.get(position)

    def effective(self, position: int) -> list[Entry]:
        """An action's entries that took effect, in order."""
        return [entry for entry in self.stories.get(position, ()) if entry.position not in self.ineffective]


async def history(
    log: SharedLog, upto: int | None = None, *, observer: Observer | None = None, restore: Restorer | None = None
) -> History:
    """Fold a log from its beginning up to a position; where that was trimmed, from the first checkpoint kept;
    where it cannot be read, from the last.

    ``observer(state, entry)`` is called after each entry; ``state.verdict`` is that entry's; ``restore(checkpoint)``
    before all of them, where the fold begins at one. Raises UsageError for a position after the log's end, or so
    early in a trimmed log that no checkpoint before it was kept; LogTrimmed if none was kept at all.
    """
    await log.open()
    if upto is not None and record_of(upto) > (last := await log.engine.tail()):
        raise UsageError(
            "The log has no such position",
            received=str(upto),
            expected=f"one up to {end_of(last)}" if last else "an entry (the log is empty)",
            todo="see the positions with `logact log show`",
        )
    told = History(state=machine.initial(log.log_id, keep=True))
    try:
        try:
            await _read(log, told, upto, observer)
        except LogTrimmed:
            state, checkpoint = await (earliest(log) if upto is None else _restored_before(log, upto))
            state.keep = True
            told = History(state=state, trimmed=True, began=position_of(record_of(checkpoint.upto) + 1))
            if restore is not None:
                await restore(checkpoint)
            await _read(log, told, upto, observer)
    except LogCorrupt as error:  # behind a cut, too
        told = await _after_damage(log, error, upto, observer, restore)
    return told


async def _after_damage(
    log: SharedLog, error: LogCorrupt, upto: int | None, observer: Observer | None, restore: Restorer | None
) -> History:
    """Where the agent itself may go on, people can look and settle. Raises the error if the damage is not all before
    the last checkpoint, or what is asked for is."""
    tail = Tail(log)
    await tail.start()
    if tail.checkpoint is None or (upto is not None and upto < tail.checkpoint.upto):
        raise error
    state = await load_state(log, tail.checkpoint.state)
    state.keep = True
    told = History(state=state, trimmed=True, damaged=said(error))
    told.begins_after = tail.checkpoint.upto
    told.began = position_of(record_of(told.begins_after) + 1)
    log.passed_over = f"{told.damaged}; what is shown begins at the checkpoint of position {tail.checkpoint.upto}"
    if restore is not None:
        await restore(tail.checkpoint)
    await _read(log, told, upto, observer)
    return told


async def _restored_before(log: SharedLog, upto: int) -> tuple[State, Checkpoint]:
    """The last usable checkpoint that knows nothing after a position, and its state. UsageError if none was kept."""
    first = 0
    for checkpoint in reversed(await kept_checkpoints(log)):
        try:
            state = await checked_state(log, checkpoint)
        except LogError:
            continue  # a damaged one: an earlier one does as well
        if state is None:
            continue
        first = checkpoint.upto
        if first <= upto:
            return state, checkpoint
    raise UsageError(
        "Of a trimmed log nothing is known so early",
        received=f"position {upto}",
        expected=f"{first} or later" if first else "a log with a checkpoint that can be read",
        todo="ask the archive that the trim made; it has the same positions",
    )


async def _read(log: SharedLog, told: History, upto: int | None, observer: Observer | None) -> None:
    cursor = record_of(told.state.position)
    end = await log.engine.tail()
    while cursor < end:
        page = await log.engine.read(cursor, READ_RECORDS_MAX)
        for stored in page.records:
            for entry in log.decode(stored.body, stored.record):
                if upto is not None and entry.position > upto:
                    return
                _tell(told, entry)
                if observer is not None:
                    observer(told.state, entry)
        if page.upto <= cursor:
            return
        cursor = page.upto


def _tell(told: History, entry: Entry) -> None:
    told.state = machine.apply(told.state, entry)
    told.entries += 1
    told.bytes += entry.size
    told.first_ms = told.first_ms or entry.time_ms
    told.last_ms = entry.time_ms
    if told.state.verdict:
        told.ineffective[entry.position] = told.state.verdict
    for key in actions_of(entry):
        told.stories.setdefault(key, []).append(entry)


def actions_of(entry: Entry) -> tuple[int, ...]:
    """The actions that an entry is about, by position."""
    if entry.kind == "Intent":
        return (entry.position,)
    if entry.action:
        return (entry.action,)
    payload = entry.payload
    if isinstance(payload, Finding):
        return payload.cites if payload.code == "in_doubt" else ()
    if isinstance(payload, Control) and payload.scope.startswith("action:"):
        number = payload.scope.removeprefix("action:")
        return (int(number),) if number.isdecimal() else ()
    return ()
