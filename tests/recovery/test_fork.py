"""Forks: the same past under another id, nothing done twice, nothing unfinished; and what differs afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from logact.errors import UsageError
from logact.introspection.diff import diff
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.url import open_log
from logact.logs.verify import verify
from logact.models.scripted import call
from logact.runtime.forking import fork
from logact.runtime.retry import RetryRecovery
from logact.tools import ToolError
from tests.cli_help import fits, here
from tests.recovery.kit import Flaky, an_agent, entries, folded

SCRIPT = [call("send", item="a"), call("send", item="b"), "done"]


async def forked(
    engine: MemoryEngine, position: int, keep_parent: bool = False
) -> tuple[MemoryEngine, tuple[int, ...]]:
    """A fork of a log in memory, and the actions that were closed in it."""
    target = MemoryEngine()
    done = await fork(SharedLog(engine), position, SharedLog(target), keep_parent=keep_parent)
    assert (await verify(SharedLog(target))).sound
    return target, done.closed


async def test_a_fork_goes_on_from_its_point_with_another_model() -> None:
    """What was done before stays done; the fork goes another way, under other external keys, the parent unchanged."""
    engine, tool = MemoryEngine(), Flaky()
    run = (await an_agent(engine, SCRIPT, [tool.tool]).run("go")).run
    first = (await entries(engine, "Result"))[0]
    target, closed = await forked(engine, first.position)
    assert not closed
    assert target.log_id != engine.log_id
    before = len(tool.calls)
    other = [call("send", item="a"), call("send", item="c"), "done otherwise"]
    answer = await an_agent(target, other, [tool.tool]).run("go")
    assert answer.run == run
    assert answer.text == "done otherwise"
    assert len(tool.calls) == before + 1, "what was done is not done again"
    assert len({one.key for one in tool.calls}) == 3
    found = await diff(SharedLog(engine), SharedLog(target))
    assert found.common == first.position
    assert {one.tool for one in found.actions} == {"send", "answer"}
    assert found.runs
    assert (await diff(SharedLog(engine), SharedLog(engine))).same


async def test_every_point_can_be_forked_and_ends() -> None:
    """From each record of a run a fork verifies, has nothing open, and a new life brings it to its end."""
    engine, tool = MemoryEngine(), Flaky(ToolError("busy", kind="transient"))
    retry = RetryRecovery(base_delay=0.001, max_delay=0.002)
    await an_agent(engine, SCRIPT, [tool.tool], recovery=retry, checkpoint_every=5).run("go")
    last = engine.tail_now()
    for record in range(1, last + 1):
        target, _ = await forked(engine, record * 1000, keep_parent=True)
        state = await folded(target)
        assert not state.open_actions
        kinds = [one.kind for one in await entries(engine)]
        if "Run" not in kinds[:record]:
            continue
        if any(run.status == "running" for run in state.runs.values()):
            assert (await an_agent(target, SCRIPT, [Flaky().tool]).run()).ok


async def test_what_is_unfinished_belongs_to_the_parent() -> None:
    """What was started there is closed in the fork with its effect unknown; a retry to come is the parent's."""
    for failing in (False, True):
        engine = MemoryEngine()
        tool = Flaky(*([ToolError("busy", kind="transient", retry_after_s=60)] if failing else []))
        tool.hangs = not failing
        agent = an_agent(engine, SCRIPT, [tool.tool], recovery=RetryRecovery())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await agent.run("go")
        position = (await entries(engine, "Result" if failing else "Started"))[0].position
        target, closed = await forked(engine, position)
        assert len(closed) == 1
        assert (await folded(target)).actions[closed[0]].status == ("failed_final" if failing else "superseded")
        again = Flaky()
        await an_agent(target, SCRIPT, [again.tool]).run("go")
        assert len(again.calls) == 1, "only the second call of the script"


async def test_budgets_are_moved() -> None:
    """The parent's unfinished run is paused, with the reason; a run that was finished meanwhile is left alone."""
    engine, tool = MemoryEngine(), Flaky(ToolError("busy", kind="transient", retry_after_s=60))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await an_agent(engine, SCRIPT, [tool.tool], recovery=RetryRecovery()).run("go")
    await forked(engine, (await entries(engine, "Result"))[0].position)
    state = await folded(engine)
    run = next(iter(state.runs))
    assert f"run:{run}" in state.paused
    assert "moved to the fork" in (await entries(engine, "Control"))[0].payload.reason  # type: ignore[attr-defined]
    finished = MemoryEngine()
    await an_agent(finished, SCRIPT, [Flaky().tool]).run("go")
    await forked(finished, 3000)
    assert not (await folded(finished)).paused


async def test_what_cannot_be_forked_is_said() -> None:
    """A target with a past, and a position that is not there, are errors; nothing is written then."""
    engine = MemoryEngine()
    await an_agent(engine, SCRIPT, [Flaky().tool]).run("go")
    with pytest.raises(UsageError, match="new log"):
        await fork(SharedLog(engine), 3000, SharedLog(engine))
    with pytest.raises(UsageError, match="no such position"):
        await forked(engine, 10**9)


def test_what_differs_fits_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each side of a run (both side by side were 104 columns wide)."""
    monkeypatch.chdir(tmp_path)

    async def runs() -> None:
        for name, script in (("a", SCRIPT), ("b", SCRIPT[1:])):
            agent = an_agent(MemoryEngine(), script, [Flaky().tool])
            async with open_log(f"sqlite:///{name}.db") as agent.log:
                await agent.run("a task whose title alone fills most of one line")

    asyncio.run(runs())
    shown = here("diff", "a.db", "b.db")
    assert shown.returncode == 1
    fits(shown.stdout)
    assert "a task" in shown.stdout
    assert shown.stdout.count("finished") == 2 * len([line for line in shown.stdout.splitlines() if "a task" in line])


def test_two_points_of_one_log_differ_by_what_came_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``logact diff LOG@A LOG@B``: the actions of the later one; nothing where both are one point."""
    monkeypatch.chdir(tmp_path)

    async def points() -> list[int]:
        agent = an_agent(MemoryEngine(), SCRIPT, [Flaky().tool])
        async with open_log("sqlite:///a.db") as agent.log:
            await agent.run("go")
            return [one.position async for one in agent.log.read() if one.kind == "Result"]

    first, second = asyncio.run(points())[:2]
    found = here("diff", f"a.db@{first}", f"a.db@{second}", "--json")
    assert found.returncode == 1, found.stderr
    assert [one["tool"] for one in json.loads(found.stdout)["actions"]] == ["send"]
    assert here("diff", f"a.db@{first}", f"a.db@{first}").returncode == 0


async def test_a_fork_in_files(tmp_path: Path) -> None:
    """From one SQLite file to another, large values included."""
    big = Flaky()
    async with open_log(f"sqlite:///{tmp_path}/a.db") as source, open_log(f"sqlite:///{tmp_path}/b.db") as target:
        agent = an_agent(MemoryEngine(), [call("send", item="x" * 300_000), "done"], [big.tool])
        agent.log = source
        await agent.run("go")
        done = await fork(source, await source.tail(), target)
        assert done.blobs >= 2
        assert (await verify(target)).sound
        found = await diff(source, target)
        assert not found.actions
