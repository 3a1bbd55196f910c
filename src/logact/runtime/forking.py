"""A new log from any point of another: the same past under another id, and nothing of it unfinished.

Records keep their positions, writers and payloads; heads are bound to the new log, so that hashes chain there. What
was done stays done, and nothing is done again. What was unfinished at that point belongs to the parent: it is closed
in the fork. External keys come from the log's id, so those of the fork are its own. What the runs may still spend is
moved, not copied (``moving_budgets``). The first record carries a mark, and until the last one nothing acts in the
fork (``core/forking.py``): a copy that was interrupted is never taken for a log.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from logact import codec
from logact import env as environment
from logact.core import machine, settling
from logact.core.state import State
from logact.entry import (
    RECORD_ENTRIES_MAX,
    Abort,
    Cancel,
    Control,
    Entry,
    Fence,
    Finding,
    Fork,
    Limits,
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
from logact.logs.half_forks import refuse_half_fork
from logact.logs.verify import first_kept
from logact.runtime.moving_budgets import Moving


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """What a fork came to. ``closed`` are actions that belong to the parent, ``paused`` the parent's runs.

    ``limits``: what runs may use in the fork in all; ``empty``: runs that have nothing left there, since the parent
    has it (``keep_parent``), or used it, or an earlier fork got it. ``voters``: the same of voters' budgets.
    """

    parent: str
    log: str
    position: int
    records: int
    blobs: int
    closed: tuple[int, ...] = ()
    paused: tuple[int, ...] = ()
    limits: dict[str, Limits] = {}
    empty: tuple[int, ...] = ()
    voters: bool = False


async def fork(
    source: SharedLog,
    position: int,
    target: SharedLog,
    *,
    name: str = "operator",
    keep_parent: bool = False,
    begun: Callable[[], None] = lambda: None,
) -> Forked:
    """Fill an empty log with another's past up to the record that holds ``position``.

    What the parent may still use goes to the fork; with ``keep_parent`` it stays where it is, and the fork has none.
    A fork that fails half-way, or dies, halts whoever opens it. Raises UsageError (a target that is not empty, a
    position that is not there, a trimmed source; nothing was written then), LogCorrupt, BlobMissing. ``begun`` is
    called before the first record of the target is written.
    """
    env = environment.current()
    await source.open()
    last = await _checked(source, position)
    await target.open()
    if target.log_id == source.log_id or await target.engine.tail():
        raise UsageError(
            "A fork needs a new log",
            received=f"{target.url}, which is not empty",
            todo="name another (one that an interrupted fork left is to be deleted)",
        )
    copied = _Copy(source, target, at=position, name=name)
    begun()
    await copied.records(last)
    env.point("fork:copied")
    state = copied.state
    closed = await _close(target, state, source.log_id, position, name)
    env.point("fork:closed")
    moving = Moving(source, state, closed, fork=target.log_id, at=position, name=name)
    paused, done = await moving.settle(keep_parent=keep_parent)
    env.point("fork:moved")
    why = f"nothing is left of its budget here: the log {done.parent} had it"
    held = [Control(verb="pause", scope=f"run:{run}", reason=why) for run in moving.held(done)]
    await target.append(*(_by("operator", name, one) for one in (*held, done)))
    env.point("fork:done")
    note = Notice(code="forked", message=f"forked at {position}", data={"fork": target.log_id, "position": position})
    await source.append(note, role="operator", name=name)
    return Forked(
        parent=source.log_id,
        log=target.log_id,
        position=copied.position,
        records=last,
        blobs=len(copied.blobs),
        closed=tuple(closed),
        paused=tuple(paused),
        limits=done.limits,
        empty=done.empty,
        voters=done.voters,
    )


async def _checked(source: SharedLog, position: int) -> int:
    """The last record to copy. Nothing is written before this has passed, the target not even opened."""
    await refuse_half_fork(source)
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

    def __init__(self, source: SharedLog, target: SharedLog, *, at: int, name: str) -> None:
        self.source = source
        self.target = target
        self.at = at
        self.name = name
        self.position = 0  # of the last entry that came along
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
        behind = b"" if self._previous else self._mark(len(head.entries))
        moved = codec.rebind(body, log=self.target.log_id, previous=previous, erase=erase, behind=behind)
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
        self.position = entries[len(head.entries) - 1].position
        environment.current().point("fork:record")

    def _mark(self, entries: int) -> bytes:
        """The entry that says that this is a fork which is not complete, as a record of its own."""
        if entries >= RECORD_ENTRIES_MAX:
            raise UsageError(
                "This log cannot be forked",
                received=f"a first record of {entries} entries",
                expected="one with room for the mark of the fork",
            )
        begun = Fork(step="begun", fork=self.target.log_id, parent=self.source.log_id, at=self.at)
        env = environment.current()
        return codec.encode_record(
            [_by("operator", self.name, begun)],
            log=self.target.log_id,
            writer="fork",
            number=1,
            previous=codec.GENESIS,
            time_ms=env.wall_ms(),
            randomness=env.random_bytes(12),
        ).body

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


def _by(role: Role, name: str, payload: Payload) -> NewEntry:
    return NewEntry(payload=payload, role=role, name=name)
