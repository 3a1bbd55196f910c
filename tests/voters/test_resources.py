"""Budgets: folded from the log, so that nothing resets them and nobody shares the last unit; and head-room."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.core.deciding import NOT_NOW
from logact.core.views import log_entry
from logact.entry import (
    Abort,
    Cancel,
    Commit,
    Control,
    Entry,
    Expiry,
    Failure,
    Inference,
    Intent,
    Payload,
    Recovery,
    Result,
    Started,
    Usage,
    Vote,
)
from logact.errors import SpecError
from logact.models import call, say
from logact.voters import resources_headroom as headroom
from logact.voters.resources import Budget, ResourceVoter
from tests.voters.kit import Script, all_open


class Ledger(Script):
    """A log whose entries a ResourceVoter observes, as its host would."""

    def __init__(self, voter: ResourceVoter) -> None:
        super().__init__()
        self.voter = voter
        self.memory: Any = voter.initial()

    def add(self, payload: Payload, role: str, name: str = "", *, tool: str = "", time_ms: int = 0) -> Entry:
        entry = super().add(payload, role, name, tool=tool, time_ms=time_ms)
        if not self.state.verdict:
            self.memory = self.voter.observe(self.memory, entry)
        return entry

    def ask(
        self,
        run: int,
        tool: str = "pay",
        arguments: Mapping[str, Any] | None = None,
        *,
        agent: str = "ops",
        now_ms: int = 0,
    ) -> Vote:
        """The vote on an action that is not in the log yet."""
        intent = Intent(run=run, agent=agent, tool=tool, arguments=dict(arguments or {}))
        entry = msgspec.structs.replace(log_entry(intent, memory=self.memory), timestamp=now_ms or self.record + 1)
        return self.voter.check(entry)

    def begin_open(self, agent: str = "ops") -> int:
        return self.begin(None if self.state.policies else all_open(), agent)

    def start(self, action: Any) -> None:
        self.add(Commit(intent=action.id), "decider")
        self.add(Started(intent=action.id), "executor")
        assert action.status == "executing"


def test_actions_are_spent_from_the_intent_on() -> None:
    """Undecided intents count; what was refused before it started is given back, what ran is not."""
    log = Ledger(ResourceVoter(actions=2))
    run = log.begin_open()
    first, second = log.propose(run), log.propose(run)
    vote = log.ask(run)
    assert vote.approved is False
    assert vote.reason == "resources exhausted: 2 of 2 actions per run are used"
    log.add(Abort(intent=first.id), "decider")
    assert log.ask(run).approved is True
    log.start(second)
    log.add(Cancel(intent=second.id), "client")  # it runs: too late to give anything back
    third = log.propose(run)
    assert log.ask(run).approved is False
    log.add(Expiry(intent=third.id), "decider")
    assert log.ask(run).approved is True
    assert log.ask(log.begin_open()).approved is True  # another run has its own


def test_control_gives_back_what_never_started() -> None:
    """A stop or a cancel of a scope gives back its undecided actions, and not those of others."""
    log = Ledger(ResourceVoter(actions=2, per="log"))
    one, two = log.begin_open("one"), log.begin_open("two")
    log.propose(one, agent="one")
    log.propose(two, agent="two")
    assert log.ask(two, agent="two").approved is False
    log.add(Control(verb="stop", scope="agent:one"), "operator")
    assert log.ask(two, agent="two").approved is True
    log.propose(two, agent="two")
    log.add(Cancel(scope=f"run:{two}"), "client")
    log.propose(log.begin_open("three"), agent="three")
    assert log.ask(two, agent="two").approved is True


@pytest.mark.parametrize(
    ("per", "allowed"), [("log", [False] * 3), ("agent", [False, False, True]), ("tool", [False, True, False])]
)
def test_whose_budget(per: Any, allowed: list[bool]) -> None:
    """A budget is counted per log, agent, run or tool."""
    log = Ledger(ResourceVoter([Budget(what="actions", most=1, per=per)]))
    run, other = log.begin_open(), log.begin_open("other")
    log.propose(run)
    asked = [log.ask(run), log.ask(run, "send"), log.ask(other, agent="other")]
    assert [vote.approved for vote in asked] == allowed


def test_globs_and_answers() -> None:
    """A budget concerns the tools and agents that it names; a run can always answer."""
    log = Ledger(ResourceVoter([Budget(what="actions", most=0, tool="pay*", agent="o*")]))
    run = log.begin_open()
    assert log.ask(run, "pay_bill").approved is False
    assert log.ask(run, "look").approved is True
    assert log.ask(run, "pay_bill", agent="else").approved is True
    assert Ledger(ResourceVoter(actions=0)).ask(run, "answer").approved is True


def test_a_sum_of_money() -> None:
    """Amounts add up; what is no amount, or would give something back, is refused."""
    log = Ledger(ResourceVoter([Budget(what="sum", argument="order.amount", most=100)]))
    run = log.begin_open()
    log.propose(run, arguments={"order": {"amount": 70}})
    assert log.ask(run, arguments={"order": {"amount": 30}}).approved is True
    over = log.ask(run, arguments={"order": {"amount": 30.5}})
    assert over.approved is False and over.hint == "At most 30 are left."
    for wrong in (-1, "1", True, float("nan"), float("inf"), None):
        assert log.ask(run, arguments={"order": {"amount": wrong}}).approved is False, wrong
    odd = log.propose(run, arguments={"order": "?"})  # another policy let it through
    assert "is not known" in log.ask(run, arguments={"order": {"amount": 1}}).reason
    log.add(Abort(intent=odd.id), "decider")
    assert log.ask(run, arguments={"order": {"amount": 1}}).approved is True


def test_rates() -> None:
    """Within a window only the latest uses count; the hint says when to come again, and that is no stubbornness."""
    log = Ledger(ResourceVoter([Budget(what="actions", most=2, window_s=10)]))
    run = log.begin_open()
    for time_ms in (1_000, 4_000):
        intent = Intent(run=run, agent="ops", tool="pay", deadline_ms=1)
        log.add(intent, "driver", "ops", time_ms=time_ms)
    vote = log.ask(run, now_ms=5_000)
    assert (vote.approved, vote.hint, vote.code) == (False, "Try again in 6 s.", NOT_NOW)
    assert log.ask(run, now_ms=11_000).approved is True


def test_concurrency() -> None:
    """What is open counts until it is settled, also what is in doubt."""
    log = Ledger(ResourceVoter(concurrent=1))
    run = log.begin_open()
    action = log.propose(run)
    log.start(action)
    assert log.ask(run).code == NOT_NOW
    incarnation = action.attempts[-1].incarnation
    assert incarnation
    doubt = Result(intent=action.id, error=Failure(kind="timeout", message="?"))
    log.memory = log.voter.observe(log.memory, log.add(doubt, "executor"))
    assert log.ask(run).approved is False
    log.memory = log.voter.observe(
        log.memory, log.add(Recovery(intent=action.id, attempt=1, settlement="happened"), "recoverer")
    )
    assert log.ask(run).approved is True


def test_tokens_and_money() -> None:
    """Models' use counts, the voters' own too; without a price a budget of money cannot be kept."""
    voter = ResourceVoter(tokens=100, usd=1)
    log = Ledger(voter)
    run = log.begin_open()
    log.add(Inference(run=run, turn=1, usage=Usage(input_tokens=50, output_tokens=10, cost_usd=0.5)), "driver")
    assert log.ask(run).approved is True
    action = log.propose(run)
    judged = Vote(
        approved=True, voter="v", intent=action.id, usage=Usage(input_tokens=40, output_tokens=1, cost_usd=0.1)
    )
    entry = log.add(judged, "voter", "v")
    log.memory = voter.observe(log.memory, msgspec.structs.replace(entry, run=run, agent="ops"))
    assert log.ask(run).reason == "resources exhausted: 101 of 100 tokens per run are used"
    other = log.begin_open()
    log.add(Inference(run=other, turn=1, usage=Usage(input_tokens=1, output_tokens=1)), "driver")
    assert "is not known" in log.ask(other).reason


def test_wall_time() -> None:
    """Seconds count from the run's start, by the times in the log."""
    log = Ledger(ResourceVoter(seconds=60))
    run = log.begin_open()
    assert log.ask(run, now_ms=50_000).approved is True
    assert log.ask(run, now_ms=70_000).approved is False


def test_a_memory_from_a_checkpoint_goes_on() -> None:
    """A memory that went through JSON counts on; the action itself, if it is in there, does not count against it."""
    voter = ResourceVoter(actions=1)
    log = Ledger(voter)
    run = log.begin_open()
    action = log.propose(run)
    log.memory = msgspec.json.decode(msgspec.json.encode(log.memory))
    entry = msgspec.structs.replace(
        log_entry(action.intent, position=action.id, memory=log.memory), timestamp=log.record
    )
    assert voter.check(entry).approved is True
    assert log.ask(run).approved is False
    assert voter.accepts(log.memory)
    assert not ResourceVoter(actions=2).accepts(log.memory)


def test_scopes() -> None:
    """The scope of the votes covers everything that they depend on, and no more than it has to."""
    for budgets, scope in (
        ([("log", "*")], "log"),
        ([("agent", "*")], "agent"),
        ([("run", "*")], "run"),
        ([("run", "*"), ("agent", "*")], "agent"),
        ([("log", "pay")], "tool"),
        ([("log", "pay*")], "log"),
        ([("tool", "pay*")], "tool"),
        ([("tool", "*"), ("run", "*")], "log"),
    ):
        voter = ResourceVoter([Budget(what="actions", most=1, per=per, tool=one) for per, one in budgets])  # type: ignore[arg-type]
        assert voter.scope == scope, budgets
    assert ResourceVoter(tokens=1).scope == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"what": "actions", "most": -1},
        {"what": "actions", "most": float("nan")},
        {"what": "acts", "most": 1},
        {"what": "actions", "most": 1, "pre": "run"},
        {"what": "seconds", "most": 1, "window_s": 1},
        {"what": "actions", "most": 20_000, "window_s": 1},
        {"what": "tokens", "most": 1, "per": "tool"},
        {"what": "sum", "most": 1},
        {"what": "actions", "most": 1, "argument": "x"},
        {"what": "actions", "most": 1, "tool": ""},
        {"what": "actions"},
    ],
    ids=str,
)
def test_unusable_budgets_are_refused(wrong: dict[str, Any]) -> None:
    """A budget that can't be kept is refused when the voter is made."""
    with pytest.raises(SpecError):
        ResourceVoter([wrong])


def test_a_voter_that_stops_nothing_is_refused() -> None:
    """No budget and no head-room is a mistake, not a voter."""
    with pytest.raises(SpecError, match="could stop nothing"):
        ResourceVoter()


# --- head-room ------------------------------


@pytest.mark.parametrize("psutil", [True, False])
def test_measures(psutil: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With psutil and without it the kernel's figures are there, and plausible."""
    if not psutil:
        monkeypatch.setattr(headroom, "_psutil", lambda: None)
    assert (headroom.memory_free_mb() or 0) > 1
    assert 1 < (headroom.process_mb() or 0) < 100_000
    assert headroom.processes() is not None
    assert (headroom.disk_free_mb(str(tmp_path / "not" / "there")) or 0) > 0


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("memory_free_mb", {"memory_free_mb": 1e9}),
        ("disk_free_mb", {"disk_free_mb": 1e12}),
        ("process_mb", {"process_mb": 0.001}),
    ],
)
def test_head_room(measure: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room rejects for now; room that cannot be measured rejects too."""
    voter = ResourceVoter(**options)
    assert not voter.resources_available()
    vote = Ledger(voter).ask(1)
    assert vote.approved is False and vote.code == NOT_NOW
    monkeypatch.setattr(headroom, measure, lambda *_: None)
    assert "cannot be measured" in Ledger(voter).ask(1).reason


def test_room_enough() -> None:
    """Where there is room it approves."""
    voter = ResourceVoter(memory_free_mb=0.001, disk_free_mb=0.001, process_mb=1e9, processes=10**9)
    assert voter.resources_available()


# --- over a real log ------------------------------


def _payer(effects: list[str], who: str) -> Any:
    @tool(effect="irreversible", name="pay")
    async def pay(item: str) -> str:
        """Pay for an item."""
        effects.append(f"{who} {item}")
        return "paid"

    return pay


async def _race(url: str, placement: Any, rounds: int = 4) -> list[str]:
    effects: list[str] = []

    def agent(who: str) -> LogActAgent:
        voter = ResourceVoter(actions=3, per="log")
        voter.placement = placement
        script = [call("pay", item=str(turn)) for turn in range(rounds)]
        return LogActAgent(
            who,
            log=open_log(url),
            voters=[voter],
            model=ScriptedModel([*script, say("done")]),
            tools=[_payer(effects, who)],
        )

    both = [agent("one"), agent("two")]
    await asyncio.gather(*(each.run("pay") for each in both))
    for each in both:
        await each.log.close()
    return effects


@pytest.mark.parametrize("placement", ["inline", "async"])
def test_two_agents_race_for_the_last_unit(placement: str, tmp_path: Path) -> None:
    """Two agents with connections of their own to one SQLite file never spend more than the log's budget."""
    for number in range(3):
        effects = asyncio.run(_race(f"sqlite:///{tmp_path}/{number}.db", placement))
        assert len(effects) == 3, effects


def test_a_restart_does_not_reset(tmp_path: Path) -> None:
    """What an earlier process spent stays spent, also where a checkpoint lies between."""
    effects: list[str] = []
    url = f"sqlite:///{tmp_path}/one.db"

    async def life(task: str, most: int) -> str:
        voter = ResourceVoter(actions=most, per="agent")
        model = ScriptedModel([call("pay", item=task), say("done")])
        agent = LogActAgent(
            "ops", log=open_log(url), voters=[voter], model=model, tools=[_payer(effects, "ops")], checkpoint_every=5
        )
        answer = await agent.run(task)
        await agent.log.close()
        return answer.text

    for task in ("a", "b", "c", "d"):
        asyncio.run(life(task, 2))
    assert effects == ["ops a", "ops b"]
    asyncio.run(life("e", 3))  # another budget: the memory in the checkpoint does not fit, so it is folded anew
    asyncio.run(life("f", 3))
    assert effects == ["ops a", "ops b", "ops e"]
