"""Kills real agents with SIGKILL and counts, in other processes, what was lost, doubled or missing.

The inline form first: a child is killed at every named crash point that a dry pass reached, at every count of each;
and, for each way to leave an action in doubt, at the points of the recovery that follows (``--quick``: the first
count of each name). Then it is killed from outside, at random moments that it cannot know. It is started again with
the same command until its run ends. Then the decoupled form, each part a process of its own: parts die at their crash
points, and at random moments, while the others live on. A second program writes to the same file all the while.

All of it on SQLite, and with ``--engine NAME,...`` (or ``all``) on real servers of other engines, which nobody kills.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from benchmarks.common import Benchmark, median, work_directory
from benchmarks.crash_child import EFFECTS, items
from benchmarks.crash_parts import killed_at_points, killed_at_random_parts, points_of_parts
from benchmarks.crash_stage import (
    WORKERS,
    Found,
    Stage,
    crash_points,
    in_parallel,
    judge,
    killed_at,
    killed_at_random,
    recovery_points,
    until_done,
)
from benchmarks.engines.base import ENGINES
from benchmarks.engines.stage import stages_on
from benchmarks.servers import ServerFailed

Job = Callable[[Stage], Found]
KILLS = {"sqlite": 200}
KILLS_ELSEWHERE = 50
LOGS_MAX = 60
"""So many logs on one set of servers; then fresh ones are started. Each is several topics or streams of three."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it all; the figures."""
    bench = Benchmark(
        "crash",
        "Kills agents and counts what was lost, doubled or missing.",
        argv,
        kills={"type": int, "default": 0, "metavar": "N", "help": "random kills (200, on servers 50; quick: 12)"},
        seed={"type": int, "default": 1, "metavar": "N", "help": "for the moments of the kills"},
        engine={"default": "sqlite", "metavar": "NAME,…", "help": f"of {', '.join(ENGINES)}; or all (sqlite)"},
    )
    wanted = bench.options.engine
    names = list(ENGINES) if wanted == "all" else [name for name in wanted.split(",") if name]
    bench.progress(f"{', '.join(names)}: about {'55 s' if bench.quick else '12 minutes'} for each")
    by_engine: dict[str, dict[str, Any] | None] = {}
    for name in names:
        try:
            by_engine[name] = on(bench, name)
        except ServerFailed as error:  # an engine whose servers are not here does not take the others along
            bench.notes.append(f"{name}: {error}")
            by_engine[name] = None
    return bench.finish({**_sum(by_engine), "seed": bench.options.seed, "by_engine": by_engine})


def on(bench: Benchmark, engine: str) -> dict[str, Any]:
    """One engine's figures."""
    kills = bench.options.kills or (12 if bench.quick else KILLS.get(engine, KILLS_ELSEWHERE))
    bench.progress(f"{engine}: every crash point, then {kills} random kills")
    swept, points, recovering = sweep(bench, engine)
    randomly = strike(bench, kills, engine)
    apart, apart_points = decouple(bench, max(6, kills // 4), engine)
    total = Found()
    for found in (swept, randomly, apart):
        total.add(found)
    bench.notes += [f"{engine}: {problem}" for problem in total.problems[:20]]
    shown = {name: getattr(total, name) for name in Found.__struct_fields__ if name != "problems"}
    return {
        **shown,
        "crash_points": points,
        "recovery_points": recovering,
        "random_kills": randomly.kills,
        "decoupled_points": apart_points,
        "decoupled_kills": apart.kills,
        "problems": len(total.problems),
        "resumed": round(total.finished / total.runs, 4),
        "random": msgspec.to_builtins(randomly),
        "decoupled": msgspec.to_builtins(apart),
    }


def _sum(by_engine: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The figures of all engines together; ``resumed`` is the least of them."""
    there = [figures for figures in by_engine.values() if figures is not None]
    total: Counter[str] = Counter()
    for figures in there:
        total.update({name: value for name, value in figures.items() if isinstance(value, int)})
    return {**total, "resumed": min((figures["resumed"] for figures in there), default=None)}


def sweep(bench: Benchmark, engine: str = "sqlite") -> tuple[Found, int, int]:
    """Kill at every named point: (what was found, points of a run, points of recoveries)."""
    with _stages(engine, rounds=1) as stages:
        points = crash_points(stages[0], "dry")
        reached = len(points)
        firsts = doubts(points)
        if bench.quick:
            firsts = firsts[1::4]
            points = [point for point in points if point.endswith(":1")]
        bench.progress(f"a run reaches {reached} crash points; {len(points)} are tried")
        plans: list[list[str]] = [[point] for point in points]
        recovering = 0
        for number, first in enumerate(firsts):
            later = recovery_points(crash_points(stages[0], f"dry-{number}", first))
            if bench.quick:
                later = later[::3]
            recovering += len(later)
            plans += [[first, then] for then in later]
        bench.progress(f"{recovering} points of recoveries are tried, after a first kill")

    def job(number: int, plan: list[str]) -> Job:
        return lambda stage: killed_at(stage, f"point-{number}", plan)

    total = _in_turns(bench, engine, [job(number, plan) for number, plan in enumerate(plans)])
    bench.progress(f"{total.kills} kills at points: {_summary(total)}")
    return total, len(points), recovering


def doubts(points: list[str]) -> list[str]:
    """One crash point on each side of an effect, for one item of each tool."""
    names = list(items(1).values())
    chosen = [names.index(name) + 1 for name in EFFECTS]
    found = [f"{side}_effect:{count}" for count in chosen for side in ("before", "after")]
    return [point for point in found if point in points]


def strike(bench: Benchmark, kills: int, engine: str = "sqlite") -> Found:
    """Kill at random moments until ``kills`` were dealt."""
    draw = random.Random(bench.options.seed)
    rounds = 1 if bench.quick else 3
    total = Found()
    with _stages(engine, rounds=rounds, jitter_ms=20.0) as stages:
        seconds = []
        for number in range(3):
            began = time.monotonic()
            stages[0].neighbour_to(f"warm-{number}")
            until_done(stages[0], f"warm-{number}", Found())
            seconds.append(time.monotonic() - began)
        run_s = max(0.1, median(seconds) - 0.25)
        number = 0
        while total.kills < kills and number < 10 * kills:
            left = kills - total.kills
            wanted = [min(left, 20)] if left < 20 else [20, min(20, left - 20)] if left > 20 else [20]

            def job(number: int, most: int) -> Job:
                seed = draw.getrandbits(64)
                return lambda stage: killed_at_random(stage, f"random-{number}", random.Random(seed), most, run_s)

            jobs = [job(number + place, most) for place, most in enumerate(wanted)]
            number += len(jobs)
            total.add(in_parallel(stages, jobs, bench.progress))
            bench.progress(f"{total.kills} of {kills} random kills, {total.finished} of {total.runs} runs finished")
        _judge(stages, total)
    bench.progress(f"{total.kills} random kills: {_summary(total)}")
    return total


def decouple(bench: Benchmark, kills: int, engine: str = "sqlite") -> tuple[Found, int]:
    """The decoupled form: (what was found, how many of its crash points were tried)."""
    draw = random.Random(bench.options.seed + 1)
    with _stages(engine, rounds=1, jitter_ms=10.0) as stages:
        by_part = points_of_parts(stages[0], "dry")
    reached = sum(len(points) for points in by_part.values())
    if bench.quick:
        by_part = {part: [one for one in points if one.endswith(":1")] for part, points in by_part.items()}
    # one point of each part in one run: the next kill comes whenever the others have got so far
    plans = [
        [(part, points[place]) for part, points in by_part.items() if place < len(points)]
        for place in range(max(len(points) for points in by_part.values()))
    ]
    tried = sum(len(plan) for plan in plans)
    bench.progress(f"decoupled: a run reaches {reached} crash points; {tried} are tried")

    def at_points(number: int, plan: list[tuple[str, str]]) -> Job:
        return lambda stage: killed_at_points(stage, f"points-{number}", plan)

    def at_random(number: int) -> Job:
        seed = draw.getrandbits(64)
        return lambda stage: killed_at_random_parts(stage, f"parts-{number}", random.Random(seed), 6)

    jobs = [at_points(number, plan) for number, plan in enumerate(plans)]
    jobs += [at_random(number) for number in range(-(-kills // 6))]
    total = _in_turns(bench, engine, jobs, jitter_ms=10.0)
    bench.progress(f"decoupled, {total.kills} kills: {_summary(total)}")
    return total, tried


def _in_turns(bench: Benchmark, engine: str, jobs: Sequence[Job], jitter_ms: float = 2.0) -> Found:
    """Run jobs of one log each, so many on one set of servers, and judge what they left."""
    total = Found()
    for begin in range(0, len(jobs), LOGS_MAX):
        with _stages(engine, rounds=1, jitter_ms=jitter_ms) as stages:
            found = in_parallel(stages, jobs[begin : begin + LOGS_MAX], lambda said: None)
            _judge(stages, found)
        total.add(found)
        bench.progress(f"{total.runs} of {len(jobs)} runs, {total.kills} kills")
    return total


@contextmanager
def _stages(engine: str, rounds: int, jitter_ms: float = 2.0) -> Iterator[list[Stage]]:
    """A stage for each worker, on fresh servers of an engine."""
    with ExitStack() as stack:
        homes = [stack.enter_context(work_directory()) for _ in range(WORKERS)]
        yield stack.enter_context(stages_on(engine, homes, rounds=rounds, jitter_ms=jitter_ms))


def _judge(stages: list[Stage], total: Found) -> None:
    for stage in stages:
        if not stage.neighbour_ends():
            total.problems.append("the neighbour failed")
        judge(stage, total)


def _summary(found: Found) -> str:
    return (
        f"lost {found.lost} of {found.acked}, doubled {found.doubled_irreversible}, "
        f"missing {found.missing_idempotent + found.missing_irreversible}, {len(found.problems)} problems"
    )


if __name__ == "__main__":
    main()
