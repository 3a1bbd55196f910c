"""Undoing: newest first, each undo voted on and executed as an action of its own, stopped by the first that fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact.agent import last_run
from logact.core.views import Action, LogEntry
from logact.entry import Recovery, Vote
from logact.errors import ActionFailed, InDoubt, UsageError
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.runtime.retry import RetryRecovery
from logact.tools import Tool, ToolContext, ToolError
from logact.voters.base import Voter
from tests.recovery.kit import Yes, an_agent, entries, folded


class World:
    """Things that were put somewhere, and what was done in which order."""

    def __init__(self, *, safe: bool = True) -> None:
        self.things: set[str] = set()
        self.did: list[str] = []
        self.failures: list[BaseException] = []
        self.hang = False

        async def put(item: str) -> str:
            """Put an item down."""
            if item == "bad":
                raise ToolError("no room", kind="permanent", definite=True)
            self.things.add(item)
            self.did.append(f"+{item}")
            return f"place of {item}"

        async def take_back(item: str, result: Any, ctx: ToolContext) -> str:
            if self.failures:
                raise self.failures.pop(0)
            if self.hang:
                await asyncio.sleep(60)
            self.things.discard(item)
            self.did.append(f"-{item} from {result}")
            return f"took {item} back"

        async def tell(item: str) -> str:
            """Tell somebody."""
            return "told"

        self.tools = [
            Tool(put, name="put", effect="reversible", undo=take_back, safe_undo=safe),
            Tool(tell, name="tell"),
        ]


SCRIPT = [call("put", item="a"), call("put", item="b"), "done"]


async def test_a_run_is_undone_newest_first() -> None:
    """The undos are intents that name what they undo, in a run of their own; the actions end as undone."""
    engine, world, yes = MemoryEngine(), World(), Yes()
    agent = an_agent(engine, SCRIPT, world.tools, voters=[yes])
    run = (await agent.run("go")).run
    asked = len(yes.asked)
    report = await agent.undo(run)
    assert report.complete
    assert not world.things
    assert world.did == ["+a", "+b", "-b from place of b", "-a from place of a"]
    assert len(yes.asked) == asked + 2
    state = await folded(engine)
    assert [state.actions[one].status for one in report.undone] == ["undone", "undone"]
    undos = [one for one in state.actions.values() if one.intent.undoes]
    assert [one.status for one in undos] == ["executed", "executed"]
    assert {one.intent.run for one in undos} == {report.run}
    assert state.runs[report.run].title == f"undo of {run}"
    assert state.runs[report.run].status == "finished"
    assert last_run(state, agent.agent_id) == run  # a further message is not said to the undo, which nobody hears
    again = await agent.undo(run)
    assert (again.undone, again.complete) == ((), True)
    assert not state.ignored


async def test_what_has_no_undo_is_left_and_said() -> None:
    """An irreversible action stays; the others are undone, and the report is not complete."""
    world = World()
    agent = an_agent(MemoryEngine(), [call("put", item="a"), call("tell", item="x"), "done"], world.tools)
    run = (await agent.run("go")).run
    report = await agent.undo(run)
    assert len(report.undone) == len(report.left) == 1
    assert not report.complete
    assert "No undo is declared" in report.in_words()


async def test_a_rejected_undo_stops_the_work() -> None:
    """A voter sees what an undo is, and may refuse it; nothing older is touched then."""

    class Keeper(Voter):
        def check(self, entry: LogEntry) -> Vote:
            bad = entry.intent.undoes and entry.action.arguments["item"] == "b"
            return Vote(approved=not bad, reason="keep b")

    world = World()
    agent = an_agent(MemoryEngine(), SCRIPT, world.tools, voters=[Keeper("keeper")])
    run = (await agent.run("go")).run
    report = await agent.undo(run)
    assert report.stopped_at
    assert "keep b" in report.why
    assert world.things == {"a", "b"}


async def test_an_undo_that_fails_is_tried_again_or_stops() -> None:
    """With a RetryRecovery a safe undo is tried again as an undo; without it stops there, and a repeat goes on."""
    world = World()
    world.failures = [ToolError("busy", kind="transient")]
    agent = an_agent(MemoryEngine(), SCRIPT, world.tools, recovery=RetryRecovery(base_delay=0.01))
    run = (await agent.run("go")).run
    assert (await agent.undo(run)).complete
    assert world.did[2:] == ["-b from place of b", "-a from place of a"]

    world = World()
    world.failures = [ToolError("busy", kind="transient")]
    agent = an_agent(MemoryEngine(), SCRIPT, world.tools)
    run = (await agent.run("go")).run
    report = await agent.undo(run)
    assert "failed: busy" in report.why
    assert world.things == {"a", "b"}
    assert (await agent.undo(run)).complete


async def test_a_crash_in_the_middle_of_an_undo() -> None:
    """A safe undo is started again under the same key; any other is in doubt, and a person's word settles both."""
    for safe in (True, False):
        engine, world = MemoryEngine(), World(safe=safe)
        first = an_agent(engine, SCRIPT, world.tools)
        run = (await first.run("go")).run
        world.hang = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await first.undo(run)
        world.hang = False
        second = an_agent(engine, [], world.tools)
        if safe:
            assert (await second.undo(run)).complete
        else:
            with pytest.raises(InDoubt):
                await second.undo(run)
            state = await folded(engine)
            doubtful = next(one for one in state.actions.values() if one.status == "in_doubt")
            settled = Recovery(intent=doubtful.id, attempt=1, settlement="happened", evidence="ann")
            await SharedLog(engine).append(settled, role="operator", name="ann")
            world.things.discard("b")
            assert (await an_agent(engine, [], world.tools).undo(run)).complete
            assert (await folded(engine)).actions[doubtful.intent.undoes].status == "undone"
        assert not world.things


async def test_a_saga_undoes_what_it_did_when_it_fails() -> None:
    """The error goes on with a note; what succeeded before it is taken back."""
    world = World()
    async with an_agent(MemoryEngine(), [], world.tools) as agent:
        with pytest.raises(ActionFailed) as caught:
            async with agent.saga("both or none"):
                await agent.act(Action(tool="put", arguments={"item": "a"}))
                await agent.act(Action(tool="put", arguments={"item": "bad"}))
        assert not world.things
        assert "Undone:" in caught.value.__notes__[0]
        async with agent.saga("one"):
            await agent.act(Action(tool="put", arguments={"item": "c"}))
        assert world.things == {"c"}


async def test_what_the_fold_let_go_can_be_undone_once() -> None:
    """An undo of an action that is only in the log any more takes effect, and a second one does not."""
    world = World()
    engine = MemoryEngine()
    async with an_agent(engine, [], world.tools) as agent:
        first = await agent.propose_action(Action(tool="put", arguments={"item": "old"}))
        await agent.validate_action(first)
        await agent.execute_action(first)
        for number in range(600):
            other = await agent.propose_action(Action(tool="tell", arguments={"item": str(number)}))
            await agent.validate_action(other)
            await agent.execute_action(other)
        assert agent._parts is not None
        assert first.position not in agent._parts.host.state.actions
        assert (await agent.undo(first.position)).complete
        assert agent._parts.host.state.undone
    assert world.did[-1] == "-old from place of old"
    assert not (await folded(engine)).ignored
    assert len(await entries(engine, "Undone")) == 1


async def test_undoing_nothing_is_said() -> None:
    """A position that is no run, and an action that never ran, are errors."""
    world = World()
    async with an_agent(MemoryEngine(), [], world.tools) as agent:
        with pytest.raises(UsageError, match="no run or action"):
            await agent.undo(77)
        entry = await agent.propose_action(Action(tool="put", arguments={"item": "a"}))
        with pytest.raises(UsageError, match="cannot be undone"):
            await agent.undo(entry.position)
