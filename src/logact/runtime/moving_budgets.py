"""Moves what a log's runs may still use to its fork, so that it is never in two logs.

What was used at home after the fork's point is taken off. What is left goes to the fork, and nothing stays at home;
or it all stays at home. Home loses it in an entry that takes effect before the fork is complete: a crash in between
costs a budget, and never doubles one. Only a person gives one again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from logact.core import forking, machine
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import (
    Compaction,
    Control,
    Entry,
    Fork,
    Inference,
    Intent,
    Limits,
    NewEntry,
    Payload,
    Spent,
    Usage,
    Vote,
    record_of,
)
from logact.errors import ConditionFailed, LogUnavailable
from logact.logs.base import Condition, SharedLog, where

TRIES_MAX = 50

USING = ("Run", "Input", "Intent", "Inference", "Compaction", "Vote", "Control", "Fork")
"""What may change what is left; home loses it only if none of it came since it was counted."""

SUMS_MAX = 10_000
"""So many sums of arguments are told apart; what comes after that is not in them, and no budget goes to the fork."""


class Moving:
    """One fork's share: ``state`` is the fork's fold at its point, ``closed`` what was closed there."""

    def __init__(self, source: SharedLog, state: State, closed: list[int], *, fork: str, at: int, name: str) -> None:
        self.source = source
        self.state = state
        self.closed = frozenset(closed)
        self.fork = fork
        self.at = at
        self.name = name

    async def settle(self, *, keep_parent: bool) -> tuple[list[int], Fork]:
        """Take it from home, unless it stays there. Returns the runs paused there, and the last entry of the fork.

        LogUnavailable if others never stop writing long enough.
        """
        limited = [run.id for run in self.state.runs.values() if forking.left(run) and run.status != "stopped"]
        base = Fork(step="done", fork=self.fork, parent=self.source.log_id, at=self.at)
        if keep_parent:
            return [], msgspec.structs.replace(base, empty=tuple(limited), voters=True)
        for _ in range(TRIES_MAX):
            home, spent, whole = await self._home()
            limits, empty = self._shares(home, limited)
            gone = home.budgets_at > 0 or not whole
            done = msgspec.structs.replace(base, limits=limits, empty=tuple(empty), voters=gone, spent=spent)
            paused = [
                run.id
                for run in self.state.runs.values()
                if run.status == "running" and run.context and _runs_at_home(home, run.id)
            ]
            given = tuple(run for run in limited if run in home.runs and any(forking.left(home.runs[run]).values()))
            moved = msgspec.structs.replace(base, step="moved", empty=given, voters=home.budgets_at == 0)
            reason = f"its budget was moved to the fork {self.fork}"
            controls = [Control(verb="pause", scope=f"run:{run}", reason=reason) for run in paused]
            condition = Condition(home.position, where(kinds=USING))
            try:
                await self.source.append(*self._said(moved, *controls), condition=condition)
            except ConditionFailed:
                continue
            return paused, done
        raise LogUnavailable(
            "The parent's budgets could not be moved",
            received=f"{TRIES_MAX} tries, each overtaken by what was appended meanwhile",
            todo="pause the parent, or keep them there (--keep-parent); the fork is not complete: delete it",
        )

    def held(self, done: Fork) -> list[int]:
        """The runs that would go on in the fork and have nothing left there."""
        runs = (self.state.runs[run] for run in done.empty)
        return [run.id for run in runs if run.status == "running" and f"run:{run.id}" not in self.state.paused]

    def _said(self, *payloads: Payload) -> list[NewEntry]:
        return [NewEntry(payload=one, role="operator", name=self.name) for one in payloads]

    def _shares(self, home: State, limited: list[int]) -> tuple[dict[str, Limits], list[int]]:
        """What each run may use in the fork in all, and the runs that get nothing."""
        limits, empty = {}, []
        for key in limited:
            run, there = self.state.runs[key], home.runs.get(key)
            rest = forking.left(there) if there is not None else {}
            share = {name: rest.get(name, 0) for name in forking.left(run)}
            if all(share.values()):
                limits[str(key)] = forking.granted(run, share)
            else:
                empty.append(key)
        return limits, empty

    async def _home(self) -> tuple[State, tuple[Spent, ...], bool]:
        """Home as it stands now, and what was used there after the point, or was open and is closed in the fork."""
        state = machine.initial(self.source.log_id)
        counts = _Counts()
        last = record_of(self.at)
        async for entry in self.source.read():
            state = machine.apply(state, entry)
            if not state.verdict and (record_of(entry.position) > last or entry.position in self.closed):
                counts.add(state, entry)
        return state, counts.spent(), counts.whole


def _runs_at_home(home: State, run: int) -> bool:
    known = home.runs.get(run)
    return known is not None and known.status == "running" and f"run:{run}" not in home.paused


class _Counts:
    """What entries used, by agent, run and tool."""

    def __init__(self) -> None:
        self.whole = True
        self._actions: dict[tuple[str, int, str], int] = {}
        self._sums: dict[tuple[str, int, str], dict[str, float]] = {}
        self._tokens: dict[tuple[str, int], tuple[int, float | None]] = {}

    def add(self, state: State, entry: Entry) -> None:
        payload = entry.payload
        if isinstance(payload, Intent):
            self._intent(payload)
        elif isinstance(payload, Inference | Compaction):
            self._usage(state, payload.run, entry.agent, payload.usage)
        elif isinstance(payload, Vote) and payload.usage is not None:
            self._usage(state, entry.run, entry.agent, payload.usage)

    def spent(self) -> tuple[Spent, ...]:
        tools = [
            Spent(agent, run, tool, count, self._sums[agent, run, tool])
            for (agent, run, tool), count in self._actions.items()
        ]
        models = [
            Spent(agent, run, tokens=tokens, usd=usd)
            for (agent, run), (tokens, usd) in self._tokens.items()
            if tokens
        ]
        return (*tools, *models)

    def _intent(self, intent: Intent) -> None:
        if intent.tool == ANSWER:
            return
        key = (intent.agent, intent.run, intent.tool)
        self._actions[key] = self._actions.get(key, 0) + 1
        sums = self._sums.setdefault(key, {})
        for path, amount in _amounts(intent.arguments):
            sums[path] = sums.get(path, 0) + amount
        self.whole = self.whole and sum(map(len, self._sums.values())) <= SUMS_MAX

    def _usage(self, state: State, run: int, agent: str, usage: Usage) -> None:
        known = state.runs.get(run)
        key = (known.agent if known is not None else agent, run)
        tokens, usd = self._tokens.get(key, (0, 0.0))
        more = usage.input_tokens + usage.output_tokens
        unknown = usd is None or (usage.cost_usd is None and more > 0)
        self._tokens[key] = tokens + more, None if unknown else (usd or 0.0) + (usage.cost_usd or 0.0)


def _amounts(arguments: Mapping[str, Any], path: str = "") -> list[tuple[str, float]]:
    """The numbers from 0 among arguments, each under its path (``a.b``)."""
    found: list[tuple[str, float]] = []
    for name, value in arguments.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            found += _amounts(value, here)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value):
            found.append((here, value))
    return found
