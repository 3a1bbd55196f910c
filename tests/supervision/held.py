"""An executor as a process of its own, for tests that stop it: ``python -m tests.supervision.held LOG FILE EFFECT``.

Its tool writes ``began`` into the file, waits, and writes ``happened``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from logact import LogActAgent, Policy, open_log
from logact.runtime.assembly import play_executor
from logact.tools import Tool

LEASE_S = 0.6


def line(path: Path, text: str) -> None:
    """Append one line, in one write."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def the_tool(path: Path, effect: str) -> Tool:
    """A slow tool with one effect, which its probe can see."""

    async def pay(to: str) -> str:
        line(path, "began")
        await asyncio.sleep(0.4)
        line(path, "happened")
        return f"paid {to}"

    async def probe(to: str) -> bool:
        return "happened" in path.read_text().split()

    return Tool(pay, effect=effect, probe=probe if effect != "read" else None)  # type: ignore[arg-type]


def the_agent(url: str, path: Path, effect: str, **more: object) -> LogActAgent:
    """The agent as each of its processes sets it up."""
    opened = Policy(version=1, agent="ops", need={"open": "a test"})
    options = {"lease_s": LEASE_S, **more}
    return LogActAgent("ops", log=open_log(url), tools=[the_tool(path, effect)], policy=opened, **options)  # type: ignore[arg-type]


async def main(url: str, path: str, effect: str) -> None:
    """Play the executor until killed."""
    agent = the_agent(url, Path(path), effect)
    async with agent.log as log:
        await play_executor(log, agent)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
