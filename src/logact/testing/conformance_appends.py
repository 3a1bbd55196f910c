"""Conformance: appends, conditions, keys, identities, seal, trim, erase, blobs, at the engine's own face."""

from __future__ import annotations

import asyncio

import msgspec

from logact import codec
from logact.entry import BlobRef, Checkpoint, Intent, NewEntry, Seal, position_of
from logact.errors import (
    BlobMissing,
    ChainConflict,
    ConditionFailed,
    KeyConflict,
    LogActError,
    LogSealed,
    LogTrimmed,
)
from logact.logs.base import Condition, Draft, Filter, where
from logact.testing.conformance_kit import Conformance, Pen, note, numbers_of, read_all, scenario


async def _refused(pen: Pen, draft: Draft, expected: type[LogActError]) -> None:
    """Appending this draft fails definitely with ``expected``, and leaves nothing behind."""
    before = await pen.engine.tail()
    try:
        answer = await pen.engine.append(draft)
    except expected as error:
        assert error.definite, f"{error!r} is not definite"
    else:
        raise AssertionError(f"expected {expected.__name__}, got {answer}")
    assert await pen.engine.tail() == before, "a refused append left something in the log"


class Appends(Conformance):
    """What an append does, and when it must not."""

    @scenario
    async def test_first_record_is_one_and_numbers_rise(self) -> None:
        """The first record's number is 1 or more; each acknowledged append stands behind those before it."""
        async with self.opened() as engine:
            pen = Pen(engine)
            numbers = [await pen.write() for _ in range(20)]
            assert numbers[0] >= 1 and numbers == sorted(set(numbers)), numbers
            assert await numbers_of(engine) == numbers
            assert await engine.tail() == numbers[-1]

    @scenario
    async def test_a_batch_is_one_record(self) -> None:
        """A batch becomes one record, whole, its entries in order."""
        async with self.opened() as engine:
            record = await Pen(engine).write(*(note(str(index)) for index in range(50)))
            (stored,) = await read_all(engine)
            entries = codec.decode_record(stored.body, stored.record)
            assert [entry.position for entry in entries] == [position_of(record, index) for index in range(50)]
            assert [getattr(entry.payload, "message", "") for entry in entries] == [str(index) for index in range(50)]

    @scenario
    async def test_repeating_a_draft_answers_with_its_record(self) -> None:
        """The same draft again gives the same record, not fresh, and writes nothing."""
        async with self.opened() as engine:
            pen, other = Pen(engine), Pen(engine, "other")
            draft = pen.draft()
            first = await pen.send(draft)
            await other.write()
            assert first[1] is True
            for _ in range(3):
                assert await engine.append(draft) == (first[0], False)
            assert len(await read_all(engine)) == 2

    @scenario
    async def test_other_bytes_under_a_used_number_are_a_conflict(self) -> None:
        """A writer's number names one record for ever: other bytes under it are a ChainConflict."""
        async with self.opened() as engine:
            pen = Pen(engine)
            await pen.write()
            await _refused(pen, pen.draft(note("something else"), number=1), ChainConflict)

    @scenario
    async def test_gaps_and_steps_back_are_conflicts(self) -> None:
        """A writer's numbers go 1, 2, 3: a gap or an old number is a ChainConflict."""
        async with self.opened() as engine:
            pen = Pen(engine)
            await _refused(pen, pen.draft(number=2), ChainConflict)
            first = pen.draft()
            await pen.send(first)
            await pen.write()
            await pen.write()
            await _refused(pen, pen.draft(number=5), ChainConflict)
            await _refused(pen, first, ChainConflict)
            assert len(await read_all(engine)) == 3

    @scenario
    async def test_a_writer_that_began_in_another_segment(self) -> None:
        """A writer whose earlier records stand elsewhere begins with any number, once, and then goes on by one."""
        async with self.opened() as engine:
            if not engine.segmented:
                return  # it is never one segment of several
            pen = Pen(engine)
            await _refused(pen, pen.draft(number=7), ChainConflict)
            first = msgspec.structs.replace(pen.draft(number=7), begins=True)
            record, fresh = await engine.append(first)
            assert fresh and await engine.append(first) == (record, False)
            await _refused(pen, msgspec.structs.replace(pen.draft(number=9), begins=True), ChainConflict)
            assert (await engine.append(pen.draft(number=8)))[1]
            assert len(await read_all(engine)) == 2

    @scenario
    async def test_idempotency_key(self) -> None:
        """Under a used key: the same content gives the first record, other content is a KeyConflict."""
        async with self.opened() as engine:
            pen, other = Pen(engine), Pen(engine, "other")
            await pen.write()
            first = await pen.write(note("once"), key="k")
            await pen.write()
            assert await engine.append(pen.draft(note("once"), key="k")) == (first, False)
            assert await engine.append(other.draft(note("once"), key="k", salt=b"other--salts")) == (first, False)
            await _refused(pen, pen.draft(note("twice"), key="k"), KeyConflict)
            assert await pen.write(note("once"), key="another key") > first
            assert len(await read_all(engine)) == 4

    @scenario
    async def test_a_keyed_repeat_uses_no_number(self) -> None:
        """A draft that was answered from its key is not in the log: its writer's number is still free."""
        async with self.opened() as engine:
            pen, other = Pen(engine), Pen(engine, "other")
            await pen.write(note("once"), key="k")
            await engine.append(other.draft(note("once"), key="k"))
            assert await other.write(note("its first")) == await engine.tail()

    @scenario
    async def test_condition_on_the_tail(self) -> None:
        """``unless=None`` holds only while the named record is the last one."""
        async with self.opened() as engine:
            pen = Pen(engine)
            first = await pen.write(condition=Condition(0))
            await _refused(pen, pen.draft(condition=Condition(0)), ConditionFailed)
            second = await pen.write(condition=Condition(position_of(first)))
            await _refused(pen, pen.draft(condition=Condition(position_of(first))), ConditionFailed)
            assert await pen.write(condition=Condition(position_of(second))) > second

    @scenario
    async def test_condition_on_a_filter(self) -> None:
        """Only what matches the filter after the position stands in the way, by each field of a clause."""
        async with self.opened() as engine:
            pen = Pen(engine)
            start = await pen.write()
            at = await pen.write(
                NewEntry(
                    payload=Intent(run=4000, agent="ann", tool="mail", inference=-1),
                    role="driver",
                    name="d",
                )
            )
            hits = (
                where(kinds=["Intent"]),
                where(agents=["ann"]),
                where(tools=["mail", "other"]),
                where(roles=["driver"]),
                where(runs=[4000]),
                where(actions=[position_of(at)]),
                Filter((*where(kinds=["Vote"]).clauses, *where(agents=["ann"]).clauses)),
                where(kinds=["Intent"], agents=["ann"], tools=["mail"]),
            )
            misses = (
                where(kinds=["Vote"]),
                where(agents=["bob"]),
                where(tools=["ail"]),
                where(roles=["voter"]),
                where(runs=[5000]),
                where(actions=[position_of(start)]),
                where(kinds=["Intent"], agents=["bob"]),
                Filter(()),
            )
            for unless in hits:
                await _refused(pen, pen.draft(condition=Condition(position_of(start), unless)), ConditionFailed)
            for unless in misses:
                await pen.write(condition=Condition(position_of(start), unless))
            for unless in hits:
                await pen.write(condition=Condition(position_of(at), unless))

    @scenario
    async def test_a_refused_draft_uses_no_number(self) -> None:
        """After ConditionFailed the writer's number and the key are still free for other bytes."""
        async with self.opened() as engine:
            pen = Pen(engine)
            await pen.write()
            await _refused(pen, pen.draft(note("no"), key="k", condition=Condition(0)), ConditionFailed)
            await pen.write(note("yes"), key="k")

    @scenario
    async def test_checks_come_in_order(self) -> None:
        """Identity before key, key before seal, seal before condition."""
        async with self.opened() as engine:
            pen, other = Pen(engine), Pen(engine, "other")
            kept = pen.draft(note("once"), key="k")
            record, _ = await pen.send(kept)
            impossible = Condition(0)
            await _refused(pen, pen.draft(note("x"), key="k", number=7), ChainConflict)
            await _refused(other, other.draft(note("x"), key="k", condition=impossible), KeyConflict)
            assert await engine.append(other.draft(note("once"), key="k", condition=impossible)) == (record, False)
            await other.write(Seal())
            assert await engine.append(kept) == (record, False)
            assert await engine.append(other.draft(note("once"), key="k")) == (record, False)
            await _refused(other, other.draft(note("x"), key="k"), KeyConflict)
            await _refused(other, other.draft(note("x"), condition=impossible), LogSealed)

    @scenario
    async def test_of_concurrent_conditional_appends_one_wins(self) -> None:
        """Twenty writers append on the same condition at once: one succeeds, nineteen get ConditionFailed."""
        async with self.opened() as engine:
            for unless in (None, where(kinds=["Notice"])):
                start = Condition(position_of(await engine.tail()), unless)
                pens = [Pen(engine, f"pen {unless is None} {index}") for index in range(20)]
                answers = await asyncio.gather(
                    *(engine.append(pen.draft(condition=start)) for pen in pens), return_exceptions=True
                )
                assert sum(isinstance(answer, tuple) for answer in answers) == 1, answers
                assert sum(isinstance(answer, ConditionFailed) for answer in answers) == 19, answers

    @scenario
    async def test_neighbours_in_a_group_commit(self) -> None:
        """Appends that come together succeed or fail each for itself."""
        async with self.opened() as engine:
            setup = Pen(engine, "setup")
            await setup.write(note("once"), key="k")
            good = [Pen(engine, f"good {index}") for index in range(10)]
            drafts: list[tuple[Draft, type[LogActError] | None]] = []
            for index, pen in enumerate(good):
                bad = Pen(engine, f"bad {index}")
                drafts.append((pen.draft(), None))
                drafts.append((bad.draft(number=3), ChainConflict))
                drafts.append((bad.draft(note("other"), key="k"), KeyConflict))
                drafts.append((bad.draft(condition=Condition(0)), ConditionFailed))
            answers = await asyncio.gather(*(engine.append(draft) for draft, _ in drafts), return_exceptions=True)
            for answer, (_, expected) in zip(answers, drafts, strict=True):
                if expected is None:
                    assert isinstance(answer, tuple) and answer[1] is True, answer
                else:
                    assert isinstance(answer, expected), (answer, expected)
            assert len(await read_all(engine)) == 11

    @scenario
    async def test_concurrent_repeats_of_one_draft_write_once(self) -> None:
        """The same draft sent five times at once is one record; one answer is fresh."""
        async with self.opened() as engine:
            draft = Pen(engine).draft()
            answers = await asyncio.gather(*(engine.append(draft) for _ in range(5)))
            assert sorted(fresh for _, fresh in answers) == [False] * 4 + [True]
            assert len({record for record, _ in answers}) == 1
            assert len(await read_all(engine)) == 1

    @scenario
    async def test_seal(self) -> None:
        """After a Seal entry nothing new is appended, by anyone, even after reopening; reads go on."""
        async with self.opened() as engine:
            pen = Pen(engine)
            await pen.write()
            await pen.write(Seal(next="memory:next"))
            await _refused(pen, pen.draft(), LogSealed)
            assert len(await read_all(engine)) == 2
            if self.durable:
                pen.engine = await self.reopen(engine)
                await _refused(pen, pen.draft(), LogSealed)
                await pen.engine.close()

    @scenario
    async def test_trim(self) -> None:
        """Below the first kept record reads raise LogTrimmed; the tail, numbers, keys and identities stay."""
        async with self.opened() as engine:
            pen = Pen(engine)
            records = [await pen.write(note(str(index)), key=f"k{index}") for index in range(10)]
            await engine.trim(records[4])
            await engine.trim(records[2])  # monotone: this one is behind
            for after in (-1, 0, records[2]):
                try:
                    page = await engine.read(after)
                except LogTrimmed as error:
                    assert error.definite
                else:
                    raise AssertionError(f"reading after {after} gave {page}")
            page = await engine.read(records[3])
            assert [stored.record for stored in page.records] == records[4:]
            assert await engine.tail() == records[-1]
            other = Pen(engine, "other")
            assert await engine.append(other.draft(note("0"), key="k0")) == (records[0], False)
            await _refused(other, other.draft(note("x"), key="k0"), KeyConflict)
            await _refused(pen, pen.draft(condition=Condition(position_of(records[0]), Filter(()))), ConditionFailed)
            await engine.trim(records[-1] + 1000)  # no further than the tail
            assert await engine.tail() == records[-1]
            assert (await engine.read(records[-1])).records == ()
            last = pen.draft(number=10)
            try:
                await engine.append(last)
            except ChainConflict:
                pass
            else:
                raise AssertionError("a trimmed record's number was given again")
            assert await pen.write() > records[-1]

    @scenario
    async def test_erase(self) -> None:
        """An erased payload is gone, its neighbours stay, and the record still verifies."""
        async with self.opened() as engine:
            pen = Pen(engine)
            record = await pen.write(note("one"), note("a secret"), note("three"))
            (before,) = await read_all(engine)
            await engine.erase(record, 1)
            (after,) = await read_all(engine)
            assert b"a secret" in before.body and b"a secret" not in after.body
            assert codec.check_record(after.body) == codec.check_record(before.body)
            kinds = [type(entry.payload).__name__ for entry in codec.decode_record(after.body, record)]
            assert kinds == ["Notice", "ErasedPayload", "Notice"]
            assert await pen.write() > record

    @scenario
    async def test_a_repeat_after_an_erasure_is_still_a_repeat(self) -> None:
        """Erasing a payload does not make its draft look like another one."""
        async with self.opened() as engine:
            pen = Pen(engine)
            draft = pen.draft(note("a secret"))
            record, _ = await pen.send(draft)
            await engine.erase(record, 0)
            assert await engine.append(draft) == (record, False)

    @scenario
    async def test_blobs(self) -> None:
        """Blobs come back byte for byte; storing one again is harmless; an unknown one is BlobMissing."""
        async with self.opened() as engine:
            blobs = [b"", b"\x00\xff" * 10, bytes(range(256)) * 4000]
            for data in [*blobs, *blobs]:
                await engine.put_blob(codec.digest(data), data)
            for data in blobs:
                assert await engine.get_blob(codec.digest(data)) == data
            try:
                await engine.get_blob(codec.digest(b"never stored"))
            except BlobMissing as error:
                assert error.definite
            else:
                raise AssertionError("a blob that was never stored was found")
            assert await engine.tail() == 0

    @scenario
    async def test_a_record_brings_its_blobs(self) -> None:
        """The blobs of a draft are there when its record is."""
        async with self.opened() as engine:
            data = b"attached" * 1000
            await Pen(engine).write(blobs=((codec.digest(data), data), (codec.digest(b"2"), b"2")))
            again = await self.reopen(engine) if self.durable else engine
            assert await again.get_blob(codec.digest(data)) == data
            assert await again.get_blob(codec.digest(b"2")) == b"2"
            await again.close()

    @scenario
    async def test_last_checkpoint(self) -> None:
        """The last record with a checkpoint is found; 0 where there is none, or none that was kept."""
        async with self.opened() as engine:
            pen = Pen(engine)
            assert await engine.last_checkpoint() == 0
            checkpoint = Checkpoint(upto=1, chain="c", state=BlobRef(digest="d", size=1))
            await pen.write()
            first = await pen.write(note("x"), checkpoint)
            assert await engine.last_checkpoint() == first
            await pen.write()
            second = await pen.write(checkpoint)
            last = await pen.write()
            await engine.trim(second)
            assert await engine.last_checkpoint() == second
            await engine.trim(last)
            assert await engine.last_checkpoint() == 0

    @scenario
    async def test_a_cancelled_append_leaves_the_engine_usable(self) -> None:
        """Appends cancelled at any moment are in the log whole or not at all, and hinder nobody."""
        async with self.opened() as engine:
            sure: list[str] = []
            for turn in range(30):
                pens = [Pen(engine, f"{turn}-{index}") for index in range(4)]
                drafts = [pen.draft(note(pen.name)) for pen in pens]
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(engine.append(draft)) for draft in drafts]
                    for _ in range(turn % 5):
                        await asyncio.sleep(0)
                    tasks[turn % 4].cancel()
                    if turn % 7 == 0:
                        tasks[(turn + 1) % 4].cancel()
                for task, draft in zip(tasks, drafts, strict=True):
                    record, _ = await engine.append(draft)  # its fate is open if it was cancelled: repeat it
                    if not task.cancelled():
                        assert task.result()[0] == record
                    sure.append(draft.writer)
            bodies = [codec.decode_record(stored.body, stored.record) for stored in await read_all(engine)]
            assert sorted(getattr(entries[0].payload, "message", "") for entries in bodies) == sorted(sure)
