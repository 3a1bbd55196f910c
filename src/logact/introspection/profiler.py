"""Keeps a profile beside a tail's fold, carries it in checkpoints, and reads a log's profile back.

With checkpoints that carry it, reading the profile of a log of any length costs what came after the last one.
"""

from __future__ import annotations

import msgspec

from logact import codec
from logact.core.state import State
from logact.entry import BlobRef, Checkpoint, Entry
from logact.errors import LogError
from logact.introspection import profiling
from logact.introspection.profile import Profile
from logact.logs.base import SharedLog
from logact.runtime.tail import Tail

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
    from logact.errors import LogTrimmed

    tail = Tail(log)
    Profiler.beside(tail, whole=True)
    try:
        await tail.start()
    except LogTrimmed:
        tail = Tail(log)
        Profiler.beside(tail)
        await tail.start()
    return Folded(tail.state, Profiler.of(tail).profile, tail.entries_applied)
