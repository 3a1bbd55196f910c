"""``logact simulate``: one's own agent through the simulator's faults; and the SKILL.md that ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from logact.cli.main import root
from logact.errors import SpecError
from logact.testing.mutants import MUTANTS
from logact.testing.own_agent import FORMS, own, plan_for, play, results_of
from logact.testing.own_world import OwnSimulation, voter_names
from tests.cli_help import here, lines_of, make
from tests.runtime.kit import run

TASK = "tidy up"


def test_ones_own_agent_survives(tmp_path: Path) -> None:
    """In both forms the agent of a specification comes to its end, faults fire, and equal seeds are equal."""
    mine = own(str(make(tmp_path)), TASK)
    digests: list[str] = []
    report = play(mine, range(10), lambda seed, outcome: digests.append(outcome.digest))
    assert report.broken == {}
    assert report.forms == {"inline": 5, "decoupled": 5}
    assert (report.runs, report.finished, report.ended) == (10, 10, {"answered": 10})
    assert sum(report.fired.values()) > 10
    refused = sum(one.get("refused", 0) for one in report.unjudged.values())
    assert 10 - refused <= report.effects <= 10 + report.fired["tool_went_dead"]  # the payment of each run
    again: list[str] = []
    play(mine, range(3), lambda seed, outcome: again.append(outcome.digest))
    assert again == digests[:3]


def test_where_each_part_is_a_process_parts_die_alone(tmp_path: Path) -> None:
    """In the decoupled form drivers, voters, deciders and executors are processes, killed one by one."""
    mine = own(str(make(tmp_path)), TASK)
    simulation = OwnSimulation(plan_for(1, voter_names(mine), "decoupled"), mine)
    assert simulation.run().ok
    assert {one.name for one in simulation.world.processes} >= {
        "driver", "voter-guard", "decider-1", "decider-2", "executor-1", "executor-2", "recoverer", "person",
    }  # fmt: skip
    assert "voter-budget" not in {one.name for one in simulation.world.processes}  # there is one voter
    roles = {entry.author.incarnation: entry.author.role for entry in simulation.checker.entries}
    assert len(roles) >= 6


@pytest.mark.parametrize("on_failure", ["reject", "approve"])
@pytest.mark.parametrize("form", ["inline", "decoupled"])
def test_voters_are_made_to_fail(tmp_path: Path, form: Any, on_failure: str) -> None:
    """Voters raise, answer nonsense, are slow and silent; what then became of the actions is told by its policy."""
    path = make(tmp_path)
    path.write_text(path.read_text() + f'on_failure = "{on_failure}"\n')
    mine = own(str(path), TASK)
    seeds = [seed for seed in range(60) if any(one[2] != "slow" for one in plan_for(seed, ["careful"], form).voters)]
    report = play(mine, seeds[:4], forms=(form,))
    assert report.broken == {}
    assert sum(count for name, count in report.fired.items() if name.startswith("voter_")) >= 3
    became = report.unjudged["careful"]
    assert set(became) == {"refused" if on_failure == "reject" else "let pass"}
    assert report.voters == {}, "none failed by itself"
    words = "were refused for it" if on_failure == "reject" else "went on without its judgement"
    assert any("careful was made to fail" in one and words in one for one in report.advice)


def test_each_fault_of_a_voter_is_planned() -> None:
    """The plans hold all four ways to fail."""
    planned = {fault for seed in range(60) for _, _, fault in plan_for(seed, ["a", "b"]).voters}
    assert planned == {"raise", "nonsense", "silent", "slow"}
    assert all(plan_for(seed).voters == () for seed in range(20))


def test_a_run_without_a_way_on_is_told(tmp_path: Path) -> None:
    """A script that ends too early, or a limit, stops the run, and the report says why."""
    path = make(tmp_path)
    (tmp_path / "short.json").write_text('[{"call": "pay", "arguments": {"amount": 7}}]')
    for form in ("inline", "decoupled"):
        report = play(own(str(path), TASK, model=f"scripted:{tmp_path}/short.json"), [3], forms=(form,))
        assert report.broken == {}
        assert next(iter(report.ended)).startswith("was stopped: model_"), report.ended


def test_the_real_policy_holds(tmp_path: Path) -> None:
    """What the specification's own voter refuses never happens, whatever fails."""
    path = make(tmp_path)
    tools: list[str] = []
    for seed in range(4):
        form: Any = FORMS[seed % 2]
        simulation = OwnSimulation(plan_for(seed, ["careful"], form), own(str(path), TASK))
        assert simulation.run().ok
        tools += [one.tool for one in simulation.town.ledger]
    assert set(tools) == {"pay"}  # shred is refused, the rest reads


@pytest.mark.parametrize(
    ("name", "invariant"), [("acts_before_its_start", "nothing_acts_unseen"), ("assumes_done", "no_lost_effect")]
)
def test_what_is_broken_is_found(tmp_path: Path, name: str, invariant: str) -> None:
    """With a defect planted in LogAct the runs of one's own agent show it, by the invariant's name."""
    mine = own(str(make(tmp_path)), TASK)
    with MUTANTS[name].applied():
        reports = (play(mine, [seed], forms=FORMS[:1]) for seed in range(40))
        found = next((report.broken for report in reports if report.broken), {})
    assert [what.partition(":")[0] for what in found.values()] == [invariant]


def test_voters_that_fail_are_told(tmp_path: Path) -> None:
    """A voter of one's own that raises is named, with what it said; a run that gives up too."""
    path = make(tmp_path)
    (tmp_path / "parts.py").write_text(
        (tmp_path / "parts.py")
        .read_text()
        .replace("def careful(entry):", "def careful(entry):\n    entry.nonsense\n")
    )
    report = play(own(str(path), TASK), range(2))
    assert any(name.startswith("careful: ") and "AttributeError" in name for name in report.voters)
    assert any("careful" in one for one in report.advice)


def test_no_provider_is_asked(tmp_path: Path) -> None:
    """A model at a provider is refused before anything runs, and a voter that would ask one too."""
    path = make(tmp_path)
    with pytest.raises(SpecError, match="asks no provider"):
        own(str(path), TASK, model="openai:gpt-4o")
    path.write_text(path.read_text() + '[[voters]]\nuse = "semantic"\noptions = { model = "openai:gpt-4o" }\n')
    with pytest.raises(SpecError, match="the voter semantic asks openai:gpt-4o"):
        own(str(path), TASK)


def test_real_results_come_back(tmp_path: Path) -> None:
    """What a tool returned in the agent's real log is what it returns in the simulation."""
    path = make(tmp_path)
    assert here("run", path, TASK).returncode == 0
    from logact import open_log

    async def work() -> set[str]:
        async with open_log(f"sqlite:///{tmp_path}/ops.db") as log:
            return {str(value) for (tool, _), value in (await results_of(log)).items() if tool == "pay"}

    assert run(work()) == {"paid 7"}


def test_simulate_on_the_command_line(tmp_path: Path) -> None:
    """The command tells runs, faults and notes; JSON the same; another model than the file's may be named."""
    path = make(tmp_path)
    done = here("simulate", path, TASK, "--seeds", 3)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Every check held.")
    (tmp_path / "other.json").write_text('["nothing to do"]')
    told = here("simulate", path, TASK, "--seeds", 2, "--json", "--model", f"scripted:{tmp_path}/other.json")
    assert lines_of(told.stdout)[0]["effects"] == 0
    assert here("simulate", path, TASK, "--model", "openai:gpt-4o").returncode == 2
    assert "Commit" in here("simulate", path, TASK, "--seed", 5).stdout
    parts = lines_of(here("simulate", path, TASK, "--seeds", 1, "--json", "--form", "decoupled").stdout)[0]
    assert parts["forms"] == {"decoupled": 1}


# --- the skill ------------------------------


def test_the_skill_names_only_what_there_is() -> None:
    """Every command and option of the shipped SKILL.md exists; its head is what skills begin with."""
    text = here("skill").stdout
    assert text.startswith("---\nname: logact\ndescription: ")
    lines = [
        line.partition("#")[0].split()
        for line in re.sub(r"LOG#", "LOG_", text).splitlines()
        if line.startswith("logact ")
    ]
    assert len(lines) > 20
    context = click.Context(root)
    for words in lines:
        command = root.get_command(context, words[1])
        assert command is not None, words
        rest = words[2:]
        if isinstance(command, click.Group):
            inner = command.get_command(context, rest[0])
            assert inner is not None, words
            command, rest = inner, rest[1:]
        known = {name for one in command.params for name in one.opts}
        for word in rest:
            if word.startswith("-") and word != "-3h":
                assert word in known, (words, word)


def test_the_skill_ships() -> None:
    """The file lies in the package."""
    assert Path(here("skill", "--path").stdout.strip()).is_file()
