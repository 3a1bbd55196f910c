"""Conformance: whole logs. Followers, writers in doubt, read errors, reopening, several engines on one log."""

from __future__ import annotations

import asyncio

from logact import codec
from logact.entry import Entry, NewEntry, position_of
from logact.errors import ConditionFailed, LogMissing, ReadFailed
from logact.logs.base import Condition, SharedLog, Writer, where
from logact.testing.conformance_kit import Conformance, Pen, note, numbers_of, read_all, scenario
from logact.testing.faults import Fate, FaultyEngine, Plan


def _entry(message: str) -> NewEntry:
    return NewEntry(payload=note(message), role="client", name="conformance")


def _message(entry: Entry) -> str:
    return str(getattr(entry.payload, "message", ""))


async def _messages(log: SharedLog) -> list[str]:
    return [_message(entry) async for entry in log.read()]


async def _check_chains(log: SharedLog) -> None:
    """Every writer's records are numbered 1, 2, 3 and name each other's hashes."""
    last: dict[str, tuple[int, str]] = {}
    for stored in await read_all(log.engine):
        codec.check_record(stored.body)
        head, record_hash = codec.read_head(stored.body)
        assert (head.number - 1, head.previous) == last.get(head.writer, (0, codec.GENESIS)), head
        last[head.writer] = (head.number, record_hash)


class Logs(Conformance):
    """What everything else relies on."""

    @scenario
    async def test_followers_see_everything_once_and_in_order(self) -> None:
        """Under concurrent writes each follower gets every entry, once, in the order of the log."""
        async with self.log() as log:
            total = 4 * 25
            seen: list[list[int]] = [[], [], []]
            ten = asyncio.Event()

            async def follow(into: list[int], late: bool) -> None:
                if late:
                    await ten.wait()
                async for entry in log.follow():
                    into.append(entry.position)
                    if len(into) == 10:
                        ten.set()
                    if len(into) == total:
                        return

            async def write(index: int) -> None:
                pen = log.writer()
                for turn in range(25):
                    await pen.append([_entry(f"{index} {turn}")])
                    if turn % 5 == 0:
                        await asyncio.sleep(0.001)

            async with asyncio.TaskGroup() as group:
                for place, into in enumerate(seen):
                    group.create_task(follow(into, place == 2))
                for index in range(4):
                    group.create_task(write(index))
            expected = [entry.position async for entry in log.read()]
            assert len(expected) == total
            assert seen == [expected] * 3
            await _check_chains(log)

    @scenario
    async def test_a_filtered_follower_sees_its_matches(self) -> None:
        """A follower with a filter gets the matches, all of them, though most news is not for it."""
        async with self.log() as log:
            found: list[str] = []

            async def follow() -> None:
                async for entry in log.follow(matching=where(agents=["ann"])):
                    found.append(_message(entry))
                    if len(found) == 10:
                        return

            async with asyncio.TaskGroup() as group:
                group.create_task(follow())
                for turn in range(50):
                    agent = "ann" if turn % 5 == 0 else "bob"
                    await log.append(NewEntry(payload=note(str(turn)), role="client", name="x", agent=agent))
            assert found == [str(turn) for turn in range(0, 50, 5)]

    @scenario
    async def test_an_abandoned_follower_harms_nobody(self) -> None:
        """A follower that is cancelled while it waits leaves the log usable for all others."""
        async with self.log() as log:

            async def follow() -> None:
                async for _ in log.follow():
                    pass

            async with asyncio.TaskGroup() as group:
                task = group.create_task(follow())
                await asyncio.sleep(0.01)
                task.cancel()
            await log.append(note("after"))
            assert await _messages(log) == ["after"]

    @scenario
    async def test_a_writer_settles_every_unknown_append(self) -> None:
        """Whatever fate each append meets, a writer's entries land exactly once and in order."""
        fates: tuple[Fate, ...] = ("lost", "committed_then_error", "error_then_committed", "unavailable")
        engine = FaultyEngine(await self.make_engine())
        async with SharedLog(engine) as log:
            for number, fate in enumerate(fates[:3]):
                engine.change(Plan(script=(fate, fate, "fine"), late_operations_max=2, seed=number))
                await log.append(note(fate))
            engine.change(Plan())
            await engine.release()
            assert await _messages(log) == list(fates[:3])
            await _check_chains(log)
            assert all(engine.fired[fate] for fate in fates[:3]), engine.fired

    @scenario
    async def test_a_stormy_log_keeps_its_order(self) -> None:
        """Three writers under random faults: each one's entries are there once, in its own order."""
        engine = FaultyEngine(
            await self.make_engine(),
            Plan(
                lost=0.15, committed_then_error=0.15, error_then_committed=0.15, slow=0.1, slow_s_max=0.001, seed=11
            ),
        )
        async with SharedLog(engine) as log:

            async def write(index: int) -> None:
                pen = log.writer()
                for turn in range(12):
                    await pen.append([_entry(f"{index} {turn}")])

            async with asyncio.TaskGroup() as group:
                for index in range(3):
                    group.create_task(write(index))
            engine.change(Plan())
            await engine.release()
            found = await _messages(log)
            for index in range(3):
                mine = [message for message in found if message.startswith(f"{index} ")]
                assert mine == [f"{index} {turn}" for turn in range(12)], mine
            await _check_chains(log)
            assert engine.fired["lost"] and engine.fired["committed_then_error"], engine.fired

    @scenario
    async def test_a_cancelled_writer_goes_on(self) -> None:
        """A writer whose append was cancelled settles it with the next one; its chain has no gap."""
        async with self.log() as log:
            pen = log.writer()
            for turn in range(20):
                task = asyncio.ensure_future(pen.append([_entry(f"cancelled {turn}")]))
                for _ in range(turn % 6):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await pen.append([_entry(f"sure {turn}")])
            found = await _messages(log)
            assert [message for message in found if message.startswith("sure")] == [f"sure {i}" for i in range(20)]
            assert len(set(found)) == len(found), "an entry was written twice"
            await _check_chains(log)

    @scenario
    async def test_a_read_error_is_never_an_absence(self) -> None:
        """While reads fail, nobody gets an answer; afterwards nothing is missing."""
        engine = FaultyEngine(await self.make_engine())
        async with SharedLog(engine) as log:
            for turn in range(10):
                await log.append(note(str(turn)))
            digest = await log.put_blob(b"blob")
            engine.change(Plan(read_error=1.0))
            for attempt in (log.tail(), log.get(1000), log.get_blob(digest), _messages(log), _first(log)):
                try:
                    answer = await attempt
                except ReadFailed as error:
                    assert error.definite
                else:
                    raise AssertionError(f"a read that failed was answered with {answer!r}")
            assert engine.fired["read_error"] == 5
            engine.change(Plan(read_error=0.4, seed=3))
            got: list[str] = []
            last = 0
            while len(got) < 10:
                try:
                    async for entry in log.read(after=last):
                        got.append(_message(entry))
                        last = entry.position
                except ReadFailed:
                    continue
            assert got == [str(turn) for turn in range(10)]

    @scenario
    async def test_everything_is_there_after_reopening(self) -> None:
        """Records, bytes, numbers, log id, keys and identities are the same in the next life."""
        if not self.durable:
            return
        engine = await self.make_engine()
        await engine.open()
        pen = Pen(engine)
        for turn in range(10):
            await pen.write(note(str(turn)), key=f"k{turn}")
        last = pen.draft(note("last"))
        record, _ = await pen.send(last)
        before, log_id = await read_all(engine), engine.log_id
        await engine.put_blob(codec.digest(b"blob"), b"blob")
        engine = await self.reopen(engine)
        assert engine.log_id == log_id
        assert await read_all(engine) == before
        assert await engine.tail() == record
        assert await engine.append(last) == (record, False)
        other = Pen(engine, "other")
        assert (await engine.append(other.draft(note("3"), key="k3")))[1] is False
        assert await engine.get_blob(codec.digest(b"blob")) == b"blob"
        pen.engine = engine
        assert await pen.write() > record
        await engine.close()

    def test_another_event_loop(self) -> None:
        """An engine that was closed works in a new event loop, followers included."""
        engine = asyncio.run(self.make_engine())

        async def life(name: str) -> int:
            async with SharedLog(engine) as log:
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(engine.wait(await engine.tail(), 30.0))
                    await asyncio.sleep(0.005)
                    await log.append(note(name))
                assert waiting.result() is True
                return len(await _messages(log))

        assert [asyncio.run(life("one")), asyncio.run(life("two"))] == [1, 2]

    @scenario
    async def test_two_engines_on_one_log(self) -> None:
        """A second engine sees the first one's appends, is woken by them, and shares order and conditions."""
        if not self.multi_process:
            return
        async with SharedLog(await self.make_engine()) as one, SharedLog(await self.another(one.engine)) as two:
            assert one.log_id == two.log_id
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(two.engine.wait(0, 30.0))
                await asyncio.sleep(0.01)
                await one.append(note("news"))
            assert waiting.result() is True
            assert await _messages(two) == ["news"]

            async def write(log: SharedLog, name: str) -> None:
                pen = log.writer()
                for turn in range(20):
                    await pen.append([_entry(f"{name} {turn}")])

            async with asyncio.TaskGroup() as group:
                for log, name in ((one, "one"), (two, "two"), (one, "one more")):
                    group.create_task(write(log, name))
            assert await numbers_of(one.engine) == await numbers_of(two.engine)
            assert len(await _messages(one)) == 61
            await _check_chains(two)
            start = Condition(await one.tail())
            answers = await asyncio.gather(
                *(Writer(log).append([_entry("race")], condition=start) for log in (one, two, one, two)),
                return_exceptions=True,
            )
            assert sum(isinstance(answer, ConditionFailed) for answer in answers) == 3, answers

    @scenario
    async def test_opening_makes_a_log_only_where_it_may(self) -> None:
        """With ``create`` off, a log that is not there is an error and stays away; one that is there opens."""
        engine = await self.make_engine()
        engine.create = False
        for _ in range(2):
            try:
                await engine.open()
            except LogMissing:
                continue
            raise AssertionError("an engine with create=False opened a log that was not there")
        engine.create = True
        await engine.open()
        try:
            await Pen(engine).write(note("made"))
            if self.multi_process:
                other = await self.another(engine)
                other.create = False
                await other.open()
                assert (other.log_id, len(await read_all(other))) == (engine.log_id, 1)
                await other.close()
        finally:
            await engine.close()

    @scenario
    async def test_entries_read_the_same_each_time(self) -> None:
        """Positions, times and authors of entries never change between reads; times are set."""
        async with self.log() as log:
            appended = await log.append(note("a"), note("b"), key="k")
            again = await log.append(note("a"), note("b"), key="k")
            assert appended.fresh and not again.fresh and again.position == appended.position
            first = [entry async for entry in log.read()]
            assert first == [entry async for entry in log.read()]
            assert [entry.position for entry in first] == [appended.position, appended.position + 1]
            assert all(entry.time_ms > 0 and entry.log == log.log_id for entry in first)
            assert await log.get(appended.position + 1) == first[1]
            assert await log.tail() == position_of(first[0].position // 1000)

    @scenario
    async def test_a_keyed_repeat_leaves_the_writer_usable(self) -> None:
        """A writer that was answered from a key goes on; so does one whose key was trimmed away."""
        async with self.log() as log:
            one, two = log.writer(), log.writer()
            first = await one.append([_entry("once")], key="k")
            assert (await two.append([_entry("once")], key="k")).position == first.position
            await two.append([_entry("more")])
            await log.trim(await log.tail())
            assert (await two.append([_entry("once")], key="k")).fresh is False
            assert (await two.append([_entry("still here")])).fresh is True


async def _first(log: SharedLog) -> Entry | None:
    async for entry in log.follow():
        return entry
    return None
