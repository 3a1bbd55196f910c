"""Turns with several calls in the inline form: their results ride, and they run one after the other."""

from __future__ import annotations

import asyncio

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.logs.base import Draft, SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import Reply, call


@tool(effect="read")
async def look(item: int) -> int:
    """Look at an item."""
    return item


def test_a_turn_of_reads_goes_on_by_itself() -> None:
    """Was waiting for ever once the last result of a turn had ridden, unless somebody else wrote to the log."""
    records: list[list[str]] = []

    async def run() -> str:
        script: list[Reply] = [[call("look", item=1), call("look", item=2)], "seen"]
        async with asyncio.timeout(20), open_log("memory:") as log:
            answer = await LogActAgent("reader", log, model=ScriptedModel(script), tools=[look]).run("look")
            async for entry in log.read():
                if entry.position % 1000 == 0:
                    records.append([])
                records[-1].append(entry.kind)
        return answer.text

    assert asyncio.run(run()) == "seen"
    assert ["Result", "Intent", "Commit", "Started"] in records, "the first result rides with the second intent"


class LateEngine(MemoryEngine):
    """Followers see a record well before its writer hears that it was written."""

    async def append(self, draft: Draft) -> tuple[int, bool]:
        done = await super().append(draft)
        await asyncio.sleep(0.02)
        return done


def test_the_calls_of_a_turn_run_in_order() -> None:
    """Were run together, if the log's followers were faster than the answer to the append."""
    seen: list[str] = []

    @tool(effect="read")
    async def step(name: str) -> None:
        """Take a step."""
        seen.append(f"begin {name}")
        await asyncio.sleep(0.1)
        seen.append(f"end {name}")

    async def run() -> None:
        script: list[Reply] = [[call("step", name="a"), call("step", name="b")], "done"]
        async with asyncio.timeout(20), SharedLog(LateEngine("late")) as log:
            await LogActAgent("walker", log, model=ScriptedModel(script), tools=[step]).run("walk")

    asyncio.run(run())
    assert seen == ["begin a", "end a", "begin b", "end b"]
