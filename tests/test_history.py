"""A log's history as it is told: folded once, with every action's story, and the seed's questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from logact import Action, LogActAgent, Vote, open_log, tool
from logact.introspection.history import history
from logact.logs.base import SharedLog


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
