"""``repair``: every record that is still readable goes into a new log file, and what is missing is said exactly.

The new log keeps the old one's id and positions. Where nothing is missing it is the same log. Where records are
missing, chains are tied anew, and everything that could rest on what nobody can see is closed: runs end, what was
started stays in doubt for a person, nothing is started again (``core/holes.py`` says what a hole means to a fold).
The damaged file is not touched.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from os import PathLike
from pathlib import Path
from urllib.parse import quote

import msgspec

from logact import codec
from logact import env as environment
from logact.core import machine
from logact.core.holes import MISSING, REPAIRED
from logact.core.state import State
from logact.entry import Cancel, Checkpoint, Entry, Fence, Finding, NewEntry, Notice, Payload, position_of, record_of
from logact.errors import UsageError
from logact.logs.base import SharedLog
from logact.logs.copying import blobs_of
from logact.logs.salvage import Salvaged, salvage
from logact.logs.sqlite_schema import RECORD_BITS
from logact.logs.url import open_log
from logact.logs.witness import Head, heads_at, in_force

BLOBS_A_NOTICE = 1000
"""How many lost blobs one notice lists, so that it fits into a record."""


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair came to. ``missing`` are ranges of positions (first, last) of records that are gone.

    ``unreadable`` are positions of entries whose payload is gone; ``lost_tail`` says that entries after the last one
    are known to be missing; ``complete`` that nothing is known to be missing. ``in_doubt`` are the actions that were
    started without a result, ``uncertain`` those that may have been started in what is missing, or whose result
    cannot be read, or that only a checkpoint still held as started; of a call that may have become an action in what
    is missing, ``notes`` tells.
    """

    log: str
    records: int
    entries: int
    first: int
    last: int
    missing: tuple[tuple[int, int], ...] = ()
    unreadable: tuple[int, ...] = ()
    blobs: int = 0
    missing_blobs: tuple[str, ...] = ()
    lost_tail: str = ""
    stopped_runs: tuple[int, ...] = ()
    in_doubt: tuple[int, ...] = ()
    uncertain: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return not (self.missing or self.unreadable or self.missing_blobs or self.lost_tail)


async def repair(
    source: Path,
    target: Path,
    *,
    log: str = "main",
    witness: str | PathLike[str] | None = None,
    name: str = "operator",
    key: str = "",
) -> Repair:
    """Salvage a SQLite log into a new file; ``key`` is the public one that signs the witness's heads.

    Raises UsageError (the target exists), LogUnavailable, LogCorrupt.
    """
    if target.exists():  # noqa: ASYNC240 - a command that works alone
        raise UsageError("The file exists", received=str(target), todo="name a new one")
    found = salvage(source, log)
    numbers = sorted(found.bodies)
    missing = _gaps(numbers, found.first)
    lost_tail = _lost_tail(found, numbers[-1], in_force(await heads_at(witness, found.log_id), key)[0])
    whole = not (missing or found.damaged or lost_tail)
    url = f"sqlite:///{quote(str(Path.cwd() / target))}" + (f"?log={quote(log)}" if log != "main" else "")
    fresh = open_log(url)
    await fresh.open()
    await fresh.close()
    state, named, seen = _write(target, log, found, numbers, rebind=not whole)
    unreadable = tuple(
        position_of(number, place) for number, places in sorted(found.damaged.items()) for place in places
    )
    absent = tuple(sorted(named - set(found.blobs)))
    stopped: list[int] = []
    doubtful: list[int] = []
    uncertain: list[int] = []
    notes = list(found.notes)
    async with open_log(url) as repaired:
        if not whole:
            doubtful = [one.id for one in state.unfinished()]
            notes += _calls_left(state, tail_lost=bool(lost_tail))
            stopped = await _close(repaired, state, missing, bool(lost_tail), name)
            maybe = {*(one.id for one in state.unfinished()), *seen.results, *_only_in_checkpoint(found, state, seen)}
            uncertain = sorted(maybe - set(doubtful))
        note = Notice(
            code=REPAIRED,
            message=f"{len(numbers)} records were salvaged, {sum(b - a + 1 for a, b in missing)} are missing",
            data={"missing": [list(one) for one in missing], "unreadable": list(unreadable), "lost_tail": lost_tail},
        )
        lost = [
            Notice(code=REPAIRED, message="these blobs could not be saved", data={"missing_blobs": list(some)})
            for some in (absent[at : at + BLOBS_A_NOTICE] for at in range(0, len(absent), BLOBS_A_NOTICE))
        ]
        if not found.sealed:
            await repaired.append(note, role="operator", name=name)
            for one in lost:  # verification takes them for known to be lost
                await repaired.append(one, role="operator", name=name)
    return Repair(
        log=found.log_id,
        records=len(numbers),
        entries=sum(len(codec.read_head(body)[0].entries) for body in found.bodies.values()),
        first=position_of(numbers[0]),
        last=position_of(numbers[-1]),
        missing=tuple((position_of(first), position_of(last)) for first, last in missing),
        unreadable=unreadable,
        blobs=len(named) - len(absent),
        missing_blobs=absent,
        lost_tail=lost_tail,
        stopped_runs=tuple(stopped),
        in_doubt=tuple(doubtful),
        uncertain=tuple(uncertain),
        notes=tuple(notes),
    )


def _gaps(numbers: list[int], first: int) -> list[tuple[int, int]]:
    """Ranges of record numbers that should be there and are not."""
    gaps, expected = [], first
    for number in numbers:
        if number > expected:
            gaps.append((expected, number - 1))
        expected = max(expected, number + 1)
    return gaps


def _lost_tail(found: Salvaged, last: int, heads: list[Head]) -> str:
    """How it is known that entries after the last one are gone ("" if it is not known)."""
    seen = max((head.position for head in heads if head.log == found.log_id), default=0)
    if record_of(seen) > last:
        return f"the witness saw entries up to {seen}"
    damage = [note for note in found.notes if "cut off" in note or "write-ahead" in note]
    return damage[0] if damage else ""


class _Seen(msgspec.Struct):
    """What is noted while the records are written: actions whose result cannot be read, where the last word about
    each action stands, and the last checkpoint."""

    results: list[int] = []
    spoken: dict[int, int] = {}
    checkpoint: Checkpoint | None = None

    def note(self, entry: Entry, *, readable: bool) -> None:
        """One entry."""
        if isinstance(entry.payload, Checkpoint) and entry.author.role == "checkpointer":
            self.checkpoint = entry.payload
        if entry.kind in ("Result", "Recovery", "Undone"):
            self.spoken[entry.action] = entry.position
        if entry.kind == "Result" and not readable:
            self.results.append(entry.action)


def _only_in_checkpoint(found: Salvaged, state: State, seen: _Seen) -> list[int]:
    """Actions that were in doubt in the last checkpoint of a trimmed log, and nowhere else: it is not salvaged."""
    held = seen.checkpoint
    if held is None or found.first <= 1:
        return []
    try:
        before = msgspec.json.decode(found.blobs[held.state.digest], type=State)
    except (KeyError, msgspec.DecodeError):
        return []  # the blob is listed as missing
    left = [one.id for one in before.unfinished() if one.id not in state.actions]
    return [one for one in left if seen.spoken.get(one, 0) <= held.upto]


def _calls_left(state: State, *, tail_lost: bool) -> list[str]:
    """Calls of the model whose action, if there was one, is missing whole."""
    return [
        f"call {index} of the model's answer at {run.inference} may have been proposed and started in what is missing"
        for run in state.runs.values()
        if run.status != "finished" and (tail_lost or run.lost > run.inference)
        for index, call in run.calls.items()
        if not call.action and not call.settled_at
    ]


def _write(
    target: Path, name: str, found: Salvaged, numbers: list[int], *, rebind: bool
) -> tuple[State, set[str], _Seen]:
    """Fill the tables of the new file; the fold of what was written, the blobs that it names, and what was noted."""
    seen = _Seen()
    state = machine.initial(found.log_id)
    named: set[str] = set()
    chains: dict[str, tuple[int, str]] = {}
    writers: dict[str, tuple[int, int, bytes]] = {}
    checkpoint = 0
    connection = sqlite3.connect(target, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        log = int(connection.execute("SELECT id FROM logs WHERE name = ?", (name,)).fetchone()[0])
        filler = environment.current().identifier()
        for number in range(min(found.first, numbers[0]), numbers[-1] + 1):
            body = found.bodies.get(number, b"") or _placeholder(found.log_id, filler, chains)
            head, _ = codec.read_head(body)
            if number not in found.bodies:
                chains[filler] = (head.number, codec.read_head(body)[1])
            elif rebind:
                bad = found.damaged.get(number, [])
                for place_in, entry in enumerate(codec.decode_record(body, number)):
                    seen.note(entry, readable=place_in not in bad)
                place, previous = chains.get(head.writer, (0, codec.GENESIS))
                drop = [at for at, one in enumerate(head.entries) if one.kind == "Checkpoint"]
                drop += found.damaged.get(number, [])
                moved = codec.rebind(body, log=found.log_id, previous=previous, number=place + 1, erase=drop)
                body = moved.body
                chains[head.writer] = (place + 1, moved.hash)
                head, _ = codec.read_head(body)
            elif any(one.kind == "Checkpoint" for one in head.entries):
                checkpoint = number
            entries: list[Entry] = codec.decode_record(body, number)
            state = machine.fold(state, entries)
            for entry in entries:
                named.update(blobs_of(entry.payload))
            connection.execute(
                "INSERT INTO records (id, body, crc) VALUES (?, ?, ?)",
                ((log << RECORD_BITS) + number, body, zlib.crc32(body)),
            )
            writers[head.writer] = (head.number, number, hashlib.sha256(body).digest())
            if head.key:
                connection.execute(
                    "INSERT OR IGNORE INTO keys (log, key, record, content) VALUES (?, ?, ?, ?)",
                    (log, head.key, number, codec.content_of(body)),
                )
        for digest in sorted(named & set(found.blobs)):
            connection.execute(
                "INSERT INTO blobs (log, digest, data) VALUES (?, ?, ?)", (log, digest, found.blobs[digest])
            )
        connection.executemany(
            "INSERT INTO writers (log, writer, number, record, digest) VALUES (?, ?, ?, ?, ?)",
            [(log, writer, *row) for writer, row in writers.items()],
        )
        connection.execute(
            "UPDATE logs SET log_id = ?, first = ?, checkpoint = ?, sealed = ? WHERE id = ?",
            (found.log_id, min(found.first, numbers[0]), checkpoint, int(found.sealed), log),
        )
        connection.execute("COMMIT")
    finally:
        connection.close()
    return state, named, seen


def _placeholder(log: str, writer: str, chains: dict[str, tuple[int, str]]) -> bytes:
    """A record that stands where one is missing, so that positions stay, and says so."""
    env = environment.current()
    number, previous = chains.get(writer, (0, codec.GENESIS))
    lost = NewEntry(payload=Notice(code=MISSING, message="this record was lost"), role="operator", name="repair")
    encoded = codec.encode_record(
        [lost],
        log=log,
        writer=writer,
        number=number + 1,
        previous=previous,
        time_ms=env.wall_ms(),
        randomness=env.random_bytes(codec.SALT_BYTES),
    )
    return encoded.body


async def _close(
    log: SharedLog, state: State, missing: list[tuple[int, int]], tail_lost: bool, name: str
) -> list[int]:
    """Nothing may begin on the strength of a log with holes: fence, doubt what was started, end what runs.

    ``state`` is the fold up to there, and afterwards with what was appended. Returns the runs that were ended.
    """
    why = "records are missing: " + (
        ", ".join(f"{position_of(a)} to {position_of(b)}" for a, b in missing) or "the tail"
    )
    payloads: list[Payload] = [Notice(code=MISSING, message="what came next was lost")] if tail_lost else []
    payloads += [Fence(agent=agent, epoch=held.epoch + 1, reason=why) for agent, held in sorted(state.agents.items())]
    unfinished = [one.id for one in state.unfinished()]
    if unfinished:
        payloads.append(Finding(code="in_doubt", message=why, cites=tuple(unfinished)))
    begun = {state.actions[key].intent.run for key in state.open_actions}
    runs = [
        run.id
        for run in state.runs.values()
        if run.id in begun or run.status == "running" or (run.hole and run.status == "stopped")
    ]
    payloads += [Cancel(scope=f"run:{run}", reason=why) for run in runs]
    batch = [NewEntry(payload=one, role="operator", name=name) for one in payloads]
    position = state.position
    for first in range(0, len(batch), 500):
        await log.append(*batch[first : first + 500])
    async for entry in log.read(position):
        machine.apply(state, entry)
    return runs
