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
from logact.core.state import RunState, State
from logact.entry import Limits, NewEntry, Notice, Output
from logact.errors import ConditionFailed, Fenced, LogActError, LogError, ReadOnlyIncarnation, RunStopped
from logact.introspection.tuning import WHOLE
from logact.models.base import Model
from logact.swarm.claims import Claims
from logact.swarm.handover import summary
from logact.swarm.plan import FAILED, TASKS, Attempts, Board, notice_of
from logact.swarm.tasks import SubTask, part_of

LOOK_S = 1.0
"""How often an idle worker looks for claims whose holder is gone."""

THREAD_LOOK_S = 0.05
"""How often a worker at its end looks whether its threads have ended."""

RESULT_CHARS_MAX = 8000
"""How much of an earlier result a later task is handed where it is not summed up; the log holds all of it."""

CONVERSATION_TOKENS_MAX = 20_000
"""A conversation is not gone on with for another task once its context is so long."""

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
        attempts: Attempts,
        follow_ups: FollowUps | None = None,
        prepare: Prepare | None = None,
        together: bool = False,
        handover: Model | None = None,
    ) -> None:
        self.agent = agent
        self.run = run
        self.roles = roles
        self.lease_s = lease_s
        self.attempts = attempts
        self.follow_ups = follow_ups
        self.prepare = prepare
        self._together = together
        self.handover = handover
        self.completed = 0
        self.board = Board(run)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.agent.agent_id

    @property
    def _plan(self) -> RunState | None:
        """The plan's run as this agent's process has it."""
        parts = self.agent._parts
        return parts.host.state.runs.get(self.run) if parts is not None else None

    @property
    def together(self) -> bool:
        """Whether related tasks are kept on this agent."""
        return self._together or self.agent.tuning.together

    async def work(self) -> int:
        """Work until the plan is over. How many tasks this agent completed."""
        async with self.agent._playing() as parts:
            self.board = await Board.of(parts.host.tail, self.run)
            claims = Claims(parts.host, self.run, lease_s=self.lease_s)
            while (task := await self._take(parts, claims)) is not None:
                await self._do(parts, claims, task)
            await self._let_end(parts)
        return self.completed

    async def _let_end(self, parts: Parts) -> None:
        """Wait for threads whose task was lost, for the agent's lease at most (the claim's, if it has none).

        What they were at is settled then: no next life may come.
        """
        env = parts.host.env
        end = env.monotonic() + (self.agent.lease_s or self.lease_s)
        while parts.executor.at_work() and env.monotonic() < end:
            await env.sleep(THREAD_LOOK_S)
        await self._settle(parts)

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
                if self.board.stuck(plan, self.attempts):
                    return None
                mine = [name for name in plan.held if claims.holds(name, self.name)]
                ready = self.board.ready(plan, self.roles, self.attempts)
                if mine and mine[0] in self.board.tasks:
                    return self.board.tasks[mine[0]]
                earlier = [task for task, held in plan.held.items() if held.agent == self.name]
                if earlier and earlier[0] in self.board.tasks:
                    task = self.board.tasks[earlier[0]]  # of an earlier life of this agent: it goes on
                    if self.board.given_up(plan, task.name, self.attempts) and await claims.end(task.name, self.name):
                        continue
                elif ready:
                    task = self._chosen(ready)
                else:
                    await self._wait(parts, claims)
                    continue
                if await claims.take(task.name, self.name):
                    return task

    async def _settle(self, parts: Parts) -> None:
        """Settle what this agent began, perhaps in an earlier life, in a run that was stopped under it."""
        await parts.executor.give_up_unbegun()
        for action in parts.recoverer.due(parts.host.state):
            try:
                await parts.recoverer.settle(action)
            except ConditionFailed:
                continue  # somebody else was faster

    def _chosen(self, ready: list[SubTask]) -> SubTask:
        """Which of the ready tasks: not all agents the same one, or all but one would ask in vain."""
        if self.together:
            return self.board.related.chosen(self.name, ready, self.board.tasks)
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
                if claims.unsettled(self.name) and self._begun(parts, task) is None:
                    answer, why = None, "an earlier life of its worker ended, and what it began was not settled"
                else:
                    answer, why = await self._tried(parts, task)
                if answer is None and await self._settled(parts, claims, task) and self._begun(parts, task):
                    return  # somebody said what had happened, and the work goes on; one that is over has failed
        except _Lost:
            return  # somebody else has the task now, and what was begun here was stopped
        except (RunStopped, LogError, Fenced, ReadOnlyIncarnation) as error:
            if claims.plan is None or not claims.holds(task.name, self.name):
                return
            if isinstance(error, RunStopped) and not self._was_told_to_stop(parts):
                return  # the claim lapsed and was renewed in one breath: the work under it begins anew
            raise
        if answer is None:
            await self._failed(claims, task, why)
            return
        before = await self._handed_on(parts, task, answer)
        more = list(self.follow_ups(task, answer)) if self.follow_ups is not None else []
        if more:
            tasks = [
                one if isinstance(one, SubTask) else SubTask(name=f"{task.name}.{place}", text=one)
                for place, one in enumerate(more, start=1)
            ]
            notice = notice_of(TASKS, self.board.further(tasks), self.run, f"{len(tasks)} tasks follow {task.name}")
            before.append(parts.host.entry(notice, "driver", self.name, run=self.run))
        if await claims.complete(task.name, self.name, answer.position, before=before):
            self.completed += 1

    def _was_told_to_stop(self, parts: Parts) -> bool:
        """Whether somebody stopped this agent's work; a claim that lapses ends it, too."""
        works = [work.id for work in self._works(parts)]
        return any(parts.host.state.control_over(self.name, work) for work in [*works, self.run])

    async def _handed_on(self, parts: Parts, task: SubTask, answer: Answer) -> list[NewEntry]:
        """The summary of a result that others wait for, where results are summed up."""
        model = (
            self.handover if self.handover is not None else self.agent.model if self.agent.tuning.sums_up else None
        )
        needed = any(task.name in other.after for other in self.board.tasks.values())
        if model is None or not needed:
            return []
        notice = await summary(model, task.name, answer.text, self.run, answer.position, work=answer.run)
        return [parts.host.entry(notice, "driver", self.name, run=self.run)] if notice is not None else []

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
        run = self._begun(parts, task)
        if run is not None and run.status == "running":
            return await self.agent.run(run.title, parent=self.run)
        if run is not None:
            output = (await parts.host.log.get(run.output)).payload
            if isinstance(output, Output):
                return Answer(run=run.id, text=output.text, value=output.value, ok=True, position=run.output)
        text = await self._text(parts, task)
        before = [run for run in self._works(parts) if self._goes_on_with(run, task)] if self.together else []
        if before:
            await parts.host.tail.catch_up()
            if not Claims(parts.host, self.run).holds(task.name, self.name):
                raise _Lost(task.name)
            return await self.agent.send(text + self._changed(before[-1]), before[-1].id)
        return await self.agent.run(text, parent=self.run, new=True)

    def _works(self, parts: Parts) -> list[RunState]:
        """This agent's runs for the plan."""
        return [one for one in parts.host.state.runs.values() if (one.agent, one.parent) == (self.name, self.run)]

    def _begun(self, parts: Parts, task: SubTask) -> RunState | None:
        """The run for a task that is under way, or whose answer completed nothing yet."""
        plan = self._plan
        done = plan.done.values() if plan is not None else ()
        for run in self._works(parts):
            over = run.status == "stopped" or (run.status == "finished" and (run.output in done or not run.ok))
            if not over and self._task_of(run) == task.name:
                return run
        return None

    def _task_of(self, run: RunState) -> str:
        """The task that a run is at: what it was told last, if it is a conversation about several."""
        told = self.board.related.told.get(run.id)
        return told[-1] if told else part_of(run.title)

    def _goes_on_with(self, run: RunState, task: SubTask) -> bool:
        """Whether a task is told as a further message of an earlier run: a related one, and not too long."""
        plan, board = self._plan, self.board
        if plan is None or run.status != "finished" or not run.ok or run.limits != Limits():
            return False
        if run.context_tokens > CONVERSATION_TOKENS_MAX or run.output not in plan.done.values():
            return False
        mine = [board.tasks[name] for name in board.related.told.get(run.id, ()) if name in board.tasks]
        return any(board.related.tie(task, other, board.tasks.values()) > 0 for other in mine)

    def _changed(self, run: RunState) -> str:
        """Says what others may have changed of what this conversation has read."""
        related = self.board.related
        changed = related.changed(related.told.get(run.id, ()), self.name, run.last)
        return f"\n[Perhaps changed by others since you read it: {', '.join(changed)}]" if changed else ""

    async def _text(self, parts: Parts, task: SubTask) -> str:
        """What the agent is told: the task, the results that it needs, and what is prepared for it."""
        said = [f"Task {task.name}", task.text]
        plan = parts.host.state.runs[self.run]
        for name in task.after:
            at = plan.done[name]
            short = self.board.summaries.get(name)
            if short is not None:
                said.append(f"[Result of {name}]\n{short}\n[in short; the whole: {WHOLE} with position {at}]")
                continue
            output = (await parts.host.log.get(at)).payload
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
