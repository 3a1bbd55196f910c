"""The measurements, the same for every engine. Ours and the engine's own insert take turns, one after the other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.common import ROOT, child_environment, kill, median, p99
from benchmarks.engines.base import Adapter
from logact import codec, open_log
from logact.entry import NewEntry, Notice

TEXT = "x" * 300
"""Makes a record of about 512 bytes."""

WRITERS = 16
PACE_S = 0.005
"""Between two appends whose way to a follower is measured: it has gone to sleep by then."""


def entry() -> NewEntry:
    """What is appended, again and again."""
    return NewEntry(payload=Notice(code="bench", message=TEXT), role="client", name="bench")


def body() -> bytes:
    """The bytes that such an entry becomes: what the engine's own insert is given."""
    encoded = codec.encode_record(
        [entry()], log="0" * 16, writer="0" * 16, number=1000, previous="0" * 43, time_ms=1, randomness=b"r" * 12
    )
    return encoded.body


async def one_writer(adapter: Adapter[Any], name: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of ``count`` appends by one writer, and of as many raw inserts in between."""
    ours, raw, data = [], [], body()
    async with open_log(adapter.url(name)) as log, adapter.raw(f"one-{name}") as insert:
        pen = log.writer()
        for turn in range(count + 20):
            began = time.perf_counter()
            await pen.append([entry()])
            between = time.perf_counter()
            await insert(data)
            ended = time.perf_counter()
            if turn >= 20:  # connections, plans and caches are warm
                ours.append((between - began) * 1000)
                raw.append((ended - between) * 1000)
    return ours, raw


async def many_writers(adapter: Adapter[Any], name: str, count: int) -> tuple[float, float]:
    """Appends per second of 16 writers in one process, and of 16 raw clients."""
    async with open_log(adapter.url(name)) as log:

        async def write() -> None:
            pen = log.writer()
            for _ in range(count):
                await pen.append([entry()])

        await log.open()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(write())
        ours = WRITERS * count / (time.perf_counter() - began)
    async with AsyncExitStack() as stack:
        inserts = [await stack.enter_async_context(adapter.raw(f"many-{name}")) for _ in range(WRITERS)]
        data = body()

        async def insert_all(place: int) -> None:
            for _ in range(count):
                await inserts[place](data)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for place in range(WRITERS):
                group.create_task(insert_all(place))
        raw = WRITERS * count / (time.perf_counter() - began)
    return ours, raw


async def follow(adapter: Adapter[Any], name: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until another process has an entry: since its append began, and since it was acknowledged."""
    url = adapter.url(name)
    began: dict[int, int] = {}
    acknowledged: dict[int, int] = {}
    async with open_log(url) as log:
        await log.open()
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engines.follower", url],
            cwd=ROOT,
            env=child_environment(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stream = child.stdout
            if stream is None or await asyncio.to_thread(stream.readline) != "ready\n":
                raise RuntimeError("the follower did not start")
            await asyncio.sleep(0.2)
            pen = log.writer()
            for _ in range(count):
                start = time.monotonic_ns()
                done = await pen.append([entry()])
                began[done.position], acknowledged[done.position] = start, time.monotonic_ns()
                await asyncio.sleep(PACE_S)
            lines = await asyncio.to_thread(lambda: [stream.readline() for _ in range(count)])
        finally:
            kill(child)
            child.communicate()
    seen = {int(position): int(at) for position, at in (line.split() for line in lines)}
    since_begin = [(seen[position] - at) / 1e6 for position, at in began.items()]
    since_ack = [(seen[position] - at) / 1e6 for position, at in acknowledged.items()]
    return since_begin[5:], since_ack[5:]


async def replay(adapter: Adapter[Any], name: str) -> float:
    """Entries per second when a whole log is read and decoded."""
    async with open_log(adapter.url(name)) as log:
        began = time.perf_counter()
        count = 0
        async for _ in log.read():
            count += 1
        return count / (time.perf_counter() - began)


async def measure(adapter: Adapter[Any], *, quick: bool, repeat: int) -> dict[str, Any]:
    """Everything about one engine."""
    singles, follows, many_count = (150, 60, 25) if quick else (1000, 400, 200)
    ours: list[float] = []
    raw: list[float] = []
    rates, raw_rates, replays = [], [], []
    latencies: list[float] = []
    after_ack: list[float] = []
    for turn in range(repeat):
        mine, theirs = await one_writer(adapter, f"one-{turn}", singles)
        ours += mine
        raw += theirs
        rate, raw_rate = await many_writers(adapter, f"many-{turn}", many_count)
        rates.append(rate)
        raw_rates.append(raw_rate)
        since_begin, since_ack = await follow(adapter, f"follow-{turn}", follows)
        latencies += since_begin
        after_ack += since_ack
        replays.append(await replay(adapter, f"many-{turn}"))
    return {
        "append_ms": round(median(ours), 4),
        "append_ms_p99": round(p99(ours), 4),
        "raw_ms": round(median(raw), 4),
        "raw_ms_p99": round(p99(raw), 4),
        "ratio_to_raw": round(median(ours) / median(raw), 3),
        "appends_per_s_16": round(median(rates)),
        "raw_per_s_16": round(median(raw_rates)),
        "follow_ms": round(median(latencies), 4),
        "follow_ms_p99": round(p99(latencies), 4),
        "follow_after_ack_ms": round(median(after_ack), 4),
        "replay_per_s": round(median(replays)),
        "version": adapter.version,
    }
