"""Real processes and ``kill -9``: the small forms of ``benchmarks.crash``. Only counts matter, never clocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.crash_child import PARTS, items
from benchmarks.crash_parts import killed_one_by_one
from benchmarks.crash_stage import (
    Found,
    Stage,
    count_effects,
    crash_points,
    judge,
    killed_at,
    killed_at_random,
    recovery_points,
)

Staged = Callable[..., Stage]

pytestmark = pytest.mark.timeout(400)  # many process starts: seconds on an idle machine, minutes on a crowded one


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Staged]:
    """Makes a stage, and ends every process on it afterwards."""
    stages: list[Stage] = []

    def make(rounds: int = 1, jitter_ms: float = 2.0) -> Stage:
        stages.append(Stage(tmp_path, rounds, jitter_ms=jitter_ms))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


def assert_nothing_happened_twice_or_never(stage: Stage, found: Found) -> None:
    """The promise, as other processes than the killed ones counted it."""
    assert stage.neighbour_ends(), "the other writer of the file came through"
    judge(stage, found)
    assert found.problems == []
    assert found.finished == found.runs
    assert found.acked > 0 and found.lost == 0 and found.unsound == 0
    assert found.doubled_irreversible == found.doubled_reversible == 0
    assert found.missing_irreversible == found.missing_reversible == found.missing_idempotent == 0


@pytest.mark.slow
def test_killed_at_every_named_point(staged: Staged) -> None:
    """A life that dies at any named crash point is carried on by the next, in one run with all of these deaths."""
    stage = staged(rounds=3)
    points = [point for point in crash_points(stage, "dry") if point.endswith(":1")]
    names = {point.rpartition(":")[0] for point in points}
    assert {"before_inference", "after_inference", "before_effect", "after_effect", "sqlite:committed"} <= names
    assert len(points) >= 18
    early = [point for point in points if "run_input" in point or "policy" in point]
    late = [point for point in points if "output" in point or point.endswith("_heartbeat:1")]
    middle = [point for point in points if point not in early and point not in late]
    found = killed_at(stage, "first", early[:1])
    for number, point in enumerate(early[1:]):  # each of these is reached in a run's first life only
        found.add(killed_at(stage, f"early-{number}", [point]))
    found.add(killed_at(stage, "middle", middle))
    for number, point in enumerate(late):
        found.add(killed_at(stage, f"late-{number}", ["sqlite:staged:30", point]))
    assert found.not_reached == 0
    assert found.kills >= len(points)
    assert_nothing_happened_twice_or_never(stage, found)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [1, 2, 4, 5, 6], ids=["look", "put", "move", "send", "pay"])
def test_killed_again_while_it_recovers(staged: Staged, effect: int) -> None:
    """A life that dies while it settles what the one before it left is no worse."""
    stage = staged()
    first = f"after_effect:{effect}"
    later = recovery_points(crash_points(stage, "dry", first))
    settling = [point for point in later if "recovery" in point or "finding" in point] or later[:2]
    found = killed_at(stage, "again", [first, *settling[:2]])
    # a life that only has a person left to ask may end by itself before it comes to the second point
    assert found.kills + found.not_reached == 3 and found.kills >= 2
    assert_nothing_happened_twice_or_never(stage, found)


@pytest.mark.slow
def test_killed_at_random_moments(staged: Staged) -> None:
    """Six kills from outside, at moments that the process cannot know."""
    stage = staged(rounds=2, jitter_ms=15.0)
    found, number = Found(), 0
    draw = random.Random(7)
    while found.kills < 6 and number < 20:
        found.add(killed_at_random(stage, f"random-{number}", draw, 6 - found.kills, 0.8))
        number += 1
    assert found.kills == 6
    assert_nothing_happened_twice_or_never(stage, found)


@pytest.mark.slow
def test_each_part_killed_alone(staged: Staged) -> None:
    """In the decoupled form each part dies once while the others live on; nobody is told."""
    stage = staged(rounds=3, jitter_ms=5.0)
    found = killed_one_by_one(stage, "parts")
    assert found.kills == len(PARTS)
    assert_nothing_happened_twice_or_never(stage, found)


@pytest.mark.slow
def test_a_wrong_declaration_is_counted(staged: Staged) -> None:
    """The count is not vacuous: a tool that is declared idempotent and is not is done twice, and that is seen."""
    stage = staged()
    stage.options = ("--misdeclared",)
    found = killed_at(stage, "wrong", ["after_effect:6"])
    judge(stage, found)
    assert found.doubled_irreversible == 1


def test_the_judge_sees_what_is_missing() -> None:
    """The count is not vacuous: effects that never happened, or happened twice, are found."""
    found = Found()
    paid = next(item for item, name in items(1).items() if name == "pay")
    twice = [{"scenario": "a", "item": paid, "verb": "effect"}] * 2
    other = [{"scenario": "b", "item": 1, "verb": "effect"}]
    count_effects("a", 1, [*twice, *other], found)
    assert found.doubled_irreversible == 1
    assert found.missing_idempotent == sum(name == "put" for name in items(1).values())
    assert found.missing_reversible == sum(name == "move" for name in items(1).values())
    assert found.effects == 2


def test_the_judge_sees_a_lost_record(staged: Staged) -> None:
    """The count is not vacuous: an acknowledged record that is not in the log is found."""
    stage = staged()
    found = killed_at(stage, "whole", [])
    stage.neighbour_ends()
    acks = stage.directory / "acks.jsonl"
    forged = acks.read_text().splitlines()[-1].replace('"hash": "', '"hash": "x')
    acks.write_text(acks.read_text() + forged + "\n")
    judge(stage, found)
    assert found.lost == 1
