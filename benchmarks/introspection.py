"""Introspection: which planted faults the computed part finds, false alarms on healthy runs, and how long it takes.

Thresholds were chosen while looking at the runs called *tuned* (AgentDojo's workspace and banking suites, seeds
below 1000). What is reported was measured on runs *apart*: the slack and travel suites, and seeds from 1000. A
recorded run counts as healthy if AgentDojo's own check says that it solved its task. The time is that of a health
check of a log of 100,000 entries on SQLite, from opening the file to the verdict: with the sums that checkpoints
carry, with the last checkpoint nearly as far behind as it ever is, and without any.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.agentdojo.lab import CACHE, RUNS, VERSION
from benchmarks.common import Benchmark, median, work_directory
from benchmarks.introspection_plants import KINDS, played
from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.core.state import State
from logact.introspection.health import computed
from logact.introspection.importing import import_trajectories
from logact.introspection.profile import Profile
from logact.introspection.profiler import Profiler, folded
from logact.introspection.signals import Thresholds, signals
from logact.introspection.trajectories import read_trajectories
from logact.logs.base import SharedLog
from logact.models import call
from logact.runtime.tail import Tail

TUNED = ("workspace", "banking")
APART = ("slack", "travel")
SEEDS_APART = 1000
LIMITS = Thresholds()


def recordings(bench: Benchmark) -> list[Path]:
    """The recorded benign runs, fetched into the cache if need be; [] (with a note) if they cannot be."""
    if not RUNS.is_dir():
        bench.progress("fetching AgentDojo's recordings (21 MB, once)")
        target = CACHE / "sdist"
        target.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps"]
        command = [*pip, "--no-binary", ":all:", f"agentdojo=={VERSION}", "-d", str(target)]
        try:
            subprocess.run(command, check=True, stdout=sys.stderr)
            with tarfile.open(target / f"agentdojo-{VERSION}.tar.gz") as archive:
                archive.extractall(CACHE, filter="data")
        except (OSError, subprocess.SubprocessError) as error:
            bench.notes.append(f"no recordings: {error}")
            return []
    return sorted(RUNS.glob("*/*/*/none/none.json"))


async def healthy_recorded(paths: Iterable[Path]) -> tuple[int, list[tuple[str, list[str]]]]:
    """How many healthy recorded runs there were, and those that gave a signal, with it."""
    count, alarms = 0, []
    for path in paths:
        found = read_trajectories(path.read_bytes())
        if found[0].facts.get("utility") is not True:
            continue
        async with open_log("memory:") as log:
            await import_trajectories(log, found)
            known = await folded(log)
        count += 1
        codes = codes_of(known.state, known.profile, known.profile.last_ms)
        if codes:
            alarms.append((str(path.relative_to(RUNS).parent.parent), sorted(codes)))
    return count, alarms


def codes_of(state: State, profile: Profile, now_ms: int) -> set[str]:
    """The codes of all signals."""
    return {one.code for one in signals(state, profile, now_ms, LIMITS)}


async def planted(seeds: Iterable[int], fault: str) -> tuple[int, int, Counter[str]]:
    """Runs with a fault: how many, in how many it was found, and all that was signalled."""
    runs, found, seen = 0, 0, Counter[str]()
    for seed in seeds:
        log, now_ms = await played(seed, fault)
        async with log:
            known = await folded(log)
        codes = codes_of(known.state, known.profile, now_ms)
        runs += 1
        found += fault in codes
        seen.update(codes)
    return runs, found, seen


# --- how long ------------------------------


@tool(effect="read")
def look(place: int) -> str:
    """Look at a place."""
    return f"place {place} holds a parcel for customer {place % 97} with a note of some length on it"


async def long_log(url: str, entries: int, *, checkpoint_every: int = 2000) -> int:
    """Let a real agent work until the log has at least so many entries. How many it has."""
    async with open_log(url) as log:
        model = ScriptedModel([*(call("look", place=place) for place in range(25)), "done"])
        agent = LogActAgent("clerk", log, model=model, tools=[look], checkpoint_every=checkpoint_every)
        written = 0
        async with agent:
            while written < entries:
                await agent.run("look at all places", new=True)
                parts = agent._parts
                written = sum(parts.host.state.counts.values()) if parts is not None else 0
        return written


async def check(url: str) -> tuple[float, int]:
    """One health check of a file as the command does it: milliseconds, and entries that were read."""
    began = time.perf_counter()
    async with open_log(url) as log:
        known = await folded(log)
        computed(known.state, known.profile, known.profile.last_ms, LIMITS)
    return (time.perf_counter() - began) * 1000, known.read


async def check_whole(url: str) -> float:
    """The same without any checkpoint: everything is read and folded."""
    began = time.perf_counter()
    async with open_log(url) as log:
        tail = Tail(log, from_checkpoint=False)
        Profiler.beside(tail, whole=True)
        await tail.start()
        profile = Profiler.of(tail).profile
        computed(tail.state, profile, profile.last_ms, LIMITS)
    return (time.perf_counter() - began) * 1000


async def raw_read(log: SharedLog) -> float:
    """The floor under reading it whole: the engine's pages alone, nothing decoded."""
    began = time.perf_counter()
    cursor = 0
    async with log:
        while True:
            page = await log.engine.read(cursor)
            if page.upto <= cursor:
                break
            cursor = page.upto
    return (time.perf_counter() - began) * 1000


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    bench = Benchmark("introspection", "Planted faults found, false alarms, time.", argv)
    repeat = bench.options.repeat or 5
    bench.progress("about half a minute" if bench.quick else "about four minutes")
    paths = recordings(bench)
    of = {suites: [path for path in paths if path.parts[-4] in suites] for suites in (TUNED, APART)}
    step = 12 if bench.quick else 1
    tuned_count, tuned_alarms = asyncio.run(healthy_recorded(of[TUNED][::step]))
    apart_count, apart_alarms = asyncio.run(healthy_recorded(of[APART][:: max(1, step // 3)]))
    bench.progress(
        f"recorded: tuned {len(tuned_alarms)} of {tuned_count}, apart {len(apart_alarms)} of {apart_count}"
    )
    seeds = range(SEEDS_APART, SEEDS_APART + (6 if bench.quick else 60))
    own_count, _, own_seen = asyncio.run(planted(seeds, ""))
    own_alarms = sum(own_seen.values())
    bench.progress(f"own healthy runs: {own_alarms} signals in {own_count}")
    faults = {}
    for kind in KINDS:
        runs, found, seen = asyncio.run(planted(range(SEEDS_APART, SEEDS_APART + (2 if bench.quick else 12)), kind))
        beside = {code: count for code, count in sorted(seen.items()) if code != kind}
        faults[kind] = {"runs": runs, "found": found, "beside": beside}
        bench.progress(f"{kind}: found in {found} of {runs}")
    entries = 20_000 if bench.quick else 100_000
    shm = Path("/dev/shm")
    with work_directory(shm if shm.is_dir() else None) as place:
        url = f"sqlite:///{place}/long.db"
        written = asyncio.run(long_log(url, entries))
        bench.progress(f"a log of {written} entries is written")
        times = [asyncio.run(check(url)) for _ in range(repeat)]
        asyncio.run(long_log(url, written + 1800, checkpoint_every=0))
        behind = [asyncio.run(check(url)) for _ in range(repeat)]
        whole = [asyncio.run(check_whole(url)) for _ in range(2)]
        raw = [asyncio.run(raw_read(open_log(url))) for _ in range(2)]
    healthy, alarms = apart_count + own_count, len(apart_alarms) + min(own_alarms, own_count)
    if bench.quick:
        bench.notes.append("quick: ms_100000_entries is null, the log is shorter; see ms_entries")
    return bench.finish(
        {
            "fault_kinds": len(KINDS),
            "found": sum(one["found"] == one["runs"] for one in faults.values()),
            "false_alarm_pct": round(100 * alarms / healthy, 2) if healthy else None,
            "healthy_runs": healthy,
            "ms_100000_entries": round(median([ms for ms, _ in times]), 1) if not bench.quick else None,
            "ms_entries": {
                "entries": written,
                "health_ms": round(median([ms for ms, _ in times]), 1),
                "health_ms_worst": round(max(ms for ms, _ in times), 1),
                "entries_read": times[0][1],
                "checkpoint_far_behind_ms": round(median([ms for ms, _ in behind]), 1),
                "checkpoint_far_behind_read": behind[0][1],
                "without_checkpoints_ms": round(median(whole), 1),
                "raw_read_ms": round(median(raw), 1),
            },
            "recorded": {
                "tuned": {"healthy": tuned_count, "alarmed": len(tuned_alarms)},
                "apart": {"healthy": apart_count, "alarmed": len(apart_alarms)},
                "alarms_apart": apart_alarms[:20],
            },
            "own": {"healthy": own_count, "signals": dict(own_seen)},
            "faults": faults,
        }
    )


if __name__ == "__main__":
    main()
