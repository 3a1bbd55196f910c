"""Has a model split a task, and lets nothing through that agents could not work on: a voter judges each plan.

A plan that is refused is an abort in the log, with its reason; the model is told it, and tries again a few times.
What the tasks then do, the voters of the agents that do them judge. It writes no plan down: ``Swarm.start`` does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from logact.agent import LogActAgent
from logact.agent_results import Answer
from logact.core.settling import ANSWER
from logact.core.views import LogEntry
from logact.entry import Limits, Output, Vote
from logact.errors import RunFinished, SpecError
from logact.introspection.token_reading import HANDED
from logact.logs.base import SharedLog, where
from logact.models.base import Model
from logact.swarm.plan import as_plan
from logact.swarm.tasks import SubTask
from logact.voters.base import Voter

PLANS_MAX = 6
"""So many answers a planner may give to one task before it is given up."""

PLANNED_MAX = 100
"""A model may split a task into so many; whoever wants more gives a plan, or a function as the planner."""

TEXT_CHARS_MAX = 8000
"""The text of one task of a model's plan may be so long."""

PLANNER_SYSTEM = """\
You split a task into sub-tasks that several agents can do at the same time. Give each a short unique name and a text
that can be understood on its own. Name under "after" the tasks whose results it needs. Use as few tasks as sensible.
"""


class PlanVoter(Voter):
    """Refuses a model's plan that cannot be worked on: doubled names, circles, roles that nobody plays, too much."""

    kind = "plan"
    quick = True

    def __init__(self, roles: Collection[str], name: str = "plan") -> None:
        super().__init__(name)
        self.roles = sorted(roles)

    def config(self) -> dict[str, Any]:
        """What a plan is held against."""
        return {"roles": self.roles, "tasks": PLANNED_MAX, "chars": TEXT_CHARS_MAX}

    def check(self, entry: LogEntry) -> Vote:
        """Approve a plan that can be worked on, and an answer that is none because a limit was reached."""
        given = entry.action.arguments
        if entry.action.tool != ANSWER or "gave_up" in given:
            return Vote(approved=True, reason="no plan")
        try:
            plan = as_plan(msgspec.convert(given.get("value"), list[SubTask]))
        except (SpecError, msgspec.ValidationError) as error:
            return _no(str(error))
        if not plan:
            return _no("The plan has no tasks")
        if len(plan) > PLANNED_MAX:
            return _no(f"The plan has {len(plan)} tasks; at most {PLANNED_MAX} are allowed")
        for task in plan:
            if task.role and task.role not in self.roles:
                known = ", ".join(self.roles) or "none: leave it out"
                return _no(f"Nobody plays the role {task.role!r:.80} of the task {task.name!r}; roles: {known}")
            if len(task.text) > TEXT_CHARS_MAX:
                return _no(f"The text of {task.name!r} has {len(task.text)} characters; at most {TEXT_CHARS_MAX}")
            if HANDED.search(task.text):
                return _no(f"The text of {task.name!r} looks like the result of another task")
        return Vote(approved=True, reason=f"{len(plan)} tasks that can be worked on")


def _no(why: str) -> Vote:
    return Vote(approved=False, reason=why[:1000], hint="Give the whole plan again, without that.")


async def ask(log: SharedLog, name: str, model: Model | str, task: str, roles: Collection[str]) -> list[SubTask]:
    """A model's plan for a task. One that an earlier life, or another process, was given counts again.

    Raises SpecError if no plan came that can be worked on, AgentBusy while another process asks, and ModelError.
    """
    told = f"Roles that a task may be given: {', '.join(sorted(roles))}.\n" if roles else ""
    planner = LogActAgent(
        f"{name}-planner",
        log,
        [PlanVoter(roles)],
        model=model,
        system=PLANNER_SYSTEM + told,
        answer_type=list[SubTask],
        limits=Limits(turns=PLANS_MAX),
    )
    try:
        answer = await planner.run(task)
    except RunFinished:
        answer = await _answered(planner, task) or await planner.run(task, new=True)
    if not answer.ok:
        raise SpecError(
            "The planner gave no plan that can be worked on",
            received=answer.reason,
            todo="see why with `logact actions`; give a plan, or another planner",
        )
    plan: list[SubTask] = answer.value or []
    return plan


async def _answered(planner: LogActAgent, task: str) -> Answer | None:
    """The plan that was given last for this task, if one was."""
    found = None
    runs = (await planner.state()).runs
    async for entry in planner.log.read_kept(matching=where(kinds=["Output"], agents=[planner.agent_id])):
        said = entry.payload
        run = runs.get(entry.run)
        if isinstance(said, Output) and said.ok and run is not None and run.title == task:
            value = msgspec.convert(said.value, list[SubTask])
            found = Answer(run=entry.run, text=said.text, value=value, position=entry.position)
    return found
