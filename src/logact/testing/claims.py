"""The form ``swarm``: agents in processes of their own share a task by claims on its parts, and die, hang, come late.

It owns the plan of sub-tasks, what each agent's model wants of them, and what must hold of claims, which it writes
down a second time: nothing here asks ``core.claiming``. The last agent never works again once its process died.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import msgspec

from logact.agent import LogActAgent
from logact.agent_results import Answer
from logact.core.invariants import require
from logact.entry import Claim, Entry, Output, Started
from logact.errors import ActionRejected, InDoubt, LimitReached, LogActError, LogError, ModelError
from logact.logs.base import SharedLog
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, ScriptedModel, call, turn_of
from logact.runtime.entering import policy_from
from logact.swarm import SubTask, Swarm, SwarmResult
from logact.swarm.claims import PATIENCE
from logact.testing.checks import Checker
from logact.testing.loop import PROCESS
from logact.testing.plan import PROCESSES
from logact.testing.programs import DECIDE_WITHIN_MS, LEASE_S, START_WITHIN_MS, Programs
from logact.testing.systems import Simulation
from logact.testing.town import Effect, Town, tools
from logact.testing.world import Process, Program

TASK = "share the chores"
CLAIM_LEASE_S = 2.0
ATTEMPTS_MAX = 1000
HARMLESS = ("read", "idempotent")
MENU = ("look", "put", "stamp", "book", "hold", "pay", "send", "wipe", "fail", "murk", "drag")
MORTAL = PROCESSES["swarm"][-2]
"""This agent's work is never taken up by its next life, which only says what became of what it had begun."""

TWINS = {PROCESSES["swarm"][1]: ("ben",)}
"""Further agents that a process plays."""

CHORES = (
    SubTask(name="a", text="fetch"),
    SubTask(name="b", text="carry"),
    SubTask(name="c", text="sort", after=("a",)),
    SubTask(name="d", text="pack"),
    SubTask(name="e", text="send off", after=("b", "d")),
)


class SwarmTown(Town):
    """A world in which each part of the task wants something done; each answer of the model names things anew."""

    answers_given = 0

    def model(self, agent: str = "") -> ScriptedModel:
        return ScriptedModel(partial(self._reply, agent))

    async def _reply(self, agent: str, request: ModelRequest) -> Reply:
        process = PROCESS.get()
        if process is not None:
            process.check_alive()
        turn = turn_of(request)
        task = next((message.text for message in request.messages if message.role == "user"), "")
        if self.checker is not None and process is not None:
            try:
                self.checker.asked(task, turn, process, agent)
                self._heard(request)
            except LogActError as error:
                self.world.fail(error)
        self.answers_given += 1
        number = self.answers_given
        await self._model_fails(process)
        name = part_of(task)
        dice = random.Random(f"chores {self.plan.menu} {name} {turn}")
        if turn >= 1 + dice.randrange(2):
            return f"{name} is done"
        return [call(tool, item=f"{tool}-{name}-{number}") for tool in dice.sample(MENU, dice.randint(1, 2))]


def part_of(title: str) -> str:
    """The sub-task that a run's title names."""
    return title.partition("\n")[0].removeprefix("Task ")


class ClaimsChecker(Checker):
    """The oracle, which also keeps who holds what by what the entries say, and judges by that."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.held: dict[str, tuple[str, str, int]] = {}  # task -> agent, incarnation, position of its latest claim
        self.since: dict[int, float] = {}  # position of a claim -> when it became durable
        self.completed: dict[str, int] = {}
        self.returned: dict[int, str] = {}  # where a joined answer stands that a process returned -> who
        self.last: Entry | None = None

    def _apply(self, entry: Entry) -> None:
        super()._apply(entry)
        if isinstance(entry.payload, Claim) and entry.payload.run:
            self._claim(entry, entry.payload, effective=not self.state.verdict)
        elif isinstance(entry.payload, Started) and not self.state.verdict:
            self._started(self.state.actions[entry.payload.intent].intent.run)

    def _claim(self, entry: Entry, claim: Claim, *, effective: bool) -> None:
        now = self.held.get(claim.task)
        if not effective:
            if claim.result and claim.task not in self.completed:
                self.world.count("finished_late")
            elif claim.result:
                self.world.count("finished_second")
            return
        where = f"{claim.task} at {entry.position}"
        require("no_task_done_twice", claim.task not in self.completed, f"{where}: it is done already")
        if claim.lapses:
            self._lapse(claim, now, where)
            return
        mine = now is not None and now[0] == claim.agent
        if not claim.release:
            require("claims_are_honoured", now is None or mine, f"{where}: {claim.agent} takes what {now} holds")
            self._taken(claim, where)
            self.held[claim.task] = (claim.agent, entry.author.incarnation, entry.position)
            self.since[entry.position] = self.world.loop.time()
            return
        require(
            "claims_are_honoured",
            now is not None and now[:2] == (claim.agent, entry.author.incarnation),
            f"{where}: released by {claim.agent}, held by {now}",
        )
        del self.held[claim.task]
        if claim.result:
            self._completed(claim, where)
        else:
            self.world.count("task_given_back")

    def _taken(self, claim: Claim, where: str) -> None:
        """Nobody takes a part over while something may have happened for it that must not happen twice."""
        for action in self.open_actions():
            run = self.state.runs.get(action.intent.run)
            if run is None or not run.parent or part_of(run.title) != claim.task or run.agent == claim.agent:
                continue
            open_ended = action.status in ("executing", "in_doubt") and action.intent.effect not in HARMLESS
            require("no_task_done_twice", not open_ended, f"{where}: {self.item(action)} is {action.status}")

    def _completed(self, claim: Claim, where: str) -> None:
        outputs = [one for one in self.entries if one.position == claim.result]
        said = outputs[0].payload if outputs else None
        run = self.state.runs.get(said.run) if isinstance(said, Output) else None
        fits = run is not None and run.agent == claim.agent and part_of(run.title) == claim.task
        require("no_task_lost", fits, f"{where}: {claim.result} is no answer of {claim.agent} to it")
        require("no_task_done_twice", claim.result not in self.completed.values(), f"{where}: an answer counts twice")
        self.completed[claim.task] = claim.result

    def _lapse(self, claim: Claim, now: tuple[str, str, int] | None, where: str) -> None:
        require(
            "claims_are_honoured",
            now is not None and now[2] == claim.lapses,
            f"{where}: the lapse is of {claim.lapses}, and {now} holds it",
        )
        if now is None:
            return
        life = self.state.incarnations.get(now[1])
        birth = life.birth if life is not None and not life.left else None
        # of two agents of a process one may have ended, with its goodbye still on the way
        living = birth is not None and self.world.is_alive(birth.pid) and self.world.plays(birth.pid, now[1])
        silent_s = self.world.loop.time() - self.since[now[2]]
        require(
            "claims_are_honoured",
            not living or silent_s >= PATIENCE * CLAIM_LEASE_S - 0.001,
            f"{where}: {now[0]} lives, and renewed its claim {silent_s:.2f} s ago",
        )
        self.world.count("claim_of_the_silent_lapsed" if living else "claim_of_the_dead_lapsed")
        del self.held[claim.task]

    def _started(self, run_id: int) -> None:
        """What starts for a part of the task is started by who holds that part."""
        run = self.state.runs.get(run_id)
        if run is None or not run.parent:
            return
        held = self.held.get(part_of(run.title))
        require(
            "claims_are_honoured",
            held is not None and held[0] == run.agent,
            f"run {run_id} of {run.agent} starts something for {part_of(run.title)}, which {held} holds",
        )

    def effect(self, effect: Effect) -> None:
        super().effect(effect)
        action = self.state.actions.get(effect.action)
        if action is None or action.intent.effect in HARMLESS or effect.delta < 0:
            return
        run = self.state.runs[action.intent.run]
        held = self.held.get(part_of(run.title))
        require(
            "no_task_done_twice",
            held is not None and held[0] == run.agent,
            f"{effect.item} is done by {run.agent} for {part_of(run.title)}, which {held} holds by now",
        )

    def asked(self, task: str, turn: int, process: Process | None = None, agent: str = "") -> None:
        """The model is asked for a turn of an agent's run, which the log does not hold yet."""
        for run in self.state.runs.values():
            mine = run.agent == agent and run.status == "running"
            if mine and run.title == task:
                require("store_then_replay", run.turn <= turn, f"run {run.id} has turn {turn + 1} already")

    def at_the_end(self, *, proposals_may_stay: bool = False) -> None:
        super().at_the_end(proposals_may_stay=proposals_may_stay)
        lost = [task.name for task in self.parts() if task.name not in self.completed]
        require("no_task_lost", not lost, f"never done: {', '.join(lost)}")
        (done,) = [run.done for run in self.state.runs.values() if run.title == TASK]
        require("no_task_done_twice", done == self.completed, f"the fold has {done}, the entries {self.completed}")
        require("no_task_lost", len(self.returned) == 1, f"processes returned different answers: {self.returned}")

    def parts(self) -> tuple[SubTask, ...]:
        """All sub-tasks, those that follow from results too."""
        return (*CHORES, *follow_ups(CHORES[0]))


def follow_ups(task: SubTask, answer: Answer | None = None) -> tuple[SubTask, ...]:
    """What the result of the first part leads to."""
    return (SubTask(name="a.1", text="tidy up"),) if task.name == CHORES[0].name else ()


class SwarmPrograms(Programs):
    """Each agent's process works for the swarm; a person settles doubts and gives orders, as elsewhere."""

    def all(self) -> dict[str, Program]:
        workers = {name: self._worker for name in PROCESSES["swarm"] if name != "person"}
        return {**workers, "person": self._person}

    def workers(self, process: Process) -> list[LogActAgent]:
        """The agents of the swarm that a process sets up. Those of one process share a log object, and its fold."""
        log = SharedLog(self.sim.log.port(process))
        names = [process.name, *TWINS.get(process.name, ())]
        return [self.worker(process, name, log) for name in names]

    def worker(self, process: Process, name: str, log: SharedLog) -> LogActAgent:
        """One agent of the swarm."""
        voters = self.sim.town.voters()
        policy = policy_from(None, voters, name)
        if policy is not None:
            policy = msgspec.structs.replace(
                policy, decide_within_ms=DECIDE_WITHIN_MS, start_within_ms=START_WITHIN_MS
            )
        return LogActAgent(
            name,
            log=log,
            model=self.sim.town.model(name),
            voters=voters,
            policy=policy,
            tools=[tool for tool in tools() if tool.name in MENU],
            checkpoint_every=self.sim.plan.checkpoint_every,
            model_timeout_s=20.0,
            lease_s=LEASE_S,
        )

    async def _worker(self, process: Process) -> None:
        while True:
            agents = self.workers(process)
            for agent in agents:
                agent.observe(self.sim.checker.watch(process))
            swarm = Swarm(agents, lease_s=CLAIM_LEASE_S, attempts_max=ATTEMPTS_MAX, follow_ups=follow_ups)
            try:
                if process.name == MORTAL and process.life > 1:
                    await agents[0].recover_from_failure()
                    self.sim.done[process.name] += 1
                    return
                self._over(process, await swarm.run(TASK, CHORES))
                return
            except (ModelError, LimitReached) as error:
                self._gave_up(process, error)
                return
            except (InDoubt, LogError, ActionRejected):
                await process.env.sleep(1.0)

    def _over(self, process: Process, result: SwarmResult) -> None:
        self.sim.done[process.name] += 1
        if isinstance(self.sim.checker, ClaimsChecker):
            self.sim.checker.returned.setdefault(result.position, process.name)


class SwarmSimulation(Simulation):
    """One run of a swarm."""

    town_of = SwarmTown
    checker_of = ClaimsChecker
    unfinished = "no_task_lost"

    def programs(self) -> dict[str, Program]:
        return SwarmPrograms(self).all()

    def _finished_well(self, name: str) -> bool:
        return self.done[name] > 0

    def _finished(self) -> bool:
        workers = [name for name in PROCESSES["swarm"] if name != "person"]
        return all(self.done[name] for name in workers) and not self.checker.open_actions()
