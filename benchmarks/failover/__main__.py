"""Kills the server that leads, under load, and counts what was acknowledged and is gone, and what is there twice."""

from __future__ import annotations

from typing import Any

from benchmarks.common import Benchmark
from benchmarks.engines.base import by_engine, chosen, only
from benchmarks.failover.base import ENGINES
from benchmarks.failover.measure import measure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it; the figures by engine."""
    bench = Benchmark(
        "failover",
        "Kills the leading server under load, while writers and an agent are at work.",
        argv,
        only=only(ENGINES),
        seed={"type": int, "default": 1, "metavar": "N", "help": "for the moments of the kills"},
    )
    names = chosen(bench, ENGINES)
    rounds = bench.options.repeat or (1 if bench.quick else 5)
    bench.progress(f"{len(names)} engines, {rounds} kills each: about {15 * rounds} s for each")
    return bench.finish(
        by_engine(
            bench,
            "benchmarks.failover",
            names,
            lambda cluster, place: measure(cluster, place, rounds, bench.options.seed),
        )
    )


if __name__ == "__main__":
    main()
