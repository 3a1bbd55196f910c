"""Runs the main job: prepare, start, kill, start again, prove. ``--help`` lists the options."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from textwrap import fill

from examples.main_job.company import Company
from examples.main_job.playing import ROOT, Alone, Play
from examples.main_job.prepare import FILES_MAX, PLANTED_DUPLICATES, Demo, log_of, prepare
from examples.main_job.prove import Proof, prove
from examples.main_job.story import COLUMNS, LEGEND, Story, read_story
from logact.errors import LogActError, UsageError
from logact.logs.network_url import redacted
from logact.logs.url import open_log
from logact.tools import sandbox_status

SETTLED_S_MAX = 30.0


class MainJob:
    """One demonstration from beginning to end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.home = Path(options.home).absolute()
        self.draw = random.Random(options.seed)
        self.model = os.environ.get("LOGACT_MODEL", "").strip()
        self.began = time.monotonic()
        self.story = Story()

    def say(self, text: str) -> None:
        """One line of progress, with the seconds since the start."""
        line = f"{time.monotonic() - self.began:6.1f} s  {text}"
        print(line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…", flush=True)

    async def run(self) -> int:
        """The whole demonstration; its exit code."""
        home = self.home
        shell = bool(sandbox_status().available)
        url = log_of(self.options.log, home, in_parts=self.options.parts)
        print(f"Preparing {home} ...", flush=True)
        demo, expected = prepare(
            home,
            seed=self.options.seed,
            url=url,
            files_max=self.options.files,
            duplicates=self.options.duplicates,
            shell=shell,
        )
        print(
            f"{expected.files} files of Python's own library ({expected.bytes / 1e6:.0f} MB) in its workspace;\n"
            f"{len(expected.moved)} of them are duplicates; one holds an instruction to delete things.\n"
            + self._driver()
            + ("" if shell else "\nThere is no sandbox here (bubblewrap), so there is no shell tool.")
            + (f"\nIts log is {redacted(url)}." if self.options.log else "")
            + "\n"
        )
        play = self._cast(demo)
        log = open_log(demo.url_for("client"))
        try:
            await log.open()
            if await log.tail() > 0:
                raise UsageError(
                    "The log is not empty", received=redacted(url), todo="name another log, or none: ?log="
                )
            watched, watcher = self._watch(demo)
            try:
                code = await play.play(log)
            finally:
                if watcher is not None:
                    watcher.communicate(timeout=SETTLED_S_MAX)
            story = await read_story(log, self.story.pids)
            proofs = await prove(demo, expected, log, story, watched)
        finally:
            await log.close()
        self._show(story, proofs, play, code)
        return 0 if code == 0 and all(proof.holds for proof in proofs) else 1

    def _cast(self, demo: Demo) -> Play:
        """The agent as one process, or as one for each of its parts."""
        form = Company if self.options.parts else Alone
        wanted = self.options.kills
        return form(demo, self.story, self.draw, self.say, kills_wanted=wanted, real_model=bool(self.model))

    def _driver(self) -> str:
        if self.model:
            where = os.environ.get("LOGACT_BASE_URL", "").strip()
            return f"The model {self.model} drives{f' (at {where})' if where else ''}."
        return "No model is set (LOGACT_MODEL): the built-in scripted planner drives."

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

    def _show(self, story: Story, proofs: list[Proof], play: Play, code: int) -> None:
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
            *play.counted().items(),
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


def main(argv: list[str] | None = None) -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m examples.main_job", description=__doc__)
    parser.add_argument("--home", default=".demo", help="where to work (made anew; default: .demo)")
    parser.add_argument("--kills", type=int, default=8, help="how often the agent is killed (default: 8)")
    parser.add_argument("--files", type=int, default=FILES_MAX, help="at most so many files")
    parser.add_argument("--duplicates", type=int, default=PLANTED_DUPLICATES, help="so many are planted among them")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="for the moments")
    parser.add_argument("--log", default="", metavar="URL", help="a log on any engine (default: a file in HOME)")
    parser.add_argument("--parts", action="store_true", help="each part of the agent is a process, and killed alone")
    try:
        return asyncio.run(MainJob(parser.parse_args(argv)).run())
    except LogActError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
