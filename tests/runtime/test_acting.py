"""``act``: one action of a caller's own loop, in two durable writes; under a key it happens once, over all lives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact.agent import LogActAgent
from logact.core.breaking import Breaker
from logact.core.settling import SETTLED_KEPT
from logact.core.views import Action, LogEntry
from logact.entry import Commit, Result, Started, Vote
from logact.errors import ActionFailed, ActionRejected, UsageError
from logact.tools import Tool, ToolError
from logact.voters.base import Voter
from tests.runtime.kit import memory_log, payloads, run


class Book:
    """A tool that notes what it did, and one that fails."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def tools(self) -> list[Tool]:
        async def write(item: str, times: int = 1) -> str:
            """Write an item down."""
            self.done.append(item)
            return f"{item} is written" * times

        async def tear(item: str) -> str:
            """Fail."""
            self.done.append(f"tear {item}")
            raise ToolError("torn", definite=True)

        return [Tool(write, effect="irreversible"), Tool(tear, effect="idempotent")]


class Slow(Voter):
    """Approves, and is asked from the log."""

    placement = "async"

    async def check(self, entry: LogEntry) -> Vote:
        return Vote(approved=True, reason="at last")


def an_agent(log: Any, book: Book, *voters: Any) -> LogActAgent:
    """A life of the agent."""
    return LogActAgent("own", log=log, tools=book.tools(), voters=voters or [lambda entry: True])


def write(item: str, **more: Any) -> Action:
    """An action."""
    return Action(tool="write", arguments={"item": item, **more})


def test_an_action_is_two_records() -> None:
    """Proposal, vote, commit and start are one durable write, the result another (they were five)."""

    async def main() -> None:
        log, book = memory_log(), Book()
        async with an_agent(log, book) as agent:
            await agent.act(write("first"))  # begins the run of the own loop
            before = await log.tail()
            for number in range(10):
                assert await agent.act(write(str(number))) == f"{number} is written"
            assert (await log.tail() - before) // 1000 == 20
        assert len(book.done) == 11

    run(main())


def test_what_does_not_fit_into_one_record_happens_all_the_same() -> None:
    """Large arguments, and a tool whose circuit is open, are proposed by themselves; was waiting for its own lock."""

    async def main() -> None:
        log, book = memory_log(), Book()

        async def away(item: str) -> str:
            """Not there the first time."""
            book.done.append(item)
            if len(book.done) == 1:
                raise ToolError("gone", kind="environment", definite=True)
            return f"{item} is back"

        tools = [*book.tools(), Tool(away, effect="idempotent")]
        breaker = Breaker(failures=1, delay_s=0.2)
        async with LogActAgent("own", log=log, tools=tools, voters=[lambda entry: True], breaker=breaker) as agent:
            with pytest.raises(ActionFailed):
                await agent.act(Action(tool="away", arguments={"item": "a"}))
            assert await agent.act(Action(tool="away", arguments={"item": "b"})) == "b is back"
            assert (await agent.act(write("x" * 2_000_000))).startswith("xxx")

    run(main())


def test_a_voter_that_is_asked_from_the_log_is_waited_for() -> None:
    """What this process cannot say at once takes the longer way, and comes to the same."""

    async def main() -> None:
        log, book = memory_log(), Book()
        async with an_agent(log, book, Slow("slow")) as agent:
            assert await agent.act(write("a")) == "a is written"
        (vote,) = await payloads(log, Vote)
        assert vote.voter == "slow"
        assert book.done == ["a"]

    run(main())


def test_many_at_once_happen_once_each() -> None:
    """Actions of one agent at the same time do not take each other's turn."""

    async def main() -> None:
        log, book = memory_log(), Book()
        async with an_agent(log, book) as agent:
            await asyncio.gather(*(agent.act(write(str(number))) for number in range(20)))
        assert sorted(book.done, key=int) == [str(number) for number in range(20)]
        assert len(await payloads(log, Started)) == len(await payloads(log, Result)) == 20

    run(main())


def test_under_a_key_it_happens_once() -> None:
    """A later life gets the value that is in the log; large values and failures too; nothing runs again."""

    async def main() -> None:
        log, book = memory_log(), Book()
        large = write("a", times=50_000)
        async with an_agent(log, book) as agent:
            first = await agent.act(write("a"), key="one")
            whole = await agent.act(large, key="large")
            with pytest.raises(ActionFailed, match="torn"):
                await agent.act(Action(tool="tear", arguments={"item": "b"}), key="two")
        async with an_agent(log, book) as agent:
            assert await agent.act(write("a"), key="one") == first == "a is written"
            assert await agent.act(large, key="large") == whole
            with pytest.raises(ActionFailed, match="torn"):
                await agent.act(Action(tool="tear", arguments={"item": "b"}), key="two")
            with pytest.raises(UsageError, match="another action"):
                await agent.act(write("other"), key="one")
        assert book.done == ["a", "a", "tear b"]
        assert len(await payloads(log, Started)) == 3

    run(main())


def test_under_a_key_it_happens_once_at_the_same_time_too() -> None:
    """Who asks while another task is at it waits, and gets the same value (it was told that the action failed)."""

    async def main() -> None:
        done: list[str] = []

        async def slow(item: str) -> str:
            """Take a moment."""
            await asyncio.sleep(0.05)
            done.append(item)
            return f"{item} is done"

        tool = Tool(slow, effect="irreversible")
        async with LogActAgent("own", log=memory_log(), tools=[tool], voters=[lambda entry: True]) as agent:
            action = Action(tool="slow", arguments={"item": "a"})
            values = await asyncio.gather(*(agent.act(action, key="one") for _ in range(4)))
        assert values == ["a is done"] * 4
        assert done == ["a"]

    run(main())


def test_a_refusal_under_a_key_stays() -> None:
    """What was rejected is not asked about again."""

    async def main() -> None:
        log, book, asked = memory_log(), Book(), []

        def never(entry: LogEntry) -> Vote:
            asked.append(entry)
            return Vote(approved=False, reason="no", hint="ask somebody")

        for _ in range(2):
            async with an_agent(log, book, never) as agent:
                with pytest.raises(ActionRejected, match="never: no"):
                    await agent.act(write("a"), key="one")
        assert len(asked) == 1
        assert book.done == []

    run(main())


def test_a_key_of_long_ago_still_counts() -> None:
    """Also when the fold has let the action go: its value is read from the log."""

    async def main() -> None:
        log, book = memory_log(), Book()
        async with an_agent(log, book) as agent:
            await agent.act(write("first"), key="first")
            for number in range(3 * SETTLED_KEPT):
                await agent.act(write(str(number)))
            assert not [one for one in (await agent.log.get_history("own")) if one.status != "executed"]
            assert await agent.act(write("first"), key="first") == "first is written"
        assert book.done.count("first") == 1

    run(main())


def test_what_was_committed_and_never_started_expires() -> None:
    """With nobody there when its time to start passed, recovery says so, and the key stays used."""

    async def main() -> None:
        log, book = memory_log(), Book()
        async with an_agent(log, book) as agent:
            entry = await agent.propose_action(write("a"), key="one")
            await agent.validate_action(entry)
            clock = agent._parts.host.env if agent._parts else None
            (commit,) = await payloads(log, Commit)
            assert clock is not None
            later = commit.start_by_ms + 1
            clock.wall_ms = lambda: later  # type: ignore[method-assign]
            try:
                now = await agent.recover_from_failure()
            finally:
                del clock.wall_ms
            assert now.open_actions == {}
            with pytest.raises(ActionRejected, match="not committed"):
                await agent.act(write("a"), key="one")
        assert book.done == []

    run(main())
