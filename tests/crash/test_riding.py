"""Results that ride with the next record, where no further record comes."""

from __future__ import annotations

import asyncio

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.models.scripted import call


@tool(effect="read")
async def look(item: int) -> int:
    """Look at an item."""
    return item


def test_a_turn_of_reads_goes_on_by_itself() -> None:
    """Was waiting for ever once the last result of a turn had ridden, unless somebody else wrote to the log."""
    records: list[list[str]] = []

    async def run() -> str:
        script = [[call("look", item=1), call("look", item=2)], "seen"]
        async with asyncio.timeout(20), open_log("memory:") as log:
            answer = await LogActAgent("reader", log, model=ScriptedModel(script), tools=[look]).run("look")
            async for entry in log.read():
                if entry.position % 1000 == 0:
                    records.append([])
                records[-1].append(entry.kind)
        return answer.text

    assert asyncio.run(run()) == "seen"
    assert ["Result", "Intent", "Commit", "Started"] in records, "the first result rides with the second intent"
