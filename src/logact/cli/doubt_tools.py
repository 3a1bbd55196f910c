"""What ``logact doubt`` needs an agent's tools for: asking a probe, and taking back what happened."""

from __future__ import annotations

from typing import Any

import msgspec

from logact.cli.common import go, put, put_json
from logact.cli.undo import lines_of, undoer
from logact.errors import AgentBusy, UsageError
from logact.introspection.history import history
from logact.runtime.entering import refuse_if_played
from logact.runtime.host import Host
from logact.runtime.recoverer import Recoverer
from logact.spec import build_agent, load_spec
from logact.undoing import UndoReport, refusal


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


def why_no_undo(specification: str, position: int) -> str:
    """Why an action could not be taken back once it is settled as having happened ("" if it could). Writes nothing.

    Raises AgentBusy if the agent is played by others, who would not let this process do it.
    """
    agent = undoer(specification)

    async def work() -> str:
        async with agent.log as log:
            action = (await history(log)).state.actions.get(position)
            host = Host(log, agent.agent_id)
            await host.tail.start()
            host.leaves()
            if action is None:
                return ""  # that it is not in doubt is said where it is settled
            why = refusal(agent, action)
            if not why:
                refuse_if_played(host)
            return why

    return go(work())


def refuse_undo(specification: str, position: int) -> None:
    """Raise UsageError or AgentBusy, with what to do, where an action could not be taken back now."""
    later = f"say `logact doubt {specification} {position} --happened`, if it did"
    try:
        why = why_no_undo(specification, position)
    except AgentBusy as error:
        raise AgentBusy(
            f"Action {position} cannot be taken back now: {error.message[0].lower()}{error.message[1:]}",
            received=error.received,
            todo=f"end that first (a supervisor: `logact supervise {specification} --stop`), and repeat this; "
            f"or {later}, and once that has ended `logact undo {specification} {position}`",
        ) from error
    if why:
        raise UsageError(f"Action {position} cannot be taken back", received=why, todo=later)


def take_back(specification: str, position: int, as_json: bool) -> int:
    """Undo an action that is settled as having happened; the exit code."""
    agent = undoer(specification)

    async def work() -> UndoReport:
        async with agent.log:
            return await agent.undo(position)

    report = go(work())
    if as_json:
        put_json({"complete": report.complete, **msgspec.to_builtins(report)})
    else:
        put(lines_of(report))
        if not report.complete:
            put(f"The same again:  logact undo {specification} {position}")
    return 0 if report.complete else 1
