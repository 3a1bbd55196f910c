"""The plan of a swarm as the log has it: which sub-tasks there are, what each waits for, how often it failed.

A ``Board`` is folded from the plan's own entries; who holds a task and what is done, the fold of the log says. It
appends nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from logact import codec
from logact.core.claiming import TASKS_MAX
from logact.core.state import RunState, State
from logact.entry import Checkpoint, Entry, Notice
from logact.errors import LogTrimmed, SpecError
from logact.logs.base import Clause, Filter, SharedLog
from logact.runtime.tail import Tail
from logact.swarm.handover import handed
from logact.swarm.related import Related
from logact.swarm.tasks import SubTask

PLAN, TASKS, FAILED = "swarm_plan", "swarm_tasks", "swarm_task_failed"
"""The codes of the notices that make up a plan: its beginning, further tasks, an attempt that came to nothing."""

SPOKESMEN = ("client", "driver")
"""The roles whose word about a plan counts."""


NAME_CHARS_MAX = 200
"""The name of a task stands in one line."""

PLAN_BYTES_MAX = codec.PAYLOAD_BYTES_MAX - 4096
"""The tasks that are written down together are one entry."""


def as_plan(given: Iterable[SubTask | str], known: Collection[str] = ()) -> tuple[SubTask, ...]:
    """A plan from tasks and plain texts, beside tasks that are ``known``.

    SpecError if two have one name, one waits for what never comes, or there is more than a plan can hold.
    """
    tasks = tuple(
        one if isinstance(one, SubTask) else SubTask(name=f"{place:03}", text=one)
        for place, one in enumerate(given, start=1)
    )
    many = len(tasks) + len(known)
    if many > TASKS_MAX:
        raise SpecError("The plan has too many tasks", received=str(many), expected=f"at most {TASKS_MAX}")
    names = Counter(task.name for task in tasks)
    wrong = [name for name in names if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable()]
    if wrong:
        raise SpecError(
            "A task has a name that cannot be used",
            received=repr(wrong[0][:80]),
            expected=f"1 to {NAME_CHARS_MAX} characters in one line",
        )
    twice = sorted(name for name, often in names.items() if often > 1 or name in known)
    if twice:
        raise SpecError("Two tasks of a plan have one name", received=", ".join(twice))
    missing = sorted({name for task in tasks for name in task.after if name not in names and name not in known})
    if missing:
        raise SpecError("A task waits for one that is not in the plan", received=", ".join(missing))
    try:
        TopologicalSorter({task.name: task.after for task in tasks}).prepare()
    except CycleError as error:
        raise SpecError("Tasks of the plan wait for each other", received=", ".join(error.args[1])) from error
    size = len(msgspec.json.encode(tasks))
    if size > PLAN_BYTES_MAX:
        raise SpecError(
            "The plan's texts are too long",
            received=f"{size} bytes",
            expected=f"at most {PLAN_BYTES_MAX}",
            todo="put what is long into files, and name them in the tasks",
        )
    return tasks


def in_order(given: Iterable[SubTask | str]) -> tuple[SubTask, ...]:
    """The same tasks as a chain: each waits for the one before it, and is handed that one's result."""
    tasks = as_plan(given)
    return tuple(
        msgspec.structs.replace(task, after=(*task.after, tasks[place - 1].name)) if place else task
        for place, task in enumerate(tasks)
    )


class Attempts(msgspec.Struct, frozen=True):
    """How often a task is tried: so many attempts may fail, and so many lives may take it up.

    Who dies at a task leaves no failure behind; what kills each life that takes it up would be tried for ever.
    """

    failed_max: int = 3
    lives_max: int = 20


ATTEMPTS = Attempts()
UNLIMITED = Attempts(failed_max=1 << 30, lives_max=1 << 30)


class Board:
    """The tasks of one plan, as far as one process has read. ``version`` grows with everything that concerns it."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.tasks: dict[str, SubTask] = {}
        self.failures: dict[str, list[str]] = {}
        self.summaries: dict[str, str] = {}
        self.related = Related(run)
        self.version = 0
        self.trimmed = 0  # the position before which the plan was trimmed; 0: it is whole
        self._loading = asyncio.Lock()
        self._began: int | None = None  # the position behind which ``observe`` is told everything
        self._behind: list[Entry] | None = []  # what it was told before all in front of that was read

    @classmethod
    async def of(cls, tail: Tail, run: int) -> Board:
        """The board of a plan beside a tail's fold, whole; those who share a fold share it."""
        name = f"plan:{run}"
        tail.beside(name, cls(run))
        board: Board = tail.counted(name)
        await board.load(tail.log, tail.state.position)
        board.check(tail.state.runs.get(run))
        return board

    def check(self, plan: RunState | None) -> None:
        """Raise LogTrimmed for a plan that is worked on and partly gone: nobody could say what is left to do."""
        if self.trimmed and plan is not None and plan.status == "running":
            raise LogTrimmed(
                "The plan of this task was trimmed",
                received=f"run {self.run}",
                expected=f"a task that began at position {self.trimmed} or later",
                todo=f"end it with `logact stop --run {self.run}`, and give the rest of it as another task",
            )

    async def load(self, log: SharedLog, upto: int) -> None:
        """Read what stands in the log up to a position, unless that was done; ``observe`` is told what follows."""
        self._began = upto if self._began is None else self._began
        async with self._loading:
            if self._behind is None:
                return
            plan, works = Clause(runs=(self.run,)), Clause(kinds=("Run", "Input", "Intent", "Claim"))
            begins = await log.begins()
            self.trimmed = begins if begins > self.run else 0
            found = log.read_kept(self.run - 1, upto=self._began, matching=Filter((plan, works)))
            for entry in [entry async for entry in found]:
                self.take(entry)
                self.related.take(entry)
            behind, self._behind = self._behind, None
            for entry in behind:
                self._note(entry)

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry of the log."""
        if state.verdict or (self._began is not None and entry.position <= self._began):
            return
        if self._behind is not None:
            self._behind.append(entry)
        else:
            self._note(entry)

    async def restore(self, checkpoint: Checkpoint | None) -> bool:
        """A plan is looked at from where its readers are; a checkpoint holds nothing of it."""
        return True

    def _note(self, entry: Entry) -> None:
        self.related.take(entry)
        if entry.run == self.run:
            self.version += 1
            self.take(entry)

    def take(self, entry: Entry) -> None:
        """What an entry of the plan says."""
        notice = entry.payload
        if not isinstance(notice, Notice) or entry.author.role not in SPOKESMEN:
            return
        if notice.code in (PLAN, TASKS):
            for task in self.fresh(_tasks(notice.data)):
                self.tasks[task.name] = task
        elif (short := handed(entry)) is not None:
            self.summaries[short[0]] = short[1]
        elif notice.code == FAILED:
            self.failures.setdefault(str(notice.data.get("task")), []).append(notice.message)

    def fresh(self, given: Iterable[SubTask | str]) -> tuple[SubTask, ...]:
        """Further tasks, but for those of names that are taken; none if they would spoil the plan.

        Whoever reads the log comes to the same, so a notice that says nothing sensible adds nothing anywhere.
        """
        try:
            return self.further(given)
        except SpecError:
            return ()

    def further(self, given: Iterable[SubTask | str]) -> tuple[SubTask, ...]:
        """Further tasks, but for those of names that are taken. SpecError if they would spoil the plan."""
        new = [one for one in given if isinstance(one, str) or one.name not in self.tasks]
        return as_plan(new, self.tasks)

    def given_up(self, run: RunState, task: str, attempts: Attempts) -> str:
        """Why nobody begins a task any more ("" if somebody may)."""
        failures = self.failures.get(task, [])
        if len(failures) >= attempts.failed_max:
            return f"it failed {len(failures)} times, the last time since {failures[-1]}"
        if (lives := run.lives.get(task, 0)) >= attempts.lives_max:
            return f"{lives} lives took it up, and none came to its end"
        return ""

    def ready(self, run: RunState, roles: frozenset[str], attempts: Attempts) -> list[SubTask]:
        """The tasks that somebody with these roles may take now, in the plan's order."""
        return [
            task
            for task in self.tasks.values()
            if task.name not in run.done
            and task.name not in run.held
            and all(name in run.done for name in task.after)
            and (not task.role or task.role in roles)
            and not self.given_up(run, task.name, attempts)
        ]

    def complete(self, run: RunState) -> bool:
        """Whether every task is done."""
        return bool(self.tasks) and all(name in run.done for name in self.tasks)

    def stuck(self, run: RunState, attempts: Attempts) -> list[str]:
        """The tasks that nobody tries any more, if nothing else is left to do."""
        given_up = [name for name in self.tasks if name not in run.done and self.given_up(run, name, attempts)]
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
