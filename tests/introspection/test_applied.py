"""What was applied to save tokens is in force after a restart: from the beginning, and from a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel
from logact.entry import Checkpoint
from logact.introspection.tokens import Measure, Optimization
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models import call
from logact.models.base import ModelRequest
from logact.tools import Tool
from tests.runtime.kit import opened, payloads, run

SHARE = {"tool": "read", "arguments": {"path": "a"}, "lines": 1, "of": 1, "position": 7, "text": "the text of a"}


async def read(path: str) -> str:
    """Read."""
    return path


async def write(path: str) -> str:
    """Write."""
    return path


def ann(log: SharedLog, script: Any = (), **options: Any) -> LogActAgent:
    """An agent with two tools."""
    tools = [Tool(read, effect="read"), Tool(write, effect="idempotent")]
    return LogActAgent("ann", log, model=ScriptedModel(script), policy=opened("ann"), tools=tools, **options)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_changes_in_force_survive_a_restart(checkpoint: bool) -> None:
    """A text that was handed over and a hidden tool: the next life's model gets the one, not the other."""

    async def main() -> None:
        log = SharedLog(engine := MemoryEngine())
        measures = (
            Measure(kind="share", title="hand over", data=SHARE),
            Measure(kind="hide", title="hide", data={"tools": ["read"]}),
            Measure(kind="together", title="keep together"),
        )
        first = ann(log)
        async with first:
            at = await first.apply_optimization(Optimization(agent="ann", measures=measures), automatic=True)
            await first.undo_optimization(at[2])
            if checkpoint:
                assert first._parts is not None
                await first._parts.host.tail.catch_up()
                await first._parts.checkpointer.write()
        assert len(await payloads(log, Checkpoint)) == checkpoint
        asked: list[ModelRequest] = []

        def script(request: ModelRequest) -> Any:
            asked.append(request)
            return [call("write", path="a"), "done"][len(asked) - 1] if len(asked) < 3 else "done"

        second = ann(SharedLog(engine), script)
        async with second:
            assert (second._parts is not None and second._parts.host.tail.checkpoint is not None) == checkpoint
            assert not second.tuning.together
            await second.run("one")
        assert "the text of a" in asked[0].system and [tool.name for tool in asked[0].tools] == ["write"]
        if checkpoint:
            async with ann(SharedLog(engine)) as once:
                assert once._parts is not None
                await once._parts.checkpointer.write()
        third = ann(SharedLog(engine), script)
        await third.run("two")
        assert "the text of a" not in asked[-1].system, "it was changed since, and is not handed over any more"
        assert [tool.name for tool in asked[-1].tools] == ["write"]

    run(main())
