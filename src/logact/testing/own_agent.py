"""One's own agent in the simulator: its real policy, voters and limits, a scripted model, simulated tools.

The tools have the names, forms and declared effects of the specification's own; instead of acting they write into a
ledger, fail now and then, and are cut off like everything else. What is checked: nothing acts without its commit,
nothing happens twice or is lost, everything comes to an end once the faults stop. What is told beside that is what an
operator would have met: doubts that only a person could settle, voters that failed and what then became of what they
should have judged, runs that ended badly. Each second seed has every part in a process of its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from logact.core.state import State
from logact.entry import Entry, Output, Result, Vote
from logact.errors import SpecError
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.models.recorded import RecordedModel
from logact.models.scripted import ScriptedModel
from logact.runtime.values import unpack
from logact.spec import load_spec, model_of
from logact.spec_parts import tools_of, voters_of
from logact.testing.own_world import Own, OwnSimulation, Results, voter_names
from logact.testing.plan import VOTER_FAULTS, Plan
from logact.testing.systems import Outcome

Form = Literal["inline", "decoupled"]
FORMS: tuple[Form, ...] = ("inline", "decoupled")
"""In one process, and with each part a process of its own."""

FAULTS = frozenset({"kill", "stop", "cut", "mute", "deaf", "unheard", "jump", "pause", "cancel"})
"""Events of a plan that make sense for any agent."""


class Report(msgspec.Struct, kw_only=True):
    """What came of all runs. ``broken`` are checks that failed, by seed: a defect of LogAct or of the agent's parts.

    ``doubts`` counts, by tool, actions that only a person could settle; ``voters`` failures of voters that nobody
    planned; ``unjudged`` what became, by voter, of actions on which one that was made to fail had no say; ``ended``
    how runs ended; ``forms`` how many ran in one process, and with each part a process.
    """

    runs: int = 0
    forms: dict[str, int] = {}
    finished: int = 0
    effects: int = 0
    fired: dict[str, int] = {}
    broken: dict[int, str] = {}
    doubts: dict[str, int] = {}
    voters: dict[str, int] = {}
    unjudged: dict[str, dict[str, int]] = {}
    ended: dict[str, int] = {}
    advice: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether every check held in every run."""
        return not self.broken


def own(path: str, task: str, *, model: str = "", results: Results | None = None) -> Own:
    """Read what is to be simulated. SpecError if its model is neither scripted nor recorded."""
    spec = load_spec(path)
    specs = tuple(one.spec for one in tools_of(spec, spec.log_url))

    def fresh() -> Model:
        made = model_of(spec, model)
        if not isinstance(made, ScriptedModel | RecordedModel):
            raise SpecError(
                "A simulation asks no provider",
                received=getattr(made, "name", None) or "no model",
                expected="a scripted or recorded model",
                todo="--model scripted:FILE, or record one: recording:FILE:MODEL, then recorded:FILE",
            )
        return made

    fresh()
    for voter in voters_of(spec, list(specs)):
        judge = getattr(voter, "model", None)
        if judge is not None and not isinstance(judge, ScriptedModel | RecordedModel):
            raise SpecError(
                "A simulation asks no provider",
                received=f"the voter {voter.name} asks {getattr(judge, 'name', judge)}",
                expected="a scripted or recorded model",
                todo='simulate a copy of the file whose voter has options = { model = "scripted:FILE" }',
            )
    return Own(spec=spec, task=task, tools=specs, model=fresh, results=results or {})


async def results_of(log: SharedLog) -> Results:
    """What the tools of a real log returned, by tool and digest of arguments; the last of several counts."""
    results: list[tuple[str, str, Result]] = []

    def observe(state: State, entry: Entry) -> None:
        said = entry.payload
        action = state.actions.get(said.intent) if isinstance(said, Result) else None
        if action is not None and not state.verdict and isinstance(said, Result) and said.error is None:
            results.append((action.intent.tool, action.intent.arguments_digest, said))

    await history(log, observer=observe)
    found: Results = {}
    for tool, arguments, said in results:
        value = unpack(await log.get_blob(said.blob.digest)) if said.blob is not None else said.value
        found[tool, arguments] = value
    return found


def plan_for(seed: int, voters: Sequence[str] = (), form: Form = "inline") -> Plan:
    """The plan of a seed, as far as it fits any agent; some of ``voters`` fail in it."""
    plan = Plan.random(seed, form)
    events = tuple(event for event in plan.events if event.kind in FAULTS)
    dice = random.Random(f"own voters {seed}")
    count = dice.choice((0, 0, 1, 2)) if voters else 0
    ill = {(dice.choice(voters), dice.randrange(5)): dice.choice(VOTER_FAULTS) for _ in range(count)}
    return msgspec.structs.replace(
        plan,
        events=events,
        voters=tuple((name, nth, fault) for (name, nth), fault in sorted(ill.items())),
        policy="",
        engine="memory",
        deadline_s=0,
    )


def play(
    mine: Own,
    seeds: Iterable[int],
    told: Callable[[int, Outcome], None] = lambda seed, outcome: None,
    *,
    forms: Sequence[Form] = FORMS,
) -> Report:
    """Run the agent under the plan of each seed, in each of the forms in turn.

    Deterministic for equal specifications, scripts and seeds.
    """
    report = Report()
    names = voter_names(mine)
    for seed in seeds:
        form = forms[seed % len(forms)]
        simulation = OwnSimulation(plan_for(seed, names, form), mine)
        outcome = simulation.run()
        report.forms[form] = report.forms.get(form, 0) + 1
        _count(report, seed, simulation, outcome)
        told(seed, outcome)
    report.advice = list(_advice(report, mine))
    return report


def _count(report: Report, seed: int, simulation: OwnSimulation, outcome: Outcome) -> None:
    report.runs += 1
    report.effects += outcome.effects
    report.fired = dict(Counter(report.fired) + Counter(outcome.fired))
    if not outcome.ok:
        report.broken[seed] = f"{outcome.broken}: {outcome.error}"[:500]
    checker = simulation.checker
    doubts: Counter[str] = Counter(report.doubts)
    voters: Counter[str] = Counter(report.voters)
    ended: Counter[str] = Counter(report.ended)
    for entry in checker.entries:
        said = entry.payload
        if checker.verdicts.get(entry.position):
            continue
        if entry.author.name == "person" and entry.kind == "Recovery":
            action = checker.state.actions.get(getattr(said, "intent", 0))
            doubts[action.intent.tool if action is not None else "?"] += 1
        elif isinstance(said, Vote) and " failed (" in said.reason:
            if said.voter not in simulation.town.ill:
                voters[f"{said.voter}: {said.reason}"[:200]] += 1
            else:
                _unjudged(report, checker.state, said)
        elif isinstance(said, Output):
            ended["answered" if said.ok else f"gave up: {said.reason}"[:200]] += 1
            report.finished += said.ok
    for run in checker.state.runs.values():
        if run.status == "stopped":
            ended[f"was stopped: {simulation.gave_up[0] if simulation.gave_up else 'by an operator'}"] += 1
    report.doubts, report.voters, report.ended = dict(doubts), dict(voters), dict(ended)


def _unjudged(report: Report, state: State, vote: Vote) -> None:
    """What became of an action although a voter that was made to fail had no say in it."""
    action = state.actions.get(vote.intent)
    if action is None:
        return
    became = "refused" if action.status == "rejected" else "let pass"
    found = report.unjudged.setdefault(vote.voter, {})
    found[became] = found.get(became, 0) + 1


def _advice(report: Report, mine: Own) -> Iterable[str]:
    known = {spec.name: spec for spec in mine.tools}
    for tool, count in sorted(report.doubts.items(), key=lambda one: -one[1]):
        spec = known.get(tool)
        if spec is not None and not spec.probe:
            yield f"{tool} was in doubt {count} times, and only a person could tell: give it a probe"
    for voter in report.voters:
        yield f"a voter failed by itself, which rejects: {voter}"
    for voter, became in report.unjudged.items():
        passed, refused = became.get("let pass", 0), became.get("refused", 0)
        if passed:
            yield f"{voter} was made to fail, and {passed} actions went on without its judgement (on_failure, policy)"
        if refused:
            yield f"{voter} was made to fail, and {refused} actions were refused for it"
    for how in report.ended:
        if how != "answered":
            yield f"a run {how}"
