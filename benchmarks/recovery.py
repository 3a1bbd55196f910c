"""From a process's start to its first resumed action, after ``kill -9`` in the middle of one; peers in the same run.

A log with many recorded actions is filled (in packed records), a process goes on with it and is killed inside an
action's effect; the time is from starting the next process, imports included, to the body of the first resumed
action. The effect counts are kept outside. Then a real HTTP service dies and comes back while an agent works with it.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Benchmark, child_environment, kill, median, work_directory
from logact import LogActAgent, Policy, RetryRecovery, Tool, ToolError, open_log
from logact.entry import (
    Commit,
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


async def environment(rounds: int, away_s: float) -> tuple[int, list[float]]:
    """How many of the rounds recovered, and how long after the service's return each did."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError as error:
            refused = isinstance(error.reason, ConnectionRefusedError)
            raise ToolError(str(error.reason), kind="environment", definite=refused) from error

    recovered, delays = 0, []
    for _ in range(rounds):
        agent = LogActAgent(
            "bench",
            log=open_log("memory:"),
            model=ScriptedModel([call("ask"), "done"]),
            tools=[Tool(ask, effect="irreversible", description="Ask the service.")],
            policy=OPEN,
            recovery=RetryRecovery(max_retries=50, base_delay=0.1, max_delay=1.0, total_s=60),
        )
        running = asyncio.ensure_future(agent.run("ask"))
        await asyncio.sleep(away_s)
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVICE, str(port), start_new_session=True
        )
        back = time.monotonic()
        try:
            answer = await asyncio.wait_for(running, 60)
            done = [one async for one in agent.log.read() if one.kind == "Result" and one.tool == "ask"]
            if answer.ok and isinstance(done[-1].payload, Result) and done[-1].payload.error is None:
                recovered += 1
                delays.append(time.monotonic() - back)
        finally:
            kill(service)
            await service.wait()
    return recovered, delays


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
        recovered, delays = asyncio.run(environment(rounds, 0.7 if bench.quick else 2.0))
    bench.finish(
        {
            "resume_s": resume,
            "peers": others,
            **counts,
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
