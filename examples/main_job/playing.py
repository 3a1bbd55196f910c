"""Plays the main job: starts the agent, kills it, starts it again with the same command, until it is done.

``Play`` is what both forms share: it follows the log and shows what it tells. ``Alone`` is the agent as one process;
``company.Company`` is the agent as one process for each of its parts.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from examples.main_job.prepare import TASK, Demo
from examples.main_job.story import Story
from logact.logs.base import SharedLog

ROOT = Path(__file__).resolve().parents[2]
LIVES_MAX = 40
LIFE_S_MAX = 900.0


class Play:
    """One performance on one log. ``lives`` counts the processes that were started, ``kills`` the deadly blows."""

    def __init__(
        self,
        demo: Demo,
        story: Story,
        draw: random.Random,
        say: Callable[[str], None],
        *,
        kills_wanted: int,
        real_model: bool,
    ) -> None:
        self.demo = demo
        self.story = story
        self.draw = draw
        self.say = say
        self.kills_wanted = kills_wanted
        self.real_model = real_model
        self.slower = 8 if real_model else 1  # a real model thinks for longer
        self.lives = 0
        self.kills = 0

    async def play(self, log: SharedLog) -> int:
        """Start and kill until the run has ended, and show what the log tells meanwhile. The last exit code."""
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(self._follow(log))
            try:
                return await self.perform(log)
            finally:
                follower.cancel()

    async def perform(self, log: SharedLog) -> int:
        """What the form of the agent makes different."""
        raise NotImplementedError

    def counted(self) -> dict[str, str]:
        """Lives and kills, for the summary."""
        raise NotImplementedError

    async def told(self, log: SharedLog) -> None:
        """Wait until everything that is in the log has been shown."""
        end = await log.tail()
        for _ in range(500):
            if self.story.state.position >= end:
                return
            await asyncio.sleep(0.01)

    async def _follow(self, log: SharedLog) -> None:
        async for entry in log.follow():
            told = self.story.add(entry)
            if entry.kind == "Inference":
                calls = [one.tool for one in getattr(entry.payload, "calls", ())]
                times = {name: calls.count(name) for name in calls}
                what = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in times.items())
                self.say(f"  {' '.join(getattr(entry.payload, 'text', '').split())} [{what or 'answer'}]")
            elif told:
                self.say(f"  {told}")


class Alone(Play):
    """The agent as one process, which is killed as a whole."""

    async def perform(self, log: SharedLog) -> int:
        """One life after another."""
        code = 1
        while self.lives < LIVES_MAX:
            code = await self._live(log)
            if code >= 0:
                break
        return code

    def counted(self) -> dict[str, str]:
        """Lives and kills, for the summary."""
        return {"lives": f"{self.lives}, {self.kills} ended by SIGKILL"}

    async def _live(self, log: SharedLog) -> int:
        """One life: the same command each time. Below 0: it was killed."""
        self.lives += 1
        child = await asyncio.create_subprocess_exec(
            *self._command(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.story.pids[child.pid] = self.lives
        self.say(f"life {self.lives} begins: process {child.pid}")
        talk = asyncio.create_task(child.communicate())
        try:
            if self.kills < self.kills_wanted and not await self._moment(talk):
                kill(child)
                self.kills += 1
            async with asyncio.timeout(LIFE_S_MAX):
                _, errors = await talk
        finally:
            kill(child)
        code = child.returncode if child.returncode is not None else 1
        if code < 0:
            await self.told(log)
            doing = self.story.under_way()
            self.say(f"SIGKILL ends life {self.lives}" + (f", in the middle of: {doing}" if doing else ""))
        elif code:
            print(errors.decode(errors="replace")[-2000:], file=sys.stderr)
            self.say(f"life {self.lives} ended with exit code {code}")
        else:
            await self.told(log)
            self.say(f"life {self.lives} ended by itself: its run is finished")
        return code

    def _command(self) -> list[str]:
        if find_spec("logact.cli.run") is not None:
            return [sys.executable, "-m", "logact.cli", "run", str(self.demo.spec), TASK]
        return [sys.executable, "-m", "examples.main_job.child", str(self.demo.spec), TASK]

    async def _moment(self, talk: asyncio.Task[tuple[bytes, bytes]]) -> bool:
        """Wait for a moment that the process cannot know; True if it ended before.

        Either after a random time, or a random while after the log has grown by a random number of entries, so that
        kills fall on all parts of the work.
        """
        if self.draw.random() < 0.3:
            done, _ = await asyncio.wait({talk}, timeout=self.draw.uniform(0.2, 1.5) * self.slower)
            return bool(done)
        wanted = self.story.entries + self.draw.randrange(3, 70)
        while self.story.entries < wanted:
            if talk.done():
                return True
            await asyncio.sleep(0.001)
        await asyncio.sleep(self.draw.uniform(0, 0.01))
        return talk.done()


def kill(child: asyncio.subprocess.Process) -> None:
    """SIGKILL, from outside, to the process and whatever it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
