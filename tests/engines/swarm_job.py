"""A swarm on any engine: agents in one process and in many, one of which is killed, and the proof that all is right.

Adopt it in a line: ``shared(tmp_path, url)`` with the URL of a fresh log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import ROOT, child_environment

from logact import LogActAgent, Policy, open_log
from logact.entry import Claim, Run
from logact.models import ScriptedModel
from logact.models.base import ModelRequest
from logact.swarm import SubTask, Swarm
from tests.runtime.kit import folded, payloads

PARTS = 6

WORKER = """
import asyncio, sys, time
from logact import LogActAgent, Policy, open_log, tool
from logact.models import ScriptedModel, call
from logact.models.scripted import turn_of
from logact.swarm import Swarm

url, me, effects, pace = sys.argv[1:5]

@tool(effect="idempotent")
def put(name: str) -> str:
    "Note that a task was worked on."
    with open(effects, "a") as file:
        file.write(f"{me} {name}\\n")
    time.sleep(60 if pace == "slow" else 0.01)
    return "noted"

def script(request):
    name = request.messages[0].text.split()[1]
    return call("put", name=name) if not turn_of(request) else f"{name} is done"

async def main():
    log = open_log(url)
    policy = Policy(version=1, agent=me, need={"open": "a test"})
    agent = LogActAgent(me, log, model=ScriptedModel(script), tools=[put], policy=policy)
    result = await Swarm([agent], log, lease_s=60).run("many", [f"part {n}" for n in range(PARTS)])
    print(result.text)
    await log.close()

asyncio.run(main())
""".replace("PARTS", str(PARTS))


def shared(directory: Path, url: str) -> None:
    """Three agents of one process share a task; then three processes share another, and one of them is killed."""
    asyncio.run(_in_one_process(url))
    effects, script = directory / "effects", directory / "worker.py"
    script.write_text(WORKER)

    def begin(name: str, pace: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), url, name, str(effects), pace],
            cwd=ROOT,
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    victim = begin("victim", "slow")
    others: list[subprocess.Popen[str]] = []
    try:
        end = time.monotonic() + 60
        while not effects.exists() and time.monotonic() < end and victim.poll() is None:
            time.sleep(0.05)
        assert effects.exists(), "the victim never began"
        others = [begin("eve", "quick"), begin("max", "quick")]
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
        said = [one.communicate(timeout=120) for one in others]
    finally:
        for one in (victim, *others):
            one.kill()
            one.wait()
    assert [one.returncode for one in others] == [0, 0], said
    assert said[0][0] == said[1][0] and said[0][0].count("is done") == PARTS
    asyncio.run(_judge(url, effects))


def _script(request: ModelRequest) -> str:
    return request.messages[0].text.replace("\n", " | ").upper()


async def _in_one_process(url: str) -> None:
    async with open_log(url) as log:
        agents = [
            LogActAgent(
                name,
                log,
                model=ScriptedModel(_script),
                policy=Policy(version=1, agent=name, need={"open": "a test"}),
            )
            for name in ("ann", "bob", "kim")
        ]
        plan = [*(SubTask(name=f"{n}", text="x") for n in range(4)), SubTask(name="last", text="y", after=("0", "3"))]
        result = await Swarm(agents, log, lease_s=30).run("one", plan)
        assert (
            result.results["last"].text == "TASK LAST | Y | [RESULT OF 0] | TASK 0 | X | [RESULT OF 3] | TASK 3 | X"
        )
        completed = Counter(said.task for said in await payloads(log, Claim) if said.result)
        assert completed == dict.fromkeys(("0", "1", "2", "3", "last"), 1)


async def _judge(url: str, effects: Path) -> None:
    async with open_log(url) as log:
        state = await folded(log)
        (plan,) = [one for one in state.runs.values() if one.title == "many"]
        assert plan.status == "finished"
        claims = [said for said in await payloads(log, Claim) if said.run == plan.id]
        assert Counter(said.task for said in claims if said.result) == dict.fromkeys(plan.done, 1)
        assert len(plan.done) == PARTS
        assert {said.agent for said in claims if said.result} <= {"eve", "max"}
        assert any(said.lapses for said in claims)
        runs = [said for said in await payloads(log, Run) if said.parent == plan.id]
        assert len(runs) == PARTS + 1  # the victim's was begun anew
    seen = Counter(line.split()[1] for line in effects.read_text().splitlines())
    assert sorted(seen) == sorted(plan.done) and sum(seen.values()) <= PARTS + 1
