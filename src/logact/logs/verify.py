"""Does a log still say what was written? Digests, chains, checkpoints, blobs, and the cut-off tail.

Verification finds the first entry that was changed, dropped or reordered. It cannot see what nobody can: a log
rewritten as a whole, chains and all, by somebody who may write everything, unless a witness (a second file with
the head of the log at earlier times) says otherwise. It never changes the log.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import msgspec

from logact import codec
from logact.core import invariants, machine
from logact.core.state import State
from logact.entry import Checkpoint, Entry, end_of, position_of, record_of
from logact.errors import InvariantViolated, LogCorrupt
from logact.logs.base import READ_RECORDS_MAX, SharedLog
from logact.logs.verify_blobs import BlobCheck
from logact.logs.witness import Head, heads_at, in_force, was_acted_on

PROBLEMS_MAX = 100


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where: the position of the record's first entry."""

    position: int
    what: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What verification found. ``sound`` is True if nothing is wrong; ``cannot_see`` says what was not checked.

    ``ineffective`` counts entries that took no effect, and is 0 for a trimmed log, where this check cannot tell.
    ``blobs`` counts the blobs that were read and compared, ``lost_blobs`` those that a repair has said to be lost.
    """

    log: str
    first: int
    last: int
    records: int
    entries: int
    chain: str
    problems: tuple[Problem, ...] = ()
    ineffective: int = 0
    erased: int = 0
    blobs: int = 0
    lost_blobs: int = 0
    checkpoints: int = 0
    witnessed: int = 0
    cannot_see: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


async def verify(
    log: SharedLog,
    *,
    witness: str | os.PathLike[str] | None = None,
    key: str = "",
    upto: int = 0,
    breathe: Callable[[], Awaitable[None]] | None = None,
) -> Report:
    """Check every record of a log: its digests, its writers' chains, its checkpoints, the fold's invariants.

    And every blob that an entry names: that it is there, with the digest and the size that the entry says. With a
    ``witness`` (a file or a log's URL), also that the log still holds what the witness saw: this finds a cut tail,
    and an old copy. With a public ``key``, that each of its heads is signed by it. With ``upto``, only what stands
    up to that position; ``breathe`` is awaited after each page.
    """
    await log.open()
    found = _Findings(log)
    heads = await heads_at(witness, log.log_id)
    if witness is not None and "://" in os.fspath(witness):
        heads = [head for head in heads if head.log == log.log_id]  # many logs may share it
    heads, bad = in_force(heads, key)
    for head in bad:
        found.problem(head.position, "the witness's head of this position is not signed by the key")
    found.heads = {head.position: head for head in heads}
    found.unknown = witness is not None and not heads and not bad
    cursor = await first_kept(log)
    found.partial = cursor > 0
    found.first = position_of(cursor + 1)
    found.blobs.after = end_of(cursor) if cursor else 0
    end = record_of(upto) if upto else await log.engine.tail()
    while not upto or cursor < end:
        if breathe is not None:
            await breathe()
        try:
            page = await log.engine.read(cursor, READ_RECORDS_MAX)
        except LogCorrupt:
            # somewhere on this page: go on one by one, and pass over what cannot be read
            cursor = await _one_by_one(log, found, cursor, min(end, cursor + READ_RECORDS_MAX))
            if cursor >= end:
                break
            continue
        for stored in page.records:
            if not upto or stored.record <= end:
                await found.blobs.look(found.record(stored.record, stored.body))
        if page.upto <= cursor:
            break
        cursor = page.upto
    return found.report()


async def _one_by_one(log: SharedLog, found: _Findings, cursor: int, upto: int) -> int:
    """Look at each record of a damaged page by itself; where it cannot be read, say so and pass over it."""
    while cursor < upto:
        try:
            page = await log.engine.read(cursor, 1)
        except LogCorrupt as error:
            found.problem(position_of(cursor + 1), said(error))
            found.gap()
            cursor += 1
            continue
        for stored in page.records:
            await found.blobs.look(found.record(stored.record, stored.body))
        if page.upto <= cursor:
            break
        cursor = page.upto
    return max(cursor, upto)


async def first_kept(log: SharedLog) -> int:
    """The record number before the first one that is kept."""
    from logact.errors import LogTrimmed

    try:
        await log.engine.read(0, 1)
        return 0
    except LogCorrupt:
        return 0  # it is there, and damaged
    except LogTrimmed:
        low, high = 0, await log.engine.tail()
        while low < high:  # the smallest number after which reading works
            middle = (low + high) // 2
            try:
                await log.engine.read(middle, 1)
                high = middle
            except LogCorrupt:
                high = middle
            except LogTrimmed:
                low = middle + 1
        return low


def said(error: LogCorrupt) -> str:
    """What is wrong, without what to do: whoever shows the whole report says that once."""
    parts = [error.message]
    parts += [f"received {error.received}"] if error.received is not None else []
    parts += [f"expected {error.expected}"] if error.expected else []
    return "; ".join(parts)


class _Findings:
    def __init__(self, log: SharedLog) -> None:
        self.log = log.log_id
        self.blobs = BlobCheck(log, problems_max=PROBLEMS_MAX)
        self.decode = log.decode
        self.signed = log.keyring is not None
        self.state: State = machine.initial(log.log_id)
        self.first = 0
        self.last = 0
        self.partial = False
        self.records = 0
        self.entries = 0
        self.erased = 0
        self.checkpoints = 0
        self.witnessed = 0
        self.heads: dict[int, Head] = {}
        self.unknown = False  # a witness was named, and knows nothing of this log
        self.problems: list[Problem] = []
        self._chains: dict[str, tuple[int, str]] = {}

    def gap(self) -> None:
        """A record could not be read: what its writer wrote next has no predecessor here, and no digest covers it."""
        self._chains.clear()
        self.partial = True

    def problem(self, position: int, what: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(position, what))

    def record(self, number: int, body: bytes) -> list[tuple[Entry, bool]]:
        """Judge one record; its entries, as far as they can be read, each with whether it counts."""
        position = position_of(number)
        self.records += 1
        self.last = position
        try:
            codec.check_record(body)
        except LogCorrupt as error:
            self.problem(position, said(error))
        try:
            entries = self.decode(body, number)
            head, own_hash = codec.read_head(body)
        except LogCorrupt:
            return []
        if head.log != self.log:
            self.problem(position, f"the record was written for another log ({head.log})")
        forged = next((entry.forged for entry in entries if entry.forged), "")
        if forged:
            self.problem(position, f"forged: {forged}")
        else:
            self._chain(position, head, own_hash)
        judged = []
        for entry in entries:
            self.entries += 1
            self.last = entry.position
            self.erased += entry.payload.__class__.__name__ == "ErasedPayload"
            made_up = entry.forged != "" or (entry.kind == "Checkpoint" and entry.author.role != "checkpointer")
            if isinstance(entry.payload, Checkpoint) and not made_up:
                self._checkpoint(entry.position, entry.payload)
            self.state = machine.apply(self.state, entry)
            # where something is gone nobody knows which entries took effect
            judged.append((entry, not made_up and (self.partial or not self.state.verdict)))
            try:
                invariants.check_state(self.state)
            except InvariantViolated as error:
                self.problem(entry.position, str(error))
        self._witness(self.last)
        return judged

    def _chain(self, position: int, head: codec.Head, own_hash: str) -> None:
        number, previous = self._chains.get(head.writer, (0, codec.GENESIS))
        if head.number == number and own_hash == previous:
            return  # the same record twice: an engine that forgot the first; it takes no effect
        unknown = self.partial and head.writer not in self._chains
        if not unknown:
            if head.number != number + 1:
                missing = f"records {number + 1} to {head.number - 1} of its writer are missing"
                self.problem(position, missing if head.number > number + 1 else "it is out of order, or there twice")
            elif head.previous != previous:
                self.problem(position, f"it does not follow record {number} of its writer")
        self._chains[head.writer] = (head.number, own_hash)

    def _checkpoint(self, position: int, checkpoint: Checkpoint) -> None:
        if self.partial or checkpoint.upto != self.state.position:
            return  # nothing to compare it with
        self.checkpoints += 1
        if checkpoint.chain != self.state.chain:
            self.problem(position, "a checkpoint's digest of the whole does not match what stands before it")

    def _witness(self, position: int) -> None:
        head = self.heads.pop(position, None)
        if head is None:
            return
        self.witnessed += 1
        if not self.partial and head.chain != self.state.chain:
            self.problem(position, "the witness saw other entries up to here")

    def report(self) -> Report:
        if self.unknown and was_acted_on(self.state):
            self.problem(self.last, "the witness holds no head of this log")
        newest = max((head.position for head in self.heads.values() if head.log == self.log), default=0)
        if newest > self.last:
            self.problem(self.last, f"the tail is cut off: the witness saw entries up to {newest}")
        for head in sorted(self.heads.values(), key=lambda one: one.position):
            if head.log != self.log:
                self.problem(head.position, f"the witness is of another log ({head.log})")
            elif not 0 < head.position <= self.last:
                continue  # said above; and one of the empty log says nothing
            elif not self.partial or head.position >= self.first:
                self.problem(head.position, "the witness saw an entry here that is gone")
        blind = [
            "a log rewritten as a whole by somebody who may write everything, chains included",
            "records of different writers that changed places after the last checkpoint or witnessed head",
        ]
        if self.blobs.lost:
            blind.append("what was in the blobs that a repair could not save")
        if self.signed:
            blind[0] = "a log from which a whole writer's records were dropped, by somebody who may write everything"
        if not self.witnessed and not any("witness" in one.what for one in self.problems):
            blind.append("a tail that was cut off (give a witness file: the last entries of a log have no successor)")
        if self.first > position_of(1):
            blind.append(f"what stood before position {self.first} (trimmed)")
            blind.append("which entries took no effect, and whether checkpoints fit: it depends on what was trimmed")
        return Report(
            log=self.log,
            first=self.first,
            last=self.last,
            records=self.records,
            entries=self.entries,
            chain=self.state.chain,
            problems=self._all_problems(),
            ineffective=0 if self.first > position_of(1) else self.state.ignored_count,
            erased=self.erased,
            blobs=self.blobs.checked,
            lost_blobs=self.blobs.lost,
            checkpoints=self.checkpoints,
            witnessed=self.witnessed,
            cannot_see=tuple(blind),
        )

    def _all_problems(self) -> tuple[Problem, ...]:
        """Those of records and of blobs, in the order of the log; the first are kept."""
        both = self.problems + [Problem(position, what) for position, what in self.blobs.problems]
        return tuple(sorted(both, key=lambda one: one.position)[:PROBLEMS_MAX])
