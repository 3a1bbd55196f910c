"""``Swarm``: agents that share the work of one task through one log.

The task is a run of the swarm's own name; its plan, the claims, the results and the joined answer stand in the log.
So a swarm may be spread over any number of processes: each calls ``run`` (or only ``work``) with agents of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from logact import codec
from logact.agent import LogActAgent, _model
from logact.agent_parts import only, running
from logact.agent_results import Answer
from logact.core.state import RunState, State
from logact.core.views import Action
from logact.entry import Output, Run, own
from logact.env_guest import guest
from logact.errors import AgentBusy, KeyConflict, LimitReached, LogTrimmed, RunStopped, SpecError, UsageError
from logact.introspection.tuning import WHOLE
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.runtime.host import Host
from logact.runtime.tail import Tail
from logact.swarm import answers, digests, planning
from logact.swarm.claims import LEASE_S
from logact.swarm.plan import ATTEMPTS, PLAN, UNLIMITED, Attempts, Board, as_plan, notice_of
from logact.swarm.sharing import equip
from logact.swarm.talk import Talk
from logact.swarm.tasks import SubTask
from logact.swarm.worker import FollowUps, Worker
from logact.voters.base import Voter

JOIN_LOOK_S = 1.0

Planner = Callable[[str], Iterable[SubTask | str] | Awaitable[Iterable[SubTask | str]]]
Join = Callable[[str, dict[str, Answer]], str | Awaitable[str]]


class SwarmResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a swarm came to: the joined answer, where it stands, and each task's own answer, in the plan's order."""

    run: int
    text: str
    ok: bool = True
    position: int = 0
    results: dict[str, Answer] = {}


class Swarm:
    """Agents on one log that share a task.

    ``planner`` splits it: a function, or a model (or its name), unless a ``plan`` is given to ``run``. ``roles``
    says, by agent, which roles it plays. ``follow_ups(task, answer)`` gives tasks that a result leads to.
    ``join(task, answers)`` makes the answer of the whole; without it the answers are put together in the plan's
    order. A claim lasts ``lease_s`` seconds unless it is renewed; a task that failed ``attempts_max`` times, or that
    ``lives_max`` lives took up without an end, is not tried again. ``voters`` judge the joined answer. ``talk`` gives
    the agents tools to write to each other and to look at each other's actions; ``sees`` limits whom an agent may
    look at, and whose texts and results it is given.
    ``together`` keeps related tasks on one agent where it can, in one conversation: those with one ``keep``, that
    wait for each other, or that are about what others read. ``handover``: long results are handed on as summaries,
    made once, by this model (True: by that of the agent whose result it is).
    """

    def __init__(
        self,
        agents: Sequence[LogActAgent],
        log: SharedLog | None = None,
        *,
        name: str = "swarm",
        planner: Planner | Model | str | None = None,
        roles: Mapping[str, Iterable[str]] | None = None,
        follow_ups: FollowUps | None = None,
        join: Join | None = None,
        lease_s: float = LEASE_S,
        attempts_max: int = ATTEMPTS.failed_max,
        lives_max: int = ATTEMPTS.lives_max,
        voters: Iterable[Voter] = (),
        talk: bool = False,
        sees: Callable[[str, str], bool] | None = None,
        together: bool = False,
        handover: Model | str | bool = False,
    ) -> None:
        if not agents and log is None:
            raise UsageError("A swarm needs agents, or a log to look at", todo="Swarm([agent, ...])")
        self.log = log if log is not None else agents[0].log
        strangers = [agent.agent_id for agent in agents if agent.log is not self.log]
        if strangers:
            raise UsageError("Agents of a swarm share one log", received=f"another log: {', '.join(strangers)}")
        names = [agent.agent_id for agent in agents]
        if len(set(names)) < len(names) or name in names:
            raise SpecError("Each agent of a swarm has a name of its own", received=", ".join([*names, name]))
        self.agents = list(agents)
        self.name = name
        self.planner = planner
        self.roles = {agent: frozenset(given) for agent, given in (roles or {}).items()}
        self.follow_ups = follow_ups
        self.join_with = join
        self.lease_s = lease_s
        self.attempts = Attempts(attempts_max, lives_max)
        self.voters = list(voters)
        self.together = together
        self.talk = Talk(self.log, sees)
        if talk:
            for agent in self.agents:
                self.talk.equip(agent)
        for agent in self.agents:
            agent.tools = digests.undigested(agent.tools)
        self.known = [equip(agent) for agent in self.agents]
        self.texts = [digests.equip(agent, sees) for agent in self.agents]
        for agent in self.agents:
            answers.equip(agent)
        self.handover = _model(handover) if isinstance(handover, str) else handover
        if self.handover:
            for agent in self.agents:
                agent.tuning.kept_back.discard(WHOLE)

    # --- a whole task --------------------------------------------------------------------------------------------

    async def run(self, task: str, plan: Iterable[SubTask | str] | None = None) -> SwarmResult:
        """Work on a task until it is answered: plan it (once, whoever is first), do it, join it.

        The same task in another process, or after a crash, goes on with the same plan. Raises LimitReached if a
        sub-task failed too often.
        """
        run = await self.start(task, plan)
        try:
            async with asyncio.TaskGroup() as group:
                for agent in self.agents:
                    group.create_task(self._worker(agent, run).work())
        except BaseExceptionGroup as errors:
            raise only(errors) from None
        return await self.joined(run)

    async def start(self, task: str, plan: Iterable[SubTask | str] | None = None) -> int:
        """Write the plan down, unless that was done. Returns the task's run."""
        key = f"swarm:{self.name}:{codec.digest(task.encode())}"
        host = Host(self.log, self.name)
        try:
            await host.tail.start()
            if key in host.state.keys:
                return host.state.keys[key]
            tasks = as_plan(plan if plan is not None else await self._planned(host, key, task))
            if key in host.state.keys:
                return host.state.keys[key]
            if not tasks:
                raise SpecError("The plan has no tasks", received=task)
            entries = [
                host.entry(Run(agent=self.name, title=task), "client"),
                host.entry(notice_of(PLAN, tasks, own(0)), "client", self.name, run=own(0)),
            ]
            try:
                return (await host.append(entries, key=key)).position
            except KeyConflict:  # another process was faster, with another plan
                await host.tail.catch_up()
                return host.state.keys[key]
        finally:
            host.leaves()

    async def work(self, run: int) -> int:
        """Have this process's agents work for a task that was started, here or elsewhere. How many they completed."""
        try:
            async with asyncio.TaskGroup() as group:
                made = [group.create_task(self._worker(agent, run).work()) for agent in self.agents]
        except BaseExceptionGroup as errors:
            raise only(errors) from None
        return sum(one.result() for one in made)

    async def joined(self, run: int) -> SwarmResult:
        """The answer of the whole, once every task is done; written by whichever process is first."""
        host = Host(self.log, self.name, tail=Tail(self.log, shared=True))
        try:
            await host.tail.start()
            board = await Board.of(host.tail, run)
            async with running(host.tail.follow()):
                while True:
                    plan = host.state.runs.get(run)
                    if plan is None or plan.status == "stopped":
                        raise RunStopped("The task of the swarm was stopped", received=f"run {run}")
                    if plan.status == "finished":
                        return await self._result(run, plan, board)
                    if board.complete(plan):
                        if await self._join(run, plan, board):
                            await host.tail.catch_up()
                        else:  # asked again at once, it would be kept from its work
                            await host.tail.until(lambda state: self._over(state, run), JOIN_LOOK_S)
                        continue
                    if stuck := board.stuck(plan, most := self.attempts):
                        raise LimitReached(
                            "Tasks of the plan are not tried any more",
                            received="; ".join(f"{name}: {board.given_up(plan, name, most)}" for name in stuck),
                            expected=f"fewer than {most.failed_max} failures and {most.lives_max} lives of each task",
                            todo="look at them with `logact log show`, then start the task anew",
                        )
                    await host.tail.until(lambda state: self._moved(state, run, board), JOIN_LOOK_S)
        finally:
            host.tail.leave()
            host.leaves()

    # --- looking -------------------------------------------------------------------------------------------------

    async def status(self, run: int) -> dict[str, str]:
        """Each task of the plan, and how it stands: ``waiting``, ``ready``, ``held by NAME`` or ``done``."""
        host = Host(self.log, self.name)
        try:
            await host.tail.start()
            board = Board(run)
            await board.load(self.log, host.state.position)
            plan = host.state.runs.get(run)
            board.check(plan)
        finally:
            host.leaves()
        if plan is None:
            raise UsageError("There is no such task", received=f"run {run}", expected="what `start` returned")
        ready = {
            task.name for task in board.ready(plan, frozenset(task.role for task in board.tasks.values()), UNLIMITED)
        }
        return {
            name: "done"
            if name in plan.done
            else f"held by {plan.held[name].agent}"
            if name in plan.held
            else "ready"
            if name in ready
            else "waiting"
            for name in board.tasks
        }

    # --- inside --------------------------------------------------------------------------------------------------

    def _worker(self, agent: LogActAgent, run: int) -> Worker:
        return Worker(
            agent,
            run,
            roles=self.roles.get(agent.agent_id, frozenset()),
            lease_s=self.lease_s,
            attempts=self.attempts,
            follow_ups=self.follow_ups,
            prepare=self.talk.prepare if self.talk.equipped else None,
            together=self.together,
            handover=agent.model if self.handover is True else self.handover or None,
        )

    async def _planned(self, host: Host, key: str, task: str) -> Iterable[SubTask | str]:
        if self.planner is None:
            raise UsageError("Nobody splits the task", todo="pass plan=[...], or give the swarm a planner")
        if not isinstance(self.planner, str | Model):
            with guest():
                found = self.planner(task)
                return await found if inspect.isawaitable(found) else found
        roles = {role for played in self.roles.values() for role in played}
        async with running(host.tail.follow()):
            while key not in host.state.keys:
                try:
                    return await planning.ask(self.log, self.name, self.planner, task, roles)
                except AgentBusy:  # another process has its planner at it
                    await host.tail.until(lambda state: key in state.keys, JOIN_LOOK_S)
        return ()

    async def _join(self, run: int, plan: RunState, board: Board) -> bool:
        """Write the answer of the whole. False if another process is at it."""
        spokesman = LogActAgent(self.name, self.log, self.voters)
        key = f"swarm-join:{run}"
        try:
            async with spokesman._playing() as parts:
                if self._over(parts.host.state, run):
                    return True
                if key in parts.host.state.keys:  # by an earlier life; a join need not say the same twice
                    proposed = await spokesman.look(parts.host.state.keys[key])
                else:
                    text = await self._joined_text(plan, board)
                    action = Action(tool="answer", arguments={"text": text}, effect="read")
                    proposed = await spokesman.propose_action(action, run=run, key=key)
                checked = await spokesman.validate_action(proposed)
                if not checked.approved:
                    raise RunStopped("The joined answer was refused", received=checked.reason, todo=checked.hint)
                await spokesman.execute_action(proposed)
        except AgentBusy:
            return False
        return True

    async def _joined_text(self, plan: RunState, board: Board) -> str:
        answers = await self._answers(plan, board)
        if self.join_with is None:
            return "\n\n".join(f"{name}: {one.text}" for name, one in answers.items())
        with guest():
            text = self.join_with(plan.title, answers)
            return str(await text if inspect.isawaitable(text) else text)

    async def _answers(self, plan: RunState, board: Board) -> dict[str, Answer]:
        found = {}
        begins = await self.log.begins() if board.trimmed else 0
        for name in board.tasks if not board.trimmed else plan.done:
            if plan.done[name] < begins:
                continue  # of a finished task what is kept is given
            entry = await self.log.get(plan.done[name])
            if isinstance(entry.payload, Output):
                said = entry.payload
                found[name] = Answer(
                    run=said.run, text=said.text, value=said.value, ok=said.ok, position=entry.position
                )
        return found

    async def _result(self, run: int, plan: RunState, board: Board) -> SwarmResult:
        if board.trimmed and plan.output < (begins := await self.log.begins()):
            raise LogTrimmed(
                "The task was finished, and its answer was trimmed",
                received=f"the answer at position {plan.output}",
                expected=f"one at position {begins} or later",
                todo="look it up in the archive that the trim made; another text is another task",
            )
        entry = await self.log.get(plan.output)
        if not isinstance(entry.payload, Output):
            raise LimitReached("The swarm's answer cannot be read", received=entry.kind)
        said = entry.payload
        answers = await self._answers(plan, board)
        return SwarmResult(run=run, text=said.text, ok=said.ok, position=entry.position, results=answers)

    def _moved(self, state: State, run: int, board: Board) -> bool:
        return self._over(state, run) or board.complete(state.runs[run])

    def _over(self, state: State, run: int) -> bool:
        plan = state.runs.get(run)
        return plan is None or plan.status != "running"
