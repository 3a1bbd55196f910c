"""What a log says of its swarms: each task, who has it, since when, what it came to and what it cost.

It folds the log and changes nothing.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from logact.entry import Claim, Entry, Input, Notice, Run
from logact.errors import UsageError
from logact.introspection.exporting import effective
from logact.introspection.history import history
from logact.introspection.token_reading import Spending, spending
from logact.introspection.tokens import saving
from logact.introspection.trials import SPOKESMEN
from logact.introspection.tuning import APPLIED, UNDONE
from logact.logs.base import SharedLog
from logact.swarm.answers import SHARED
from logact.swarm.plan import PLAN, UNLIMITED, Board
from logact.swarm.tasks import part_of


class TaskLook(msgspec.Struct, frozen=True, kw_only=True):
    """One task: how it stands (``waiting``, ``ready``, ``held``, ``done``) and whose it is.

    ``claims`` counts how often somebody began, ``lapses`` claims that were ended since their holder was gone,
    ``failures`` are the reasons of attempts that came to nothing, ``tokens`` are of all attempts.
    """

    name: str
    text: str
    status: str
    agent: str = ""
    claims: int = 0
    failures: tuple[str, ...] = ()
    lapses: int = 0
    result: int = 0
    tokens: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was applied to save tokens, and what tokens per answer of its agent were before and after it.

    ``beside`` are the agent's other changes that came with it, without an answer in between: what was saved, they
    saved together.
    """

    position: int
    agent: str
    kind: str
    title: str
    undone: bool = False
    beside: tuple[int, ...] = ()
    before: float = 0.0
    after: float = 0.0
    saved_pct: float | None = None


class SwarmLook(msgspec.Struct, frozen=True, kw_only=True):
    """A swarm's task as its log has it."""

    run: int
    swarm: str
    title: str
    status: str
    tasks: tuple[TaskLook, ...]
    completed: dict[str, int] = {}
    tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = 0.0
    shared_answers: int = 0
    changes: tuple[Change, ...] = ()


async def look(log: SharedLog, run: int = 0) -> SwarmLook:
    """The swarm's task of a run (0: the last one of the log). UsageError if there is none."""
    every = await effective(log)
    seen = [entry for entry in every if isinstance(entry.payload, Claim | Notice | Run | Input)]
    plans = [entry.run for entry in seen if isinstance(entry.payload, Notice) and entry.payload.code == PLAN]
    state = (await history(log)).state
    chosen = run or (plans[-1] if plans else 0)
    plan = state.runs.get(chosen)
    if plan is None or chosen not in plans:
        raise UsageError(
            "The log holds no such task of a swarm",
            received=(f"run {run}" if run else "a log without one")
            + (f", whose entries before position {begins} were trimmed" if (begins := await log.begins()) else ""),
            expected=", ".join(map(str, plans)) or "what `logact swarm run` begins",
        )
    board = Board(chosen)
    for entry in seen:
        if entry.position >= chosen:
            if entry.run == chosen:
                board.take(entry)
            board.related.take(entry)
    workers = {said.agent for one in seen if isinstance(said := one.payload, Run) and said.parent == chosen}
    found = await spending(log, workers)
    works = [work for work in found.works.values() if work.parent == chosen]
    claims = [said for one in seen if isinstance(said := one.payload, Claim) and said.run == chosen]
    held = {name: one.agent for name, one in plan.held.items()}
    by = {said.task: said.agent for said in claims if said.result}
    ready = {one.name for one in board.ready(plan, frozenset(one.role for one in board.tasks.values()), UNLIMITED)}
    spent = _by_task(found, seen, chosen)
    tasks = tuple(
        TaskLook(
            name=name,
            text=task.text,
            status="done"
            if name in plan.done
            else "held"
            if name in held
            else "ready"
            if name in ready
            else "waiting",
            agent=by.get(name) or held.get(name, ""),
            claims=_begun(claims, name),
            failures=tuple(board.failures.get(name, ())),
            lapses=sum(1 for said in claims if said.task == name and said.lapses),
            result=plan.done.get(name, 0),
            tokens=spent[name],
        )
        for name, task in board.tasks.items()
    )
    costs = [work.usage.cost_usd for work in works]
    return SwarmLook(
        run=chosen,
        swarm=plan.agent,
        title=plan.title,
        status=plan.status,
        tasks=tasks,
        completed=dict(sorted(Counter(by.values()).items())),
        tokens=sum(work.tokens for work in works),
        cached_tokens=sum(work.usage.cached_tokens for work in works),
        usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        shared_answers=sum(1 for one in seen if isinstance(said := one.payload, Notice) and said.code == SHARED),
        changes=_changes(found, seen, workers),
    )


def _begun(claims: list[Claim], task: str) -> int:
    """How often the task was claimed by somebody who did not hold it."""
    count, holder = 0, ""
    for said in claims:
        if said.task != task:
            continue
        if said.release or said.lapses:
            holder = ""
        elif said.agent != holder:
            count, holder = count + 1, said.agent
    return count


def _by_task(found: Spending, seen: list[Entry], plan: int) -> Counter[str]:
    """Tokens by task; those of a conversation about several are shared out among them evenly."""
    told: dict[int, list[str]] = {}
    for entry in seen:
        said = entry.payload
        if isinstance(said, Run) and said.parent == plan:
            told[entry.position] = []
        elif isinstance(said, Input) and entry.run in told and (name := part_of(said.text)):
            told[entry.run].append(name)
    spent: Counter[str] = Counter()
    for run, names in told.items():
        for name in names:
            work = found.works.get(run)
            spent[name] += work.tokens // len(names) if work is not None else 0
    return spent


def _changes(found: Spending, seen: list[Entry], agents: set[str]) -> tuple[Change, ...]:
    undone = {
        said.data.get("undoes")
        for one in seen
        if isinstance(said := one.payload, Notice) and said.code == UNDONE and one.author.role in SPOKESMEN
    }
    applied = [
        (entry.position, said)
        for entry in seen
        if isinstance(said := entry.payload, Notice)
        and said.code == APPLIED
        and said.agent in agents
        and entry.author.role in SPOKESMEN
    ]
    made = []
    for position, said in applied:
        measure = said.data.get("measure")
        kind = measure.get("kind", "") if isinstance(measure, dict) else ""
        mine = Spending(works={key: work for key, work in found.works.items() if work.agent == said.agent})
        others = [at for at, one in applied if one.agent == said.agent and at != position]
        shown = saving(mine, position)
        made.append(
            Change(
                position=position,
                agent=said.agent,
                kind=str(kind),
                title=said.message,
                undone=position in undone,
                beside=tuple(at for at in others if _together(mine, at, position)),
                before=shown.tokens_before,
                after=shown.tokens_after,
                saved_pct=shown.saved_pct,
            )
        )
    return tuple(made)


def _together(mine: Spending, one: int, other: int) -> bool:
    """Whether no work of the agent began or ended between two positions."""
    first, last = sorted((one, other))
    return not any(first < at < last for work in mine.works.values() for at in (work.run, work.output))


__all__ = ["Change", "SwarmLook", "TaskLook", "look"]
