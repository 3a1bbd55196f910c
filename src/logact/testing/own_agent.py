"""One's own agent in the simulator: its real policy, voters and limits, a scripted model, simulated tools.

The tools have the names, forms and declared effects of the specification's own; instead of acting they write into a
ledger, fail now and then, and are cut off like everything else. What is checked: nothing acts without its commit,
nothing happens twice or is lost, everything comes to an end once the faults stop. What is told beside that is what an
operator would have met: doubts that only a person could settle, voters that failed, runs that ended badly.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from logact import codec
from logact.agent import LogActAgent
from logact.core import invariants, machine, voting
from logact.core.invariants import require
from logact.core.settling import ANSWER
from logact.core.state import OPEN, Action
from logact.entry import Commit, Entry, NewEntry, Output, Result, ToolSpec, Vote
from logact.errors import AgentBusy, InDoubt, LogError, RunFinished, SpecError
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.models.recorded import RecordedModel
from logact.models.scripted import ScriptedModel
from logact.runtime.host import Host
from logact.runtime.values import unpack
from logact.spec import SpecFile, build_agent, load_spec, model_of
from logact.spec_parts import tools_of, voters_of
from logact.testing.checks import Checker
from logact.testing.plan import Plan
from logact.testing.programs import Programs
from logact.testing.systems import Outcome, Simulation
from logact.testing.town import Effect, Town
from logact.testing.world import Process, Program, World
from logact.tools import Tool, ToolContext, ToolError

FAULTS = frozenset({"kill", "stop", "cut", "jump", "pause", "cancel"})
"""Events of a plan that make sense for any agent."""

FAILS, GOES_DEAD = 0.04, 0.04
"""How often a simulated tool fails for certain, and how often nobody can tell what it did."""

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


class Report(msgspec.Struct, kw_only=True):
    """What came of all runs. ``broken`` are checks that failed, by seed: a defect of LogAct or of the agent's parts.

    ``doubts`` counts, by tool, actions that only a person could settle; ``voters`` failures of voters; ``ended`` how
    runs ended.
    """

    runs: int = 0
    finished: int = 0
    effects: int = 0
    fired: dict[str, int] = {}
    broken: dict[int, str] = {}
    doubts: dict[str, int] = {}
    voters: dict[str, int] = {}
    ended: dict[str, int] = {}
    advice: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether every check held in every run."""
        return not self.broken


def own(path: str, task: str, *, model: str = "", results: Results | None = None) -> Own:
    """Read what is to be simulated. SpecError if its model is neither scripted nor recorded."""
    spec = load_spec(path)
    specs = tuple(one.spec for one in tools_of(spec, spec.log_url))

    def fresh() -> Model:
        made = model_of(spec, model)
        if not isinstance(made, ScriptedModel | RecordedModel):
            raise SpecError(
                "A simulation asks no provider",
                received=getattr(made, "name", None) or "no model",
                expected="a scripted or recorded model",
                todo="--model scripted:FILE, or record one: recording:FILE:MODEL, then recorded:FILE",
            )
        return made

    fresh()
    return Own(spec=spec, task=task, tools=specs, model=fresh, results=results or {})


async def results_of(log: SharedLog) -> Results:
    """What the tools of a real log returned, by tool and digest of arguments; the last of several counts."""
    found: Results = {}
    state = machine.initial("", keep=True)
    async for entry in log.read():
        state = machine.apply(state, entry)
        said = entry.payload
        action = state.actions.get(said.intent) if isinstance(said, Result) else None
        if action is None or state.verdict or not isinstance(said, Result) or said.error is not None:
            continue
        value = unpack(await log.get_blob(said.blob.digest)) if said.blob is not None else said.value
        found[action.intent.tool, action.intent.arguments_digest] = value
    return found


# --- the world ---------------------------------------------------------------------------------------------------


class OwnTown(Town):
    """The ledger, with the specification's tools in place of the menu's."""

    def __init__(self, world: World, plan: Plan, mine: Own) -> None:
        super().__init__(world, plan)
        self.mine = mine
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

    def asked(self, task: str, turn: int) -> None:
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


class OwnPrograms(Programs):
    """The agent of the specification, and a person who settles doubts and approves what waits for people."""

    sim: OwnSimulation

    def agent(self, process: Process) -> LogActAgent:
        """The agent as a process sets it up: everything of its specification but model, tools, log and secrets."""
        mine = self.sim.mine
        tools = self.sim.town.own_tools(process)
        secrets = {name: f"simulated value of {name}" for name in mine.spec.secrets}
        log = SharedLog(self.sim.log.port(process))
        return build_agent(
            mine.spec, log=log, model=mine.model(), tools=tools, voters=voters_of(mine.spec, tools), secrets=secrets
        )

    def all(self) -> dict[str, Program]:
        return {"agent": self._inline, "person": self._person}

    async def _inline(self, process: Process) -> None:
        while True:
            agent = self.agent(process)
            agent.observe(self.sim.checker.watch(process))
            try:
                await agent.run(self.sim.mine.task, key="the task")
                self.sim.done["run"] += 1
                return
            except RunFinished:
                self.sim.done["run"] += 1
                return
            except (InDoubt, AgentBusy, LogError):
                await process.env.sleep(1.0)

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
        self.town: OwnTown = OwnTown(self.world, plan, mine)
        self.checker: OwnChecker = OwnChecker(self.world, self.log, self.town)

    def programs(self) -> dict[str, Program]:
        return OwnPrograms(self).all()


def plan_for(seed: int) -> Plan:
    """The plan of a seed, as far as it fits any agent."""
    plan = Plan.random(seed, "inline")
    events = tuple(event for event in plan.events if event.kind in FAULTS)
    return msgspec.structs.replace(plan, events=events, voters=(), policy="", engine="memory")


def play(
    mine: Own, seeds: Iterable[int], told: Callable[[int, Outcome], None] = lambda seed, outcome: None
) -> Report:
    """Run the agent under the plan of each seed. Deterministic for equal specifications, scripts and seeds."""
    report = Report()
    for seed in seeds:
        simulation = OwnSimulation(plan_for(seed), mine)
        outcome = simulation.run()
        _count(report, seed, simulation, outcome)
        told(seed, outcome)
    report.advice = list(_advice(report, mine))
    return report


def _count(report: Report, seed: int, simulation: OwnSimulation, outcome: Outcome) -> None:
    report.runs += 1
    report.effects += outcome.effects
    report.fired = dict(Counter(report.fired) + Counter(outcome.fired))
    if not outcome.ok:
        report.broken[seed] = f"{outcome.broken}: {outcome.error}"[:500]
    checker = simulation.checker
    doubts: Counter[str] = Counter(report.doubts)
    voters: Counter[str] = Counter(report.voters)
    ended: Counter[str] = Counter(report.ended)
    for entry in checker.entries:
        said = entry.payload
        if checker.verdicts.get(entry.position):
            continue
        if entry.author.name == "person" and entry.kind == "Recovery":
            action = checker.state.actions.get(getattr(said, "intent", 0))
            doubts[action.intent.tool if action is not None else "?"] += 1
        elif isinstance(said, Vote) and " failed (" in said.reason:
            voters[f"{said.voter}: {said.reason}"[:200]] += 1
        elif isinstance(said, Output):
            ended["answered" if said.ok else f"gave up: {said.reason}"[:200]] += 1
            report.finished += said.ok
    report.doubts, report.voters, report.ended = dict(doubts), dict(voters), dict(ended)


def _advice(report: Report, mine: Own) -> Iterable[str]:
    known = {spec.name: spec for spec in mine.tools}
    for tool, count in sorted(report.doubts.items(), key=lambda one: -one[1]):
        spec = known.get(tool)
        if spec is not None and not spec.probe:
            yield f"{tool} was in doubt {count} times, and only a person could tell: give it a probe"
    for voter in report.voters:
        yield f"a voter failed, which rejects: {voter}"
    for how in report.ended:
        if how != "answered":
            yield f"a run {how}"
