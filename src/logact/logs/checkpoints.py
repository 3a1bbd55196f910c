"""Checkpoints as readers use them: which entries are some, whether their state fits, where a trimmed log begins.

Nothing is trusted because it calls itself a checkpoint: the state has to be this log's, at that position and chain.
Writing them is ``runtime.checkpointer``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from logact.core.state import State
from logact.entry import BlobRef, Checkpoint, Entry, position_of, record_of
from logact.errors import LogCorrupt, LogError, LogTrimmed
from logact.logs.contract import where
from logact.logs.verify import first_kept

if TYPE_CHECKING:
    from logact.logs.base import SharedLog

_decode = msgspec.json.Decoder(State).decode


def checkpoint_in(entry: Entry) -> Checkpoint | None:
    """What an entry says as a checkpoint, if it may be one."""
    payload = entry.payload
    if not isinstance(payload, Checkpoint) or entry.author.role != "checkpointer" or entry.forged:
        return None
    return payload if payload.upto < entry.position else None  # it cannot know what comes after it


async def checked_state(log: SharedLog, checkpoint: Checkpoint) -> State | None:
    """The state in a checkpoint; None if it is not this log's, or another one. LogError if it cannot be read."""
    state = await load_state(log, checkpoint.state)
    fits = (state.log, state.chain, state.position) == (log.log_id, checkpoint.chain, checkpoint.upto)
    return state if fits else None


async def load_state(log: SharedLog, ref: BlobRef) -> State:
    """The state in a checkpoint's blob. LogCorrupt if it is damaged."""
    data = await log.get_blob(ref.digest)
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise LogCorrupt("A checkpoint's state cannot be read", received=str(error)) from error


async def kept_checkpoints(log: SharedLog) -> list[Checkpoint]:
    """The checkpoints that are kept and behind which all can still be read, oldest first; their states unchecked."""
    await log.open()
    kept = await first_kept(log)
    found = [checkpoint_in(entry) async for entry in log.read_kept(matching=where(kinds=["Checkpoint"]))]
    return [one for one in found if one is not None and record_of(one.upto) >= kept]


async def earliest(log: SharedLog) -> tuple[State, Checkpoint]:
    """Where the fold of a trimmed log begins: at the first usable checkpoint. Raises LogTrimmed without one."""
    for checkpoint in await kept_checkpoints(log):
        try:
            state = await checked_state(log, checkpoint)
        except LogError:
            continue  # a damaged one: a later one does as well
        if state is not None:
            return state, checkpoint
    raise LogTrimmed(
        "What stood before was trimmed, and no checkpoint that can be read was kept",
        received=f"a log that begins at position {await log.begins()}",
        expected="a checkpoint behind which everything is kept",
        todo="ask the archive that the trim made; `logact log export` gives the entries as they stand",
    )


async def latest(log: SharedLog, problem: LogCorrupt) -> tuple[State, Checkpoint]:
    """The last checkpoint, behind which a damaged log can be read. Raises the problem if it cannot be used."""
    record = await log.engine.last_checkpoint()
    records, _ = await log.read_records(position_of(record - 1), limit=1) if record else ([], 0)
    for checkpoint in [checkpoint_in(entry) for batch in records for entry in batch]:
        try:
            state = await checked_state(log, checkpoint) if checkpoint is not None else None
        except LogError:
            raise problem from None  # that is what was asked about
        if checkpoint is not None and state is not None:
            return state, checkpoint
    raise problem
