"""Runs the main job: prepare, start, kill, start again, prove. ``--help`` lists the options."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

from examples.main_job.prepare import FILES_MAX, TASK, Demo, prepare
from examples.main_job.prove import Proof, prove
from examples.main_job.story import COLUMNS, LEGEND, Story, read_story
from logact.logs.base import SharedLog
from logact.logs.url import open_log
from logact.tools import sandbox_status

ROOT = Path(__file__).resolve().parents[2]
LIVES_MAX = 40
LIFE_S_MAX = 900.0
SETTLED_S_MAX = 5.0


class MainJob:
    """One demonstration from beginning to end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.home = Path(options.home).absolute()
        self.draw = random.Random(options.seed)
        self.model = os.environ.get("LOGACT_MODEL", "").strip()
        self.began = time.monotonic()
        self.story = Story()
        self.lives = 0
        self.kills = 0

    def say(self, text: str) -> None:
        """One line of progress, with the seconds since the start."""
        line = f"{time.monotonic() - self.began:6.1f} s  {text}"
        print(line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…", flush=True)

    async def run(self) -> int:
        """The whole demonstration; its exit code."""
        home = self.home
        shell = bool(sandbox_status().available)
        print(f"Preparing {home} ...", flush=True)
        demo, expected = prepare(home, seed=self.options.seed, files_max=self.options.files, shell=shell)
        print(
            f"{expected.files} files of Python's own library ({expected.bytes / 1e6:.0f} MB) in its workspace;\n"
            f"{len(expected.moved)} of them are duplicates; one holds an instruction to delete things.\n"
            + self._driver()
            + ("" if shell else "\nThere is no sandbox here (bubblewrap), so there is no shell tool.")
            + "\n"
        )
        watched, watcher = self._watch(demo)
        log = open_log(f"sqlite:///{demo.log}")
        try:
            code = await self._play(demo, log)
            if watcher is not None:
                watcher.communicate(timeout=SETTLED_S_MAX)
            story = await read_story(log, self.story.pids)
            proofs = await prove(demo, expected, log, story, watched)
        finally:
            await log.close()
            if watcher is not None and watcher.poll() is None:
                watcher.kill()
                watcher.wait()
        self._show(story, proofs, code)
        return 0 if code == 0 and all(proof.holds for proof in proofs) else 1

    def _driver(self) -> str:
        if self.model:
            where = os.environ.get("LOGACT_BASE_URL", "").strip()
            return f"The model {self.model} drives{f' (at {where})' if where else ''}."
        return "No model is set (LOGACT_MODEL): the built-in scripted planner drives."

    # --- lives -------------------------------------------------------------------------------------------------

    async def _play(self, demo: Demo, log: SharedLog) -> int:
        """Start the agent until its run has ended, and kill it on the way. The last exit code."""
        await log.open()
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(self._follow(log))
            try:
                while self.lives < LIVES_MAX:
                    code = await self._live(demo, log)
                    if code >= 0:
                        break
            finally:
                follower.cancel()
        return code

    async def _live(self, demo: Demo, log: SharedLog) -> int:
        """One life: the same command each time. Below 0: it was killed."""
        self.lives += 1
        command = self._command(demo)
        child = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.story.pids[child.pid] = self.lives
        self.say(f"life {self.lives} begins: process {child.pid}")
        talk = asyncio.create_task(child.communicate())
        try:
            if self.kills < self.options.kills and not await self._moment(talk):
                _kill(child)
                self.kills += 1
            async with asyncio.timeout(LIFE_S_MAX):
                _, errors = await talk
        finally:
            _kill(child)
        code = child.returncode if child.returncode is not None else 1
        if code < 0:
            await self._told(log)
            doing = self.story.under_way()
            self.say(f"SIGKILL ends life {self.lives}" + (f", in the middle of: {doing}" if doing else ""))
        elif code:
            print(errors.decode(errors="replace")[-2000:], file=sys.stderr)
            self.say(f"life {self.lives} ended with exit code {code}")
        else:
            await self._told(log)
            self.say(f"life {self.lives} ended by itself: its run is finished")
        return code

    def _command(self, demo: Demo) -> list[str]:
        if find_spec("logact.cli.run") is not None:
            return [sys.executable, "-m", "logact.cli", "run", str(demo.spec), TASK]
        return [sys.executable, "-m", "examples.main_job.child", str(demo.spec), TASK]

    async def _moment(self, talk: asyncio.Task[tuple[bytes, bytes]]) -> bool:
        """Wait for a moment that the process cannot know; True if it ended before.

        Either after a random time, or a random while after the log has grown by a random number of entries, so that
        kills fall on all parts of the work. Real models think for longer.
        """
        slower = 8 if self.model else 1
        if self.draw.random() < 0.3:
            done, _ = await asyncio.wait({talk}, timeout=self.draw.uniform(0.2, 1.5) * slower)
            return bool(done)
        wanted = self.story.entries + self.draw.randrange(3, 70)
        while self.story.entries < wanted:
            if talk.done():
                return True
            await asyncio.sleep(0.001)
        await asyncio.sleep(self.draw.uniform(0, 0.01))
        return talk.done()

    async def _follow(self, log: SharedLog) -> None:
        """Show what the log tells, as it comes."""
        async for entry in log.follow():
            told = self.story.add(entry)
            if entry.kind == "Inference":
                calls = [one.tool for one in getattr(entry.payload, "calls", ())]
                times = {name: calls.count(name) for name in calls}
                what = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in times.items())
                self.say(f"  {' '.join(getattr(entry.payload, 'text', '').split())} [{what or 'answer'}]")
            elif told:
                self.say(f"  {told}")

    async def _told(self, log: SharedLog) -> None:
        """Wait until everything that is in the log has been shown."""
        end = await log.tail()
        for _ in range(500):
            if self.story.state.position >= end:
                return
            await asyncio.sleep(0.01)

    # --- the end -----------------------------------------------------------------------------------------------

    def _watch(self, demo: Demo) -> tuple[Path | None, subprocess.Popen[str] | None]:
        """Start the process that counts moves; (None, None) where the system cannot do that."""
        file = demo.home / "moves.txt"
        file.touch()
        watcher = subprocess.Popen(
            [sys.executable, "-m", "examples.main_job.watcher", str(demo.workspace / "quarantine"), str(file)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if watcher.stdout is None or watcher.stdout.readline().strip() != "ready":
            watcher.communicate(timeout=SETTLED_S_MAX)
            return None, None
        return file, watcher

    def _show(self, story: Story, proofs: list[Proof], code: int) -> None:
        print(f"\nEvery action's life\n{LEGEND}\n")
        print("\n".join(story.lines()) or "There was none.")
        refused = [action for action in story.actions.values() if action.reason]
        if refused:
            print("\nStopped before it began, and why (the model was told the same)\n")
            for action in refused:
                print(f"  {action.tool} {action.about}"[:COLUMNS])
                print(fill(action.reason, COLUMNS, initial_indent="    ", subsequent_indent="    "))
        print("\nProofs\n")
        for proof in proofs:
            print(f"  {'ok  ' if proof.holds else 'FAIL'}  {proof.claim}"[:COLUMNS])
            print(f"        {proof.detail}"[:COLUMNS])
        print("\nSummary\n")
        kinds = story.counts
        settled = ", ".join(f"{count} {how}" for how, count in sorted(story.settled.items())) or "none needed"
        for name, value in [
            ("driven by", self.model or "the built-in scripted planner"),
            ("lives", f"{self.lives}, {self.kills} ended by SIGKILL"),
            ("actions", f"{kinds['Intent']} proposed, {kinds['Commit']} committed, {kinds['Abort']} aborted"),
            ("votes", f"{kinds['Vote']}, {story.votes_against} of them against"),
            ("recoveries", settled),
            ("durable writes", f"{story.records} records with {story.entries} entries"),
            ("time", f"{time.monotonic() - self.began:.1f} s"),
        ]:
            print(f"  {name:<15} {value}"[:COLUMNS])
        print(f"\nLook for yourself: logact actions {self.options.home}/logact.toml")
        failed = [proof for proof in proofs if not proof.holds]
        if failed or code:
            print(f"\nFAILED: {len(failed)} of {len(proofs)} proofs do not hold; exit code of the agent: {code}")
        else:
            print(f"\nAll {len(proofs)} proofs hold.")


def _kill(child: asyncio.subprocess.Process) -> None:
    """SIGKILL, from outside, to the process and whatever it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def main(argv: list[str] | None = None) -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m examples.main_job", description=__doc__)
    parser.add_argument("--home", default=".demo", help="where to work (made anew; default: .demo)")
    parser.add_argument("--kills", type=int, default=8, help="how often the agent is killed (default: 8)")
    parser.add_argument("--files", type=int, default=FILES_MAX, help="at most so many files")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="for the moments")
    return asyncio.run(MainJob(parser.parse_args(argv)).run())


if __name__ == "__main__":
    raise SystemExit(main())
