"""What a log costs on each engine: appends by one writer and by sixteen, the way to a follower, reading it all."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.common import Benchmark, work_directory
from benchmarks.engines.base import ENGINES, adapter_of
from benchmarks.engines.measure import measure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it; the figures by engine."""
    bench = Benchmark(
        "engines",
        "Appends, followers and replay on each engine, against its own insert or publish in the same run.",
        argv,
        only={"default": "", "metavar": "NAME,…", "help": f"of {', '.join(ENGINES)}"},
    )
    names = [name for name in bench.options.only.split(",") if name] or list(ENGINES)
    repeat = bench.options.repeat or (1 if bench.quick else 3)
    bench.progress(f"{len(names)} engines, {repeat} repeats: about {'15' if bench.quick else '60'} s for each")
    figures: dict[str, Any] = {}
    for name in names:
        figures[name] = one(bench, name, repeat)
        bench.progress(f"{name}: {figures[name]}")
    return bench.finish(figures)


def one(bench: Benchmark, name: str, repeat: int) -> dict[str, Any] | None:
    """One engine's figures; None, with a note, if its servers are not here."""
    kind = adapter_of(name)
    if kind is None:
        bench.notes.append(f"{name}: no adapter")
        return None
    with work_directory() as directory:
        adapter = kind(directory)
        try:
            adapter.start()
            return asyncio.run(measure(adapter, quick=bench.quick, repeat=repeat))
        except Exception as error:  # one engine that fails does not take the others' figures along
            bench.notes.append(f"{name}: {type(error).__name__}: {error}")
            return None
        finally:
            bench.notes += [f"{name}: {note}" for note in adapter.notes]
            adapter.close()


if __name__ == "__main__":
    main()
