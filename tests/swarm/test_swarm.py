"""A swarm shares a task: every sub-task done once, results handed over, failures told, the whole joined."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from logact import Action, LogActAgent, LogEntry, Tool, Voter, open_log, tool
from logact import env as environment
from logact.agent_parts import running
from logact.agent_results import Answer
from logact.core.state import Held
from logact.entry import Claim, Control, Limits, Notice, Output, Policy, Recovery, Run, end_of, record_of
from logact.env import Env
from logact.errors import LimitReached, RunStopped, SpecError, UsageError
from logact.logs.base import SharedLog, where
from logact.models import ModelAnswer, ScriptedModel, call
from logact.models.base import ModelRequest
from logact.models.scripted import turn_of
from logact.runtime.host import Host
from logact.swarm import Claims, MultiAgentLogAct, SubTask, Swarm, Task, in_order
from tests.runtime.kit import folded, memory_log, opened, payloads, run


def echo(request: ModelRequest) -> str:
    """A model that answers with what it was told, in capitals."""
    return request.messages[0].text.replace("\n", " | ").upper()


def agents(log: SharedLog, *names: str, script: Any = echo, **options: Any) -> list[LogActAgent]:
    """Scripted agents that may do anything."""
    return [LogActAgent(name, log, model=ScriptedModel(script), policy=opened(name), **options) for name in names]


def test_every_task_is_done_once_and_the_whole_is_joined() -> None:
    """Three agents, eight tasks: eight completions, each by one output, and one joined answer in the plan's order."""

    async def main() -> None:
        log = memory_log()
        swarm = Swarm(agents(log, "ann", "bob", "eve"), lease_s=5)
        plan = [f"part {number}" for number in range(8)]
        result = await swarm.run("all of it", plan)
        state = await folded(log)
        done = state.runs[result.run].done
        assert list(result.results) == sorted(done) and len(set(done.values())) == 8
        assert [one.text for one in result.results.values()] == [
            f"TASK {place:03} | PART {place - 1}" for place in range(1, 9)
        ]
        assert result.ok and result.text.startswith("001: TASK 001 | PART 0\n\n002:")
        assert state.runs[result.run].status == "finished"
        works = [said for said in await payloads(log, Run) if said.parent == result.run]
        assert len(works) == 8
        again = await swarm.run("all of it", plan)
        assert (again.position, len(await payloads(log, Run))) == (result.position, 9)

    run(main())


def test_results_are_handed_over_in_order() -> None:
    """A task that waits for others begins after them, and is told their results."""

    async def main() -> None:
        log = memory_log()
        plan = in_order([SubTask(name="a", text="one"), SubTask(name="b", text="two")])
        result = await Swarm(agents(log, "ann", "bob"), lease_s=5).run("t", plan)
        assert result.results["b"].text == "TASK B | TWO | [RESULT OF A] | TASK A | ONE"
        assert result.results["a"].position < result.results["b"].position

    run(main())


def test_follow_ups_come_with_the_result_and_are_waited_for() -> None:
    """Tasks that a result leads to are added in the record that completes it, and the join waits for them."""

    async def main() -> None:
        log = memory_log()

        def more(task: SubTask, answer: Answer) -> list[SubTask | str]:
            return ["look closer"] if task.name == "a" else []

        result = await Swarm(agents(log, "ann"), follow_ups=more, lease_s=5).run("t", [SubTask(name="a", text="x")])
        assert list(result.results) == ["a", "a.1"]

    run(main())


def test_a_role_is_needed_where_a_task_names_one() -> None:
    """A task for a role is done only by an agent that plays it."""

    async def main() -> None:
        log = memory_log()
        plan = [SubTask(name=str(number), text="x", role="judge") for number in range(3)]
        await Swarm(agents(log, "ann", "bob"), roles={"bob": ["judge"]}, lease_s=5).run("t", plan)
        assert {said.agent for said in await payloads(log, Claim)} == {"bob"}

    run(main())


def test_a_failing_task_is_tried_again_and_then_told() -> None:
    """A task whose runs fail is given back with the reason; after the attempts the swarm says which and why."""

    async def main() -> None:
        log = memory_log()

        def stubborn(request: ModelRequest) -> ModelAnswer:
            raise LimitReached("no way")

        swarm = Swarm(agents(log, "ann", "bob", script=stubborn), attempts_max=2, lease_s=5)
        with pytest.raises(LimitReached, match="failed 2 times"):
            await swarm.run("t", [SubTask(name="a", text="x"), SubTask(name="b", text="y", after=("a",))])
        failures = [said for said in await payloads(log, Notice) if said.code == "swarm_task_failed"]
        assert len(failures) == 2
        assert await payloads(log, Output) == []

    run(main())


@pytest.mark.parametrize("names", ["aaaaaa", "abcdef"])
def test_a_task_that_ends_every_life_is_given_up(names: str) -> None:
    """So many lives take it up, of one agent or of many, and no more; the rest is done, and nothing stays open."""

    async def main() -> None:
        log = memory_log()
        lives: list[asyncio.Task[Any]] = []

        async def script(request: ModelRequest) -> str:
            if "deadly" not in request.messages[0].text:
                return "done"
            lives[-1].cancel()  # the end of a life: it writes nothing down any more about the task
            await asyncio.Event().wait()
            return "never"

        plan = [SubTask(name="a", text="deadly"), SubTask(name="b", text="harmless")]
        given_up = ""
        for name in names:
            swarm = Swarm(agents(log, name, script=script), lives_max=3, lease_s=0.05)
            lives.append(asyncio.ensure_future(swarm.run("t", plan)))
            try:
                with pytest.raises(asyncio.CancelledError):
                    await lives[-1]
            except LimitReached as error:
                given_up = str(error)
                break
        assert "a: 3 lives took it up, and none came to its end" in given_up
        state = await folded(log)
        plan_run = next(one for one in state.runs.values() if one.agent == "swarm")
        assert list(plan_run.done) == ["b"] and plan_run.held == {} and plan_run.lives == {"a": 3}
        assert len(lives) == 4
        assert {one.status for one in state.runs.values() if one.parent == plan_run.id} == {"stopped", "finished"}

    run(main())


def test_a_plan_is_made_by_a_model_and_checked() -> None:
    """A model's plan is an answer in a form, so it is in the log; plans that cannot be worked on are refused."""

    async def main() -> None:
        log = memory_log()
        given = [{"name": "a", "text": "find"}, {"name": "b", "text": "fix", "after": ["a"]}]
        planner = ScriptedModel(lambda request: json.dumps(given))
        result = await Swarm(agents(log, "ann"), planner=planner, lease_s=5).run("t")
        assert list(result.results) == ["a", "b"]
        swarm = Swarm(agents(log, "ann"), lease_s=5)
        with pytest.raises(UsageError, match="Nobody splits"):
            await swarm.run("another")
        for wrong, why in (
            ([SubTask(name="a", text="x"), SubTask(name="a", text="y")], "one name"),
            ([SubTask(name="a", text="x", after=("z",))], "not in the plan"),
            ([SubTask(name="a", text="x", after=("b",)), SubTask(name="b", text="x", after=("a",))], "each other"),
        ):
            with pytest.raises(SpecError, match=why):
                await swarm.run("another", wrong)

    run(main())


def test_the_joined_answer_is_voted_on() -> None:
    """A voter of the swarm can refuse the answer of the whole."""

    class No(Voter):
        def check(self, entry: LogEntry) -> Any:
            return False

    async def main() -> None:
        log = memory_log()
        with pytest.raises(RunStopped, match="refused"):
            await Swarm(agents(log, "ann"), voters=[No()], lease_s=5).run("t", ["x"])

    run(main())


def test_a_lease_that_is_over_ends_by_an_entry_and_the_slow_holder_cannot_complete() -> None:
    """Who does not renew loses the task by a peer's lapse; a renewal in between makes the lapse void."""

    async def main() -> None:
        log = memory_log()
        plan = await Swarm(agents(log, "ann")).start("t", ["x"])
        slow, quick = Host(log, "slow"), Host(log, "quick")
        for host in (slow, quick):
            await host.tail.start()
            await host.append([host.birth()])
        held, peer = Claims(slow, plan, lease_s=0.02), Claims(quick, plan, lease_s=5)
        assert await held.take("001", "slow")
        assert not await peer.take("001", "quick")
        assert await peer.end_the_lost("quick") == 0
        await quick.env.sleep(0.06)
        assert await peer.end_the_lost("quick") == 1
        assert await peer.take("001", "quick")
        assert not await held.complete("001", "slow", 5000)
        at = quick.state.runs[plan].held["001"].position
        assert quick.state.runs[plan].held == {"001": Held("quick", quick.incarnation, at, 5000)}

    run(main())


@pytest.mark.parametrize("by_person", [False, True])
def test_work_that_ended_with_a_lapsed_claim_begins_anew_and_stopped_work_does_not(by_person: bool) -> None:
    """A renewal may come just after the lapse that stopped the work: the task is done, not the whole swarm ended."""
    calls: list[int] = []

    async def main() -> None:
        log = memory_log()
        peer = Host(log, "peer")
        await peer.tail.start()

        async def work() -> str:
            """Work."""
            calls.append(1)
            (ann,) = made
            await peer.tail.catch_up()
            plan, work = list(peer.state.runs)[:2]
            if by_person:
                await peer.append([peer.entry(Control(verb="stop", scope=f"run:{work}"), "operator")])
            elif len(calls) == 1:
                lapse = Claim(task="001", agent="peer", run=plan, lapses=peer.state.runs[plan].held["001"].position)
                await peer.append([peer.entry(lapse, "recoverer")])
                assert ann._parts is not None
                assert await Claims(ann._parts.host, plan, lease_s=5).take("001", "ann")
            return "worked"

        def script(request: ModelRequest) -> Any:
            return call("work") if not turn_of(request) else "done"

        made = agents(log, "ann", script=script, tools=[Tool(work, effect="read")])
        if by_person:
            with pytest.raises(RunStopped):
                await Swarm(made, lease_s=5).run("t", ["x"])
        else:
            assert (await Swarm(made, lease_s=5).run("t", ["x"])).text == "001: done"
        assert len(calls) == (1 if by_person else 2)

    run(main())


def test_a_thread_that_lost_its_task_is_waited_for_and_settled() -> None:
    """Its claim lapsed and the plan was stopped while it worked: the worker leaves nothing open behind."""

    async def main() -> None:
        log = memory_log()
        began, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def work() -> str:
            """Work."""
            loop.call_soon_threadsafe(began.set)
            go_on.wait(20)
            return "worked"

        def script(request: ModelRequest) -> Any:
            return call("work")

        swarm = Swarm(agents(log, "ann", script=script, tools=[Tool(work, effect="idempotent")]), lease_s=0.2)
        plan = await swarm.start("t", ["x"])
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(swarm.work(plan))
            await began.wait()
            peer = Host(log, "peer")
            await peer.tail.start()
            held = peer.state.runs[plan].held["001"]
            lapse = Claim(task="001", agent="peer", run=plan, lapses=held.position)
            stop = Control(verb="stop", scope=f"run:{plan}")
            await peer.append([peer.entry(lapse, "recoverer"), peer.entry(stop, "operator")])
            await peer.env.sleep(0.3)
            assert not worker.done(), "its thread is still at work"
            go_on.set()
        state = await folded(log)
        assert state.unfinished() == [] and not state.open_actions

    run(main())


def test_mail_and_looks() -> None:
    """Agents write and answer by tools, once each, and see of others what the swarm's scope lets them see."""

    async def main() -> None:
        log = memory_log()
        ann, bob, eve = agents(log, "ann", "bob", "eve")
        swarm = Swarm([ann, bob, eve], talk=True, sees=lambda viewer, other: (viewer, other) != ("eve", "ann"))
        sent = await ann.act(Action(tool="send_mail", arguments={"to": "bob", "body": "hello", "in_reply_to": 0}))
        at = int(sent.removeprefix("sent as "))
        await bob.act(Action(tool="send_mail", arguments={"to": "ann", "body": "hi", "in_reply_to": at}))
        (got,) = await ann.act(Action(tool="read_mail"))
        assert (got["sender"], got["body"], got["in_reply_to"]) == ("bob", "hi", at)
        seen = {entry["agent"] for entry in await eve.act(Action(tool="look_around"))}
        assert seen == {"bob"}
        assert {entry.agent_id for entry in await swarm.talk.look("bob")} == {"ann", "eve"}

    run(main())


def test_coordinate_task_as_described() -> None:
    """One proposes, others follow up, what is refused does not run, the rest runs in the log's order."""
    done: list[str] = []

    async def send(text: str) -> str:
        """Send."""
        done.append(text)
        return text

    class Follower(LogActAgent):
        def should_follow_up(self, entry: LogEntry) -> bool:
            return entry.action.tool == "send"

        def follow_up_action(self, entry: LogEntry) -> Action:
            return Action(tool="send", arguments={"text": f"{self.agent_id} after {entry.agent_id}"})

    def polite(entry: LogEntry) -> bool:
        return "rude" not in entry.action.arguments["text"]

    async def main() -> None:
        log = memory_log()
        made = [
            kind(name, log, [polite], tools=[Tool(send)])
            for kind, name in ((LogActAgent, "ann"), (Follower, "bob"), (Follower, "rude"), (LogActAgent, "eve"))
        ]
        swarm = MultiAgentLogAct(made, log)
        task = Task(action=Action(tool="send", arguments={"text": "first"}), key="job")
        results = await swarm.coordinate_task(task)
        assert done == ["first", "bob after ann"]
        assert [one.success for one in results] == [True, True, False]
        assert await swarm.coordinate_task(task) == []
        assert done == ["first", "bob after ann"]

    run(main())


WORKER = """
import asyncio, sys, time
from logact import LogActAgent, Policy, open_log, tool
from logact.models import ScriptedModel, call
from logact.models.scripted import turn_of
from logact.swarm import Swarm

url, me, effects, slow = sys.argv[1:5]

@tool(effect="idempotent")
def put(name: str) -> str:
    "Note that a task was worked on."
    with open(effects, "a") as file:
        file.write(f"{me} {name}\\n")
    time.sleep(30 if slow == "slow" else 0.01)
    return "noted"

def script(request):
    name = request.messages[0].text.split()[1]
    return call("put", name=name) if not turn_of(request) else f"{me} did {name}"

async def main():
    log = open_log(url)
    policy = Policy(version=1, agent=me, need={"open": "test"})
    agent = LogActAgent(me, log, model=ScriptedModel(script), tools=[put], policy=policy)
    result = await Swarm([agent], log, lease_s=60).run("all", [f"part {n}" for n in range(6)])
    print(result.text)
    await log.close()

asyncio.run(main())
"""


def test_processes_share_a_task_and_the_dead_ones_part_is_done(tmp_path: Path) -> None:
    """Three processes on one log; one is killed at work: its task lapses, is done by another, and nothing is lost."""
    url, effects = f"sqlite:///{tmp_path}/log.db", tmp_path / "effects"
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def begin(name: str, pace: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), url, name, str(effects), pace],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    victim = begin("victim", "slow")
    limit = time.monotonic() + 20
    while not effects.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    others = [begin("ann", "quick"), begin("bob", "quick")]
    try:
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
        said = [one.communicate(timeout=40) for one in others]
    finally:
        for one in (victim, *others):
            one.kill()
            one.wait()
    assert [one.returncode for one in others] == [0, 0], said
    assert said[0][0] == said[1][0]

    async def look() -> None:
        log = open_log(url)
        state = await folded(log)
        (plan,) = [one for one in state.runs.values() if one.agent == "swarm"]
        assert sorted(plan.done) == [f"{place:03}" for place in range(1, 7)]
        completions = [said for said in await payloads(log, Claim) if said.result]
        assert len(completions) == 6
        assert [said.lapses > 0 for said in await payloads(log, Claim)].count(True) >= 1
        await log.close()

    run(look())


def test_many_agents_may_begin_at_once(tmp_path: Path) -> None:
    """Forty agents of one process, each with a policy of its own, take up their roles at once; was AgentBusy."""

    async def main() -> None:
        log = open_log(f"sqlite:///{tmp_path}/log.db")
        crowd = agents(log, *(f"a{number}" for number in range(40)))
        async with asyncio.TaskGroup() as group:
            for one in crowd:
                group.create_task(one.state())
        assert len(await payloads(log, Policy)) == 40
        await log.close()

    run(main())


class Ahead(Env):
    """The real environment, with a calendar that a test may move on."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


class Unclear:
    """An agent that pays by a tool that never says what happened, and whose runs are over by then; and a person."""

    def __init__(self) -> None:
        self.log = memory_log()
        self.clock = Ahead()
        self.paid = self.settled = 0
        self.waits = asyncio.Event()
        environment.use(self.clock)

    def swarm(self) -> Swarm:
        """A swarm of this one agent, in a life of its own."""

        @tool(effect="irreversible", timeout_s=0.02)
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid += 1
            self.clock.ahead_ms += 100_000
            await asyncio.Event().wait()
            return "never"

        limits = Limits(seconds=60)
        return Swarm(
            agents(self.log, "ann", script=lambda _: call("pay", amount=1), tools=[pay], limits=limits),
            attempts_max=2,
            lease_s=30,
        )

    async def person(self, most: int) -> None:
        """Looks what happened each time that a task waits for word of it, and says that nothing did."""
        self.waits.clear()
        async for entry in self.log.follow(
            end_of(record_of(await self.log.tail())), matching=where(kinds=["Notice"])
        ):
            said = entry.payload
            if isinstance(said, Notice) and said.code == "swarm_task_waits":
                self.waits.set()
                if self.settled >= most:
                    continue
                self.settled += 1
                action = said.data["action"]
                looked = Recovery(
                    intent=action, attempt=1, settlement="not_happened", evidence="op", reason="none came"
                )
                await self.log.append(looked, role="operator", name="op")

    async def failures(self) -> list[str]:
        return [said.message for said in await payloads(self.log, Notice) if said.code == "swarm_task_failed"]


def test_work_that_ended_in_doubt_has_failed() -> None:
    """Once a person has said what happened it counts as an attempt: it was tried again, and again, without end."""

    async def main() -> None:
        case = Unclear()
        async with running(case.person(most=5)):
            with pytest.raises(LimitReached, match="failed 2 times"):
                await case.swarm().run("t", ["pay the bill"])
        assert (case.paid, case.settled, len(await case.failures())) == (2, 2, 2)

    run(main())


def test_a_later_life_asks_before_it_begins_anew() -> None:
    """The worker ended while it waited for word: the next life waits, too, and that counts as one attempt."""

    async def main() -> None:
        case = Unclear()
        for _ in range(3):
            case.waits.clear()
            async with running(case.person(most=0)), running(case.swarm().run("t", ["pay the bill"])):
                await case.waits.wait()
            assert (case.paid, await case.failures()) == (1, [])
        async with running(case.person(most=5)):
            with pytest.raises(LimitReached, match="failed 2 times"):
                await case.swarm().run("t", ["pay the bill"])
        assert (case.paid, len(await case.failures())) == (2, 2)

    run(main())
