"""Leases: signs of life of those who work, and how long others were silent, by a clock that never jumps.

Every entry of an incarnation renews its lease, so a short action costs nothing: a heartbeat is written only by who
works and wrote nothing for a third of the lease. Nobody's wall clock counts: whoever watches measures the silence.
"""

from __future__ import annotations

from collections.abc import Callable

from logact.core.acting import HUNG
from logact.core.leasing import RENEWALS
from logact.core.state import Incarnation, State
from logact.entry import Finding, Heartbeat, NewEntry
from logact.errors import LogError
from logact.logs.base import Clause, Filter
from logact.runtime.host import Host

SIGNS = ("Heartbeat", "Inference", "Compaction", "Intent", "Vote", "Commit", "Abort", "Started", "Result", "Undone")
"""What shows that somebody of an agent is at work."""

HEARD_KEPT = 4000


class Pulse:
    """Renews the lease of this incarnation while ``busy`` says that it works."""

    def __init__(self, host: Host, busy: Callable[[], object] = lambda: False) -> None:
        self.host = host
        self.busy = busy
        self.beats = 0

    async def run(self) -> None:
        """Beat until cancelled. A beat that fails is no loss: the next one comes, or the lease ends rightly."""
        host = self.host
        every_s = host.lease_ms / 1000 / RENEWALS
        if not every_s:
            return
        while True:
            quiet_s = host.env.monotonic() - host.wrote_at
            await host.env.sleep(max(every_s - quiet_s, every_s / 4) if self.working() else every_s)
            if self.working() and host.env.monotonic() - host.wrote_at >= every_s:
                try:
                    await host.append([host.entry(Heartbeat(agent=host.agent), "executor", host.agent)])
                    self.beats += 1
                except LogError:
                    continue

    def working(self) -> bool:
        """Whether this incarnation is at work on anything."""
        return bool(self.host.working or self.busy())


class Hearing:
    """How long each incarnation was silent, as far as this process has read the log."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._heard: dict[str, tuple[int, float]] = {}

    def silent_s(self, incarnation: str) -> float:
        """Seconds since its last entry came to be known here; 0.0 the first time it is asked for."""
        life = self.host.state.incarnations.get(incarnation)
        last, now = life.last if life is not None else 0, self.host.env.monotonic()
        known = self._heard.get(incarnation)
        if known is None or known[0] != last:
            if len(self._heard) > HEARD_KEPT:
                self._heard = {key: at for key, at in self._heard.items() if key in self.host.state.incarnations}
            self._heard[incarnation] = (last, now)
            return 0.0
        return now - known[1]


def hung(state: State, incarnation: str, agent: str, *, run: int = 0, cites: tuple[int, ...] = ()) -> Finding:
    """The finding that an incarnation let its lease run out."""
    life = state.incarnations.get(incarnation)
    message = f"{who(life)} (incarnation {incarnation}) gives no sign of life: its lease ran out"
    return Finding(code=HUNG, message=message, cites=cites, agent=agent, run=run, key=incarnation, holder=incarnation)


async def fence_off(host: Host, role: NewEntry, agent: str) -> bool:
    """Write down that an incarnation hangs, unless a sign of life of its agent comes in between.

    Raises ConditionFailed if one came, so that whoever asked looks again. True if it is fenced off now.
    """
    signs = Filter((Clause(kinds=SIGNS, agents=(agent,)),))
    await host.append([role], unless=signs, after=host.state.position)
    payload = role.payload
    return isinstance(payload, Finding) and payload.holder in host.state.fenced


def who(life: Incarnation | None) -> str:
    """Which process an incarnation was, in words."""
    if life is None or life.birth is None:
        return "a process that nobody knows"
    part = f"{life.birth.part}, " if life.birth.part else ""
    return f"{part}process {life.birth.pid} on {life.birth.host.split('/')[0]}"
