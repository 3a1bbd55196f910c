"""Claims under many agents and kills: how fast, how fair, and whether any task was done twice or lost.

Agents are light: they share a process's fold, and their work is a mark in a file beside the log. Processes are killed
from outside at random moments and others are started in their place under other names.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, child_environment, kill
from logact import Swarm, open_log
from logact.core import machine
from logact.entry import Claim

PROCESSES = 2
TASKS_MIN = 200


LIGHT, FULL = "benchmarks.swarm.scale_child", "benchmarks.swarm.full_child"
"""What a process plays: light workers that share its fold, or whole agents."""


def scale(
    where: Path, agents: int, seed: int, *, kills: int, tasks: int, processes: int = PROCESSES, child: str = LIGHT
) -> dict[str, Any]:
    """One number of agents, spread over so many processes."""
    url, marks = f"sqlite:///{where}/scale{agents}.db", where / f"marks{agents}"
    run = asyncio.run(_begin(url, tasks))
    draw = random.Random(seed)
    targets = sorted(draw.randrange(tasks // 10, tasks * 7 // 10) for _ in range(kills))  # done by then
    processes = min(processes, agents)
    each, named = -(-agents // processes), 0
    living: list[subprocess.Popen[bytes]] = []
    killed, began = 0, time.monotonic()
    try:
        while True:
            while len([one for one in living if one.poll() is None]) < processes:
                ended = [one for one in living if one.poll() is not None]
                if any(one.returncode == 0 for one in ended):
                    break  # the plan is done
                living = [one for one in living if one.poll() is None]
                living.append(_child(child, url, run, named, each, tasks, marks))
                named += each
            if any(one.poll() == 0 for one in living) or time.monotonic() - began > 240:
                break
            time.sleep(0.02)
            done = marks.read_bytes().count(b"\n") if marks.exists() else 0
            if killed < len(targets) and done >= targets[killed]:
                kill(draw.choice([one for one in living if one.poll() is None] or living))
                killed += 1
        for one in living:
            one.wait(timeout=60)
    finally:
        for one in living:
            kill(one)
            one.wait()
    seconds = time.monotonic() - began
    return {
        "agents_started": named,
        "tasks": tasks,
        "kills": killed,
        "seconds": round(seconds, 2),
        "actions_per_s": round(tasks / seconds, 1),
        **asyncio.run(_judge(url, run, tasks, marks)),
    }


def _child(
    module: str, url: str, run: int, first: int, count: int, tasks: int, marks: Path
) -> subprocess.Popen[bytes]:
    given = [url, str(run), str(first), str(count), str(tasks), str(marks)]
    return subprocess.Popen(
        [sys.executable, "-m", module, *given],
        cwd=ROOT,
        env=child_environment(),
        start_new_session=True,
    )


async def _begin(url: str, tasks: int) -> int:
    log = open_log(url)
    try:
        run: int = await Swarm([], log).start("all", [f"part {number}" for number in range(tasks)])
        return run
    finally:
        await log.close()


async def _judge(url: str, run: int, tasks: int, marks: Path) -> dict[str, Any]:
    """Fold the log anew and compare it with what stands beside it."""
    log = open_log(url)
    await log.open()
    state = machine.initial(log.log_id)
    completed: Counter[str] = Counter()
    by: Counter[str] = Counter()
    lapses = entries = refused = 0
    async for entry in log.read():
        state = machine.apply(state, entry)
        entries += 1
        said = entry.payload
        if isinstance(said, Claim) and state.verdict:
            refused += 1
        elif isinstance(said, Claim):
            lapses += said.lapses > 0
            if said.result:
                completed[said.task] += 1
                by[said.agent] += 1
    await log.close()
    seen = Counter(line.split()[1] for line in marks.read_text().splitlines())
    shares = sorted(by.values())
    return {
        "claims_doubled": sum(1 for count in completed.values() if count > 1),
        "claims_lost": tasks - len(completed),
        "claims_refused": refused,
        "lapses": lapses,
        "marks_repeated": sum(1 for count in seen.values() if count > 1),
        "marks_missing": sum(1 for task in completed if task not in seen),
        "entries": entries,
        "agents_that_completed": len(by),
        "completed_median": shares[len(shares) // 2],
        "completed_max": shares[-1],
    }
