"""Questions about agents that a log answers by folding itself: what was proposed, what was done, what waits.

Each call folds the log once and returns views, with arguments and results; nothing is remembered between calls.
``SharedLog`` offers these as methods.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from logact.core import machine
from logact.core.state import Action, State
from logact.core.views import LogEntry, view
from logact.entry import Entry, Result, end_of, record_of
from logact.errors import LogCorrupt, LogTrimmed
from logact.logs.checkpoints import earliest, latest
from logact.logs.contract import Filter

if TYPE_CHECKING:
    from logact.logs.base import SharedLog


class Folded(msgspec.Struct):
    """A log's fold with every action kept, and what each action that ended by itself came to."""

    state: State
    results: dict[int, Result] = {}

    def apply(self, entry: Entry) -> None:
        """One more entry."""
        self.state = machine.apply(self.state, entry)
        if isinstance(entry.payload, Result) and not self.state.verdict:
            self.results[entry.payload.intent] = entry.payload


async def kept(log: SharedLog, after: int, upto: int | None, matching: Filter | None) -> AsyncIterator[Entry]:
    """The entries after a position, or after what was trimmed, in order: see ``SharedLog.read_kept``."""
    while True:
        try:
            async for entry in log.read(after, upto=upto, matching=matching):
                yield entry
                after = entry.position
            return
        except LogTrimmed:
            if (gone := await log.begins() - 1) <= after:
                raise
            after = gone


async def folded(log: SharedLog) -> Folded:
    """The whole log; of a trimmed one, what follows its first checkpoint; of one that is damaged before its last
    checkpoint, what follows that."""
    await log.open()
    told = Folded(state=machine.initial(log.log_id, keep=True))
    try:
        async for entry in log.read():
            told.apply(entry)
    except (LogTrimmed, LogCorrupt) as error:
        state, checkpoint = await (earliest(log) if isinstance(error, LogTrimmed) else latest(log, error))
        state.keep = True
        told = Folded(state=state)
        if isinstance(error, LogCorrupt):
            log.passed_over = f"{error}; what is told begins at the checkpoint of position {checkpoint.upto}"
        async for later in log.read(end_of(record_of(checkpoint.upto))):
            told.apply(later)
    return told


async def history(
    log: SharedLog, of: Callable[[str], bool] | None = None, *, status: str = "", latest: int | None = None
) -> list[LogEntry]:
    """Every action (of some agents, in one status; the latest ones), oldest first, with what became of it."""
    told = await folded(log)
    chosen = [
        action
        for _, action in sorted(told.state.actions.items())
        if (of is None or of(action.intent.agent)) and (not status or action.status == status)
    ]
    if latest is not None:
        chosen = chosen[-latest:] if latest > 0 else []
    return [await _whole(log, told, action) for action in chosen]


async def last_executed(log: SharedLog, agent_id: str) -> LogEntry | None:
    """The agent's action whose execution ended last; None if it has executed nothing."""
    told = await folded(log)
    done = [
        action
        for action in told.state.actions.values()
        if action.intent.agent == agent_id and action.status == "executed"
    ]
    return await _whole(log, told, max(done, key=lambda action: action.settled_at)) if done else None


async def value_of(log: SharedLog, result: Result) -> Any:
    """A result's value, wherever it is."""
    return msgspec.json.decode(await log.get_blob(result.blob.digest)) if result.blob is not None else result.value


async def _whole(log: SharedLog, told: Folded, action: Action) -> LogEntry:
    """The view of an action, with what was too large for the entries themselves."""
    intent = action.intent
    if intent.arguments_blob is not None:
        arguments = msgspec.json.decode(await log.get_blob(intent.arguments_blob.digest), type=dict[str, Any])
        action = msgspec.structs.replace(action, intent=msgspec.structs.replace(intent, arguments=arguments))
    result = told.results.get(action.id)
    return msgspec.structs.replace(
        view(told.state, action), result=await value_of(log, result) if result is not None else None
    )
