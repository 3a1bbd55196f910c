"""A process with whole agents for ``full``: each has its own fold, driver, voters, executor and runs of its own.

``python -m benchmarks.swarm.full_child URL RUN FIRST COUNT TASKS MARKS``: until the plan is done.
"""

from __future__ import annotations

import asyncio
import os
import sys

from logact import LogActAgent, Policy, Swarm, open_log, tool
from logact.models import ScriptedModel, call
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, turn_of
from logact.tools import ToolContext

LEASE_S = 60.0


def script(request: ModelRequest) -> Reply:
    """Mark the task, then answer."""
    name = request.messages[0].text.split()[1]
    return call("put", name=name) if not turn_of(request) else f"{name} is done"


async def main() -> None:
    url, run, first, count, _, path = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
    marks = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @tool(effect="idempotent")
    async def put(name: str, context: ToolContext) -> str:
        """Note that a task was worked on."""
        os.write(marks, f"{context.agent} {name}\n".encode())
        return "noted"

    log = open_log(url)
    agents = [
        LogActAgent(
            name,
            log,
            model=ScriptedModel(script),
            tools=[put],
            policy=Policy(version=1, agent=name, need={"open": "a benchmark"}),
        )
        for name in (f"w{number}" for number in range(first, first + count))
    ]
    await Swarm(agents, log, lease_s=LEASE_S).work(run)
    os.close(marks)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main())
