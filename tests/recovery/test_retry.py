"""Failed actions again: where the effect allows it, on a schedule that stands in the log, until the end."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logact.core import retrying
from logact.core.retrying import Backoff
from logact.core.state import Action as ActionState
from logact.core.views import Action
from logact.entry import Cancel, Failure, Intent, Result
from logact.errors import UsageError
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.runtime.retry import RetryRecovery
from logact.tools import ToolError
from tests.recovery.kit import Flaky, Yes, an_agent, entries, folded

SCRIPT = [call("send", item="a"), "done"]
FAST = RetryRecovery(max_retries=3, base_delay=0.01, max_delay=0.05)


def down(*, definite: bool = False, after_s: float | None = None) -> ToolError:
    """A service that is away."""
    return ToolError("503", kind="transient", definite=definite, retry_after_s=after_s)


async def test_a_failure_that_passes_is_tried_again_and_voted_on_again() -> None:
    """The model is asked once, the voter for each try, and each try is an intent that names the one before."""
    engine, tool, yes = MemoryEngine(), Flaky(down(), down()), Yes()
    agent = an_agent(engine, SCRIPT, [tool.tool], voters=[yes], recovery=FAST)
    answer = await agent.run("go")
    assert answer.ok
    assert len(tool.calls) == 3
    assert yes.asked.count("send") == 3
    intents = [one for one in await entries(engine, "Intent") if one.tool == "send"]
    assert [one.payload.retry_of for one in intents] == [0, intents[0].position, intents[1].position]  # type: ignore[attr-defined]
    assert len(await entries(engine, "Inference")) == 2
    assert [one.payload.retry_at_ms > 0 for one in await entries(engine, "Result")][:3] == [True, True, False]  # type: ignore[attr-defined]


async def test_what_may_have_happened_keeps_its_external_key() -> None:
    """A retry after an ambiguous failure is the same request to the outside world; after a certain one a new one."""
    unsure = Flaky(down(), down(definite=True))
    await an_agent(MemoryEngine(), SCRIPT, [unsure.tool], recovery=FAST).run("go")
    assert len({one.key for one in unsure.calls}) == 1
    sure = Flaky(down(definite=True))
    await an_agent(MemoryEngine(), SCRIPT, [sure.tool], recovery=FAST).run("go")
    assert len({one.key for one in sure.calls}) == 2


async def test_an_irreversible_action_is_tried_again_only_if_it_certainly_did_not_happen() -> None:
    """Where it may have happened the model is told of the failure, and nothing is repeated."""
    sure = Flaky(down(definite=True), effect="irreversible")
    await an_agent(MemoryEngine(), SCRIPT, [sure.tool], recovery=FAST).run("go")
    assert len(sure.calls) == 2
    unsure = Flaky(down(), effect="irreversible")
    await an_agent(MemoryEngine(), SCRIPT, [unsure.tool], recovery=FAST).run("go")
    assert len(unsure.calls) == 1


@pytest.mark.parametrize("kind", ["permanent", "failed"])
async def test_a_refusal_is_not_tried_again(kind: str) -> None:
    """What says no for good is told to the model at once."""
    tool = Flaky(ToolError("no", kind=kind, definite=True))  # type: ignore[arg-type]
    engine = MemoryEngine()
    await an_agent(engine, SCRIPT, [tool.tool], recovery=FAST).run("go")
    assert len(tool.calls) == 1
    assert next(iter((await folded(engine)).actions.values())).status == "failed"


async def test_at_the_end_it_is_given_up_and_the_model_is_told() -> None:
    """After max_retries the action is failed_final, in the same entry as the last failure."""
    engine, tool = MemoryEngine(), Flaky(*[down() for _ in range(9)])
    agent = an_agent(engine, SCRIPT, [tool.tool], recovery=FAST)
    await agent.run("go")
    assert len(tool.calls) == 4
    last = [one for one in (await folded(engine)).actions.values() if one.intent.tool == "send"][-1]
    assert (last.status, last.retries) == ("failed_final", 3)
    told = agent.model.requests[-1].messages[-1].text  # type: ignore[union-attr]
    assert "tried 4 times, and given up" in told


async def test_a_crash_in_the_middle_of_a_backoff_goes_on_counting() -> None:
    """The next life waits for what is left of the delay, and has only the tries that are left."""
    engine, tool = MemoryEngine(), Flaky(*[down() for _ in range(9)])
    slow = RetryRecovery(max_retries=2, base_delay=0.6, jitter=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await an_agent(engine, SCRIPT, [tool.tool], recovery=slow).run("go")
    assert len(tool.calls) == 1
    planned = (await entries(engine, "Result"))[0].payload.retry_at_ms  # type: ignore[attr-defined]
    await an_agent(engine, SCRIPT, [tool.tool], recovery=slow).run("go")
    again = [one for one in await entries(engine, "Intent") if one.tool == "send"][1]
    assert 0 <= again.time_ms - planned < 250
    assert len(tool.calls) == 3
    assert len(await entries(engine, "Inference")) == 2


async def test_a_rate_limit_has_its_own_delay() -> None:
    """What the service asked for counts, also beyond the longest delay of one's own."""
    engine, tool = MemoryEngine(), Flaky(down(after_s=0.2))
    await an_agent(engine, SCRIPT, [tool.tool], recovery=FAST).run("go")
    first, second = [one for one in await entries(engine, "Intent") if one.tool == "send"]
    assert second.time_ms - first.time_ms >= 190


async def test_other_calls_of_the_turn_do_not_wait_for_a_backoff() -> None:
    """A call in its delay holds nothing up but the next turn."""
    engine, tool = MemoryEngine(), Flaky(down(after_s=0.3))
    other = Flaky(name="other")
    script = [[call("send", item="a"), call("other", item="b")], "done"]
    await an_agent(engine, script, [tool.tool, other.tool], recovery=FAST).run("go")
    order = [one.tool for one in await entries(engine, "Intent")]
    assert order == ["send", "other", "send", "answer"]


async def test_a_scheduled_retry_can_be_cancelled_or_skipped() -> None:
    """A person's word ends the delay: the call is settled, and the run goes on."""
    for how in ("cancel", "skip"):
        engine, tool = MemoryEngine(), Flaky(down(after_s=60))
        agent = an_agent(engine, SCRIPT, [tool.tool], recovery=FAST)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(agent.run("go"))
            while not (failed := [one async for one in agent.log.read() if one.kind == "Result"]):
                await asyncio.sleep(0.01)
            result = failed[0].payload
            assert isinstance(result, Result)
            if how == "cancel":
                await agent.log.append(Cancel(intent=result.intent, reason="enough"))
            else:
                await agent.skip_failed_action(reason="not needed")
            answer = await asyncio.wait_for(running, 5)
        assert answer.ok
        assert len(tool.calls) == 1
        status = (await folded(engine)).actions[result.intent].status
        assert status == {"cancel": "failed_final", "skip": "skipped"}[how]


async def test_recover_by_hand_in_a_loop_of_ones_own() -> None:
    """``RetryRecovery.recover(entry, agent)`` tries until it works, or closes the action for good."""
    for failures, status in ((2, "executed"), (9, "failed_final")):
        engine, tool = MemoryEngine(), Flaky(*[down() for _ in range(failures)])
        async with an_agent(engine, [], [tool.tool]) as agent:
            entry = await agent.propose_action(Action(tool="send", arguments={"item": "a"}))
            await agent.validate_action(entry)
            await agent.execute_action(entry)
            last = await FAST.recover(entry, agent)
        assert last.status == status
        assert last.retry_count == min(failures, 3)


def test_what_cannot_be_used_is_refused() -> None:
    """A wrong number, or a class that is never tried again, is an error at once."""
    with pytest.raises(UsageError, match="jitter"):
        RetryRecovery(jitter=1.5)
    with pytest.raises(UsageError, match="permanent"):
        RetryRecovery(by_class={"permanent": Backoff()})
    assert "timeout" not in RetryRecovery(by_class={"timeout": None}).rules


@given(
    tries=st.integers(0, 80),
    random=st.floats(0, 0.999),
    asked=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    now_ms=st.integers(0, 2**45),
    effect=st.sampled_from(["read", "idempotent", "reversible", "irreversible"]),
    definite=st.booleans(),
    kind=st.sampled_from(["transient", "permanent", "timeout", "failed", "other"]),
)
def test_the_schedule_is_total_and_bounded(tries, random, asked, now_ms, effect, definite, kind) -> None:  # type: ignore[no-untyped-def]
    """Any failure gets a schedule within its limits; what may have happened and what is refused gets none."""
    rules = RetryRecovery(max_retries=10, base_delay=1, max_delay=30, total_s=3600).rules
    action = ActionState(id=1000, intent=Intent(run=1, agent="a", tool="t"), proposed_ms=now_ms)
    action.scheduled = action.retries = tries
    failure = Failure(kind=kind, definite=definite, retry_after_s=asked)
    plan = retrying.schedule(rules, action, failure, effect, now_ms=now_ms, random=random)
    if kind not in rules or (effect in ("reversible", "irreversible") and not definite):
        assert plan == (0, "")
    elif tries >= 10 or (asked or 0) > 3600:
        assert plan.gave_up
    else:
        least = min(2**tries, 30) * 750
        assert max(least, (asked or 0) * 1000) - 1 <= plan.at_ms - now_ms <= max(30_000, (asked or 0) * 1000) + 1
