"""A cheaper model on trial: which of an agent's runs it does, how those went, and whether it may stay. Pure.

A trial begins with the entry that applied it. Of the runs that begin after it every second one is done by the cheaper
model, until enough of those have ended; then it does all, or none. What counts is read from entries alone, so another
life of the agent, or another process, comes to the same.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import msgspec

from logact.entry import Abort, Entry, Expiry, Inference, Notice, Output, Result, Run, Usage
from logact.models.provider import Price

APPLIED, UNDONE, KEPT = "optimization_applied", "optimization_undone", "optimization_kept"
"""The codes of the notices that apply a change, take it back, and say that it was tried and stays."""

TRIAL_RUNS = 4
"""So many runs the cheaper model does before it may stay."""

LATEST_RUNS = 20
"""Once it may stay, its latest runs are compared with those before it."""

TROUBLES_MORE = 1.0
"""So many more refused or failed actions and broken calls a run may have."""

SPOKESMEN = ("driver", "client")
"""The roles whose word about trials counts."""

SILENT = frozenset({"model", "model_rate_limited", "model_refused", "model_unavailable"})
NONSENSE = "model_nonsense"
"""The codes of notices that say that a model gave no answer, and that it gave one that is none."""

NONSENSE_MAX = 3
"""So often the driver asks again."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may be tried, and what it costs."""

    name: str
    price: Price


class Tally(msgspec.Struct, kw_only=True):
    """How runs went: how many, how many of them badly, their troubles, and what they cost in USD together."""

    runs: int = 0
    bad: int = 0
    troubles: int = 0
    usd: float = 0.0

    @property
    def each_usd(self) -> float:
        """What a run cost, in the mean."""
        return self.usd / max(1, self.runs)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a trial: it ends (``undo``), or the model stays (``keep``), and the figures that say so."""

    does: Literal["undo", "keep"]
    reason: str
    data: dict[str, Any]


class _Doing(msgspec.Struct, kw_only=True):
    """One run after a trial began."""

    new: bool
    ended: bool = False
    bad: bool = False
    troubles: int = 0
    nonsense: int = 0
    usd: float = 0.0
    failed: set[int] = msgspec.field(default_factory=set)


def price_of(model: object) -> Price | None:
    """What a model says that it costs."""
    price = getattr(model, "price", None)
    return price if isinstance(price, Price) else None


def cost_usd(usage: Usage, price: Price) -> float:
    """What an inference cost: as was said then, else by the price."""
    return usage.cost_usd if usage.cost_usd is not None else price.cost_usd(usage)


class Trial:
    """One trial of one agent, as far as its log was read."""

    def __init__(self, agent: str, position: int, data: dict[str, Any]) -> None:
        self.agent = agent
        self.position = position
        self.model = str(data["model"])
        self.wanted = int(data["runs"])
        self.price = msgspec.convert(data["price"], Price)
        self.price_before = msgspec.convert(data["instead_price"], Price)
        self.before = msgspec.convert(data["before"], Tally)
        self.kept = False
        self.runs: dict[int, _Doing] = {}
        self._read = position

    def tries(self, run: int) -> bool:
        """Whether a run is done by the cheaper model."""
        doing = self.runs.get(run)
        return doing is not None and doing.new

    def take(self, entry: Entry) -> None:
        """One more effective entry of the log; one that it was told before counts once."""
        if entry.position <= self._read:
            return
        self._read = entry.position
        said = entry.payload
        if isinstance(said, Run) and said.agent == self.agent:
            begun = sum(1 for doing in self.runs.values() if doing.new)
            at_work = len(self.runs) % 2 == 0 and begun < self.wanted
            self.runs[entry.position] = _Doing(new=self.kept or at_work)
            self._forget()
            return
        doing = self.runs.get(entry.run)
        if doing is None:
            return
        if isinstance(said, Inference):
            doing.troubles += sum(1 for call in said.calls if call.broken)
            doing.usd += cost_usd(said.usage, self.price if doing.new else self.price_before)
        elif isinstance(said, Abort | Expiry) or (isinstance(said, Result) and said.error is not None):
            if said.intent not in doing.failed:  # several may say it
                doing.failed.add(said.intent)
                doing.troubles += 1
        elif isinstance(said, Notice) and entry.author.role == "driver":
            doing.troubles += said.code == NONSENSE
            doing.nonsense += said.code == NONSENSE
            doing.bad = doing.bad or said.code in SILENT or doing.nonsense >= NONSENSE_MAX
        elif isinstance(said, Output):
            doing.ended = True
            doing.bad = doing.bad or not said.ok

    def _forget(self) -> None:
        ended = [run for run, doing in self.runs.items() if doing.ended and doing.new]
        for run in ended[: -2 * LATEST_RUNS]:
            del self.runs[run]

    def verdict(self) -> Verdict | None:
        """What the runs so far come to; None while there is nothing to say."""
        new = _tally([one for one in self.runs.values() if one.new and (one.ended or one.bad)][-LATEST_RUNS:])
        old = _tally([one for one in self.runs.values() if not one.new and one.ended])
        old = Tally(
            runs=old.runs + self.before.runs,
            bad=old.bad + self.before.bad,
            troubles=old.troubles + self.before.troubles,
            usd=old.usd + self.before.usd,
        )
        if not new.runs or not old.runs:
            return None
        data = {"model": self.model, "with": msgspec.to_builtins(new), "without": msgspec.to_builtins(old)}
        spared = 2 if self.kept and new.runs > 2 else 1  # after so many good ones a single bad run says little
        if new.bad >= spared and new.bad / new.runs > old.bad / old.runs:
            why = f"{new.bad} of {new.runs} runs with {self.model} went wrong, {old.bad} of {old.runs} without it"
            return Verdict(does="undo", reason=why, data=data)
        if new.runs < self.wanted:
            return None
        if new.troubles / new.runs > old.troubles / old.runs + TROUBLES_MORE:
            why = f"{new.troubles} troubles in {new.runs} runs with {self.model}, {old.troubles} in {old.runs} before"
            return Verdict(does="undo", reason=why, data=data)
        if new.each_usd >= old.each_usd:
            why = f"a run with {self.model} cost {new.each_usd:.6f} USD, without it {old.each_usd:.6f}"
            return Verdict(does="undo", reason=why, data=data)
        if self.kept:
            return None
        saved = 100 * (1 - new.each_usd / old.each_usd)
        why = f"{new.runs} runs with {self.model} went as well, for {saved:.0f} % less money each"
        return Verdict(does="keep", reason=why, data={**data, "saved_usd_pct": round(saved, 1)})


def _tally(doings: list[_Doing]) -> Tally:
    return Tally(
        runs=len(doings),
        bad=sum(one.bad for one in doings),
        troubles=sum(one.troubles for one in doings),
        usd=sum(one.usd for one in doings),
    )


class Trials:
    """The trials of some agents by the entries that applied them, and the models that did worse, by agent."""

    def __init__(self, agents: Collection[str]) -> None:
        self.agents = agents
        self.going: dict[int, Trial] = {}
        self.failed: set[tuple[str, str]] = set()

    def take(self, entry: Entry) -> None:
        """One more effective entry."""
        self.note(entry)
        for trial in self.going.values():
            trial.take(entry)

    def note(self, entry: Entry) -> None:
        """What an entry says of trials as such: that one begins, ends, or has shown what it was to show."""
        said = entry.payload
        if not isinstance(said, Notice) or said.agent not in self.agents or entry.author.role not in SPOKESMEN:
            return
        if said.code == APPLIED and entry.position not in self.going:
            self._begin(entry.position, said)
        elif said.code == UNDONE:
            trial = self.going.pop(said.data.get("undoes", 0), None)
            if trial is not None and "with" in said.data:
                self.failed.add((trial.agent, trial.model))
        elif said.code == KEPT and said.data.get("keeps") in self.going:
            self.going[said.data["keeps"]].kept = True

    def _begin(self, position: int, said: Notice) -> None:
        measure = said.data.get("measure")
        data = measure.get("data") if isinstance(measure, dict) and measure.get("kind") == "model" else None
        if not isinstance(data, dict) or "runs" not in data:
            return
        try:
            self.going[position] = Trial(said.agent, position, data)
        except (msgspec.ValidationError, KeyError, ValueError, TypeError):
            pass  # anybody may write a notice; one that says nothing useful changes nothing

    def trying(self, run: int) -> bool:
        """Whether a run is done by a model on trial."""
        return any(trial.tries(run) for trial in self.going.values())
