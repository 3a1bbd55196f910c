"""Ten agents fix a code tree, once with introspection off and once with it on; everything else is the same."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.swarm import tree
from benchmarks.swarm.provider import Provider
from logact import AgenticIntrospection, LogActAgent, Policy, SubTask, Swarm, Tool, open_log
from logact.agent_parts import running
from logact.introspection.optimizing import measured
from logact.logs.base import SharedLog
from logact.models import Model, ProviderModel, model_from_name
from logact.runtime.host import Host

AGENTS = 10
LOOK_AFTER = 10
"""Introspection looks once so many tasks are done."""

SYSTEM = """\
You are a careful programmer in a team that removes deprecated calls from a Python package. You work on one file at a
time. Read the file first. What replaces a deprecated call stands in MIGRATION.md; read it if you do not know it.
Change only the deprecated calls, run the check of the file, and then answer with one sentence that says what you
replaced.
"""


def tools(where: Path) -> list[Tool]:
    """What a programmer's agent is usually given."""

    def read_file(path: str) -> str:
        """The text of a file of the tree."""
        return (where / path).read_text()

    def list_files(folder: str = ".") -> list[str]:
        """The files in a folder of the tree, with their paths from its root."""
        return sorted(str(one.relative_to(where)) for one in (where / folder).rglob("*.py"))

    def search(pattern: str) -> list[str]:
        """The lines of all Python files that contain a text, as path:line: text."""
        return [
            f"{one.relative_to(where)}:{number}: {line}"
            for one in sorted(where.rglob("*.py"))
            for number, line in enumerate(one.read_text().splitlines(), start=1)
            if pattern in line
        ][:200]

    def edit(path: str, old: str, new: str) -> str:
        """Replace every occurrence of a text in a file; does nothing where it was replaced before."""
        text = (where / path).read_text()
        (where / path).write_text(text.replace(old, new))
        return f"{text.count(old)} replaced"

    def write_file(path: str, text: str) -> str:
        """Write a whole file, over what was there."""
        (where / path).write_text(text)
        return "written"

    def move_file(source: str, target: str) -> str:
        """Rename a file of the tree."""
        (where / source).rename(where / target)
        return "moved"

    def delete_file(path: str) -> str:
        """Delete a file of the tree for good."""
        (where / path).unlink()
        return "deleted"

    def run_check(path: str) -> str:
        """Run the package's own check of one module; says what is wrong."""
        ok, said = tree.check(where, Path(path).stem)
        return ("passed: " if ok else "FAILED: ") + said

    reads = [Tool(one, effect="read") for one in (read_file, list_files, search, run_check)]
    writes = [Tool(edit, effect="idempotent"), Tool(write_file, effect="idempotent")]
    return [*reads, *writes, Tool(move_file), Tool(delete_file)]


async def once(where: Path, seed: int, files: int, *, introspect: bool, model: str = "") -> dict[str, Any]:
    """One whole run on a fresh tree and a fresh log: its tokens, its time, and what it left behind."""
    root = where / ("on" if introspect else "off")
    root.mkdir()
    paths = tree.build(root, seed, files)
    began_broken = not tree.check(root)[0]
    log = open_log(f"sqlite:///{where}/{root.name}.db")
    with Provider() as provider:
        try:
            async with asyncio.timeout(600):
                agents = [_agent(f"agent{number}", log, root, provider, model) for number in range(AGENTS)]
                swarm = Swarm(agents, log, lease_s=120)
                plan = [
                    SubTask(name=f"{number:03}", text=f"Fix the deprecated calls in {path}.")
                    for number, path in enumerate(paths)
                ]
                began = time.monotonic()
                run = await swarm.start("remove the deprecated calls", plan)
                found: dict[str, Any] = {}
                async with asyncio.TaskGroup() as group:
                    group.create_task(swarm.work(run))
                    if introspect:
                        group.create_task(_introspect(agents, swarm, run, found))
                result = await swarm.joined(run)
                seconds = time.monotonic() - began
                ok, said = tree.check(root)
                return {
                    "billed": provider.billed,
                    **provider.counted,
                    "seconds": round(seconds, 2),
                    "broken_before": began_broken,
                    "fixed": ok and result.ok and len(result.results) == len(paths),
                    "said": said if not ok else "",
                    "digest": tree.digest(root),
                    "reads_from_log": sum(known.served for known in swarm.known),
                    **found,
                    **(await _measured(agents, found) if introspect else {}),
                }
        finally:
            await log.close()


def _agent(name: str, log: SharedLog, root: Path, provider: Provider, model: str) -> LogActAgent:
    asked: Model = model_from_name(model) if model else ProviderModel("local", base_url=provider.url)
    policy = Policy(version=1, agent=name, need={"open": "a benchmark in a folder of its own"})
    return LogActAgent(name, log, model=asked, system=SYSTEM, tools=tools(root), policy=policy)


async def _introspect(agents: list[LogActAgent], swarm: Swarm, run: int, found: dict[str, Any]) -> None:
    """Once enough is done, look at the log and apply what would save tokens."""
    host = Host(swarm.log, "introspection")
    await host.tail.start()
    async with running(host.tail.follow()):
        await host.tail.until(lambda state: len(state.runs[run].done) >= LOOK_AFTER)
    host.leaves()
    began = time.monotonic()
    done = await AgenticIntrospection().optimize_token_usage(agents, automatic=True)
    first = done.optimizations[agents[0].agent_id]
    found["applied"] = [{"kind": one.kind, "title": one.title} for one in first.measures]
    found["entries"] = sum(map(len, done.applied.values()))
    found["introspection_s"] = round(time.monotonic() - began, 3)
    found["position"] = max((at for places in done.applied.values() for at in places), default=done.position)


async def _measured(agents: list[LogActAgent], found: dict[str, Any]) -> dict[str, Any]:
    saved = await measured(agents, found["position"])
    return {
        "log_runs_before": saved.runs_before,
        "log_runs_after": saved.runs_after,
        "log_tokens_per_run_before": saved.tokens_before,
        "log_tokens_per_run_after": saved.tokens_after,
        "log_uncached_per_run_before": saved.uncached_before,
        "log_uncached_per_run_after": saved.uncached_after,
    }
