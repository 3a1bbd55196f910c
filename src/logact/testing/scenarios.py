"""A stage for scenarios: the simulated world, with what happens in it directed by hand.

Hooks on named points (``stage.world.hooks[process, point]``) put something between two steps of the real code.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from logact.agent import LogActAgent
from logact.core.leasing import LEASE_S
from logact.core.state import Action, State
from logact.entry import Entry, NewEntry, Payload, Role
from logact.logs.base import SharedLog
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, ScriptedModel
from logact.runtime.entering import policy_for
from logact.testing.forging import append_raw
from logact.testing.loop import PROCESS
from logact.testing.plan import Plan
from logact.testing.programs import AGENT, DECIDE_WITHIN_MS, START_WITHIN_MS, Play
from logact.testing.systems import Simulation
from logact.testing.town import tools
from logact.testing.world import Process, Program
from logact.voters.base import Voter

STEP_S = 0.01
WAIT_S_MAX = 300.0


class Stage(Simulation):
    """A simulation whose processes and moments a test chooses. Records and effects are checked as always."""

    def __init__(self, plan: Plan | None = None, *, lease_s: float = LEASE_S) -> None:
        super().__init__(plan or Plan(schedule=5))
        self.heard: list[str] = []
        self.lease_s = lease_s
        self.asked_by: Counter[tuple[str, int]] = Counter()  # by process and turn: how often it asked the model
        self.thinks_s: dict[tuple[str, int], float] = {}  # how long an answer takes
        self.sleeps_s: dict[tuple[str, int], float] = {}  # for how long who asks is stopped meanwhile, once

    @property
    def state(self) -> State:
        """The fold of what is durable."""
        return self.checker.state

    @property
    def effects(self) -> list[str]:
        """The items of the ledger, in order."""
        return [effect.item for effect in self.town.ledger]

    def entries(self, *kinds: str, effective: bool | None = None) -> list[Entry]:
        """The log's entries of these kinds; only those that took effect, or only those that did not, if asked."""
        return [
            entry
            for entry in self.checker.entries
            if entry.kind in kinds
            and (effective is None or effective == (not self.checker.verdicts.get(entry.position)))
        ]

    def action(self, item: str) -> Action:
        """The last action about an item."""
        return [action for action in self.state.actions.values() if self.checker.item(action) == item][-1]

    def has(self, item: str, *statuses: str) -> bool:
        """Whether there is an action about this item in one of these statuses."""
        found = [action for action in self.state.actions.values() if self.checker.item(action) == item]
        return any(action.status in statuses for action in found)

    # --- who plays ------------------------------

    def cast(
        self,
        process: Process,
        turns: Sequence[Reply],
        *,
        name: str = AGENT,
        voters: Sequence[Voter] | None = None,
        takeover: bool = False,
    ) -> LogActAgent:
        """The agent as a process sets it up, with a script of its own."""
        mine = list(voters) if voters is not None else self.town.voters()
        policy = policy_for(mine, name)
        if policy is not None:
            policy = msgspec.structs.replace(
                policy, decide_within_ms=DECIDE_WITHIN_MS, start_within_ms=START_WITHIN_MS
            )
        return LogActAgent(
            name,
            log=SharedLog(self.log.port(process)),
            model=_counted(self, name, turns),
            voters=mine,
            policy=policy,
            tools=tools(),
            takeover=takeover,
            checkpoint_every=0,
            lease_s=self.lease_s,
        )

    def inline(self, turns: Sequence[Reply], task: str = "task", **more: Any) -> Program:
        """A process that runs the task inline."""

        async def program(process: Process) -> None:
            agent = self.cast(process, turns, **more)
            agent.observe(self.checker.watch(process))
            await agent.run(task, key=f"{task} {agent.agent_id}")
            self.done[process.name] += 1

        return program

    def part(self, play: Play, turns: Sequence[Reply] = (), **more: Any) -> Program:
        """A process that plays one part."""

        async def program(process: Process) -> None:
            agent = self.cast(process, turns)
            await play(agent.log, agent, observers=[self.checker.watch(process)], **more)

        return program

    def write(self, payload: Payload, role: Role, name: str = "person") -> int:
        """An entry by somebody outside, durable at once; its position."""
        return 1000 * append_raw(self.checker, self.log, NewEntry(payload=payload, role=role, name=name))

    # --- time ------------------------------

    async def until(self, ready: Callable[[], object], seconds: float = WAIT_S_MAX) -> None:
        """Wait until something holds of the world. AssertionError if it never does."""
        end = self.world.loop.time() + seconds
        while not ready():
            self.raise_what_failed()
            if self.world.loop.time() > end:
                raise AssertionError("it never came to that:\n" + "\n".join(self.lines()[-15:]))
            await asyncio.sleep(STEP_S)

    async def pass_time(self, seconds: float) -> None:
        """Let time go by; a check that fails meanwhile is raised."""
        await asyncio.sleep(seconds)
        self.raise_what_failed()

    def play(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the scenario; raises what fails."""
        self.world.run(main())
        self.raise_what_failed()


def _counted(stage: Stage, name: str, turns: Sequence[Reply]) -> ScriptedModel:
    """A scripted model; ``stage.town.asked`` counts how often it was asked for each turn."""

    def reply(turn: int) -> Callable[[Any], Awaitable[Reply]]:
        async def answer(request: ModelRequest) -> Reply:
            process = PROCESS.get()
            here = process.name if process is not None else ""
            stage.town.asked[name, turn] += 1
            stage.asked_by[here, turn] += 1
            if (here, turn) in stage.sleeps_s:
                stage.world.freeze(here, stage.sleeps_s.pop((here, turn)))
            if stage.thinks_s.get((here, turn)):
                await asyncio.sleep(stage.thinks_s[here, turn])
            stage.heard = [message.text for message in request.messages if message.role == "tool"]
            return turns[turn]

        return answer

    return ScriptedModel([reply(turn) for turn in range(len(turns))])
