"""A run's own time: what runs when it is over is interrupted and settled by the table, and the run ends as limited.

The clock on the wall is the test's: it stands shortly before the end of the run's time, then behind it, when entries
of certain kinds come. So how fast the machine is plays no part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from logact import env, open_log
from logact.agent_results import Answer
from logact.core import driving, leasing
from logact.core.state import Action, CallState, RunState, State
from logact.entry import Effect, Entry, Intent, Limits, Vote
from logact.env import Env
from logact.models.scripted import call
from logact.runtime import ending
from logact.runtime.retry import RetryRecovery
from logact.runtime.tail import Tail
from logact.tools import Tool, ToolError
from logact.tools.shell import UNSANDBOXED, Shell
from logact.voters.base import Voter
from tests.recovery.forms import in_parts, whole
from tests.supervision.kit import alive

LONG = Limits(seconds=20)


class Clock(Env):
    """A wall clock that stands just before the end of the run when an action starts, and behind that later."""

    def __init__(self, over_at: str = "Result", left_ms: int = 200) -> None:
        super().__init__()
        self.left_ms = left_ms
        self.over_at = over_at
        self.began_ms = 0
        self.stands_ms = 0

    def wall_ms(self) -> int:
        return self.stands_ms or super().wall_ms()

    def observe(self, state: State, entry: Entry) -> None:
        """Look at the log, as a part does that plays it."""
        if entry.kind == "Run":
            self.began_ms = entry.time_ms
        if self.stands_ms > self.began_ms + LONG.seconds * 1000 or entry.tool == "answer":
            return
        if entry.kind == "Started":
            self.stands_ms = self.began_ms + LONG.seconds * 1000 - self.left_ms
        if entry.kind == self.over_at:
            self.stands_ms = self.began_ms + LONG.seconds * 1000 + 1


class Slow:
    """A tool that hangs in its effect, and what is declared of it."""

    def __init__(self, effect: Effect, *, probe: bool | None = None, safe_undo: bool = False) -> None:
        self.began = self.cut = self.undone = 0

        async def work() -> str:
            """Work for long."""
            self.began += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cut += 1
                raise
            return "done"

        async def asked() -> bool:
            return bool(probe)

        async def back(result: Any) -> str:
            self.undone += 1
            return "back"

        more: dict[str, Any] = {"probe": asked} if probe is not None else {}
        if safe_undo:
            more |= {"undo": back, "safe_undo": True}
        self.tool = Tool(work, name="work", effect=effect, **more)


async def timed(
    form: Any,
    place: Path,
    tools: list[Any],
    script: list[Any],
    *,
    over_at: str = "Result",
    left_ms: int = 200,
    **more: Any,
) -> tuple[Answer, State]:
    """A run in one of the forms by the test's clock."""
    clock = Clock(over_at, left_ms)
    env.use(clock)
    done: tuple[Answer, State] = await form(place, tools, script, observers=[clock.observe], limits=LONG, **more)
    return done


FORMS: list[Callable[..., Awaitable[tuple[Answer, State]]]] = [whole, in_parts]


def of(state: State, tool: str) -> list[Any]:
    """The actions of one tool."""
    return [one for one in state.actions.values() if one.intent.tool == tool]


@pytest.mark.parametrize("form", FORMS)
async def test_a_tool_that_runs_is_cut_off_and_settled_by_the_table(form: Any, tmp_path: Path) -> None:
    """By effect and declaration: closed, known from the probe, undone, or in doubt; the run ends in each case."""
    cases = {
        "idempotent": (Slow("idempotent"), "failed"),
        "read": (Slow("read"), "failed"),
        "seen": (Slow("irreversible", probe=True), "executed"),
        "unseen": (Slow("irreversible", probe=False), "failed"),
        "undone": (Slow("reversible", safe_undo=True), "undone"),
    }
    if form is whole:  # in parts the driver is not told that a person is needed, and lets go after some seconds
        cases["doubt"] = (Slow("irreversible"), "in_doubt")

    async def one(name: str, slow: Slow, status: str) -> None:
        answer, state = await timed(form, tmp_path / f"{name}.db", [slow.tool], [call("work"), "never"])
        assert not answer.ok, (name, [(one.id, one.status, one.reason, one.error) for one in of(state, "work")])
        assert "the limit of 20 seconds is reached" in answer.reason, name
        assert (slow.began, slow.cut) == (1, 1), name
        (action,) = of(state, "work")
        assert action.status == status, name
        assert [run.status for run in state.runs.values()] == ["finished"], name
        assert state.runs[answer.run].turn == 1, "the model is asked nothing more"
        said = f"what became of action {action.id} (work) is not known" in answer.reason
        assert said == (status == "in_doubt"), name
        assert slow.undone == (name == "undone"), name
        assert not state.ignored, name

    await asyncio.gather(*(one(name, slow, status) for name, (slow, status) in cases.items()))


@pytest.mark.parametrize("form", FORMS)
async def test_what_waits_at_the_end_of_a_run_is_taken_back(form: Any, tmp_path: Path) -> None:
    """A vote that does not come, a delay before a further try: neither holds a run beyond its time."""
    sent: list[int] = []

    async def send() -> str:
        """Send it."""
        sent.append(1)
        raise ToolError("busy", kind="transient")

    class Late(Voter):
        timeout_s = 30.0
        placement: Literal["inline", "async"] = "async"

        async def check(self, entry: Any) -> Vote:
            if entry.action.tool != "answer":
                await asyncio.sleep(60)
            return Vote(approved=True)

    tool = Tool(send, name="send", effect="idempotent")
    script = [call("send"), "never"]

    async def unjudged() -> None:
        answer, state = await timed(
            form, tmp_path / "voter.db", [tool], script, voters=[Late("late")], over_at="Intent"
        )
        assert "20 seconds" in answer.reason
        assert [(one.status, one.code) for one in of(state, "send")] == [("rejected", "cancelled")]

    async def resting() -> None:
        recovery = RetryRecovery(base_delay=30, max_delay=30, total_s=300)
        answer, state = await timed(form, tmp_path / "retry.db", [tool], script, recovery=recovery)
        assert "20 seconds" in answer.reason
        assert [one.status for one in of(state, "send")] == ["failed_final"]

    await asyncio.gather(unjudged(), resting())
    assert len(sent) == 1


async def test_what_never_started_is_taken_back_where_nobody_executes(tmp_path: Path) -> None:
    """The driver takes it back and concludes; only the release of that answer needs an executor."""
    slow = Slow("irreversible")
    parts = timed(in_parts, tmp_path / "x.db", [slow.tool], [call("work")], without="executor", over_at="Commit")
    playing = asyncio.create_task(parts)
    async with open_log(f"sqlite:///{tmp_path}/x.db") as log, asyncio.timeout(15):
        tail = Tail(log)
        await tail.start()
        while not of(await tail.catch_up(), "answer"):
            await asyncio.sleep(0.02)
        assert [(one.status, one.code) for one in of(tail.state, "work")] == [("rejected", "cancelled")]
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    assert not slow.began


@pytest.mark.parametrize("form", FORMS)
async def test_the_processes_of_a_tool_are_gone_with_it(
    form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that started another process: both are killed when the run's time is over, and it is in doubt."""
    monkeypatch.setattr(ending, "LET_GO_S", 0.1)
    shell = Shell(tmp_path, bwrap=str(tmp_path / "none"), unsandboxed=UNSANDBOXED)
    command = call("run_shell", command="sleep 60 & echo $! $$ > pids; wait")
    answer, state = await timed(form, tmp_path / "x.db", [shell.run_shell], [command, "never"], left_ms=900)
    assert "(run_shell) is not known" in answer.reason
    assert [one.status for one in of(state, "run_shell")] == ["in_doubt"]
    assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_an_answer_that_is_being_judged_may_have_its_votes() -> None:
    """It ends the run anyway: at the end of the run's time it is neither cancelled nor followed by another."""
    intent = Intent(run=1, agent="a", tool="answer", inference=2, effect="read", arguments_digest="x")
    run = RunState(id=1, agent="a", limits=LONG, turn=1, inference=2, calls={0: CallState(action=3)})
    state = State(runs={1: run}, actions={3: Action(id=3, intent=intent)}, open_actions={3: None})
    assert driving.next_step(state, run, 500_000, let_go=True).verb == "wait"
    state.actions[3].intent = msgspec.structs.replace(intent, tool="work")
    assert driving.next_step(state, run, 500).verb == "wait"
    assert driving.next_step(state, run, 500_000).verb == "cut"
    assert leasing.owed(state, "a", 500_000)["driver"] == "the end of run 1"
    state.actions[3].cancel_wanted = True
    assert driving.next_step(state, run, 500_000).verb == "wait"
    assert driving.next_step(state, run, 500_000, let_go=True).verb == "conclude"
