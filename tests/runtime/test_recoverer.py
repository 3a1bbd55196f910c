"""The recoverer: the table of effect, probe and undo, over real lives of an agent on one log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import Action
from logact.core import recovering
from logact.core.state import Action as ActionState
from logact.entry import Cancel, Commit, Finding, Intent, Notice, Recovery, Result, Run, Started, Undone
from logact.errors import InDoubt
from logact.logs.base import SharedLog
from logact.models.scripted import call
from logact.runtime.recoverer import Recoverer
from logact.tools import ProbeAnswer, Tool
from tests.runtime.kit import Stage, agent, folded, memory_log, opened, payloads, run, simple


class World:
    """What a tool does, and what its probe and undo say. The first call is interrupted before or after its effect."""

    def __init__(self, *, happens: bool = True, says: Any = "truth") -> None:
        self.happens = happens
        self.says = says
        self.effects = 0
        self.calls = 0
        self.probed = 0
        self.undone = 0
        self.began = asyncio.Event()

    def tool(self, effect: Any, *, probe: bool = False, undo: bool = False, safe_undo: bool = False) -> Tool:
        """The tool with this declaration."""

        async def act(to: str = "x") -> str:
            self.calls += 1
            if self.calls > 1 or self.happens:
                self.effects += 1
            if self.calls == 1:
                self.began.set()
                await asyncio.sleep(3600)
            return f"did {self.calls}"

        async def ask(to: str) -> Any:
            self.probed += 1
            if isinstance(self.says, Exception):
                raise self.says
            return bool(self.effects) if self.says == "truth" else self.says

        async def take_back(to: str) -> str:
            self.undone += 1
            self.effects = 0
            return "taken back"

        return simple(
            act,
            effect,
            probe=ask if probe else None,
            undo=take_back if undo else None,
            safe_undo=safe_undo,
        )


async def interrupted(log: SharedLog, world: World, tool: Tool) -> None:
    """A life that ends in the middle of the tool's first call."""
    task = asyncio.ensure_future(agent(log, [call("act"), "done"], tools=[tool]).run("go"))
    await world.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def next_life(log: SharedLog, tool: Tool) -> str:
    """The text of the answer of the next life, or the doubt that it ends with."""
    try:
        return (await agent(log, [call("act"), "done"], tools=[tool]).run("go")).text
    except InDoubt as error:
        return f"doubt: {error.message}"


TABLE = [
    # effect, probe, undo, safe_undo, happened -> ends as, calls, effects
    ("read", False, False, False, True, "done", 2, 2),
    ("read", False, False, False, False, "done", 2, 1),
    ("idempotent", False, False, False, True, "done", 2, 2),
    ("idempotent", True, False, False, True, "done", 2, 2),
    ("reversible", True, True, False, True, "done", 1, 1),
    ("reversible", True, True, False, False, "done", 2, 1),
    ("reversible", False, True, True, True, "done", 2, 1),
    ("reversible", False, True, True, False, "done", 2, 1),
    ("reversible", False, True, False, True, "doubt", 1, 1),
    ("irreversible", True, False, False, True, "done", 1, 1),
    ("irreversible", True, False, False, False, "done", 2, 1),
    ("irreversible", False, False, False, True, "doubt", 1, 1),
    ("irreversible", False, True, True, True, "doubt", 1, 1),
]


@pytest.mark.parametrize(("effect", "probe", "undo", "safe_undo", "happened", "ends", "calls", "effects"), TABLE)
def test_the_table(
    effect: str, probe: bool, undo: bool, safe_undo: bool, happened: bool, ends: str, calls: int, effects: int
) -> None:
    """What becomes of an action whose process died, by what its tool declares: nothing lost, doubled or guessed."""

    async def main() -> None:
        log, world = memory_log(), World(happens=happened)
        tool = world.tool(effect, probe=probe, undo=undo, safe_undo=safe_undo)
        await interrupted(log, world, tool)
        end = await next_life(log, tool)
        assert end.startswith(ends), end
        assert (world.calls, world.effects) == (calls, effects)

    run(main())


@pytest.mark.parametrize("says", [None, RuntimeError("away"), "perhaps"])
def test_a_probe_that_cannot_tell_leaves_the_doubt(says: Any) -> None:
    """An unknown, failing or nonsensical probe guesses nothing: a person decides."""

    async def main() -> None:
        log, world = memory_log(), World(says=says)
        tool = world.tool("irreversible", probe=True)
        await interrupted(log, world, tool)
        assert "the probe could not tell" in await next_life(log, tool)
        assert world.calls == 1
        assert world.probed >= 1

    run(main())


def test_a_doubt_is_written_once_and_asked_again_in_each_life() -> None:
    """Each life that meets the doubt says so; the log does not fill with notices meanwhile."""

    async def main() -> None:
        log, world = memory_log(), World()
        tool = world.tool("irreversible")
        await interrupted(log, world, tool)
        for _ in range(3):
            assert "nothing can tell whether it happened" in await next_life(log, tool)
        assert len(await payloads(log, Notice)) <= 3
        assert len(await payloads(log, Finding)) <= 3

    run(main())


def test_a_person_settles_a_doubt() -> None:
    """What a person says is what the run goes on with."""

    async def main() -> None:
        log, world = memory_log(), World()
        tool = world.tool("irreversible")
        await interrupted(log, world, tool)
        await next_life(log, tool)
        (action,) = (await folded(log)).doubtful()
        settled = Recovery(intent=action.id, attempt=1, settlement="happened", evidence="pat", reason="I looked")
        await log.append(settled, role="operator", name="pat")
        assert await next_life(log, tool) == "done"
        assert world.calls == 1

    run(main())


def test_a_probe_brings_the_value() -> None:
    """What the probe rebuilds is what the model is told."""

    async def main() -> None:
        log = memory_log()
        world = World(says=ProbeAnswer(happened=True, value={"id": 7}, detail="found it"))
        tool = world.tool("irreversible", probe=True)
        await interrupted(log, world, tool)
        assert await next_life(log, tool) == "done"
        (recovery,) = await payloads(log, Recovery)
        assert (recovery.value, recovery.evidence, recovery.reason) == ({"id": 7}, "probe", "found it")

    run(main())


def test_an_undo_that_fails_leaves_the_doubt() -> None:
    """An undo that raises settles nothing."""

    async def main() -> None:
        log, world = memory_log(), World()

        async def take_back(to: str) -> str:
            raise RuntimeError("too late")

        honest = world.tool("reversible", undo=True, safe_undo=True)
        tool = simple(honest.function, "reversible", undo=take_back, safe_undo=True)
        await interrupted(log, world, tool)
        assert "its undo failed: RuntimeError: too late" in await next_life(log, tool)
        assert await payloads(log, Undone) == []

    run(main())


def test_the_stricter_of_then_and_now_counts() -> None:
    """A tool that became irreversible is not started again, nor one that was when it was proposed."""

    async def main(then: str, now: str) -> str:
        log, world = memory_log(), World()
        await interrupted(log, world, world.tool(then))
        return await next_life(log, world.tool(now))

    assert run(main("idempotent", "irreversible")).startswith("doubt")
    assert run(main("irreversible", "idempotent")).startswith("doubt")


def test_a_safe_undo_is_safe_only_if_the_tool_says_so_now() -> None:
    """Who proposed the action cannot declare an undo safe that is not (it was believed)."""

    async def main() -> None:
        log, world = memory_log(), World()
        await interrupted(log, world, world.tool("reversible", undo=True, safe_undo=True))
        assert (await next_life(log, world.tool("reversible", undo=True))).startswith("doubt")
        assert world.undone == 0

    run(main())


def test_a_tool_that_is_gone_is_a_doubt() -> None:
    """An action whose tool is not offered any more waits for a person."""

    async def main() -> None:
        log, world = memory_log(), World()
        await interrupted(log, world, world.tool("idempotent"))
        other = simple(lambda: "x", "read", name="other")
        assert "is not offered any more" in await next_life(log, other)

    run(main())


def test_a_cancelled_action_is_closed_and_not_started_again() -> None:
    """A read that was cancelled while it ran, and whose process died, is closed with its effect unknown."""

    async def main() -> None:
        log, world = memory_log(), World()
        tool = world.tool("read")
        stage = await Stage(log, [tool], name="ann").open()
        await stage.say(opened())
        at = await stage.say(Run(agent="ann"), role="client")
        intent = stage.proposer.intent(stage.host.state.runs[at], "act", {"to": "x"})
        action = await stage.say(intent, role="driver")
        await stage.say(Commit(intent=action), role="decider")
        task = asyncio.ensure_future(stage.executor.perform(action))
        await world.began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stage.say(Cancel(intent=action), role="client")
        recoverer = Recoverer(stage.host, stage.tools, agents=["ann"], executor=stage.executor)
        (due,) = recoverer.due(stage.host.state)
        assert await recoverer.settle(due)
        assert stage.host.state.actions[action].status == "superseded"
        assert world.calls == 1

    run(main())


def test_what_runs_here_is_left_alone() -> None:
    """The recoverer does not touch what its own process runs, or is about to report."""

    async def main() -> None:
        world = World()
        stage = await Stage(memory_log(), [world.tool("read")]).open()
        await stage.say(opened())
        at = await stage.say(Run(agent="ann"), role="client")
        intent = stage.proposer.intent(stage.host.state.runs[at], "act", {"to": "x"})
        action = await stage.say(intent, role="driver")
        await stage.say(Commit(intent=action), role="decider")
        recoverer = Recoverer(stage.host, stage.tools, agents=["ann"], executor=stage.executor)
        task = asyncio.ensure_future(stage.executor.perform(action))
        await world.began.wait()
        assert recoverer.due(stage.host.state) == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [one.id for one in recoverer.due(stage.host.state)] == [action]
        stage.host.riding.append(stage.host.entry(Result(intent=action), "executor"))
        assert recoverer.due(stage.host.state) == []

    run(main())


def test_arguments_of_settled_actions_are_found_again() -> None:
    """The fold lets go of a settled action's arguments; who undoes it reads them from the log (it got none)."""

    async def main() -> None:
        log = memory_log()
        got: list[str] = []

        async def put(to: str) -> str:
            got.append(to)
            return "ok"

        one = agent(log, tools=[simple(put, "idempotent")])
        async with one:
            await one.act(Action(tool="put", arguments={"to": "x"}))
            stage = await Stage(log).open()
            (action,) = stage.host.state.actions.values()
            assert action.intent.arguments == {}
            assert (await stage.host.full_intent(action)).arguments == {"to": "x"}

    run(main())


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("effect", ["read", "idempotent", "reversible", "irreversible"])
def test_the_pure_table(effect: Any, gone: bool) -> None:
    """Until its executor is proven gone an action waits; then the declared effect decides."""
    action = ActionState(id=1, intent=Intent(run=1, agent="a", tool="t", effect=effect), status="executing")
    step = recovering.next_step(action, holder_gone=gone, effect_now=effect, can_probe=True, can_undo=True)
    mild = effect in ("read", "idempotent")
    assert step.verb == ("wait" if not gone else "restart" if mild else "ask")
    ended = recovering.next_step(
        action, holder_gone=gone, effect_now=effect, can_probe=True, can_undo=True, ended=True
    )
    assert ended.verb == ("wait" if not gone else "close" if mild else "ask")


def test_attempts_of_one_action_have_one_key() -> None:
    """The second attempt of an idempotent action runs under the same external key; another action has another."""
    from logact import ToolContext

    async def main() -> None:
        log = memory_log()
        began = asyncio.Event()
        keys: list[tuple[int, str]] = []

        async def act(context: ToolContext) -> str:
            keys.append((context.attempt, context.key))
            if len(keys) == 1:
                began.set()
                await asyncio.sleep(3600)
            return "ok"

        tool = simple(act, "idempotent")
        script = [call("act"), call("act"), "done"]
        task = asyncio.ensure_future(agent(log, script, tools=[tool]).run("go"))
        await began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await agent(log, script, tools=[tool]).run("go")
        assert [attempt for attempt, _ in keys] == [1, 2, 1]
        assert keys[0][1] == keys[1][1] != keys[2][1]
        assert len(await payloads(log, Started)) == 4

    run(main())
