"""What the simulated processes run: the real agent in one of its forms, its parts, and a person."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from logact.agent import LogActAgent
from logact.core.breaking import Breaker
from logact.core.settling import ANSWER
from logact.core.views import Action
from logact.entry import Cancel, Control, Input, NewEntry, Payload, Recovery, Run, own
from logact.errors import (
    ActionFailed,
    ActionRejected,
    AgentBusy,
    InDoubt,
    LimitReached,
    LogError,
    ModelError,
    RunFinished,
    RunStopped,
)
from logact.logs.base import SharedLog
from logact.runtime.assembly import (
    play_checkpointer,
    play_decider,
    play_driver,
    play_executor,
    play_recoverer,
    play_voter,
)
from logact.runtime.entering import policy_from
from logact.runtime.host import Host
from logact.runtime.leaving import Leave
from logact.testing.ballots import DUTIES, POLICIES
from logact.testing.town import tools
from logact.testing.world import Process, Program

if TYPE_CHECKING:
    from logact.testing.systems import Simulation

AGENT = "ops"
DECIDE_WITHIN_MS = 30_000
START_WITHIN_MS = 40_000
LEASE_S = 6.0
BREAKER = Breaker(failures=2, delay_s=0.5, delay_s_max=4.0, wait_s=120.0)

Play = Callable[..., Any]


class Programs:
    """The programs of one simulation."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim

    def agent(self, process: Process) -> LogActAgent:
        """The agent as a process sets it up."""
        voters = self.sim.town.voters()
        form = self.sim.plan.policy
        policy = policy_from(POLICIES[form].need if form else None, voters, AGENT)
        if policy is not None:
            policy = msgspec.structs.replace(
                policy, decide_within_ms=DECIDE_WITHIN_MS, start_within_ms=START_WITHIN_MS
            )
        return LogActAgent(
            AGENT,
            log=SharedLog(self.sim.log.port(process)),
            model=self.sim.town.model(),
            voters=voters,
            policy=policy,
            tools=tools(),
            checkpoint_every=self.sim.plan.checkpoint_every,
            model_timeout_s=20.0,
            limits=self.sim.limits,
            lease_s=LEASE_S,
            breaker=BREAKER,
        )

    def all(self) -> dict[str, Program]:
        """What each process runs."""
        if self.sim.plan.form == "inline":
            return {"agent": self._inline, "person": self._person}
        if self.sim.plan.form == "own":
            return {"agent": self._own, "person": self._person}
        if self.sim.plan.form == "supervised":
            return {"supervisor": self.sim.machine.supervisor(), "person": self._person}
        return {name: self._part(play) for name, play in self._plays().items()} | {"person": self._person}

    def _plays(self) -> dict[str, Play]:
        parts: dict[str, Play] = {
            "driver": play_driver,
            "voter-guard": partial(play_voter, names=self._duties("guard")),
            "voter-budget": partial(play_voter, names=self._duties("budget")),
            "decider-1": partial(play_decider, name="decider-1"),
            "decider-2": partial(play_decider, name="decider-2"),
            "executor-1": partial(play_executor, name="executor-1"),
            "executor-2": partial(play_executor, name="executor-2"),
            "recoverer": play_recoverer,
            "checkpointer": play_checkpointer,
        }
        return parts

    def twin(self, name: str) -> Program:
        """A second process for a part, that nobody supervises."""
        return self._part(self._plays()[name])

    def children(self) -> dict[str, Program]:
        """What each part runs that a supervisor starts."""
        return {name: self.sim.machine.part(self._led(play)) for name, play in self._plays().items()}

    def _led(self, play: Play) -> Callable[[Process, Leave], Any]:
        async def program(process: Process, leave: Leave) -> None:
            agent = self.agent(process)
            try:
                await play(agent.log, agent, observers=[self.sim.checker.watch(process)], leave=leave)
            except LimitReached:
                self.sim.controls.append(("stop", ""))
                raise

        return program

    def _duties(self, name: str) -> list[str]:
        """The voters that a voter's process hosts."""
        return list(DUTIES[name]) if self.sim.plan.policy else [name]

    def _part(self, play: Play) -> Program:
        async def program(process: Process) -> None:
            agent = self.agent(process)
            try:
                await play(agent.log, agent, observers=[self.sim.checker.watch(process)])
            except (ModelError, LimitReached) as error:
                self._gave_up(process, error)

        return program

    def _gave_up(self, process: Process, error: ModelError | LimitReached) -> None:
        """A process ends, since it can do no more, and begins anew; a person stops a run whose time is over."""
        if isinstance(error, LimitReached):
            self.sim.controls.append(("stop", ""))
        self.sim.world.count(f"ends_with_{error.code}")
        self.sim.world.crash(process.name)

    async def _inline(self, process: Process) -> None:
        """A process that runs the task, as often as it takes."""
        while True:
            agent = self.agent(process)
            agent.observe(self.sim.checker.watch(process))
            try:
                await agent.run(self.sim.task, key="the task")
                self.sim.done["run"] += 1
                return
            except (RunFinished, RunStopped):
                self.sim.done["run"] += 1
                return
            except (ModelError, LimitReached) as error:
                self._gave_up(process, error)
                return
            except (InDoubt, AgentBusy, LogError):
                await process.env.sleep(1.0)

    async def _own(self, process: Process) -> None:
        """A caller's own loop: what is not in the log yet is proposed, validated and executed."""
        calls = [call for turn in range(3) for call in self.sim.town.menu(turn)]
        while True:
            agent = self.agent(process)
            agent.observe(self.sim.checker.watch(process))
            try:
                async with agent:
                    await agent.recover_from_failure()
                    for call in calls:
                        item = call.arguments["item"]
                        if any(self.sim.checker.item(one) == item for one in self.sim.checker.state.actions.values()):
                            continue
                        await self._own_step(agent, Action(tool=call.tool, arguments=call.arguments), item)
                    while await self._unfinished(agent):
                        await process.env.sleep(1.0)
                self.sim.done["run"] += 1
                return
            except (InDoubt, AgentBusy, LogError, ActionRejected):
                await process.env.sleep(1.0)

    async def _own_step(self, agent: LogActAgent, action: Action, item: str) -> None:
        """One action, in one call or in three: the same item always in the same way, in every life."""
        if sum(item.encode()) % 2:
            entry = await agent.propose_action(action, key=item)
            judged = await agent.validate_action(entry)
            if not judged.approved:
                self.sim.town.told_refused(item)
                return
            await agent.execute_action(entry)
            return
        try:
            await agent.act(action, key=item)
        except ActionFailed:
            pass
        except ActionRejected as error:
            if "was not committed" not in str(error):
                raise
            self.sim.town.told_refused(item)

    @staticmethod
    async def _unfinished(agent: LogActAgent) -> bool:
        """Whether something that was committed has not come to its end."""
        now = await agent.recover_from_failure()
        return any(status != "proposed" for status in now.open_actions.values())

    async def _person(self, process: Process) -> None:
        """Gives the decoupled form its task, carries controls out, and settles doubts by looking at the world."""
        while True:
            log = SharedLog(self.sim.log.port(process))
            try:
                host = Host(log, self.sim.agent_name)
                host.tail.observe(self.sim.checker.watch(process))
                await host.tail.start()
                if self.sim.plan.form in ("decoupled", "supervised"):
                    name, task = self.sim.agent_name, self.sim.task
                    begin = [
                        host.entry(Run(agent=name, title=task, limits=self.sim.limits), "client"),
                        host.entry(Input(run=own(0), text=task), "client", run=own(0)),
                    ]
                    await host.append(begin, key="the task")
                while True:
                    await host.tail.catch_up()
                    await self._settle_doubts(host)
                    await self._carry_out(host)
                    await process.env.sleep(0.5)
            except LogError:
                await process.env.sleep(0.5)

    async def _settle_doubts(self, host: Host) -> None:
        for action in host.state.doubtful():
            attempt = action.current
            life = host.state.incarnations.get(attempt.incarnation) if attempt is not None else None
            dead = life is not None and life.birth is not None and not self.sim.world.is_alive(life.birth.pid)
            reported = action.error is not None and not self.sim.town.inside.get(action.id)
            gone = dead or reported or (life is not None and life.left)
            if not gone or action.intent.effect in ("read", "idempotent"):
                continue
            if action.intent.probe or action.intent.safe_undo:
                continue  # the recoverer can tell by itself
            happened = self.sim.town.net(self.sim.checker.item(action)) > 0
            verdict = Recovery(
                intent=action.id,
                attempt=len(action.attempts),
                settlement="happened" if happened else "not_happened",
                evidence="a person",
            )
            self.sim.done["settled by a person"] += 1
            await host.append([NewEntry(payload=verdict, role="operator", name="person", agent=self.sim.agent_name)])

    async def _carry_out(self, host: Host) -> None:
        while self.sim.controls:
            verb, scope = self.sim.controls[0]
            order = self._order(host, verb, scope)
            if order is not None:
                name = self.sim.agent_name
                await host.append([NewEntry(payload=order, role="operator", name="person", agent=name)])
            self.sim.controls.pop(0)

    def _order(self, host: Host, verb: str, scope: str) -> Payload | None:
        """What the person is to write, if there is anything to write it about."""
        state = host.state
        if verb == "cancel":
            waiting = [key for key in state.open_actions if state.actions[key].intent.tool != ANSWER]
            return Cancel(intent=waiting[0], reason="on second thoughts") if waiting else None
        if verb == "stop":
            running = [run.id for run in state.runs.values() if run.status == "running"]
            return Control(verb="stop", scope=f"run:{running[0]}", reason="its time is over") if running else None
        if verb == "policy":
            now = state.policy_of(self.sim.agent_name)
            if now is None:
                return None
            version = now.version
            return msgspec.structs.replace(now, version=version + 1, expected=version, binding=True, note="again")
        return Control(verb="pause" if verb == "pause" else "resume", scope=scope)
