"""Turns votes into commits and aborts, and passed deadlines into expiries. Any number may run.

What it appends is conditional on nobody having decided meanwhile; if two race, the log's first counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from logact.core import deciding
from logact.core.state import Action, State
from logact.entry import Payload
from logact.errors import AccessRefused, ConditionFailed, LogActError
from logact.logs.base import where
from logact.runtime.host import Host
from logact.runtime.tail import alone

DECISIONS = ("Commit", "Abort", "Expiry", "Cancel")


class Decider:
    """Decides what is proposed on a log (by all agents, or some)."""

    def __init__(self, host: Host, *, agents: Iterable[str] | None = None, name: str = "decider") -> None:
        self.host = host
        self.name = name
        self.agents = frozenset(agents) if agents is not None else None

    def due(self, state: State) -> bool:
        """Whether anything can be decided now."""
        return bool(self._next(state))

    def _next(self, state: State) -> tuple[Action, Payload] | None:
        if state.halted or state.broken:
            return None
        now_ms = self.host.env.wall_ms()
        for expiry in deciding.overdue(state, now_ms):
            action = state.actions[expiry.intent]
            if self._mine(action):
                return action, expiry
        for action in state.undecided():
            if self._mine(action):
                decision = deciding.decide(state, action, now_ms)
                if decision is not None:
                    return action, decision
        return None

    def _mine(self, action: Action) -> bool:
        return self.agents is None or action.intent.agent in self.agents

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            deadline_ms = self._deadline_ms(self.host.state)
            wait_s = None
            if deadline_ms:
                wait_s = max(0.0, (deadline_ms - self.host.env.wall_ms()) / 1000) + 0.001
            await self.host.tail.until(self._changed(deadline_ms), wait_s, about=alone(self.agents))
            try:
                await self.settle()
            except AccessRefused:
                raise
            except LogActError:
                await self.host.env.sleep(0.1 + 0.1 * self.host.env.random())

    def _changed(self, deadline_ms: int) -> Callable[[State], bool]:
        """Something can be decided, or there is an earlier deadline to watch."""
        return lambda state: self.due(state) or self._deadline_ms(state) != deadline_ms

    def _deadline_ms(self, state: State) -> int:
        """The earliest deadline that is this decider's to watch (0: none); another's would never go away."""
        if state.halted or state.broken:
            return 0
        mine = (state.actions[key] for key in state.open_actions if self._mine(state.actions[key]))
        times = [
            action.intent.deadline_ms if action.status == "proposed" else action.start_by_ms
            for action in mine
            if action.status in ("proposed", "validated")
        ]
        return min((time for time in times if time), default=0)

    async def settle(self) -> None:
        """Append every decision and expiry that is due now."""
        while True:
            found = self._next(self.host.state)
            if found is None:
                return
            action, decision = found
            intent = action.intent
            entry = self.host.about(intent, decision, "decider", self.name)
            kinds = [*DECISIONS, "Started"] if action.status == "validated" else [*DECISIONS]
            try:
                await self.host.append([entry], unless=where(kinds=kinds, actions=[action.id]))
            except ConditionFailed:
                continue
