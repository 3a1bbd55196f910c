"""Writes checkpoints, so that a restart reads what came after the last one and not the whole log.

A checkpoint is an entry that names three kinds of blobs: the folded state (open actions whole), each voter's
memory, and what introspection counts. It holds the digest of everything before it, and readers check it against the
state's own.
"""

from __future__ import annotations

from logact import codec
from logact.core.state import State
from logact.entry import BlobRef, Checkpoint
from logact.errors import LogActError
from logact.introspection.profiler import Profiler
from logact.runtime.host import Host
from logact.runtime.tail import dump_state
from logact.runtime.voter_host import VoterHost


class Checkpointer:
    """Writes one checkpoint every so many entries. ``every=0`` never does. Made before the tail starts, it counts all
    that introspection asks for; made later, what comes from then on.
    """

    def __init__(
        self,
        host: Host,
        *,
        every: int,
        voters: VoterHost | None = None,
        name: str = "checkpointer",
    ) -> None:
        self.host = host
        self.every = every
        self.voters = voters
        self.profiler = Profiler(host.tail)
        self.name = name
        self.written = 0
        self._last = 0

    def due(self, state: State) -> bool:
        """Whether enough entries came since the last checkpoint."""
        total = sum(state.counts.values())
        return bool(self.every) and not state.halted and not state.sealed and total - self._since(state) >= self.every

    def _since(self, state: State) -> int:
        return max(self._last, state.counted_at_checkpoint)

    async def run(self) -> None:
        """Write checkpoints until cancelled."""
        while True:
            await self.host.tail.until(self.due)
            try:
                await self.write()
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
        profile, counted = self.profiler.serialised()
        blobs.append((profile.digest, counted))
        payload = Checkpoint(
            upto=state.position,
            chain=state.chain,
            state=BlobRef(digest=blobs[0][0], size=len(data)),
            voters=memories,
            profile=profile,
        )
        self._last = sum(state.counts.values())
        done = await self.host.append([self.host.entry(payload, "checkpointer", self.name)], blobs=blobs)
        self.written += 1
        return done.position
