"""Questions about agents that a log answers by folding itself: what was proposed, what was done, what waits.

Each call folds the log once and returns views; nothing is remembered between calls. ``SharedLog`` offers these as
methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from logact.core import machine
from logact.core.state import State
from logact.core.views import LogEntry, view
from logact.entry import Checkpoint, end_of, position_of, record_of
from logact.errors import LogTrimmed

if TYPE_CHECKING:
    from logact.logs.base import SharedLog


async def folded(log: SharedLog) -> State:
    """The fold of the whole log with every action kept; of a trimmed one, from its last checkpoint on."""
    await log.open()
    state = machine.initial(log.log_id, keep=True)
    try:
        async for entry in log.read():
            state = machine.apply(state, entry)
    except LogTrimmed:
        record = await log.engine.last_checkpoint()
        entry = await log.get(position_of(record))
        if not isinstance(entry.payload, Checkpoint):
            raise
        state = msgspec.json.decode(await log.get_blob(entry.payload.state.digest), type=State)
        state.keep = True
        async for later in log.read(end_of(record_of(entry.payload.upto))):
            state = machine.apply(state, later)
    return state


async def history(log: SharedLog, agent_id: str | None = None) -> list[LogEntry]:
    """Every action (of one agent), oldest first, with what became of it."""
    state = await folded(log)
    return [
        view(state, action)
        for _, action in sorted(state.actions.items())
        if agent_id is None or action.intent.agent == agent_id
    ]


async def last_executed(log: SharedLog, agent_id: str) -> LogEntry | None:
    """The agent's action whose execution ended last; None if it has executed nothing."""
    state = await folded(log)
    done = [
        action for action in state.actions.values() if action.intent.agent == agent_id and action.status == "executed"
    ]
    return view(state, max(done, key=lambda action: action.settled_at)) if done else None
