"""What would save a swarm tokens is computed from the log, applied by entries, taken back, and measured."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from logact import Action, AgenticIntrospection, LogActAgent, Tool
from logact.entry import Intent, Notice
from logact.errors import UsageError
from logact.introspection.optimizing import measured
from logact.introspection.tokens import Measure, Optimization, extract
from logact.introspection.tuning import APPLIED, UNDONE
from logact.logs.base import SharedLog
from logact.models import ScriptedModel, call
from logact.models.base import ModelRequest
from logact.models.scripted import turn_of
from logact.swarm import Swarm
from tests.runtime.kit import entries, memory_log, opened, payloads, run

GUIDE = "how to\n" + "\n".join(f"rule_{number:02} says do_{number:02} " + "because " * 10 for number in range(60))


class Desk:
    """Two agents whose every task needs the guide, unless it is in front of them; counts what the tools did."""

    def __init__(self, log: SharedLog, **options: Any) -> None:
        self.reads = 0
        self.requests: list[ModelRequest] = []

        def look(path: str) -> str:
            """Read a file."""
            self.reads += 1
            return GUIDE

        def put(path: str, text: str) -> str:
            """Write a file."""
            return "done"

        def idle(path: str) -> str:
            """Never called."""
            return ""

        self.agents = [
            LogActAgent(
                name,
                log,
                model=ScriptedModel(self.script),
                tools=[Tool(look, effect="read"), Tool(put, effect="idempotent"), Tool(idle, effect="read")],
                **(options or {"policy": opened(name)}),
            )
            for name in ("ann", "bob")
        ]

    def script(self, request: ModelRequest) -> Any:
        """Look the guide up unless it is there, then write."""
        self.requests.append(request)
        known = "do_03" in request.system or any("do_03" in one.text for one in request.messages)
        if not known:
            return call("look", path="guide")
        if not any(one.tool == "put" for one in request.messages):
            return call("put", path="out", text="by rule_03: do_03")
        return f"did {turn_of(request)}"


async def work(log: SharedLog, desk: Desk, title: str, count: int = 4) -> None:
    """The desk's agents do so many tasks."""
    await Swarm(desk.agents, log, lease_s=30).run(title, [f"part {number}" for number in range(count)])


def test_what_agents_repeat_is_handed_over_and_measured() -> None:
    """A text that every run reads is handed over, in the lines that were used; idle tools go; the log shows it."""

    async def main() -> None:
        log = memory_log()
        desk = Desk(log)
        await work(log, desk, "first")
        done = await AgenticIntrospection().optimize_token_usage(desk.agents, automatic=True)
        part = {one.kind: one for one in done.optimizations["ann"].measures}
        assert part["share"].data["lines"] == 2 and part["share"].data["of"] == 61
        assert part["hide"].data["tools"] == ["idle"]
        intents = {one.position for one in await entries(log) if isinstance(one.payload, Intent)}
        assert part["share"].cites and set(part["share"].cites) <= intents
        reads, asked = desk.reads, len(desk.requests)
        await work(log, desk, "second")
        assert desk.reads == reads
        assert all([tool.name for tool in one.tools] == ["look", "put"] for one in desk.requests[asked:])
        saved = await measured(desk.agents, done.position)
        assert (saved.runs_before, saved.runs_after) == (4, 4)
        assert saved.saved_pct is not None and saved.saved_pct > 50
        again = await AgenticIntrospection().optimize_token_usage(desk.agents, automatic=True)
        assert [one for one in again.applied["ann"] if desk.agents[0].tuning.measures[one].kind == "share"] == []

    run(main())


def test_each_change_is_an_entry_that_another_life_takes_up_and_that_can_be_undone() -> None:
    """What was applied stands in the log, holds for an agent that begins anew, and is over after the undo."""

    async def main() -> None:
        log = memory_log()
        desk = Desk(log)
        await work(log, desk, "first")
        done = await AgenticIntrospection().optimize_token_usage(desk.agents, automatic=True)
        applied = [one for one in await payloads(log, Notice) if one.code == APPLIED]
        assert len(applied) == sum(map(len, done.applied.values())) > 0
        other = Desk(log)
        async with other.agents[0]:
            assert other.agents[0].tuning.hidden == {"idle"}
            assert "do_03" in other.agents[0].tuning.prompt("base")
        for position in done.applied["ann"]:
            await desk.agents[0].undo_optimization(position, "not wanted")
        assert [one.agent for one in await payloads(log, Notice) if one.code == UNDONE] == ["ann"] * len(
            done.applied["ann"]
        )
        third = Desk(log)
        async with third.agents[0]:
            assert not third.agents[0].tuning.measures
            assert third.agents[0].tuning.prompt("base") == "base"

    run(main())


def test_without_being_asked_a_change_needs_the_agents_voters() -> None:
    """By vote, a refusing voter keeps everything as it is, and an agreeing one lets it pass; both are in the log."""

    async def main() -> None:
        log = memory_log()
        said: list[bool] = []

        def judge(entry: Any) -> bool:
            return entry.action.tool != "apply_optimization" or said[-1]

        desk = Desk(log, voters=[judge])
        await work(log, desk, "first")
        said.append(False)
        refused = await AgenticIntrospection().optimize_token_usage(desk.agents)
        assert refused.applied == {"ann": [], "bob": []}
        said.append(True)
        passed = await AgenticIntrospection().optimize_token_usage(desk.agents)
        assert passed.applied["ann"] and "idle" in desk.agents[0].tuning.hidden
        proposed = [one for one in await payloads(log, Intent) if one.tool == "apply_optimization"]
        assert {one.agent for one in proposed} == {"ann-tuning", "bob-tuning"}

    run(main())


def test_a_change_of_what_was_handed_over_ends_it() -> None:
    """Once anybody is about to change the object, the text is not handed over any more."""

    async def main() -> None:
        log = memory_log()
        desk = Desk(log)
        await work(log, desk, "first")
        await AgenticIntrospection().optimize_token_usage(desk.agents, automatic=True)
        ann = desk.agents[0]
        assert "do_03" in ann.tuning.prompt("")
        async with ann:
            await ann.act(Action(tool="put", arguments={"path": "elsewhere", "text": ""}))
            assert "do_03" in ann.tuning.prompt("")
            await ann.act(Action(tool="put", arguments={"path": "guide", "text": ""}))
            assert ann.tuning.prompt("") == ""

    run(main())


def test_what_a_swarm_may_not_see_stays_hidden_whatever_stood_before_the_tools() -> None:
    """An agent that was given digests, and then shared reads, has one of each in a swarm: that of the swarm."""

    async def main() -> None:
        log = memory_log()
        desk = Desk(log)
        ann = desk.agents[0]
        for kind in ("digests", "reads"):
            await ann.apply_optimization(
                Optimization(agent="ann", measures=(Measure(kind=kind, title=kind, cites=()),)), automatic=True
            )
        Swarm(desk.agents, log, sees=lambda viewer, other: False)
        chain: list[str] = []
        tool: Tool | None = ann.tools["look"]
        while tool is not None:
            chain.append(type(tool).__name__)
            tool = tool.inner
        assert sorted(chain) == ["DigestingTool", "ReusingTool", "Tool"]
        assert len([one for one in ann._observers if one[0] == ann.reads.observe]) == 1

    run(main())


def test_only_what_was_applied_to_an_agent_is_taken_back() -> None:
    """Another agent's change, an entry that applied nothing, and one that was taken back are refused."""

    async def main() -> None:
        log = memory_log()
        desk = Desk(log)
        await work(log, desk, "first")
        done = await AgenticIntrospection().optimize_token_usage(desk.agents, automatic=True)
        ann, bob = desk.agents
        applied = done.applied["ann"][0]
        with pytest.raises(UsageError, match="another agent"):
            await bob.undo_optimization(applied)
        with pytest.raises(UsageError, match="No change was applied"):
            await ann.undo_optimization(1000)
        with pytest.raises(UsageError):
            await ann.undo_optimization(123_456_000)
        await ann.undo_optimization(applied)
        with pytest.raises(UsageError, match="taken back already"):
            await ann.undo_optimization(applied)

    run(main())


@pytest.mark.parametrize("where", ["in a swarm", "by themselves", "in a life that had begun", "in the next life"])
def test_a_repeated_read_is_answered_from_the_log_until_something_changes(where: str) -> None:
    """The tool does not run again for a value that the log has; a change in between, and it does."""

    async def main() -> None:
        log = memory_log()
        desk = Desk(log)
        if where == "in a swarm":
            Swarm(desk.agents, log)
        await work(log, desk, "first")
        async with AsyncExitStack() as stack:
            for agent in desk.agents if where == "in a life that had begun" else ():
                await stack.enter_async_context(agent)
            found = await AgenticIntrospection().optimize_token_usage(desk.agents, automatic=True)
            kinds = {one.kind for one in found["ann"].measures}
            assert "reads" in kinds and not kinds & {"together", "handover"}
            if where == "in the next life":
                desk = Desk(log)
            await read_again(desk)

    async def read_again(desk: Desk) -> None:
        ann, bob = desk.agents
        async with AsyncExitStack() as stack:
            for agent in (ann, bob):
                await stack.enter_async_context(agent._playing())
            look = Action(tool="look", arguments={"path": "fresh"})
            reads = desk.reads
            assert await ann.act(look) == GUIDE
            assert (await ann.act(look)).startswith("[unchanged: the same as your earlier result")
            assert desk.reads == reads + 1
            await bob.act(Action(tool="put", arguments={"path": "other", "text": ""}))
            assert await bob.act(look) == GUIDE
            assert desk.reads == reads + 1
            await bob.act(Action(tool="put", arguments={"path": "fresh", "text": ""}))
            assert await bob.act(look) == GUIDE
            assert desk.reads == reads + 2

    run(main())


def test_a_part_stands_for_the_whole_only_if_it_foretells() -> None:
    """Lines that every run used are enough; where each run used others, the whole text stays."""
    text, lines, of = extract(GUIDE, [["do_03"], ["do_03", "do_07"], ["do_07"]])
    assert (lines, of) == (3, 61) and "do_07" in text and "do_08" not in text
    assert extract(GUIDE, [["do_03"], ["do_07"], ["do_09"]]) == (GUIDE, 61, 61)
    assert extract("short", [["x"]]) == ("short", 1, 1)
