"""Ways to fewer tokens for a swarm: related tasks together, digests, summaries, answers that were given before."""

from __future__ import annotations

from typing import Any

import pytest

from logact import Action, AgenticIntrospection, LogActAgent, Tool
from logact.entry import Claim, Inference, Mail, NewEntry, Notice, Result, Run
from logact.errors import ActionFailed
from logact.introspection.optimizing import measured
from logact.introspection.token_reading import WHOLE
from logact.introspection.tokens import Measure, Optimization
from logact.introspection.tuning import APPLIED
from logact.logs.base import SharedLog
from logact.models import ModelAnswer, ScriptedModel, call
from logact.models.base import ModelRequest
from logact.swarm import SubTask, Swarm
from logact.swarm.answers import ANSWERED, SHARED
from logact.swarm.digests import DIGEST
from logact.swarm.handover import HANDED
from logact.swarm.related import Related
from tests.runtime.kit import folded, memory_log, opened, payloads, run

MANUAL = "The manual.\n" + "\n".join(f"step_{number:02} turns lever_{number:02} slowly" for number in range(120))


class Shop:
    """Agents whose tasks read the manual and then a part; counts reads, and keeps what the models were asked."""

    def __init__(self, log: SharedLog, *names: str, **options: Any) -> None:
        self.read: list[str] = []
        self.requests: list[ModelRequest] = []
        self.manual = MANUAL

        def look(path: str) -> str:
            """Read a file."""
            self.read.append(path)
            return self.manual if path == "manual" else f"the text of {path}"

        def put(path: str, text: str) -> str:
            """Write a file."""
            return "done"

        tools = [Tool(look, effect="read"), Tool(put, effect="idempotent")]
        self.agents = [
            LogActAgent(name, log, model=ScriptedModel(self.script), tools=tools, policy=opened(name), **options)
            for name in names
        ]

    def script(self, request: ModelRequest) -> Any:
        """Read the manual and the part that the latest task names, unless they are in front of it."""
        self.requests.append(request)
        told = next(one.text for one in reversed(request.messages) if one.role == "user")
        part = told.split("part ")[1].split()[0].rstrip(".")
        seen = [made.arguments.get("path") for one in request.messages for made in one.calls]
        for path in ("manual", part):
            if path not in seen:
                return call("look", path=path)
        return f"{part} by step_07 and lever_07"


def parts(*names: str) -> list[SubTask]:
    """Tasks about parts."""
    return [SubTask(name=f"{place}", text=f"Mend part {name}.") for place, name in enumerate(names)]


async def holders(log: SharedLog) -> dict[str, str]:
    """Who completed which task."""
    return {said.task: said.agent for said in await payloads(log, Claim) if said.result}


# --- together ----------------------------------------------------------------------------------------------------


def test_what_belongs_together_is_computed_from_the_plan_and_the_log() -> None:
    """Tasks that wait for each other, are kept, name one thing, or are about what another read: these are tied."""

    async def main() -> None:
        log = memory_log()
        shop = Shop(log, "ann")
        plan = [
            SubTask(name="a", text="Mend part src/engine.py."),
            SubTask(name="b", text="Describe src/engine.py somewhere."),
            SubTask(name="c", text="Mend part wheel.", keep="round"),
            SubTask(name="d", text="Paint it.", keep="round"),
            SubTask(name="e", text="Look over it.", after=("d",)),
            SubTask(name="f", text="Go home."),
        ]
        ready = await Swarm(shop.agents, log).start("t", plan)
        related = Related(ready)
        tie = {
            (one.name, two.name): related.tie(one, two, plan) for one in plan for two in plan if one.name < two.name
        }
        assert {pair for pair, found in tie.items() if found} == {("a", "b"), ("c", "d"), ("d", "e")}
        work = await log.append(
            NewEntry(payload=Run(agent="ann", title="Task f", parent=ready), role="client", name="ann")
        )
        async with shop.agents[0] as ann:
            await ann.send("Task f\ngo to part wheel", work.position)
        async for entry in log.read():
            related.take(entry)
        assert related.reads["f"] == ["manual", "wheel"]
        assert related.tie(plan[5], plan[2], plan) > 0

    run(main())


def test_related_tasks_go_to_one_agent_in_one_conversation_and_the_log_shows_what_that_saves() -> None:
    """With ``together`` an agent goes on with what it has read; fewer reads, fewer tokens, the same answers."""

    async def main() -> None:
        found = {}
        for together in (False, True):
            log = memory_log()
            shop = Shop(log, "ann", "bob")
            plan = parts("wheel", "motor", "wheel", "motor", "wheel", "motor")
            result = await Swarm(shop.agents, log, lease_s=30, together=together).run("t", plan)
            spent = await measured(shop.agents, (await folded(log)).position)
            runs = [said for said in await payloads(log, Run) if said.parent]
            found[together] = shop.read, spent.tokens_before, len(runs), [one.text for one in result.results.values()]
        apart, one = found[False], found[True]
        assert apart[3] == one[3]
        assert (len(apart[0]), apart[2]) == (12, 6)
        assert len(one[0]) <= 6 and one[2] <= 4
        assert one[1] < 0.8 * apart[1]

    run(main())


def test_a_conversation_is_told_what_others_changed_since_it_read_it() -> None:
    """What an earlier task of the conversation read, and another agent may have changed, is named."""

    async def main() -> None:
        log = memory_log()
        shop = Shop(log, "ann", "bob")

        def changes(request: ModelRequest) -> Any:
            used = any(one.tool == "put" for one in request.messages)
            return "changed" if used else call("put", path="wheel", text="x")

        shop.agents[1].model = ScriptedModel(changes)
        plan = [
            SubTask(name="a", text="Mend part wheel.", role="x"),
            SubTask(name="m", text="Replace it.", role="y", after=("a",)),
            SubTask(name="b", text="Polish part wheel.", role="x", after=("a", "m")),
        ]
        await Swarm(shop.agents, log, lease_s=30, together=True, roles={"ann": "x", "bob": "y"}).run("t", plan)
        users = [one.text for one in shop.requests[-1].messages if one.role == "user"]
        assert len(users) == 2
        assert users[1].endswith("[Perhaps changed by others since you read it: wheel]")

    run(main())


def test_a_conversation_about_several_tasks_is_resumed_at_the_right_one() -> None:
    """An agent that dies in its second task of one run goes on there in its next life, and pays for nothing twice."""

    async def main() -> None:
        log = memory_log()
        shop = Shop(log, "ann")
        plan = [
            SubTask(name="a", text="Mend part wheel."),
            SubTask(name="b", text="Polish part wheel.", after=("a",)),
        ]
        swarm = Swarm(shop.agents, log, lease_s=30, together=True, attempts_max=1)
        ready = await swarm.start("t", plan)

        class Dies(Exception):
            """The end of the first life."""

        def dies(request: ModelRequest) -> Any:
            if any("Polish" in one.text for one in request.messages):
                raise RuntimeError("gone")
            return shop.script(request)

        shop.agents[0].model = ScriptedModel(dies)
        with pytest.raises(Exception, match="gone"):
            await swarm.run("t", plan)
        second = Shop(log, "ann")
        result = await Swarm(second.agents, log, lease_s=30, together=True).run("t", plan)
        assert list(result.results) == ["a", "b"]
        assert second.read == []  # all of it was in the conversation that it took up
        assert len([said for said in await payloads(log, Run) if said.parent == ready]) == 1

    run(main())


# --- digests ----------------------------------------------------------------------------------------------------


def test_a_long_text_that_another_read_is_given_in_part_and_whole_on_request() -> None:
    """After the change a second reader gets the used lines and a position; the tool there gives every character."""

    async def main() -> None:
        log = memory_log()
        shop = Shop(log, "ann", "bob")
        swarm = Swarm(shop.agents, log, lease_s=30)
        await swarm.run("first", parts("wheel", "motor", "axle", "door"))
        plain = await AgenticIntrospection().optimize_token_usage(shop.agents, automatic=True)
        assert "digests" not in {one.kind for one in plain.optimizations["ann"].measures}
        for agent in shop.agents:
            for position in plain.applied[agent.agent_id]:
                await agent.undo_optimization(position)
        done = await AgenticIntrospection().optimize_token_usage(shop.agents, digests=True)
        assert done.applied["ann"] == []  # nobody asked for it to be automatic, and nobody may vote
        (digests,) = [one for one in done.optimizations["ann"].measures if one.kind == "digests"]
        for agent in shop.agents:
            await agent.apply_optimization(Optimization(agent=agent.agent_id, measures=(digests,)), automatic=True)
        ann, bob = shop.agents
        look = Action(tool="look", arguments={"path": "manual"})
        async with ann, bob:
            given = await bob.act(look)
            assert given.startswith(DIGEST) and "step_07" in given and len(given) < len(MANUAL) / 4
            position = int(given.split("with position ")[1].split("]")[0])
            assert await bob.act(Action(tool=WHOLE, arguments={"position": position})) == MANUAL
            await ann.act(Action(tool="put", arguments={"path": "manual", "text": "x"}))
            assert await bob.act(look) == MANUAL  # somebody may have changed it: the whole, and from now on a digest
            assert (await ann.act(look)).startswith(DIGEST)
            shop.manual = MANUAL.replace("lever_99", "lever_0")
            assert await ann.act(look) == shop.manual  # changed beside the log: by its digest it is another text

    run(main())


def test_digests_and_whole_texts_stay_within_what_an_agent_may_see() -> None:
    """Who may not look at another agent gets no digest of what it read, and no text of it by its position."""

    async def main() -> None:
        log = memory_log()
        shop = Shop(log, "ann", "bob")
        Swarm(shop.agents, log, sees=lambda viewer, other: (viewer, other) != ("bob", "ann"))
        ann, bob = shop.agents
        for agent in shop.agents:
            measure = Measure(kind="digests", title="asked for")
            await agent.apply_optimization(Optimization(agent=agent.agent_id, measures=(measure,)), automatic=True)
        async with ann, bob:
            assert await ann.act(Action(tool="look", arguments={"path": "manual"})) == MANUAL
            assert await bob.act(Action(tool="look", arguments={"path": "manual"})) == MANUAL
            (one, _) = [
                entry.position
                async for entry in log.read()
                if isinstance(entry.payload, Result) and entry.payload.error is None and entry.tool == "look"
            ]
            with pytest.raises(ActionFailed, match="not for you"):
                await bob.act(Action(tool=WHOLE, arguments={"position": one}))
            assert await ann.act(Action(tool=WHOLE, arguments={"position": one})) == MANUAL
            with pytest.raises(ActionFailed, match="no text"):
                await ann.act(Action(tool=WHOLE, arguments={"position": 1}))

    run(main())


# --- answers ----------------------------------------------------------------------------------------------------


def test_the_same_request_is_found_shared_once_that_is_applied_and_asked_anew_once_it_differs() -> None:
    """Two agents ask one model the same: found in the log, then spared, each as an entry; another input is asked."""

    async def main() -> None:
        log = memory_log()
        shop = Shop(log, "ann", "bob")
        Swarm(shop.agents, log)
        ann, bob = shop.agents
        for agent in shop.agents:
            await agent.run("Mend part wheel.")
        done = await AgenticIntrospection().optimize_token_usage(shop.agents)
        (found,) = [one for one in done.optimizations["ann"].measures if one.kind == "answers"]
        inferences = {entry.position async for entry in log.read() if isinstance(entry.payload, Inference)}
        assert found.title.startswith("3 requests") and found.tokens > 0
        assert found.cites and set(found.cites) <= inferences
        for agent in shop.agents:
            await agent.apply_optimization(Optimization(agent=agent.agent_id, measures=(found,)), automatic=True)
        asked = len(shop.requests)
        first = await ann.run("Mend part motor.")
        assert len(shop.requests) == asked + 3
        second = await bob.run("Mend part motor.")
        assert second.text == first.text and len(shop.requests) == asked + 3
        used = [said.usage for said in await payloads(log, Inference) if said.run == second.run]
        assert len(used) == 3 and all(one.input_tokens == one.output_tokens == 0 for one in used)
        notes = [said for said in await payloads(log, Notice) if said.code in (ANSWERED, SHARED)]
        assert [said.code for said in notes] == [ANSWERED] * 3 + [SHARED] * 3
        assert {said.data["of"] for said in notes[3:]} <= {
            entry.position async for entry in log.read() if isinstance(entry.payload, Inference)
        }
        saved = await measured(shop.agents, done.position)
        assert saved.saved_pct is not None and saved.saved_pct > 40
        shop.manual = "another manual"
        await bob.run("Mend part motor.", new=True)
        assert len(shop.requests) == asked + 3 + 2  # the first request is the same, what it led to is not
        await ann.undo_optimization(next(at for at, one in ann.tuning.measures.items() if one.kind == "answers"))
        await ann.run("Mend part motor.", new=True)
        assert len(shop.requests) == asked + 3 + 2 + 3

    run(main())


# --- summaries ----------------------------------------------------------------------------------------------------


def test_a_long_result_is_handed_over_as_a_summary_made_once_and_the_whole_can_be_had() -> None:
    """Two tasks wait for a long result: one summary, in the completing record, and a way to the whole."""
    long = "it is so. " * 400
    told: list[str] = []

    def script(request: ModelRequest) -> Any:
        if request.tools and request.tools[0].name == "hand_over":
            case = request.messages[0].text.split()[1]
            return call("hand_over", case=case, summary="it is so, 400 times")
        text = request.messages[0].text
        if text.startswith("Task a"):
            return ModelAnswer(text=long)
        told.append(text)
        if not any(one.tool == WHOLE for one in request.messages):
            return call(WHOLE, position=int(text.split("with position ")[1].split("]")[0]))
        return "whole" if long in request.messages[-1].text else "part"

    async def main() -> None:
        log = memory_log()
        agents = [LogActAgent(name, log, model=ScriptedModel(script), policy=opened(name)) for name in ("ann", "bob")]
        plan = [SubTask(name="a", text="x"), *(SubTask(name=n, text="y", after=("a",)) for n in ("b", "c"))]
        result = await Swarm(agents, log, handover=True, lease_s=30).run("t", plan)
        assert [result.results[name].text for name in ("b", "c")] == ["whole", "whole"]
        assert all("it is so, 400 times" in text and long not in text for text in told)
        (entry,) = [one async for one in log.read() if isinstance(one.payload, Notice) and one.payload.code == HANDED]
        (claim,) = [one async for one in log.read() if isinstance(one.payload, Claim) and one.payload.task == "a"
                    and one.payload.result]  # fmt: skip
        assert entry.position // 1000 == claim.position // 1000
        (said,) = [one for one in await payloads(log, Notice) if one.code == HANDED]
        assert said.data["usage"]["output_tokens"] > 0

    run(main())


def test_long_results_on_their_way_are_found_and_summed_up_once_that_is_applied() -> None:
    """The optimizer sees what tasks are handed; applied, the same plan hands over less, as the log shows."""
    long = "well, " * 1000

    def script(request: ModelRequest) -> Any:
        if request.tools and request.tools[0].name == "hand_over":
            return call("hand_over", case=request.messages[0].text.split()[1], summary="well, well")
        return ModelAnswer(text=long) if request.messages[0].text.startswith("Task a") else "done"

    async def main() -> None:
        log = memory_log()
        agents = [LogActAgent("ann", log, model=ScriptedModel(script), policy=opened("ann"))]
        plan = [SubTask(name="a", text="x"), *(SubTask(name=n, text="y", after=("a",)) for n in "bcd")]
        swarm = Swarm(agents, log, lease_s=30)
        await swarm.run("first", plan)
        done = await AgenticIntrospection().optimize_token_usage(agents, automatic=True)
        assert "handover" in {one.kind for one in done.optimizations["ann"].measures}
        assert len([one for one in await payloads(log, Notice) if one.code == APPLIED]) == len(done.applied["ann"])
        await swarm.run("second", plan)
        saved = await measured(agents, done.position)
        assert saved.saved_pct is not None and saved.saved_pct > 15

    run(main())


# --- mail ----------------------------------------------------------------------------------------------------


def test_an_agent_at_work_is_told_of_its_mail_and_may_answer_it() -> None:
    """A task's text says that mail waits; the answer is mail, too, and names what it answers."""

    def script(request: ModelRequest) -> Any:
        if "[1 pieces of mail for you" not in request.messages[0].text:
            return "no mail"
        used = [one.tool for one in request.messages if one.tool]
        if "read_mail" not in used:
            return call("read_mail")
        if "send_mail" not in used:
            at = int(request.messages[-1].text.split('"position":')[1].split(",")[0])
            return call("send_mail", to="eve", body="yes", in_reply_to=at)
        return "answered"

    async def main() -> None:
        log = memory_log()
        ann = LogActAgent("ann", log, model=ScriptedModel(script), policy=opened("ann"))
        swarm = Swarm([ann], log, talk=True, lease_s=30)
        at = await swarm.talk.send("eve", "ann", "ready?")
        result = await swarm.run("t", ["x"])
        assert result.results["001"].text == "answered"
        sent = [said for said in await payloads(log, Mail) if said.sender == "ann"]
        assert [(one.to, one.body, one.in_reply_to) for one in sent] == [("eve", "yes", at)]

    run(main())
