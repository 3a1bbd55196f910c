"""Kills real agents with SIGKILL and counts, in other processes, what was lost, doubled or missing.

First a child is killed at every named crash point that a dry pass reached, at every count of each; and, for each
way to leave an action in doubt, at the points of the recovery that follows (``--quick``: the first count of each
name). Then it is killed from outside, at random moments that it cannot know. It is started again with the same
command until its run ends. A second program writes to the same file all the while.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec

from benchmarks.common import Benchmark, median, work_directory
from benchmarks.crash_child import EFFECTS, items
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

Job = Callable[[Stage], Found]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it all; the figures."""
    bench = Benchmark(
        "crash",
        "Kills agents and counts what was lost, doubled or missing.",
        argv,
        kills={"type": int, "default": 0, "metavar": "N", "help": "random kills from outside (200; quick: 12)"},
        seed={"type": int, "default": 1, "metavar": "N", "help": "for the moments of the kills"},
    )
    kills = bench.options.kills or (12 if bench.quick else 200)
    bench.progress(f"about {'40 s' if bench.quick else '6 minutes'}: every crash point, then {kills} random kills")
    swept, points, recovering = sweep(bench)
    randomly = strike(bench, kills)
    total = Found()
    total.add(swept)
    total.add(randomly)
    for problem in total.problems[:20]:
        bench.notes.append(problem)
    shown = {name: getattr(total, name) for name in Found.__struct_fields__ if name != "problems"}
    return bench.finish(
        {
            **shown,
            "crash_points": points,
            "recovery_points": recovering,
            "random_kills": randomly.kills,
            "resumed": round(total.finished / total.runs, 4),
            "seed": bench.options.seed,
            "random": msgspec.to_builtins(randomly),
        }
    )


def sweep(bench: Benchmark) -> tuple[Found, int, int]:
    """Kill at every named point: (what was found, points of a run, points of recoveries)."""
    with ExitStack() as stack:
        stages = _stages(stack, rounds=1)
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

        total = in_parallel(stages, [job(number, plan) for number, plan in enumerate(plans)], bench.progress)
        _judge(stages, total)
        bench.progress(f"{total.kills} kills at points: {_summary(total)}")
        return total, len(points), recovering


def doubts(points: list[str]) -> list[str]:
    """One crash point on each side of an effect, for one item of each tool."""
    names = list(items(1).values())
    chosen = [names.index(name) + 1 for name in EFFECTS]
    found = [f"{side}_effect:{count}" for count in chosen for side in ("before", "after")]
    return [point for point in found if point in points]


def strike(bench: Benchmark, kills: int) -> Found:
    """Kill at random moments until ``kills`` were dealt."""
    draw = random.Random(bench.options.seed)
    rounds = 1 if bench.quick else 3
    total = Found()
    with ExitStack() as stack:
        stages = _stages(stack, rounds=rounds, jitter_ms=20.0)
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


def _stages(stack: ExitStack, rounds: int, jitter_ms: float = 2.0) -> list[Stage]:
    homes = [stack.enter_context(work_directory()) for _ in range(WORKERS)]
    return [stack.enter_context(Stage(home, rounds, jitter_ms=jitter_ms)) for home in homes]


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
