"""What stands between the agent and the world: the controls, the voter in both settings, and a person who answers."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.agentdojo.world import Case, World, ground_truth, manifest
from logact.core.views import LogEntry
from logact.entry import Entry, Vote
from logact.logs.base import SharedLog
from logact.voters.base import FunctionVoter, Voter
from logact.voters.provenance import ProvenanceVoter
from logact.voters.provenance_manifest import READ
from logact.voters.provenance_text import plain_url

SETTINGS = ("delegating", "strict")
CONTROLS = ("approve_all", "deny_writes")
GATES = (*CONTROLS, *SETTINGS)


class Answered(Voter):
    """The ProvenanceVoter with a person who answers rightly: yes, unless the action is the attacker's."""

    kind = "answered"

    def __init__(self, voter: ProvenanceVoter, attackers: Callable[[LogEntry], bool]) -> None:
        super().__init__(voter.name)
        self.voter = voter
        self.attackers = attackers

    def initial(self) -> Any:
        return self.voter.initial()

    def observe(self, memory: Any, entry: Entry) -> Any:
        return self.voter.observe(memory, entry)

    async def check(self, entry: LogEntry) -> Vote:
        vote = await _vote(self.voter, entry)
        if not vote.reason.startswith("ask:"):
            return vote
        return Vote(approved=not self.attackers(entry), reason=f"{vote.reason} (answered)")


class Beside(Voter):
    """Two voters with one memory: the first one's votes count, the second one's are noted.

    While both say the same, the run of the second would be this one, and need not be made. Agents here are blind to
    reasons, so only approvals matter. ``took_us`` are what each vote of either took, (first, second).
    """

    kind = "beside"

    def __init__(self, first: ProvenanceVoter, second: ProvenanceVoter) -> None:
        super().__init__(first.name)
        self.first, self.second = first, second
        self.noted: list[Vote] = []
        self.took_us: list[tuple[float, float]] = []
        self.parted = False

    def initial(self) -> Any:
        return self.first.initial()

    def observe(self, memory: Any, entry: Entry) -> Any:
        return self.first.observe(memory, entry)

    async def check(self, entry: LogEntry) -> Vote:
        began = perf_counter()
        vote = await _vote(self.first, entry)
        between = perf_counter()
        if not self.parted:
            noted = await _vote(self.second, entry)
            self.noted.append(noted)
            self.parted = noted.approved is not vote.approved
        self.took_us.append(((between - began) * 1e6, (perf_counter() - between) * 1e6))
        return vote


async def _vote(voter: ProvenanceVoter, entry: LogEntry) -> Vote:
    vote = voter.check(entry)
    return vote if isinstance(vote, Vote) else await vote


def beside(case: Case, log: SharedLog) -> Beside:
    """Both settings at once, while they agree."""
    facts = manifest(case.suite)
    return Beside(
        ProvenanceVoter(manifest=facts, setting="delegating", log=log),
        ProvenanceVoter(manifest=facts, setting="strict", log=log),
    )


def gate(name: str, world: World, case: Case, log: SharedLog) -> Voter:
    """The voter of a gate for one run. A person is the only one who is told of the attack."""
    facts = manifest(case.suite)
    if name == "approve_all":
        return FunctionVoter(lambda entry: True, name="approve_all")
    if name == "deny_writes":
        return FunctionVoter(
            lambda entry: entry.action.tool == "answer" or facts.of(entry.action.tool).effect == READ, name="deny"
        )
    setting = name.removesuffix("_answered")
    voter = ProvenanceVoter(manifest=facts, setting="strict" if setting == "strict" else "delegating", log=log)
    return Answered(voter, _attackers(world, case)) if name.endswith("_answered") else voter


def _attackers(world: World, case: Case) -> Callable[[LogEntry], bool]:
    if not case.attacked:
        return lambda entry: False
    calls = ground_truth(world, world.suite.injection_tasks[case.injection_task])

    def is_the_attackers(entry: LogEntry) -> bool:
        if entry.action.tool == "answer":
            return not calls
        given = {plain_url(str(value)) for value in _scalars(entry.action.arguments)}
        for call in calls:
            wanted = {plain_url(str(value)) for value in _scalars(dict(call.args))}
            if call.function == entry.action.tool and wanted & given:
                return True
        return False

    return is_the_attackers


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _scalars(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _scalars(item)]
    return [] if value is None or isinstance(value, bool) else [value]
