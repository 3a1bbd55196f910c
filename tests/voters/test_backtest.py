"""Shadow mode and backtests: trying a policy on live traffic and on the past, before anybody depends on it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.cli.main import main
from logact.core.views import LogEntry
from logact.entry import Entry, Finding, NewEntry, Vote
from logact.introspection.approvals import approvals_of, draft_rule, drafts
from logact.introspection.backtest import REGRETTED, Backtest, backtest
from logact.models import call, say
from logact.runtime.approvals import approve, deny, pending_in
from logact.runtime.entering import policy_from
from logact.voters.base import FunctionVoter, Voter
from logact.voters.combine import all_of, case, cases, open_to_all
from logact.voters.human import HumanVoter
from logact.voters.resources import ResourceVoter
from tests.voters import kit


class Slow(Voter):
    """Judges by itself, after a while."""

    placement = "async"

    def __init__(self, name: str, approved: bool | None) -> None:
        super().__init__(name)
        self.approved = approved
        self.asked = 0

    async def check(self, entry: LogEntry) -> Vote:
        self.asked += 1
        await asyncio.sleep(0.02)
        return Vote(approved=self.approved, reason=f"{entry.action.tool} {entry.action.arguments.get('item', '')}")


def small(entry: LogEntry) -> Vote:
    return Vote(approved=entry.action.arguments.get("amount", 0) <= 10, reason="10 are enough")


def shop(url: str, voters: list[Any], policy: Any = None, amounts: tuple[int, ...] = (5, 20, 7)) -> LogActAgent:
    @tool(effect="irreversible")
    async def pay(amount: int) -> str:
        """Pay."""
        if amount == 7:
            raise ValueError("declined")
        await asyncio.sleep(0.01)
        return "paid"

    script = [call("pay", amount=amount) for amount in amounts]
    return LogActAgent(
        "ops",
        log=open_log(url),
        voters=voters,
        policy=policy,
        model=ScriptedModel([*script, say("done")]),
        tools=[pay],
    )


async def entries(url: str, kind: str) -> list[Entry]:
    async with open_log(url) as log:
        return [entry async for entry in log.read() if entry.kind == kind]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


def run(agent: LogActAgent, **more: Any) -> str:
    async def inside() -> str:
        try:
            return (await agent.run("shop", **more)).text
        finally:
            await asyncio.sleep(0.1)
            await agent.log.close()

    return asyncio.run(inside())


# --- shadow ------------------------------


def test_shadow_votes_are_logged_and_do_not_count(url: str) -> None:
    """A voter in shadow that rejects everything stops nothing, and every judgement of it stands in the log.

    Slow ones too, although the actions are decided long before they answer.
    """
    fast = FunctionVoter(lambda entry: False, "fast")
    fast.shadow = True
    slow = Slow("slow", False)
    slow.shadow = True
    assert run(shop(url, [FunctionVoter(lambda entry: True, "open"), fast, slow])) == "done"
    votes = [entry.payload for entry in asyncio.run(entries(url, "Vote"))]
    shadows = [(vote.voter, vote.approved) for vote in votes if isinstance(vote, Vote) and vote.shadow]
    assert shadows.count(("fast", False)) == 4
    assert shadows.count(("slow", False)) == 4
    assert len(asyncio.run(entries(url, "Abort"))) == 0
    assert slow.asked == 4
    with pytest.raises(Exception, match="finished before"):
        run(shop(url, [FunctionVoter(lambda entry: True, "open"), fast, slow]))
    assert slow.asked == 4  # the past is not judged again at every start


def test_what_a_shadow_would_have_changed(url: str) -> None:
    """The votes of a voter in shadow are enough to see what it would have done, without asking it again."""
    slow = Slow("slow", False)
    slow.shadow = True
    run(shop(url, [FunctionVoter(lambda entry: True, "open"), slow], amounts=(5,)))

    async def look() -> Backtest:
        async with open_log(url) as log:
            policy = policy_from("slow", [Recorded("slow")], "")
            assert policy is not None
            return await backtest([log], [Recorded("slow")], policy, answers=False)

    found = asyncio.run(look())
    assert [(one.before, one.after, one.reason) for one in found.judged] == [("approved", "reject", "pay ")]


class Recorded(Voter):
    """A voter that cannot judge the past."""

    def for_replay(self) -> None:
        return None

    def config(self) -> dict[str, Any]:
        return {}


# --- backtests ------------------------------


def test_backtest(url: str) -> None:
    """Each action is judged again with the memory of its moment; how it really ended stands beside it."""
    run(shop(url, [], open_to_all("a test")))

    async def look() -> Backtest:
        async with open_log(url) as log:
            voters = [FunctionVoter(small, "small"), ResourceVoter(actions=2)]
            policy = policy_from(all_of("small", "resources"), voters, "")
            assert policy is not None
            return await backtest([log], voters, policy)

    found = asyncio.run(look())
    told = [(one.tool, one.after, one.ended) for one in found.judged]
    assert told == [
        ("pay", "approve", "fine"),
        ("pay", "reject", "fine"),
        ("pay", "reject", "in doubt" if told[2][2] == "in doubt" else "failed"),
        ("answer", "approve", "fine"),
    ]
    assert [one.by for one in found.changes] == ["small", "resources"]
    assert sum(found.table().values()) == 4


def test_who_cannot_be_asked(url: str) -> None:
    """Where people would decide and have said nothing, the action would wait; a rejected one may pass now."""
    run(shop(url, [FunctionVoter(small, "small")], amounts=(5, 20)))

    async def look() -> Backtest:
        async with open_log(url) as log:
            voters = [HumanVoter(approvers=["alice"])]
            policy = policy_from(cases(case("human", tool="pay"), otherwise=open_to_all("answers")), voters, "")
            assert policy is not None
            return await backtest([log], voters, policy)

    found = asyncio.run(look())
    assert [(one.before, one.after, one.ended) for one in found.judged] == [
        ("approved", "wait", "fine"),
        ("rejected", "wait", "did not run"),
        ("approved", "approve", "fine"),
    ]
    assert found.judged[0].waits_for == ("human:alice",)


def test_regrets_are_shown(url: str) -> None:
    """An action that an operator found to be a mistake is told as regretted."""
    run(shop(url, [], open_to_all("a test"), amounts=(5,)))

    async def look() -> Backtest:
        async with open_log(url) as log:
            (first,) = [
                entry.position async for entry in log.read() if entry.kind == "Intent" and entry.tool == "pay"
            ]
            found = Finding(code=REGRETTED, message="wrong account", cites=(first,))
            await log.append(NewEntry(payload=found, role="operator", name="alice"))
            voters = [FunctionVoter(small, "small")]
            policy = policy_from("small", voters, "")
            assert policy is not None
            return await backtest([log], voters, policy, answers=False)

    (one,) = asyncio.run(look()).judged
    assert one.ended == "regretted"


POLICY = """
[[voters]]
use = "rules"
rules = [{name = "small", decision = "deny", tool = "pay", arguments = {amount = {above = 10}}}]
"""


def test_the_command(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`logact backtest` shows changes and a table, changes nothing, and fails on request."""
    run(shop(url, [], open_to_all("a test"), amounts=(5, 20)))
    file = tmp_path / "new.toml"
    file.write_text(POLICY)
    before = asyncio.run(entries(url, "Vote"))
    assert main(["backtest", "--policy", str(file), url]) == 0
    told = capsys.readouterr().out
    assert "pay: approved, would be rejected; it ended: fine" in told and "1 change in 3 actions." in told
    assert main(["backtest", "--policy", str(file), "--fail-on-change", "--json", url]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["change", "summary"] and lines[1]["changes"] == 1
    assert asyncio.run(entries(url, "Vote")) == before
    file.write_text('[[voters]]\nuse = "rules"\nrules = [{name = "x", tol = "pay"}]\n')
    assert main(["backtest", "--policy", str(file), url]) == 2


def test_rules_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`logact rules check` and `explain` say what rules would do."""
    file = tmp_path / "rules.toml"
    file.write_text(
        '[[rules]]\nname = "small"\ndecision = "deny"\ntool = "pay"\n'
        'arguments = {amount = {above = 10}}\nhint = "Less."\n'
    )
    assert main(["rules", "check", str(file)]) == 0
    assert "1 rule, 0 problems." in capsys.readouterr().out
    assert main(["rules", "explain", str(file), "pay", '{"amount": 20}']) == 0
    told = capsys.readouterr().out
    assert "deny" in told and "small" in told and "Less." in told
    assert main(["rules", "explain", str(file), "pay", "20"]) == 2
    file.write_text('[[rules]]\nname = "small"\ntol = "pay"\n')
    assert main(["rules", "check", str(file)]) == 2


# --- approvals on the command line ------------------------------


def waiting(url: str, amounts: tuple[int, ...]) -> None:
    from logact.errors import WaitingForApproval

    voters = [HumanVoter(approvers=["alice"])]
    need = cases(case("human", tool="pay"), otherwise=open_to_all("answers"))
    with pytest.raises(WaitingForApproval):
        run(shop(url, voters, need, amounts), wait=False)


def test_approving_on_the_command_line(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What waits is shown with all of its arguments; approve and deny say what came of them, by exit code too."""
    waiting(url, (5, 20))
    assert main(["approve", url]) == 0
    told = capsys.readouterr().out
    assert "pay, irreversible" in told and "alice" in told and "amount" in told
    assert main(["approve", url, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert main(["approve", url, str(one["action"]), "--as", "mallory"]) == 2
    assert main(["approve", url, str(one["action"]), "--as", "alice", "--digest", "other"]) == 2
    assert main(["approve", url, str(one["action"]), "--as", "alice", "--digest", one["arguments_digest"]]) == 0
    assert "validated" in capsys.readouterr().out
    assert main(["deny", url, str(one["action"]), "--as", "alice"]) == 1
    waiting(url, (5, 20))
    capsys.readouterr()
    main(["approve", url, "--json"])
    two = json.loads(capsys.readouterr().out)
    rules = tmp_path / "rules.toml"
    assert main(["deny", url, str(two["action"]), "--as", "alice", "--reason", "no", "--rule", str(rules)]) == 0
    assert "rejected" in capsys.readouterr().out
    assert main(["rules", "explain", str(rules), "pay", '{"amount": 20}']) == 0
    assert "deny" in capsys.readouterr().out
    assert main(["approvals", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["person"], found["approvals"], found["denials"], found["quick"]) == ("alice", 1, 1, 2)
    assert main(["approvals", url]) == 0


def test_what_is_always_approved_is_drafted(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Five yeses to one tool, and no no, make a draft of what was equal each time, backtested on the log."""

    async def people(count: int, say: Any) -> None:
        for _ in range(count):
            async with open_log(url) as log:
                while not (found := await pending_in(log)):
                    await asyncio.sleep(0.01)
                await say(log, found[0].action, "alice", "fine")

    async def both(amounts: tuple[int, ...], says: list[Any]) -> None:
        need = cases(case("human", tool="pay"), otherwise=open_to_all("answers"))
        agent = shop(url, [HumanVoter(approvers=["alice"])], need, amounts)
        async with asyncio.TaskGroup() as group:
            group.create_task(agent.run("shop", new=True))
            for each in says:
                await people(1, each)
        await agent.log.close()

    async def offered() -> list[Any]:
        async with open_log(url) as log:
            told, (quality,) = await approvals_of(log)
            assert quality.streak >= 5
            return drafts(told)

    asyncio.run(both((5,) * 5, [approve] * 5))
    ((rule, actions),) = asyncio.run(offered())
    assert rule["tool"] == "pay" and rule["arguments"] == {"amount": 5} and len(actions) == 5
    assert main(["approvals", "--drafts", url]) == 0
    assert "# backtest: it would have let 5 actions pass (5 fine)" in capsys.readouterr().out
    asyncio.run(both((20,), [deny]))
    assert asyncio.run(offered()) == []


def test_drafts_leave_out_what_is_no_plain_value() -> None:
    """A drafted rule compares plain arguments only."""
    script = kit.Script()
    action = script.propose(script.begin(kit.all_open()), arguments={"a": 1, "b": [1], "c": "", "d": "x"})
    assert draft_rule(action, "deny")["arguments"] == {"a": 1, "d": "x"}


def test_a_run_that_does_not_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`logact run --no-wait` ends with exit code 8 and says for whom it waits; approved, it goes on."""
    (tmp_path / "kit.py").write_text(
        "from logact import tool\n"
        "@tool(effect='irreversible')\n"
        "def pay(amount: int) -> str:\n"
        "    '''Pay.'''\n"
        "    return 'paid'\n"
    )
    (tmp_path / "script.json").write_text('[{"calls": [{"call": "pay", "arguments": {"amount": 5}}]}, "done"]')
    spec = tmp_path / "logact.toml"
    spec.write_text(
        '[agent]\nname = "ops"\nmodel = "scripted:script.json"\n[[tools]]\nuse = "kit.py:pay"\n'
        '[[voters]]\nuse = "human"\noptions = {approvers = ["alice"]}\n'
        '[policy]\nneed = {cases = [{tool = "pay", need = "human"}], else = {open = "answers"}}\n'
    )
    assert main(["run", str(spec), "shop", "--no-wait"]) == 8
    assert "waits for the approval of alice" in capsys.readouterr().err
    assert main(["approve", str(spec), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert main(["approve", str(spec), str(one["action"]), "--as", "alice"]) == 0
    assert main(["run", str(spec), "shop", "--no-wait"]) == 0
    assert "done" in capsys.readouterr().out
