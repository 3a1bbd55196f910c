"""The voter host: whatever a voter does, there is a vote that its failure policy names, and it says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest

from logact import Vote, Voter
from logact.core.views import LogEntry
from logact.entry import Abort, Commit, Entry, Input, Intent, Policy, Run, VoterInPolicy, own
from logact.models.scripted import call
from logact.runtime.decider import Decider
from logact.runtime.entering import policy_for
from logact.runtime.voter_host import VoterHost
from tests.runtime.kit import Counter, Stage, agent, folded, memory_log, payloads, run, statuses


class Says(Voter):
    """Answers what a function returns or raises."""

    def __init__(self, what: Callable[[LogEntry], Any], name: str = "v", **more: Any) -> None:
        super().__init__(name)
        self.what = what
        for key, value in more.items():
            setattr(self, key, value)

    def check(self, entry: LogEntry) -> Any:
        return self.what(entry)


def raises(_: LogEntry) -> Vote:
    """A voter that crashes."""
    raise RuntimeError("out of order")


async def hangs(_: LogEntry) -> Vote:
    """A voter that never answers."""
    await asyncio.sleep(3600)
    return Vote(approved=True)


def raises_surrogate(_: LogEntry) -> Vote:
    """A voter whose error cannot be written down as it is."""
    raise RuntimeError("\udcff")


def nonsense(answer: Any) -> Callable[[LogEntry], Any]:
    """A voter that answers something else than a vote."""
    return lambda _: answer


async def vote_of(voter: Voter) -> Vote:
    """One voter's vote on one intent."""
    stage = await Stage(memory_log()).open()
    intent = Intent(run=1000, agent="ann", tool="send")
    return await VoterHost(stage.host, [voter]).ask(voter, intent, seen=0)


FAILURES: dict[str, Any] = {
    "raises": raises,
    "hangs": hangs,
    "none": nonsense(None),
    "text": nonsense("yes"),
    "number": nonsense(1),
    "a vote that approves with a text": nonsense(Vote(approved="yes")),  # type: ignore[arg-type]
    "a vote whose reason is no text": nonsense(Vote(approved=True, reason=None)),  # type: ignore[arg-type]
    "a vote with bytes that are no text": raises_surrogate,
    "a vote with a list for a hint": nonsense(Vote(approved=True, hint=["x"])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("on_failure", ["reject", "abstain", "approve"])
@pytest.mark.parametrize("what", FAILURES)
def test_a_failing_voter_votes_as_its_failure_policy_says(
    what: str, on_failure: Literal["reject", "abstain", "approve"]
) -> None:
    """A voter that crashes, hangs or answers nonsense counts as stated (reject, unless stated), and says so."""
    vote = run(vote_of(Says(FAILURES[what], timeout_s=0.02, on_failure=on_failure)))
    assert vote.approved is {"reject": False, "abstain": None, "approve": True}[on_failure]
    assert f"which counts as {on_failure}" in vote.reason


def test_a_failure_closes_by_default() -> None:
    """Without a word about failures, a crash rejects, and what crashed stands in the reason."""
    vote = run(vote_of(Says(raises)))
    assert vote.approved is False
    assert "RuntimeError: out of order" in vote.reason


def test_answers_may_be_plain_or_awaited() -> None:
    """True, False, a Vote, or one of them to be awaited are answers."""

    async def later(_: LogEntry) -> bool:
        return True

    for what, approved in ((lambda _: True, True), (lambda _: False, False), (later, True)):
        assert run(vote_of(Says(what))).approved is approved
    assert run(vote_of(Says(lambda _: Vote(approved=None, reason="no idea")))).approved is None


def test_a_vote_is_bound_and_cut() -> None:
    """The host writes who votes, on which arguments, by what configuration; reasons are cut to a bounded length."""
    voter = Says(lambda _: Vote(approved=True, reason="x" * 10_000, voter="somebody else", intent=99, shadow=True))
    vote = run(vote_of(voter))
    assert (vote.voter, vote.shadow, len(vote.reason)) == ("v", False, 2000)
    assert vote.config


async def life(voters: list[Voter], *, policy: Policy | None = None, tool: str = "send") -> tuple[Counter, Any]:
    """One call of a tool under these voters, by an agent; what ran, and the log."""
    counter, log = Counter(), memory_log()
    more: dict[str, Any] = {"policy": policy} if policy is not None else {}
    one = agent(log, [call(tool, to="x"), "done"], tools=counter.tools(), voters=voters, **more)
    await one.run("go")
    return counter, log


@pytest.mark.parametrize("placement", ["inline", "async"])
@pytest.mark.parametrize("what", ["raises", "hangs", "none", "a vote that approves with a text"])
def test_a_failing_voter_stops_the_action_in_both_forms(what: str, placement: str) -> None:
    """Asked before the intent or from the log: the action is aborted with the reason, nothing runs, and the log does
    not fill with votes that have no effect (it did)."""

    async def main() -> None:
        only_tools = Says(
            lambda entry: True if entry.action.tool == "answer" else FAILURES[what](entry),
            timeout_s=0.05,
            placement=placement,
        )
        counter, log = await life([only_tools])
        assert counter.done == []
        aborts = await payloads(log, Abort)
        assert len(aborts) == 1
        assert "failed" in aborts[0].reason
        assert len(await payloads(log, Vote)) == 2

    run(main())


def test_slow_voters_are_awaited_from_the_log() -> None:
    """A voter that is placed outside votes on what the log proposes, and the action goes on."""

    async def main() -> None:
        counter, log = await life([Says(lambda _: True, placement="async")])
        assert counter.done == ["send x"]
        assert len(await payloads(log, Commit)) == 2

    run(main())


def test_a_shadow_voter_is_heard_and_does_not_count() -> None:
    """A voter in shadow rejects everything, in the log only."""

    async def main() -> None:
        shadow = Says(lambda _: False, "ghost", shadow=True)
        counter, log = await life([Says(lambda _: True), shadow])
        assert counter.done == ["send x"]
        ghosts = [vote for vote in await payloads(log, Vote) if vote.voter == "ghost"]
        assert ghosts
        assert all(vote.shadow and vote.approved is False for vote in ghosts)

    run(main())


class Spender(Voter):
    """Remembers what was proposed, and approves up to three."""

    scope = "agent"

    def initial(self) -> Any:
        return 0

    def observe(self, memory: Any, entry: Entry) -> Any:
        return memory + (entry.kind == "Intent" and entry.tool == "send")

    def check(self, entry: LogEntry) -> Vote:
        return Vote(approved=entry.memory < 3 or entry.action.tool == "answer", reason=f"{entry.memory} before")


def test_a_voter_with_a_memory_judges_by_what_came_before() -> None:
    """The memory is folded from entries, and an intent does not count against itself."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        script = [[call("send", to=str(place)) for place in range(5)], "done"]
        await agent(log, script, tools=counter.tools(), voters=[Spender("budget")]).run("go")
        assert counter.done == ["send 0", "send 1", "send 2"]
        reasons = [vote.reason for vote in await payloads(log, Vote)]
        assert reasons[:5] == ["0 before", "1 before", "2 before", "3 before", "4 before"]

    run(main())


def test_a_voter_that_cannot_take_an_entry_in_fails_and_stops_nobody() -> None:
    """An error in ``observe`` makes that voter's votes fail; the log is read on (it ended every part)."""

    class Fragile(Voter):
        def observe(self, memory: Any, entry: Entry) -> Any:
            raise ValueError("what is this")

        def check(self, entry: LogEntry) -> Vote:
            return Vote(approved=True)

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        voter = Fragile("fragile")
        host = VoterHost(stage.host, [voter])
        await stage.say(Run(agent="ann"), role="client")
        vote = await host.ask(voter, Intent(run=1000, agent="ann", tool="send"), seen=0)
        assert vote.approved is False
        assert "could not take in the entry at 1000: ValueError: what is this" in vote.reason
        assert host.serialised() == {}

    run(main())


def test_a_vote_without_effect_is_not_repeated() -> None:
    """A vote that the fold does not take (the policy wants a person) is written once in a life, not for ever."""

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        voter = Says(lambda _: True, "boss")
        host = VoterHost(stage.host, [voter])
        await stage.say(Policy(version=1, voters={"boss": VoterInPolicy(kind="human")}, need={"all": ["boss"]}))
        at = await stage.say(Run(agent="ann"), Input(run=own(0), text="x"), role="client")
        await stage.say(Intent(run=at, agent="ann", tool="send"), role="driver")
        loops = [asyncio.ensure_future(one) for one in (host.run(), stage.host.tail.follow())]
        await asyncio.sleep(0.1)
        for loop in loops:
            loop.cancel()
        assert len(await payloads(stage.log, Vote)) <= 1

    run(main())


def test_votes_are_asked_once_by_many_hosts() -> None:
    """Two hosts of one voter write one vote that counts."""

    async def main() -> None:
        log = memory_log()
        stages = [await Stage(log).open() for _ in range(2)]
        voter = Says(lambda _: True)
        wanted = policy_for([voter], "ann")
        assert wanted is not None
        await stages[0].say(wanted)
        at = await stages[0].say(Run(agent="ann"), role="client")
        action = await stages[0].say(Intent(run=at, agent="ann", tool="send"), role="driver")
        loops = []
        for stage in stages:
            await stage.host.tail.catch_up()
            parts = (VoterHost(stage.host, [voter]).run(), Decider(stage.host).run(), stage.host.tail.follow())
            loops += [asyncio.ensure_future(one) for one in parts]
        await stages[1].host.tail.until(lambda state: state.actions[action].status == "validated")
        for loop in loops:
            loop.cancel()
        assert len(await payloads(log, Commit)) == 1
        state = await folded(log)
        written, void = len(await payloads(log, Vote)), [one for one in state.ignored if one.kind == "Vote"]
        assert written - len(void) == 1  # who was asked while the other one voted may say so too, in vain
        assert written <= 2

    run(main())


def test_no_voters_means_that_only_reads_pass() -> None:
    """Without voters and without a policy, a read passes; everything else is refused with what to do about it."""

    async def main() -> None:
        counter, log = Counter(), memory_log()
        script = [[call("look", at="x"), call("put", to="x"), call("send", to="x")], "done"]
        await agent(log, script, tools=counter.tools(), voters=[]).run("go")
        assert counter.done == ["look x"]
        assert await statuses(log) == {
            "look": "executed",
            "put": "rejected",
            "send": "rejected",
            "answer": "executed",
        }
        assert all("give the agent voters=[...]" in abort.reason for abort in await payloads(log, Abort))

    run(main())


def test_a_plain_voter_that_hangs_is_given_up() -> None:
    """A plain check that never returns is a failure after its time limit, and stops nothing else (it blocked all)."""
    import threading

    from logact import Action, LogActAgent, open_log, tool
    from logact.voters.base import Voter

    let_go = threading.Event()

    class Stuck(Voter):
        timeout_s = 0.05

        def check(self, entry: Any) -> Any:
            let_go.wait(30)
            return True

    @tool(effect="irreversible")
    async def act(what: str) -> str:
        """Act."""
        return what

    async def work() -> None:
        async with LogActAgent("ops", log=open_log("memory:"), tools=[act], voters=[Stuck("stuck")]) as agent:
            entry = await agent.propose_action(Action(tool="act", arguments={"what": "x"}))
            judged = await agent.validate_action(entry)
            let_go.set()
            assert not judged.approved
            assert "did not answer within" in judged.reason

    asyncio.run(work())
