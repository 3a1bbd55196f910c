"""A driver, a voter or a decider is stopped, fenced off and replaced by one that no supervisor knows; it wakes up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from logact.core.settling import ANSWER
from logact.entry import Finding, Inference, Input, Run, Vote
from logact.models.scripted import Reply, call
from logact.runtime.assembly import play_decider, play_driver, play_executor, play_recoverer, play_voter
from logact.testing.plan import Plan, with_a_twin
from logact.testing.scenarios import Stage
from logact.testing.simulator import SUPERVISED_FROM
from logact.testing.systems import simulate

LEASE_S = 4.0
TURNS: Sequence[Reply] = [[call("pay", item="one"), call("put", item="two")], "done"]


class Twins(Stage):
    """All parts of an agent, one of them twice; the first of the two is stopped at a moment that a test chooses."""

    def __init__(self, schedule: int = 5) -> None:
        super().__init__(Plan(schedule=schedule), lease_s=LEASE_S)
        self.log.stops_ahead = True

    def begin(self, *absent: str) -> None:
        """Everybody but those, and a task."""
        plays = {
            "driver": self.part(play_driver, TURNS),
            "guard": self.part(play_voter, names=["guard"]),
            "budget": self.part(play_voter, names=["budget"]),
            "decider": self.part(play_decider),
            "executor": self.part(play_executor),
            "recoverer": self.part(play_recoverer),
        }
        for name, program in plays.items():
            if name not in absent:
                self.world.start(name, program)
        run = self.write(Run(agent="ops", title="task"), "client")
        self.write(Input(run=run, text="task"), "client")

    def stop(self, name: str) -> None:
        """SIGSTOP, from the process's present step on."""
        self.world.freeze(name, 10_000.0)

    async def fenced(self, name: str) -> str:
        """The incarnation of a stopped process, once it was found hung."""
        pid = self.world.live[name].pid
        await self.until(lambda: self.lives(pid) & set(self.state.fenced))
        return next(iter(self.lives(pid) & set(self.state.fenced)))

    def lives(self, pid: int) -> set[str]:
        """The incarnations of a process."""
        return {
            key for key, life in self.state.incarnations.items() if life.birth is not None and life.birth.pid == pid
        }

    async def ended(self) -> None:
        """The run is over."""
        await self.until(lambda: any(run.status == "finished" for run in self.state.runs.values()))
        await self.pass_time(10.0)

    def held(self, old: str) -> None:
        """What has to hold of every such log: nothing twice, nothing by who was fenced off, and it said goodbye."""
        assert self.effects == ["one", "two"]
        findings = [
            one.payload for one in self.entries("Finding", effective=True) if isinstance(one.payload, Finding)
        ]
        assert [one.holder for one in findings] == [old]
        assert self.state.incarnations[old].left
        since = self.state.fenced[old]
        later = [one for one in self.checker.entries if one.position > since and one.author.incarnation == old]
        assert {one.kind for one in later if not self.checker.verdicts[one.position]} == {"Heartbeat"}
        turns = [
            one.payload for one in self.entries("Inference", effective=True) if isinstance(one.payload, Inference)
        ]
        assert [one.turn for one in turns] == [1, 2]
        seen = Counter(position for one in turns for position in one.context)
        assert set(seen.values()) == {1}, "nothing is put before the model twice as new"
        assert {one.position for one in self.entries("Input")} <= set(seen)
        for action in self.state.actions.values():
            decided = [one for one in self.entries("Commit", "Abort", effective=True) if one.action == action.id]
            assert len(decided) == 1
        assert not self.state.conflicts


def test_a_driver_wakes_up_with_an_answer_while_its_twin_waits_for_one() -> None:
    """The old answer takes no effect, and the new one, which was paid for too, is not asked for again."""
    stage, old = Twins(), ""
    stage.sleeps_s["driver", 0] = 10_000.0
    stage.thinks_s["twin", 0] = 3.0

    async def main() -> None:
        nonlocal old
        stage.begin()
        old = await stage.fenced("driver")
        stage.write(Input(run=next(iter(stage.state.runs)), text="and be quick"), "client")
        stage.world.start("twin", stage.part(play_driver, TURNS))
        await stage.until(lambda: stage.asked_by["twin", 0])
        stage.sleeps_s["driver", 0] = 100.0  # its next life is not to be faster than the twin
        stage.world.thaw("driver")
        await stage.ended()
        await stage.pass_time(100.0)

    stage.play(main)
    stage.held(old)
    assert len([one for one in stage.entries("Inference", effective=False) if one.author.incarnation == old]) == 1
    assert stage.asked_by["twin", 0] == 1


@pytest.mark.parametrize("point", ["before_inference", "before_intent"])
def test_a_driver_wakes_up_when_its_twin_has_gone_on(point: str) -> None:
    """What it was about to append is void: the turn and its calls are the twin's."""
    stage, old = Twins(), ""

    async def main() -> None:
        nonlocal old
        stage.world.hooks["driver", point] = lambda: stage.stop("driver")
        stage.begin()
        old = await stage.fenced("driver")
        stage.world.start("twin", stage.part(play_driver, TURNS))
        await stage.until(lambda: stage.has("one", "executed"))
        stage.world.thaw("driver")
        await stage.ended()

    stage.play(main)
    stage.held(old)
    intents = [one for one in stage.entries("Intent", effective=True) if one.tool != ANSWER]
    assert len(intents) == 2


@pytest.mark.parametrize("first", ["twin", "old"])
def test_a_voter_that_wakes_up_changes_no_verdict(first: str) -> None:
    """The rejection that it was about to cast is void, before as well as after its twin's vote."""
    stage, old = Twins(), ""

    async def main() -> None:
        nonlocal old
        stage.town.voter_faults["guard", 0] = "raise"
        stage.world.hooks["guard", "before_vote"] = lambda: stage.stop("guard")
        stage.begin("guard")
        await stage.until(
            lambda: stage.entries("Vote")
        )  # the other voter's, or its vote would be conditional on that
        stage.world.start("guard", stage.part(play_voter, names=["guard"]))
        old = await stage.fenced("guard")
        if first == "twin":
            stage.world.start("twin", stage.part(play_voter, names=["guard"]))
            await stage.until(lambda: stage.has("one", "executed"))
        stage.world.thaw("guard")
        await stage.ended()

    stage.play(main)
    stage.held(old)
    votes = [(one, one.payload) for one in stage.entries("Vote") if isinstance(one.payload, Vote)]
    assert all(vote.approved for one, vote in votes if not stage.checker.verdicts[one.position])
    void = [vote.approved for one, vote in votes if one.author.incarnation == old]
    assert void == ([False] if first == "old" else [])


@pytest.mark.parametrize("first", ["twin", "old"])
def test_a_decider_that_wakes_up_decides_nothing_twice(first: str) -> None:
    """The commit that it was about to append is void, before as well as after its twin's."""
    stage, old = Twins(), ""

    async def main() -> None:
        nonlocal old
        stage.world.hooks["decider", "before_commit"] = lambda: stage.stop("decider")
        stage.begin()
        old = await stage.fenced("decider")
        if first == "twin":
            stage.world.start("twin", stage.part(play_decider))
            await stage.until(lambda: stage.has("one", "executed"))
        stage.world.thaw("decider")
        await stage.ended()

    stage.play(main)
    stage.held(old)
    void = [one for one in stage.entries("Commit") if one.author.incarnation == old]
    assert len(void) == (first == "old"), "it says what it was about to say once, and then knows"


@pytest.mark.parametrize("form", ["decoupled", "supervised"])
def test_every_check_holds_where_a_part_has_a_twin(form: str) -> None:
    """Whoever is stopped, for however long, and whatever else goes wrong meanwhile."""
    fired: Counter[str] = Counter()
    first, seeds = (SUPERVISED_FROM, 2) if form == "supervised" else (0, 10)
    for seed in range(first, first + seeds):
        plan = Plan.random(seed, form)  # type: ignore[arg-type]
        plan = plan if plan.has_twins else with_a_twin(plan, random.Random(f"twin {seed}"))
        outcome = simulate(plan)
        if not outcome.ok:
            told = [outcome.error, msgspec.json.encode(plan).decode(), *outcome.tail]
            pytest.fail("\n".join(told), pytrace=False)
        fired.update(outcome.fired)
    assert fired["twin"] >= seeds - 1
    assert form == "supervised" or fired["fenced_off"]
