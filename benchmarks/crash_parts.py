"""The decoupled form under ``kill -9``: each part of the agent is a process of its own, and dies alone.

The parts only meet in the log. Whoever is killed is started again with the same command; the others are never told.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import kill
from benchmarks.crash_child import AGENT, PARTS, TASK
from benchmarks.crash_stage import LIFE_S_MAX, Found, Stage, settle
from logact.entry import Input, NewEntry, Run, own
from logact.errors import LogError
from logact.logs.base import SharedLog
from logact.logs.url import open_log
from logact.runtime.tail import Tail

LOOK_S = 0.02


class Company:
    """The parts of one agent, each a process, on one log."""

    def __init__(self, stage: Stage, scenario: str) -> None:
        self.stage = stage
        self.scenario = scenario
        self.found = Found(runs=1)
        self.parts: dict[str, subprocess.Popen[str]] = {}

    def begin(self, part: str, crash_at: str = "", points: Path | None = None) -> None:
        """Start a part; with ``crash_at`` it dies at that point, with ``points`` it lists those that it reaches."""
        self.parts[part] = self.stage.start(self.scenario, part=part, crash_at=crash_at, points=points)
        self.found.lives += 1

    def end(self, part: str) -> None:
        """SIGKILL to one part."""
        kill(self.parts[part])
        self._gone(part)

    def _gone(self, part: str) -> None:
        child = self.parts.pop(part)
        _, errors = child.communicate(timeout=LIFE_S_MAX)
        self.stage.children.remove(child)
        self.found.kills += child.returncode < 0
        if child.returncode > 0:
            self.found.problems.append(f"{self.scenario}: {part} ended with {child.returncode}; {errors[-500:]}")

    def restart_the_dead(self) -> None:
        """Start again whoever died."""
        for part, child in list(self.parts.items()):
            if child.poll() is not None:
                self._gone(part)
                self.begin(part)

    def close(self) -> None:
        """End all parts; these kills are not counted."""
        counted = self.found.kills
        for part in list(self.parts):
            self.end(part)
        self.found.kills = counted


async def ask_for_work(log: SharedLog) -> None:
    """The client: a run and its input."""
    begin = NewEntry(payload=Run(agent=AGENT, title=TASK), role="client", name="client", agent=AGENT)
    words = NewEntry(payload=Input(run=own(0), text=TASK), role="client", name="client", agent=AGENT, run=own(0))
    await log.append(begin, words)


async def play(company: Company, strike: Callable[[Company, int], float]) -> Found:
    """Run until the answer is in the log. ``strike(company, position)`` is called again after as many seconds as it
    says, and may kill whom it likes.
    """
    stage, found = company.stage, company.found
    stage.scenarios.append(company.scenario)
    stage.neighbour_to(company.scenario)
    loop = asyncio.get_running_loop()
    end, next_strike = loop.time() + LIFE_S_MAX, 0.0
    async with open_log(stage.near_url(company.scenario)) as log:
        await ask_for_work(log)
        tail = Tail(log)
        await tail.start()
        try:
            for part in PARTS:
                if part not in company.parts:
                    company.begin(part)
            while loop.time() < end:
                company.restart_the_dead()
                try:
                    state = await tail.catch_up()
                except LogError:  # the log's server may be what is killed
                    await asyncio.sleep(LOOK_S)
                    continue
                if any(run.status == "finished" for run in state.runs.values()):
                    found.finished += 1
                    break
                if state.doubtful() and state.doubtful()[0].intent.tool == "pay":
                    found.asked += await settle(stage, company.scenario)
                if loop.time() >= next_strike:
                    next_strike = loop.time() + strike(company, state.position)
                await asyncio.sleep(LOOK_S)
            else:
                found.problems.append(f"{company.scenario}: not finished after {LIFE_S_MAX:g} s")
        finally:
            company.close()
    return found


def points_of_parts(stage: Stage, scenario: str) -> dict[str, list[str]]:
    """NAME:COUNT of every crash point that each part reaches in a run without kills."""
    company = Company(stage, scenario)
    listings = {part: stage.directory / f"{scenario}.{part}" for part in PARTS}
    for part, listing in listings.items():
        company.begin(part, points=listing)
    asyncio.run(play(company, lambda company, position: LIFE_S_MAX))
    found: dict[str, list[str]] = {}
    for part, listing in listings.items():
        counts: Counter[str] = Counter()
        found[part] = []
        for name in listing.read_text().splitlines():
            counts[name] += 1
            found[part].append(f"{name}:{counts[name]}")
    return found


def killed_one_by_one(stage: Stage, scenario: str, parts: Sequence[str] = PARTS) -> Found:
    """Each part is killed once, while the others live on: the next one when the log has grown since the last."""
    waiting = list(parts)
    last = -1

    def strike(company: Company, position: int) -> float:
        nonlocal last
        if waiting and position >= last + 6000:
            last = position
            company.end(waiting[0])
            company.begin(waiting.pop(0))
        return LOOK_S

    company = Company(stage, scenario)
    found = asyncio.run(play(company, strike))
    found.not_reached += len(waiting)
    return found


def killed_at_points(stage: Stage, scenario: str, points: Sequence[tuple[str, str]]) -> Found:
    """Parts die at these (part, NAME:COUNT) from their start; each then goes on without."""
    company = Company(stage, scenario)
    for part, point in points:
        company.begin(part, point)
    found = asyncio.run(play(company, lambda company, position: LIFE_S_MAX))
    found.not_reached += max(0, len(points) - found.kills)
    return found


def killed_at_random_parts(stage: Stage, scenario: str, draw: random.Random, kills: int) -> Found:
    """Random parts are killed at random moments; the executor as often as all others together."""

    def strike(company: Company, position: int) -> float:
        if company.found.kills < kills and position:
            part = draw.choice(PARTS) if draw.random() < 0.5 else "executor"
            company.end(part)
            company.begin(part)
        return draw.uniform(0.05, 0.6)

    return asyncio.run(play(Company(stage, scenario), strike))
