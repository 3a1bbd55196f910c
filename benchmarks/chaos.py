"""Real processes in trouble: ``logact supervise`` and a real job, while processes die, stop, and find the disk full.

The parts and the supervisor are killed with SIGKILL, stopped with SIGSTOP and let go on, at random moments; the file
system of the log is filled up and emptied. Jobs keep coming. Then everything is left in peace, all jobs have to end,
and the effects (counted by a process of their own), the log and the jobs' manifests have to agree. The seed is
printed; it gives the same plan of troubles, at the mercy of the machine's own timing.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos_job import IRREVERSIBLE, PLACE, expected_manifest, items, job_of
from benchmarks.common import ROOT, Benchmark, child_environment, work_directory
from benchmarks.effect_recorder import Recorder
from logact.core.state import State
from logact.entry import Input, Limits, NewEntry, Recovery, Run, own
from logact.logs.url import open_log
from logact.logs.verify import verify
from logact.runtime import processes
from logact.runtime.tail import Tail

AGENT = "worker"
KINDS = ("decider", "voter", "executor", "recoverer", "checkpointer", "driver")
WEIGHTS = {"kill_part": 10, "stop_part": 4, "kill_supervisor": 3, "stop_supervisor": 1, "disk_full": 2}
JOBS_AT_ONCE = 2
CALM_S_MAX = 240.0
DISK_BYTES = 64 * 2**20
LOOK_S = 0.05

SPECIFICATION = """
[agent]
name = "worker"
model = "scripted:{job}:model"

[[tools]]
use = "{job}:tools"

[[voters]]
use = "{job}:known"

[checkpoints]
every = 400

[supervise]
restarts = 100000
backoff_s = 0.05
backoff_max_s = 0.2
stop_s = 10
hang_s = 3
"""


class Troubles:
    """What is done to whom, and when; drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def pause_s(self) -> float:
        """Until the next one."""
        return self.draw.uniform(0.2, 1.5)

    def next(self) -> tuple[str, str, float]:
        """What, to which part, and for how long (seconds)."""
        kind = self.draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        part = "executor" if self.draw.random() < 0.4 else self.draw.choice(KINDS)
        # some stops are short enough to be lived through, some are taken for a hang
        return kind, part, self.draw.choice((0.3, 1.0, 5.0)) if kind == "stop_part" else self.draw.uniform(0.5, 2.0)


class Disk:
    """The file system of the log, which can be filled: a small one in memory, else a limit on the size of files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
        done = subprocess.run(mount, capture_output=True, check=False) if shutil.which("mount") else None
        self.mounted = done is not None and done.returncode == 0
        self.how = f"a tmpfs of {DISK_BYTES // 2**20} MiB" if self.mounted else "RLIMIT_FSIZE on the processes"

    def fill(self, pids: list[int]) -> None:
        """No byte more can be written."""
        if not self.mounted:
            for pid in pids:
                self._limit(pid, 1)
            return
        with (self.place / "ballast").open("wb", buffering=0) as ballast:
            for size in (2**20, 4096, 1):
                try:
                    while True:
                        ballast.write(b"x" * size)
                except OSError:
                    continue

    def free(self, pids: list[int]) -> None:
        """There is room again."""
        (self.place / "ballast").unlink(missing_ok=True)
        if not self.mounted:
            for pid in pids:
                self._limit(pid, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(pid: int, size: int) -> None:
        try:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size if size != resource.RLIM_INFINITY else hard, hard))
        except (ProcessLookupError, PermissionError):
            pass

    def close(self) -> None:
        """Take the file system away."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False)


class Chaos:
    """One run: the supervised agent, the client that gives it jobs, the operator, the troubles, the verdict."""

    def __init__(self, place: Path, disk: Disk, recorder: Recorder, seed: int, bench: Benchmark) -> None:
        self.place = place
        self.disk = disk
        self.recorder = recorder
        self.bench = bench
        self.troubles = Troubles(seed)
        self.url = f"sqlite:///{disk.place}/agent.db"
        self.specification = place / "logact.toml"
        self.specification.write_text(
            SPECIFICATION.format(job=ROOT / "benchmarks" / "chaos_job.py") + f'\n[log]\nurl = "{self.url}"\n'
        )
        (place / "out").mkdir()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self.jobs = 0
        self.asked = 0
        self.two_sets = 0
        self.mark = ""
        self.supervisor = self._supervise()

    def _supervise(self) -> subprocess.Popen[bytes]:
        with (self.place / "supervisor.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "logact.cli", "supervise", str(self.specification), "--json"],
                cwd=ROOT,
                env=child_environment(**{PLACE: str(self.place)}),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def parts(self) -> dict[str, list[int]]:
        """The living processes of each part, as the machine has them."""
        found: dict[str, list[int]] = {}
        for one in processes.marked(self.mark) if self.mark else []:
            try:
                words = Path(f"/proc/{one.pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"logact.cli" in words:
                found.setdefault(words[words.index(b"logact.cli") + 1].decode(), []).append(one.pid)
        return found

    # --- the run ------------------------------

    async def run(self, seconds: float) -> None:
        """Trouble for ``seconds``, then peace until all jobs have ended."""
        async with open_log(self.url) as log:
            self.mark = f"{log.log_id}/{AGENT}"
            tail = Tail(log)
            await tail.start()
            end = time.monotonic() + seconds
            strike_at = time.monotonic() + 3.0
            async with asyncio.TaskGroup() as group:
                while (now := time.monotonic()) < end:
                    state = await tail.catch_up()
                    if now < end - 1:
                        await self._give_work(log, state)
                    await self._settle_doubts(log, state)
                    self._look()
                    if now >= strike_at:
                        group.create_task(self._strike(*self.troubles.next()))
                        strike_at = now + self.troubles.pause_s()
                    await asyncio.sleep(LOOK_S)
            self.bench.progress(f"peace: {self.jobs} jobs given, {dict(self.done)}")
            calm = time.monotonic() + CALM_S_MAX
            while self._unfinished(await tail.catch_up()) and time.monotonic() < calm:
                self._keep_supervisor()
                self._look()
                await self._settle_doubts(log, tail.state)
                await asyncio.sleep(LOOK_S)
            left = self._unfinished(tail.state)
            if left:
                self.problems.append(f"{left} jobs did not end within {CALM_S_MAX:g} s")
        self._stop()

    async def _give_work(self, log: Any, state: State) -> None:
        if self._unfinished(state) >= JOBS_AT_ONCE:
            return
        title = f"job {self.jobs + 1}"
        begin = Run(agent=AGENT, title=title, limits=Limits(turns=50))
        first = NewEntry(payload=begin, role="client", name="client", agent=AGENT)
        words = Input(run=own(0), text=title)
        second = NewEntry(payload=words, role="client", name="client", agent=AGENT, run=own(0))
        try:
            await log.append(first, second, key=title)
            self.jobs += 1
        except Exception as error:  # the disk is full: the same job, later
            self.done[f"refused: {type(error).__name__}"] += 1

    def _unfinished(self, state: State) -> int:
        ended = sum(run.status != "running" and bool(run.output) for run in state.runs.values())
        return max(0, self.jobs - ended)

    async def _settle_doubts(self, log: Any, state: State) -> None:
        """The operator: looks into the recorder's file, and says what happened."""
        for action in state.doubtful():
            if action.intent.tool != "pay" or not action.reason:
                continue
            item = action.intent.arguments["item"]
            yes = any(one["item"] == item and one["verb"] == "effect" for one in self.recorder.effects())
            settled = Recovery(
                intent=action.id,
                attempt=len(action.attempts),
                settlement="happened" if yes else "not_happened",
                evidence="operator",
                reason="looked into the recorder's file",
                value="it was done" if yes else None,
            )
            try:
                await log.append(
                    NewEntry(
                        payload=settled,
                        role="operator",
                        name="operator",
                        agent=AGENT,
                        run=action.intent.run,
                        tool=action.intent.tool,
                    )
                )
                self.asked += 1
            except Exception as error:
                self.done[f"refused: {type(error).__name__}"] += 1

    def _look(self) -> None:
        """Never two sets: no part lives twice."""
        twice = {part: pids for part, pids in self.parts().items() if len(pids) > 1}
        if twice:
            self.two_sets += 1
            self.problems.append(f"a part lives twice: {twice}")

    # --- troubles ------------------------------

    async def _strike(self, kind: str, part: str, seconds: float) -> None:
        pids = self.parts().get(part, [])
        if kind == "kill_supervisor":
            self._send(self.supervisor.pid, signal.SIGKILL, kind)
            self.supervisor.wait()
            self._keep_supervisor()
        elif kind == "stop_supervisor":
            pid = self.supervisor.pid
            self._send(pid, signal.SIGSTOP, kind)
            await asyncio.sleep(seconds)
            processes.send(pid, signal.SIGCONT)
        elif kind == "disk_full":
            everybody = [pid for some in self.parts().values() for pid in some] + [self.supervisor.pid]
            self.done[kind] += 1
            self.disk.fill(everybody)
            await asyncio.sleep(seconds)
            self.disk.free([pid for some in self.parts().values() for pid in some] + [self.supervisor.pid])
        elif kind == "kill_part" and pids:
            self._send(pids[0], signal.SIGKILL, kind)
        elif kind == "stop_part" and pids:
            self._send(pids[0], signal.SIGSTOP, kind)
            await asyncio.sleep(seconds)
            processes.send(pids[0], signal.SIGCONT)

    def _send(self, pid: int, number: int, kind: str) -> None:
        try:
            os.kill(pid, number)
            self.done[kind] += 1
        except ProcessLookupError:
            pass

    def _keep_supervisor(self) -> None:
        """An init system would: whoever was killed is started again."""
        if self.supervisor.poll() is not None:
            if self.supervisor.returncode not in (-signal.SIGKILL, 5):
                self.problems.append(f"the supervisor ended with {self.supervisor.returncode}")
            self.supervisor = self._supervise()

    def _stop(self) -> None:
        """A graceful stop at the end; nothing may be left."""
        self.supervisor.send_signal(signal.SIGTERM)
        try:
            code = self.supervisor.wait(60)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()
            code = self.supervisor.wait()
        if code:
            self.problems.append(f"the supervisor ended with {code}")
        left = self.parts()
        if left:
            self.problems.append(f"processes are left: {left}")

    def close(self) -> None:
        """End what still runs, whatever happened."""
        if self.supervisor.poll() is None:
            self.supervisor.kill()
            self.supervisor.wait()
        for one in processes.marked(self.mark) if self.mark else []:
            processes.send(one.pid, signal.SIGKILL)

    # --- the verdict ------------------------------

    async def judge(self) -> dict[str, Any]:
        """Effects, log and manifests agree, or the problems say where they do not."""
        net: Counter[int] = Counter()
        for effect in self.recorder.effects():
            net[effect["item"]] += 1 if effect["verb"] == "effect" else -1
        found: Counter[str] = Counter()
        for job in range(1, self.jobs + 1):
            for item, name in items(job).items():
                once_only = name in IRREVERSIBLE
                found["doubled_irreversible"] += once_only and net[item] > 1
                found["missing"] += net[item] < 1
                found["repeated_idempotent"] += not once_only and net[item] > 1
                if net[item] < 1 or (once_only and net[item] > 1):
                    self.problems.append(f"job {job}: item {item} ({name}) happened {net[item]} times")
            manifest = self.place / f"manifest-{job}.txt"
            if not manifest.exists() or manifest.read_text() != expected_manifest(job):
                found["manifests_wrong"] += 1
                self.problems.append(f"job {job}: its manifest is not what it has to be")
        async with open_log(self.url) as log:
            report = await verify(log)
            disagree = await self._log_disagrees(log, net)
        if not report.sound:
            self.problems += [f"log: {problem.position}: {problem.what}" for problem in report.problems[:5]]
        return {
            **{key: found[key] for key in ("doubled_irreversible", "missing", "repeated_idempotent")},
            "manifests": self.jobs - found["manifests_wrong"],
            "log_sound": report.sound,
            "log_entries": report.entries,
            "log_disagrees": disagree,
        }

    async def _log_disagrees(self, log: Any, net: Counter[int]) -> int:
        """How many items the log tells otherwise than the recorder does."""
        told: dict[int, set[str]] = {}
        ended = set()
        tail = Tail(log, keep=True)
        state = await tail.start()
        for action in state.actions.values():
            if "item" in action.intent.arguments or action.intent.tool in {"copy", "manifest", *IRREVERSIBLE}:
                entry = await log.get(action.id)
                told.setdefault(entry.payload.arguments["item"], set()).add(action.status)
        for run in state.runs.values():
            if run.output and run.ok:
                ended.add(job_of(run.title))
        wrong = 0
        for job in range(1, self.jobs + 1):
            wrong += job not in ended
            for item in items(job):
                done = "executed" in told.get(item, set())
                wrong += done != (net[item] >= 1)
        if wrong:
            self.problems.append(f"the log disagrees with the recorder about {wrong} items or jobs")
        return wrong


@contextmanager
def staged(seed: int, bench: Benchmark) -> Iterator[Chaos]:
    """A chaos in a directory of its own; nothing of it is left afterwards."""
    with work_directory() as place:
        disk = Disk(place / "disk")
        try:
            with Recorder(place) as recorder:
                chaos = Chaos(place, disk, recorder, seed, bench)
                try:
                    yield chaos
                finally:
                    chaos.close()
        finally:
            disk.close()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it; the figures. Exit code 1 if anything disagrees."""
    bench = Benchmark(
        "chaos",
        "Kills, stops and starves the processes of a supervised agent, and compares effects, log and manifests.",
        argv,
        seconds={"type": float, "default": 0.0, "metavar": "S", "help": "how long (180; quick: 20)"},
        seed={"type": int, "default": 0, "metavar": "N", "help": "the plan of troubles (0: a fresh one)"},
    )
    seconds = bench.options.seconds or (20.0 if bench.quick else 180.0)
    seed = bench.options.seed or random.SystemRandom().randrange(1, 2**31)
    bench.progress(f"seed {seed}; {seconds:g} s of trouble, then until all jobs have ended")
    with staged(seed, bench) as chaos:
        bench.progress(f"the disk that fills up is {chaos.disk.how}")
        asyncio.run(chaos.run(seconds))
        figures = asyncio.run(chaos.judge())
        words = (chaos.place / "supervisor.txt").read_text().splitlines()
    for problem in chaos.problems[:20]:
        bench.notes.append(problem)
    if chaos.problems:
        bench.notes += [f"supervisor: {line}" for line in words[-10:]]
    return bench.finish(
        {
            "seed": seed,
            "disk": chaos.disk.how,
            "jobs": chaos.jobs,
            "troubles": dict(chaos.done),
            "asked": chaos.asked,
            "restarts": sum('"event":"ended"' in line for line in words),
            "hung": sum('"event":"hung"' in line for line in words),
            "two_sets": chaos.two_sets,
            **figures,
            "problems": len(chaos.problems),
        }
    )


if __name__ == "__main__":
    raise SystemExit(1 if main()["problems"] else 0)
