"""Says whether a log is a fork that was not completed: one whose copy was interrupted must never be used.

Reads only. Agents and parts know it from their fold (``core/forking.py``); this is for who opens a log without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from logact import codec
from logact.entry import Fork
from logact.errors import LogCorrupt, LogTrimmed

if TYPE_CHECKING:
    from logact.logs.base import SharedLog


def half_fork(what: str) -> LogCorrupt:
    """The error about such a log."""
    return LogCorrupt(
        "This log cannot be used",
        received=what,
        expected="a fork that was copied to its end",
        todo="delete it, and fork again",
    )


async def refuse_half_fork(log: SharedLog) -> None:
    """Raise LogCorrupt if a log is such a fork. What cannot be read is for whoever needs it."""
    from logact.logs.base import where

    try:
        page = await log.engine.read(0, 1)
        begun = [one for stored in page.records for one in codec.decode_record(stored.body, stored.record)]
        mine = [one.payload for one in begun if isinstance(one.payload, Fork) and one.payload.fork == log.log_id]
        if not mine:
            return
        async for entry in log.read(matching=where(kinds=["Fork"])):
            said = entry.payload
            if isinstance(said, Fork) and said.step == "done" and said.fork == log.log_id:
                return
    except (LogCorrupt, LogTrimmed):
        return  # damage is no fork, and what was trimmed was complete
    raise half_fork(f"a fork of {mine[0].parent} at {mine[0].at} that was not completed")
