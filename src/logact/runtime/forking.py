"""A new log from any point of another: the same past under another id, and nothing of it unfinished.

Records keep their positions, writers and payloads; heads are bound to the new log, so that hashes chain there. What
was done stays done, and nothing is done again. What was unfinished at that point belongs to the parent: it is closed
in the fork. External keys come from the log's id, so those of the fork are its own. What the runs may still spend is
moved, not copied: the parent's runs that go on in the fork are paused there, unless the caller says otherwise.
"""

from __future__ import annotations

import msgspec

from logact import codec
from logact.core import machine, settling
from logact.core.state import State
from logact.entry import (
    Abort,
    Cancel,
    Control,
    Entry,
    Fence,
    Finding,
    NewEntry,
    Notice,
    Payload,
    Recovery,
    Role,
    position_of,
    record_of,
)
from logact.errors import LogCorrupt, LogTrimmed, UsageError
from logact.logs.base import READ_RECORDS_MAX, Draft, SharedLog
from logact.logs.copying import blobs_of
from logact.logs.verify import first_kept


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """What a fork came to. ``closed`` are actions that belong to the parent, ``paused`` the parent's runs."""

    parent: str
    log: str
    position: int
    records: int
    blobs: int
    closed: tuple[int, ...] = ()
    paused: tuple[int, ...] = ()


async def fork(
    source: SharedLog, position: int, target: SharedLog, *, name: str = "operator", keep_parent: bool = False
) -> Fork:
    """Fill an empty log with another's past up to the record that holds ``position``.

    ``keep_parent`` does not pause the parent's runs: then what they may still spend exists twice. Raises UsageError
    (a target that is not empty, a position that is not there, a trimmed source), LogCorrupt, BlobMissing.
    """
    await source.open()
    await target.open()
    last = await _checked(source, position, target)
    copied = _Copy(source, target)
    await copied.records(last)
    state = copied.state
    closed = await _close(target, state, source.log_id, position, name)
    paused: list[int] = []
    if not keep_parent:
        paused = [run.id for run in state.runs.values() if run.status == "running" and run.context]
        paused = await _pause(source, paused, target.log_id, name)
    note = Notice(code="forked", message=f"forked at {position}", data={"fork": target.log_id, "position": position})
    await source.append(note, role="operator", name=name)
    return Fork(
        parent=source.log_id,
        log=target.log_id,
        position=state.position,
        records=last,
        blobs=len(copied.blobs),
        closed=tuple(closed),
        paused=tuple(paused),
    )


async def _checked(source: SharedLog, position: int, target: SharedLog) -> int:
    if target.log_id == source.log_id or await target.engine.tail():
        raise UsageError("A fork needs a new log", received=f"{target.url}, which is not empty", todo="name another")
    last = record_of(position)
    if not 0 < last <= await source.engine.tail():
        raise UsageError(
            "The log has no such position", received=str(position), expected=f"1000 to {await source.tail() + 999}"
        )
    try:
        await source.engine.read(0, 1)
    except LogTrimmed as error:
        raise UsageError(
            "A log whose beginning was trimmed cannot be forked",
            received=f"a log that begins at position {position_of(await first_kept(source) + 1)}",
            expected="one that is whole: a fork copies all that came before its point",
            todo="fork the archive that the trim made; it has the same positions",
        ) from error
    return last


class _Copy:
    """Copies records and the blobs that they name, and folds what it wrote."""

    def __init__(self, source: SharedLog, target: SharedLog) -> None:
        self.source = source
        self.target = target
        self.state: State = machine.initial(target.log_id)
        self.blobs: set[str] = set()
        self._previous: dict[str, str] = {}

    async def records(self, last: int) -> None:
        """Copy the records up to a number."""
        cursor = 0
        while cursor < last:
            page = await self.source.engine.read(cursor, min(READ_RECORDS_MAX, last - cursor))
            if not page.records:
                break
            for stored in page.records:
                await self._record(stored.record, stored.body)
            cursor = page.records[-1].record

    async def _record(self, number: int, body: bytes) -> None:
        head, _ = codec.read_head(body)
        # a checkpoint's digest is of the parent's chain: the fork writes its own
        erase = [place for place, entry in enumerate(head.entries) if entry.kind == "Checkpoint"]
        previous = self._previous.get(head.writer, codec.GENESIS)
        moved = codec.rebind(body, log=self.target.log_id, previous=previous, erase=erase)
        entries = codec.decode_record(moved.body, number)
        blobs = [(digest, await self.source.get_blob(digest)) for digest in self._new_blobs(entries)]
        draft = Draft(
            writer=head.writer,
            number=head.number,
            body=moved.body,
            content=moved.content,
            heads=moved.heads,
            key=head.key,
            blobs=tuple(blobs),
        )
        record, _ = await self.target.engine.append(draft)
        if record != number:
            raise LogCorrupt(
                "The log cannot be forked as it is",
                received=f"record {number} would become {record}",
                expected="every record once, with none missing",
                todo="repair it first: `logact log repair`",
            )
        self._previous[head.writer] = moved.hash
        self.state = machine.fold(self.state, entries)

    def _new_blobs(self, entries: list[Entry]) -> list[str]:
        found = dict.fromkeys(digest for entry in entries for digest in blobs_of(entry.payload))
        new = [digest for digest in found if digest not in self.blobs]
        self.blobs.update(new)
        return new


async def _close(target: SharedLog, state: State, parent: str, position: int, name: str) -> list[int]:
    """Let nobody hold the agents, and close what is unfinished: it belongs to the parent."""
    why = f"it belongs to the parent, {parent} at {position}"
    entries = [_by("operator", name, Notice(code="fork", message=f"a fork of {parent} at {position}"))]
    for agent, held in sorted(state.agents.items()):
        if held.holder:
            entries.append(_by("operator", name, Fence(agent=agent, epoch=held.epoch + 1, reason=why)))
    awaited = {call.action for run in state.runs.values() for call in run.calls.values() if not call.settled_at}
    closed = []
    for key, action in sorted(state.actions.items()):
        attempt = len(action.attempts)
        if action.status == "proposed":
            entries.append(_by("decider", name, Abort(intent=key, code="forked", reason=why)))
        elif action.status == "validated" or action.restart_allowed:
            entries.append(_by("operator", name, Cancel(intent=key, reason=why)))
        elif action.is_open:
            doubt = Finding(code="in_doubt", message=why, cites=(key,))
            settled = Recovery(intent=key, attempt=attempt, settlement="superseded", evidence=name, reason=why)
            entries += [_by("operator", name, doubt), _by("operator", name, settled)]
        elif key in awaited and settling.retriable(action):
            given_up = Recovery(intent=key, attempt=attempt, settlement="failed_final", evidence=name, reason=why)
            entries.append(_by("operator", name, given_up))
        else:
            continue
        closed.append(key)
    for first in range(0, len(entries), 500):
        await target.append(*entries[first : first + 500])
    return closed


async def _pause(source: SharedLog, runs: list[int], fork_id: str, name: str) -> list[int]:
    """Pause those of the parent's runs that still run; what is left of their budgets is the fork's now."""
    from logact.runtime.tail import Tail

    tail = Tail(source)
    now = await tail.start()
    paused = []
    for run in runs:
        known = now.runs.get(run)
        if known is not None and known.status == "running" and f"run:{run}" not in now.paused:
            reason = f"its budget was moved to the fork {fork_id}"
            control = Control(verb="pause", scope=f"run:{run}", reason=reason)
            await source.append(NewEntry(payload=control, role="operator", name=name))
            paused.append(run)
    return paused


def _by(role: Role, name: str, payload: Payload) -> NewEntry:
    return NewEntry(payload=payload, role=role, name=name)
