"""A model's recovery: what it may see, what it may propose, and what happens when it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from logact.core.views import Action, LogEntry
from logact.entry import Cancel, Finding, Vote
from logact.errors import LogActError, ModelError, UsageError
from logact.introspection.semantic_recovery import SemanticOutcome, SemanticRecovery
from logact.logs.memory import MemoryEngine
from logact.models.base import ModelRequest
from logact.models.scripted import ScriptedModel, call, turn_of
from logact.runtime.retry import RetryRecovery
from logact.tools import Tool, ToolError
from logact.voters.base import Voter
from tests.recovery.kit import Flaky, an_agent, entries, folded


def plan(decision: str, *actions: dict[str, Any], reasoning: str = "because") -> Any:
    """The model's answer."""
    return call("answer", value={"decision": decision, "reasoning": reasoning, "actions": list(actions)})


def world() -> tuple[Flaky, list[Tool]]:
    """A tool that is down, one that looks, one that works instead."""
    down = Flaky(*[ToolError("gone for good", kind="failed", definite=True) for _ in range(2)])

    async def look() -> str:
        """Look at the world."""
        return "a: missing"

    async def other(item: str) -> str:
        """Do it otherwise."""
        return f"{item} done otherwise"

    return down, [down.tool, Tool(look, effect="read"), Tool(other, name="other", effect="idempotent")]


async def recover(script: Any, **more: Any) -> tuple[SemanticOutcome, MemoryEngine, Flaky, ScriptedModel]:
    """Fail an action, then recover with a model."""
    engine = MemoryEngine()
    down, tools = world()
    voters = more.pop("voters", ())
    model = ScriptedModel(script)
    async with an_agent(engine, [], tools, voters=voters) as agent:
        entry = await agent.propose_action(Action(tool="send", arguments={"item": "a"}))
        await agent.validate_action(entry)
        await agent.execute_action(entry)
        outcome = await SemanticRecovery(model, **more).recover_with_introspection(agent)
    return outcome, engine, down, model


async def test_another_plan_after_a_look() -> None:
    """The model looks through a read-only tool; its plan runs as ordinary actions, its reasoning is an entry."""
    script = [
        call("look"),
        plan("alternative", {"tool": "other", "arguments": {"item": "a"}}, reasoning="send is gone"),
    ]
    outcome, engine, _, model = await recover(script)
    assert outcome.ok
    assert len(outcome.actions) == 1
    state = await folded(engine)
    assert state.actions[outcome.actions[0]].status == "executed"
    findings = [one.payload for one in await entries(engine, "Finding")]
    assert any(isinstance(one, Finding) and "send is gone" in one.message for one in findings)
    shown = model.requests[0]
    assert {tool.name for tool in shown.tools} == {"look", "answer"}
    assert "gone for good" in shown.messages[0].text
    assert not state.ignored


async def test_an_analysis_alone_changes_nothing() -> None:
    """The model, told what the caller adds, says what it would do; that is an entry, and nothing else is done."""
    engine = MemoryEngine()
    down, tools = world()
    async with an_agent(engine, [], tools) as agent:
        entry = await agent.propose_action(Action(tool="send", arguments={"item": "a"}))
        await agent.validate_action(entry)
        await agent.execute_action(entry)
        for script, decision in (
            ([plan("retry")], "retry"),
            ([plan("skip")], "skip"),
            ([plan("alternative", {"tool": "other", "arguments": {"item": "a"}})], "alternative"),
        ):
            model = ScriptedModel(script)
            found = await SemanticRecovery(model).llm_analyze(agent, prompt="Be careful with the post.")
            assert (found.decision, found.should_retry, found.should_skip) == (
                decision,
                decision == "retry",
                decision == "skip",
            )
            assert model.requests[0].messages[0].text.startswith("Be careful with the post.")
        assert [one.tool for one in found.alternatives] == ["other"]
        with pytest.raises(ModelError):
            await SemanticRecovery(ScriptedModel(["nonsense"] * 20), turns_max=2).llm_analyze(agent)
    assert len(down.calls) == 1
    state = await folded(engine)
    assert [one.status for one in state.actions.values() if one.intent.tool != "answer"] == ["failed"]
    assert {run.status for run in state.runs.values()} <= {"finished", "stopped"}
    findings = [one.payload for one in await entries(engine, "Finding")]
    assert [one.code for one in findings if isinstance(one, Finding)][:3] == ["semantic_recovery"] * 3


async def test_retry_and_skip() -> None:
    """A retry is an intent that names the failed action; a skip closes it."""
    outcome, engine, down, _ = await recover([plan("retry")])
    assert len(down.calls) == 2
    assert outcome.decision == "retry"
    outcome, engine, down, _ = await recover([plan("skip")])
    assert outcome.ok
    assert "skipped" in {one.status for one in (await folded(engine)).actions.values()}


async def test_a_refused_plan_falls_back() -> None:
    """The same voters judge a plan; when it is refused the plain mode takes over."""

    class NotOther(Voter):
        def check(self, entry: LogEntry) -> Vote:
            return Vote(approved=entry.action.tool != "other", reason="not that way")

    script = [plan("alternative", {"tool": "other", "arguments": {"item": "a"}})]
    outcome, engine, _, _ = await recover(script, voters=[NotOther("no")], fallback="skip")
    assert "not that way" in outcome.fell_back
    assert "skipped" in {one.status for one in (await folded(engine)).actions.values()}
    assert not outcome.actions


@pytest.mark.parametrize(
    "script",
    [
        ["I think it is fine."] * 20,
        [plan("alternative")] * 20,
        [plan("alternative", {"tool": "nothing"})] * 20,
        [call("look")] * 50,
        [],
    ],
    ids=["text", "no actions", "unknown tool", "never answers", "model fails"],
)
async def test_nonsense_falls_back_within_its_limits(script: Any) -> None:
    """Whatever the model says or does not say, it ends, and the plain mode takes over."""
    fast = RetryRecovery(base_delay=0.001, by_class={"failed": RetryRecovery(base_delay=0.001).rules["transient"]})
    outcome, _, down, model = await recover(script, turns_max=5, fallback=fast)
    assert outcome.fell_back
    assert model.asked <= 8
    assert len(down.calls) == 3, "two tries of the plain mode"


@pytest.mark.parametrize("ending", ["error", "nonsense", "limit", "bug", "crash"])
async def test_an_analysis_that_failed_is_never_gone_on_with(ending: str) -> None:
    """Its run ends, in the log; what ``run`` resumes is the user's, in this life or the next (was the analysis)."""
    engine = MemoryEngine()
    _, tools = world()
    user: list[Any] = [call("send", item="a")]  # then it fails, and its run stays
    seen: list[str] = []
    ends = ScriptedModel(lambda request: "done, said the user's run")

    async def next_life() -> None:
        async with an_agent(engine, [], tools, takeover=True) as agent:
            agent.model = ends
            seen.append(f"next life: {(await agent.run()).text}")

    def analyst(request: ModelRequest) -> Any:
        if ending == "error":
            raise ModelError("there is no such model")
        if ending == "bug":
            raise ZeroDivisionError
        return "I think it is fine." if ending == "nonsense" else call("look")

    class Dying(ScriptedModel):
        async def answer(self, request: ModelRequest) -> Any:
            await next_life()  # to the log this is a crash: another life plays the agent
            return await super().answer(request)

    model = Dying([call("look")] * 9) if ending == "crash" else ScriptedModel(analyst)
    async with an_agent(engine, user, tools) as agent:
        with pytest.raises(LogActError):
            await agent.run("send a")
        mine = max((await agent.state()).runs)
        try:
            await SemanticRecovery(model, turns_max=3).recover_with_introspection(agent)
        except (ZeroDivisionError, LogActError) as error:
            assert ending in ("bug", "crash"), error
        if ending != "crash":
            state = await folded(engine)
            (analysis,) = [run for run in state.runs.values() if run.title == "semantic recovery"]
            assert (analysis.status, analysis.ok) == ("finished" if analysis.output else "stopped", False)
            assert state.runs[mine].status == "running"
            agent.model = ends
            seen.append((await agent.run()).text)
    state = await folded(engine)
    assert seen == ["next life: done, said the user's run" if ending == "crash" else "done, said the user's run"]
    assert [run.status for run in state.runs.values() if run.status == "running"] == []
    if ending in ("error", "bug"):
        said = [one.payload.reason for one in await entries(engine, "Cancel") if isinstance(one.payload, Cancel)]
        assert ("no such model" if ending == "error" else "ZeroDivisionError") in said[-1], "what is known"


async def test_what_an_analysis_could_not_look_at_is_not_the_failure() -> None:
    """A look that failed in an earlier analysis is not what the next one is asked about."""
    engine = MemoryEngine()
    blind = Flaky(ToolError("blind", kind="failed", definite=True), name="look", effect="read")
    down, tools = world()
    async with an_agent(engine, [], [down.tool, blind.tool, tools[2]]) as agent:
        entry = await agent.propose_action(Action(tool="send", arguments={"item": "a"}))
        await agent.validate_action(entry)
        await agent.execute_action(entry)
        first = ScriptedModel([call("look", item="a"), *["hm"] * 9])
        assert (await SemanticRecovery(first, turns_max=2).recover_with_introspection(agent)).fell_back
        second = ScriptedModel([plan("skip")])
        assert (await SemanticRecovery(second).recover_with_introspection(agent)).ok
        assert (await agent.look(entry.position)).status == "skipped"


async def test_a_plan_that_did_not_do_it_is_found_out() -> None:
    """The check is asked of the world, not of the model."""
    script = [plan("alternative", {"tool": "other", "arguments": {"item": "a"}})]
    outcome, _, _, _ = await recover(script, check=lambda: "a is still missing")
    assert outcome.fell_back == "the check says: a is still missing"


async def test_only_reads_are_for_looking() -> None:
    """A tool that changes something cannot be given to the recovering model."""
    with pytest.raises(UsageError, match="only read"):
        await recover([plan("skip")], tools=["other"])


async def test_the_history_is_bounded() -> None:
    """Thousands of actions fit into the limit, the newest and the sums among them."""
    engine = MemoryEngine()
    tool = Flaky()
    model = ScriptedModel(lambda request: plan("skip") if turn_of(request) else "hm")
    seen: list[ModelRequest] = []
    async with an_agent(engine, [], [tool.tool]) as agent:
        for number in range(150):
            entry = await agent.propose_action(Action(tool="send", arguments={"item": f"item {number}"}))
            await agent.validate_action(entry)
            await agent.execute_action(entry)
        await SemanticRecovery(model, history_chars_max=3000, turns_max=2).recover_with_introspection(agent)
        seen += model.requests
    text = seen[0].messages[0].text
    assert len(text) < 3200
    assert "send executed: 150" in text
    assert "item 149" in text
    assert "item 3 " not in text
