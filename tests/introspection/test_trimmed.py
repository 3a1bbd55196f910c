"""A log whose beginning was trimmed: what reads it goes on with what is kept, and says what it cannot know."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from logact import Action, AgenticIntrospection, LogActAgent, ScriptedModel, Swarm, open_log, tool
from logact import env as environment
from logact.entry import BlobRef, Checkpoint, Control, Notice, Result
from logact.errors import LogTrimmed, UsageError
from logact.introspection.compare import compare
from logact.introspection.conversing import conversations
from logact.introspection.costs import BY, costs
from logact.introspection.exporting import effective
from logact.introspection.history import history
from logact.introspection.profiler import folded
from logact.logs.base import SharedLog
from logact.models import call
from logact.models.base import ModelRequest
from logact.models.scripted import turn_of
from logact.runtime.checkpointer import bookmark
from logact.runtime.scheduler import Job, Scheduler
from logact.runtime.trimming import Trimmed, trim
from logact.spec_health import act
from logact.spec_tables import HealthTable
from logact.swarm import SubTask
from logact.swarm.talk import Talk
from tests.cli_help import here
from tests.introspection.conftest import BEGIN, Clock
from tests.introspection.test_scheduler import MINUTE, QUARTERS, noting
from tests.runtime.kit import agent, run


async def cut(log: SharedLog) -> Trimmed:
    """Two checkpoints, and what stands before the first of them goes."""
    for _ in range(2):
        for _ in range(3):
            await log.append(Notice(code="noise", message="."))
        assert await bookmark(log, after=1)
    return await trim(log)


def looking(request: ModelRequest) -> Any:
    """Looks once, then is done."""
    return call("look", shelf=3) if turn_of(request) < 1 else "done"


@tool(effect="read")
def look(shelf: int) -> str:
    """Look at a shelf."""
    return f"jam on {shelf}"


@tool(effect="read")
def peek(shelf: int) -> str:
    """Peek at a shelf."""
    return f"honey on {shelf}"


# --- readers --------------------------------------------------------------------------------------------------------


def test_reading_begins_where_the_log_does() -> None:
    """``read_kept`` gives what ``read`` would, without what was trimmed, also where it is trimmed meanwhile."""

    async def work() -> None:
        async with open_log("memory:") as log:
            for number in range(1, 6):
                await log.append(Notice(code="n", message=str(number)))
            assert await log.begins() == 0
            assert [one.position async for one in log.read_kept()] == [1000, 2000, 3000, 4000, 5000]
            await log.trim(3000)
            assert await log.begins() == 3000
            with pytest.raises(LogTrimmed):
                [one async for one in log.read()]
            assert [one.position async for one in log.read_kept()] == [3000, 4000, 5000]
            assert [one.position async for one in log.read_kept(1000, upto=4000)] == [3000, 4000]
            assert [one.position async for one in log.read_kept(4000)] == [5000]

    run(work())


def test_a_checkpoint_that_is_none_hides_nothing() -> None:
    """Questions about agents fold from the first true checkpoint; anybody's entry of that kind is passed over."""

    async def work() -> None:
        async with open_log("memory:") as log:
            ann = agent(log, looking, tools=[look])
            await ann.run("one")
            assert (await cut(log)).before
            await ann.run("two")
            false = Checkpoint(upto=await log.tail(), chain="x", state=BlobRef(digest="0" * 64, size=1))
            await log.append(false, role="client")
            assert [one.action.tool for one in await log.get_history("ann")][-2:] == ["look", "answer"]
            assert len((await history(log)).state.runs) == 2

    run(work())


def test_exports_hold_what_is_kept() -> None:
    """A run that is kept whole is exported whole, also where it began before the first checkpoint; others are not."""

    async def work() -> None:
        async with open_log("memory:") as log:
            ann = agent(log, looking, tools=[look])
            first = await ann.run("one")
            cut_at = await log.tail() + 1000
            second = await ann.run("two", new=True)
            for _ in range(2):
                await log.append(Notice(code="noise", message="."))
                await bookmark(log, after=1)
            assert (await trim(log, before=cut_at)).before == cut_at
            found = await conversations(log)
            assert [one["title"] for one in found] == ["two"]
            assert [one["role"] for one in found[0]["messages"]] == ["user", "assistant", "tool", "assistant"]
            assert "jam on 3" in json.dumps(found)
            assert {one.position for one in await effective(log)} <= {one.position async for one in log.read_kept()}
            both = await compare(log, log, a_run=first.run, b_run=second.run)
            assert both.a.trimmed and both.a.tokens and not both.same_actions and not both.same_answer

    run(work())


def test_exports_pass_over_what_nobody_may_write() -> None:
    """Before the first checkpoint nobody can judge; an entry that its author's role may not write is left out."""

    async def work() -> None:
        async with open_log("memory:") as log:
            await log.append(Notice(code="first", message="."))
            await log.append(Notice(code="kept", message="."), role="client")
            await log.append(Result(intent=1000, value="forged"), role="client")
            await log.trim(2000)
            assert [one.kind for one in await effective(log)] == ["Notice"]
            with pytest.raises(LogTrimmed, match="no checkpoint"):
                await history(log)

    run(work())


# --- schedules and health -------------------------------------------------------------------------------------------


def test_a_scheduler_outlives_a_trim(clock: Clock) -> None:
    """Times go on, none is run twice; where every claim is gone, what is due since the log begins is run, once."""

    async def work() -> None:
        ran: list[int] = []
        async with open_log("memory:") as log:
            scheduler = Scheduler(log, [QUARTERS], noting(ran))
            for minutes in (0, 16, 31):
                clock.now_ms = BEGIN + minutes * MINUTE
                await scheduler.tick()
            await log.append(Notice(code="last", message="."))
            await log.trim(await log.tail())
            await scheduler.tick()
            assert len(ran) == 2, "what was claimed before the cut is not run again"
            clock.now_ms = BEGIN + 46 * MINUTE
            assert len(await scheduler.tick()) == 1, "the first look after the cut runs what is due"
            assert await Scheduler(log, [QUARTERS], noting(ran)).tick() == []
            clock.now_ms = BEGIN + 61 * MINUTE
            await asyncio.gather(scheduler.tick(), Scheduler(log, [QUARTERS], noting(ran)).tick())
        assert [round((at - BEGIN) / MINUTE) for at in ran] == [15, 30, 45, 60]

    run(work())


def test_a_new_job_on_a_whole_log_begins_now(clock: Clock) -> None:
    """Nothing is caught up that was due before a job was begun."""

    async def work() -> None:
        ran: list[int] = []
        async with open_log("memory:") as log:
            await log.append(Notice(code="old", message="."))
            clock.now_ms += 46 * MINUTE
            await Scheduler(log, [Job(name="new", cron="*/15 * * * *")], noting(ran)).tick()
        assert ran == []

    run(work())


def test_a_second_runaway_is_acted_on() -> None:
    """A loop of another run, or of another tool, is another reason; one that goes on is not (was: by codes alone)."""

    async def work() -> None:
        table = HealthTable(cron="* * * * *", on={"runaway": "pause"})
        async with open_log("memory:") as log:
            for title, name in (("one", "look"), ("two", "peek"), ("three", "peek")):

                def loops(request: ModelRequest, name: str = name) -> Any:
                    return call(name, shelf=7) if turn_of(request) < 9 else "done"

                ann = LogActAgent("ann", log, [lambda entry: True], model=ScriptedModel(loops), tools=[look, peek])
                await ann.run(title)
                found = await AgenticIntrospection().health_check(ann)
                assert found.verdict == "runaway"
                assert await act(log, ann, found, table) == "pause", title
                assert await act(log, ann, found, table) == "nothing"
                await log.append(Control(verb="resume", scope="agent:ann"), role="operator", name="me")
                assert await act(log, ann, await AgenticIntrospection().health_check(ann), table) == "nothing"
                fewer = found.signals[:1]
                assert await act(log, ann, type(found)(verdict="runaway", signals=fewer), table) == "nothing"

    run(work())


def test_unknown_names_are_refused() -> None:
    """A misspelt agent or a run that is not there is an error; an agent that did not begin yet is not ill."""

    async def work() -> None:
        async with open_log("memory:") as log:
            ann = agent(log, looking, tools=[look])
            assert (await AgenticIntrospection().health_check(ann)).verdict == "healthy"
            answer = await ann.run("one")
            asks: list[ModelRequest] = []

            def answers(request: ModelRequest) -> str:
                asks.append(request)
                return "{}"

            asked = AgenticIntrospection(ScriptedModel(answers))
            for given in ({"agent": "nobody"}, {"run": 999}):
                for work in (
                    AgenticIntrospection().health(log, **given),
                    AgenticIntrospection().debug(log, **given),
                    asked.ask(log, "why?", **given),
                ):
                    with pytest.raises(UsageError, match="knows no such"):
                        await work
            assert asks == []
            assert (await AgenticIntrospection().health(log, agent="ann", run=answer.run)).verdict == "healthy"

    run(work())


def test_costs_add_up_with_questions() -> None:
    """What introspection asked is in a row of its own, or in that of the agent that it is about (was: in no row)."""

    def judged(request: ModelRequest) -> Any:
        number = request.messages[-1].text.split()[1]
        return json.dumps({"case": number, "answer": [], "verdict": "healthy", "reasons": []})

    async def work() -> None:
        async with open_log("memory:") as log:
            answer = await agent(log, looking, tools=[look]).run("one")
            asked = AgenticIntrospection(ScriptedModel(judged))
            before = costs((await folded(log)).profile, "agent").tokens
            for given in ({}, {"agent": "ann"}, {"run": answer.run}):
                await asked.ask(log, "why?", **given)
            profile = (await folded(log)).profile
            for by in BY:
                found = costs(profile, by)
                assert found.tokens > before
                if by != "tool":  # those are a part of what the models were told
                    assert sum(row.tokens for row in found.rows) == found.tokens, by
            names = {by: {row.name for row in costs(profile, by).rows} for by in BY}
            assert (names["agent"], names["run"]) == ({"ann", "(no agent)"}, {str(answer.run), "(no run)"})

    run(work())


# --- swarms and act -------------------------------------------------------------------------------------------------


def test_mail_that_is_kept_is_read() -> None:
    """An inbox of a trimmed log holds what is kept (one look ended the whole swarm)."""

    async def work() -> None:
        async with open_log("memory:") as log:
            talk = Talk(log)
            await talk.send("bob", "ann", "early")
            assert (await cut(log)).before
            await talk.send("bob", "ann", "late")
            assert [one.body for one in await talk.inbox("ann")] == ["late"]

            def reads(request: ModelRequest) -> Any:
                return call("read_mail") if turn_of(request) < 1 else "read"

            done = await Swarm([agent(log, reads, name="eve")], talk=True).run("t", ["look at your mail"])
            assert done.ok

    run(work())


def test_a_trim_keeps_what_a_swarm_works_on() -> None:
    """Until it is done, a plan holds the log; then it goes, and the same task says that its answer is gone."""

    async def work() -> None:
        async with open_log("memory:") as log:
            ann = agent(log, lambda request: "fine", name="ann")
            swarm = Swarm([ann], lease_s=30)
            plan = [SubTask(name="a", text="x"), SubTask(name="b", text="y", after=("a",))]
            for _ in range(3):
                await log.append(Notice(code="noise", message="."))
            position = await swarm.start("t", plan)
            held = await cut(log)
            assert held.before <= position and "plan" in held.held_by[0]
            done = await swarm.run("t", plan)
            assert (list(done.results), done.run) == (["a", "b"], position)
            assert (await cut(log)).before > position
            with pytest.raises(LogTrimmed, match="answer was trimmed"):
                await Swarm([ann], lease_s=30).run("t", plan)
            assert (await Swarm([ann]).run("another", ["z"])).ok

    run(work())


def test_a_plan_that_was_cut_away_is_an_error() -> None:
    """Whoever cut the log by force took the plan: nobody takes what is left of it for the whole."""

    async def work() -> None:
        async with open_log("memory:") as log:
            swarm = Swarm([agent(log, lambda request: "fine", name="ann")], lease_s=30)
            await swarm.start("t", ["x", "y"])
            assert await bookmark(log, after=1)
            await log.trim(await log.tail())
            with pytest.raises(LogTrimmed, match="The plan of this task"):
                await swarm.run("t", ["x", "y"])

    run(work())


def test_a_key_whose_action_was_trimmed() -> None:
    """It is not done again, and the error says why nothing can be given; other keys work."""
    done: list[int] = []

    @tool(effect="irreversible")
    def put(shelf: int) -> str:
        """Put it there."""
        done.append(shelf)
        return "put"

    async def work() -> None:
        async with open_log("memory:") as log:
            first = Action(tool="put", arguments={"shelf": 1})
            assert await agent(log, tools=[put]).act(first, key="k") == "put"
            assert (await cut(log)).before
            for _ in range(2):
                with pytest.raises(UsageError, match="was trimmed"):
                    await agent(log, tools=[put]).act(first, key="k")
            assert await agent(log, tools=[put]).act(first, key="other") == "put"
        assert done == [1, 1]

    run(work())


def test_a_check_that_is_due_ends_with_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``health --due`` is for monitoring, too: 21 of a runaway, 0 where nothing is due (was 0 of everything)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "script.json").write_text(
        json.dumps([*({"call": "look", "arguments": {}} for _ in range(8)), "done"])
    )
    (tmp_path / "spec.toml").write_text(SPEC)
    assert here("health", "spec.toml", "--agent", "nobody").returncode == 5, "there is no log yet"
    assert here("health", "spec.toml", "--due").returncode == 0, "the job begins"
    assert here("run", "spec.toml", "go", "--quiet").returncode == 0
    for given, code in (((), 21), (("--agent", "ann"), 21), (("--agent", "nobody"), 2), (("--run", "7"), 2)):
        assert here("health", "spec.toml", *given).returncode == code, given
    late = environment.REAL.wall_ms() + 90_000

    class Later(environment.Env):
        def wall_ms(self) -> int:
            return late

    environment.use(Later())
    try:
        done = here("health", "spec.toml", "--due")
        assert (done.returncode, done.stdout) == (21, "health:ann: runaway, notify\n")
        again = here("health", "spec.toml", "--due")
        assert (again.returncode, again.stdout) == (0, "Nothing is due.\n")
    finally:
        environment.use(environment.REAL)


TOOLS = """
from logact import tool

@tool(effect="read")
def look() -> str:
    "Look."
    return "jam"
"""

SPEC = """
[agent]
name = "ann"
model = "scripted:script.json"

[log]
url = "sqlite:///a.db"

[[tools]]
use = "tools.py:look"

[[voters]]
use = "safety"

[health]
cron = "* * * * *"
"""
