"""Kills the server that leads, under load, and counts what was acknowledged and is gone, and what is there twice."""

from __future__ import annotations

from typing import Any

from benchmarks.common import Benchmark, work_directory
from benchmarks.failover.base import ENGINES, failover_of
from benchmarks.failover.measure import measure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it; the figures by engine."""
    bench = Benchmark(
        "failover",
        "Kills the leading server under load, while writers and an agent are at work.",
        argv,
        only={"default": "", "metavar": "NAME,…", "help": f"of {', '.join(ENGINES)}"},
        seed={"type": int, "default": 1, "metavar": "N", "help": "for the moments of the kills"},
    )
    names = [name for name in bench.options.only.split(",") if name] or list(ENGINES)
    rounds = bench.options.repeat or (1 if bench.quick else 5)
    bench.progress(f"{len(names)} engines, {rounds} kills each: about {15 * rounds} s for each")
    figures: dict[str, Any] = {}
    for name in names:
        figures[name] = one(bench, name, rounds)
        bench.progress(f"{name}: {figures[name]}")
    return bench.finish(figures)


def one(bench: Benchmark, name: str, rounds: int) -> dict[str, Any] | None:
    """One engine's figures; None, with a note, if its servers are not here."""
    kind = failover_of(name)
    if kind is None:
        bench.notes.append(f"{name}: no cluster is written for it")
        return None
    with work_directory() as directory:
        cluster = kind(directory)
        try:
            cluster.start()
            return measure(cluster, directory, rounds, bench.options.seed)
        except Exception as error:  # one engine that fails does not take the others' figures along
            bench.notes.append(f"{name}: {type(error).__name__}: {error}")
            return None
        finally:
            bench.notes += [f"{name}: {note}" for note in cluster.notes]
            cluster.close()


if __name__ == "__main__":
    main()
