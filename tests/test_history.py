"""A log's history as it is told: folded once, with every action's story, and the seed's questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from logact import Action, LogActAgent, ScriptedModel, Vote, open_log, tool
from logact.entry import Input, Notice, Run, own
from logact.errors import UsageError
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.models import call


@tool(effect="irreversible")
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def small(entry: Any) -> Vote:
    fine = entry.action.arguments["amount"] < 10
    return Vote(approved=fine, reason="small" if fine else "too much")


def play(work: Callable[[SharedLog, LogActAgent], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        async with open_log("memory:") as log:
            await work(log, LogActAgent("ops", log=log, voters=[small], tools=[pay]))

    asyncio.run(inside())


def test_stories_and_statuses() -> None:
    """Each action's entries come in order; what took no effect is named by position."""

    async def work(log: SharedLog, agent: LogActAgent) -> None:
        async with agent:
            await agent.act(Action(tool="pay", arguments={"amount": 1}))
            refused = await agent.propose_action(Action(tool="pay", arguments={"amount": 99}))
            await agent.validate_action(refused)
        told = await history(log)
        paid, stopped = sorted(told.state.actions)
        assert [entry.kind for entry in told.stories[paid]] == ["Intent", "Vote", "Commit", "Started", "Result"]
        assert [entry.kind for entry in told.stories[stopped]] == ["Intent", "Vote", "Abort"]
        assert told.state.actions[stopped].reason == "small: too much"
        assert told.ineffective == {}
        early = await history(log, paid)
        assert early.state.position == paid
        assert early.state.actions[paid].status == "proposed"

    play(work)


def test_questions_of_the_shared_log() -> None:
    """History, recent, last executed, proposed, and validated in order, per agent."""

    async def work(log: SharedLog, agent: LogActAgent) -> None:
        assert await log.get_last_executed("ops") is None
        async with agent:
            await agent.act(Action(tool="pay", arguments={"amount": 1}))
            await agent.act(Action(tool="pay", arguments={"amount": 2}))
            for amount in (3, 4):
                waiting = await agent.propose_action(Action(tool="pay", arguments={"amount": amount}))
                await agent.validate_action(waiting)
            await agent.propose_action(Action(tool="pay", arguments={"amount": 5}))
            amounts = [entry.action.arguments["amount"] for entry in await log.get_history("ops")]
            assert amounts == [1, 2, 3, 4, 5]
            assert [entry.action.arguments["amount"] for entry in await log.get_recent("ops", 2)] == [4, 5]
            assert await log.get_recent("ops", 0) == []
            assert await log.get_history("nobody") == []
            last = await log.get_last_executed("ops")
            assert last is not None
            assert last.action.arguments["amount"] == 2
            assert [entry.action.arguments["amount"] for entry in await log.get_validated_ordered()] == [3, 4]
            assert [entry.action.arguments["amount"] for entry in await log.get_proposed()] == [5]

    play(work)


def test_a_view_has_arguments_and_result() -> None:
    """Whoever asks is told what was done and what came of it, also of what was too large for the entries."""

    @tool(effect="read")
    def grow(text: str) -> str:
        """Say it again."""
        return text + text

    async def main() -> None:
        async with open_log("memory:") as log, LogActAgent("ops", log=log, tools=[grow]) as agent:
            for text in ("ab", "x" * 100_000):
                entry = await agent.propose_action(Action(tool="grow", arguments={"text": text}))
                await agent.validate_action(entry)
                done = await agent.execute_action(entry)
                assert done.entry is not None
                views = [done.entry, await agent.look(entry.position), (await log.get_recent("ops", 1))[0]]
                last = await log.get_last_executed("ops")
                views += [last] if last is not None else []
                assert [one.action.arguments for one in views] == [{"text": text}] * 4
                assert [one.result for one in views] == [text + text] * 4

    asyncio.run(main())


def test_what_is_no_entry_is_not_appended() -> None:
    """It is refused with what was given, before anything is written."""

    async def main() -> None:
        async with open_log("memory:") as log:
            for wrong in ("text", (Notice(code="a", message=""),), Notice):
                with pytest.raises(UsageError, match="is no entry"):
                    await log.append(wrong)  # type: ignore[arg-type]
            assert await log.tail() == 0

    asyncio.run(main())


def test_a_note_about_an_entry() -> None:
    """``update`` takes a view or a position, changes nothing, and refuses anything else."""

    async def work(log: SharedLog, agent: LogActAgent) -> None:
        async with agent:
            entry = await agent.propose_action(Action(tool="pay", arguments={"amount": 1}))
        for noted in (entry, entry.position):
            await log.update(noted)
        notes = [one.payload async for one in log.read() if one.kind == "Notice"]
        said = [(one.message, one.data) for one in notes if isinstance(one, Notice) and one.code == "update"]
        about = {"position": entry.position}
        assert said == [("it is proposed", about), ("noted", about)]
        with pytest.raises(UsageError, match="a LogEntry, or a position"):
            await log.update("that one")  # type: ignore[arg-type]

    play(work)


def test_an_agent_is_taken_step_by_step() -> None:
    """The model's next proposal, without what follows from it; the run goes on once that was executed."""

    async def main() -> None:
        paid: list[int] = []

        @tool(effect="irreversible")
        def give(amount: int) -> str:
            """Pay."""
            paid.append(amount)
            return f"paid {amount}"

        async with open_log("memory:") as log:
            script = ScriptedModel([[call("give", amount=1), call("give", amount=2)], "done"])
            agent = LogActAgent("ops", log=log, voters=[lambda _: Vote(approved=True)], tools=[give], model=script)
            async with agent:
                assert await agent.propose_next_action() is None
                await log.append(Run(agent="ops", title="pay them"), Input(run=own(0), text="pay them"))
                seen: list[tuple[str, dict[str, Any]]] = []
                while (entry := await agent.propose_next_action()) is not None:
                    again = await agent.propose_next_action()
                    assert again is not None and again.position == entry.position  # what waits is not asked for again
                    assert len(paid) == len(seen)
                    await agent.validate_action(entry)
                    assert (await agent.execute_action(entry)).success
                    seen.append((entry.action.tool, entry.action.arguments))
                assert seen == [
                    ("give", {"amount": 1}),
                    ("give", {"amount": 2}),
                    ("answer", {"text": "done"}),
                ] and paid == [1, 2]
                before = (await log.get_history("ops"))[0]
                early, late = await agent.reconstruct_state(before), await agent.reconstruct_state()
                assert early.position < late.position and early.snapshot() != late.snapshot()
                assert late.snapshot() == (await agent.state()).snapshot()
                assert next(iter(early.runs.values())).status == "running"
                analysis = Run(agent="ops", title="an analysis", ends_with_life=True)
                await log.append(analysis, Input(run=own(0), text="look at it"))
                assert await agent.propose_next_action() is None  # that is nobody's task
                with pytest.raises(UsageError, match="another agent's"):
                    await LogActAgent("bob", log=log).reconstruct_state(before)

    asyncio.run(main())
