"""A cheaper model is proposed, tried on some runs over HTTP, measured from the log, and left if it does worse."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logact import AgenticIntrospection, LogActAgent, Tool, open_log
from logact.entry import Checkpoint, Input, Limits, NewEntry, Notice, Run, own
from logact.errors import SpecError
from logact.introspection.optimizing import Optimized
from logact.introspection.trials import TRIAL_RUNS
from logact.introspection.tuning import APPLIED, KEPT, UNDONE
from logact.logs.base import SharedLog
from logact.models import Price, ProviderModel
from logact.runtime import assembly
from logact.runtime.leaving import Leave
from logact.runtime.tail import Tail
from logact.runtime.trimming import trim
from logact.spec import build_agent, load_spec
from logact.spec_save import save_agent
from logact.swarm import Swarm
from tests.fake_provider import Ask, FakeProvider, Say
from tests.recovery.forms import PARTS
from tests.runtime.kit import memory_log, opened, payloads, run

USAGE = (1000, 10, 0)


def put(text: str) -> str:
    """Put it down."""
    return "done"


def yes(entry: Any) -> bool:
    """A voter."""
    return True


class Desk:
    """An agent whose model does each task in one turn; what the smaller one says, the test says."""

    def __init__(self, small: Callable[[Any], Say] = lambda body: Say(text="done", usage=USAGE)) -> None:
        self.small = small
        self.asked: Counter[str] = Counter()
        self.offered: set[str] = set()
        self.provider = FakeProvider([self.answer])
        self.log = memory_log()

    def answer(self, body: Any) -> Say:
        """The big model is always right."""
        self.asked[body["model"]] += 1
        self.offered = {tool["function"]["name"] for tool in body.get("tools", ())}
        return self.small(body) if body["model"] == "small" else Say(text="done", usage=USAGE)

    def model(self, name: str, usd: float) -> ProviderModel:
        """One of the provider's models."""
        price = Price(input_usd=usd, output_usd=usd)
        return ProviderModel(name, base_url=self.provider.openai_url, price=price, attempts=1)

    def agent(self, log: SharedLog | None = None, **options: Any) -> LogActAgent:
        """A life of the agent."""
        given: dict[str, Any] = {"voters": [yes], "limits": Limits(turns=9), **options}
        others = given.pop("try_models", [self.model("small", 1), self.model("dear", 30)])
        model = self.model("big", 10)
        return LogActAgent("ann", log or self.log, model=model, try_models=others, tools=[Tool(put)], **given)

    async def work(self, agent: LogActAgent, title: str, count: int = 4) -> None:
        """So many tasks."""
        await Swarm([agent], agent.log, lease_s=30).run(title, [f"part {number}" for number in range(count)])

    async def optimized(self, agent: LogActAgent, **options: Any) -> Optimized:
        """The proposals that concern the model, made and applied."""
        return await AgenticIntrospection().optimize_token_usage([agent], **options)

    async def notices(self, code: str) -> list[Notice]:
        """What was written down of a trial."""
        found = [one for one in await payloads(self.log, Notice) if one.code == code]
        return [one for one in found if code != APPLIED or one.data["measure"]["kind"] == "model"]


def proposed(found: Optimized) -> list[str]:
    """The models that were proposed."""
    return [one.data["model"] for one in found.optimizations["ann"].measures if one.kind == "model"]


def test_a_cheaper_model_is_tried_measured_and_kept() -> None:
    """Every second run is the candidate's until enough have ended; it stays, with the figures that the log shows."""

    async def main(desk: Desk) -> None:
        ann = desk.agent()
        await desk.work(ann, "first")
        found = await desk.optimized(ann, automatic=True)
        assert proposed(found) == [desk.model("small", 1).name]
        assert desk.asked == {"big": 4}
        await desk.work(ann, "second", 2 * TRIAL_RUNS - 1)
        assert desk.asked["small"] == TRIAL_RUNS and desk.asked["big"] == 3 + TRIAL_RUNS
        (kept,) = await desk.notices(KEPT)
        (applied,) = await desk.notices(APPLIED)
        assert kept.data["saved_usd_pct"] == 90.0 and kept.data["with"]["runs"] == TRIAL_RUNS
        assert kept.data["with"]["usd"] == pytest.approx(TRIAL_RUNS * 1010 / 1e6)
        assert applied.data["measure"]["data"]["before"]["usd"] == pytest.approx(4 * 10 * 1010 / 1e6)
        await desk.work(ann, "third")
        assert desk.asked["big"] == 3 + TRIAL_RUNS  # all of it is the cheaper one's from here on
        assert proposed(await desk.optimized(ann)) == []
        await ann.undo_optimization(max(ann.tuning.trials.going), "I want the big one back")
        await desk.work(ann, "fourth")
        assert desk.asked["big"] == 7 + TRIAL_RUNS

    desk = Desk()
    with desk.provider:
        run(main(desk))


@pytest.mark.parametrize(
    ("voters", "automatic"),
    [([], True), ([lambda entry: entry.action.tool != "apply_optimization"], False)],
    ids=["none", "no"],
)
def test_it_is_not_tried_without_a_vote(voters: list[Any], automatic: bool) -> None:
    """An agent whose voters refuse it, or that has none, goes on with its own model, whatever is asked for."""

    async def main(desk: Desk) -> None:
        ann = desk.agent(voters=voters, policy=None if voters else opened())
        await desk.work(ann, "first")
        await desk.optimized(ann, automatic=automatic)
        await desk.work(ann, "second")
        assert desk.asked == {"big": 8} and await desk.notices(APPLIED) == []

    desk = Desk()
    with desk.provider:
        run(main(desk))


def loops(body: Any) -> Say:
    """Calls a tool again and again, and never comes to an end."""
    return Say(calls=(Ask("put", {"text": str(len(body["messages"]))}),), usage=USAGE)


def dawdles(body: Any) -> Say:
    """Says little at a time, but so often that it is dearer in the end."""
    done = len(body["messages"]) > 3
    return Say(text="done", usage=(20_000, 1, 0)) if done else Say(calls=(Ask("put", {"text": "x"}),), usage=USAGE)


def blunders(body: Any) -> Say:
    """Gets there, after calls of tools that there are not."""
    done = len(body["messages"]) > 3
    return Say(text="done", usage=USAGE) if done else Say(calls=(Ask("putt", {}),), usage=USAGE)


@pytest.mark.parametrize(
    ("small", "why", "runs"),
    [
        (loops, "went wrong", 1),
        (lambda body: Say(status=400), "went wrong", 1),
        (lambda body: Say(text="", usage=USAGE), "went wrong", 1),
        (dawdles, "cost", TRIAL_RUNS),
        (blunders, "troubles", TRIAL_RUNS),
    ],
    ids=["fails", "refuses", "says nothing", "dearer", "troubles"],
)
def test_a_model_that_does_worse_is_left(small: Callable[[Any], Say], why: str, runs: int) -> None:
    """What went worse is an entry with its figures; the work is done by the own model; it is not proposed again."""

    async def main(desk: Desk) -> None:
        ann = desk.agent(try_models=[desk.model("small", 1), desk.model("middle", 5)])
        await desk.work(ann, "first")
        await desk.optimized(ann)
        await desk.work(ann, "second", 2 * TRIAL_RUNS)
        (left,) = await desk.notices(UNDONE)
        assert why in left.message and left.data["with"]["runs"] == runs
        assert await desk.notices(KEPT) == [] and ann.tuning.trial is None
        asked = desk.asked["small"]
        assert asked > 0
        await desk.work(ann, "third")
        assert desk.asked["small"] == asked
        assert proposed(await desk.optimized(ann)) == [desk.model("middle", 5).name]

    desk = Desk(small)
    with desk.provider:
        run(main(desk))


def test_another_life_goes_on_with_the_trial() -> None:
    """What was applied before a checkpoint holds after it (was forgotten), and the trial's runs are counted on."""

    async def main(desk: Desk) -> None:
        ann = desk.agent()
        await desk.work(ann, "first")
        await desk.optimized(ann, automatic=True)
        await desk.work(ann, "second", TRIAL_RUNS)
        assert desk.asked["small"] == TRIAL_RUNS // 2
        later = desk.agent(checkpoint_every=1)
        for number in range(TRIAL_RUNS - 1):
            await later.run(f"more {number}")  # each is a life of its own
        assert desk.asked["small"] == TRIAL_RUNS and await payloads(desk.log, Checkpoint)
        assert len(await desk.notices(KEPT)) == 1
        last = desk.agent()
        await last.run("at the end")
        assert desk.asked["small"] == TRIAL_RUNS + 1 and last.tuning.measures.keys() == ann.tuning.measures.keys()
        assert "put" in last.tuning.hidden  # a change of another kind, too
        assert (await trim(desk.log)).before  # what was applied is behind the cut, and the agent goes on without it
        after = desk.agent()
        assert (await after.run("after the cut")).text == "done" and not after.tuning.measures

    desk = Desk()
    with desk.provider:
        run(main(desk))


def test_a_specification_names_models_to_try(tmp_path: Path) -> None:
    """They and their prices are read, and saved again; without a price a model is refused."""
    spec = tmp_path / "logact.toml"
    head = '[agent]\nname = "ann"\nmodel = "openai:big"\ntry_models = ["openai:small"]\n[prices]\n'
    spec.write_text(head + '"openai:big" = { input_usd = 10, output_usd = 10 }\n')
    with pytest.raises(SpecError, match="needs a price") as error:
        load_spec(spec)
    assert "openai:small" in str(error.value) and "line 4" in str(error.value)
    spec.write_text(spec.read_text() + '"openai:small" = { input_usd = 1, output_usd = 2 }\n')
    agent = build_agent(load_spec(spec))
    (small,) = agent.try_models.values()
    assert isinstance(small, ProviderModel) and small.price == Price(input_usd=1, output_usd=2)
    again = load_spec(save_agent(agent, tmp_path / "again.toml"))
    assert again.agent.try_models == ["openai:small"] and again.prices == load_spec(spec).prices


def test_a_driver_of_its_own_follows(tmp_path: Path) -> None:
    """Where the agent's parts are apart, its driver offers less, tries the model and says what came of it, too."""

    async def main(desk: Desk) -> None:
        url = f"sqlite:///{tmp_path}/ops.db"
        async with open_log(url) as desk.log:
            await desk.work(ann := desk.agent(), "first")
            await desk.optimized(ann, automatic=True)
            leave = Leave(5.0)

            async def play(part: str) -> None:
                async with open_log(url) as log:
                    await getattr(assembly, f"play_{part}")(log, desk.agent(log), leave=leave)

            async with asyncio.TaskGroup() as group:
                for part in PARTS:
                    group.create_task(play(part))
                tail = Tail(desk.log)
                await tail.start()
                for number in range(2 * TRIAL_RUNS):
                    begin = (Run(agent="ann", title="go"), Input(run=own(0), text=f"more {number}"))
                    entries = [
                        NewEntry(payload=one, role="client", name="me", agent="ann", run=own(0) * (one is begin[1]))
                        for one in begin
                    ]
                    mine = (await desk.log.append(*entries)).position
                    while (await tail.catch_up()).runs[mine].status == "running":
                        await asyncio.sleep(0.01)
                leave.ask()
            assert desk.asked["small"] == TRIAL_RUNS and desk.offered == set()
            assert [one.data["with"]["runs"] for one in await desk.notices(KEPT)] == [TRIAL_RUNS]

    desk = Desk()
    with desk.provider:
        run(main(desk))
