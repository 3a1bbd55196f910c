"""Reads that are answered from the log: only while they hold, in every form that an agent is played in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact import env as environment
from logact.core.state import RunState, State
from logact.entry import Intent, Result
from logact.logs.base import SharedLog
from logact.models import ModelRequest, call
from logact.runtime.assembly import play_decider, play_driver, play_executor, play_voter
from logact.runtime.reuse import KNOWN_MAX, UNCHANGED, Reads
from logact.spec import build_agent, parse_spec
from tests.runtime.kit import opened, payloads, run


class Shop:
    """Two tools over one dictionary, and how often each was really called."""

    def __init__(self) -> None:
        self.texts = {"a": "plum", "b": "quince"}
        self.called: list[str] = []

    def tools(self) -> list[Any]:
        @tool(effect="read")
        def look(path: str) -> str:
            """Look."""
            self.called.append(f"look {path}")
            return self.texts[path]

        @tool(effect="idempotent")
        def put(path: str, text: str) -> str:
            """Put."""
            self.called.append(f"put {path}")
            self.texts[path] = text
            return "done"

        return [look, put]


def shopper(log: SharedLog, shop: Shop, script: Any, *, name: str = "ann", **options: Any) -> LogActAgent:
    options = {"reuse_reads_s": 600, "policy": opened(name), **options}
    return LogActAgent(name, log, model=ScriptedModel(script), tools=shop.tools(), **options)


LOOKS: list[Any] = [call("look", path="a"), "seen"]
AGAIN: list[Any] = [call("look", path="a"), call("look", path="b"), call("look", path="a"), "seen"]


async def told(log: SharedLog) -> list[Any]:
    """What the reads returned, in order."""
    return [one.value for one in await payloads(log, Result) if one.value not in (None, "done")]


def test_a_read_that_holds_is_answered_from_the_log() -> None:
    """Another run and another agent get the recorded text, the same run a short notice; the tool is called once."""

    async def work() -> None:
        shop = Shop()
        async with open_log("memory:") as log:
            ann = shopper(log, shop, AGAIN)
            await ann.run("one")
            await ann.run("two")
            bob = shopper(log, shop, LOOKS, name="bob")
            await bob.run("three")
            assert shop.called == ["look a", "look b"]
            said = await told(log)
            assert said[:2] == ["plum", "quince"] and said[2].startswith(UNCHANGED)
            assert said[3:5] == ["plum", "quince"] and said[6] == "plum"
            assert (ann.reads.served, bob.reads.served) == (4, 1)

    run(work())


def test_it_is_off_unless_asked_for() -> None:
    """Without the setting each read is made."""

    async def work() -> None:
        shop = Shop()
        async with open_log("memory:") as log:
            await shopper(log, shop, AGAIN, reuse_reads_s=0).run("one")
            assert shop.called == ["look a", "look b", "look a"]

    run(work())


@pytest.mark.parametrize(
    ("change", "made"), [({"path": "a", "text": "fig"}, ["look a"]), ({"path": "b", "text": "fig"}, [])]
)
def test_a_change_ends_what_it_concerns(change: dict[str, Any], made: list[str]) -> None:
    """After a change of what it reads the tool is called again; a change of something else is none."""

    async def work() -> None:
        shop = Shop()
        async with open_log("memory:") as log:
            await shopper(log, shop, LOOKS).run("one")
            await shopper(log, shop, [call("put", **change), "done"], name="bob").run("two")
            await shopper(log, shop, LOOKS).run("three")
            assert shop.called == ["look a", f"put {change['path']}", *made]
            assert (await told(log))[-1] == ("fig" if made else "plum")

    run(work())


def test_a_change_under_way_is_waited_for() -> None:
    """What is read while a change of it may be happening is not used again."""
    reads = Reads(SharedLog.__new__(SharedLog), lambda: 600)
    from logact.core.state import Action
    from logact.entry import Author, Entry

    def entry(position: int, payload: Any) -> Entry:
        return Entry(
            position=position, kind=type(payload).__name__, payload=payload, author=Author("executor", "x", "y"),
            time_ms=0,
        )  # fmt: skip

    state = State(log="x", runs={1: RunState(id=1, agent="ann")})
    change = Intent(run=1, agent="bob", tool="put", effect="idempotent", arguments={"path": "a"})
    state.actions[2000] = Action(id=2000, intent=change)
    look = Intent(run=1, agent="ann", tool="look", effect="read", arguments={"path": "a"}, arguments_digest="d")
    for is_open, known in (({2000: None}, 0), ({}, 1)):
        state.open_actions = is_open
        reads.observe(state, entry(3000, look))
        reads.observe(state, entry(3001, Result(intent=3000, value="plum")))
        assert len(reads._results) == known


def test_it_holds_for_a_time() -> None:
    """After ``reuse_reads_s`` a read is made again."""

    class Clock(environment.Env):
        added_ms = 0

        def wall_ms(self) -> int:
            return super().wall_ms() + self.added_ms

    async def work() -> None:
        shop, clock = Shop(), Clock()
        environment.use(clock)
        try:
            async with open_log("memory:") as log:
                await shopper(log, shop, LOOKS).run("one")
                clock.added_ms = 599_000
                await shopper(log, shop, LOOKS).run("two")
                clock.added_ms = 601_000
                await shopper(log, shop, LOOKS).run("three")
        finally:
            environment.use(environment.REAL)
        assert shop.called == ["look a", "look a"]

    run(work())


def test_a_new_life_knows_only_what_it_has_read() -> None:
    """A change before the checkpoint that a later life starts from is not missed: what was known is forgotten."""

    async def work() -> None:
        shop = Shop()
        async with open_log("memory:") as log:
            ann = shopper(log, shop, LOOKS)
            await ann.run("one")
            put = [call("put", path="a", text="fig"), "done"]
            await shopper(log, shop, put, name="bob", checkpoint_every=4).run("two")
            await ann.run("three")
            assert shop.called == ["look a", "put a", "look a"]

    run(work())


def test_failures_and_very_many_reads_are_not_kept() -> None:
    """A read that failed is made again, and what is remembered has a limit."""

    async def work() -> None:
        shop = Shop()
        async with open_log("memory:") as log:
            del shop.texts["a"]
            agent = shopper(log, shop, [call("look", path="a"), call("look", path="a"), "gone"])
            await agent.run("one")
            assert shop.called == ["look a"] * 2
        assert KNOWN_MAX < 10_000

    run(work())


def test_also_where_the_parts_are_processes(tmp_path: Path) -> None:
    """In the decoupled form the executor answers from the log, and the driver hides what it was told to hide."""

    async def work() -> None:
        shop = Shop()
        offered: list[list[str]] = []
        script = iter([*LOOKS, *LOOKS])

        def answer(request: ModelRequest) -> Any:
            offered.append([one.name for one in request.tools])
            return next(script)

        async with open_log(f"sqlite:///{tmp_path}/a.db") as log:

            def yes(entry: Any) -> bool:
                return True

            agent = shopper(log, shop, answer, voters=[yes], policy=None, hide_tools=["put"])
            async with asyncio.TaskGroup() as group:
                loops = [play(log, agent) for play in (play_decider, play_voter, play_executor, play_driver)]
                tasks = [group.create_task(one) for one in loops]
                for task in ("one", "two"):
                    await _submitted(log, agent, task)
                for one_task in tasks:
                    one_task.cancel()
        assert shop.called == ["look a"]
        assert offered == [["look"]] * 4

    run(work())


async def _submitted(log: SharedLog, agent: LogActAgent, task: str) -> None:
    """Begin a run and wait until somebody has played it."""
    from logact.entry import Input, NewEntry, Output, Run, own

    run_entry = NewEntry(payload=Run(agent="ann", title=task), role="client", name="ann", agent="ann")
    given = NewEntry(payload=Input(run=own(0), text=task), role="client", name="ann", agent="ann", run=own(0))
    at = (await log.append(run_entry, given)).position
    while not [one async for one in log.read(at) if isinstance(one.payload, Output)]:
        await asyncio.sleep(0.02)


def test_both_stand_in_a_specification() -> None:
    """The settings are read from a file, and reach the agent."""
    text = '[agent]\nname = "ann"\nhide_tools = ["put"]\nreuse_reads_s = 60\n[log]\nurl = "memory:"\n'
    agent = build_agent(parse_spec(text))
    assert (agent.hide_tools, agent.reuse_reads_s) == (("put",), 60)
