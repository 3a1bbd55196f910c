"""Small real processes to supervise, and a supervisor of them on a log in memory.

A process here takes part in supervision as the real parts do (pulse, SIGTERM), but starts in milliseconds. What it
does stands in its arguments; what it did is in files that the test looks at.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logact import SharedLog, open_log
from logact.entry import Finding, Notice
from logact.errors import LogActError
from logact.runtime.leaving import Leave
from logact.runtime.slots import Part, Settings
from logact.runtime.supervisor import Supervisor

CHILD = """
import os, signal, subprocess, sys, time
name, how, place = sys.argv[1:4]
pipe, _, parent = os.environ["LOGACT_SUPERVISED"].partition(":")
with open(f"{place}/lives", "a") as lives:
    lives.write(f"{name} {os.getpid()}\\n")
life = sum(line.startswith(name + " ") for line in open(f"{place}/lives"))
if how == "breeds":
    grown = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
    open(f"{place}/grown", "w").write(str(grown.pid))
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "says":
    print("the disk is on fire", file=sys.stderr, flush=True)
if how.startswith("code"):
    sys.exit(int(how[4:]))
end = time.monotonic() + 20
while time.monotonic() < end:
    mute = (how == "mute" and life == 1 and os.path.exists(f"{place}/mute"))
    position = 1000 if how == "behind" and life == 1 else 10**9
    if not mute:
        os.write(int(pipe), f"{position}\\n".encode())
    if how == "once" and life == 1 and os.path.exists(f"{place}/die"):
        sys.exit(5)
    if how in ("dies", "says"):
        sys.exit(5)
    time.sleep(0.02)
"""


class Company:
    """Some parts, their supervisor, and what it told."""

    def __init__(self, place: Path, log: SharedLog | None = None, **settings: Any) -> None:
        self.place = place
        self.log = log or open_log("memory:")
        self.settings = Settings(**{"backoff_s": 0.01, "backoff_max_s": 0.05, "stop_s": 5.0, **settings})
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.leave = Leave()
        self.problem: LogActError | None = None
        self.supervisor: Supervisor | None = None

    def part(self, name: str, how: str = "lives", *, whole_agent: bool = False) -> Part:
        """A process that lives until it is asked to end, or does what ``how`` says."""
        command = (sys.executable, "-S", "-c", CHILD, name, how, str(self.place))
        return Part(name=name, command=command, whole_agent=whole_agent)

    async def run(
        self, *parts: Part, until: Callable[[], object], takeover: bool = False, whole_process: bool = False
    ) -> None:
        """Supervise until something is true or the supervisor ends by itself; then ask it to leave."""
        supervisor = Supervisor(self.log, "ops", parts, self.settings, tell=self._heard, whole_process=whole_process)
        self.supervisor = supervisor

        async def supervise() -> None:
            try:
                await supervisor.run(self.leave, takeover=takeover)
            except LogActError as problem:
                self.problem = problem

        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            work = group.create_task(supervise())
            while not work.done() and not until():
                await asyncio.sleep(0.01)
            self.leave.ask()

    def _heard(self, event: str, facts: dict[str, Any]) -> None:
        self.told.append((event, facts))

    def heard(self, name: str) -> bool:
        """Whether the present process of a part has said that it lives."""
        return self.supervisor is not None and self.supervisor.slots[name].heard

    def events(self, event: str) -> list[dict[str, Any]]:
        """What was told of one kind."""
        return [facts for told, facts in self.told if told == event]

    def lives(self, name: str) -> list[int]:
        """The process ids of a part's lives, as the processes themselves wrote them down."""
        path = self.place / "lives"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == name]

    def mark(self, name: str) -> None:
        """Make a file that processes look for."""
        (self.place / name).write_text("x")

    async def said(self, kind: type) -> list[Any]:
        """The notices or findings in the log, in order."""
        return [entry.payload async for entry in self.log.read() if isinstance(entry.payload, kind)]

    async def codes(self) -> list[str]:
        """The codes of all notices and findings."""
        return [one.code for one in [*await self.said(Notice), *await self.said(Finding)]]


def alive(pid: int) -> bool:
    """Whether a process runs: zombies, which somebody else has to reap, do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int, number: int) -> None:
    """A signal."""
    os.kill(pid, number)
