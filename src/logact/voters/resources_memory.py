"""What has been spent, folded from the log: so no restart, retry or fork can reset a budget.

An action is spent from its intent on, decided or not, so that two that wait can't both have the last unit. It is
given back only if it certainly never started (aborted, expired, cancelled before). A failed one stays spent.

A fork takes along what was left: at home, nothing of it is here any more (``gone``) until a person says otherwise; in
the fork, what was used at home after its point is spent too.

The memory is plain data, and every step gives a new one: hosts keep earlier memories. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from logact.core.acting import AMBIGUOUS
from logact.core.controlling import control_scopes
from logact.core.settling import ANSWER
from logact.entry import (
    Abort,
    Cancel,
    Compaction,
    Control,
    Entry,
    Expiry,
    Fork,
    Inference,
    Intent,
    Recovery,
    Result,
    Run,
    Started,
    Undone,
    Usage,
    Vote,
)

Memory = dict[str, Any]
What = Literal["actions", "tokens", "usd", "seconds", "concurrent", "sum"]
Per = Literal["log", "agent", "run", "tool"]

VALUES_MAX = 1000
"""How many runs (or agents, or tools) one budget remembers; the one that was not used for longest goes first."""

RECENT_MAX = 10_000
"""How many uses one window remembers. A budget that allows more within its window is refused."""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``most`` of ``what``, ``per`` log, agent, run or tool, for tools and agents that fit the globs.

    ``actions``: how many are proposed and not refused. ``sum``: of the argument ``argument`` (an amount of money,
    a number of mails). ``concurrent``: how many are open at once. ``tokens`` and ``usd``: what models used, the
    agent's and the voters'. ``seconds``: wall time since the run (agent, log) began. ``window_s`` makes a rate of
    actions, sum, tokens and usd: the last so many seconds count.
    """

    what: What
    most: float
    per: Per = "run"
    tool: str = "*"
    agent: str = "*"
    window_s: float = 0
    argument: str = ""

    def concerns(self, agent: str, tool: str) -> bool:
        """Whether it speaks of an agent's use of a tool."""
        if tool == ANSWER and self.tool != ANSWER:
            return False  # an answer uses nothing, and a run has to end
        return fnmatchcase(agent, self.agent) and fnmatchcase(tool, self.tool)

    def value(self, agent: str, run: int, tool: str) -> str:
        """Whose budget it is: the name under which its use is counted."""
        return {"log": "", "agent": agent, "run": str(run), "tool": tool}[self.per]

    def amount(self, arguments: Mapping[str, Any]) -> float | None:
        """How much an action takes of it; None if that cannot be told."""
        if self.what != "sum":
            return 1
        found: Any = arguments
        for step in self.argument.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
            return None  # a negative amount would give back what others spent
        return found


class Use(msgspec.Struct, frozen=True):
    """What was used of a budget, when the next of it comes free (ms; 0: never), and whether some use is not known."""

    used: float
    free_ms: float = 0
    unknown: bool = False


def empty(config: str) -> Memory:
    """The memory before any entry, for budgets with this digest."""
    return {"config": config, "began": {}, "runs": {}, "open": {}, "used": {}, "recent": {}}


def used(
    memory: Memory, budget: Budget, number: int, *, agent: str, run: int, tool: str, now_ms: int, position: int = 0
) -> Use:
    """What is used of a budget now, by what came before ``position`` (0: by everything)."""
    value = budget.value(agent, run, tool)
    later = {
        key: one for key, one in memory["open"].items() if position and int(key) >= position
    }  # a memory from a checkpoint may hold the action itself
    if budget.what == "seconds":
        began = memory["runs"].get(str(run), ["", now_ms])[1] if budget.per == "run" else None
        began = memory["began"].get(agent if budget.per == "agent" else "", now_ms) if began is None else began
        return Use(max(0.0, (now_ms - began) / 1000))
    if budget.what == "concurrent":
        return Use(
            sum(
                1
                for key, one in memory["open"].items()
                if key not in later
                and budget.concerns(one["agent"], one["tool"])
                and budget.value(one["agent"], one["run"], one["tool"]) == value
            )
        )
    slot = str(number)
    if budget.window_s:
        since = now_ms - budget.window_s * 1000
        recent = [
            one
            for one in memory["recent"].get(slot, {}).get(value, [])
            if one[0] > since and str(one[2]) not in later
        ]
        known = [one for one in recent if one[1] is not None]
        free_ms = min((one[0] for one in recent), default=0) + budget.window_s * 1000 if recent else 0
        return Use(sum(one[1] for one in known), free_ms, len(known) < len(recent))
    total, unknown = memory["used"].get(slot, {}).get(value, [0, 0])
    for one in later.values():
        for there, whose, amount in one["spent"]:
            if there == slot and whose == value:
                total, unknown = (total - amount, unknown) if amount is not None else (total, unknown - 1)
    return Use(total, 0, unknown > 0)


def elsewhere(memory: Memory, budget: Budget, run: int, now_ms: int) -> str:
    """The log that has what was left of a budget since a fork ("": this one has it)."""
    gone = memory.get("gone")
    if not gone or budget.what in ("seconds", "concurrent"):
        return ""
    position, time_ms, other = gone
    if budget.window_s and now_ms - time_ms >= budget.window_s * 1000:
        return ""  # a rate is each log's own; what was left of the window at that time is used up
    return "" if budget.per == "run" and run >= position else str(other)


def observe(memory: Memory, entry: Entry, budgets: list[Budget]) -> Memory:
    """The memory after one more effective entry."""
    payload = entry.payload
    if isinstance(payload, Run):
        memory = {
            **memory,
            "runs": _with(memory["runs"], str(entry.position), [payload.agent, entry.time_ms]),
        }
        began = {"": entry.time_ms, payload.agent: entry.time_ms, **memory["began"]}
        return {**memory, "began": began}
    if isinstance(payload, Intent):
        return _spend(memory, entry, payload, budgets)
    if isinstance(payload, Inference | Compaction):
        return _tokens(memory, entry, payload.usage, payload.run, budgets)
    if isinstance(payload, Vote):
        return _tokens(memory, entry, payload.usage, entry.run, budgets) if payload.usage is not None else memory
    if isinstance(payload, Started):
        return _started(memory, str(payload.intent))
    if isinstance(payload, Abort | Expiry):
        return _close(memory, str(payload.intent), back=True)
    if isinstance(payload, Fork):
        return _forked(memory, entry, payload, budgets)
    if isinstance(payload, Control) and payload.budgets:
        return {**memory, "gone": None}
    if isinstance(payload, Cancel | Control):
        return _held(memory, payload)
    if isinstance(payload, Undone):
        return memory if payload.error is not None else _close(memory, str(payload.intent))
    if isinstance(payload, Recovery):
        over = payload.settlement in ("happened", "not_happened", "superseded")
        return _close(memory, str(payload.intent)) if over else memory
    if isinstance(payload, Result):
        return _result(memory, payload)
    return memory


def _with(table: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A table with one more value, last; what was not touched for longest is dropped."""
    found = {name: one for name, one in table.items() if name != key}
    found[key] = value
    while len(found) > VALUES_MAX:
        del found[next(iter(found))]
    return found


def _add(memory: Memory, number: int, budget: Budget, entry: Entry, *, value: str, amount: float | None) -> Memory:
    slot = str(number)
    if budget.window_s:
        table = memory["recent"].get(slot, {})
        since = entry.time_ms - budget.window_s * 1000
        recent = [one for one in table.get(value, []) if one[0] > since][-RECENT_MAX:]
        recent.append([entry.time_ms, amount, entry.position])
        return {**memory, "recent": {**memory["recent"], slot: _with(table, value, recent)}}
    table = memory["used"].get(slot, {})
    total, unknown = table.get(value, [0, 0])
    after = [total, unknown + 1] if amount is None else [total + amount, unknown]
    return {**memory, "used": {**memory["used"], slot: _with(table, value, after)}}


def _spend(memory: Memory, entry: Entry, intent: Intent, budgets: list[Budget]) -> Memory:
    if intent.tool == ANSWER:
        return memory
    spent: list[list[Any]] = []
    for number, budget in enumerate(budgets):
        if budget.what not in ("actions", "sum") or not budget.concerns(intent.agent, intent.tool):
            continue
        amount = budget.amount(intent.arguments)
        value = budget.value(intent.agent, intent.run, intent.tool)
        memory = _add(memory, number, budget, entry, value=value, amount=amount)
        spent.append([str(number), value, amount])
    one = {"agent": intent.agent, "run": intent.run, "tool": intent.tool, "effect": intent.effect, "spent": spent}
    return {**memory, "open": {**memory["open"], str(entry.position): one}}


def _tokens(memory: Memory, entry: Entry, usage: Usage | None, run: int, budgets: list[Budget]) -> Memory:
    if usage is None:
        return memory
    agent = memory["runs"].get(str(run), [entry.agent])[0]
    tokens = usage.input_tokens + usage.output_tokens
    for number, budget in enumerate(budgets):
        if budget.what in ("tokens", "usd") and fnmatchcase(agent, budget.agent):
            amount = tokens if budget.what == "tokens" else usage.cost_usd if tokens else 0
            memory = _add(memory, number, budget, entry, value=budget.value(agent, run, ""), amount=amount)
    return memory


def _forked(memory: Memory, entry: Entry, fork: Fork, budgets: list[Budget]) -> Memory:
    for one in fork.spent:
        for number, budget in enumerate(budgets):
            amount: float | None = 0
            if budget.what in ("actions", "sum") and budget.concerns(one.agent, one.tool):
                amount = one.actions if budget.what == "actions" else one.sums.get(budget.argument, 0)
            elif budget.what in ("tokens", "usd") and one.tokens and fnmatchcase(one.agent, budget.agent):
                amount = one.tokens if budget.what == "tokens" else one.usd
            if amount != 0:
                value = budget.value(one.agent, one.run, one.tool)
                memory = _add(memory, number, budget, entry, value=value, amount=amount)
    other = fork.fork if fork.step == "moved" else fork.parent
    if fork.voters:
        return {**memory, "gone": [entry.position, entry.time_ms, other]}
    return {**memory, "gone": None} if fork.step == "done" else memory


def _started(memory: Memory, key: str) -> Memory:
    one = memory["open"].get(key)
    return memory if one is None else {**memory, "open": {**memory["open"], key: {**one, "started": True}}}


def _close(memory: Memory, key: str, *, back: bool = False) -> Memory:
    """An action is over. ``back``: it never started, so what it took is given back."""
    one = memory["open"].get(key)
    if one is None:
        return memory
    memory = {**memory, "open": {name: other for name, other in memory["open"].items() if name != key}}
    for slot, value, amount in one["spent"] if back and not one.get("started") else ():
        recent = memory["recent"].get(slot, {}).get(value)
        if recent is not None:
            kept = [use for use in recent if str(use[2]) != key]
            memory = {**memory, "recent": {**memory["recent"], slot: {**memory["recent"][slot], value: kept}}}
            continue
        total, unknown = memory["used"].get(slot, {}).get(value, [0, 0])
        after = [total, unknown - 1] if amount is None else [total - amount, unknown]
        memory = {**memory, "used": {**memory["used"], slot: {**memory["used"].get(slot, {}), value: after}}}
    return memory


def _held(memory: Memory, payload: Cancel | Control) -> Memory:
    if isinstance(payload, Cancel) and not payload.scope:
        one = memory["open"].get(str(payload.intent))
        return memory if one is None or one.get("started") else _close(memory, str(payload.intent), back=True)
    if isinstance(payload, Control) and payload.verb != "stop":
        return memory
    for key, one in list(memory["open"].items()):
        scopes = control_scopes(one["agent"], one["run"], int(key))
        if payload.scope in scopes and not one.get("started"):
            memory = _close(memory, key, back=True)
    return memory


def _result(memory: Memory, result: Result) -> Memory:
    key = str(result.intent)
    one = memory["open"].get(key)
    error = result.error
    doubtful = error is not None and not error.definite and error.kind in AMBIGUOUS
    if one is not None and doubtful and one["effect"] in ("reversible", "irreversible"):
        return memory  # nobody knows whether it goes on
    return _close(memory, key)
