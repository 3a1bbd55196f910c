"""What one engine can do, measured from outside: appends, followers, replay, whole actions. Thinks of no engine.

It writes into the log that it is given, and nowhere else; whoever calls makes sure that the log is a new one.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from logact import env as environment
from logact.agent import LogActAgent
from logact.core.views import Action, LogEntry
from logact.entry import NewEntry, Notice
from logact.errors import LogActError
from logact.logs.base import SharedLog
from logact.tools import tool
from logact.voters.base import Voter

WRITERS = 16
BODY = "x" * 400
SAMPLES_MIN = 5
FOLLOW_S_MAX = 30.0
_ROOM = 1 << 20


class Times(msgspec.Struct, frozen=True):
    """Milliseconds: the median and the 99th percentile (nearest rank) of so many samples."""

    median_ms: float
    p99_ms: float
    samples: int


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. Each is None where it could not be measured; ``notes`` says why."""

    engine: str
    log: str
    entries: int = 0
    flush: Times | None = None
    append: Times | None = None
    writers: int = WRITERS
    appends_per_s: float | None = None
    follow: Times | None = None
    replay_per_s: float | None = None
    action: Times | None = None
    notes: tuple[str, ...] = ()


def times_of(seconds: list[float]) -> Times | None:
    """The figures of some samples; None if there are none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    last = ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]
    return Times(round(statistics.median(ordered) * 1000, 4), round(last * 1000, 4), len(ordered))


def flushes(directory: Path, seconds: float) -> Times | None:
    """How long the disk under a directory takes to make a small write durable, into a file that does not grow."""
    clock = environment.current()
    place = directory / f".logact-bench-{clock.identifier()}"
    found: list[float] = []
    try:
        with place.open("xb", buffering=0) as file:
            file.write(bytes(_ROOM))
            os.fdatasync(file.fileno())
            end = clock.monotonic() + seconds
            while clock.monotonic() < end or len(found) < SAMPLES_MIN:
                began = clock.monotonic()
                os.pwrite(file.fileno(), BODY.encode(), len(found) * len(BODY) % (_ROOM - len(BODY)))
                os.fdatasync(file.fileno())
                found.append(clock.monotonic() - began)
    except OSError:
        return None
    finally:
        place.unlink(missing_ok=True)
    return times_of(found)


async def measure(
    log: SharedLog,
    other: SharedLog,
    *,
    seconds: float,
    directory: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Measure for about ``seconds`` in all. ``other`` is the same log, opened a second time, for the follower.

    ``directory`` is where the log's file lies, to measure the disk's own flush. Raises what the log raises.
    """
    part, notes = seconds / 5, []
    found: dict[str, Any] = {"engine": log.engine.info().engine, "log": log.url}
    if directory is not None:
        say("the disk's own flush")
        found["flush"] = await environment.current().in_thread(flushes, directory, part / 2)
    say("appends, one after the other")
    found["append"] = times_of(await _appends(log, part))
    say(f"appends of {WRITERS} writers at once")
    found["appends_per_s"] = await _many(log, part)
    say("how soon a follower sees an append")
    follow = await _follow(log, other, part)
    found["follow"] = times_of(follow)
    if not follow:
        notes.append(f"no follower saw an append within {FOLLOW_S_MAX:g} s")
    say("replay")
    found["entries"], found["replay_per_s"] = await _replay(other)
    say("whole actions")
    try:
        found["action"] = times_of(await _actions(log, part))
    except LogActError as error:
        notes.append(f"no whole action: {error}")
    return Measured(**found, notes=tuple(notes))


def _entry(number: int) -> NewEntry:
    return NewEntry(payload=Notice(code="bench", message=f"{number} {BODY}"), role="client", name="bench")


async def _appends(log: SharedLog, seconds: float) -> list[float]:
    clock = environment.current()
    found: list[float] = []
    await log.append(_entry(0))  # the first also opens
    end = clock.monotonic() + seconds
    while clock.monotonic() < end or len(found) < SAMPLES_MIN:
        began = clock.monotonic()
        await log.append(_entry(len(found)))
        found.append(clock.monotonic() - began)
    return found


async def _many(log: SharedLog, seconds: float) -> float:
    clock = environment.current()
    began = clock.monotonic()

    async def work() -> int:
        writer, count = log.writer(), 0
        while clock.monotonic() < began + seconds or not count:
            await writer.append([_entry(count)])
            count += 1
        return count

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(WRITERS)]
    return round(sum(task.result() for task in tasks) / (clock.monotonic() - began), 1)


async def _follow(log: SharedLog, other: SharedLog, seconds: float) -> list[float]:
    """Seconds from the start of an append to the moment at which the other connection's follower holds it."""
    clock = environment.current()
    found: list[float] = []
    seen: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    async def follow(after: int) -> None:
        async for entry in other.follow(after):
            seen.put_nowait((entry.position, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow(await other.tail()))
        end = clock.monotonic() + seconds
        while clock.monotonic() < end or len(found) < SAMPLES_MIN:
            began = clock.monotonic()
            position = (await log.append(_entry(0))).position
            try:
                async with asyncio.timeout(FOLLOW_S_MAX):
                    there = (0, 0.0)
                    while there[0] < position:
                        there = await seen.get()
            except TimeoutError:
                break
            found.append(there[1] - began)
            await clock.sleep(0.002)  # a follower that waits, not one that is still reading
        following.cancel()
    return found


async def _replay(log: SharedLog) -> tuple[int, float]:
    clock = environment.current()
    began, count = clock.monotonic(), 0
    async for _ in log.read():
        count += 1
    return count, round(count / max(clock.monotonic() - began, 1e-9), 1)


class _Yes(Voter):
    """Approves: what is measured is the way through the log."""

    quick = True

    def check(self, entry: LogEntry) -> Any:
        return True


@tool(effect="idempotent")
def nothing(number: int) -> int:
    """Do nothing."""
    return number


async def _actions(log: SharedLog, seconds: float) -> list[float]:
    clock = environment.current()
    found: list[float] = []
    async with LogActAgent("bench", log=log, voters=[_Yes("yes")], tools=[nothing]) as agent:
        end = clock.monotonic() + seconds
        while clock.monotonic() < end or len(found) < SAMPLES_MIN:
            began = clock.monotonic()
            await agent.act(Action(tool="nothing", arguments={"number": len(found)}, effect="idempotent"))
            found.append(clock.monotonic() - began)
    return found
