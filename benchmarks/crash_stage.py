"""The stage on which ``benchmarks.crash`` kills agents: the child, its neighbour, its recorder, and the judge.

What was lost, doubled or missing is counted by other processes than the one that dies. What only a person can
settle is settled by a scripted operator who looks into the recorder's file.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import ROOT, child_environment, kill
from benchmarks.crash_child import DONE, EFFECTS, IN_DOUBT, items
from benchmarks.effect_recorder import Recorder
from logact.entry import NewEntry, Recovery
from logact.logs.url import open_log
from logact.logs.verify import verify
from logact.runtime.tail import Tail

LIVES_MAX = 60
"""How often one run is started before it counts as not resumed."""

LIFE_S_MAX = 60.0
WORKERS = 2


class Found(msgspec.Struct):
    """What one scenario came to; sums over scenarios are made with ``add``."""

    runs: int = 0
    finished: int = 0
    lives: int = 0
    kills: int = 0
    not_reached: int = 0
    asked: int = 0
    acked: int = 0
    lost: int = 0
    unsound: int = 0
    doubled_irreversible: int = 0
    doubled_reversible: int = 0
    missing_irreversible: int = 0
    missing_reversible: int = 0
    missing_idempotent: int = 0
    repeated_idempotent: int = 0
    effects: int = 0
    settled_restart: int = 0
    settled_happened: int = 0
    settled_not_happened: int = 0
    problems: list[str] = []

    def add(self, other: Found) -> None:
        """Add another's counts to these."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Stage:
    """One SQLite file with many logs in it, its recorder, and the neighbour that writes to it."""

    def __init__(self, directory: Path, rounds: int, *, jitter_ms: float = 2.0) -> None:
        self.directory = directory
        self.rounds = rounds
        self.jitter_ms = jitter_ms
        self.recorder = Recorder(directory)
        self.options: tuple[str, ...] = ()
        self.scenarios: list[str] = []
        self.children: list[subprocess.Popen[str]] = []
        self._neighbour = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.crash_neighbour", self.url("neighbour"), str(self.recorder.path)],
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._neighbour.stdout is None or self._neighbour.stdout.readline() != "ready\n":
            raise RuntimeError("the neighbour did not start")

    def url(self, scenario: str) -> str:
        """The log of a scenario, as its agent reaches it."""
        return f"sqlite:///{self.directory / 'agents.db'}?log={scenario}"

    def near_url(self, scenario: str) -> str:
        """The same log as those reach it who only look on: what disturbs the agent does not disturb them."""
        return self.url(scenario)

    def neighbour_to(self, scenario: str) -> None:
        """Have the neighbour write its letters to this scenario's log.

        Every other scenario has its log to itself (the neighbour then only writes to its own log in the file), since
        letters could wake an agent that had slept in.
        """
        alone = len(self.scenarios) % 2 == 0
        if self._neighbour.stdin is not None:
            self._neighbour.stdin.write(("" if alone else self.url(scenario)) + "\n")
            self._neighbour.stdin.flush()

    def neighbour_ends(self) -> bool:
        """End the neighbour; False if it had failed."""
        if self._neighbour.stdin is not None:
            self._neighbour.stdin.close()
        try:
            code = self._neighbour.wait(LIFE_S_MAX)
        except subprocess.TimeoutExpired:
            kill(self._neighbour)
            code = self._neighbour.wait()
        if self._neighbour.stdout is not None:
            self._neighbour.stdout.close()
        return code == 0

    def start(
        self,
        scenario: str,
        *,
        crash_at: str = "",
        points: Path | None = None,
        part: str = "",
    ) -> subprocess.Popen[str]:
        """Start the agent, or one part of it: the same command each time."""
        changes = {"LOGACT_CRASH_AT": crash_at} if crash_at else {}
        if points is not None:
            changes["LOGACT_BENCH_POINTS"] = str(points)
        command = [sys.executable, "-m", "benchmarks.crash_child"]
        command += ["--log", self.url(scenario), "--recorder", str(self.recorder.path), "--scenario", scenario]
        command += ["--rounds", str(self.rounds), "--jitter-ms", str(self.jitter_ms), *self.options]
        command += ["--part", part] if part else []
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def close(self) -> None:
        """End what still runs."""
        for child in self.children:
            if child.poll() is None:
                kill(child)
                child.wait()
        if self._neighbour.poll() is None:
            self.neighbour_ends()
        self.recorder.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Killer = Callable[[subprocess.Popen[str]], None]


def live(stage: Stage, scenario: str, found: Found, *, killer: Killer | None = None, **how: Any) -> int:
    """One life of a scenario's agent; its exit code (below 0: killed)."""
    child = stage.start(scenario, **how)
    found.lives += 1
    try:
        if killer is not None:
            killer(child)
        _, errors = child.communicate(timeout=LIFE_S_MAX)
    except subprocess.TimeoutExpired:
        kill(child)
        _, errors = child.communicate()
        found.problems.append(f"{scenario}: hung; {errors[-500:]}")
        return -1
    finally:
        stage.children.remove(child)
    if child.returncode < 0:
        found.kills += 1
    elif child.returncode == IN_DOUBT:
        found.asked += asyncio.run(settle(stage, scenario))
    elif child.returncode != DONE:
        found.problems.append(f"{scenario}: exit {child.returncode}; {errors[-800:]}")
    return child.returncode


def until_done(stage: Stage, scenario: str, found: Found, killer: Callable[[], Killer | None] | None = None) -> bool:
    """Start the agent again and again until its run has ended."""
    while found.lives < LIVES_MAX:
        code = live(stage, scenario, found, killer=killer() if killer is not None else None)
        if code == DONE:
            return True
        if code > 0 and code != IN_DOUBT:
            return False
    found.problems.append(f"{scenario}: not finished after {LIVES_MAX} lives")
    return False


async def settle(stage: Stage, scenario: str) -> int:
    """The operator: looks into the recorder's file, and says in the log what happened. How many were settled."""
    done = {(effect["scenario"], effect["item"]) for effect in stage.recorder.effects()}
    async with open_log(stage.near_url(scenario)) as log:
        state = await Tail(log).start()
        doubtful = state.doubtful()
        for action in doubtful:
            item = action.intent.arguments["item"]
            yes = (scenario, item) in done
            settled = Recovery(
                intent=action.id,
                attempt=len(action.attempts),
                settlement="happened" if yes else "not_happened",
                evidence="operator",
                reason="looked into the recorder's file",
                value=f"{item} was done" if yes else None,
            )
            await log.append(
                NewEntry(
                    payload=settled,
                    role="operator",
                    name="operator",
                    agent=action.intent.agent,
                    run=action.intent.run,
                    tool=action.intent.tool,
                )
            )
        return len(doubtful)


def count_effects(scenario: str, rounds: int, effects: Iterable[dict[str, Any]], found: Found) -> None:
    """Compare what happened in the world with what should have happened once."""
    net: Counter[int] = Counter()
    for effect in effects:
        if effect["scenario"] == scenario:
            found.effects += 1
            net[effect["item"]] += 1 if effect["verb"] == "effect" else -1
    for item, name in items(rounds).items():
        times, kind = net[item], EFFECTS[name]
        if kind == "irreversible":
            found.doubled_irreversible += times > 1
            found.missing_irreversible += times < 1
        elif kind == "reversible":
            found.doubled_reversible += times > 1
            found.missing_reversible += times < 1
        elif kind == "idempotent":
            found.repeated_idempotent += times > 1
            found.missing_idempotent += times < 1
        if kind != "read" and kind != "idempotent" and times != 1:
            found.problems.append(f"{scenario}: item {item} ({name}) happened {times} times")


async def check_log(url: str, acks: Sequence[dict[str, Any]], found: Found) -> None:
    """Every acknowledged append is in the log, byte for byte, and the log verifies."""
    async with open_log(url) as log:
        present: set[tuple[int, str]] = set()
        async for entry in log.read():
            present.add((entry.position, entry.record_hash))
            if isinstance(entry.payload, Recovery):
                found.settled_restart += entry.payload.settlement == "restart"
                found.settled_happened += entry.payload.settlement == "happened"
                found.settled_not_happened += entry.payload.settlement == "not_happened"
        report = await verify(log)
    found.acked += len(acks)
    for ack in acks:
        if (ack["position"], ack["hash"]) not in present:
            found.lost += 1
            found.problems.append(f"{url}: the acknowledged record at {ack['position']} is not there")
    if not report.sound:
        found.unsound += 1
        found.problems += [f"{url}: {problem.position}: {problem.what}" for problem in report.problems[:3]]


def judge(stage: Stage, found: Found) -> None:
    """Look at everything that a stage left behind, all of its scenarios and the neighbour's own log."""
    acks: dict[str, list[dict[str, Any]]] = {}
    for ack in stage.recorder.acks():
        acks.setdefault(ack["log"], []).append(ack)
    effects = stage.recorder.effects()
    for scenario in stage.scenarios:
        count_effects(scenario, stage.rounds, effects, found)
        asyncio.run(check_log(stage.url(scenario), acks.pop(stage.url(scenario), []), found))
    for url, rest in acks.items():
        asyncio.run(check_log(url, rest, found))


def crash_points(stage: Stage, scenario: str, first: str = "") -> list[str]:
    """NAME:COUNT of every point that a life reaches; with ``first`` the life after one that was killed there."""
    listing = stage.directory / f"{scenario}.points"
    found = Found()
    stage.neighbour_to(scenario)
    if first:
        live(stage, scenario, found, crash_at=first)
    code = live(stage, scenario, found, points=listing)
    if code not in (DONE, IN_DOUBT):
        raise RuntimeError(f"the dry pass failed: {found.problems}")
    counts: Counter[str] = Counter()
    points = []
    for name in listing.read_text().splitlines():
        counts[name] += 1
        points.append(f"{name}:{counts[name]}")
    return points


def killed_at(stage: Stage, scenario: str, points: Sequence[str]) -> Found:
    """A run whose first lives are killed at these points, one after another."""
    found = Found(runs=1)
    stage.scenarios.append(scenario)
    stage.neighbour_to(scenario)
    for point in points:
        for _ in range(3):
            code = live(stage, scenario, found, crash_at=point)
            if code == IN_DOUBT:
                continue  # it asked its operator and got no further; the next life will
            found.not_reached += code >= 0
            break
    found.finished += until_done(stage, scenario, found)
    return found


def killed_at_random(stage: Stage, scenario: str, draw: random.Random, kills: int, run_s: float) -> Found:
    """A run whose lives are killed at random moments until it ends or ``kills`` were dealt."""
    found = Found(runs=1)
    stage.scenarios.append(scenario)
    stage.neighbour_to(scenario)

    def next_killer() -> Killer | None:
        if found.kills >= kills:
            return None
        # mostly while it works, sometimes while it starts
        starting = draw.random() < 0.1
        delay_s = draw.uniform(0, 0.25) if starting else draw.uniform(0, run_s * 0.6)

        def strike(child: subprocess.Popen[str]) -> None:
            if not starting and child.stdout is not None:
                child.stdout.readline()  # "ready"
            try:
                child.wait(delay_s)
            except subprocess.TimeoutExpired:
                kill(child)

        return strike

    found.finished += until_done(stage, scenario, found, next_killer)
    return found


def recovery_points(points: Iterable[str]) -> list[str]:
    """Those points of a life after a crash that belong to taking up the agent and settling what was left."""
    settling = ("recovery", "finding", "undone", "fence")
    first = [point for point in points if ":" not in point.rpartition(":")[0]]  # not the engine's own
    return [point for point in first if point.endswith(":1") or any(word in point for word in settling)]


def in_parallel(
    stages: Sequence[Stage], jobs: Sequence[Callable[[Stage], Found]], report: Callable[[str], None]
) -> Found:
    """Run the jobs, each stage one at a time, and sum what they found."""
    total = Found()
    waiting = list(reversed(jobs))
    lock = threading.Lock()

    def work(stage: Stage) -> None:
        while True:
            with lock:
                if not waiting:
                    return
                job = waiting.pop()
            found = job(stage)
            with lock:
                total.add(found)
                if total.runs % 20 == 0:
                    report(f"{total.runs} of {len(jobs)} runs, {total.kills} kills")

    with ThreadPoolExecutor(len(stages)) as pool:
        for done in [pool.submit(work, stage) for stage in stages]:
            done.result()
    return total
