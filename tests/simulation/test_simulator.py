"""The simulator itself, and the real system in it: seeds, crashes everywhere, mutants, and the same again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logact.testing.mutants import MUTANTS
from logact.testing.plan import FATES, MODEL_FAULTS, PROCESSES, VOTER_FAULTS, Event, EventKind, Form, Plan
from logact.testing.simulator import main
from logact.testing.sweep import sweep_plans
from logact.testing.systems import Outcome, simulate


def held(outcome: Outcome) -> None:
    """Fail with what is needed to see the run again."""
    if not outcome.ok:
        plan = msgspec.json.encode(outcome.plan).decode()
        replay = f"python -m logact.testing.simulator --plan '{plan}'"
        pytest.fail("\n".join([outcome.error, f"replay: {replay}", *outcome.tail]), pytrace=False)


@pytest.mark.parametrize(("form", "seeds"), [("inline", 60), ("decoupled", 24), ("own", 20), ("swarm", 10)])
def test_every_check_holds_over_seeds(form: Form, seeds: int) -> None:
    """Whatever fails, crashes, lies or is late: nothing bad happens, and once faults stop everything ends."""
    fired = 0
    for seed in range(seeds):
        outcome = simulate(Plan.random(seed, form))
        held(outcome)
        fired += sum(outcome.fired.values())
    assert fired > 5 * seeds, "nothing went wrong, so nothing was tested"


@pytest.mark.parametrize("form", get_args(Form))
def test_every_check_holds_on_the_sqlite_engine(form: Form) -> None:
    """The same with the real engine underneath: its SQL, its restarts."""
    for seed in range(3):
        held(simulate(msgspec.structs.replace(Plan.random(seed, form), engine="sqlite")))


def test_a_process_may_die_at_any_of_its_steps() -> None:
    """One crash in a run without other faults, at steps all over it; requests in flight arrive or are dropped."""
    plans = list(sweep_plans(every=45, schedules=(7,)))
    assert len(plans) > 40
    killed = 0
    for plan in plans:
        outcome = simulate(plan)
        held(outcome)
        killed += outcome.fired.get("kill_at_step", 0)
    assert killed > len(plans) * 0.9


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_every_mutant_is_caught_by_its_own_invariant(name: str) -> None:
    """The checks are not vacuous: each guarantee has a broken version, and its own check finds it first."""
    mutant = MUTANTS[name]
    with mutant.applied():
        outcomes = (simulate(mutant.plan(seed)) for seed in range(60))
        found = next((outcome for outcome in outcomes if not outcome.ok), None)
    assert found is not None, "not caught"
    assert found.broken == mutant.caught_by, found.error


def test_every_guarantee_has_a_mutant() -> None:
    """Guarantees 1 to 11 of the design, leases (12), breakers (13), claims (14 to 16), and supervision (17)."""
    assert {mutant.guarantee for mutant in MUTANTS.values()} == set(range(1, 18))


SCRIPT = """
import json, sys
import msgspec
from logact.testing.plan import Plan
from logact.testing.systems import simulate
seeds = json.loads(sys.argv[1])
found = {}
for seed in seeds:
    plan = Plan.random(seed)
    if seed == 3:
        plan = msgspec.structs.replace(plan, engine="sqlite")
    found[seed] = simulate(plan).digest
print(json.dumps(found))
"""


def test_one_seed_gives_one_log_byte_for_byte_whatever_the_hash_seed() -> None:
    """Three processes, three hash seeds, two orders: the same bytes in the log, the same effects, the same steps."""
    seeds = [0, 1, 3, 4, 6, 9]
    digests = []
    for hash_seed, order in (("0", seeds), ("1", seeds[::-1]), ("4242", seeds)):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(order)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(json.loads(done.stdout))
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[0].values())) == len(seeds)


def plans_of(form: Form) -> st.SearchStrategy[Plan]:
    """Plans that shrink: 0 is the boring schedule, and a fault less is simpler."""
    who = st.sampled_from(PROCESSES[form])
    nth = st.integers(0, 25)
    kinds = st.sampled_from(get_args(EventKind))
    return st.builds(
        Plan,
        schedule=st.integers(0, 2**16),
        form=st.just(form),
        menu=st.integers(0, 50),
        appends=st.lists(st.tuples(who, nth, st.sampled_from(FATES)), max_size=4).map(tuple),
        reads=st.lists(st.tuples(who, nth), max_size=2).map(tuple),
        points=st.lists(st.tuples(who, nth, st.sampled_from([0.1, 1.0, 3.0])), max_size=3).map(tuple),
        events=st.lists(
            st.builds(Event, st.integers(0, 60).map(lambda n: n / 10), kinds, who, st.sampled_from([0.2, 1.0, 4.0])),
            max_size=4,
        ).map(tuple),
        voters=st.lists(
            st.tuples(st.sampled_from(["guard", "budget"]), st.integers(0, 6), st.sampled_from(VOTER_FAULTS)),
            max_size=1,
        ).map(tuple),
        in_flight=st.sampled_from(["arrives", "dropped", "either"]),
        checkpoint_every=st.sampled_from([0, 15]),
        models=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(MODEL_FAULTS)), max_size=1).map(tuple),
        deadline_s=st.sampled_from([0, 0, 10]),
    )


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(plans_of("inline"), plans_of("decoupled")))
def test_every_check_holds_over_any_plan(plan: Plan) -> None:
    """Plans from all over the space; one that fails is made small before it is shown."""
    held(simulate(plan))


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    """It counts schedules and faults, and a replayed seed shows its log."""
    assert main(["--seeds", "0:4", "--form", "inline"]) == 0
    told = capsys.readouterr().out
    assert "4 schedules (4 inline)" in told
    assert "append_" in told.partition("faults fired: ")[2]
    assert "every check held" in told
    assert main(["--seed", "2", "--form", "inline"]) == 0
    assert "Intent" in capsys.readouterr().out
    assert main(["--seeds", "0:30", "--mutant", "guesses_not_happened", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failures"]
