"""Budgets and forks: whatever is forked from where, what all of them may still do is what the parent had left."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from logact.entry import Control, Limits
from logact.errors import LogActError, UsageError
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.url import open_log
from logact.models.scripted import call
from logact.runtime.forking import Forked, fork
from logact.voters.base import Voter
from logact.voters.resources import Budget, ResourceVoter
from tests.cli_help import fits, here
from tests.recovery.kit import Flaky, an_agent, entries, folded

MANY = [call("send", item=str(number), size=number) for number in range(20)]


class Sized(Flaky):
    """A tool that counts what it did."""

    def __init__(self) -> None:
        super().__init__()

        async def send(item: str, size: int) -> str:
            """Send an item."""
            self.calls.append(None)  # type: ignore[arg-type]
            return f"sent {item} of {size}"

        self.tool = type(self.tool)(send, name="send", effect="idempotent")


async def played(engine: MemoryEngine, most: int, *voters: Voter, limits: Limits | None = None, skip: int = 0) -> int:
    """Let an agent go on for so many calls at most, or until something ends it; how often its tool acted."""
    tool = Sized()
    agent = an_agent(engine, MANY[: skip + most], [tool.tool], voters=voters, limits=limits)
    paused = bool((await folded(engine)).paused)
    with suppress(LogActError, TimeoutError):  # the script has no more to say
        async with asyncio.timeout(0.1 if paused else None):  # a paused run waits for a person
            await agent.run("go")
    return len(tool.calls)


async def a_fork(engine: MemoryEngine, position: int, *, keep_parent: bool = False) -> tuple[MemoryEngine, Forked]:
    """A fork in memory."""
    target = MemoryEngine()
    return target, await fork(SharedLog(engine), position, SharedLog(target), keep_parent=keep_parent)


async def resumed(engine: MemoryEngine, **more: Limits | bool | str) -> str:
    """A person's word, and why it took no effect."""
    said = Control(verb="resume", **more)  # type: ignore[arg-type]
    await SharedLog(engine).append(said, role="operator", name="ann")
    return (await folded(engine)).verdict


@pytest.mark.parametrize("keep", [False, True])
async def test_what_all_may_still_do_is_what_was_left(keep: bool) -> None:
    """Each fork and the parent had the whole rest (9 of 4); now 6 are done in all, wherever, of a limit of 6."""
    engine = MemoryEngine()
    limits = Limits(actions=6)
    done = await played(engine, 3, limits=limits)
    assert done == 3
    early = [entry.position for entry in await entries(engine, "Result")]
    one, first = await a_fork(engine, early[0], keep_parent=keep)
    two, second = await a_fork(engine, early[1], keep_parent=keep)
    run = next(iter((await folded(engine)).runs))
    assert second.empty == (run,) and not second.limits
    assert bool(first.limits) is not keep and bool(first.paused) is not keep
    more = [await played(each, 8, skip=6) for each in (one, two, engine)]
    assert more == ([0, 0, 3] if keep else [3, 0, 0]), more
    scope = f"run:{run}"
    refused = await resumed(two, scope=scope)
    assert "--limit" in refused
    assert await resumed(two, scope=scope, limits=Limits(actions=4)) == ""
    assert await played(two, 8, skip=6) == 2, "two were done before its point, and a person gave it four in all"
    if not keep:
        assert "--limit" in await resumed(engine, scope=scope)
        assert await resumed(engine, scope=scope, limits=Limits(actions=5)) == ""
        assert await played(engine, 8, skip=6) == 2
    three, third = await a_fork(one, early[0], keep_parent=False)
    assert (third.empty == (run,)) and await played(three, 8) == 0, "a fork of a fork has no more than that one"


VOTERS = {
    "per run": Budget(what="actions", most=5),
    "per log": Budget(what="actions", most=5, per="log", tool="send"),
    "per agent, a rate": Budget(what="actions", most=5, per="agent", window_s=3600),
}


@pytest.mark.parametrize("kind", VOTERS)
@pytest.mark.parametrize("keep", [False, True])
async def test_a_fork_resets_no_budget_of_a_voter(kind: str, keep: bool) -> None:
    """What was spent at home after the point counts there; what is left is in one log, until a person speaks."""

    def voter() -> ResourceVoter:
        return ResourceVoter([VOTERS[kind]])

    engine = MemoryEngine()
    assert await played(engine, 3, voter()) == 3
    first = (await entries(engine, "Result"))[0].position
    one, _ = await a_fork(engine, first, keep_parent=keep)
    two, told = await a_fork(engine, first, keep_parent=keep)
    assert told.voters
    run = next(iter((await folded(engine)).runs))
    if not keep:
        assert await resumed(engine, scope=f"run:{run}") == "", "no limit of its own, so no more has to be said"
    more = [await played(each, 8, voter(), skip=8) for each in (one, two, engine)]
    assert more == ([0, 0, 2] if keep else [2, 0, 0]), more
    reasons = [entry.payload.reason for entry in await entries(two, "Vote")]  # type: ignore[attr-defined]
    assert any("in the log" in reason for reason in reasons)
    assert await resumed(two, budgets=True) == ""
    assert "did not go" in await resumed(two, budgets=True)


async def test_the_sums_of_arguments_spent_at_home_count_in_the_fork() -> None:
    """Sizes 0, 1, 2 were spent of 10 at home, two of them after the point: the fork has 7 left, not 10."""
    budget = Budget(what="sum", argument="size", most=10, per="agent")
    engine = MemoryEngine()
    await played(engine, 3, ResourceVoter([budget]))
    one, _ = await a_fork(engine, (await entries(engine, "Result"))[0].position)
    tool = Sized()
    agent = an_agent(one, MANY[:7], [tool.tool], voters=[ResourceVoter([budget])])
    with suppress(LogActError):
        await agent.run("go")
    state = await folded(one)
    sizes = {
        key: action.intent.arguments["size"] for key, action in state.actions.items() if action.intent.tool == "send"
    }
    late = [size for key, size in sizes.items() if state.actions[key].status == "executed"]
    assert sum(late) + 1 + 2 <= 10 and len(late) > 1, late


def test_people_are_told_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fork``, ``state`` and ``resume`` say where a budget is; a plain resume is refused, one with a limit holds."""
    monkeypatch.chdir(tmp_path)

    async def made() -> tuple[int, int]:
        async with open_log("sqlite:///a.db") as log:
            agent = an_agent(MemoryEngine(), MANY[:2], [Sized().tool], limits=Limits(actions=4, tokens=9000))
            agent.log = log
            with suppress(LogActError):
                await agent.run("go")
            found = [entry async for entry in log.read()]
            return (
                next(one.position for one in found if one.kind == "Run"),
                next(one.position for one in found if one.kind == "Result"),
            )

    run, position = asyncio.run(made())
    shown = here("fork", f"a.db@{position}", "one.db")
    assert shown.returncode == 0 and "may use" in shown.stdout and f"--run {run} --limit" in shown.stdout, (
        shown.stdout
    )
    fits(shown.stdout)
    again = here("fork", f"a.db@{position}", "two.db")
    assert "nothing left in the fork" in " ".join(again.stdout.split()), again.stdout
    fits(again.stdout)
    for name, why in (("a.db", "moved to the fork"), ("two.db", "nothing is left")):
        told = here("state", name)
        assert why in " ".join(told.stdout.split()) and "--limit" in told.stdout, told.stdout
        fits(told.stdout)
        assert here("resume", name, "--run", str(run)).returncode == 1
    done = here("resume", "a.db", "--run", str(run), "--limit", "actions=4")
    assert done.returncode == 0 and "tokens is reached" in " ".join(done.stdout.split()), done.stdout
    assert here("resume", "a.db", "--run", str(run), "--limit", "tokens=9000").returncode == 0
    assert "PAUSED" not in here("state", "a.db").stdout
    assert here("resume", "a.db", "--limit", "actions=4").returncode == 2
    assert here("resume", "a.db", "--run", str(run), "--limit", "money=4").returncode == 2


async def test_a_position_that_is_not_there_opens_no_target(tmp_path: Path) -> None:
    """Was leaving an empty file, its bell and its lock."""
    async with open_log(f"sqlite:///{tmp_path}/a.db") as log:
        await log.append(Control(verb="pause"), role="operator", name="ann")
        before = sorted(one.name for one in tmp_path.iterdir())
        with pytest.raises(UsageError, match="no such position"):
            await fork(log, 10**9, open_log(f"sqlite:///{tmp_path}/f.db"))
    assert not [one for one in tmp_path.iterdir() if one.name.startswith("f.db")], before
