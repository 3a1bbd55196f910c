"""One part of an agent as a process that stops itself (SIGSTOP) in front of its first append of one kind.

``python -m tests.supervision.twin LOG DIRECTORY PART POINT``. The agent writes into the directory what its model was
asked and what its tool did; its voter rejects the first time that it is asked there, and approves from then on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from logact import LogActAgent, ScriptedModel, open_log
from logact import env as environment
from logact.env import Env
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, call, turn_of
from logact.runtime.assembly import play_decider, play_driver, play_voter
from logact.tools import Tool

LEASE_S = 0.3
PLAYS = {"driver": play_driver, "voter:careful": play_voter, "decider": play_decider}


def the_agent(url: str, place: Path, lease_s: float) -> LogActAgent:
    """The agent as each of its processes sets it up."""

    def line(name: str, text: str) -> None:
        with (place / name).open("a") as file:
            file.write(f"{text}\n")

    def model(request: ModelRequest) -> Reply:
        line("asked", f"{turn_of(request)} {os.getpid()}")
        return call("put", item="a") if turn_of(request) == 0 else "done"

    async def put(item: str) -> str:
        line("world", "began")
        while not (place / "gate").exists():
            await asyncio.sleep(0.01)
        line("world", "happened")
        return f"put {item}"

    async def careful(entry: Any) -> bool:
        voted = (place / "voted").exists()
        line("voted", str(entry.position))
        return voted

    return LogActAgent(
        "ops",
        log=open_log(url),
        model=ScriptedModel(model),
        tools=[Tool(put, effect="irreversible")],
        voters=[careful],
        lease_s=lease_s,
    )


class Stopping(Env):
    """Stops its process at a named point, once; the process goes on from there when it is woken."""

    points = True

    def __init__(self, point: str) -> None:
        super().__init__()
        self.at = point

    def point(self, name: str) -> None:
        if name == self.at:
            self.at = ""
            os.kill(os.getpid(), signal.SIGSTOP)


async def main(url: str, place: str, part: str, point: str) -> None:
    """Play one part until killed."""
    environment.use(Stopping(point))
    agent = the_agent(url, Path(place), LEASE_S)
    async with agent.log as log:
        await PLAYS[part](log, agent)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
