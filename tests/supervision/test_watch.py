"""What a watch notices in real runs, and what it does about it: warn, pause, ask, stop; once each time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import Limits, Watch
from logact.entry import Control, Finding
from logact.errors import RunPaused, RunStopped, SpecError, UsageError
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.runtime.watcher import Act
from logact.spec import build_agent, dump_spec, parse_spec
from tests.recovery.kit import Flaky, an_agent, entries, folded

LOOPING = [call("send", item="a") for _ in range(8)] + ["done"]


def told(engine_entries: list[Any]) -> list[Finding]:
    """The findings among entries."""
    return [one.payload for one in engine_entries]


async def test_a_loop_is_written_down_once_and_the_run_goes_on() -> None:
    """The usual watch warns: one finding, which cites the actions."""
    engine = MemoryEngine()
    answer = await an_agent(engine, LOOPING, [Flaky().tool]).run("go")
    assert answer.ok
    (finding,) = told(await entries(engine, "Finding"))
    assert (finding.code, len(finding.cites)) == ("loop", 5)
    assert await entries(engine, "Control") == []


async def test_stop_ends_the_run() -> None:
    """The run is stopped at the finding, in the same record."""
    engine, tool = MemoryEngine(), Flaky()
    with pytest.raises(RunStopped):
        await an_agent(engine, LOOPING, [tool.tool], watch=Watch(loop="stop", repeats=3)).run("go")
    (finding,) = await entries(engine, "Finding")
    (control,) = await entries(engine, "Control")
    assert control.position == finding.position + 1
    assert 3 <= len(tool.calls) <= 4
    assert [run.status for run in (await folded(engine)).runs.values()] == ["stopped"]


async def test_ask_ends_the_call_and_says_how_to_go_on() -> None:
    """The run is paused until a person resumes it; a second call says the same; after it the count begins anew."""
    engine, tool = MemoryEngine(), Flaky()
    watch = Watch(loop="ask", repeats=3)
    with pytest.raises(RunPaused, match=r"logact resume LOG --run 2000"):
        await an_agent(engine, LOOPING, [tool.tool], watch=watch).run("go")
    calls = len(tool.calls)
    with pytest.raises(RunPaused, match="again and again"):
        await an_agent(engine, LOOPING, [tool.tool], watch=watch).run("go")
    assert len(tool.calls) == calls
    assert len(await entries(engine, "Finding")) == 1
    script = [*LOOPING[: calls + 1], "done"]
    agent = an_agent(engine, script, [tool.tool], watch=watch)
    run = (await entries(engine, "Run"))[0].position
    await agent.log.append(Control(verb="resume", scope=f"run:{run}"), role="operator", name="pat")
    assert (await agent.run("go")).ok


async def test_pause_waits_for_a_resume_in_place() -> None:
    """The run rests, without asking the model, until somebody resumes it."""
    engine, tool = MemoryEngine(), Flaky()
    agent = an_agent(engine, LOOPING, [tool.tool], watch=Watch(loop="pause", repeats=3))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.run("go"))
        while not (controls := await entries(engine, "Control")):
            await asyncio.sleep(0.01)
        asked = len(await entries(engine, "Inference"))
        await asyncio.sleep(0.05)
        assert len(await entries(engine, "Inference")) <= asked + 1
        paused = controls[0].payload
        assert isinstance(paused, Control)
        assert "logact resume" in paused.reason
        while not running.done():  # it loops on, and is paused again
            if (await folded(engine)).paused:
                await agent.log.append(Control(verb="resume", scope=paused.scope), role="operator", name="pat")
            await asyncio.sleep(0.01)
        assert running.result().ok
    assert len(await entries(engine, "Finding")) >= 2


async def test_a_limit_that_comes_near_is_found_before_it_ends_the_run() -> None:
    """The finding comes at the share, with what is used."""
    engine, tool = MemoryEngine(), Flaky()
    script = [*(call("send", item=str(place)) for place in range(9)), "done"]
    await an_agent(engine, script, [tool.tool], limits=Limits(turns=10)).run("go")
    (finding,) = told(await entries(engine, "Finding"))
    assert (finding.code, finding.key) == ("budget", "turns")
    assert "8 of 10 turns" in finding.message


async def test_rising_errors_and_a_stall_are_found() -> None:
    """Different failures, one after the other."""
    engine = MemoryEngine()
    script = [*(call("send", item=str(place)) for place in range(13)), "done"]
    await an_agent(engine, script, [Flaky(*[RuntimeError("no")] * 13).tool]).run("go")
    assert [one.code for one in told(await entries(engine, "Finding"))] == ["errors", "stall"]


@pytest.mark.parametrize("off", ["loop", "stall", "errors", "budget"])
async def test_each_can_be_switched_off(off: str) -> None:
    """What is off is not even written down."""
    engine = MemoryEngine()
    script = [*(call("send", item="a") for _ in range(13)), "done"]
    acts: dict[str, Act] = {off: "off"}
    watch = Watch(**acts)  # type: ignore[arg-type]
    agent = an_agent(engine, script, [Flaky(*[RuntimeError("no")] * 13).tool], watch=watch, limits=Limits(turns=15))
    await agent.run("go")
    found = {one.code for one in told(await entries(engine, "Finding"))}
    assert found == {"loop", "stall", "errors", "budget"} - {off}


async def test_the_model_is_not_waited_for_beyond_the_end_of_the_run() -> None:
    """A model that hangs ends with the run's own time, and the run concludes."""
    engine = MemoryEngine()

    async def think(request: object) -> str:
        await asyncio.sleep(30)
        return "too late"

    answer = await an_agent(engine, [think], [], limits=Limits(seconds=1)).run("go")
    assert not answer.ok
    assert "limit of 1 seconds" in answer.reason
    assert [one.payload.code for one in await entries(engine, "Notice")] == ["run_deadline"]  # type: ignore[attr-defined]


SPEC = """
[agent]
name = "ops"
lease_s = 5.0
end_hung = false

[log]
url = "memory:"

[checkpoints]
every = 100
bytes = 5000
seconds = 30.0

[recovery]
max_retries = 2
by_class = {timeout = {max_retries = 0}, failed = {base_delay = 2.0}}

[breaker]
failures = 2
delay_s = 0.5

[watch]
loop = "ask"
repeats = 4
"""


def test_a_specification_says_it_all() -> None:
    """Each table reaches the agent, and is written back as it was."""
    spec = parse_spec(SPEC)
    assert parse_spec(dump_spec(spec)) == spec
    agent = build_agent(spec)
    assert agent.recovery is not None
    assert agent.recovery.max_retries == 2
    assert agent.recovery.rules["failed"].base_delay == 2.0
    assert agent.recovery.rules["timeout"].max_retries == 0
    assert agent.breaker is not None
    assert (agent.breaker.failures, agent.breaker.delay_s, agent.breaker.wait_s) == (2, 0.5, 3600)
    assert (agent.watch.loop, agent.watch.repeats, agent.watch.stall) == ("ask", 4, "warn")
    assert (agent.lease_s, agent.end_hung) == (5.0, False)
    assert (agent.checkpoint_every, agent.checkpoint_bytes, agent.checkpoint_s) == (100, 5000, 30.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[watch]\nloop = "shout"', "loop"),
        ("[watch]\nrepeats = 1", "repeats"),
        ("[breaker]\nfailures = 0", "failures"),
        ("[recovery]\njitter = 2.0", "jitter"),
        ("[recovery]\nby_class = {permanent = {max_retries = 2}}", "permanent"),
        ("[checkpoints]\nbytes = -1", "checkpoints"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(text: str, said: str) -> None:
    """A mistake names the table, and where it stands."""
    with pytest.raises(SpecError, match=r"line \d") as caught:
        parse_spec(f'[agent]\nname = "ops"\n\n{text}')
    assert said in str(caught.value)


def test_a_watch_that_cannot_be_used_is_refused() -> None:
    """Also where it is made in code."""
    with pytest.raises(UsageError, match="share"):
        Watch(share=0)
    with pytest.raises(UsageError, match="loop='shout'"):
        Watch(loop="shout")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "supervise", "said"),
    [
        ("lease_s = 0.5", "", "agent.lease_s is not usable"),
        ("lease_s = -1", "", "agent.lease_s is not usable"),
        ("lease_s = nan", "", "agent.lease_s is not usable"),
        ("", "hang_s = 90", "supervise.hang_s is longer than agent.lease_s"),
        ("lease_s = 10", "hang_s = 20", "supervise.hang_s is longer than agent.lease_s"),
        ("", "hang_s = 1", "supervise.hang_s is not usable"),
        ("lease_s = 0", "hang_s = 900", ""),
        ("lease_s = 120", "hang_s = 90", ""),
        ("lease_s = 5", "", ""),
    ],
)
def test_leases_and_the_supervisors_patience_fit_each_other(agent: str, supervise: str, said: str) -> None:
    """What would never count, or could not be kept, is refused where the file is read."""
    text = f'[agent]\nname = "ops"\n{agent}\n[supervise]\n{supervise}\n'
    if said:
        with pytest.raises(SpecError, match=said) as caught:
            parse_spec(text)
        assert caught.value.expected
    else:
        parse_spec(text)
