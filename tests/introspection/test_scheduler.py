"""Jobs at times of cron expressions: state in the log, no time run twice, missed ones caught up or skipped."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.core.views import Action
from logact.entry import Control, Finding, Notice
from logact.errors import SpecError
from logact.introspection.health import Health
from logact.introspection.signals import Signal
from logact.runtime.scheduler import CLAIMED, Due, Job, Scheduler, check_job, due, next_ms
from logact.spec import parse_spec
from logact.spec_health import act, watch_health
from logact.spec_tables import HealthTable
from tests.introspection.conftest import BEGIN, Clock
from tests.runtime.kit import run

MINUTE = 60_000
QUARTERS = Job(name="look", cron="*/15 * * * *")


def noting(ran: list[int]) -> Any:
    async def work(found: Due) -> dict[str, Any]:
        ran.append(found.at_ms)
        return {"ok": True}

    return work


def test_times_are_those_of_the_expression() -> None:
    """The latest time that is over is due, once; how many came before it is counted."""
    ten = BEGIN - 5000
    assert due(QUARTERS, ten, ten + 14 * MINUTE) is None
    found = due(QUARTERS, ten, ten + 50 * MINUTE)
    assert found is not None
    assert (found.at_ms, found.missed, found.late) == (ten + 45 * MINUTE, 2, True)
    assert next_ms(QUARTERS, ten) == ten + 15 * MINUTE
    oslo = Job(name="x", cron="0 9 * * *", zone="Europe/Oslo")
    assert datetime.fromtimestamp(next_ms(oslo, BEGIN) / 1000, UTC).hour == 8


@pytest.mark.parametrize(("cron", "zone"), [("every day", "UTC"), ("99 * * * *", "UTC"), ("* * * * *", "Mars/Base")])
def test_what_is_no_time_is_refused(cron: str, zone: str) -> None:
    """A wrong expression or zone is an error of the specification."""
    with pytest.raises(SpecError, match="cannot be read"):
        check_job(Job(name="x", cron=cron, zone=zone))


def test_two_schedulers_run_each_time_once(clock: Clock, tmp_path: Path) -> None:
    """However many schedulers look at one log at the same time, each time is run by exactly one of them."""

    async def work() -> None:
        url = f"sqlite:///{tmp_path}/a.db"
        ran: list[int] = []
        async with open_log(url) as one, open_log(url) as two:
            pair = [Scheduler(log, [QUARTERS], noting(ran)) for log in (one, two, one)]
            for _ in range(9):
                await asyncio.gather(*(each.tick() for each in pair))
                clock.now_ms += 15 * MINUTE
        assert len(ran) == 8
        assert len(set(ran)) == 8

    run(work())


def test_a_restarted_scheduler_knows_what_was_run(clock: Clock) -> None:
    """State is in the log alone: a new scheduler neither repeats nor forgets."""

    async def work() -> None:
        ran: list[int] = []
        async with open_log("memory:") as log:
            for minutes in (0, 16, 17, 31):
                clock.now_ms = BEGIN + minutes * MINUTE
                await Scheduler(log, [QUARTERS], noting(ran)).tick()
        assert [round((at - BEGIN) / MINUTE) for at in ran] == [15, 30]

    run(work())


@pytest.mark.parametrize(("missed", "runs"), [("once", 1), ("skip", 0)])
def test_what_was_missed(clock: Clock, missed: Any, runs: int) -> None:
    """After an hour without any scheduler the last time is caught up once, or skipped; then things go on."""

    async def work() -> None:
        ran: list[int] = []
        job = Job(name="look", cron="*/15 * * * *", missed=missed)
        async with open_log("memory:") as log:
            scheduler = Scheduler(log, [job], noting(ran))
            await scheduler.tick()
            clock.now_ms += 65 * MINUTE
            await scheduler.tick()
            await scheduler.tick()
            assert len(ran) == runs
            claims = [one.payload async for one in log.read() if isinstance(one.payload, Notice)]
            claimed = [one for one in claims if one.code == CLAIMED]
            assert [(one.data["missed"], one.data["skipped"]) for one in claimed] == [(3, missed == "skip")]
            clock.now_ms = BEGIN + 75 * MINUTE
            await scheduler.tick()
            assert len(ran) == runs + 1

    run(work())


def test_a_crash_after_the_claim_is_not_run_again(clock: Clock) -> None:
    """A run that began and was cut off is not begun a second time; its claim shows that it has no end."""

    async def work() -> None:
        async def falls(found: Due) -> dict[str, Any]:
            raise RuntimeError("the machine is gone")

        ran: list[int] = []
        async with open_log("memory:") as log:
            await Scheduler(log, [QUARTERS], falls).tick()
            clock.now_ms += 15 * MINUTE
            with pytest.raises(RuntimeError):
                await Scheduler(log, [QUARTERS], falls).tick()
            assert await Scheduler(log, [QUARTERS], noting(ran)).tick() == []
        assert ran == []

    run(work())


def test_run_goes_on_with_the_clock(clock: Clock) -> None:
    """The loop sleeps from time to time and runs each of them."""

    async def work() -> None:
        ran: list[int] = []
        done = asyncio.Event()

        async def count(found: Due) -> dict[str, Any]:
            ran.append(found.at_ms)
            if len(ran) == 4:
                done.set()
            return {}

        async with open_log("memory:") as log, asyncio.timeout(20):
            loop = asyncio.ensure_future(Scheduler(log, [QUARTERS], count).run())
            await done.wait()
            loop.cancel()
        assert [later - earlier for earlier, later in itertools.pairwise(ran)] == [15 * MINUTE] * 3

    run(work())


# --- what follows from a verdict ------------------------------


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


def sick(verdict: Any, code: str = "loop") -> Health:
    return Health(verdict=verdict, signals=(Signal(code=code, message="it turns in circles", cites=(1000,)),))


@pytest.mark.parametrize(
    ("does", "verb", "notice"),
    [("notify", None, "health"), ("pause", "pause", "health"), ("stop", "stop", "health"),
     ("ask", "pause", "health_asks"), ("nothing", None, None), ("recover", None, "health")],
)  # fmt: skip
def test_acts_as_configured(does: Any, verb: str | None, notice: str | None) -> None:
    """Each configured act is an entry of the supervisor; the same verdict for the same reasons acts once."""

    async def work() -> None:
        table = HealthTable(cron="* * * * *", on={"runaway": does})
        async with open_log("memory:") as log:
            agent = LogActAgent("ann", log, model=ScriptedModel(["done"]), tools=[look])
            assert await act(log, agent, sick("runaway"), table) == does
            tail = await log.tail()
            assert await act(log, agent, sick("runaway"), table) == "nothing"
            assert await log.tail() == tail
            mine = [one async for one in log.read() if one.author.name == "health"]
            verbs = [one.payload.verb for one in mine if isinstance(one.payload, Control)]
            assert verbs == ([verb] if verb else [])
            notices = [one.payload.code for one in mine if isinstance(one.payload, Notice)]
            assert notices == ([notice] if notice else [])
            found = [one.payload for one in mine if isinstance(one.payload, Finding)]
            assert (found[0].code, found[0].cites) == ("health", (1000,))
            await act(log, agent, Health(verdict="healthy"), table)
            assert await act(log, agent, sick("runaway"), table) == does  # it is sick again

    run(work())


def test_a_paused_agent_starts_nothing() -> None:
    """What a health check pauses is held by the ordinary control, until a person lets it go on."""

    async def work() -> None:
        table = HealthTable(cron="* * * * *", on={"runaway": "stop"})
        async with open_log("memory:") as log:
            agent = LogActAgent("ann", log, model=ScriptedModel(["done"]), tools=[look])
            await act(log, agent, sick("runaway"), table)
            from logact.errors import RunStopped

            with pytest.raises(RunStopped):
                await agent.run("anything")

    run(work())


def test_a_scheduled_check_looks_and_acts(clock: Clock) -> None:
    """A looping agent is found by the scheduled check and paused."""

    async def work() -> None:
        from logact.models import call

        table = HealthTable(cron="*/15 * * * *", on={"runaway": "pause"}, thresholds={"reads": 0})
        async with open_log("memory:") as log:
            script: list[Any] = [*(call("look") for _ in range(7)), "done"]
            agent = LogActAgent("ann", log, model=ScriptedModel(script), tools=[look])
            scheduler = watch_health(log, agent, table)
            await scheduler.tick()
            await agent.run("look around")
            clock.now_ms += 15 * MINUTE
            assert len(await scheduler.tick()) == 1
            controls = [one.payload async for one in log.read() if isinstance(one.payload, Control)]
            assert [(one.verb, one.scope) for one in controls] == [("pause", "agent:ann")]
            done = [one.payload async for one in log.read() if isinstance(one.payload, Notice)]
            assert done[-1].data["verdict"] == "runaway"

    run(work())


def test_health_in_a_specification() -> None:
    """[health] is read, and its mistakes are named."""
    text = (
        '[agent]\nname = "ann"\n[health]\ncron = "*/15 * * * *"\non = {{ stuck = "{act}" }}\n'
        "[health.thresholds]\n{name} = 5\n"
    )
    spec = parse_spec(text.format(act="recover", name="wait_s"))
    assert spec.health is not None
    assert spec.health.on == {"stuck": "recover"}
    with pytest.raises(SpecError, match=r"line 7.*did you mean|no threshold 'wait'"):
        parse_spec(text.format(act="recover", name="wait"))
    with pytest.raises(SpecError, match="does not fit"):
        parse_spec(text.format(act="explode", name="wait_s"))


# --- kill -9 ------------------------------

LIVES = """\
import asyncio, os, signal, sys
from logact import env as environment, open_log
from logact.runtime.scheduler import DONE, Job, Scheduler

BEGIN, MINUTE = 1_772_359_205_000, 60_000
JOB = Job(name="look", cron="*/15 * * * *", missed=sys.argv[2])


class Clock(environment.Env):
    now_ms = BEGIN

    def wall_ms(self):
        return self.now_ms


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(Scheduler):
    dies = ""

    async def _append(self, job, notice, **more):
        if notice.code == DONE and self.dies == "before the end is written":
            die()
        fresh = await super()._append(job, notice, **more)
        if notice.code == DONE and self.dies == "after the end is written":
            die()
        return fresh


async def tick(minutes, dies):
    clock = Clock()
    clock.now_ms = BEGIN + minutes * MINUTE
    environment.use(clock)

    async def work(due):
        if dies == "before the work":
            die()
        with open("ran", "a") as file:
            file.write(f"{due.at_ms}\\n")
            file.flush()
            os.fsync(file.fileno())
        if dies == "after the work":
            die()
        return {}

    async with open_log(sys.argv[1]) as log:
        scheduler = Dying(log, [JOB], work)
        scheduler.dies = dies
        await scheduler.tick()


def lives(minutes, *deaths):
    children = []
    for dies in deaths:
        child = os.fork()
        if not child:
            asyncio.run(tick(minutes, dies))
            os._exit(0)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


assert lives(0, "") == [0]
deaths = ("before the work", "after the work", "before the end is written", "after the end is written")
for place, dies in enumerate(deaths):
    minutes = 30 * place + 16
    assert lives(minutes, dies) == [signal.SIGKILL], dies
    assert lives(minutes, "", "") == [0, 0], dies
    assert lives(minutes + 15, "", "", "") == [0, 0, 0]
lives(30 * len(deaths) + 128, "", "")
"""


@pytest.mark.parametrize(("missed", "caught_up"), [("once", 1), ("skip", 0)])
def test_killed_schedulers_run_no_time_twice(tmp_path: Path, missed: str, caught_up: int) -> None:
    """Processes that share a schedule are killed at every step of it: no time is run twice, the next is run once."""
    (tmp_path / "lives.py").write_text(LIVES)
    command = [sys.executable, "lives.py", "sqlite:///a.db", missed]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    ran = [(int(line) - BEGIN) // MINUTE for line in (tmp_path / "ran").read_text().split()]
    assert len(set(ran)) == len(ran)
    alone = [14, 44, 74, 104]  # the times whose scheduler was killed: the first of them before it had worked
    expected = sorted([*alone[1:], *(minutes + 15 for minutes in alone)])
    assert sorted(ran)[: len(expected)] == expected
    assert len(ran) == len(expected) + caught_up  # what was missed for two hours


def test_recover_settles_what_a_life_left() -> None:
    """Where the configuration says so, a sick verdict has what an earlier life left unfinished carried out."""

    async def work() -> None:
        table = HealthTable(cron="* * * * *", on={"stuck": "recover"})
        looked: list[str] = []

        @tool(effect="read")
        def glance() -> str:
            """Look."""
            looked.append("looked")
            return "seen"

        async with open_log("memory:") as log:
            first = LogActAgent("ann", log, tools=[glance])
            entry = await first.propose_action(Action(tool="glance"))
            await first.validate_action(entry)  # and there its life ends
            second = LogActAgent("ann", log, tools=[glance])
            assert await act(log, second, sick("stuck", "stall"), table) == "recover"
            assert looked == ["looked"]
            assert (await second.state()).open_actions == {}

    run(work())


def test_ask_waits_for_a_person() -> None:
    """Where the configuration says ask, nothing starts until a person lets the agent go on."""

    async def work() -> None:
        table = HealthTable(cron="* * * * *", on={"runaway": "ask"})
        async with open_log("memory:") as log:
            agent = LogActAgent("ann", log, model=ScriptedModel(["done"]), tools=[look])
            await act(log, agent, sick("runaway"), table)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(agent.run("anything"))
                for _ in range(20):
                    await asyncio.sleep(0.005)
                assert not task.done()
                resume = Control(verb="resume", scope="agent:ann", reason="go on")
                await log.append(resume, role="operator", name="pat")
            assert task.result().text == "done"

    run(work())
