"""How a run ends that reached a limit: what is open of it is taken back, and a last answer says why it stopped.

It owns the time that a run whose own time is over waits for what it interrupted. It talks to no model.
"""

from __future__ import annotations

from collections.abc import Callable

from logact.core import driving
from logact.core.settling import ANSWER
from logact.core.state import Action, RunState
from logact.core.views import named
from logact.entry import Cancel
from logact.logs.base import where
from logact.runtime.host import Host

LET_GO_S = 5.0
"""How long a run whose time is over waits for news of what it interrupted, before it ends without it."""


class Ending:
    """The end of runs whose time is over, as one driver sees it."""

    def __init__(self, host: Host, name: str, doubts: Callable[[], str]) -> None:
        self.host = host
        self.name = name
        self.doubts = doubts
        self._open: tuple[object, ...] = ()  # the run whose time is over, and what is open of it
        self._since = 0.0  # when that was seen first

    def lets_go(self, run: RunState) -> bool:
        """Whether what the run interrupted is not waited for: only a person can settle it, or it hangs."""
        if not driving.overdue(run, self.host.env.wall_ms()):
            return False
        now = self.host.env.monotonic()
        state = self.host.state
        left = [one for one in map(state.actions.__getitem__, state.open_actions) if _open(one, run)]
        seen = (run.id, *((one.id, one.status) for one in left))
        if self._open != seen:
            self._open, self._since = seen, now
        return bool(self.doubts()) or now - self._since >= LET_GO_S

    def left_s(self, run: RunState) -> float | None:
        """How long until the run's time is over, or what it interrupted is let go; None if neither comes."""
        left_s = driving.seconds_left(run, self.host.env.wall_ms())
        if left_s == 0.0 and self._open[:1] == (run.id,):
            left_s = self._since + LET_GO_S - self.host.env.monotonic()
            return left_s + 0.01 if left_s > 0 else None
        return None if left_s is None else left_s + 0.01

    async def cut(self, run: RunState, reason: str) -> None:
        """Take back what has not started, and have what runs interrupted. ConditionFailed if some of it ended."""
        await self.host.flush()
        found = [self.host.state.actions[key] for key in driving.to_cut(self.host.state, run)]
        if found:
            taken = [(one.intent, Cancel(intent=one.id, reason=reason)) for one in found]
            ended = where(
                kinds=["Result", "Recovery", "Undone", "Expiry", "Abort"], actions=[one.id for one in found]
            )
            entries = [self.host.about(intent, one, "driver", self.name) for intent, one in taken]
            await self.host.append(entries, unless=ended)

    def words(self, run: RunState, reason: str) -> str:
        """Why the run stopped, and what is open of it."""
        state = self.host.state
        left: list[Action] = [state.actions[key] for key in state.open_actions]
        told = [f"action {one.id} ({named(one.intent)})" for one in left if _open(one, run)]
        return f"{reason}; what became of {', '.join(told)} is not known" if told else reason


def _open(action: Action, run: RunState) -> bool:
    return action.intent.run == run.id and action.intent.tool != ANSWER
