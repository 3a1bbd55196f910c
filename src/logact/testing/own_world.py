"""The world in which one's own agent is simulated: its tools write into a ledger, its voters are made to fail.

Its policy, voters and limits are the real ones, in one process or with each part a process of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from logact import codec
from logact.agent import LogActAgent
from logact.core import invariants, voting
from logact.core.invariants import require
from logact.core.settling import ANSWER
from logact.core.state import OPEN, Action
from logact.core.views import LogEntry
from logact.entry import Commit, Entry, Limits, NewEntry, ToolSpec, Vote
from logact.errors import LimitReached, ModelError
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.runtime.host import Host
from logact.spec import SpecFile, build_agent
from logact.spec_parts import voters_of
from logact.testing.checks import Checker
from logact.testing.plan import FOR_EVER_S, Plan
from logact.testing.programs import Programs
from logact.testing.systems import Simulation
from logact.testing.town import Effect, Town
from logact.testing.world import Process, Program, World
from logact.tools import Tool, ToolContext, ToolError
from logact.voters.base import Voter
from logact.voters.human import HumanVoter

FAILS, GOES_DEAD = 0.04, 0.04
"""How often a simulated tool fails for certain, and how often nobody can tell what it did."""

PLANTED = "simulated: the voter is ill"

Results = dict[tuple[str, str], Any]


class Own(msgspec.Struct, kw_only=True):
    """What is simulated. ``results`` are what tools returned in a real log, by tool and digest of arguments."""

    spec: SpecFile
    task: str
    tools: tuple[ToolSpec, ...]
    model: Callable[[], Model]
    results: Results = {}

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.spec.agent.name


class OwnTown(Town):
    """The ledger, with the specification's tools in place of the menu's."""

    def __init__(self, world: World, plan: Plan, mine: Own) -> None:
        super().__init__(world, plan)
        self.mine = mine
        self.ill: set[str] = set()  # voters that were made to fail
        self.digests: dict[tuple[int, int], str] = {}

    def own_tools(self, process: Process) -> list[Tool]:
        """The tools, for one process."""
        return [self._simulated(spec, process) for spec in self.mine.tools]

    def _simulated(self, spec: ToolSpec, process: Process) -> Tool:
        async def act(arguments: dict[str, Any], context: ToolContext) -> Any:
            return await self._acted(spec, process, arguments, context)

        async def probe(context: ToolContext) -> bool:
            process.check_alive()
            await asyncio.sleep(0.001)
            return self.net(self.item(context)) > 0

        async def undo(context: ToolContext) -> str:
            await asyncio.sleep(0.001)
            if self.net(self.item(context)) > 0:
                self.act(process, spec.name, self.item(context), context, -1)
            return "taken back"

        return Tool(
            act,
            name=spec.name,
            description=spec.description,
            effect=spec.effect,
            version=spec.version,
            parameters=spec.parameters,
            timeout_s=spec.timeout_ms / 1000 if spec.timeout_ms else None,
            probe=probe if spec.probe else None,
            undo=undo if spec.undo else None,
            safe_undo=spec.safe_undo,
        )

    def made_to_fail(self, voter: Voter) -> Voter:
        """The voter, which raises, answers nonsense, is slow or silent where the plan says so."""
        check = voter.check

        async def asked(entry: LogEntry) -> Any:
            nth = self.questions[voter.name]
            self.questions[voter.name] += 1
            fault = self.voter_faults.pop((voter.name, nth), "")
            if fault:
                self.world.count(f"voter_{fault}")
                self.ill.add(voter.name)
            if fault == "raise":
                raise RuntimeError(PLANTED)
            if fault == "nonsense":
                return PLANTED
            if fault:
                await asyncio.sleep(FOR_EVER_S if fault == "silent" else min(1.0, voter.timeout_s / 2))
            answer = check(entry)
            return await answer if inspect.isawaitable(answer) else answer

        if not isinstance(voter, HumanVoter):
            voter.check = asked  # type: ignore[method-assign]
        return voter

    def item(self, context: ToolContext) -> str:
        """What the effect is counted under: the first action of a chain of tries."""
        checker = self.checker
        action = checker.state.actions.get(context.action) if checker is not None else None
        return checker.item(action) if checker is not None and action is not None else str(context.action)

    async def _acted(self, spec: ToolSpec, process: Process, arguments: dict[str, Any], context: ToolContext) -> Any:
        digest = codec.digest_of(arguments)
        self.digests[context.action, context.attempt] = digest
        self.inside[context.action] = process.pid
        item = self.item(context)
        try:
            await asyncio.sleep(self._luck.delay(0.0, 0.02))
            calm = self.world.loop.time() > 20.0
            if not calm and self._luck.chance(FAILS):
                self.world.count("tool_failed")
                raise ToolError("simulated: it is closed for a moment", kind="transient", definite=True)
            if not calm and self._luck.chance(GOES_DEAD):
                self.world.count("tool_went_dead")
                if spec.effect != "read" and self._luck.chance(0.5):
                    self.act(process, spec.name, item, context)
                raise ToolError("simulated: the line went dead", kind="ambiguous")
            if spec.effect != "read":
                self.act(process, spec.name, item, context)
            elif self.checker is not None:
                self.checker.reading(context, item)
            await asyncio.sleep(self._luck.delay(0.0, 0.02))
            return self.mine.results.get((spec.name, digest), f"{spec.name}: done (simulated)")
        finally:
            if not process.dead:
                self.inside.pop(context.action, None)


class OwnChecker(Checker):
    """The oracle for an agent of which nothing is known but its log."""

    town: OwnTown

    def _vote(self, entry: Entry, vote: Vote) -> None:
        self.votes.setdefault(vote.intent, {})[vote.voter] = vote

    def _commit(self, commit: Commit) -> None:
        action = self.state.actions[commit.intent]
        policy = self.state.policy_for(action)
        if policy is None or not voting.names(policy.need):
            opened = policy is not None and "open" in policy.need
            read = action.intent.effect == "read"
            require("closed_by_default", opened or read, f"{action.intent.tool} passes without voters")

    def item(self, action: Action) -> str:  # type: ignore[override]
        """The first action of a chain of tries."""
        while action.intent.retry_of and action.intent.retry_of in self.state.actions:
            action = self.state.actions[action.intent.retry_of]
        return f"{action.intent.tool} ({action.id})"

    def asked(self, task: str, turn: int, process: Process | None = None, agent: str = "") -> None:
        """The model is the agent's own; it is not watched."""

    def effect(self, effect: Effect) -> None:
        """The moment after an effect: everything that allows it must be durable by now."""
        action = self.state.actions.get(effect.action)
        if effect.delta > 0:
            digest = self.town.digests[effect.action, effect.attempt]
            if self.town.mine.spec.secrets and action is not None:
                digest = action.intent.arguments_digest  # its references were replaced on the way
            incarnation = self._incarnation(effect.action, effect.pid)
            if action is not None and action.status == "in_doubt" and action.current is not None:
                mine = action.current.number == effect.attempt and action.current.incarnation == incarnation
                require("no_double_effect", mine, f"{effect.item} runs in doubt, and not by who started it")
            else:
                invariants.check_may_run(self.state, effect.action, effect.attempt, incarnation, digest)
        if action is None or action.intent.effect != "idempotent":
            net = self.town.net(effect.item)
            require("no_double_effect", net in (0, 1), f"{effect.item} happened {net} times")

    def at_the_end(self, *, proposals_may_stay: bool = False) -> None:
        """Everything settled, and what the log says of the world is true."""
        for action in self.state.actions.values():
            item = self.item(action)
            require("no_lost_effect", action.status not in OPEN, f"{item} is still {action.status}")
            if action.intent.tool == ANSWER or action.intent.effect == "read" or action.intent.undoes:
                continue
            net = self.town.net(item)
            if action.status == "executed":
                require("no_lost_effect", net > 0, f"{item} is executed, and never happened")
            if action.status == "rejected" and not action.retried_by and not action.intent.retry_of:
                require("nothing_acts_unseen", net == 0, f"{item} was rejected, and happened")


def voter_names(mine: Own) -> list[str]:
    """The voters of the specification that are no people, in order: those that can be made to fail."""
    return [one.name for one in voters_of(mine.spec, list(mine.tools)) if not isinstance(one, HumanVoter)]


class OwnPrograms(Programs):
    """The agent of the specification, and a person who settles doubts and approves what waits for people."""

    sim: OwnSimulation

    def agent(self, process: Process) -> LogActAgent:
        """The agent as a process sets it up: everything of its specification but model, tools, log and secrets."""
        mine = self.sim.mine
        tools = self.sim.town.own_tools(process)
        secrets = {name: f"simulated value of {name}" for name in mine.spec.secrets}
        log = SharedLog(self.sim.log.port(process))
        voters = [self.sim.town.made_to_fail(one) for one in voters_of(mine.spec, tools)]
        return build_agent(mine.spec, log=log, model=mine.model(), tools=tools, voters=voters, secrets=secrets)

    def all(self) -> dict[str, Program]:
        """What each process runs; a process for voters only where the specification has some for it."""
        if self.sim.plan.form != "decoupled":
            return {"agent": self._inline, "person": self._person}
        return {
            name: program
            for name, program in super().all().items()
            if not name.startswith("voter-") or self._duties(name.removeprefix("voter-"))
        }

    def _duties(self, name: str) -> list[str]:
        """Half of the voters each, so that they are not all gone at once."""
        names = [one.name for one in voters_of(self.sim.mine.spec, list(self.sim.mine.tools))]
        return names[0::2] if name == "guard" else names[1::2]

    def _gave_up(self, process: Process, error: ModelError | LimitReached) -> None:
        """The model has nothing more to say, or a limit is reached: an operator would stop the run."""
        self.sim.gave_up.append(f"{error.code}: {error}"[:200])
        self.sim.controls.append(("stop", ""))
        self.sim.world.crash(process.name)

    async def _settle_doubts(self, host: Host) -> None:
        await super()._settle_doubts(host)
        for action in host.state.undecided():
            policy = host.state.policy_for(action)
            for name, known in (policy.voters if policy is not None else {}).items():
                if known.kind == "human" and name not in action.votes:
                    who = (name.partition(":")[2] or name).replace("*", "person")
                    vote = Vote(approved=True, reason="simulated", intent=action.id, voter=name)
                    self.sim.done["approved"] += 1
                    entry = NewEntry(payload=vote, role="client", name=who, agent=action.intent.agent)
                    await host.append([entry])


class OwnSimulation(Simulation):
    """One run of one's own agent."""

    def __init__(self, plan: Plan, mine: Own) -> None:
        super().__init__(plan)
        self.mine = mine
        self.agent_name, self.task = mine.name, mine.task
        self.gave_up: list[str] = []
        self.town: OwnTown = OwnTown(self.world, plan, mine)
        self.checker: OwnChecker = OwnChecker(self.world, self.log, self.town)

    @property
    def limits(self) -> Limits:
        """Those of the specification."""
        return Limits(**msgspec.structs.asdict(self.mine.spec.agent.limits))

    def programs(self) -> dict[str, Program]:
        """What each process runs."""
        return OwnPrograms(self).all()
