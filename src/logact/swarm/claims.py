"""Claims on the sub-tasks of a plan: taken, renewed, completed, given back; and those of the dead ended.

What a claim means, the fold decides (``core/claiming.py``). Here one process speaks for the agents that it plays. A
lease is measured by this process's own clock, from when it first saw a claim, so clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from logact.core.claiming import unrepeatable
from logact.core.state import Held, RunState
from logact.entry import Claim, NewEntry, Notice
from logact.runtime.host import Host

LEASE_S = 60.0
"""How long a claim lasts without being renewed, unless told otherwise."""

PATIENCE = 2
"""So many leases pass without a renewal before a claim is ended whose holder is not proven dead."""

LAPSES_AT_ONCE_MAX = 100


class Claims:
    """One process's hand on the tasks of one plan. ``host`` is the incarnation that claims."""

    def __init__(self, host: Host, run: int, *, lease_s: float = LEASE_S) -> None:
        self.host = host
        self.run = run
        self.lease_ms = int(lease_s * 1000)
        self._first_seen: dict[int, float] = {}
        self._told: set[int] = set()

    @property
    def plan(self) -> RunState | None:
        """The plan's run, as this process has it; None once it was let go."""
        return self.host.state.runs.get(self.run)

    def holds(self, task: str, agent: str) -> bool:
        """Whether an agent of this process holds a task."""
        held = self.plan.held.get(task) if self.plan is not None else None
        return held is not None and (held.agent, held.incarnation) == (agent, self.host.incarnation)

    async def take(self, task: str, agent: str) -> bool:
        """Claim a task, or renew its claim. Whether the agent holds it now."""
        await self.host.append([self._entry(Claim(task=task, agent=agent, run=self.run, lease_ms=self.lease_ms))])
        return self.holds(task, agent)

    async def complete(self, task: str, agent: str, result: int, *, before: Sequence[NewEntry] = ()) -> bool:
        """Say that a task is done, by the output at ``result``. False if the claim was lost: then it is not.

        ``before`` goes in front of it in the same record; ``result`` may name one of its entries (``own``).
        """
        done = Claim(task=task, agent=agent, run=self.run, release=True, result=result)
        first = await self.host.append([*before, self._entry(done)])
        plan = self.plan
        named = result if result > 0 else first.position - 1 - result
        return plan is not None and plan.done.get(task) == named

    async def give_back(self, task: str, agent: str, *, why: Notice | None = None) -> None:
        """Release a task without a result; somebody else may take it."""
        released = self._entry(Claim(task=task, agent=agent, run=self.run, release=True))
        said = [self.host.entry(why, "driver", agent, agent=agent, run=self.run)] if why is not None else []
        await self.host.append([*said, released])

    async def end(self, task: str, agent: str) -> bool:
        """End the claim that an earlier life of an agent of this process left, and the work under it.

        False, and nothing is written, while an action of that work must not happen twice and may have happened.
        """
        held = self.plan.held.get(task) if self.plan is not None else None
        if held is None or self.unsettled(agent):
            return held is None
        await self.host.append([self._lapse(task, held, agent)])
        plan = self.plan
        return plan is None or task not in plan.held

    def unsettled(self, agent: str) -> int:
        """An unsettled action of an agent's work that must not happen twice and may have happened (0: none)."""
        return unrepeatable(self.host.state, self.plan, agent) if self.plan is not None else 0

    async def tell(self, task: str, agent: str, action: int) -> None:
        """Say once, for this process, that a task of one of its agents waits for word of an action."""
        if action not in self._told:
            self._told.add(action)
            message = f"action {action} of {agent}'s work on {task} may have happened"
            await self.host.append([self._waits(task, agent, action, message, agent)])

    async def end_the_lost(self, agent: str) -> int:
        """End the claims of the dead, in ``agent``'s name. How many were ended.

        At once where their process is proven gone; else after ``PATIENCE`` leases without a renewal, by this clock.
        A holder whose action must not happen twice, and may have happened, keeps its claim until somebody says what
        became of that action; a notice says so once.
        """
        plan = self.plan
        if plan is None:
            return 0
        now = self.host.env.monotonic()
        there = {held.position for held in plan.held.values()}
        self._first_seen = {at: since for at, since in self._first_seen.items() if at in there}
        entries: list[NewEntry] = []
        for task, held in plan.held.items():
            since = self._first_seen.setdefault(held.position, now)
            if len(entries) >= LAPSES_AT_ONCE_MAX or not self._lost(held, now - since):
                continue
            blocking = unrepeatable(self.host.state, plan, held.agent)
            if blocking:
                entries += self._tell(task, held, blocking, agent)
                continue
            entries.append(self._lapse(task, held, agent))
        if not entries:
            return 0
        before = len(plan.held)
        await self.host.append(entries)
        plan = self.plan
        return before - len(plan.held) if plan is not None else 0

    def _lapse(self, task: str, held: Held, agent: str) -> NewEntry:
        lapse = Claim(task=task, agent=agent, run=self.run, lapses=held.position)
        return self.host.entry(lapse, "recoverer", agent, agent=agent, run=self.run)

    def _lost(self, held: Held, silent_s: float) -> bool:
        if held.incarnation == self.host.incarnation:
            return False
        if self.host.gone(held.incarnation):
            return True
        return held.lease_ms > 0 and silent_s * 1000 > PATIENCE * held.lease_ms

    def _tell(self, task: str, held: Held, action: int, agent: str) -> list[NewEntry]:
        if held.position in self._told:
            return []
        self._told.add(held.position)
        message = f"{held.agent} is gone, and action {action} of its work on {task} may have happened"
        return [self._waits(task, held.agent, action, message, agent)]

    def _waits(self, task: str, whose: str, action: int, message: str, agent: str) -> NewEntry:
        data = {"task": task, "action": action}
        notice = Notice(code="swarm_task_waits", message=message, agent=whose, run=self.run, data=data)
        return self.host.entry(notice, "driver", agent, run=self.run)

    def _entry(self, claim: Claim) -> NewEntry:
        return self.host.entry(claim, "driver", claim.agent, agent=claim.agent, run=self.run)
