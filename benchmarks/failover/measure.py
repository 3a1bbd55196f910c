"""One round: writers and a whole agent are at work, the leader is killed, and everything is counted afterwards."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common import median
from benchmarks.crash_parts import Company, play
from benchmarks.crash_stage import Found, judge
from benchmarks.engines.stage import EngineStage
from benchmarks.failover.base import Failover
from logact import open_log
from logact.entry import NewEntry, Notice
from logact.errors import LogError

WRITERS = 4
PAUSE_S = 0.002
AFTERWARDS = 100
"""So many more appends must be acknowledged after the kill before a round ends."""

ROUND_S_MAX = 120.0


class Load(threading.Thread):
    """Writers in a thread of their own, each appending what nobody else does until it is told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__(name="load")
        self.url = url
        self.acknowledged: dict[str, int] = {}
        self.times: list[float] = []
        self.stop = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # told to whoever joins
            self.problem = error

    async def _work(self) -> None:
        async with open_log(self.url) as log, asyncio.TaskGroup() as group:
            for name in range(WRITERS):
                group.create_task(self._write(log.writer(), name))

    async def _write(self, pen: Any, name: int) -> None:
        turn = 0
        while not self.stop.is_set():
            turn += 1
            message = f"{name}-{turn}"
            entry = NewEntry(payload=Notice(code="load", message=message), role="client", name="load")
            try:
                done = await pen.append([entry])
            except LogError as error:
                if not error.definite:
                    raise
                await asyncio.sleep(0.05)
                continue
            self.acknowledged[message] = done.position
            self.times.append(time.monotonic())
            await asyncio.sleep(PAUSE_S)

    def wait_for(self, count: int) -> None:
        """Wait until so many were acknowledged."""
        end = time.monotonic() + ROUND_S_MAX
        while len(self.times) < count and self.is_alive():
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.times)} of {count} appends within {ROUND_S_MAX:g} s")
            time.sleep(0.01)

    def end(self) -> None:
        """Stop the writers; raises what stopped them before."""
        self.stop.set()
        self.join(ROUND_S_MAX)
        if self.problem is not None:
            raise self.problem


def one_round(cluster: Failover[Any], directory: Path, number: int, draw: random.Random) -> dict[str, Any]:
    """Kill the leader once."""
    load = Load(cluster.url(f"load-{number}"))
    load.start()
    killed: list[float] = []
    asides: list[threading.Thread] = []
    try:
        with EngineStage(directory, cluster.url, jitter_ms=40.0) as stage:
            load.wait_for(20 + draw.randrange(100))

            def strike(company: Company, position: int) -> float:
                if not killed and position >= 4000:
                    killed.append(time.monotonic())
                    aside = threading.Thread(target=cluster.kill_leader, args=(f"load-{number}",))
                    aside.start()
                    asides.append(aside)
                return 0.05

            found = asyncio.run(play(Company(stage, f"agent-{number}"), strike))
            for aside in asides:
                aside.join(ROUND_S_MAX)
            load.wait_for(len(load.times) + AFTERWARDS)
            load.end()
            if not stage.neighbour_ends():
                found.problems.append("the neighbour failed")
            judge(stage, found)
    finally:
        load.stop.set()
        load.join(ROUND_S_MAX)
    lost, doubled = asyncio.run(_compare(load))
    return {
        "found": found,
        "killed": len(killed),
        "lost": lost,
        "doubled": doubled,
        "gap_s": _gap(load.times, killed[0]) if killed else None,
    }


async def _compare(load: Load) -> tuple[int, int]:
    """How many acknowledged entries are not where they were acknowledged, and how many stand there twice."""
    there: dict[str, list[int]] = {}
    async with open_log(load.url) as log:
        async for item in log.read():
            there.setdefault(getattr(item.payload, "message", ""), []).append(item.position)
    lost = sum(position not in there.get(message, []) for message, position in load.acknowledged.items())
    return lost, sum(len(positions) > 1 for positions in there.values())


def _gap(times: Iterable[float], killed: float) -> float:
    """Seconds from the last acknowledgement before the kill to the first one after the silence that followed."""
    ordered = sorted(times)
    gaps = [(after - before) for before, after in itertools.pairwise(ordered) if after >= killed]
    return max(gaps, default=0.0)


def measure(cluster: Failover[Any], directory: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Several rounds on one cluster."""
    draw = random.Random(seed)
    gaps: list[float] = []
    total = Found()
    kills = lost = doubled = 0
    for number in range(rounds):
        place = directory / f"round-{number}"
        place.mkdir()
        done = one_round(cluster, place, number, draw)
        total.add(done["found"])
        kills += done["killed"]
        lost += done["lost"]
        doubled += done["doubled"]
        if done["gap_s"] is not None:
            gaps.append(done["gap_s"])
        if number + 1 < rounds:
            cluster.mend()
    return {
        "kills": kills,
        "lost": lost + total.lost,
        "duplicates": doubled + total.doubled_irreversible + total.doubled_reversible,
        "gap_s": round(median(gaps), 3) if gaps else None,
        "gap_s_max": round(max(gaps), 3) if gaps else None,
        "resumed": round(total.finished / max(1, total.runs), 4),
        "acknowledged": total.acked,
        "missing": total.missing_irreversible + total.missing_reversible + total.missing_idempotent,
        "unsound": total.unsound,
        "problems": total.problems[:5],
        "version": cluster.version,
    }
