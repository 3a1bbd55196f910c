"""From a process's start to its first resumed action, after ``kill -9`` in the middle of one; peers in the same run.

A log with many recorded actions is filled (in packed records), a process goes on with it and is killed inside an
action's effect; the time is from starting the next process, imports included, to the body of the first resumed
action. The effect counts are kept outside. Then a real HTTP service dies and comes back while an agent works with it,
and agents are killed at every named crash point, and at those of the recoveries that follow (``--quick``: at some).
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Benchmark, child_environment, kill, median, work_directory
from benchmarks.crash import sweep
from benchmarks.crash_stage import Found, Stage, crash_points, judge, killed_at
from logact import LogActAgent, Policy, RetryRecovery, Tool, ToolError, open_log
from logact.core.state import State
from logact.entry import (
    Commit,
    Entry,
    Inference,
    Input,
    Intent,
    NewEntry,
    Output,
    Payload,
    Result,
    Role,
    Run,
    Started,
    own,
)
from logact.errors import InDoubt
from logact.logs.base import SharedLog
from logact.models.base import ModelRequest
from logact.models.scripted import ScriptedModel, call

PEERS = ("dbos", "langgraph", "langgraph-checkpoint-sqlite")
TASK = "take the next step"
OPEN = Policy(version=1, agent="bench", need={"open": "a benchmark"})
ACTIONS_PER_RECORD = 100
ENTRIES_PER_ACTION = 4


def log_of(place: Path) -> SharedLog:
    """The log of one case."""
    return open_log(f"sqlite:///{place}/log.db")


def by(role: Role, payload: Payload, **more: Any) -> NewEntry:
    """A payload as a part says it."""
    return NewEntry(payload=payload, role=role, name=role, agent="bench", **more)


async def fill(place: Path, actions: int, per_run: int) -> int:
    """Write so many recorded actions, in runs that have ended, and a checkpoint as an agent does; entries written."""
    written = 0
    async with log_of(place) as log:
        await log.append(by("operator", OPEN))
        done = 0
        while done < actions:
            run = (await log.append(by("client", Run(agent="bench", title=f"before {done}")))).position
            await log.append(by("client", Input(run=run, text="go")))
            ended = min(actions, done + per_run)
            while done < ended:
                batch: list[NewEntry] = []
                for _ in range(min(ACTIONS_PER_RECORD, ended - done)):
                    at = own(len(batch))
                    intent = Intent(
                        run=run, agent="bench", tool="step", arguments={"number": done}, effect="idempotent"
                    )
                    batch.append(by("driver", intent))
                    batch.append(by("decider", Commit(intent=at)))
                    batch.append(by("executor", Started(intent=at)))
                    batch.append(by("executor", Result(intent=at, value=done)))
                    done += 1
                await log.append(*batch)
                written += len(batch)
            inference = (await log.append(by("driver", Inference(run=run, turn=1, text="done")))).position
            answer = Intent(
                run=run, agent="bench", tool="answer", arguments={"text": "done"}, effect="read", inference=inference
            )
            await log.append(
                by("driver", answer),
                by("decider", Commit(intent=own(0))),
                by("executor", Started(intent=own(0))),
                by("executor", Output(run=run, intent=own(0), text="done")),
                by("executor", Result(intent=own(0))),
            )
        # an agent's own life writes the checkpoint that is due
        agent = agent_of(place, "plain")
        async with agent.log, agent:  # closed before it is copied
            parts = agent._parts
            if parts is not None:
                await parts.checkpointer.write()
    return written


def agent_of(place: Path, how: str) -> LogActAgent:
    """The agent whose one step is where it is killed (``victim``), or resumed."""

    def step(number: int) -> str:
        with (place / "effects").open("a") as effects:
            effects.write(f"{number}\n")
        if how == "victim":
            (place / "reached").write_text("yes")
            time.sleep(600)
        (place / "first").write_text(repr(time.time()))
        return "done"

    def answer(request: ModelRequest) -> Any:
        return "done" if any(one.role == "tool" for one in request.messages) else call(kind_of(place), number=0)

    tools = [
        Tool(step, name="step", effect="idempotent", description="A step."),
        Tool(step, name="pay", effect="irreversible", description="A step that is never repeated."),
    ]
    return LogActAgent("bench", log=log_of(place), model=ScriptedModel(answer), tools=tools, policy=OPEN)


def kind_of(place: Path) -> str:
    """Which of the two tools this case is about."""
    return "pay" if (place / "irreversible").exists() else "step"


async def child(how: str, place: Path) -> None:
    """The process that is killed, and the one that resumes."""
    try:
        await agent_of(place, how).run(TASK)
    except InDoubt:
        (place / "doubt").write_text("yes")


def killed_and_resumed(start: Callable[[str], subprocess.Popen[bytes]], place: Path, marker: str = "first") -> float:
    """Kill a process inside its effect; seconds from the next one's start to its first resumed action."""
    for name in ("reached", "first", "doubt"):
        (place / name).unlink(missing_ok=True)
    victim = start("victim")
    wait_for(place / "reached", victim)
    kill(victim)
    victim.wait()
    began = time.time()
    resumed = start("resume")
    wait_for(place / marker, resumed)
    found = float((place / "first").read_text()) - began if marker == "first" else time.time() - began
    resumed.wait(60)
    return found


def wait_for(path: Path, process: subprocess.Popen[bytes], limit_s: float = 400.0) -> None:
    """Wait until a file is there and has something in it."""
    end = time.monotonic() + limit_s
    while not (path.exists() and path.stat().st_size):
        if time.monotonic() > end or (process.poll() not in (None, 0)):
            raise RuntimeError(f"{path.name} never came; the process returned {process.poll()}")
        time.sleep(0.002)


def ours(bench: Benchmark, work: Path, actions: int, entries: int, repeats: int, counts: dict[str, int]) -> float:
    """The median seconds to the first resumed action on a log of this length."""
    filled = work / f"ours-{actions}"
    filled.mkdir()
    written = asyncio.run(fill(filled, actions, min(actions, 10_000)))
    bench.progress(f"ours: {actions} recorded actions, {written} entries of them")
    del entries
    found = []
    for number in range(repeats):
        for irreversible in (False, True):
            place = work / f"ours-{actions}-{number}-{irreversible}"
            shutil.copytree(filled, place)
            if irreversible:
                (place / "irreversible").write_text("yes")
            before = asyncio.run(tail_of(place))
            seconds = killed_and_resumed(
                lambda how, place=place: subprocess.Popen(  # type: ignore[misc]
                    [sys.executable, "-m", "benchmarks.recovery", "--child", how, str(place)],
                    cwd=ROOT,
                    env=child_environment(),
                    start_new_session=True,
                ),
                place,
                "doubt" if irreversible else "first",
            )
            effects = (place / "effects").read_text().splitlines()
            counts["kills"] += 1
            counts["lost"] += asyncio.run(tail_of(place)) <= before
            if irreversible:
                counts["doubled_irreversible"] += len(effects) != 1
            else:
                counts["missing_idempotent"] += len(effects) < 2
                found.append(seconds)
            shutil.rmtree(place)
    bench.progress(f"ours at {actions} actions: {median(found):.3f} s")
    return round(median(found), 3)


async def tail_of(place: Path) -> int:
    """The last position of a log."""
    async with log_of(place) as log:
        return await log.tail()


def peers(bench: Benchmark, work: Path, lengths: Sequence[int], repeats: int) -> dict[str, dict[str, float | None]]:
    """The same for the peers, where they can be installed."""
    found: dict[str, dict[str, float | None]] = {"dbos_sqlite": {}, "langgraph_sqlite": {}}
    python = peer_python(bench)
    for name in ("dbos", "langgraph"):
        for length in lengths:
            key = f"{name}_sqlite"
            if python is None:
                found[key][str(length)] = None
                continue
            times = []
            try:
                for number in range(repeats):
                    place = work / f"{name}-{length}-{number}"
                    place.mkdir()
                    script = [
                        str(python),
                        str(ROOT / "benchmarks" / "recovery_peers.py"),
                        name,
                        str(place),
                        str(length),
                    ]
                    times.append(
                        killed_and_resumed_once(
                            lambda script=script: subprocess.Popen(  # type: ignore[misc]
                                script, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                            ),
                            place,
                        )
                    )
                found[key][str(length)] = round(median(times), 3)
                bench.progress(f"{name} at {length} steps: {median(times):.3f} s")
            except (RuntimeError, OSError) as error:
                found[key][str(length)] = None
                bench.notes.append(f"{name} at {length}: {error}")
    return found


def killed_and_resumed_once(start: Callable[[], subprocess.Popen[bytes]], place: Path) -> float:
    """Like ``killed_and_resumed``, for a process that sees by itself which one it is."""
    victim = start()
    wait_for(place / "reached", victim)
    kill(victim)
    victim.wait()
    began = time.time()
    resumed = start()
    wait_for(place / "first", resumed)
    kill(resumed)
    resumed.wait()
    return float((place / "first").read_text()) - began


def peer_python(bench: Benchmark) -> Path | None:
    """The interpreter of the peers' own environment, made on first use; None (and a note) where it cannot be."""
    python = ROOT / ".venv-peers" / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True, timeout=120)
        have = [str(python), "-c", "import dbos, langgraph.checkpoint.sqlite"]
        if subprocess.run(have, capture_output=True, timeout=60, check=False).returncode:
            install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PEERS]
            subprocess.run(install, check=True, timeout=600, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        bench.notes.append(f"the peers could not be installed: {error}")
        return None
    return python


# --- a service that dies and comes back ------------------------------


SERVICE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *a): pass
class Server(http.server.HTTPServer):
    allow_reuse_address = True
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Service:
    """A real HTTP service in a process of its own, which can die and come back on the same port."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: asyncio.subprocess.Process | None = None
        self.back_at = 0.0

    async def begin(self) -> None:
        """Start it, and wait until it answers."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVICE, str(self.port), start_new_session=True
        )
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.005)
        self.back_at = time.time()

    async def die(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            kill(self.process)
            await self.process.wait()

    def ask(self) -> str:
        """What a tool gets from it; refused connections are definite, and say that the environment is gone."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            refused = isinstance(reason, ConnectionRefusedError)
            raise ToolError(str(reason), kind="environment", definite=refused) from error


BACKOFF_S = 0.1
BACKOFF_S_MAX = 1.0


async def environment(rounds: int, away_s: float) -> tuple[int, int, list[float], int]:
    """The service dies after an agent's first call and comes back: (rounds recovered, of them within the backoff that
    the log had planned, seconds from its return to the call that succeeded, tokens asked of the model meanwhile)."""
    recovered = within = asked = 0
    delays: list[float] = []
    for _ in range(rounds):
        service = Service()
        await service.begin()
        model = ScriptedModel([call("ask"), call("ask"), "done"])
        agent = LogActAgent(
            "bench",
            log=open_log("memory:"),
            model=model,
            tools=[Tool(service.ask, effect="idempotent", description="Ask the service.")],  # a GET
            policy=OPEN,
            recovery=RetryRecovery(max_retries=100, base_delay=BACKOFF_S, max_delay=BACKOFF_S_MAX, total_s=120),
        )
        gone = asyncio.Event()

        def watch(state: State, entry: Entry, gone: asyncio.Event = gone) -> None:
            first = isinstance(entry.payload, Result) and entry.tool == "ask" and entry.payload.error is None
            if first and not gone.is_set():
                service_dies()
                gone.set()

        def service_dies(service: Service = service) -> None:
            if service.process is not None:
                kill(service.process)

        agent.observe(watch)
        running = asyncio.ensure_future(agent.run("ask twice"))
        try:
            await asyncio.wait_for(gone.wait(), 60)
            await service.die()
            await asyncio.sleep(away_s)
            await service.begin()
            answer = await asyncio.wait_for(running, 60)
            results = [one async for one in agent.log.read() if one.kind == "Result" and one.tool == "ask"]
            last, before = results[-1], results[-2]
            if answer.ok and isinstance(last.payload, Result) and last.payload.error is None and len(results) > 2:
                recovered += 1
                delays.append(last.time_ms / 1000 - service.back_at)
                planned = before.payload.retry_at_ms if isinstance(before.payload, Result) else 0
                within += last.time_ms <= max(planned, service.back_at * 1000) + 250
            asked += model.asked - 3
        finally:
            await service.die()
            running.cancel()
    return recovered, within, delays, asked


def a_few_points(bench: Benchmark) -> tuple[Found, int, int]:
    """A part of ``benchmarks.crash.sweep``: some of the named points, and no second kills."""
    with work_directory() as place, Stage(place, 1) as stage:
        points = [point for point in crash_points(stage, "dry") if point.endswith(":1")][::5]
        found = Found()
        for number, point in enumerate(points):
            found.add(killed_at(stage, f"point-{number}", [point]))
        if not stage.neighbour_ends():
            found.problems.append("the neighbour failed")
        judge(stage, found)
    return found, len(points), 0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    bench = Benchmark(
        "recovery", __doc__ or "", argv, seed={"type": int, "default": 1, "help": "not used: no chance"}
    )
    repeats = bench.options.repeat or (1 if bench.quick else 5)
    counts = {"kills": 0, "lost": 0, "doubled_irreversible": 0, "missing_idempotent": 0}
    resume: dict[str, float | None] = {"500": None, "10000": None, "1000000": None}
    with work_directory() as work:
        for actions in (500, 10_000):
            resume[str(actions)] = ours(bench, work, actions, 0, repeats, counts)
        if bench.quick:
            bench.notes.append("1,000,000 entries: only in the full run")
        else:
            resume["1000000"] = ours(bench, work, 1_000_000 // ENTRIES_PER_ACTION, 1_000_000, repeats, counts)
        lengths = (500,) if bench.quick else (500, 10_000)
        others = peers(bench, work, lengths, repeats)
        rounds = 2 if bench.quick else 10
        recovered, within, delays, asked = asyncio.run(environment(rounds, 0.7 if bench.quick else 2.0))
        bench.progress(f"the environment came back: {recovered} of {rounds} recovered")
        swept, points, recovering = a_few_points(bench) if bench.quick else sweep(bench)
        bench.progress(f"killed at {points} points, and at {recovering} of the recoveries that follow")
    for name in ("kills", "lost", "doubled_irreversible", "missing_idempotent"):
        counts[name] += getattr(swept, name)
    for problem in swept.problems[:20]:
        bench.notes.append(problem)
    bench.finish(
        {
            "resume_s": resume,
            "peers": others,
            **counts,
            "kill_points": points,
            "recovery_points": recovering,
            "acknowledged": swept.acked,
            "resumed_pct": round(100 * swept.finished / swept.runs, 1),
            "environment_backoff_s_max": BACKOFF_S_MAX,
            "environment_within_backoff_pct": round(100 * within / rounds, 1),
            "environment_model_calls_meanwhile": asked,
            "environment_recovered_pct": round(100 * recovered / rounds, 1),
            "environment_resume_s": round(median(delays), 3) if delays else None,
        }
    )


if __name__ == "__main__":
    if "--child" in sys.argv:
        at = sys.argv.index("--child")
        asyncio.run(child(sys.argv[at + 1], Path(sys.argv[at + 2])))
    else:
        main()
