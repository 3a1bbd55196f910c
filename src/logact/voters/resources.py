"""Stops actions when a budget is used up or the machine has no room left."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from logact import codec
from logact import env as environment
from logact.core.deciding import NOT_NOW
from logact.core.settling import ANSWER
from logact.core.views import LogEntry
from logact.entry import Entry, Vote
from logact.errors import SpecError
from logact.voters import resources_headroom as headroom
from logact.voters import resources_memory as ledger
from logact.voters.base import Voter
from logact.voters.resources_memory import RECENT_MAX, Budget, Per, Use

__all__ = ["Budget", "ResourceVoter"]

UNITS = {"usd": "US dollars", "concurrent": "actions at once", "sum": "in sum"}


class ResourceVoter(Voter):
    """Votes by budgets (folded from the log) and by head-room (measured here and now).

    ``budgets`` are :class:`Budget` objects or tables; ``actions``, ``tokens``, ``usd``, ``seconds`` and
    ``concurrent`` are short for one budget each, all ``per`` the same. ``memory_free_mb`` and ``disk_free_mb`` (where
    ``disk`` is) are what must be left, ``process_mb`` and ``processes`` what this process may have at most.
    What cannot be measured rejects. Budgets of ``usd`` need models with a price.

    Raises SpecError for budgets that cannot be used, and if it could stop nothing.
    """

    quick = True

    kind = "resources"

    def __init__(
        self,
        budgets: Iterable[Budget | Mapping[str, Any]] = (),
        name: str = "resources",
        *,
        actions: float | None = None,
        tokens: float | None = None,
        usd: float | None = None,
        seconds: float | None = None,
        concurrent: float | None = None,
        per: Per = "run",
        memory_free_mb: float = 0,
        disk_free_mb: float = 0,
        disk: str = ".",
        process_mb: float = 0,
        processes: int = 0,
    ) -> None:
        super().__init__(name)
        short = {"actions": actions, "tokens": tokens, "usd": usd, "seconds": seconds, "concurrent": concurrent}
        given: list[Any] = [*budgets]
        given += [{"what": what, "most": most, "per": per} for what, most in short.items() if most is not None]
        self.budgets = [_usable(one) for one in given]
        self.memory_free_mb = float(memory_free_mb)  # as a file says it: 5 and 5.0 have two digests
        self.disk_free_mb = float(disk_free_mb)
        self.disk = disk
        self.process_mb = float(process_mb)
        self.processes = processes
        measured = (memory_free_mb, disk_free_mb, process_mb, processes)
        if any(one < 0 for one in measured):
            raise SpecError("A head-room is a number from 0", received=str(min(measured)))
        if not self.budgets and not any(measured):
            raise SpecError(
                "This voter could stop nothing",
                received="no budgets and no head-room",
                todo="for example ResourceVoter(actions=50, tokens=200_000)",
            )
        self.scope = _scope(self.budgets)
        self._digest = codec.digest_of(self.config()["budgets"])

    # --- the vote ------------------------------

    def check(self, entry: LogEntry) -> Vote:
        """Approve while every budget holds the action and the machine has room."""
        if entry.action.tool == ANSWER:
            return Vote(approved=True, reason="an answer uses nothing")
        found = self._over_budget(entry) or self._shortage()
        return found or Vote(approved=True, reason="resources available")

    def resources_available(self, entry: LogEntry | None = None) -> bool:
        """Whether there is room: on this machine and, for an entry, in every budget that concerns it."""
        return self._shortage() is None and (entry is None or self._over_budget(entry) is None)

    def _over_budget(self, entry: LogEntry) -> Vote | None:
        memory = entry.memory or self.initial()
        now_ms = entry.timestamp or environment.current().wall_ms()
        tool, agent = entry.action.tool, entry.agent_id
        for number, budget in enumerate(self.budgets):
            if not budget.concerns(agent, tool):
                continue
            other = ledger.elsewhere(memory, budget, entry.run, now_ms)
            if other:
                return Vote(
                    approved=False,
                    reason=f"resources exhausted: what was left of the {_unit(budget)} is in the log {other}",
                    hint="Do not retry: a person can say `logact resume LOG --budgets`.",
                )
            use = ledger.used(
                memory, budget, number, agent=agent, run=entry.run, tool=tool, now_ms=now_ms, position=entry.position
            )
            if use.unknown:
                return _unknown(budget)
            amount = budget.amount(entry.action.arguments)
            if amount is None:
                return Vote(
                    approved=False,
                    reason=f"the argument {budget.argument!r} is no amount, so its budget cannot be kept",
                    hint=f"Give {budget.argument} as a number from 0.",
                )
            room = use.used + amount <= budget.most if _counts(budget) else use.used < budget.most
            if not room:
                return _exhausted(budget, use, amount, now_ms)
        return None

    def _shortage(self) -> Vote | None:
        at_least = (
            ("memory", self.memory_free_mb, headroom.memory_free_mb if self.memory_free_mb else None),
            ("disk", self.disk_free_mb, (lambda: headroom.disk_free_mb(self.disk)) if self.disk_free_mb else None),
        )
        for what, wanted, measure in at_least:
            free = measure() if measure is not None else wanted
            if free is None or free < wanted:
                return _short(
                    f"{what}: " + ("cannot be measured" if free is None else f"{free:.0f} MB are free"), wanted
                )
        at_most = (
            ("this process holds", "MB", self.process_mb, headroom.process_mb),
            ("it has", "processes", self.processes, headroom.processes),
        )
        for what, unit, most, count in at_most:
            held = count() if most else 0
            if held is None or held > most:
                shown = "an amount that cannot be measured" if held is None else f"{held:.0f} {unit}"
                return Vote(
                    approved=False,
                    code=NOT_NOW,
                    reason=f"resources exhausted: {what} {shown}, at most {most:g} are allowed",
                    hint="Nothing about the action would change that; finish with what you have.",
                )
        return None

    def for_replay(self) -> Voter | None:
        """By the budgets alone: nobody knows how much room there was."""
        past = copy.copy(self)
        past.memory_free_mb = past.disk_free_mb = past.process_mb = 0
        past.processes = 0
        return past

    # --- history ------------------------------

    def initial(self) -> Any:
        return ledger.empty(self._digest) if self.budgets else None

    def observe(self, memory: Any, entry: Entry) -> Any:
        """What was spent, after one more entry."""
        return ledger.observe(memory, entry, self.budgets) if self.budgets else memory

    def accepts(self, memory: Any) -> bool:
        return not self.budgets or (isinstance(memory, dict) and memory.get("config") == self._digest)

    def config(self) -> dict[str, Any]:
        return {
            "budgets": [msgspec.to_builtins(budget) for budget in self.budgets],
            "memory_free_mb": self.memory_free_mb,
            "disk_free_mb": self.disk_free_mb,
            "disk": self.disk,
            "process_mb": self.process_mb,
            "processes": self.processes,
        }


def _counts(budget: Budget) -> bool:
    """Whether the action itself takes of the budget (else the budget only has to be open still)."""
    return budget.what in ("actions", "sum", "concurrent")


def _usable(given: Any) -> Budget:
    try:
        budget = given if isinstance(given, Budget) else msgspec.convert(dict(given), Budget)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise SpecError("A budget cannot be read", received=f"{given!r}: {error}") from error
    wrong = ""
    if not 0 <= budget.most < float("inf"):
        wrong = "most is a number from 0"
    elif not 0 <= budget.window_s < float("inf"):
        wrong = "window_s is a number from 0"
    elif budget.window_s and budget.what in ("seconds", "concurrent"):
        wrong = f"{budget.what} has no window"
    elif budget.window_s and budget.what == "actions" and budget.most > RECENT_MAX:
        wrong = f"within a window at most {RECENT_MAX} actions can be counted"
    elif budget.per == "tool" and budget.what in ("tokens", "usd", "seconds"):
        wrong = f"{budget.what} are not counted per tool"
    elif (budget.what == "sum") != bool(budget.argument):
        wrong = "a sum names its argument, and nothing else does"
    elif not budget.tool or not budget.agent:
        wrong = "an empty glob fits nothing"
    if wrong:
        raise SpecError(f"A budget cannot be used: {wrong}", received=repr(budget))
    return msgspec.structs.replace(budget, most=float(budget.most), window_s=float(budget.window_s))


def _scope(budgets: list[Budget]) -> Literal["", "log", "agent", "run", "tool"]:
    """The narrowest scope in which everything that the votes depend on lies."""
    scopes: set[str] = set()
    for budget in budgets:
        if _counts(budget):
            plain = not set(budget.tool) & set("*?[")
            scopes.add("tool" if plain and budget.per in ("log", "tool") else budget.per)
    if scopes == {"agent", "run"}:
        return "agent"  # a run belongs to one agent
    if not scopes:
        return ""
    return scopes.pop() if len(scopes) == 1 else "log"  # type: ignore[return-value]


def _unit(budget: Budget) -> str:
    return UNITS.get(budget.what, budget.what)


def _exhausted(budget: Budget, use: Use, amount: float, now_ms: int) -> Vote:
    unit = _unit(budget)
    what = f" of {budget.argument}" if budget.argument else ""
    whose = f" per {budget.per}" if budget.per != "log" else ""
    tools = f" with {budget.tool}" if budget.tool != "*" else ""
    window = f" within {budget.window_s:g} s" if budget.window_s else ""
    reason = f"resources exhausted: {use.used:g} of {budget.most:g} {unit}{what}{tools}{whose}{window} are used"
    if budget.what == "sum" and use.used < budget.most:
        return Vote(
            approved=False,
            reason=f"{reason}, and this would take {amount:g}",
            hint=f"At most {budget.most - use.used:g} are left.",
        )
    if budget.what == "concurrent":
        return Vote(approved=False, reason=reason, code=NOT_NOW, hint="Try again when one of them has ended.")
    if budget.window_s and budget.most > 0:
        wait_s = max(0.0, (use.free_ms - now_ms) / 1000)
        return Vote(approved=False, reason=reason, code=NOT_NOW, hint=f"Try again in {wait_s:.0f} s.")
    return Vote(approved=False, reason=reason, hint="Do not retry: finish with what you have.")


def _unknown(budget: Budget) -> Vote:
    if budget.what == "usd":
        return Vote(
            approved=False,
            reason="what the model costs is not known, so the budget of US dollars cannot be kept",
            hint="Do not retry: an operator has to give the model a price, or set a budget of tokens.",
        )
    return Vote(
        approved=False,
        reason=f"an earlier {budget.argument} is not known, so its budget cannot be kept",
        hint="Do not retry until the earlier action is settled.",
        code=NOT_NOW,
    )


def _short(found: str, wanted: float) -> Vote:
    return Vote(
        approved=False,
        code=NOT_NOW,
        reason=f"resources exhausted: {found}, and {wanted:g} MB must be left",
        hint="Nothing about the action would change that; finish with what you have.",
    )
