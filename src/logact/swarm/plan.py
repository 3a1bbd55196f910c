"""The plan of a swarm as the log has it: which sub-tasks there are, what each waits for, how often it failed.

A ``Board`` is folded from the plan's own entries; who holds a task and what is done, the fold of the log says. It
appends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from logact.core.state import RunState, State
from logact.entry import Entry, Notice
from logact.errors import SpecError
from logact.logs.base import SharedLog, where

PLAN, TASKS, FAILED = "swarm_plan", "swarm_tasks", "swarm_task_failed"
"""The codes of the notices that make up a plan: its beginning, further tasks, an attempt that came to nothing."""

SPOKESMEN = ("client", "driver")
"""The roles whose word about a plan counts."""


class SubTask(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One part of a task. ``after`` are the tasks whose results it needs (it is told them), ``role`` is who may do
    it ("": anybody), ``keep`` says what it belongs to: tasks of one kind are kept on one agent where that is asked.
    """

    name: str
    text: str
    after: tuple[str, ...] = ()
    role: str = ""
    keep: str = ""


def as_plan(given: Iterable[SubTask | str]) -> tuple[SubTask, ...]:
    """A plan from tasks and plain texts. SpecError if two have one name, or one waits for what never comes."""
    tasks = tuple(
        one if isinstance(one, SubTask) else SubTask(name=f"{place:03}", text=one)
        for place, one in enumerate(given, start=1)
    )
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError("Two tasks of a plan have one name", received=", ".join(twice))
    missing = sorted({name for task in tasks for name in task.after if name not in names})
    if missing:
        raise SpecError("A task waits for one that is not in the plan", received=", ".join(missing))
    done: set[str] = set()
    while len(done) < len(tasks):
        ready = [task.name for task in tasks if task.name not in done and done.issuperset(task.after)]
        if not ready:
            raise SpecError("Tasks of the plan wait for each other", received=", ".join(sorted(set(names) - done)))
        done.update(ready)
    return tasks


def in_order(given: Iterable[SubTask | str]) -> tuple[SubTask, ...]:
    """The same tasks as a chain: each waits for the one before it, and is handed that one's result."""
    tasks = as_plan(given)
    return tuple(
        msgspec.structs.replace(task, after=(*task.after, tasks[place - 1].name)) if place else task
        for place, task in enumerate(tasks)
    )


class Board:
    """The tasks of one plan, as far as one process has read. ``version`` grows with everything that concerns it."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.tasks: dict[str, SubTask] = {}
        self.failures: dict[str, list[str]] = {}
        self.version = 0
        self._seen = 0

    async def load(self, log: SharedLog, upto: int) -> None:
        """Read what stands in the log up to a position; from there on ``observe`` is told."""
        matching = where(kinds=["Notice"], runs=[self.run])
        async for entry in log.read(self.run - 1, upto=upto, matching=matching):
            self.take(entry)
        self._seen = max(self._seen, upto)

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry of the log."""
        if entry.position <= self._seen or state.verdict:
            return
        if entry.run == self.run:
            self.version += 1
            self.take(entry)

    def take(self, entry: Entry) -> None:
        """What an entry of the plan says."""
        notice = entry.payload
        if not isinstance(notice, Notice) or entry.author.role not in SPOKESMEN:
            return
        if notice.code in (PLAN, TASKS):
            for task in _tasks(notice.data):
                self.tasks.setdefault(task.name, task)
        elif notice.code == FAILED:
            self.failures.setdefault(str(notice.data.get("task")), []).append(notice.message)

    def ready(self, run: RunState, roles: frozenset[str], attempts_max: int) -> list[SubTask]:
        """The tasks that somebody with these roles may take now, in the plan's order."""
        return [
            task
            for task in self.tasks.values()
            if task.name not in run.done
            and task.name not in run.held
            and all(name in run.done for name in task.after)
            and (not task.role or task.role in roles)
            and len(self.failures.get(task.name, ())) < attempts_max
        ]

    def complete(self, run: RunState) -> bool:
        """Whether every task is done."""
        return bool(self.tasks) and all(name in run.done for name in self.tasks)

    def stuck(self, run: RunState, attempts_max: int) -> list[str]:
        """The tasks that nobody tries any more, if nothing else is left to do."""
        given_up = [
            name for name in self.tasks if name not in run.done and len(self.failures.get(name, ())) >= attempts_max
        ]
        if run.held or not given_up:
            return []
        blocked = set(given_up)
        while more := {
            task.name for task in self.tasks.values() if task.name not in blocked and blocked & set(task.after)
        }:
            blocked |= more
        return given_up if all(name in run.done or name in blocked for name in self.tasks) else []


def notice_of(code: str, tasks: Iterable[SubTask], run: int, message: str = "") -> Notice:
    """The entry that says which tasks there are."""
    given = [msgspec.to_builtins(task) for task in tasks]
    return Notice(code=code, message=message or f"{len(given)} tasks", run=run, data={"tasks": given})


def _tasks(data: dict[str, Any]) -> list[SubTask]:
    try:
        return msgspec.convert(data.get("tasks", []), list[SubTask])
    except msgspec.ValidationError:
        return []  # anybody may write a notice; one that says nothing useful adds nothing
