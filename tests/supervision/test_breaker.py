"""Circuit breakers in real runs: the run waits for an environment, and burns neither intents nor tokens meanwhile."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from logact import Action, Breaker
from logact.core.views import LogEntry
from logact.entry import Result
from logact.logs.memory import MemoryEngine
from logact.models.scripted import call
from logact.tools import Tool, ToolError
from tests.recovery import forms
from tests.recovery.kit import Flaky, an_agent, entries, folded

FAST = Breaker(failures=2, delay_s=0.05, delay_s_max=0.2, wait_s=30)


def gone(count: int, *, definite: bool = True) -> list[BaseException]:
    """A tool whose environment is away for so many calls."""
    return [ToolError("no route to host", kind="environment", definite=definite) for _ in range(count)]


async def test_a_run_waits_for_an_environment_without_asking_the_model() -> None:
    """Two failures reach the model; then the third call waits, is tried after each delay, and succeeds."""
    engine, tool = MemoryEngine(), Flaky(*gone(5))
    script = [call("send", item="a"), call("send", item="b"), "done"]
    agent = an_agent(engine, script, [tool.tool], breaker=FAST)
    answer = await agent.run("go")
    assert answer.ok
    results = [one.payload for one in await entries(engine, "Result")][:-1]
    shut = [one.shut_until_ms > 0 for one in results if isinstance(one, Result)]
    assert shut == [False, True, True, True, True, False]
    assert len(await entries(engine, "Inference")) == 3
    assert (await folded(engine)).circuits == {}
    tries = [one for one in await entries(engine, "Started") if one.tool == "send"]
    planned = [one for one in results if isinstance(one, Result) and one.shut_until_ms]
    for opened, start in zip(planned, tries[2:], strict=True):
        assert start.time_ms >= opened.shut_until_ms - 2


async def test_another_life_minds_the_circuit_of_the_one_before() -> None:
    """The state is in the log: a process that dies while it waits leaves the delay and the count behind."""
    engine, tool = MemoryEngine(), Flaky(*gone(3))
    slow = Breaker(failures=1, delay_s=0.5, delay_s_max=2)
    script = [call("send", item="a"), "done"]
    for lives in (1, 2):
        running = asyncio.ensure_future(an_agent(engine, script, [tool.tool], breaker=slow).run("go"))
        while len(await entries(engine, "Result")) < lives:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(tool.calls) == lives
    opened = (await entries(engine, "Result"))[0].payload
    assert isinstance(opened, Result)
    second = [one for one in await entries(engine, "Started") if one.tool == "send"][1]
    assert second.time_ms >= opened.shut_until_ms - 2
    (circuit,) = (await folded(engine)).circuits.values()
    assert circuit.opened == 2
    assert 500 < circuit.delay_ms <= 1000


async def test_other_tools_go_on() -> None:
    """A circuit is one tool's."""
    engine, tool, other = MemoryEngine(), Flaky(*gone(1)), Flaky(name="other")
    shut = Breaker(failures=1, delay_s=0.2)
    script = [call("send", item="a"), call("other", item="b"), "done"]
    await an_agent(engine, script, [tool.tool, other.tool], breaker=shut).run("go")
    assert (len(tool.calls), len(other.calls)) == (2, 1)


async def test_what_may_have_happened_is_not_the_trial() -> None:
    """An irreversible call that may have happened is not repeated: the model is told, and its next call waits."""
    engine, tool = MemoryEngine(), Flaky(*gone(1, definite=False), effect="irreversible")
    script: list[Any] = [call("send", item="a"), call("send", item="b"), "done"]
    await an_agent(engine, script, [tool.tool], breaker=Breaker(failures=1, delay_s=0.1)).run("go")
    first, second = [one for one in await entries(engine, "Started") if one.tool == "send"]
    assert second.time_ms - first.time_ms >= 95
    assert len(tool.calls) == 2


async def test_a_loop_of_ones_own_waits_too() -> None:
    """``execute_action`` waits for the circuit before it starts anything."""
    engine, tool = MemoryEngine(), Flaky(*gone(1))
    async with an_agent(engine, [], [tool.tool], breaker=Breaker(failures=1, delay_s=0.1)) as agent:

        async def once() -> LogEntry:
            entry = await agent.propose_action(Action(tool="send", arguments={"item": "a"}))
            await agent.validate_action(entry)
            await agent.execute_action(entry)
            return await agent.look(entry.position)

        assert (await once()).status == "failed"
        assert (await once()).status == "executed"
    first, second = [one for one in await entries(engine, "Started") if one.tool == "send"]
    assert second.time_ms - first.time_ms >= 95


class Service:
    """An HTTP service on a port of its own, that can die and come back there."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.server: asyncio.Server | None = None

    async def begin(self) -> None:
        """Listen; the second time on the same port."""
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Listen no more."""
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        finally:
            writer.close()


def ask(url: str) -> str:
    """The text at an address, past any proxy."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("form", [forms.whole, forms.in_parts])
async def test_a_service_that_dies_and_comes_back_is_waited_for(form: Any, tmp_path: Path) -> None:
    """Over a real connection, in both forms: while nobody listens the model is not asked; then the call succeeds."""
    service, failures = Service(), 0

    async def fetch(page: str) -> str:
        """Fetch a page."""
        nonlocal failures
        try:
            return await asyncio.to_thread(ask, f"http://127.0.0.1:{service.port}/{page}")
        except urllib.error.URLError as error:
            failures += 1
            if failures == 4:
                await service.begin()
            raise ToolError(str(error), kind="environment", definite=True) from error

    async def stop() -> str:
        """Stop the service."""
        await service.end()
        return "stopped"

    tools = [Tool(fetch, name="fetch", effect="read"), Tool(stop, name="stop", effect="idempotent")]
    script = [call("fetch", page="a"), call("stop"), call("fetch", page="b"), "done"]
    await service.begin()
    try:
        breaker = Breaker(failures=1, delay_s=0.02, delay_s_max=0.1, wait_s=60)
        answer, state = await form(tmp_path / "ops.db", tools, script, breaker=breaker)
    finally:
        await service.end()
    assert answer.text == "done"
    assert (service.asked, failures) == (2, 4)
    (run,) = state.runs.values()
    assert run.turn == 4, "no turn, so no token, was spent on the outage"
    tries = [one for one in state.actions.values() if one.intent.tool == "fetch"][1:]
    assert [one.status for one in tries] == ["failed"] * 4 + ["executed"]
    assert state.circuits == {}
