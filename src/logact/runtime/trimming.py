"""``trim``: drops what stands before a checkpoint. Nothing undecided, in doubt or still needed is lost.

The checkpoint carries open actions whole, so one approval that waits for months holds nothing back. What a running
run's model still sees is read from the log, so that stays; so does a swarm's task, from its plan on, until it ends.
A log that does not verify is not trimmed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from logact.entry import Checkpoint, Trim, end_of, position_of, record_of
from logact.errors import LogActError, LogCorrupt, UsageError
from logact.logs.base import SharedLog, where
from logact.logs.checkpoints import checked_state, checkpoint_in
from logact.logs.url import open_log
from logact.logs.verify import verify
from logact.runtime.tail import Tail

CHECKPOINTS_KEPT = 2
"""A damaged checkpoint falls back to the one before, so two stay readable."""


class Trimmed(msgspec.Struct, frozen=True, kw_only=True):
    """What a trim came to: records before ``before`` are gone (0: none were). ``held_by`` says what keeps others."""

    before: int = 0
    records: int = 0
    archive: str = ""
    held_by: tuple[str, ...] = ()


async def trim(log: SharedLog, *, archive: Path | None = None, before: int = 0, name: str = "operator") -> Trimmed:
    """Drop what stands before the last checkpoint but one (and before ``before``, if given).

    With ``archive``, the whole log is copied there and verified first. Raises UsageError (an archive that exists, an
    engine without backups), LogCorrupt (the log or its archive does not verify).
    """
    report = await verify(log)
    if not report.sound:
        raise LogCorrupt(
            "A damaged log is not trimmed",
            received=f"position {report.problems[0].position}: {report.problems[0].what}",
            todo="`logact log verify` shows all; `logact log repair` makes a sound copy",
        )
    usable = await _usable(log, record_of(report.first))
    if len(usable) < CHECKPOINTS_KEPT:
        return Trimmed(held_by=(f"{len(usable)} usable checkpoints; {CHECKPOINTS_KEPT} have to stay",))
    payload = usable[-CHECKPOINTS_KEPT]
    upto = record_of(payload.upto) + 1
    held = []
    state = await Tail(log).start()  # as it stands now: the checkpoint may know runs running still
    plans = {position for key, position in state.keys.items() if key.startswith("swarm:")}
    for run in state.runs.values():
        needed = [run.id, *run.context, *run.inbox, run.inference or run.id]
        shared = run.id in plans or bool(run.held or run.done or run.lives)
        if run.status == "running" and (run.context or shared) and record_of(min(needed)) < upto:
            what = "its agents read its plan from" if shared else "its model sees"
            held.append(f"run {run.id} still runs, and {what} position {min(needed)}")
            upto = record_of(min(needed))
    if before and record_of(before) < upto:
        upto = record_of(before)
    first = record_of(report.first)
    if upto <= first:
        return Trimmed(held_by=tuple(held))
    if archive is not None:
        await _archive(log, archive, report.last)
    done = Trim(before=position_of(upto), archive=str(archive or ""))
    await log.append(done, role="operator", name=name)
    await log.trim(position_of(upto))
    return Trimmed(before=position_of(upto), records=upto - first, archive=str(archive or ""), held_by=tuple(held))


async def _usable(log: SharedLog, first: int) -> list[Checkpoint]:
    """The checkpoints whose state can be read and fits, oldest first; the last few are enough."""
    entries = [entry async for entry in log.read(end_of(first - 1), matching=where(kinds=["Checkpoint"]))]
    found: list[Checkpoint] = []
    for checkpoint in map(checkpoint_in, reversed(entries)):
        try:
            if checkpoint is None or await checked_state(log, checkpoint) is None:
                continue
            for ref in checkpoint.voters.values():
                await log.get_blob(ref.digest)
        except LogActError:
            continue
        found.append(checkpoint)
        if len(found) == CHECKPOINTS_KEPT:
            break
    return found[::-1]


async def _archive(log: SharedLog, archive: Path, last: int) -> None:
    copy = getattr(log.engine, "backup", None)
    if copy is None:
        raise UsageError(
            "This engine has no backup of its own", received=log.engine.info().engine, todo="archive it yourself"
        )
    await copy(archive)
    name = log.url.partition("?")[2]
    async with open_log(f"sqlite:///{Path.cwd() / archive}" + (f"?{name}" if name else "")) as kept:
        report = await verify(kept)
        if not report.sound or report.last < last:
            raise LogCorrupt("The archive does not verify; nothing was trimmed", received=str(archive))
