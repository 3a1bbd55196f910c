"""Conflicts: a late result that says something else than was settled is shown everywhere, and a person settles it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logact import open_log
from logact.core import driving
from logact.entry import Commit, Failure, Fence, NewEntry, Policy, Recovery, Result, Run, Settlement, Started
from tests.cli_help import fits, here, lines_of
from tests.core.build import Log, intent

SURE = Failure(kind="permanent", message="it was refused", definite=True)


def contradicted(log: Log, *, happened: bool) -> int:
    """An action that a person settled one way, and whose executor says the other later."""
    log.open_policy()
    action = log.doubtful(log.run())
    log.recover(action, "not_happened" if happened else "happened")
    log.result(action, error=None if happened else SURE)
    assert log.state.conflicts == [action]
    return action


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize(
    ("settlement", "status"), [("happened", "executed"), ("not_happened", None), ("superseded", "superseded")]
)
def test_a_person_settles_a_conflict_once(happened: bool, settlement: Settlement, status: str | None) -> None:
    """An operator's word stands, and it is no conflict any more; nobody else's counts, and no second one does."""
    log = Log()
    action = contradicted(log, happened=happened)
    before = log.status(action)
    log.say(Recovery(intent=action, attempt=1, settlement=settlement), role="recoverer")
    assert log.state.conflicts == [action]
    log.say(Recovery(intent=action, attempt=1, settlement=settlement, reason="I looked"), role="operator")
    assert not log.why
    assert log.state.conflicts == []
    known = log.action(action)
    assert not known.conflict
    assert known.status == (status or ("failed" if happened else "failed_final"))
    assert known.happened == {"happened": True, "not_happened": False, "superseded": None}[settlement]
    assert not known.is_open
    log.say(Recovery(intent=action, attempt=1, settlement=settlement), role="operator")
    assert log.why
    assert before in ("failed", "executed")


def test_what_a_late_result_says_happened_is_not_done_again() -> None:
    """The retry of an action that "did not happen" is not begun once its executor says that it did."""
    log = Log()
    log.open_policy()
    run = log.run()
    inference = log.infer(run, "send")
    action = log.doubtful(run, inference=inference)
    log.recover(action, "not_happened")
    assert driving.next_step(log.state, log.run_state(run), 0).verb == "propose"
    log.result(action)
    step = driving.next_step(log.state, log.run_state(run), 0)
    assert (step.verb, step.retry_of) == ("give_up", action)
    again = log.propose(run, "send", inference=inference, retry_of=action)
    assert "did happen" in log.why
    assert again not in log.state.actions
    log.say(Recovery(intent=action, attempt=1, settlement="happened"), role="operator")
    assert driving.next_step(log.state, log.run_state(run), 0).verb == "infer", (
        "the turn goes on with a person's word"
    )


async def a_conflict(url: str) -> int:
    """A log with a payment that was settled as not happened, and that its executor reports as done later."""
    async with open_log(url) as log:
        await log.append(Policy(version=1, need={"open": "a test"}), role="operator", name="pat")
        run = (await log.append(Run(agent="ops", title="pay the bill"), role="client", name="c")).position
        wanted = intent(run, "pay", agent="ops", effect="irreversible")
        action = (await log.append(wanted, role="driver", name="d")).position
        await log.append(Commit(intent=action), role="decider", name="d")
        executor = log.writer()

        def say(payload: Started | Result) -> NewEntry:
            return NewEntry(payload=payload, role="executor", name="e", agent="ops", run=run, tool="pay")

        await executor.append([say(Started(intent=action))])
        await log.append(Fence(agent="ops", epoch=1), role="recoverer", name="r")
        settled = Recovery(intent=action, attempt=1, settlement="not_happened", reason="the bank's list")
        await log.append(settled, role="operator", name="pat")
        await executor.append([say(Result(intent=action, value="paid 7"))])
        return action


def test_people_see_a_conflict_and_settle_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``doubt``, ``actions``, ``state`` and ``health`` show it until somebody has answered."""
    monkeypatch.chdir(tmp_path)
    path = "ops.db"
    action = asyncio.run(a_conflict(f"sqlite:///{path}"))
    listed = here("doubt", path)
    assert listed.returncode == 4
    for shown in (
        listed,
        here("doubt", path, str(action)),
        here("actions", path),
        here("actions", path, str(action)),
    ):
        said = " ".join(shown.stdout.replace("CONFLICT:", "CONFLICT").split())
        assert "CONFLICT a late result says that it did happen" in said, shown.stdout
        fits(shown.stdout)
    assert f"CONFLICTS  {action}" in here("state", path).stdout
    assert "conflict" in here("health", path, "--json").stdout
    assert lines_of(here("doubt", path, "--json").stdout)[0]["conflict"] is True
    answered = here("doubt", path, str(action), "--happened", "--reason", "it is on the statement", "--by", "ann")
    assert answered.returncode == 0
    assert f"Settled: action {action} is executed, says ann." in answered.stdout
    assert "no conflict any more" in answered.stdout
    assert here("doubt", path).returncode == 0
    assert "CONFLICT" not in here("state", path).stdout + here("actions", path).stdout
    assert here("doubt", path, str(action), "--happened").returncode == 2
