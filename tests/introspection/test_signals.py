"""The computed signals on runs of real agents: each planted fault is found under its name, healthy runs have none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from benchmarks.introspection_plants import KINDS, played

from logact.core.state import State
from logact.introspection.drifting import drifting
from logact.introspection.health import MEANS, computed
from logact.introspection.performance import performance
from logact.introspection.profile import Profile, RunProfile, Step
from logact.introspection.profiler import folded
from logact.introspection.signals import Thresholds, signals
from tests.runtime.kit import run

VERDICTS = {
    "slow_tool": "degraded",
    "retry_storm": "runaway",
    "loop": "runaway",
    "growing_context": "degraded",
    "silent_voter": "stuck",
    "expensive_model": "degraded",
    "drift": "degraded",
    "stuck_wait": "stuck",
    "repeated_reads": "degraded",
    "budget_leak": "runaway",
}


async def looked_at(seed: int, fault: str) -> tuple[State, Profile, int]:
    log, now_ms = await played(seed, fault)
    async with log:
        known = await folded(log)
    return known.state, known.profile, now_ms


@pytest.mark.parametrize("fault", KINDS)
def test_a_planted_fault_is_found(fault: str) -> None:
    """Each of the ten faults is found, with positions in the log and a verdict that is at least as bad."""
    state, profile, now_ms = run(looked_at(3, fault))
    found = [one for one in signals(state, profile, now_ms, Thresholds()) if one.code == fault]
    assert found
    assert all(0 < cite <= state.position for one in found for cite in one.cites)
    assert found[0].cites
    assert found[0].value >= found[0].threshold
    health = computed(state, profile, now_ms, Thresholds())
    assert health.verdict in (VERDICTS[fault], "runaway", "stuck")
    assert health.exit_code > 0


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_healthy_run_is_healthy(seed: int) -> None:
    """A run in which nothing is wrong gives no signal, and the verdict is healthy."""
    state, profile, now_ms = run(looked_at(seed, ""))
    assert signals(state, profile, now_ms, Thresholds()) == []
    assert computed(state, profile, now_ms, Thresholds()).verdict == "healthy"


def test_a_threshold_of_zero_switches_a_signal_off() -> None:
    """What is switched off is not reported, whatever happens."""
    state, profile, now_ms = run(looked_at(3, "slow_tool"))
    assert signals(state, profile, now_ms, Thresholds(slow_tool_s=0)) == []


def test_every_signal_has_a_meaning() -> None:
    """No signal is without a place in the verdict."""
    assert set(KINDS) <= set(MEANS)


def test_sums_are_those_of_the_entries() -> None:
    """Tokens, times and money by model and tool add up to what stands in the entries."""

    async def work() -> None:
        from logact.entry import Inference, Result

        log, now_ms = await played(5)
        async with log:
            known = await folded(log)
            found = performance(known.state, known.profile, Thresholds(), now_ms)
            said = [one.payload async for one in log.read() if isinstance(one.payload, Inference)]
            done = [one async for one in log.read() if isinstance(one.payload, Result) and one.tool != "answer"]
        assert found.tokens.input == sum(one.usage.input_tokens for one in said)
        assert found.tokens.output == sum(one.usage.output_tokens for one in said)
        assert found.usd == pytest.approx(sum(one.usage.cost_usd or 0 for one in said))
        assert found.times.model_ms == pytest.approx(sum(one.latency_ms for one in said))
        took = sum(one.payload.duration_ms for one in done if isinstance(one.payload, Result))
        assert found.times.tools_ms == pytest.approx(took)
        assert sum(row.count for row in found.tools) == len(done) == found.actions

    run(work())


def test_a_profile_survives_its_bytes() -> None:
    """What a checkpoint carries is what was counted, and counting goes on from there to the same sums."""
    _, profile, _ = run(looked_at(4, "retry_storm"))
    again = msgspec.json.decode(msgspec.json.encode(profile), type=Profile)
    assert again == profile


def test_a_checkpoint_carries_the_profile() -> None:
    """A profile that is read from a checkpoint on equals the one that is read from the beginning."""

    async def work() -> None:
        from logact import LogActAgent, ScriptedModel, open_log, tool
        from logact.introspection.profiler import Profiler
        from logact.models import call
        from logact.runtime.tail import Tail

        @tool(effect="read")
        def look(place: int) -> str:
            """Look."""
            return f"seen {place}"

        script: list[Any] = [*(call("look", place=place) for place in range(12)), "done"]
        async with open_log("memory:") as log:
            agent = LogActAgent("ann", log, model=ScriptedModel(script), tools=[look], checkpoint_every=20)
            await agent.run("look twelve times")
            short = await folded(log)
            tail = Tail(log, from_checkpoint=False)
            Profiler.beside(tail, whole=True)
            await tail.start()
        assert tail.entries_applied > short.read > 0
        assert short.profile == Profiler.of(tail).profile

    run(work())


def steps(*said: str, tool: str = "look") -> list[Step]:
    return [Step(place, tool, f"{tool} {text}", "read", 0, said=text) for place, text in enumerate(said, 1)]


def test_what_the_task_led_to_is_no_drift() -> None:
    """Words that a call on the task brought belong to the task from then on."""
    about = RunProfile(id=1, agent="ann", topic=["find the invoice of Moreau"], status="finished")
    about.steps = steps("invoice moreau", "harbour ledger", "ledger seven")
    about.steps[0].got = "see the harbour office"
    assert drifting(about, 2) == []
    about.steps[0].got = "nothing"
    assert drifting(about, 2) == [2, 3]


def test_work_that_never_named_its_task_is_no_drift() -> None:
    """Without one call on the task nobody can tell drift from another way of speaking."""
    about = RunProfile(id=1, agent="ann", topic=["finde die Rechnung"], status="finished")
    about.steps = steps(*(f"word{place}" for place in range(10)))
    assert drifting(about, 2) == []


def test_a_bookmark_makes_the_next_check_short() -> None:
    """A log without checkpoints is read whole once; then one carries what was counted and what voters know."""

    async def work() -> None:
        from logact import LogActAgent, ResourceVoter, ScriptedModel, open_log, tool
        from logact.models import call
        from logact.runtime.checkpointer import bookmark

        @tool(effect="read")
        def look(place: int) -> str:
            """Look."""
            return f"seen {place}"

        script: list[Any] = [*(call("look", place=place) for place in range(12)), "done"]
        async with open_log("memory:") as log:
            voters = [ResourceVoter(actions=100)]
            agent = LogActAgent("ann", log, voters, model=ScriptedModel(script), tools=[look], checkpoint_every=0)
            await agent.run("look twelve times")
            before = await folded(log)
            assert await bookmark(log, agent="ann", voters=voters, after=before.read + 1) == 0
            assert await bookmark(log, agent="ann", voters=voters, after=20) > 0
            after = await folded(log)
            assert (before.read > 60, after.read) == (True, 1)
            assert after.profile.runs == before.profile.runs
            await agent.run("and again", new=True)  # its voters take their memories from there

    run(work())
