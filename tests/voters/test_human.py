"""People in the loop: who may approve, what binds, what comes too late, how they are told, and waiting at no cost."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.core import deciding
from logact.entry import Notice
from logact.errors import SpecError, UsageError, WaitingForApproval
from logact.logs.base import SharedLog
from logact.models import call, say
from logact.runtime.approvals import Approval, approve, deny, pending_in
from logact.runtime.entering import policy_for, policy_from
from logact.voters.base import FunctionVoter
from logact.voters.combine import escalate
from logact.voters.human import ASKED, HumanVoter, pending
from tests.voters import kit
from tests.voters.kit import Script


def both(needed: int = 2) -> Any:
    return policy_for([HumanVoter(approvers=["alice", "bob"], needed=needed)], "")


def test_the_policy_lists_people() -> None:
    """Each approver is a voter of the policy; a group's name in an expression stands for all of it."""
    people = HumanVoter(approvers=["alice", "bob"], needed=2, expires_s=3600)
    rules = FunctionVoter(lambda entry: None, "rules")
    policy = policy_from(escalate("rules", "human"), [rules, people], "ops")
    assert policy is not None
    assert policy.need == {"escalate": ["rules", {"k": 2, "of": ["human:alice", "human:bob"], "veto": True}]}
    assert policy.decide_within_ms == policy.start_within_ms == 3_600_000
    single = policy_for([HumanVoter("boss", approvers=["eve"])], "ops")
    assert single is not None and single.need == {"all": ["boss:eve"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"needed": 2},
        {"approvers": ["a"], "needed": 2},
        {"approvers": ["a", "a"]},
        {"approvers": ["*"]},
        {"approvers": [""]},
        {"needed": 0},
        {"expires_s": 0},
        {"name": "a:b"},
        {"notify": "ftp://x"},
    ],
    ids=str,
)
def test_unusable_groups_are_refused(wrong: dict[str, Any]) -> None:
    """What could never be approved, or never told, is refused."""
    with pytest.raises(SpecError):
        HumanVoter(**wrong)


def test_two_person_rule_in_the_fold() -> None:
    """Two different people in their own names: nobody twice, nobody for another, and in no other role."""
    script = Script()
    action = script.propose(script.begin(both()))
    vote = script.vote
    assert vote(action, "human:alice", kit.approve(), role="client", author="alice") == ""
    assert "voted on action" in vote(action, "human:alice", kit.approve(), role="client", author="alice")
    for role, author in (("client", "alice"), ("client", "mallory"), ("client", "human:bob"), ("voter", "human:bob")):
        assert "may not vote as" in vote(action, "human:bob", kit.approve(), role=role, author=author)
    assert deciding.decide(script.state, action, 0) is None
    (waiting,) = pending(script.state)
    assert waiting.approvers == ("bob",) and waiting.votes == {"human:alice": True}
    assert vote(action, "human:bob", kit.approve(), role="client", author="bob") == ""
    assert deciding.decide(script.state, action, 0) is not None
    assert pending(script.state) == []


def test_anybody_may_where_nobody_is_named() -> None:
    """Without approvers any one client may speak, and only a client."""
    script = Script()
    action = script.propose(script.begin(policy_for([HumanVoter()], "")))
    assert "may not vote as" in script.vote(action, "human:*", kit.approve(), role="voter")
    assert script.vote(action, "human:*", kit.approve(), role="client", author="whoever") == ""


def test_people_are_asked_last() -> None:
    """Under an escalation nothing waits for a person until the rules have abstained."""
    script = Script()
    people = HumanVoter(approvers=["alice"])
    policy = policy_from(escalate("rules", "human"), [FunctionVoter(lambda entry: None, "rules"), people], "")
    action = script.propose(script.begin(policy))
    assert pending(script.state) == []
    script.vote(action, "rules", kit.abstain())
    assert [one.approvers for one in pending(script.state)] == [("alice",)]


# --- with agents and real logs ------------------------------


class Shop:
    """An agent that wants to pay, and the effects of it."""

    def __init__(self, url: str, voter: HumanVoter, script: list[Any] | None = None) -> None:
        self.url = url
        self.voter = voter
        self.effects: list[str] = []
        self.script = script or [call("pay", item="bread"), say("done")]

    def agent(self) -> LogActAgent:
        @tool(effect="irreversible")
        async def pay(item: str) -> str:
            """Pay."""
            self.effects.append(item)
            return "paid"

        return LogActAgent(
            "ops", log=open_log(self.url), voters=[self.voter], model=ScriptedModel(self.script), tools=[pay]
        )

    async def run(self, *, wait: bool = False) -> str:
        agent = self.agent()
        try:
            return (await agent.run("buy bread", wait=wait)).text
        finally:
            await agent.log.close()

    async def speak(self, say: Callable[..., Any], by: str, *, number: int = 0, **more: Any) -> Approval:
        async with open_log(self.url) as log:
            waiting = await pending_in(log)
            found: Approval = await say(log, waiting[number].action, by, **more)
            return found


def shop(tmp_path: Path, **options: Any) -> Shop:
    return Shop(f"sqlite:///{tmp_path}/shop.db", HumanVoter(**{"approvers": ["alice"], **options}))


def answered(found: Approval) -> tuple[bool, str]:
    return found.took_effect, found.status


def test_waiting_survives_restarts(tmp_path: Path) -> None:
    """An agent that waits for a person may end; approved meanwhile, its next life goes on, and asks no model."""
    one = shop(tmp_path, approvers=["alice", "bob"], needed=2)
    for _ in range(2):
        with pytest.raises(WaitingForApproval, match=r"Action \d+ \(pay\) waits for the approval of alice or bob"):
            asyncio.run(one.run())
    assert answered(asyncio.run(one.speak(approve, "alice"))) == (True, "proposed")
    with pytest.raises(WaitingForApproval, match="approval of bob"):
        asyncio.run(one.run())
    assert one.effects == []
    done = asyncio.run(one.speak(approve, "bob", reason="fine"))
    assert answered(done) == (True, "validated") and done.waits_for == ()
    with pytest.raises(WaitingForApproval):  # the answer is an action too, and waits as well
        asyncio.run(one.run())
    assert one.effects == ["bread"]
    asyncio.run(one.speak(approve, "alice"))
    asyncio.run(one.speak(approve, "bob"))
    assert asyncio.run(one.run()) == "done"
    assert one.effects == ["bread"]


def test_an_agent_that_waits_goes_on_by_itself(tmp_path: Path) -> None:
    """With wait=True the agent sleeps until somebody else's approval is in the log."""
    one = shop(tmp_path)

    async def people() -> None:
        for _ in range(2):
            async with open_log(one.url) as log:
                while not (waiting := await pending_in(log)):
                    await asyncio.sleep(0.02)
                await approve(log, waiting[0].action, "alice")

    async def both_at_once() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(people())
            running = group.create_task(one.run(wait=True))
        return running.result()

    assert asyncio.run(both_at_once()) == "done"
    assert one.effects == ["bread"]


def test_one_denial_rejects(tmp_path: Path) -> None:
    """A denial stops the action at once, and its reason goes to the model."""
    one = shop(tmp_path, approvers=["alice", "bob"], needed=1)
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())
    done = asyncio.run(one.speak(deny, "bob", reason="too dear", hint="Buy rolls."))
    assert answered(done) == (True, "rejected")
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())
    assert one.effects == []

    async def told() -> list[Any]:
        async with open_log(one.url) as log:
            return [entry.payload async for entry in log.read() if entry.kind == "Abort"]

    (abort,) = asyncio.run(told())
    assert (abort.reason, abort.hint) == ("human:bob: too dear", "Buy rolls.")


def test_too_late(tmp_path: Path) -> None:
    """After the deadline an approval is refused, and the log says that the action expired."""
    one = shop(tmp_path, expires_s=0.15)
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())

    async def late() -> Approval:
        async with open_log(one.url) as log:
            (waiting,) = await pending_in(log)
            await asyncio.sleep(0.2)
            return await approve(log, waiting.action, "alice")

    done = asyncio.run(late())
    assert answered(done) == (False, "rejected") and "too late" in done.why
    assert one.effects == []


def test_an_approval_in_time_stands(tmp_path: Path) -> None:
    """Approved in time, the action runs although the agent comes back only after the deadline of the decision."""
    one = shop(tmp_path, expires_s=1.0)
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())
    assert answered(asyncio.run(one.speak(approve, "alice"))) == (True, "validated")


def test_who_may_not(tmp_path: Path) -> None:
    """Who is no approver, has spoken already, or looked at other arguments, is told so, and nothing is counted."""
    one = shop(tmp_path, approvers=["alice", "bob"], needed=2)
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())
    with pytest.raises(UsageError, match="does not wait for mallory"):
        asyncio.run(one.speak(approve, "mallory"))
    with pytest.raises(UsageError, match="other arguments"):
        asyncio.run(one.speak(approve, "alice", arguments_digest="x"))
    asyncio.run(one.speak(approve, "alice"))
    with pytest.raises(UsageError, match="spoken about action"):
        asyncio.run(one.speak(approve, "alice"))

    async def nothing() -> None:
        async with open_log(one.url) as log:
            await approve(log, 999_000, "alice")

    with pytest.raises(UsageError, match="no such action"):
        asyncio.run(nothing())


def test_two_people_at_once(tmp_path: Path) -> None:
    """Approvals that race are both counted, once each."""
    one = shop(tmp_path, approvers=["alice", "bob"], needed=2)
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())

    async def race() -> list[Approval]:
        return list(await asyncio.gather(one.speak(approve, "alice"), one.speak(approve, "bob")))

    found = asyncio.run(race())
    assert all(each.took_effect for each in found)
    assert sorted(each.status for each in found)[-1] == "validated"


async def notices(url: str) -> list[Notice]:
    async with open_log(url) as log:
        return [
            entry.payload
            async for entry in log.read()
            if isinstance(entry.payload, Notice) and entry.payload.code == ASKED
        ]


def test_a_command_is_told_once(tmp_path: Path) -> None:
    """The command gets the action as JSON on its standard input, once, also over restarts; no shell is involved."""
    told = tmp_path / "told"
    script = f"import sys, pathlib; pathlib.Path({str(told)!r}).open('a').write(sys.stdin.read() + chr(10))"
    one = shop(tmp_path, notify=[sys.executable, "-c", script])
    for _ in range(2):
        with pytest.raises(WaitingForApproval):
            asyncio.run(one.run())
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert [(line["tool"], line["arguments"], line["approvers"]) for line in lines] == [
        ("pay", {"item": "bread"}, ["alice"])
    ]
    assert len(asyncio.run(notices(one.url))) == 1


def test_a_webhook_is_told(tmp_path: Path) -> None:
    """The webhook gets the action by POST; a redirect is not followed."""
    received: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(307 if self.path == "/moved" else 200)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        for path, failed in (("/hook", False), ("/moved", True)):
            (tmp_path / path[1:]).mkdir()
            one = shop(tmp_path / path[1:], notify=f"http://127.0.0.1:{server.server_port}{path}")
            with pytest.raises(WaitingForApproval):
                asyncio.run(one.run())
            (notice,) = asyncio.run(notices(one.url))
            assert bool(notice.data["failed"]) == failed, notice
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [json.loads(body)["tool"] for body in received] == ["pay", "pay"]


def test_telling_that_fails_is_noted(tmp_path: Path) -> None:
    """A command that is not there stops nothing: the failure is in the log, and the action waits."""
    one = shop(tmp_path, notify="/no/such/command")
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())
    (notice,) = asyncio.run(notices(one.url))
    assert "could not be told" in notice.message


def test_large_arguments_are_shown_in_full(tmp_path: Path) -> None:
    """Arguments that are stored beside the entry are shown to the person, not a blank."""
    one = shop(tmp_path)
    one.script = [call("pay", item="x" * 300_000), say("done")]
    with pytest.raises(WaitingForApproval):
        asyncio.run(one.run())

    async def look(log: SharedLog) -> Any:
        async with log:
            return (await pending_in(log))[0].arguments

    assert asyncio.run(look(open_log(one.url))) == {"item": "x" * 300_000}
