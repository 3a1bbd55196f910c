"""Keeps a profile beside a tail's fold, carries it in checkpoints, and reads a log's profile back.

With checkpoints that carry it, reading the profile of a log of any length costs what came after the last one.
"""

from __future__ import annotations

import msgspec

from logact import codec
from logact.core.state import State
from logact.entry import BlobRef, Checkpoint, Entry
from logact.errors import LogError, LogTrimmed, UsageError
from logact.introspection import profiling
from logact.introspection.profile import Profile
from logact.logs.base import SharedLog
from logact.runtime.tail import Tail

NAMED_MAX = 20
"""So many agents or runs are named to whoever asked for one that is not there."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Profile).decode


class Profiler:
    """The profile of a tail's log. With ``whole`` a checkpoint without a profile is not used at all; else counting
    begins there, and ``profile.since`` says so. Tails that share a fold have one (``of``).
    """

    NAME = "profile"

    def __init__(self, log: SharedLog, *, begun: int = 0, whole: bool = False) -> None:
        self.profile = Profile(position=begun, since=begun)
        self.log = log
        self.whole = whole

    @classmethod
    def beside(cls, tail: Tail, *, whole: bool = False) -> None:
        """Have the profile counted along with a tail's fold, from where that is."""
        tail.beside(cls.NAME, cls(tail.log, begun=tail.state.position, whole=whole))

    @classmethod
    def of(cls, tail: Tail) -> Profiler:
        """The one that counts along with a tail's fold."""
        found: Profiler = tail.counted(cls.NAME)
        return found

    def observe(self, state: State, entry: Entry) -> None:
        """Count one more entry."""
        profiling.observe(self.profile, state, entry)

    async def restore(self, checkpoint: Checkpoint | None) -> bool:
        """Go on from what a checkpoint carries."""
        if checkpoint is None:
            self.profile = Profile()
            return True
        if checkpoint.profile is not None:
            try:
                self.profile = _decode(await self.log.get_blob(checkpoint.profile.digest))
                if self.profile.position == checkpoint.upto:
                    return True
            except (LogError, msgspec.DecodeError):
                pass  # damaged: it costs time, or what came before it, never correctness
        self.profile = Profile(position=checkpoint.upto, since=checkpoint.upto)
        return not self.whole

    def serialised(self) -> tuple[BlobRef, bytes]:
        """The profile's bytes, and the reference to them for a checkpoint."""
        data = _encode(self.profile)
        return BlobRef(digest=codec.digest(data), size=len(data)), data


class Folded(msgspec.Struct, frozen=True):
    """A log's state and profile, and how many entries had to be read for them."""

    state: State
    profile: Profile
    read: int


async def folded(log: SharedLog) -> Folded:
    """The state and the profile of a log as it is now, from the last checkpoint that carries both, or from the
    beginning; of a trimmed log whose checkpoints carry none, from where it begins. Raises what reading raises.
    """
    tail = Tail(log)
    Profiler.beside(tail, whole=True)
    try:
        await tail.start()
    except LogTrimmed:
        tail = Tail(log)
        Profiler.beside(tail)
        await tail.start()
    return Folded(tail.state, Profiler.of(tail).profile, tail.entries_applied)


def check_named(known: Folded, agent: str = "", run: int = 0) -> None:
    """Raise UsageError for an agent or a run that a log knows nothing of: a misspelt name is not a healthy agent."""
    state, profile = known.state, known.profile
    runs = state.runs.keys() | profile.runs.keys()
    agents = {one.agent for one in state.runs.values()} | {one.agent for one in profile.runs.values()}
    agents |= {one.agent for one in state.policies.values()}
    agents |= state.agents.keys() | profile.older.keys() | profile.offered.keys()
    agents -= {"", "*"}
    since = f"; what stood before position {profile.since} is not known" if profile.since else ""
    if agent and agent not in agents:
        raise UsageError(
            "The log knows no such agent",
            received=f"{agent!r}{since}",
            expected=", ".join(sorted(agents)[:NAMED_MAX]) or "the log has none yet",
            todo="check the name; `logact cost LOG` lists all",
        )
    if run and run not in runs:
        raise UsageError(
            "The log knows no such run",
            received=f"{run}{since}",
            expected=", ".join(map(str, sorted(runs)[-NAMED_MAX:])) or "the log has none yet",
            todo="see the runs with `logact actions LOG`",
        )
