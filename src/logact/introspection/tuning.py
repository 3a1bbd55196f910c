"""What was applied to one agent to save tokens: entries that say so, what they change, and how they are taken back.

It changes what a model is shown and offered, never what may run: tools, effects, voters and policies stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from logact.core.state import State
from logact.entry import Entry, Intent, Notice
from logact.errors import UsageError
from logact.introspection.token_reading import WHOLE, changes, objects_of, touches
from logact.introspection.tokens import Measure
from logact.introspection.trials import APPLIED, KEPT, SPOKESMEN, UNDONE, Trial, Trials, Verdict
from logact.logs.base import Clause, Filter, SharedLog, where
from logact.models.base import Model

OF_TRIALS = ("Run", "Inference", "Abort", "Expiry", "Result", "Output", "Notice")
"""The kinds of the entries that a trial is judged by."""

REUSING = frozenset(("reads", "answers", "digests"))
"""Kinds of changes that are of use only to who knows what was read and answered before."""

DIGEST_CHARS_MIN = 2000
"""A shorter text is given whole."""


class Tuning:
    """The changes in force for one agent, by the position of the entry that applied each."""

    KINDS = ("Intent", *OF_TRIALS)
    """The kinds of the entries that ``observe`` has to be shown."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.measures: dict[int, Measure] = {}
        self.stale: set[int] = set()
        self.trials = Trials((agent,))
        self.applied: Callable[[], None] = lambda: None  # called when a change comes into force
        self.kept_back: set[str] = set()  # tools that are of use only where digests or summaries are given

    @property
    def hidden(self) -> frozenset[str]:
        """The tools that the model is not offered."""
        idle = {name for one in self._of("hide") for name in one.data.get("tools", ())}
        needed = self.digests is not None or self.sums_up
        return frozenset(idle - self.kept_back if needed else idle | self.kept_back)

    @property
    def shares_reads(self) -> bool:
        """Whether repeated reads are answered from the log."""
        return bool(self._of("reads"))

    @property
    def shares_answers(self) -> bool:
        """Whether the model is spared requests that were answered before."""
        return bool(self._of("answers"))

    @property
    def digests(self) -> dict[str, str] | None:
        """The parts of long texts that were of use, by the text's digest; None where texts are given whole."""
        found = self._of("digests")
        return {key: part for one in found for key, part in one.data.get("parts", {}).items()} if found else None

    @property
    def sums_up(self) -> bool:
        """Whether long results are handed over as summaries."""
        return bool(self._of("handover"))

    @property
    def together(self) -> bool:
        """Whether related tasks are kept on this agent, and done in one conversation."""
        return bool(self._of("together"))

    @property
    def trial(self) -> Trial | None:
        """The model that is tried, or in use, instead of the agent's own."""
        going = self.trials.going
        return going[max(going)] if going else None

    def tried(self, run: int, models: Mapping[str, Model]) -> Model | None:
        """The one of these models, by name, that does a run because it is on trial; None if none does."""
        trial = self.trial
        return models.get(trial.model) if trial is not None and trial.tries(run) else None

    def prompt(self, system: str) -> str:
        """The system prompt with what is handed over instead of being read again."""
        said = [_handed(one) for at, one in self.measures.items() if one.kind == "share" and at not in self.stale]
        return "\n\n".join([part for part in (system, *said) if part])

    def _of(self, kind: str) -> list[Measure]:
        return [one for one in self.measures.values() if one.kind == kind]

    # --- entries -------------------------------------------------------------------------------------------------

    def notice(self, measure: Measure) -> Notice:
        """The entry that applies a measure."""
        data = msgspec.to_builtins(measure)
        return Notice(code=APPLIED, message=measure.title, agent=self.agent, data={"measure": data})

    def undone(self, position: int, reason: str, data: dict[str, Any] | None = None) -> Notice:
        """The entry that takes one back. ``data``: the figures that say why."""
        return Notice(code=UNDONE, message=reason, agent=self.agent, data={"undoes": position, **(data or {})})

    def judged(self) -> tuple[Notice, Verdict] | None:
        """The entry that ends the trial, and what it comes to; None while there is nothing to say."""
        trial = self.trial
        verdict = trial.verdict() if trial is not None else None
        if trial is None or verdict is None:
            return None
        if verdict.does == "undo":
            return self.undone(trial.position, verdict.reason, verdict.data), verdict
        data = {"keeps": trial.position, **verdict.data}
        return Notice(code=KEPT, message=verdict.reason, agent=self.agent, data=data), verdict

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry: changes in force come and go, and a change of what was handed over makes it stale."""
        if not state.verdict:
            self.take(entry)
            self.trials.take(entry)

    def take(self, entry: Entry) -> None:
        """What an effective entry means for this agent."""
        said = entry.payload
        self.trials.note(entry)
        if isinstance(said, Intent):
            if not self.measures or not changes(said):
                return
            changed = objects_of(said)
            for at, one in self.measures.items():
                if one.kind == "share" and touches(changed, one.data.get("arguments", {})):
                    self.stale.add(at)
        elif isinstance(said, Notice) and said.agent == self.agent and entry.author.role in SPOKESMEN:
            if said.code == APPLIED:
                measure = _read(said.data.get("measure"))
                if measure is not None:
                    self.measures[entry.position] = measure
                    self.applied()
            elif said.code == UNDONE:
                self.measures.pop(said.data.get("undoes", 0), None)

    async def load(self, log: SharedLog, upto: int) -> None:
        """Take up what stands in the log up to a position, where reading begins after it."""
        notices = where(kinds=["Notice"], agents=[self.agent])
        known = Tuning(self.agent)
        async for entry in log.read_kept(upto=upto, matching=notices):
            known.take(entry)
        if not known.measures:
            return
        mine = Clause(kinds=OF_TRIALS if known.trial is not None else ("Notice",), agents=(self.agent,))
        wanted = (mine, Clause(kinds=("Intent",))) if known._of("share") else (mine,)
        async for entry in log.read_kept(min(known.measures) - 1, upto=upto, matching=Filter(wanted)):
            self.take(entry)
            self.trials.take(entry)


async def applied_to(log: SharedLog, position: int) -> str:
    """The agent to which a change was applied at a position, and is in force. UsageError if there is none."""
    entry = await log.get(position)
    agent = entry.payload.agent if isinstance(entry.payload, Notice) else ""
    known = Tuning(agent)
    known.take(entry)
    if position not in known.measures:
        raise UsageError(
            "No change was applied at this position",
            received=f"{entry.kind} {position}",
            expected="one that `logact swarm show`, or `applied` of `optimize_token_usage`, names",
        )
    async for later in log.read(position, matching=where(kinds=["Notice"], agents=[agent])):
        known.take(later)
    if position not in known.measures:
        raise UsageError(
            "This change was taken back already", received=str(position), expected="one that is in force"
        )
    return agent


__all__ = ["APPLIED", "DIGEST_CHARS_MIN", "KEPT", "UNDONE", "WHOLE", "Tuning", "applied_to"]


def _read(given: Any) -> Measure | None:
    try:
        return msgspec.convert(given, Measure)
    except msgspec.ValidationError:
        return None


def _handed(measure: Measure) -> str:
    data = measure.data
    call = f"{data['tool']} {msgspec.json.encode(data['arguments']).decode()}"
    whole = data["lines"] == data["of"]
    part = (
        "" if whole else f", the {data['lines']} of {data['of']} lines that were of use (call it again for the rest)"
    )
    head = f"[What {call} returns, as of position {data['position']}{part}; nothing has changed it since]"
    return f"{head}\n{data['text']}"
