"""Writes checkpoints, so that a restart reads what came after the last one and not the whole log.

A checkpoint is an entry that names three kinds of blobs: the folded state (open actions whole), each voter's
memory, and what introspection counts. It holds the digest of everything before it, and readers check it against the
state's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from logact import codec
from logact.core.state import State
from logact.entry import BlobRef, Checkpoint, Entry
from logact.errors import AccessRefused, LogActError
from logact.introspection.profiler import Profiler
from logact.logs.base import SharedLog
from logact.runtime.host import Host
from logact.runtime.tail import dump_state
from logact.runtime.voter_host import VoterHost
from logact.voters.base import Voter

AFTER = 2000
"""So many entries are read in well under a second; more are worth a bookmark."""


class Checkpointer:
    """Writes a checkpoint after so many entries, or so many bytes of them, or so many seconds with any.

    Each of the three may be 0 (not by this measure); with all three 0 none is written. Bytes and time count from the
    last checkpoint that this process has seen, or its own beginning, so entries are the measure that always holds. A
    checkpoint itself counts as nothing new.
    Made before the tail starts, it counts all that introspection asks for; made later, what comes from then on. With
    ``whole`` it reads from the beginning where the last checkpoint holds nothing that introspection counted.
    """

    def __init__(
        self,
        host: Host,
        *,
        every: int,
        bytes_max: int = 0,
        seconds_max: float = 0,
        voters: VoterHost | None = None,
        name: str = "checkpointer",
        whole: bool = False,
    ) -> None:
        self.host = host
        self.every = every
        self.bytes_max = bytes_max
        self.seconds_max = seconds_max
        self.voters = voters
        Profiler.beside(host.tail, whole=whole)
        self.name = name
        self.written = 0
        self._last = 0
        self._bytes = host.tail.bytes_applied  # of entries, when the last checkpoint was seen
        self._began = host.env.monotonic()
        host.tail.observe(self._observe, ["Checkpoint"])

    def _observe(self, state: State, entry: Entry) -> None:
        if not state.verdict:
            self._bytes, self._began = self.host.tail.bytes_applied, self.host.env.monotonic()

    def due(self, state: State) -> bool:
        """Whether enough came since the last checkpoint."""
        if state.halted or state.sealed:
            return False
        if self.bytes_max and self.host.tail.bytes_applied - self._bytes >= self.bytes_max:
            return True
        if not self.every and not self.seconds_max:
            return False
        new = _told(state) - self._since(state)
        if self.every and new >= self.every:
            return True
        return bool(self.seconds_max) and new > 0 and self._left_s() <= 0

    def _left_s(self) -> float:
        return self._began + self.seconds_max - self.host.env.monotonic()

    def _since(self, state: State) -> int:
        # the fold counted every entry before its last checkpoint, the checkpoints before that one included
        return max(self._last, state.counted_at_checkpoint - max(0, state.counts.get("Checkpoint", 0) - 1))

    async def run(self) -> None:
        """Write checkpoints until cancelled."""
        # of agents that share a fold, one writes them for all, for as long as it lives
        async with self.host.tail.turn(f"checkpoint:{self.every}:{self.bytes_max}:{self.seconds_max}"):
            while True:
                until_s = max(self._left_s(), 1.0) if self.seconds_max else None
                if not await self.host.tail.until(self.due, until_s):
                    continue  # time alone is no entry: look again
                try:
                    await self.write()
                except AccessRefused:
                    raise
                except LogActError:
                    await self.host.env.sleep(5.0)

    async def write(self) -> int:
        """Write a checkpoint of the fold as it is now; its position."""
        state = self.host.state
        data = dump_state(state)
        blobs = [(codec.digest(data), data)]
        memories: dict[str, BlobRef] = {}
        for voter, (ref, memory) in (self.voters.serialised() if self.voters is not None else {}).items():
            memories[voter] = ref
            blobs.append((ref.digest, memory))
        profile, counted = Profiler.of(self.host.tail).serialised()
        blobs.append((profile.digest, counted))
        payload = Checkpoint(
            upto=state.position,
            chain=state.chain,
            state=BlobRef(digest=blobs[0][0], size=len(data)),
            voters=memories,
            profile=profile,
        )
        self._last = _told(state)
        self._bytes, self._began = self.host.tail.bytes_applied, self.host.env.monotonic()
        done = await self.host.append([self.host.entry(payload, "checkpointer", self.name)], blobs=blobs)
        self.written += 1
        return done.position


def _told(state: State) -> int:
    """How many entries took effect that say something new: a checkpoint does not, or it would cause the next."""
    return sum(state.counts.values()) - state.counts.get("Checkpoint", 0)


async def bookmark(log: SharedLog, *, agent: str = "", voters: Sequence[Voter] = (), after: int = AFTER) -> int:
    """Write a checkpoint if reading the log meant reading ``after`` entries or more; its position, or 0.

    ``voters`` are the agent's, whose memories it carries: without them their processes read past it. Raises what
    reading and writing the log raises.
    """
    host = Host(log, agent)
    checkpointer = Checkpointer(
        host, every=after, voters=VoterHost(host, voters) if voters else None, name="bookmark", whole=True
    )
    try:
        state = await host.tail.start()
        if host.tail.entries_applied < after or state.halted or state.sealed or state.broken:
            return 0
        return await checkpointer.write()
    finally:
        host.leaves()
