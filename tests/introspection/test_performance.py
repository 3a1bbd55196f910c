"""What debugging computes: of the part that was asked for alone, questions asked again, models that are too big."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel, Vote, open_log, tool
from logact.core.state import State
from logact.core.views import LogEntry
from logact.entry import Entry, Inference, Intent, Result, Usage
from logact.entry import Vote as VoteEntry
from logact.introspection.changes import problem
from logact.introspection.costs import costs
from logact.introspection.performance import Performance, performance
from logact.introspection.profile import RUNS_DETAILED, RUNS_KEPT, Profile, RunProfile, Sums, Tally
from logact.introspection.profile_scope import sums_of
from logact.introspection.profile_sums import let_go
from logact.introspection.profiler import Folded, folded
from logact.introspection.signals import Thresholds, signals
from logact.logs.base import SharedLog
from logact.models import ModelAnswer, ModelRequest, call
from tests.runtime.kit import run

NOW_MS = 2_000_000_000_000


@tool(effect="read")
def look(place: int) -> str:
    """Look at a place."""
    return f"seen {place}"


@tool(effect="read")
def peek(place: int) -> str:
    """Look at a place that is closed."""
    raise ValueError(f"place {place} is closed")


@tool(effect="read")
def unused(text: str) -> str:
    """Say something that takes a good many words to describe, and that nobody ever wants to have said."""
    return text


def allow(entry: LogEntry) -> Vote:
    """Let everything pass."""
    return Vote(approved=True, reason="fine")


def priced(script: list[Any], name: str, usd: float) -> ScriptedModel:
    """A scripted model whose tokens cost something."""

    def answer(request: ModelRequest) -> ModelAnswer:
        turn = sum(message.role == "assistant" for message in request.messages)
        said = script[turn]
        usage = Usage(input_tokens=100 * (turn + 1), output_tokens=10, cost_usd=(100 * (turn + 1) + 10) * usd)
        if isinstance(said, str):
            return ModelAnswer(text=said, usage=usage, model=name)
        return ModelAnswer(calls=(said,), usage=usage, model=name)

    return ScriptedModel(answer, name=f"openai:{name}")


def found_of(known: Folded, **scope: Any) -> Performance:
    return performance(known.state, known.profile, Thresholds(), NOW_MS, **scope)


# --- scope ------------------------------


async def interleaved(log: SharedLog) -> dict[str, list[int]]:
    """Two agents on one log at the same time, two runs each: different models, tools, voters, errors. Their runs."""

    def guard(entry: LogEntry) -> Vote:
        return Vote(approved=True, reason="fine")

    ann = LogActAgent(
        "ann", log, [allow], tools=[look], model=priced([call("look", place=7)] * 4 + ["seen"], "small", 1e-6)
    )
    bob = LogActAgent(
        "bob",
        log,
        [guard],
        tools=[peek],
        model=priced([call("peek", place=n) for n in range(6)] + ["no"], "big", 9e-6),
    )
    for task in ("first", "second"):
        await asyncio.gather(ann.run(task), bob.run(task))
    found: dict[str, list[int]] = {"ann": [], "bob": []}
    for key, one in (await folded(log)).profile.runs.items():
        found[one.agent].append(key)
    return found


def test_every_figure_is_of_the_part_asked_for() -> None:
    """Of an agent or a run nothing of the others is counted; the parts add up to the whole."""

    async def work() -> None:
        async with open_log("memory:") as log:
            runs = await interleaved(log)
            known = await folded(log)
            every = [entry async for entry in log.read()]
        assert runs["ann"][0] < runs["bob"][0] < runs["ann"][1] or runs["bob"][0] < runs["ann"][0] < runs["bob"][1]
        of = {entry.position: entry for entry in every}
        scopes: list[tuple[dict[str, Any], list[int]]] = [
            ({"agent": "ann"}, runs["ann"]),
            ({"agent": "bob"}, runs["bob"]),
            *(({"run": one}, [one]) for one in runs["ann"] + runs["bob"]),
        ]
        for scope, chosen in scopes:
            _compared(
                found_of(known, **scope),
                [entry for entry in every if {entry.run, entry.position} & {*chosen}],
                of,
                set(chosen),
            )
        whole = found_of(known)
        parts = [found_of(known, agent=agent) for agent in runs]
        for name in ("runs", "turns", "actions"):
            assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
        assert whole.usd == pytest.approx(sum(part.usd or 0 for part in parts))
        assert {row.name for row in whole.models} == {"small", "big"}
        assert whole.entries == known.profile.entries

    run(work())


def _compared(found: Performance, mine: list[Entry], of: dict[int, Entry], runs: set[int]) -> None:
    """Every sum against the entries themselves, and no list names what lies outside."""
    said = [one.payload for one in mine if isinstance(one.payload, Inference)]
    results = [one.payload for one in mine if isinstance(one.payload, Result) and one.tool != "answer"]
    intents = [one for one in mine if isinstance(one.payload, Intent) and one.tool != "answer"]
    assert (found.entries, found.runs) == (len(mine), len(runs))
    assert (found.turns, found.actions) == (len(said), len(intents))
    assert found.tokens.input == sum(one.usage.input_tokens for one in said)
    assert found.usd == pytest.approx(sum(one.usage.cost_usd or 0 for one in said))
    assert found.times.tools_ms == pytest.approx(sum(one.duration_ms for one in results))
    assert {row.name: row.count for row in found.models} == {said[0].model: len(said)}
    assert {row.name: row.count for row in found.tools} == {intents[0].tool: len(results)}
    votes = [one.payload for one in mine if isinstance(one.payload, VoteEntry)]
    assert sum(row.count for row in found.voters) == len(votes)
    assert sum(row.failed for row in found.tools) == sum(one.error is not None for one in results)
    assert sum(one.count for one in found.errors) == sum(one.error is not None for one in results)
    cited = [position for lists in (found.slowest, found.dearest, found.largest) for _, position, _ in lists]
    cited += [position for one in found.errors for position in one.positions]
    cited += [position for one in found.repeated for position in one.positions]
    cited += [cite for one in found.contexts for cite in one.cites]
    assert found.dearest
    assert {of[one].run for one in cited} <= runs
    for signal in found.signals:
        assert {of[one].run for one in signal.cites} <= runs


def test_a_silent_voter_is_its_agents() -> None:
    """A voter that is silent for one agent is no signal for another."""
    profile = Profile(runs={1: RunProfile(id=1, agent="ann"), 2: RunProfile(id=2, agent="bob")})
    from logact.introspection.profile import Silence

    profile.silence["ann"] = {"judge": Silence(5, [3, 4, 5])}
    codes = [one.agent for one in signals(State(log="x"), profile, 0, Thresholds()) if one.code == "silent_voter"]
    assert codes == ["ann"]
    assert signals(State(log="x"), profile, 0, Thresholds(), agent="bob") == []


def test_sums_of_very_many_runs_stay_with_their_agent() -> None:
    """Runs that are not kept one by one any more are summed by agent, and nothing is lost."""
    profile = Profile()
    for number in range(1, RUNS_KEPT + 301):
        one = RunProfile(id=number, agent="ann" if number % 3 else "bob", status="finished", turns=2, entries=5)
        one.sums = Sums(models={"m": Tally(count=2, input_tokens=10)}, slowest=[(float(number), number, "look")])
        one.steps = []
        one.model = Tally(count=2, input_tokens=10)
        profile.runs[number] = one
        let_go(profile)
    assert len(profile.runs) == RUNS_KEPT
    every = RUNS_KEPT + 300
    for agent, count in (("ann", every - every // 3), ("bob", every // 3)):
        found = performance(State(log="x"), profile, Thresholds(), 0, agent=agent)
        assert (found.runs, found.turns, found.tokens.input) == (count, 2 * count, 10 * count)
        assert found.models[0].input_tokens == 10 * count
    assert costs(profile, "model").tokens == 10 * every
    assert next(at for _, at, _ in sums_of(profile).slowest) == every


# --- questions asked again ------------------------------


async def asked(*agents: LogActAgent, tasks: tuple[str, ...] = ("look",), log: SharedLog) -> Performance:
    for agent in agents:
        for task in tasks:
            await agent.run(task, new=True)
    return found_of(await folded(log))


def looker(log: SharedLog, name: str = "ann", model: str = "m", system: str = "", place: int = 7) -> LogActAgent:
    script = [call("look", place=place), "seen"]
    return LogActAgent(name, log, [allow], tools=[look], model=priced(script, model, 1e-6), system=system)


def test_a_question_asked_again_is_found() -> None:
    """The same input to the same model, in another run and by another agent: counted, with positions and cost."""

    async def work() -> None:
        async with open_log("memory:") as log:
            found = await asked(looker(log), looker(log, "bob"), tasks=("look", "look"), log=log)
            said = [one async for one in log.read() if isinstance(one.payload, Inference)]
        assert len(said) == 8
        assert [(one.model, one.count, one.tokens) for one in found.asked_again] == [("m", 3, 630), ("m", 3, 330)]
        assert found.asked_again[0].cites == tuple(one.position for one in said[1::2])
        assert found.asked_again[1].first == said[0].position
        assert found.asked_again[0].usd == pytest.approx(630e-6)
        assert found.tokens.again == 960
        proposal = next(one for one in found.proposals if one.title.startswith("Do not ask a model"))
        assert (proposal.tokens, proposal.usd) == (960, 960e-6)
        assert set(proposal.cites) == {one.position for one in said}

    run(work())


@pytest.mark.parametrize(
    "other", [{"model": "n"}, {"system": "be brief"}, {"place": 8}], ids=["model", "system", "results"]
)
def test_another_question_is_not_the_same(other: dict[str, Any]) -> None:
    """Another model, system prompt or earlier turn makes another question."""

    async def work() -> None:
        async with open_log("memory:") as log:
            found = await asked(looker(log), looker(log, "bob", **other), log=log)
            assert sum(one.count for one in found.asked_again) == (1 if "place" in other else 0)
        async with open_log("memory:") as log:
            found = await asked(looker(log), tasks=("look", "look again"), log=log)
            assert found.asked_again == ()

    run(work())


# --- models and tools ------------------------------


def test_a_model_that_is_too_big_is_named() -> None:
    """A dear model for short and simple turns: what another one of the log would have cost, as a change."""

    async def work() -> None:
        async with open_log("memory:") as log:
            script = [*(call("look", place=place) for place in range(6)), "seen"]
            ann = LogActAgent("ann", log, [allow], tools=[look], model=priced(script, "big", 4e-6))
            found = await asked(ann, log=log)
            alone = [one for one in found.proposals if one.kind == "model"]
            assert [(one.title, one.usd, one.change) for one in alone] == [
                ("Try a smaller model than big", 0.0, None)
            ]
            bob = LogActAgent("bob", log, [allow], tools=[look], model=priced(script, "little", 1e-6))
            found = await asked(bob, log=log)
            entries = [one async for one in log.read() if one.agent == "ann"]
        said = {one.position: one.payload.usage.cost_usd for one in entries if isinstance(one.payload, Inference)}
        made = next(one for one in found.proposals if one.kind == "model")
        assert made.change is not None
        assert (made.change.setting, made.change.value) == ("agent.model", "openai:little")
        assert made.usd == pytest.approx(sum(cost or 0 for cost in said.values()) * 3 / 4)
        assert set(made.cites) <= said.keys()
        assert "7 of 7 turns of big" in made.why
        assert problem(made.change) == ""

    run(work())


def test_a_model_with_hard_work_is_left_alone() -> None:
    """Broken calls, failures and long answers are no small turns."""

    async def work() -> None:
        async with open_log("memory:") as log:
            hard = [*(call("peek", place=place) for place in range(8)), "closed"]
            ann = LogActAgent("ann", log, [allow], tools=[peek], model=priced(hard, "big", 4e-6))
            bob = LogActAgent("bob", log, [allow], tools=[peek], model=priced(hard, "little", 1e-6))
            found = await asked(ann, bob, log=log)
            assert not [one for one in found.proposals if one.kind == "model"]

    run(work())


def test_tools_that_only_cost_are_named() -> None:
    """A tool of which nearly every call fails, and one that nobody calls, need not be offered."""

    async def work() -> None:
        async with open_log("memory:") as log:
            script = [call("look", place=1), *(call("peek", place=place) for place in range(2)), "closed"]
            agent = LogActAgent("ann", log, [allow], tools=[look, peek, unused], model=priced(script, "m", 1e-6))
            found = await asked(agent, tasks=("one", "two", "three"), log=log)
            size = (await folded(log)).profile.offered["ann"]["unused"]
        made = {one.title: one for one in found.proposals if one.kind == "tool"}
        failing, idle = made["Do not offer peek"], made["Do not offer what nobody calls: unused"]
        assert "6 of 6" in failing.why
        assert idle.tokens == 12 * size > 0
        for one, names in ((failing, ("peek",)), (idle, ("unused",))):
            assert one.change is not None
            assert (one.change.setting, one.change.value) == ("agent.hide_tools", names)
            assert one.cites
            assert problem(one.change) == ""

    run(work())


def test_repeated_reads_are_a_cache_to_apply() -> None:
    """Reads that told the same become one change that has them answered from the log."""

    async def work() -> None:
        async with open_log("memory:") as log:
            script = [*(call("look", place=7) for _ in range(4)), "seen"]
            agent = LogActAgent("ann", log, [allow], tools=[look], model=priced(script, "m", 1e-6))
            found = await asked(agent, log=log)
        made = next(one for one in found.proposals if one.kind == "cache" and one.change is not None)
        assert made.change is not None
        assert (made.change.setting, problem(made.change)) == ("agent.reuse_reads_s", "")
        assert len(made.cites) == 4

    run(work())


def test_details_that_are_let_go_keep_their_sums() -> None:
    """Of runs beyond those with details, what was asked again stays counted, in the run and for the agent."""

    async def work() -> None:
        async with open_log("memory:") as log:
            found = await asked(looker(log), tasks=("look",) * (RUNS_DETAILED + 8), log=log)
            known = await folded(log)
        assert found.tokens.again == (RUNS_DETAILED + 7) * 320
        assert sum(one.count for one in found.asked_again) == 2 * (RUNS_DETAILED + 7)
        second = sorted(known.profile.runs)[1]
        assert not known.profile.runs[second].steps
        assert found_of(known, run=second).tokens.again == 320

    run(work())
