"""What ``logact doubt`` needs an agent's tools for: asking a probe, and taking back what happened."""

from __future__ import annotations

from typing import Any

import msgspec

from logact.cli.common import go, put, put_json
from logact.errors import UsageError
from logact.runtime.host import Host
from logact.runtime.recoverer import Recoverer
from logact.spec import build_agent, load_spec
from logact.undoing import UndoReport


async def probe_says(specification: str, position: int) -> dict[str, Any]:
    """What the probe of an action's tool answers now. Nothing is written. Raises UsageError if it has none."""
    agent = build_agent(load_spec(specification))
    async with agent.log as log:
        host = Host(log, agent.agent_id)
        state = await host.tail.start()
        action = state.actions.get(position)
        tool = agent.tools.get(action.intent.tool) if action is not None else None
        host.leaves()
        if action is None or tool is None or not tool.has_probe:
            what = f"the tool {action.intent.tool!r}" if action is not None else f"action {position}"
            raise UsageError("There is no probe to ask", received=what, todo="look at the world yourself")
        answer = await Recoverer(host, agent.tools, agents=[agent.agent_id], secrets=agent.secrets).probed(
            action, tool
        )
        answer = msgspec.structs.replace(answer, detail=agent.secrets.redact_text(answer.detail))
    words = {True: "it happened", False: "it did not happen", None: "it cannot tell"}[answer.happened]
    said = f"{words}{': ' + answer.detail if answer.detail else ''}"
    return {"event": "probe", "action": position, "happened": answer.happened, "said": said}


def take_back(specification: str, position: int, as_json: bool) -> int:
    """Undo an action that is settled as having happened; the exit code."""
    agent = build_agent(load_spec(specification))

    async def work() -> UndoReport:
        async with agent.log:
            return await agent.undo(position)

    report = go(work())
    if as_json:
        put_json({"complete": report.complete, **msgspec.to_builtins(report)})
    else:
        put(report.in_words())
    return 0 if report.complete else 1
