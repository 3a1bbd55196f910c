"""One fold for all agents that a process plays on one log object: read once, right for each, apart where needed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import LogActAgent, Vote, Voter
from logact.core.state import State
from logact.core.views import LogEntry
from logact.entry import Checkpoint, Entry, Notice
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.runtime.fold import Fold
from logact.runtime.host import Host
from logact.runtime.tail import Tail
from tests.runtime.kit import agent, folded, memory_log, payloads, run, simple


def noted(log: SharedLog, text: str = "x") -> Any:
    """Append a notice."""
    host = Host(log, "other")
    return log.append(host.entry(Notice(code="note", message=text), "operator"))


async def started(log: SharedLog) -> Tail:
    """A tail that shares, at the present."""
    tail = Tail(log, shared=True)
    await tail.start()
    return tail


def test_an_entry_is_applied_once_however_many_agents_there_are() -> None:
    """Ten agents at work: the fold takes each entry in once, and equals a fold from the beginning."""

    async def main() -> None:
        log = memory_log()
        made = [agent(log, [call("look"), "done"], name=f"a{n}", tools=[simple(look, "read")]) for n in range(10)]
        async with made[0], made[1]:
            fold = fold_of(made[0])
            answers = await asyncio.gather(*(one.run("t") for one in made))
            await fold.catch_up()
            whole = await folded(log)
            assert {one.text for one in answers} == {"done"}
            assert fold.entries_applied == sum(whole.counts.values()) > 100
            assert fold.state.chain == whole.chain and fold.state.counts == whole.counts
            assert fold_of(made[1]) is fold

    run(main())


def fold_of(agent: LogActAgent) -> Fold:
    """The fold that a playing agent reads."""
    assert agent._parts is not None
    return agent._parts.host.tail._fold


async def look() -> str:
    """Look, and let the others do something, too."""
    await asyncio.sleep(0)
    return "seen"


class Counts(Voter):
    """Remembers how many entries it saw."""

    def initial(self) -> Any:
        return 0

    def observe(self, memory: Any, entry: Entry) -> Any:
        return memory + 1

    def check(self, entry: LogEntry) -> Vote:
        return Vote(approved=True)


def test_a_voter_that_remembers_sees_the_whole_history_before_its_agent_joins() -> None:
    """Its memory is what it would be alone, and the agent then shares the fold."""

    async def main() -> None:
        log = memory_log()
        for _ in range(5):
            await noted(log)
        one, other = (
            agent(log, ["done"], name="first"),
            agent(log, ["done"], name="second", voters=[Counts("counts")]),
        )
        async with one as first, other as second:
            parts = second._parts
            assert parts is not None and fold_of(second) is fold_of(first)
            await second.run("t")
            await parts.host.tail.catch_up()
            effective = sum(parts.host.state.counts.values()) - parts.host.state.ignored_count
            assert parts.voter_host.memories["counts"] == effective

    run(main())


def test_what_an_observer_raises_ends_its_own_agent_alone() -> None:
    """The others see every entry all the same, also behind the bad one."""

    async def main() -> None:
        log = memory_log()
        good, bad = await started(log), await started(log)
        seen: list[str] = []

        def fails(state: State, entry: Entry) -> None:
            raise ValueError("no")

        def sees(state: State, entry: Entry) -> None:
            seen.append(entry.kind)

        bad.observe(fails, ["Notice"])
        good.observe(sees)
        follows = [asyncio.ensure_future(one.follow()) for one in (good, bad)]
        await asyncio.sleep(0)
        await noted(log)
        with pytest.raises(ValueError, match="no"):
            await follows[1]
        await noted(log)
        assert await good.until(lambda state: state.counts.get("Notice", 0) == 2, 5)
        assert seen == ["Notice", "Notice"] and not follows[0].done()
        follows[0].cancel()

    run(main())


def test_another_one_follows_when_the_first_stops() -> None:
    """Only one follows at a time, and the log is followed for as long as anybody wants it."""

    async def main() -> None:
        log = memory_log()
        tails = [await started(log) for _ in range(3)]
        follows = [asyncio.ensure_future(one.follow()) for one in tails]
        for count, tail in enumerate(tails, start=1):
            await noted(log)
            assert await tail.until(lambda state, n=count: state.counts.get("Notice", 0) >= n, 5)  # type: ignore[misc]
            follows[count - 1].cancel()
            await asyncio.sleep(0)
        assert tails[0]._fold is tails[2]._fold and not tails[0]._fold.followed

    run(main())


def test_a_fold_that_nobody_looks_at_is_not_joined() -> None:
    """What was read before the last one left may be old, or damaged since: the next one reads the log."""

    async def main() -> None:
        log = memory_log()
        first = await started(log)
        first.leave()
        second = await started(log)
        assert second._fold is not first._fold
        other = Tail(SharedLog(log.engine), shared=True)
        await other.start()
        assert other._fold is not second._fold, "another log object, another fold"

    run(main())


def test_who_waits_about_one_agent_is_not_asked_about_another() -> None:
    """Entries about others' actions alone leave a waiter alone; entries about everybody do not."""

    async def main() -> None:
        log = memory_log()
        ann = agent(log, [call("look"), "done"], name="ann", tools=[simple(look, "read")])
        async with ann:
            assert ann._parts is not None
            tail = ann._parts.host.tail
            asked = {"ann": 0, "bob": 0}

            def ask(name: str) -> Any:
                def ready(state: State) -> bool:
                    asked[name] += 1
                    return False

                return ready

            waits = [asyncio.ensure_future(tail.until(ask(name), about=name)) for name in asked]
            await asyncio.sleep(0)
            await ann.run("t")
            assert asked["ann"] > asked["bob"] + 3
            before = asked["bob"]
            await noted(log)
            await tail.catch_up()
            assert asked["bob"] > before
            for one in waits:
                one.cancel()

    run(main())


def test_agents_that_share_a_fold_write_one_checkpoint_for_all() -> None:
    """Each has a checkpointer; when one is due, one of them writes it."""

    async def main() -> None:
        log = SharedLog(MemoryEngine())

        script = [*[call("look")] * 6, "done"]
        made = [agent(log, script, name=f"a{n}", tools=[simple(look, "read")], checkpoint_every=60) for n in range(6)]
        await asyncio.gather(*(one.run("t") for one in made))
        entries = sum((await folded(log)).counts.values())
        assert 1 <= len(await payloads(log, Checkpoint)) <= entries // 60

    run(main())
