"""The tail and what appends behind it: one fold that is up to date, woken in time, taken up from checkpoints."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import Voter
from logact.core.views import LogEntry
from logact.entry import (
    Abort,
    BlobRef,
    Checkpoint,
    Commit,
    Entry,
    Expiry,
    Input,
    Intent,
    NewEntry,
    Notice,
    Policy,
    Result,
    Run,
    Vote,
    own,
)
from logact.errors import AppendUnknown, BlobMissing, ConditionFailed, LogCorrupt, LogTrimmed, ReadFailed
from logact.logs.base import SharedLog, where
from logact.logs.memory import MemoryEngine
from logact.models import ScriptedModel
from logact.models.scripted import ScriptItem, call
from logact.runtime import tail as tail_module
from logact.runtime.checkpointer import Checkpointer
from logact.runtime.decider import Decider
from logact.runtime.host import Host, shifted
from logact.runtime.tail import Tail, dump_state
from logact.runtime.voter_host import VoterHost
from logact.testing.faults import FaultyEngine, Plan
from tests.runtime.kit import Counter, Stage, agent, entries, folded, memory_log, opened, payloads, run


def note(text: str = "n") -> Notice:
    return Notice(code="test", message=text)


async def say(log: SharedLog, count: int = 1) -> None:
    """Some notices."""
    for place in range(count):
        await log.append(note(str(place)), role="client", name="me")


def test_start_reads_to_the_present() -> None:
    """After ``start`` the fold holds everything that was acknowledged before."""

    async def main() -> None:
        log = memory_log()
        await say(log, 700)
        state = await Tail(log).start()
        assert state.counts == {"Notice": 700}

    run(main())


def test_follow_wakes_whoever_waits() -> None:
    """``until`` returns when an entry makes its condition true, whoever wrote it."""

    async def main() -> None:
        log = memory_log()
        tail = Tail(log)
        await tail.start()
        follower = asyncio.ensure_future(tail.follow())
        waits = [asyncio.ensure_future(tail.until(lambda s, n=n: s.counts.get("Notice", 0) >= n)) for n in (1, 3, 2)]  # type: ignore[misc]
        await asyncio.sleep(0)
        await say(log, 3)
        assert await asyncio.gather(*waits) == [True, True, True]
        assert await tail.until(lambda state: True)
        assert not await tail.until(lambda state: False, 0.01)
        tail_wake = asyncio.ensure_future(tail.until(lambda state: outside))
        await asyncio.sleep(0)
        outside.append(1)
        tail.wake()
        assert await tail_wake
        follower.cancel()

    outside: list[int] = []
    run(main())


def test_no_wake_up_is_lost() -> None:
    """Whatever comes between a question and the waiting for it is seen."""

    async def main() -> None:
        log = memory_log()
        tail = Tail(log)
        await tail.start()
        follower = asyncio.ensure_future(tail.follow())
        for count in range(1, 200):
            await say(log)
            assert await tail.until(lambda state, n=count: state.counts.get("Notice", 0) >= n, 5)  # type: ignore[misc]
        follower.cancel()

    run(main())


def test_a_waiter_that_was_cancelled_is_forgotten() -> None:
    """Waiters that gave up don't pile up."""

    async def main() -> None:
        log = memory_log()
        tail = Tail(log)
        await tail.start()
        for _ in range(50):
            await tail.until(lambda state: False, 0.0)
        await say(log)
        await tail.catch_up()
        assert not any(tail._fold._waiting.values())

    run(main())


def test_a_failing_read_is_repeated_and_never_taken_for_an_absence() -> None:
    """A follower goes on after read errors; while they last it says so."""

    async def main() -> None:
        engine = FaultyEngine(MemoryEngine())
        log = SharedLog(engine)
        tail = Tail(log)
        await tail.start()
        engine.change(Plan(read_error=0.4, seed=3))
        follower = asyncio.ensure_future(tail.follow())
        await say(log, 3)
        assert await tail.until(lambda state: state.counts.get("Notice") == 3, 10)
        follower.cancel()
        assert engine.fired["read_error"] > 0

    run(main())


def test_a_read_error_that_lasts_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its limit a follower gives the error to whoever relies on it."""
    monkeypatch.setattr(tail_module, "READ_RETRY_S_MAX", 0.0)

    async def main() -> None:
        engine = FaultyEngine(MemoryEngine())
        log = SharedLog(engine)
        tail = Tail(log)
        await tail.start()
        await say(log)
        engine.change(Plan(read_error=1.0))
        with pytest.raises(ReadFailed, match="too long"):
            await tail.follow()

    run(main())


def test_an_observer_that_raises_sees_nothing_twice() -> None:
    """After an observer's error the reading goes on behind the entry, and others see each entry once."""

    async def main() -> None:
        log = memory_log()
        tail = Tail(log)
        await tail.start()
        seen: list[int] = []
        tail.observe(lambda state, entry: seen.append(entry.position))

        def once(state: Any, entry: Entry) -> None:
            if entry.position == 1001:
                raise ValueError("observer")

        tail.observe(once)
        await log.append(note("a"), note("b"), note("c"), role="client", name="me")
        with pytest.raises(ValueError, match="observer"):
            await tail.catch_up()
        await tail.catch_up()
        assert seen == [1000, 1001, 1002]
        tail.unobserve(once)

    run(main())


def test_damage_stops_acting_not_reading() -> None:
    """A record whose digests don't fit is named; what comes after it is still read."""

    async def main() -> None:
        engine = MemoryEngine()
        log = SharedLog(engine)
        await say(log, 2)
        body, heads = engine.records[0]
        engine.records[0] = (body.replace(b'"message":"0"', b'"message":"9"'), heads)
        state = await Tail(log).start()
        assert state.broken.startswith("position 1000: Entry 0")
        assert state.counts == {"Notice": 2}

    run(main())


# --- checkpoints ---


class Counts(Voter):
    """Remembers how many intents there were."""

    def initial(self) -> Any:
        return 0

    def observe(self, memory: Any, entry: Entry) -> Any:
        return memory + (entry.kind == "Intent")

    def check(self, entry: LogEntry) -> Vote:
        return Vote(approved=True)


async def with_checkpoint(log: SharedLog) -> tuple[int, VoterHost]:
    """A log with a run, a checkpoint after it, and a little more; where the checkpoint stands."""
    await agent(log, [call("look", at="x"), "done"], tools=Counter().tools()).run("go")
    host = Host(log, "ann")
    voters = VoterHost(host, [Counts("counts")])
    await host.tail.start()
    at = await Checkpointer(host, every=1, voters=voters).write()
    await say(log, 3)
    return at, voters


def test_a_restart_reads_what_came_after_the_checkpoint() -> None:
    """The fold from a checkpoint is the fold from the beginning, and voters get their memories back."""

    async def main() -> None:
        log = memory_log()
        _, before = await with_checkpoint(log)
        host = Host(log, "ann")
        voters = VoterHost(host, [Counts("counts")])
        state = await host.tail.start()
        assert host.tail.records_read == 4
        assert host.tail.checkpoint is not None
        assert voters.memories == before.memories == {"counts": 2}
        whole = Tail(log, from_checkpoint=False)
        assert dump_state(await whole.start()) == dump_state(state)
        assert whole.records_read > 8

    run(main())


def test_a_voter_that_joined_later_reads_the_history_itself() -> None:
    """A checkpoint without a voter's memory is not used by whoever hosts that voter."""

    async def main() -> None:
        log = memory_log()
        await with_checkpoint(log)
        host = Host(log, "ann")
        voters = VoterHost(host, [Counts("new")])
        await host.tail.start()
        assert host.tail.checkpoint is None
        assert voters.memories == {"new": 2}

    run(main())


@pytest.mark.parametrize("damage", ["blob gone", "blob changed", "other chain", "beyond itself", "forged"])
def test_a_damaged_checkpoint_costs_time_never_correctness(damage: str) -> None:
    """A checkpoint that is not what it says is passed over; the fold is the same."""

    async def main() -> None:
        engine = MemoryEngine()
        log = SharedLog(engine)
        await with_checkpoint(log)
        (real,) = await payloads(log, Checkpoint)
        if damage.startswith("blob"):
            engine._blobs[real.state.digest] = b"{}"
            if damage == "blob gone":
                del engine._blobs[real.state.digest]
        else:
            state = await Tail(log).start()
            upto = 10**9 if damage == "beyond itself" else state.position
            state.position = upto
            chain = "nonsense" if damage == "other chain" else state.chain
            data = dump_state(state)
            ref = BlobRef(digest=await log.put_blob(data), size=len(data))
            role: Any = "client" if damage == "forged" else "checkpointer"
            await log.append(Checkpoint(upto=upto, chain=chain, state=ref), role=role, name="x")
        fold = await Tail(log).start()
        whole = await Tail(log, from_checkpoint=False).start()
        assert dump_state(fold) == dump_state(whole)

    run(main())


def test_a_trimmed_log_starts_from_its_checkpoint() -> None:
    """After a trim the fold comes from the checkpoint; without one that can be read it says so."""

    async def main() -> None:
        engine = MemoryEngine()
        log = SharedLog(engine)
        at, _ = await with_checkpoint(log)
        whole = dump_state(await Tail(log, from_checkpoint=False).start())
        await log.trim(at)
        assert dump_state(await Tail(log).start()) == whole
        await log.append(Checkpoint(upto=1, chain="", state=BlobRef(digest="x", size=1)), role="client", name="eve")
        state = await Tail(log).start()
        assert state.checkpoint == at, "an entry that only calls itself a checkpoint does not cut the log off"
        engine._blobs.clear()
        with pytest.raises(LogTrimmed, match="its checkpoint cannot be read"):
            await Tail(log).start()

    run(main())


def test_checkpoints_are_written_every_so_often() -> None:
    """A long run leaves checkpoints behind; how many follows from the number of entries."""

    async def main() -> None:
        log = memory_log()
        script: list[ScriptItem] = [*[call("look", at=str(place)) for place in range(10)], "done"]
        model = ScriptedModel(script, delay_s=0.001)
        await agent(log, model, tools=Counter().tools(), checkpoint_every=20).run("go")
        written = len(await payloads(log, Checkpoint))
        assert 1 <= written <= 4
        state = await Tail(log).start()
        assert dump_state(state) == dump_state(await Tail(log, from_checkpoint=False).start())

    run(main())


# --- the host ---


def test_what_rides_goes_in_front_and_references_shift() -> None:
    """Riding entries are the first of the next record; the caller gets its own position, references stay right."""

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        host = stage.host
        host.riding.append(host.entry(note("rides"), "client"))
        batch = [
            host.entry(Run(agent="ann"), "client"),
            host.entry(Input(run=own(0), text="x"), "client", run=own(0)),
        ]
        done = await host.append(batch)
        assert done.position == 1001
        kinds = [(entry.kind, entry.run) for entry in await entries(stage.log)]
        assert kinds == [("Notice", 0), ("Run", 0), ("Input", 1001)]
        assert host.state.runs[1001].context == [1002]
        assert host.riding == []

    run(main())


def test_shifted_moves_only_what_is_relative() -> None:
    """Positions of other records stay."""
    entry = NewEntry(payload=Vote(approved=True, intent=own(0), seen=7), role="voter", name="v", causes=(own(1), 5))
    moved = shifted(entry, 2)
    assert isinstance(moved.payload, Vote)
    assert (moved.payload.intent, moved.payload.seen, moved.causes) == (own(2), 7, (own(3), 5))


@pytest.mark.parametrize("error", [ConditionFailed, AppendUnknown])
def test_what_rides_is_not_lost_with_the_record(error: type[Exception]) -> None:
    """After a failed append what rode goes with the next one."""

    async def main() -> None:
        engine = FaultyEngine(MemoryEngine())
        stage = await Stage(SharedLog(engine)).open()
        host = stage.host
        await stage.say(note("before"), role="client")
        host.riding.append(host.entry(note("rides"), "client"))
        if error is ConditionFailed:
            with pytest.raises(ConditionFailed):
                await host.append([host.entry(note("x"), "client")], unless=where(kinds=["Notice"]), after=0)
        else:
            engine.change(Plan(script=("lost",)))
            task = asyncio.ensure_future(host.append([host.entry(note("x"), "client")]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert len(host.riding) == 1
        await host.flush()
        texts = [one.message for one in await payloads(stage.log, Notice)]
        assert "rides" in texts
        state = await folded(stage.log)
        assert state.broken == ""

    run(main())


def test_a_key_is_not_spoiled_by_what_rides() -> None:
    """A repeat under a key is found again whatever rode beside it, and what rides is not lost (it was)."""

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        host = stage.host
        first = await host.append([host.entry(Run(agent="ann"), "client")], key="k")
        host.riding.append(host.entry(note("rides"), "client"))
        again = await host.append([host.entry(Run(agent="ann"), "client")], key="k")
        assert (again.position, again.fresh) == (first.position, False)
        assert [one.message for one in await payloads(stage.log, Notice)] == ["rides"]

    run(main())


def test_a_cancelled_append_leaves_no_gap() -> None:
    """Appends cancelled at any moment leave a chain that fits, and nothing is written twice."""

    async def main() -> None:
        engine = FaultyEngine(MemoryEngine(), Plan(slow=0.5, slow_s_max=0.002, committed_then_error=0.3, seed=5))
        stage = await Stage(SharedLog(engine)).open()
        for place in range(40):
            task = asyncio.ensure_future(stage.say(note(str(place)), role="client"))
            await asyncio.sleep(0.0005 * (place % 4))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        engine.change(Plan())
        await stage.say(note("last"), role="client")
        state = await folded(stage.log)
        texts = [one.message for one in await payloads(stage.log, Notice)]
        assert state.broken == ""
        assert state.ignored_count == 0
        assert len(texts) == len(dict.fromkeys(texts))
        assert texts[-1] == "last"

    run(main())


def test_arguments_that_cannot_be_read_are_corruption() -> None:
    """A blob that is no object is LogCorrupt, a missing one BlobMissing: errors that parts know how to handle."""

    async def main() -> None:
        engine = MemoryEngine()
        stage = await Stage(SharedLog(engine)).open()
        at = await stage.say(Run(agent="ann"), role="client")
        digest = await stage.log.put_blob(b"[1]")
        ref = BlobRef(digest=digest, size=3)
        action = await stage.say(Intent(run=at, agent="ann", tool="t", arguments_blob=ref), role="driver")
        with pytest.raises(LogCorrupt, match="arguments of action"):
            await stage.host.full_intent(stage.host.state.actions[action])
        engine._blobs.clear()
        with pytest.raises(BlobMissing):
            await stage.host.full_intent(stage.host.state.actions[action])

    run(main())


# --- the decider ---


async def proposed(stage: Stage, **more: Any) -> int:
    """An undecided action under a policy that needs a vote."""
    at = await stage.say(Run(agent=stage.host.agent), role="client")
    return await stage.say(Intent(run=at, agent=stage.host.agent, tool="send", **more), role="driver")


def test_a_passed_deadline_is_an_entry() -> None:
    """The decider writes the expiry, which says for whom it waited; the action is rejected then, not before."""

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        from logact.entry import VoterInPolicy

        await stage.say(Policy(version=1, voters={"v": VoterInPolicy()}, need={"all": ["v"]}))
        action = await proposed(stage, deadline_ms=stage.host.env.wall_ms() + 30)
        loop = asyncio.ensure_future(Decider(stage.host).run())
        await stage.host.tail.until(lambda state: state.actions[action].status != "proposed")
        loop.cancel()
        (expiry,) = await payloads(stage.log, Expiry)
        assert expiry.reason == "no decision before the deadline; no vote came from v"

    run(main())


def test_a_decider_does_not_turn_in_circles_for_anothers_deadline() -> None:
    """A deadline that is another decider's to watch is no reason to look every millisecond (it was)."""

    async def main() -> None:
        stage = await Stage(memory_log()).open()
        from logact.entry import VoterInPolicy

        await stage.say(Policy(version=1, voters={"v": VoterInPolicy()}, need={"all": ["v"]}))
        await proposed(stage, deadline_ms=1)
        decider = Decider(stage.host, agents=["bob"])
        assert decider._deadline_ms(stage.host.state) == 0
        assert Decider(stage.host)._deadline_ms(stage.host.state) == 1
        stage.host.state.halted = "x"
        assert Decider(stage.host)._deadline_ms(stage.host.state) == 0
        assert not Decider(stage.host).due(stage.host.state)

    run(main())


def test_many_deciders_decide_once() -> None:
    """However many deciders run, one decision stands in the log."""

    async def main() -> None:
        log = memory_log()
        stages = [await Stage(log).open() for _ in range(4)]
        await stages[0].say(opened())
        actions = [await proposed(stages[0]) for _ in range(5)]
        for stage in stages:
            await stage.host.tail.catch_up()
        await asyncio.gather(*(Decider(stage.host).settle() for stage in stages))
        assert len(await payloads(log, Commit)) == len(actions)
        assert await payloads(log, Abort) == []
        assert await payloads(log, Result) == []

    run(main())
