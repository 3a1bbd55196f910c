"""``python -m benchmarks.swarm``: what introspection saves a swarm, and whether claims hold at scale."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.common import Benchmark, median, work_directory
from benchmarks.swarm.provider import CACHED_SHARE
from benchmarks.swarm.scale import FULL, TASKS_MIN, scale
from benchmarks.swarm.work import AGENTS, once


def main() -> None:
    bench = Benchmark(
        "swarm",
        "A swarm over a code tree with introspection off and on, and claims under many agents and kills.",
        seed={"type": int, "default": 1, "metavar": "N", "help": "the tree and the kills follow from it"},
        model={"default": "", "metavar": "NAME", "help": "a real provider's model instead of the local server"},
    )
    seed, model = bench.options.seed, bench.options.model
    files = 60 if bench.quick else 100
    repeats = bench.options.repeat or (1 if bench.quick else 2)
    bench.progress(
        f"{AGENTS} agents, {files} files, {repeats} times off and on; then the scale: "
        + ("under a minute" if bench.quick else "about a minute and a half")
    )
    off: list[dict[str, Any]] = []
    on: list[dict[str, Any]] = []
    for number in range(repeats):
        for introspect in (False, True) if number % 2 == 0 else (True, False):
            with work_directory() as where:
                one = asyncio.run(once(where, seed + number, files, introspect=introspect, model=model))
            (on if introspect else off).append(one)
            bench.progress(f"{'on' if introspect else 'off'}: {one['billed']} tokens, {one['seconds']} s")
    off.sort(key=lambda one: str(one["digest"]))
    on.sort(key=lambda one: str(one["digest"]))
    equal = all(
        one["fixed"] and other["fixed"] and one["digest"] == other["digest"]
        for one, other in zip(off, on, strict=True)
    )
    levels: dict[str, Any] = {}
    for agents in (1, 10, 100, 1000):
        tasks = 150 if bench.quick else max(TASKS_MIN, agents)
        kills = 0 if agents == 1 else 1 if bench.quick else 3
        with work_directory() as where:
            levels[str(agents)] = scale(where, agents, seed, kills=kills, tasks=tasks)
        bench.progress(f"{agents} agents: {levels[str(agents)]}")
    whole: dict[str, Any] = {}
    for agents, processes, kills in ((1, 1, 0), (10, 1, 0), (100, 1, 0), (10, 5, 1 if bench.quick else 3)):
        name = f"{agents} in {processes}"
        with work_directory() as where:
            tasks = 40 if bench.quick else 100
            whole[name] = scale(where, agents, seed, kills=kills, tasks=tasks, processes=processes, child=FULL)
        bench.progress(f"{name} processes, whole agents: {whole[name]}")
    if model:
        bench.notes.append("the provider's own count of tokens stands in the logs; the local server counted nothing")
    bench.notes += [
        f"tokens_*: fresh input + {CACHED_SHARE:g} x cached input + output, counted from the exact requests by the "
        "o200k vocabulary; raw_tokens_* count cached input whole",
        "the model is a local server that speaks a provider's protocol, follows fixed rules, and sees only requests: "
        "it does not know whether introspection is on; what a model of flesh saves may differ",
        "whole_agents (agents in processes) have folds, drivers and runs of their own, and scripted models",
        "in scale the agents are light workers that share their process's fold; two processes, killed at random",
    ]
    tokens_off, tokens_on = (round(median([one["billed"] for one in runs])) for runs in (off, on))
    raw_off, raw_on = (round(median([one["input"] + one["output"] for one in runs])) for runs in (off, on))
    bench.finish(
        {
            "agents": AGENTS,
            "driver": model or "local server, fixed rules",
            "files": files,
            "tokens_off": tokens_off if not model else None,
            "tokens_on": tokens_on if not model else None,
            "reduction_pct": round(100 * (1 - tokens_on / tokens_off), 1) if not model else None,
            "raw_tokens_off": raw_off if not model else None,
            "raw_tokens_on": raw_on if not model else None,
            "raw_reduction_pct": round(100 * (1 - raw_on / raw_off), 1) if not model else None,
            "outcome_equal": equal,
            "seconds_off": median([one["seconds"] for one in off]),
            "seconds_on": median([one["seconds"] for one in on]),
            "off": off,
            "on": on,
            "scale": levels,
            "whole_agents": whole,
        }
    )


if __name__ == "__main__":
    main()
