"""What a log costs on each engine: appends by one writer and by sixteen, the way to a follower, reading it all."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.common import Benchmark
from benchmarks.engines.base import ENGINES, by_engine, chosen, only
from benchmarks.engines.measure import measure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it; the figures by engine."""
    bench = Benchmark(
        "engines",
        "Appends, followers and replay on each engine, against its own insert or publish in the same run.",
        argv,
        only=only(ENGINES),
    )
    names = chosen(bench, ENGINES)
    repeat = bench.options.repeat or (1 if bench.quick else 3)
    bench.progress(f"{len(names)} engines, {repeat} repeats: about {'15' if bench.quick else '60'} s for each")
    return bench.finish(
        by_engine(
            bench,
            "benchmarks.engines",
            names,
            lambda adapter, _: asyncio.run(measure(adapter, quick=bench.quick, repeat=repeat)),
        )
    )


if __name__ == "__main__":
    main()
