"""One process of light workers that share a host: each claims a task, leaves a mark outside, and completes it.

``python -m benchmarks.swarm.scale_child URL RUN FIRST COUNT TASKS MARKS``: until the plan is done.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from logact import open_log
from logact.entry import Commit, Input, Intent, NewEntry, Output, Result, Run, Started, own
from logact.runtime.host import Host
from logact.swarm import Claims

LEASE_S = 60.0


def answer_record(host: Host, run: int, agent: str, task: str) -> list[NewEntry]:
    """A whole run in one record: its answer proposed, committed and released. The output is its sixth entry."""
    text = f"{agent} did {task}"
    said = [
        (Run(agent=agent, title=task, parent=run), "client"),
        (Input(run=own(0), text=task), "client"),
        (Intent(run=own(0), agent=agent, tool="answer", arguments={"text": text}, effect="read"), "driver"),
        (Commit(intent=own(2)), "decider"),
        (Started(intent=own(2)), "executor"),
        (Output(run=own(0), intent=own(2), text=text), "executor"),
        (Result(intent=own(2)), "executor"),
    ]
    return [host.entry(payload, role, agent, agent=agent) for payload, role in said]  # type: ignore[arg-type]


async def worker(
    host: Host, run: int, agent: str, total: int, marks: int, claims: Claims, draw: random.Random
) -> None:
    """Take tasks until none is left."""
    order = [f"{number:03}" for number in range(1, total + 1)]
    draw.shuffle(order)
    for task in order:
        plan = claims.plan
        if plan is None or plan.status != "running":
            return
        if task in plan.done or task in plan.held:
            continue
        if not await claims.take(task, agent):
            continue
        os.write(marks, f"{agent} {task}\n".encode())
        await claims.complete(task, agent, own(5), before=answer_record(host, run, agent, task))


async def main() -> None:
    url, run, first, count, total, path = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
    log = open_log(url)
    host = Host(log, f"process{os.getpid()}", lease_s=LEASE_S)
    await host.tail.start()
    await host.append([host.birth()])
    claims = Claims(host, run, lease_s=LEASE_S)
    marks = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    while True:
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + count):
                draw = random.Random(number * 1000 + first)
                group.create_task(worker(host, run, f"w{number}", total, marks, claims, draw))
        await host.tail.catch_up()
        plan = claims.plan
        if plan is None or len(plan.done) >= total:
            break
        if not await claims.end_the_lost(host.agent):
            await asyncio.sleep(0.1)
    os.close(marks)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main())
