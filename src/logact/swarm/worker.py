"""One agent at work for a plan: takes a task, does it as a run of its own, hands the result over, takes the next.

It owns the order of those steps, and the renewal of the claim meanwhile. How the agent works is the agent's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from logact import env as environment
from logact.agent import LogActAgent
from logact.agent_parts import Parts, running
from logact.agent_results import Answer
from logact.core.state import State
from logact.entry import NewEntry, Notice, Output
from logact.errors import ConditionFailed, Fenced, LogActError, LogError, ReadOnlyIncarnation, RunStopped
from logact.swarm.claims import Claims
from logact.swarm.plan import FAILED, TASKS, Board, SubTask, notice_of

LOOK_S = 1.0
"""How often an idle worker looks for claims whose holder is gone."""

RESULT_CHARS_MAX = 8000
"""How much of an earlier result a later task is handed; the log holds all of it."""

FollowUps = Callable[[SubTask, Answer], Iterable[SubTask | str]]
Prepare = Callable[[LogActAgent, SubTask], Awaitable[str]]


class Worker:
    """An agent of a swarm. ``work`` returns when the plan is over: done, or nothing left that anybody may try."""

    def __init__(
        self,
        agent: LogActAgent,
        run: int,
        *,
        roles: frozenset[str],
        lease_s: float,
        attempts_max: int,
        follow_ups: FollowUps | None = None,
        prepare: Prepare | None = None,
        choose: Callable[[LogActAgent, list[SubTask]], SubTask] | None = None,
    ) -> None:
        self.agent = agent
        self.run = run
        self.roles = roles
        self.lease_s = lease_s
        self.attempts_max = attempts_max
        self.follow_ups = follow_ups
        self.prepare = prepare
        self.choose = choose
        self.completed = 0
        self.board = Board(run)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.agent.agent_id

    async def work(self) -> int:
        """Work until the plan is over. How many tasks this agent completed."""
        async with self.agent._playing() as parts:
            await self.board.load(parts.host.log, parts.host.state.position)
            await self.agent.tuning.restore(parts.host.log, self.run)
            parts.host.tail.observe(self.board.observe)
            try:
                claims = Claims(parts.host, self.run, lease_s=self.lease_s)
                while (task := await self._take(parts, claims)) is not None:
                    await self._do(parts, claims, task)
            finally:
                parts.host.tail.unobserve(self.board.observe)
        return self.completed

    # --- taking --------------------------------------------------------------------------------------------------

    async def _take(self, parts: Parts, claims: Claims) -> SubTask | None:
        """The next task, claimed; None once the plan is over."""
        async with running(parts.host.tail.follow()):
            while True:
                await parts.host.tail.catch_up()
                await self._settle(parts)
                plan = claims.plan
                if plan is None or plan.status != "running" or self.board.complete(plan):
                    return None
                if self.board.stuck(plan, self.attempts_max):
                    return None
                mine = [name for name in plan.held if claims.holds(name, self.name)]
                ready = self.board.ready(plan, self.roles, self.attempts_max)
                if mine and mine[0] in self.board.tasks:
                    return self.board.tasks[mine[0]]
                earlier = [task for task, held in plan.held.items() if held.agent == self.name]
                if earlier and earlier[0] in self.board.tasks:
                    task = self.board.tasks[earlier[0]]  # of an earlier life of this agent: it goes on
                elif ready:
                    task = self._chosen(ready)
                else:
                    await self._wait(parts, claims)
                    continue
                if await claims.take(task.name, self.name):
                    return task

    async def _settle(self, parts: Parts) -> None:
        """Settle what this agent began, perhaps in an earlier life, in a run that was stopped under it."""
        for action in parts.recoverer.due(parts.host.state):
            try:
                await parts.recoverer.settle(action)
            except ConditionFailed:
                continue  # somebody else was faster

    def _chosen(self, ready: list[SubTask]) -> SubTask:
        """Which of the ready tasks: not all agents the same one, or all but one would ask in vain."""
        if self.choose is not None:
            return self.choose(self.agent, ready)
        return ready[sum(map(ord, self.name)) % len(ready)]

    async def _wait(self, parts: Parts, claims: Claims) -> None:
        before = self.board.version

        def changed(state: State) -> bool:
            plan = state.runs.get(self.run)
            return self.board.version != before or plan is None or plan.status != "running"

        if not await parts.host.tail.until(changed, LOOK_S):
            await claims.end_the_lost(self.name)

    # --- doing ---------------------------------------------------------------------------------------------------

    async def _do(self, parts: Parts, claims: Claims, task: SubTask) -> None:
        try:
            async with running(self._renew(claims, task)):
                answer, why = await self._tried(parts, task)
                if answer is None and await self._settled(parts, claims, task):
                    return  # it went on as soon as somebody said what had happened: the run goes on, too
        except _Lost:
            return  # somebody else has the task now, and what was begun here was stopped
        except (RunStopped, LogError, Fenced, ReadOnlyIncarnation):
            if claims.plan is None or not claims.holds(task.name, self.name):
                return
            raise
        if answer is None:
            await self._failed(claims, task, why)
            return
        before: list[NewEntry] = []
        more = list(self.follow_ups(task, answer)) if self.follow_ups is not None else []
        if more:
            tasks = [
                one if isinstance(one, SubTask) else SubTask(name=f"{task.name}.{place}", text=one)
                for place, one in enumerate(more, start=1)
            ]
            notice = notice_of(TASKS, tasks, self.run, f"{len(tasks)} tasks follow {task.name}")
            before.append(parts.host.entry(notice, "driver", self.name, run=self.run))
        if await claims.complete(task.name, self.name, answer.position, before=before):
            self.completed += 1

    async def _tried(self, parts: Parts, task: SubTask) -> tuple[Answer | None, str]:
        """The agent's answer, or None and why there is none. What ends the whole work is raised."""
        try:
            answer = await self._answered(parts, task)
        except (RunStopped, LogError, Fenced, ReadOnlyIncarnation):
            raise
        except LogActError as error:
            return None, str(error)
        return (answer, "") if answer.ok else (None, answer.reason or "the work came to nothing")

    async def _settled(self, parts: Parts, claims: Claims, task: SubTask) -> bool:
        """Keep the task while something of it may have happened that must not happen twice. Whether it was so."""
        waited = False
        async with running(parts.host.tail.follow()):
            while claims.holds(task.name, self.name) and (action := claims.unsettled(self.name)):
                waited = True
                await claims.tell(task.name, self.name, action)
                await self._settle(parts)
                await parts.host.tail.until(lambda _: claims.unsettled(self.name) != action, LOOK_S)
        return waited

    async def _renew(self, claims: Claims, task: SubTask) -> None:
        """Renew the claim until cancelled; ends the work if it was lost."""
        while True:
            await environment.current().sleep(self.lease_s / 3)
            try:
                async with asyncio.timeout(self.lease_s):
                    held = claims.holds(task.name, self.name) and await claims.take(task.name, self.name)
            except (LogError, TimeoutError):
                continue  # the log is away: nobody else can take the task either
            if not held:
                raise _Lost(task.name)

    async def _answered(self, parts: Parts, task: SubTask) -> Answer:
        """The agent's answer to a task: an earlier life's, if it gave one, or a run that goes on, or a new one."""
        text = await self._text(parts, task)
        mine = [
            run
            for run in parts.host.state.runs.values()
            if (run.agent, run.parent) == (self.name, self.run) and run.title.partition("\n")[0] == _headline(task)
        ]
        plan = parts.host.state.runs[self.run]
        for run in mine:
            if run.status == "finished" and run.ok and run.output not in plan.done.values():
                output = (await parts.host.log.get(run.output)).payload
                if isinstance(output, Output):
                    return Answer(run=run.id, text=output.text, value=output.value, ok=True, position=run.output)
            if run.status == "running":
                return await self.agent.run(run.title, parent=self.run)
        return await self.agent.run(text, parent=self.run, new=True)

    async def _text(self, parts: Parts, task: SubTask) -> str:
        """What the agent is told: the task, the results that it needs, and what is prepared for it."""
        said = [_headline(task), task.text]
        plan = parts.host.state.runs[self.run]
        for name in task.after:
            output = (await parts.host.log.get(plan.done[name])).payload
            if isinstance(output, Output):
                said.append(f"[Result of {name}]\n{output.text[:RESULT_CHARS_MAX]}")
        if self.prepare is not None:
            said.append(await self.prepare(self.agent, task))
        return "\n".join(part for part in said if part)

    async def _failed(self, claims: Claims, task: SubTask, reason: str) -> None:
        data = {"task": task.name}
        notice = Notice(code=FAILED, message=reason[:1000], agent=self.name, run=self.run, data=data)
        await claims.give_back(task.name, self.name, why=notice)


class _Lost(Exception):
    """The claim is somebody else's."""


def _headline(task: SubTask) -> str:
    return f"Task {task.name}"
