"""The agent of the main job taken apart: each part is a process of its own, and they only meet in the log.

The processes are those of the command line (``logact driver``, ``logact voter``, ...), so what is played here can be
played on several machines. Random ones are killed, and once all of them together; whoever died is started again with
the same command, and nobody else is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from examples.main_job.planner import HOLD
from examples.main_job.playing import LIFE_S_MAX, ROOT, Play, kill
from examples.main_job.prepare import TASK
from logact.logs.base import SharedLog

PARTS = ("driver", "voter", "decider", "executor", "recoverer")
END_S_MAX = 60.0
LOOK_S = 0.001


class PartFailed(Exception):
    """A process ended by itself: its exit code, and what it said."""

    def __init__(self, name: str, code: int, said: str) -> None:
        super().__init__(f"{name} ended with exit code {code}\n{said[-2000:]}")
        self.code = code or 1


class Company(Play):
    """Five processes on one log."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.parts: dict[str, asyncio.subprocess.Process] = {}
        self.lives_of: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()
        self.hold = self.demo.home / "hold"

    def counted(self) -> dict[str, str]:
        """Lives and kills, for the summary."""
        dead = ", ".join(f"{name} {count}" for name, count in self.killed.items())
        return {
            "lives": f"{self.lives} processes, {self.killed.total()} ended by SIGKILL in {self.kills} strikes",
            "killed": dead or "nobody",
        }

    async def perform(self, log: SharedLog) -> int:
        """Begin, strike as often as wanted, and wait for the end."""
        if not self.real_model:
            self.hold.touch()  # the built-in planner does not come to an end before all kills were dealt
        try:
            if self.demo.by_part:  # each part has rights of its own, and none may say what the policy is
                await self._logact("operator", "policy", str(self.demo.spec))
            for part in PARTS:
                await self._begin(part)
            await self._logact("client", "run", str(self.demo.spec), TASK, "--submit")
            for victims in self._victims():
                if await self._moment(working="executor" in victims):
                    break
                await self._strike(victims, log)
            self.hold.unlink(missing_ok=True)
            await self._until_finished()
            await self.told(log)
            self.say("the run is finished: its parts are asked to leave")
            await self._leave()
        except PartFailed as failed:
            print(failed, file=sys.stderr)
            return failed.code
        except TimeoutError:
            print("The job, or a part that was asked to leave, did not come to its end in time", file=sys.stderr)
            return 1
        finally:
            for child in self.parts.values():
                kill(child)
                await child.wait()
            self.hold.unlink(missing_ok=True)
        return 0

    def _victims(self) -> list[tuple[str, ...]]:
        """Who dies when: mostly one part, of which the executor has most to lose; once all of them."""
        plan: list[tuple[str, ...]] = [
            ("executor",) if self.draw.random() < 0.5 else (self.draw.choice(PARTS),)
            for _ in range(self.kills_wanted)
        ]
        if len(plan) > 1:
            plan[self.draw.randrange(len(plan))] = PARTS
        return plan

    async def _moment(self, *, working: bool) -> bool:
        """Wait for a moment that nobody can know: some entries later, or some time. True if the job ended before.

        With ``working``, preferably one at which an action was started and has no result yet.
        """
        now, before = asyncio.get_running_loop().time, self.story.entries
        wanted = before + self.draw.randrange(3, 60)
        patience_s = self.draw.uniform(0.5, 3.0) * self.slower
        end = now() + patience_s
        while now() < end:
            if self._finished():
                return True
            self._look()
            if self.story.entries >= wanted and not (working and not self.story.under_way()):
                break
            if self.story.entries > before:  # it goes on: only where nothing comes any more, time alone decides
                before, end = self.story.entries, now() + patience_s
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(self.draw.uniform(0, LOOK_S))
        return self._finished()

    async def _strike(self, victims: tuple[str, ...], log: SharedLog) -> None:
        self._look()
        for part in victims:
            kill(self.parts[part])
        for part in victims:
            code = await self.parts.pop(part).wait()
            if code != -signal.SIGKILL:
                raise PartFailed(part, code, self._said(part))
            self.killed[part] += 1
        self.kills += 1
        await self.told(log)
        doing = self.story.under_way()
        who = "all parts at once" if victims == PARTS else f"the {victims[0]}"
        self.say(f"SIGKILL ends {who}" + (f", in the middle of: {doing}" if doing else ""))
        for part in victims:
            await self._begin(part)

    async def _until_finished(self) -> None:
        async with asyncio.timeout(LIFE_S_MAX):
            while not self._finished():
                self._look()
                await asyncio.sleep(LOOK_S)

    def _finished(self) -> bool:
        runs = self.story.state.runs.values()
        return bool(runs) and all(run.status == "finished" for run in runs)

    def _look(self) -> None:
        """Raise PartFailed if a part ended by itself."""
        for part, child in self.parts.items():
            if child.returncode is not None:
                raise PartFailed(part, child.returncode, self._said(part))

    # --- processes ---------------------------------------------------------------------------------------------

    async def _begin(self, part: str) -> None:
        self.lives += 1
        self.lives_of[part] += 1
        child = await self._start(part, part, str(self.demo.spec), "--quiet")
        self.parts[part] = child
        self.story.pids[child.pid] = self.lives_of[part]
        self.say(f"{part} begins its life {self.lives_of[part]}: process {child.pid}")

    async def _logact(self, who: str, *command: str) -> None:
        """Run a command to its end, in somebody's name."""
        child = await self._start(who, *command)
        code = await child.wait()
        if code:
            raise PartFailed(who, code, self._said(who))

    async def _start(self, who: str, *command: str) -> asyncio.subprocess.Process:
        with self._output(who).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "logact.cli", *command, "--log", self.demo.url_for(who)),
                cwd=ROOT,
                env={**os.environ, HOLD: str(self.hold)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _output(self, who: str) -> Path:
        return self.demo.home / f"{who}.txt"

    def _said(self, who: str) -> str:
        return self._output(who).read_text(errors="replace")

    async def _leave(self) -> None:
        """SIGTERM to all parts, which they obey."""
        for child in self.parts.values():
            child.terminate()
        for part in list(self.parts):
            async with asyncio.timeout(END_S_MAX):
                code = await self.parts[part].wait()
            if code:
                raise PartFailed(part, code, self._said(part))
            del self.parts[part]
