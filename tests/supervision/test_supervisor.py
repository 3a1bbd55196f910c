"""The supervisor with real processes: strategies, limits, hangs, orphans, pauses, stops. Counts, never clocks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logact import open_log
from logact.core import supervising
from logact.entry import Claim, Control, Finding, Heartbeat, Input, NewEntry, Notice, Run, own
from logact.env import REAL
from logact.errors import AgentBusy, Fenced, SupervisionFailed
from logact.runtime.supervision import scope_of, task_of
from tests.supervision.kit import Company, alive, kill

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", ["b"]), ("rest_for_one", ["b", "c"]), ("one_for_all", ["a", "b", "c"])],
)
async def test_strategies(tmp_path: Path, strategy: supervising.Strategy, restarted: list[str]) -> None:
    """When a part dies, exactly the parts that the strategy names get another life; nobody survives the end."""
    company = Company(tmp_path, strategy=strategy)
    parts = [company.part(name) for name in "abc"]

    def come_back() -> bool:
        lives = {name: company.lives(name) for name in "abc"}
        if all(lives.values()) and not (tmp_path / "struck").exists():
            company.mark("struck")
            kill(lives["b"][0], signal.SIGKILL)
        return all(len(lives[name]) == 1 + (name in restarted) for name in "abc")

    await company.run(*parts, until=come_back)
    assert company.problem is None
    assert {name: len(company.lives(name)) for name in "abc"} == {name: 1 + (name in restarted) for name in "abc"}
    assert not any(alive(pid) for name in "abc" for pid in company.lives(name))
    ended = [one.data for one in await company.said(Notice) if one.code == "part_ended"]
    assert [(one["part"], one["code"]) for one in ended if one["counts"]] == [("b", -9)]


async def test_too_many_restarts_are_given_up(tmp_path: Path) -> None:
    """A part that ends again and again is started as often as the limit allows; then all stop, with a finding."""
    company = Company(tmp_path, restarts=3, on_limit="pause")
    await company.run(company.part("good"), company.part("bad", "says"), until=lambda: False)
    assert isinstance(company.problem, SupervisionFailed)
    assert company.problem.exit_code == 1
    assert "the disk is on fire" in str(company.problem), "the last words of the part are in the error"
    assert len(company.lives("bad")) == 1 + 3
    assert not any(alive(pid) for pid in company.lives("good"))
    findings = await company.said(Finding)
    assert [one.code for one in findings] == ["supervision_failed"]
    assert [(one.verb, one.scope) for one in await company.said(Control)] == [("pause", "agent:ops")]


async def test_restarts_count_across_supervisors(tmp_path: Path) -> None:
    """A supervisor that is started again remembers from the log how often parts ended; the limit is not forgotten."""
    log = open_log("memory:")
    first = Company(tmp_path, log, restarts=3)
    await first.run(first.part("bad", "dies"), until=lambda: len(first.events("ended")) >= 2)
    counted = len(first.events("ended"))
    second = Company(tmp_path, log, restarts=3)
    await second.run(second.part("bad", "dies"), until=lambda: False)
    assert isinstance(second.problem, SupervisionFailed)
    assert counted + len(second.events("ended")) == 1 + 3


async def ended(company: Company, part: str, *, again_s: float, ago_s: float = 0.0, times: int = 1) -> None:
    """What an earlier supervisor wrote down: ends of a part, and the delay after each."""
    now_ms = REAL.wall_ms() - int(ago_s * 1000)
    for number in range(times):
        data = {"part": part, "counts": True, "at_ms": now_ms - number, "again_s": again_s}
        told = Notice(code="part_ended", message="it ended", agent="ops", data=data)
        await company.log.append(NewEntry(payload=told, role="supervisor", name="supervisor", agent="ops"))


async def test_a_delay_outlives_its_supervisor_and_a_pause(tmp_path: Path) -> None:
    """A part whose delay is not over is not started by the next supervisor, nor after a pause; others are."""
    company = Company(tmp_path)
    await ended(company, "bad", again_s=1000)
    await ended(company, "good", again_s=1000, ago_s=1001)
    orders = iter((("pause", 1), ("resume", 1)))

    async def order(verb: str, lives: int) -> None:
        while len(company.lives("good")) < lives or (verb == "resume" and not company.events("paused")):
            await asyncio.sleep(0.01)
        control = Control(verb=verb, scope=scope_of("ops"))  # type: ignore[arg-type]
        await company.log.append(NewEntry(payload=control, role="operator", name="me", agent="ops"))

    async def ordering() -> None:
        for verb, lives in orders:
            await order(verb, lives)

    async with asyncio.TaskGroup() as group:
        group.create_task(ordering())
        parts = company.part("bad"), company.part("good")
        await company.run(*parts, until=lambda: len(company.lives("good")) == 2 and company.heard("good"))
    assert company.lives("bad") == []
    (waits,) = company.events("waits")
    assert waits["part"] == "bad" and 900 < waits["again_s"] <= 1000


async def test_delays_go_on_doubling_under_the_next_supervisor(tmp_path: Path) -> None:
    """A supervisor that is started again remembers how often each part ended lately, and which one it was."""
    company = Company(tmp_path, backoff_s=0.01, backoff_max_s=10.0)
    await ended(company, "bad", again_s=0.001, ago_s=1, times=4)
    parts = company.part("bad", "dies"), company.part("other", "dies")
    await company.run(*parts, until=lambda: len({one["part"] for one in company.events("ended")}) == 2)
    first = {one["part"]: one["again_s"] for one in reversed(company.events("ended"))}
    assert 0.01 * 2**4 / 2 <= first["bad"] <= 0.01 * 2**4
    assert first["other"] <= 0.01


async def test_a_part_that_cannot_run_is_not_tried_again(tmp_path: Path) -> None:
    """An exit code that says "used wrongly" ends it at once: another life would fare no better."""
    company = Company(tmp_path)
    await company.run(company.part("good"), company.part("bad", "code2"), until=lambda: False)
    assert isinstance(company.problem, SupervisionFailed)
    assert len(company.lives("bad")) == 1
    assert "exit code 2" in str(company.problem)


@pytest.mark.parametrize("how", ["mute", "behind"])
async def test_a_hung_part_is_killed_and_replaced(tmp_path: Path, how: str) -> None:
    """A part that gives no sign of life, or no longer reads the log, is killed and replaced; the others live on."""
    company = Company(tmp_path, hang_s=0.6)
    company.mark("mute" if how == "behind" else "later")

    def replaced() -> bool:
        if company.heard("bad"):
            company.mark("mute")  # it was alive once; from now on it says nothing
        return len(company.lives("bad")) == 2

    async def news() -> None:
        for number in range(1000):  # so that there is something to read
            finding = Notice(code="news", message=str(number))
            await company.log.append(NewEntry(payload=finding, role="operator", name="me"))
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(news())
        await company.run(company.part("good"), company.part("bad", how), until=replaced)
        writing.cancel()
    assert company.problem is None
    assert len(company.lives("good")) == 1
    assert [one.code for one in await company.said(Finding)] == ["part_hung"]
    assert not alive(company.lives("bad")[0])


async def test_a_stopped_process_is_found(tmp_path: Path) -> None:
    """SIGSTOP is a hang: the process is killed although it cannot hear anything."""
    company = Company(tmp_path, hang_s=0.6)
    stopped: list[int] = []

    def replaced() -> bool:
        lives = company.lives("bad")
        if len(lives) == 1 and company.heard("bad") and not stopped:
            stopped.append(lives[0])
            kill(lives[0], signal.SIGSTOP)
        return len(lives) == 2

    await company.run(company.part("bad"), until=replaced)
    assert not alive(company.lives("bad")[0])
    assert len(company.events("hung")) == 1


async def test_what_a_part_started_dies_with_it(tmp_path: Path) -> None:
    """A process that a part started in a session of its own is gone before the part gets its next life."""
    company = Company(tmp_path)
    grown: list[int] = []

    def replaced() -> bool:
        if not grown and (tmp_path / "grown").exists() and (tmp_path / "grown").read_text():
            grown.append(int((tmp_path / "grown").read_text()))
            kill(company.lives("a")[0], signal.SIGKILL)
        return len(company.lives("a")) == 2 or (bool(grown) and len(company.events("started")) == 2)

    await company.run(company.part("a", "breeds"), until=replaced, whole_process=True)
    assert grown
    assert not alive(grown[0])
    if (tmp_path / "grown").exists():
        assert not alive(int((tmp_path / "grown").read_text())), "the second life's as well"


async def test_a_stubborn_part_is_killed_at_the_end(tmp_path: Path) -> None:
    """Who ignores SIGTERM is killed when its time is over, and the log says so."""
    company = Company(tmp_path, stop_s=0.3)
    await company.run(
        company.part("a", "stubborn"), company.part("b"), until=lambda: company.lives("a") and company.lives("b")
    )
    assert company.problem is None
    assert [one["part"] for one in company.events("killed")] == ["a"]
    assert [one["part"] for one in company.events("ended_as_asked")] == ["b"]


async def test_pause_resume_and_stop_are_entries(tmp_path: Path) -> None:
    """The supervisor obeys what the log says: its parts end on a pause, live again on a resume, and end on a stop."""
    company = Company(tmp_path)
    steps: list[str] = []

    async def order(verb: str) -> None:
        control = Control(verb=verb, scope=scope_of("ops"))  # type: ignore[arg-type]
        await company.log.append(NewEntry(payload=control, role="operator", name="me", agent="ops"))

    async def orders() -> None:
        while not company.lives("a"):
            await asyncio.sleep(0.01)
        await order("pause")
        while alive(company.lives("a")[0]):
            await asyncio.sleep(0.01)
        steps.append("ended")
        await order("resume")
        while len(company.lives("a")) < 2:
            await asyncio.sleep(0.01)
        steps.append("lives again")
        await order("stop")

    async with asyncio.TaskGroup() as group:
        group.create_task(orders())
        await company.run(company.part("a"), until=lambda: False)
    assert steps == ["ended", "lives again"]
    assert company.problem is None
    assert not any(alive(pid) for pid in company.lives("a"))
    again = Company(tmp_path, company.log)
    await again.run(again.part("a"), until=lambda: len(again.lives("a")) == 3)
    assert again.problem is None, "starting a supervisor again lifts the stop"


async def test_there_is_one_supervisor(tmp_path: Path) -> None:
    """A second one is refused while the first lives; a claim by another name ends the first and its parts."""
    company = Company(tmp_path)
    other = Company(tmp_path, company.log)
    tried = asyncio.Event()

    async def second() -> None:
        while not company.lives("a"):
            await asyncio.sleep(0.01)
        await other.run(other.part("a"), until=lambda: False)
        tried.set()
        held = company.supervisor.chronicle.me if company.supervisor is not None else ""
        taken = [Claim(task=task_of("ops"), agent=held, release=True), Claim(task=task_of("ops"), agent="another")]
        await company.log.append(
            *(NewEntry(payload=one, role="supervisor", name="another", agent="ops") for one in taken)
        )

    async with asyncio.TaskGroup() as group:
        group.create_task(second())
        await company.run(company.part("a"), until=lambda: False)
    assert isinstance(other.problem, AgentBusy)
    assert isinstance(company.problem, Fenced)
    assert len(company.lives("a")) == 1
    assert not alive(company.lives("a")[0])


async def test_orphans_are_ended_before_a_new_set_begins(tmp_path: Path) -> None:
    """What an earlier supervisor left alive is ended first: by its mark, and by what the log says it started."""
    company = Company(tmp_path)
    log_id = (await company.log.open()).log_id
    sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    environment = {**os.environ, "LOGACT_SUPERVISION": f"{log_id}/ops"}
    by_mark = subprocess.Popen(sleeper, env=environment, start_new_session=True)
    others = subprocess.Popen(sleeper, env={**environment, "LOGACT_SUPERVISION": f"{log_id}/else"})
    by_log = subprocess.Popen(sleeper, start_new_session=True)
    try:
        from logact.runtime import processes

        identity = processes.identify(by_log.pid)
        data = {"part": "a", "host": identity.host, "pid": identity.pid, "started": identity.started}
        told = Notice(code="part_started", message="a", agent="ops", data={**data, "boot": identity.boot})
        await company.log.append(NewEntry(payload=told, role="supervisor", name="supervisor", agent="ops"))

        def begun() -> bool:
            for child in (by_mark, by_log):
                child.poll()
            return bool(company.lives("a"))

        await company.run(company.part("a"), until=begun)
        assert {one["pid"] for one in company.events("orphan")} == {by_mark.pid, by_log.pid}
        assert by_mark.wait(10) == by_log.wait(10) == -signal.SIGTERM
        assert others.poll() is None, "those of another agent are left alone"
        order = [event for event, _ in company.told if event in ("orphan", "started")]
        assert order == ["orphan", "orphan", "started"]
    finally:
        for child in (by_mark, others, by_log):
            child.kill()
            child.wait()


async def test_a_whole_agent_is_started_when_the_log_has_work(tmp_path: Path) -> None:
    """A whole agent whose run has ended rests, and gets its next life when a further run begins."""
    company = Company(tmp_path)
    begun: list[int] = []

    async def submit() -> None:
        begin = NewEntry(payload=Run(agent="ops", title="go"), role="client", name="client", agent="ops")
        words = NewEntry(payload=Input(run=own(0), text="go"), role="client", name="client", agent="ops", run=own(0))
        begun.append((await company.log.append(begin, words)).position)

    async def work() -> None:
        while not company.events("supervising"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert company.lives("agent") == [], "there is nothing to do yet"
        for life in (1, 2):
            await submit()
            while len(company.events("rests")) < life:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work())
        await company.run(company.part("agent", "code0", whole_agent=True), until=working.done)
    assert company.problem is None
    assert len(company.lives("agent")) == 2


async def test_it_says_goodbye(tmp_path: Path) -> None:
    """A supervisor that ends gives its claim up and says that it leaves, so that the next need not wait."""
    company = Company(tmp_path)
    await company.run(company.part("a"), until=lambda: company.lives("a"))
    claims = await company.said(Claim)
    assert [one.release for one in claims] == [False, True]
    assert (await company.said(Heartbeat))[-1].leaving
    assert {"part_started", "part_ended"} <= set(await company.codes())
