"""What simulated runs found in the real code, each as a small test of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from logact import env as environment
from logact.agent import LogActAgent
from logact.core.state import Action, State
from logact.core.views import LogEntry
from logact.entry import BlobRef, Checkpoint, Entry, Failure, Input, Intent, NewEntry, Role, Run, Vote, own
from logact.errors import AgentBusy, LogCorrupt, ModelUnavailable
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import ScriptedModel, call
from logact.runtime.assembly import play_driver
from logact.runtime.checkpointer import Checkpointer
from logact.runtime.host import Host
from logact.runtime.recoverer import _reported
from logact.runtime.tail import Tail
from logact.runtime.voter_host import VoterHost
from logact.tools import Tool
from logact.voters.base import Voter


class Yes(Voter):
    """Approves everything, and remembers how many intents it saw."""

    def check(self, entry: LogEntry) -> Vote:
        return Vote(approved=True)

    def initial(self) -> int:
        return 0

    def observe(self, memory: int, entry: Entry) -> int:
        return memory + (entry.kind == "Intent")


async def test_an_agent_may_be_taken_up_again_by_the_process_that_could_not_say_goodbye() -> None:
    """Was refusing for ever (AgentBusy): the holder's process lives, and it is this one.

    While a thread of the earlier life is still at work the refusal is right; once that has ended, it is not.
    """
    engine = MemoryEngine()
    began, goes_on = threading.Event(), threading.Event()

    def put(item: str) -> str:
        began.set()
        goes_on.wait(5)
        return item

    def agent() -> LogActAgent:
        model = ScriptedModel([[call("put", item="a")], "done"])
        tool = Tool(put, effect="idempotent")
        return LogActAgent("ops", log=SharedLog(engine), model=model, tools=[tool], voters=[Yes("yes")])

    first = asyncio.ensure_future(agent().run("task"))
    while not began.is_set():
        await asyncio.sleep(0.001)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(AgentBusy):
        await agent().run("task")
    goes_on.set()
    await asyncio.sleep(0.05)
    assert (await agent().run("task")).text == "done"


def test_a_thread_counts_as_working_until_it_has_ended() -> None:
    """A call that was given up leaves its thread at work; when the thread ends, its incarnation may be over."""
    watch = environment.ThreadWatch()
    assert not watch.working

    def look() -> bool:
        return watch.working

    assert watch.around(look)()
    assert not watch.working


async def test_an_executor_that_reported_that_it_cannot_tell_need_not_be_gone() -> None:
    """Was waiting for ever for a live executor that had written down that it does not know what came of it."""
    intent = Intent(run=1, agent="ops", tool="pay")
    plain = Tool(lambda item: item, name="pay", parameters={"type": "object", "properties": {"item": {}}})
    action = Action(id=1000, intent=intent, status="in_doubt")
    assert not _reported(action, plain), "it was fenced off: nobody said anything"
    action.error = Failure(kind="ambiguous", message="the line went dead")
    assert _reported(action, plain)
    action.error = Failure(kind="timeout", message="too long")
    assert plain.in_thread
    assert not _reported(action, plain), "its thread may still be at work"


async def log_with_a_checkpoint() -> MemoryEngine:
    """A log in which a run of two proposals was finished, then a checkpoint written that holds one voter's memory."""
    engine = MemoryEngine()
    schema = {"type": "object", "properties": {"item": {}}}
    look = Tool(lambda item: item, name="look", parameters=schema, effect="read")
    model = ScriptedModel([[call("look", item="a")], "done"])
    agent = LogActAgent("ops", log=SharedLog(engine), model=model, tools=[look], voters=[Yes("yes")])
    await agent.run("task")
    host = Host(SharedLog(engine), "ops")
    voters = VoterHost(host, [Yes("yes")])
    await host.tail.start()
    await Checkpointer(host, every=1, voters=voters).write()
    return engine


async def test_a_forged_checkpoint_does_not_hide_the_last_real_one() -> None:
    """Was replaying from the beginning, since the last entry that calls itself a checkpoint was none."""
    engine = await log_with_a_checkpoint()
    log = SharedLog(engine)
    real = Tail(log)
    await real.start()
    assert real.checkpoint is not None
    forged = Checkpoint(upto=5000, chain="no", state=BlobRef(digest="none", size=1))
    roles: tuple[Role, ...] = ("driver", "checkpointer")
    for role in roles:
        await log.append(NewEntry(payload=forged, role=role, name="mallory"))
    again = Tail(log)
    await again.start()
    assert again.checkpoint == real.checkpoint
    assert again.records_read == real.records_read + 2
    assert again.records_read < engine.tail_now()


async def test_a_checkpoint_that_lacks_one_voter_leaves_the_others_at_the_beginning() -> None:
    """Was counting twice: the known voter's memory was set back, and then it saw the whole history again."""
    engine = await log_with_a_checkpoint()
    memories = {}
    for voters in ([Yes("yes")], [Yes("yes"), Yes("other")]):
        host = Host(SharedLog(engine), "ops")
        hosted = VoterHost(host, voters)
        await host.tail.start()
        assert (host.tail.checkpoint is None) == (len(voters) == 2)
        memories[len(voters)] = hosted.memories["yes"]
    assert memories[1] == memories[2] > 0


@pytest.mark.parametrize("damage", [False, True])
async def test_what_ends_a_part_is_raised_as_it_is(damage: bool) -> None:
    """Was an exception group, which the command line took for a bug: a model that is away, a damaged log."""
    log = SharedLog(MemoryEngine())
    model = ScriptedModel([ModelUnavailable("the provider is away")])
    agent = LogActAgent("ops", log=log, model=model, voters=[Yes("yes")])
    await log.append(
        NewEntry(payload=Run(agent="ops", title="task"), role="client", name="c", agent="ops"),
        NewEntry(payload=Input(run=own(0), text="task"), role="client", name="c", agent="ops", run=own(0)),
    )

    def observer(state: State, entry: Entry) -> None:
        if damage:
            raise LogCorrupt("a hash does not match")

    with pytest.raises(LogCorrupt if damage else ModelUnavailable):
        await play_driver(log, agent, observers=[observer])
