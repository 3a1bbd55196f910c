"""Conformance: reads, filters, the tail, waiting, isolation and order, at the engine's own face."""

from __future__ import annotations

import asyncio

from logact import codec
from logact.entry import KINDS, Intent, NewEntry, Seal, Vote, position_of
from logact.logs.base import READ_RECORDS_MAX, Engine, Filter, where
from logact.testing.conformance_kit import Conformance, Pen, note, numbers_of, read_all, sample, scenario


class Reads(Conformance):
    """What a read returns, and that it never leaves anything out."""

    @scenario
    async def test_empty_log(self) -> None:
        """A fresh log has an id and tail 0, and reads as empty, also beyond its end."""
        async with self.opened() as engine:
            assert len(engine.log_id) == 16
            assert await engine.tail() == 0 and engine.hint() == 0
            page = await engine.read(0)
            assert page.records == () and page.upto == 0
            beyond = await engine.read(1000)
            assert beyond.records == () and beyond.upto == 1000

    @scenario
    async def test_bounds(self) -> None:
        """``after`` is exclusive; ``limit`` is honoured and capped; ``upto`` is where the next page begins."""
        async with self.opened() as engine:
            pen = Pen(engine)
            numbers = [await pen.write() for _ in range(10)]
            assert [stored.record for stored in (await engine.read(0)).records] == numbers
            assert [stored.record for stored in (await engine.read(numbers[3])).records] == numbers[4:]
            page = await engine.read(numbers[3], 2)
            assert [stored.record for stored in page.records] == numbers[4:6] and page.upto == numbers[5]
            assert (await engine.read(numbers[-1])).records == ()
            assert (await engine.read(numbers[-1] + 5)).records == ()
            assert (await engine.read(0, 0)).records == ()
            assert await numbers_of(engine, limit=3) == numbers

    @scenario
    async def test_end_means_the_end(self) -> None:
        """A page that says ``end`` left nothing out: whatever its limit and filter, the log ended at its ``upto``."""
        async with self.opened() as engine:
            await _mixture(engine)
            tail = await engine.tail()
            for matching in (None, *_filters()):
                for after in range(tail + 2):
                    for limit in (0, 1, 3, READ_RECORDS_MAX):
                        page = await engine.read(after, limit, matching)
                        assert not page.end or page.upto >= tail, f"after {after}, limit {limit}"

    @scenario
    async def test_pages_are_capped(self) -> None:
        """No page holds more than READ_RECORDS_MAX records; the remainder follows."""
        async with self.opened() as engine:
            pens = [Pen(engine, f"pen {index}") for index in range(READ_RECORDS_MAX + 20)]
            await asyncio.gather(*(engine.append(pen.draft()) for pen in pens))
            page = await engine.read(0, 100_000)
            assert 0 < len(page.records) <= READ_RECORDS_MAX
            assert len(await read_all(engine)) == len(pens)

    @scenario
    async def test_filters_agree_with_their_definition(self) -> None:
        """Every filter finds exactly the records that ``Filter.fits_record`` picks, in pages of any size."""
        async with self.opened() as engine:
            await _mixture(engine)
            everything = await read_all(engine)
            for matching in _filters():
                expected = [
                    stored.record
                    for stored in everything
                    if matching.fits_record(codec.read_head(stored.body)[0].entries, stored.record)
                ]
                for limit in (1, 2, 7, READ_RECORDS_MAX):
                    assert await numbers_of(engine, matching, limit=limit) == expected, (matching, limit)

    @scenario
    async def test_progress_where_nothing_matches(self) -> None:
        """A filter that matches nothing still moves on to the tail."""
        async with self.opened() as engine:
            pen = Pen(engine)
            for _ in range(30):
                await pen.write()
            for matching in (Filter(()), where(kinds=["Vote"])):
                assert await numbers_of(engine, matching, limit=4) == []

    @scenario
    async def test_every_kind_round_trips_and_can_be_filtered(self) -> None:
        """A payload of each kind comes back equal, and its kind's filter finds it alone."""
        async with self.opened() as engine:
            pen = Pen(engine)
            kinds = [*(kind for kind in KINDS if kind != "Seal"), "Seal"]  # the seal ends the log
            numbers = {kind: await pen.write(sample(kind)) for kind in kinds}
            for kind in kinds:
                (stored,) = await read_all(engine, where(kinds=[kind]))
                assert stored.record == numbers[kind]
                (entry,) = codec.decode_record(stored.body, stored.record)
                assert entry.kind == kind and entry.payload == sample(kind), entry
            pair = await numbers_of(engine, where(kinds=["Intent", "Vote"]))
            assert pair == sorted([numbers["Intent"], numbers["Vote"]])

    @scenario
    async def test_bytes_come_back_unchanged(self) -> None:
        """What was appended is read back byte for byte, again and again, with any text in it."""
        async with self.opened() as engine:
            pen = Pen(engine)
            texts = ["", "é\u0000\u2028\U0001f600", '"\\{}', "x" * 200_000]
            drafts = [pen.draft(note(text), number=index + 1) for index, text in enumerate(texts)]
            for draft in drafts:
                await engine.append(draft)
            for _ in range(2):
                assert [stored.body for stored in await read_all(engine)] == [draft.body for draft in drafts]

    @scenario
    async def test_tail_is_monotone_and_covers_what_was_acknowledged(self) -> None:
        """Under concurrent writes the tail never goes back, never passes what was begun, and covers every answer."""
        async with self.opened() as engine:
            begun = done = 0
            running = True

            async def write(pen: Pen) -> None:
                nonlocal begun, done
                for _ in range(15):
                    begun += 1
                    record = await pen.write()
                    done = max(done, record)

            async def watch() -> None:
                last = 0
                while running:
                    acknowledged = done
                    tail = await engine.tail()
                    assert tail >= last and tail >= acknowledged, (tail, last, acknowledged)
                    assert len(await read_all(engine)) <= begun
                    assert engine.hint() <= await engine.tail()
                    last = tail
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                async with asyncio.TaskGroup() as writers:
                    for index in range(4):
                        writers.create_task(write(Pen(engine, f"pen {index}")))
                running = False
            assert len(await read_all(engine)) == 60

    @scenario
    async def test_linearizable(self) -> None:
        """Each append takes effect between its call and its answer, and every read sees one prefix of the log."""
        async with self.opened() as engine:
            history: list[tuple[int, int, int]] = []  # tail before the call, record, tail after the answer
            pages: list[tuple[int, list[int]]] = []  # acknowledged before the read, what it saw
            done = 0

            async def write(pen: Pen) -> None:
                nonlocal done
                for _ in range(10):
                    before = await engine.tail()
                    record = await pen.write()
                    done = max(done, record)
                    history.append((before, record, await engine.tail()))

            async def look() -> None:
                for _ in range(20):
                    acknowledged = done
                    pages.append((acknowledged, [stored.record for stored in (await engine.read(0)).records]))
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                for index in range(3):
                    group.create_task(write(Pen(engine, f"pen {index}")))
                    group.create_task(look())
            final = await numbers_of(engine)
            for before, record, after in history:
                assert before < record <= after, (before, record, after)
            assert sorted(record for _, record, _ in history) == final
            for acknowledged, seen in pages:
                assert seen == final[: len(seen)], "a read saw something that is no prefix of the log"
                assert not acknowledged or (seen and seen[-1] >= acknowledged), (acknowledged, seen)

    @scenario
    async def test_wait(self) -> None:
        """Waiting ends False without news, at once where there is news already, and True when some comes."""
        async with self.opened() as engine:
            assert await engine.wait(0, 0.0) is False
            assert await engine.wait(0, 0.02) is False
            first = await Pen(engine).write()
            assert await engine.wait(0, 0.0) is True
            assert await engine.wait(0, 30.0) is True
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(engine.wait(first, 30.0)) for _ in range(5)]
                await asyncio.sleep(0.01)
                assert not any(task.done() for task in waiting)
                await Pen(engine, "other").write()
            assert [task.result() for task in waiting] == [True] * 5

    @scenario
    async def test_a_cancelled_wait_harms_nobody(self) -> None:
        """One follower goes away; the others are still woken."""
        async with self.opened() as engine:
            async with asyncio.TaskGroup() as group:
                leaving = group.create_task(engine.wait(0, 30.0))
                staying = group.create_task(engine.wait(0, 30.0))
                await asyncio.sleep(0.01)
                leaving.cancel()
                await asyncio.sleep(0)
                await Pen(engine).write()
            assert staying.result() is True

    @scenario
    async def test_logs_are_isolated(self) -> None:
        """Two logs share nothing: not their records, keys, identities, seal or blobs."""
        async with self.opened() as one, self.opened() as two:
            assert one.log_id != two.log_id
            await Pen(one).write(note("in one"), key="k")
            assert await two.tail() == 0 and await read_all(two) == []
            assert (await two.append(Pen(two).draft(note("in two"), key="k")))[1] is True
            pen = Pen(one, "sealer")
            await pen.write(Seal())
            second = Pen(two, "second")
            await second.write()
            assert len(await read_all(one)) == 2 and len(await read_all(two)) == 2

    @scenario
    async def test_info(self) -> None:
        """An engine says what it is, what it survives and how followers are woken."""
        async with self.opened() as engine:
            info = engine.info()
            assert info.engine and info.survives and info.wakes_by and info.url


async def _mixture(engine: Engine) -> None:
    pen = Pen(engine)
    for turn in range(12):
        run = position_of(1 + turn % 3)
        await pen.write(note(f"turn {turn}"))
        await pen.write(
            NewEntry(
                payload=Intent(run=run, agent=f"agent {turn % 2}", tool=f"tool {turn % 4}"),
                role="driver",
                name="driver",
            ),
            NewEntry(payload=Vote(approved=True, intent=-1, voter="v"), role="voter", name="v", run=run),
        )


def _filters() -> list[Filter]:
    found = [
        where(kinds=["Intent"]),
        where(kinds=["Vote", "Notice"]),
        where(agents=["agent 1"]),
        where(tools=["tool 0", "tool 3"]),
        where(roles=["voter"]),
        where(runs=[position_of(2)]),
        where(actions=[position_of(2), position_of(8)]),
        where(kinds=["Intent"], agents=["agent 0"], tools=["tool 1"]),
        where(kinds=["Vote"], roles=["driver"]),
        where(),
        Filter(()),
    ]
    return [*found, Filter((*found[2].clauses, *found[4].clauses))]
