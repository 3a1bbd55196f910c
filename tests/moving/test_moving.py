"""A log moves: same id, same positions, one writable segment at any time, and nobody who uses it has to stop."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logact import LogActAgent, ScriptedModel, open_log, tool
from logact.entry import Input, NewEntry, Notice, Payload, Run
from logact.errors import ConditionFailed, KeyConflict, LogActError, LogSealed, LogUnavailable, UsageError
from logact.logs.base import Condition, Filter, SharedLog, where
from logact.logs.segments import Chain
from logact.models import call, say
from logact.runtime.moving import move
from logact.runtime.tail import Tail
from logact.testing.faults import FaultyEngine, Plan
from logact.tools import Tool


def url(directory: Path, name: str) -> str:
    return f"sqlite:///{directory / name}.db"


async def fold_of(log: SharedLog) -> tuple[int, str, str]:
    """Where the fold of a log ends, its digest, and what is wrong with it."""
    tail = Tail(log, from_checkpoint=False)
    state = await tail.start()
    return state.position, state.chain, state.broken


async def numbers(log: SharedLog) -> list[int]:
    return [entry.position async for entry in log.read()]


@pytest.mark.parametrize("copy", [False, True], ids=["stays", "copied"])
async def test_positions_and_digest_go_on_from_either_url(tmp_path: Path, copy: bool) -> None:
    """The id, every position and the digest of the whole are the same from the old address and from the new one."""
    one, two = url(tmp_path, "one"), url(tmp_path, "two")
    async with open_log(one) as log:
        before = [(await log.append(Notice(code="a", message=str(n)), name="me")).position for n in range(5)]
        moved = await move(log, two, copy=copy)
        after = [(await log.append(Notice(code="b", message=str(n)), name="me")).position for n in range(3)]
        assert moved.position == 6000 and before + after == [1000, 2000, 3000, 4000, 5000, 7000, 8000, 9000]
        folded = await fold_of(log)
    for address in (one, two):
        async with open_log(address) as log:
            assert log.log_id == moved.log and await fold_of(log) == folded and not folded[2]
            assert (await numbers(log))[:9] == [n * 1000 for n in range(1, 10)]
            assert (await log.append(Notice(code="c", message="more"))).position > folded[0]
            folded = await fold_of(log)


async def test_a_copy_needs_nothing_of_the_old_file(tmp_path: Path) -> None:
    """With ``copy`` the old file can go: entries, blobs and checkpoints are all in the new one."""
    one, two = url(tmp_path, "one"), url(tmp_path, "two")
    async with open_log(one) as log:
        agent = LogActAgent(
            "ops", log, [lambda entry: True], model=_script(3), tools=[_plain([])], checkpoint_every=5
        )
        await agent.run("go")
        blob = await log.put_blob(b"x" * 1000)
        moved = await move(log, two, copy=True)
    assert moved.copied == moved.position // 1000 - 1
    for file in tmp_path.glob("one.db*"):
        file.unlink()
    async with open_log(two) as log:
        assert not (await fold_of(log))[2]
        again = Tail(log)
        await again.start()
        assert again.checkpoint is not None and again.records_read < moved.position // 1000
        with pytest.raises(LogActError):
            await log.get_blob(blob)  # no entry names it, so it is not taken along


def _plain(done: list[int]) -> Tool:
    @tool(effect="irreversible")
    async def work(n: int) -> str:
        """Do it."""
        done.append(n)
        return "ok"

    return work


def _script(calls: int) -> ScriptedModel:
    return ScriptedModel([*(call("work", n=n) for n in range(calls)), say("done")])


@pytest.mark.parametrize("copy", [False, True], ids=["stays", "copied"])
async def test_agents_go_on_through_two_moves(tmp_path: Path, copy: bool) -> None:
    """An agent that runs while its log moves twice ends as if nothing had happened, and does everything once."""
    done: list[int] = []
    places = [url(tmp_path, name) for name in ("one", "two", "three")]

    @tool(effect="irreversible")
    async def work(n: int) -> str:
        """Do it, and move the log away meanwhile."""
        done.append(n)
        if n in (1, 3):
            async with open_log(places[0]) as other:
                await move(other, places[1 if n == 1 else 2], copy=copy)
        return "ok"

    async with open_log(places[0]) as log, open_log(places[0]) as reader:
        follower = Tail(reader)
        await follower.start()
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follower.follow())
            agent = LogActAgent("ops", log, [lambda entry: True], model=_script(6), tools=[work])
            answer = await agent.run("go")
            assert await follower.until(lambda state: state.position >= log.hint(), 20)
            following.cancel()
        assert answer.ok and done == list(range(6))
        assert isinstance(reader.engine, Chain) and follower.state.runs[answer.run].status == "finished"
        assert follower.state.chain == (await fold_of(log))[1]


async def test_an_append_of_unknown_fate_is_written_once_across_the_seal(tmp_path: Path) -> None:
    """A record whose acknowledgement was lost, and whose log moved before the repeat, is found where it is."""
    one = url(tmp_path, "one")
    async with open_log(one) as log:
        faulty = FaultyEngine(log.engine)
        faulty.log_id = log.log_id
        log.engine = faulty
        writer = log.writer()
        await writer.append([_entry("first")])
        faulty.change(Plan(script=("committed_then_error", "unavailable")))
        with pytest.raises(LogActError):
            await writer.append([_entry("second")])
        faulty.change(Plan())
        async with open_log(one) as other:
            await move(other, url(tmp_path, "two"))
        await writer.append([_entry("third")])
        told = [entry.payload.message async for entry in log.read() if isinstance(entry.payload, Notice)]
        assert told == ["first", "second", "third"] and not (await fold_of(log))[2]


def _entry(message: str) -> NewEntry:
    return NewEntry(payload=Notice(code="n", message=message), role="operator", name="op")


async def test_two_moves_at_once_have_one_winner(tmp_path: Path) -> None:
    """Of two moves to different places the first seal wins; the other is told, and there is one writable log."""
    one = url(tmp_path, "one")
    async with open_log(one) as log:
        await log.append(Notice(code="a", message="m"))
    async with open_log(one) as first, open_log(one) as second:
        came = await asyncio.gather(
            move(first, url(tmp_path, "two")), move(second, url(tmp_path, "three")), return_exceptions=True
        )
    lost = [one for one in came if isinstance(one, BaseException)]
    assert len(lost) == 1 and isinstance(lost[0], UsageError)
    winner = "two" if not isinstance(came[0], BaseException) else "three"
    loser = "three" if winner == "two" else "two"
    async with open_log(one) as log:
        await log.append(Notice(code="b", message="m"))
        assert log.engine.info().url.endswith(f"{winner}.db")
    with pytest.raises(LogSealed, match="prepared for a move that has not happened"):
        await open_log(url(tmp_path, loser)).open()


async def test_a_target_that_holds_another_log_is_refused(tmp_path: Path) -> None:
    """Nothing is sealed where the target is not empty, is the log itself, or cannot be found again."""
    one, two = url(tmp_path, "one"), url(tmp_path, "two")
    async with open_log(two) as other:
        await other.append(Notice(code="theirs", message="m"))
    async with open_log(one) as log:
        await log.append(Notice(code="a", message="m"))
        for target in (two, one, "memory:"):
            with pytest.raises(UsageError):
                await move(log, target)
        await log.append(Notice(code="b", message="m"))
        assert len(await numbers(log)) == 2


async def test_a_segment_that_is_gone_is_said(tmp_path: Path) -> None:
    """Where the next segment is missing or is another log, nobody goes on as if the old one were all there is."""
    one, two = url(tmp_path, "one"), url(tmp_path, "two")
    async with open_log(one) as log:
        await log.append(Notice(code="a", message="m"))
        await move(log, two)
    for file in tmp_path.glob("two.db*"):
        file.unlink()
    with pytest.raises(LogUnavailable, match="what is there now is not it"):
        await open_log(one).open()


@pytest.mark.parametrize("seed", range(12))
async def test_a_moving_log_answers_like_one_that_stays(tmp_path: Path, seed: int) -> None:
    """Random appends with keys and conditions, reads with filters and moves: the answers are those of one log."""
    dice = random.Random(seed)
    moves = 0
    async with open_log(url(tmp_path, "0")) as moving, open_log("memory:") as still:
        pens = [(moving.writer(), still.writer()) for _ in range(3)]
        for _ in range(60):
            deed = dice.random()
            if deed < 0.07 and moves < 4:
                moves += 1
                async with open_log(url(tmp_path, "0")) as operator:
                    await move(operator, url(tmp_path, str(moves)), copy=dice.random() < 0.4)
                await still.writer().append([_entry("moved")])  # where the other has its seal
            elif deed < 0.8:
                answers: list[tuple[int | str, bool]] = []
                payload = dice.choice(
                    [Notice(code="n", message="m"), Run(agent="a"), Input(run=dice.randrange(9) * 1000)]
                )
                unless = dice.choice([None, where(kinds=["Run"]), where(runs=[dice.randrange(60) * 1000])])
                after = dice.randrange(80) * 1000
                condition = Condition(after, unless) if dice.random() < 0.5 else None
                key = dice.choice(["", "", "k1", "k2"])
                pair = dice.choice(pens)
                for pen in pair:
                    try:
                        done = await pen.append([_as_client(payload)], key=key, condition=condition)
                        answers.append((done.position, done.fresh))
                    except (ConditionFailed, KeyConflict) as error:
                        answers.append((error.code, False))
                assert answers[0] == answers[1], f"seed {seed}: {payload} {key} {condition}"
            else:
                kinds = where(kinds=["Notice", "Seal"])
                matching = dice.choice([kinds, where(kinds=["Run"]), where(runs=[dice.randrange(60) * 1000])])
                after = dice.randrange(30) * 1000
                found = [
                    [one.position async for one in log.read(after, matching=matching)] for log in (moving, still)
                ]
                assert found[0] == found[1], f"seed {seed}: {matching}"
        assert await moving.tail() == await still.tail()


def _as_client(payload: Payload) -> NewEntry:
    return NewEntry(payload=payload, role="client", name="me")


MOVER = """
import asyncio, sys
from logact import open_log
from logact.runtime.moving import move
async def main():
    async with open_log(sys.argv[1]) as log:
        await move(log, sys.argv[2], copy=sys.argv[3] == "copied")
asyncio.run(main())
"""


@pytest.mark.parametrize("copy", ["stays", "copied"])
@pytest.mark.parametrize("point", ["move:prepared", "move:sealed", "move:copied"])
async def test_a_move_that_is_killed_leaves_one_writable_log(tmp_path: Path, point: str, copy: str) -> None:
    """kill -9 at each step: either address leads to the same log, whole and writable, and a new try ends the move."""
    one, two = url(tmp_path, "one"), url(tmp_path, "two")
    async with open_log(one) as log:
        for n in range(20):
            await log.append(Notice(code="a", message=str(n)))
    environment = {**os.environ, "LOGACT_CRASH_AT": f"{point}:1"}
    command = [sys.executable, "-c", MOVER, one, two, copy]
    killed = await asyncio.to_thread(subprocess.run, command, env=environment, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    if point == "move:prepared":
        with pytest.raises(LogSealed):
            await open_log(two).open()
    else:
        async with open_log(two) as log:
            assert (await log.append(Notice(code="new", message="m"))).position == 22000
    async with open_log(one) as log:
        await log.append(Notice(code="old", message="m"))
        state = await fold_of(log)
        assert not state[2] and len(await numbers(log)) == (21 if point == "move:prepared" else 23)
        if point == "move:prepared":
            await move(log, two, copy=copy == "copied")
    async with open_log(one) as log, open_log(two) as other:
        assert log.engine.info().url == other.engine.info().url
        assert await numbers(log) == await numbers(other) and await fold_of(log) == await fold_of(other)


async def test_trim_and_erase_reach_every_segment(tmp_path: Path) -> None:
    """Erasing an old entry and trimming past the seam leave a log that still verifies and still leads on."""
    one, two = url(tmp_path, "one"), url(tmp_path, "two")
    async with open_log(one) as log:
        for n in range(6):
            await log.append(Notice(code="a", message=str(n)))
        await move(log, two)
        for n in range(6):
            await log.append(Notice(code="b", message=str(n)))
        await log.erase(3000, "private")
        assert not (await fold_of(log))[2]
        await log.trim(9000)
    async with open_log(one) as log:
        page = await log.engine.read(8, matching=Filter((*where(kinds=["Notice"]).clauses,)))
        assert [stored.record for stored in page.records][:2] == [9, 10]
        with pytest.raises(LogActError):
            await log.engine.read(2)
