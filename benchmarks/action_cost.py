"""What one durable action costs: inline, all of it on disk, against a raw SQLite row and a bare loop.

One process does, one after the other and again: an action through LogAct (a scripted model asks for many calls at
once), a row into a plain SQLite table (WAL, synchronous=FULL), and the same entries encoded, chained and committed by
a bare loop in two transactions. An action lasts from the end of one tool call to the beginning of the next: a record
with the result, and a record with intent, vote, commit and start. ``flushes_per_action`` is counted by the operating
system (strace), as the slope between two runs of different length, so whatever a process flushes once is left out.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import ROOT, Benchmark, child_environment, median, p99, work_directory
from logact import LogActAgent, LogEntry, ScriptedModel, Vote, Voter, codec, env, open_log, tool
from logact.entry import Commit, Effect, Intent, NewEntry, Result, Started, own
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, call, turn_of

CALLS_PER_TURN = 50
SYNC_CALLS = "fsync,fdatasync,sync_file_range,msync,syncfs,sync"
_CALLED = re.compile(r"\b(fsync|fdatasync|sync_file_range|syncfs|sync|msync)\(")
_ROW = "x" * 700  # about as long as an action's first record
SHARED_MEMORY = Path("/dev/shm")


class Times(NamedTuple):
    """Milliseconds of each action, each raw row and each action of the bare loop, of one medium."""

    actions: list[float]
    rows: list[float]
    bare: list[float]
    bytes_per_action: float
    entries_per_action: float


class Work:
    """The tools. What they do is not part of what an action costs; ``meanwhile`` is where the floors are measured."""

    def __init__(self, meanwhile: Callable[[], None] | None = None) -> None:
        self.meanwhile = meanwhile
        self.began: list[tuple[int, float]] = []
        self.ended: list[float] = []

    async def note(self, number: int) -> int:
        """Take note of a number."""
        self.began.append((number, time.perf_counter()))
        if self.meanwhile is not None:
            self.meanwhile()
        self.ended.append(time.perf_counter())
        return number

    def between(self) -> list[float]:
        """Milliseconds from the end of each call to the beginning of the next one of the same turn."""
        pairs = zip(self.ended, self.began[1:], strict=False)
        return [(began - ended) * 1000 for ended, (number, began) in pairs if number % CALLS_PER_TURN]


class Fine(Voter):
    """One voter that only computes, as rules do."""

    quick = True

    def check(self, entry: LogEntry) -> Vote:
        return Vote(approved=True, reason="fine")


def raw_table(directory: Path) -> sqlite3.Connection:
    """A plain table with the same durability."""
    connection = sqlite3.connect(directory / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body TEXT)")
    return connection


def raw_row(connection: sqlite3.Connection) -> float:
    """Insert and commit a row; milliseconds."""
    began = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO rows (body) VALUES (?)", (_ROW,))
    connection.execute("COMMIT")
    return (time.perf_counter() - began) * 1000


class BareLoop:
    """The floor in Python: the same five entries, encoded and chained, in two transactions, and nothing else."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.connection.execute("CREATE TABLE IF NOT EXISTS bare (record INTEGER PRIMARY KEY, body BLOB)")
        self.writer = env.current().identifier()
        self.number = 0
        self.previous = codec.GENESIS

    def action(self) -> float:
        """Write down one action; milliseconds."""
        began = time.perf_counter()
        intent = Intent(
            run=2000,
            agent="cost",
            tool="note",
            arguments={"number": self.number},
            arguments_digest="0" * 43,
            tool_version="1",
            inference=3000,
            deadline_ms=time.time_ns() // 1_000_000,
            state_before="0" * 64,
        )
        self._commit(
            intent,
            Vote(
                approved=True, reason="fine", intent=own(0), voter="fine", config="0" * 43, arguments_digest="0" * 43
            ),
            Commit(intent=own(0), reason="fine: fine", start_by_ms=time.time_ns() // 1_000_000),
            Started(intent=own(0), epoch=1),
        )
        self._commit(Result(intent=1000, value=self.number, duration_ms=0.1))
        return (time.perf_counter() - began) * 1000

    def _commit(self, *payloads: Any) -> None:
        entries = [
            NewEntry(payload=payload, role="executor", name="cost", agent="cost", run=2000, tool="note")
            for payload in payloads
        ]
        self.number += 1
        encoded = codec.encode_record(
            entries,
            log="bare",
            writer=self.writer,
            number=self.number,
            previous=self.previous,
            time_ms=time.time_ns() // 1_000_000,
            randomness=os.urandom(codec.SALT_BYTES * len(entries)),
        )
        self.previous = encoded.hash
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute("INSERT INTO bare (body) VALUES (?)", (encoded.body,))
        self.connection.execute("COMMIT")


async def run_actions(directory: Path, turns: int, calls: int, work: Work, effect: Effect) -> None:
    """So many actions through LogAct."""

    def script(request: ModelRequest) -> Reply:
        turn = turn_of(request)
        if turn == turns:
            return "done"
        return [call("note", number=turn * calls + place) for place in range(calls)]

    async with open_log(f"sqlite:///{directory / 'actions.db'}") as log:
        tools = [tool(effect=effect)(work.note)]
        await LogActAgent("cost", log, [Fine("fine")], model=ScriptedModel(script), tools=tools).run("cost")


def measure(directory: Path, turns: int) -> Times:
    """All three on one medium, one after the other."""
    connection = raw_table(directory)
    bare = BareLoop(connection)
    rows: list[float] = []
    loops: list[float] = []

    def meanwhile() -> None:
        rows.append(raw_row(connection))
        loops.append(bare.action())

    work = Work(meanwhile)
    asyncio.run(run_actions(directory, turns, CALLS_PER_TURN, work, "irreversible"))
    connection.close()
    bytes_total, entries, intents = asyncio.run(_size(directory))
    return Times(work.between(), rows, loops, bytes_total / intents, entries / intents)


async def _size(directory: Path) -> tuple[int, int, int]:
    """Bytes of the records of actions, their entries, and how many actions there are."""
    size = entries = intents = 0
    async with open_log(f"sqlite:///{directory / 'actions.db'}") as log:
        after = 0
        while True:
            page = await log.engine.read(after, 500)
            for stored in page.records:
                found = codec.decode_record(stored.body, stored.record)
                if {entry.kind for entry in found} <= {"Intent", "Vote", "Commit", "Started", "Result"}:
                    size += len(stored.body)
                    entries += len(found)
                    intents += sum(entry.kind == "Intent" for entry in found)
            if page.upto <= after:
                return size, entries, intents
            after = page.upto


# --- flushes, counted by the operating system ------------------------------


def flushes(turns: int, calls: int, kind: str) -> tuple[int, int] | None:
    """How often a process with so many turns flushed, and the bytes of its files; None if that cannot be counted."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    with work_directory() as directory:
        trace = directory / "trace.txt"
        home = directory / "home"
        home.mkdir()
        command = [strace, "-f", "-qq", "-e", f"trace={SYNC_CALLS}", "-o", str(trace)]
        command += [
            sys.executable,
            "-m",
            "benchmarks.action_cost",
            "--child",
            str(home),
            str(turns),
            str(calls),
            kind,
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=child_environment(), capture_output=True, timeout=300, check=False
        )
        if done.returncode != 0:
            return None
        # a call that another thread interrupts in the trace is shown twice: once as unfinished, once as resumed
        count = sum(1 for line in trace.read_text().splitlines() if _CALLED.search(line) and "resumed" not in line)
        size = sum(path.stat().st_size for path in home.iterdir() if path.name.endswith(".db"))
        return count, size


def slope(turns: int, calls: int, kind: str) -> tuple[float, float] | None:
    """Flushes and bytes of the file for each action: what N more actions add."""
    short, long = flushes(turns, calls, kind), flushes(2 * turns, calls, kind)
    if short is None or long is None:
        return None
    more = turns * calls
    return (long[0] - short[0]) / more, (long[1] - short[1]) / more


def child(arguments: list[str]) -> None:
    """What strace watches: only the actions."""
    effect: Effect = "idempotent" if arguments[3] == "riding" else "irreversible"
    asyncio.run(run_actions(Path(arguments[0]), int(arguments[1]), int(arguments[2]), Work(), effect))


# --- the whole ------------------------------


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it all; the figures."""
    bench = Benchmark("action_cost", "What one durable action costs.", argv)
    repeats = bench.options.repeat or (1 if bench.quick else 5)
    turns = 6 if bench.quick else 20
    bench.progress(
        f"about {'15 s' if bench.quick else '2 minutes'}: {repeats} times {turns * CALLS_PER_TURN} actions"
    )
    figures: dict[str, Any] = {"actions": repeats * turns * CALLS_PER_TURN}
    figures |= _flush_figures(bench)
    figures |= _medium(bench, "disk", None, repeats, turns, ("action_ms", "floor_ms", "bare_ms"))
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK):
        figures |= _medium(
            bench, "tmpfs", SHARED_MEMORY, repeats, turns, ("software_ms", "raw_row_ms", "bare_software_ms")
        )
    else:
        figures |= {"software_ms": None, "raw_row_ms": None, "bare_software_ms": None}
        bench.notes.append("there is no /dev/shm here, so nothing was measured without a disk")
    count = figures["flushes_per_action"]
    figures["ratio_to_floor"] = round(figures["action_ms"] / (count * figures["floor_ms"]), 2) if count else None
    figures["ratio_to_bare"] = round(figures["action_ms"] / figures["bare_ms"], 2)
    if figures["software_ms"]:
        figures["software_ratio_to_bare"] = round(figures["software_ms"] / figures["bare_software_ms"], 2)
    return bench.finish(figures)


def _flush_figures(bench: Benchmark) -> dict[str, Any]:
    size = 1 if bench.quick else 4
    found: dict[str, Any] = {}
    for key, calls, kind in [
        ("flushes_per_action", CALLS_PER_TURN, "irreversible"),
        ("flushes_per_action_riding", CALLS_PER_TURN, "riding"),
        ("flushes_per_turn_of_one", 1, "irreversible"),
    ]:
        turns = size if calls > 1 else 20 * size
        counted = slope(turns, calls, kind)
        found[key] = None if counted is None else round(counted[0], 3)
        if key == "flushes_per_action":
            found["file_bytes_per_action"] = None if counted is None else round(counted[1])
        bench.progress(f"{key}: {found[key]}")
    if found["flushes_per_action"] is None:
        bench.notes.append("flushes were not counted: strace is not installed, or may not trace here")
    return found


def _medium(
    bench: Benchmark, name: str, parent: Path | None, repeats: int, turns: int, keys: tuple[str, str, str]
) -> dict[str, Any]:
    """Medians over everything, 99th percentiles, and the spread of the repeats' medians."""
    runs = []
    for _ in range(repeats):
        with work_directory(parent) as directory:
            runs.append(measure(directory, turns))
    found: dict[str, Any] = {}
    for key, series in zip(keys, ("actions", "rows", "bare"), strict=True):
        values = [getattr(run, series) for run in runs]
        everything = [value for one in values for value in one]
        medians = [median(one) for one in values]
        found[key] = round(median(everything), 4)
        found[f"{key}_p99"] = round(p99(everything), 4)
        found[f"{key}_spread"] = [round(min(medians), 4), round(max(medians), 4)]
    bench.progress(f"{name}: an action {found[keys[0]]} ms, a raw row {found[keys[1]]} ms, bare {found[keys[2]]} ms")
    if parent is None:
        found["entries_per_action"] = round(median([run.entries_per_action for run in runs]), 3)
        found["bytes_per_action"] = round(median([run.bytes_per_action for run in runs]))
        found["medium"] = os.path.realpath(tempfile.gettempdir())
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
