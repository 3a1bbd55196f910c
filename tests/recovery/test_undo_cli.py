"""Undos by command: each is shown as one, nothing is settled for an undo that cannot be, and the words are true."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from logact import open_log
from logact.cli import approvals
from logact.cli.undo import lines_of as lines_of_report
from logact.core.views import Action
from logact.entry import Claim
from logact.errors import UsageError
from logact.introspection.history import history
from logact.introspection.telling import lines as told_lines
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.runtime.approvals import pending_in
from logact.runtime.entering import enter
from logact.runtime.host import Host
from logact.runtime.supervision import task_of
from logact.tools import ToolError
from logact.undoing import UndoReport
from logact.voters.human import HumanVoter
from tests.cli_help import environment, fits, here, lines_of
from tests.recovery.kit import Flaky, Yes, an_agent, entries
from tests.recovery.test_undo import SCRIPT, World

TOOLS = '''
from pathlib import Path
from logact import ScriptedModel, ToolError, tool
from logact.models.scripted import call

HERE = Path(__file__).parent


def line(what):
    with (HERE / "did").open("a") as file:
        file.write(what + "\\n")
    if (HERE / "dead").exists():
        raise ToolError("the line went dead", kind="ambiguous", definite=False)
    return what


@tool(effect="reversible", undo=lambda room: line(f"cancel {room}"))
def book(room: int) -> str:
    """Book a room."""
    return line(f"book {room}")


@tool(effect="irreversible")
def pay(amount: int) -> str:
    """Pay."""
    return line(f"pay {amount}")


def yes(entry):
    return True


books = ScriptedModel([call("book", room=2), "Booked."])
pays = ScriptedModel([call("pay", amount=7), "Paid."])
'''
SPEC = """
[agent]
name = "travel"
model = "scripted:tools.py:books"

[[tools]]
use = "tools.py:book"

[[tools]]
use = "tools.py:pay"

[[voters]]
use = "tools.py:yes"
"""


def set_up(home: Path) -> Path:
    """A specification whose line can go dead in the middle of an effect."""
    (home / "tools.py").write_text(TOOLS)
    (home / "logact.toml").write_text(SPEC)
    return home / "logact.toml"


def in_doubt(spec: Path, *command: str) -> int:
    """The action that a command left in doubt."""
    (spec.parent / "dead").touch()
    done = here(*command)
    assert done.returncode in (1, 4), done.stdout + done.stderr
    (spec.parent / "dead").unlink()
    (listed,) = lines_of(here("doubt", spec, "--json").stdout)
    return int(listed["action"])


def booked(spec: Path) -> int:
    """Run the booking; the position of the action."""
    assert here("run", spec, "book room 2").returncode == 0
    return int(
        next(one["action"] for one in lines_of(here("actions", spec, "--json").stdout) if one["tool"] == "book")
    )


def answered(spec: Path, action: int) -> str:
    """What ``logact doubt`` says on a terminal, where somebody chooses "later"."""
    primary, secondary = pty.openpty()
    asked = subprocess.Popen(
        [sys.executable, "-m", "logact.cli", "doubt", str(spec), str(action)],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env=environment(NO_COLOR="1"),
    )
    os.close(secondary)
    os.write(primary, b"l\n")
    said = b""
    try:
        while more := os.read(primary, 10_000):
            said += more
    except OSError:
        pass  # the terminal's other end is closed: it has ended
    os.close(primary)
    assert asked.wait(30) == 4
    return said.decode()


def test_an_undo_is_shown_as_one_wherever_it_is_shown(tmp_path: Path) -> None:
    """Who looks at the booking must not settle its undo: every view says which it is (was "book room=2")."""
    spec = set_up(tmp_path)
    book = booked(spec)
    undo = in_doubt(spec, "undo", str(spec), str(book))
    words = f"undo of {book}: "
    everywhere: list[tuple[str, list[object]]] = [
        (words + "book room=2", ["doubt", spec]),
        (words + "book room=2", ["pending", spec]),
        (words + "book room=2", ["log", "show", spec]),
        (words + "room=2", ["actions", spec]),
        (words + "book", ["state", spec]),
        (f"undo of      action {book}", ["doubt", spec, undo]),
        (f"undo of      action {book}", ["actions", spec, undo]),
        (f"undo         action {undo}", ["actions", spec, book]),
    ]
    for said, command in everywhere:
        shown = here(*command).stdout
        assert said in shown, command
        fits(shown.replace(str(spec), "logact.toml"))
    assert f"({words}book)" in here("recover", spec).stderr, "the error says it, too"
    for views in (["doubt", spec], ["pending", spec], ["actions", spec], ["actions", spec, undo]):
        (found,) = [one for one in lines_of(here(*views, "--json").stdout) if one.get("action") == undo]
        assert found["undoes"] == book
    asked = answered(spec, undo)
    assert f"h  the undo happened: {book} is taken back" in asked
    assert f"n  the undo did not happen: {book} still stands" in asked
    assert "undo it" not in asked
    refused = here("doubt", spec, undo, "--undo")
    assert refused.returncode == 2
    assert f"itself the undo of action {book}" in refused.stderr
    settled = here("doubt", spec, undo, "--did-not-happen")
    assert f"logact undo SPEC {book}" in settled.stdout
    assert here("undo", spec, book).stdout == f"Undone: {book}.\n"


def test_what_an_answer_about_an_undo_came_to(tmp_path: Path) -> None:
    """Settled as having happened, the action that it undid is undone; it says so, and once more."""
    spec = set_up(tmp_path)
    book = booked(spec)
    undo = in_doubt(spec, "undo", str(spec), str(book))
    assert f"So action {book} is undone." in here("doubt", spec, undo, "--happened").stdout
    again = here("undo", spec, book)
    assert (again.returncode, again.stdout) == (0, f"Undone before: {book}.\n")


async def test_people_are_told_that_they_approve_an_undo() -> None:
    """What waits for a person says what it takes back: the tool and the arguments are those of the action."""
    engine, world = MemoryEngine(), World()
    done = await an_agent(engine, SCRIPT, world.tools).run("go")
    agent = an_agent(engine, [], world.tools, voters=[Yes(), HumanVoter()])
    async with asyncio.TaskGroup() as group:
        undoing = group.create_task(agent.undo(done.run))
        while not (waiting := await pending_in(SharedLog(engine))):
            await asyncio.sleep(0.01)
        undoing.cancel()
    (one,) = waiting
    target = (await history(SharedLog(engine))).state.actions[one.undoes]
    assert target.status == "executed"
    assert any(f"it takes action {target.id} back" in line for line in approvals._waiting(one, "ops.db"))
    told = told_lines(await entries(engine, "Intent"))
    assert any(f"wants undo of {target.id}: put" in str(line) for line in told)


@pytest.mark.parametrize("others", ["nobody", "a process", "a supervisor"])
def test_nothing_is_settled_for_an_undo_that_cannot_be(tmp_path: Path, others: str) -> None:
    """``--undo`` looks first: no undo of the tool, or others who play the agent. It settled, and then refused."""
    spec = set_up(tmp_path)
    spec.write_text(SPEC.replace("books", "pays") if others == "nobody" else SPEC)
    action = in_doubt(spec, "run", str(spec), "go")

    async def play() -> None:
        async with open_log(f"sqlite:///{tmp_path / 'agent.db'}") as log:
            host = Host(log, "travel")
            await host.tail.start()
            if others == "a process":
                await enter(host, policy=None, spec=None)
            elif others == "a supervisor":
                claim = Claim(task=task_of("travel"), agent=host.incarnation)
                await host.append([host.birth(), host.entry(claim, "supervisor", "travel")])

    asyncio.run(play())
    before = lines_of(here("log", "show", spec, "--json").stdout)
    refused = here("doubt", spec, action, "--undo")
    assert refused.returncode == 2
    assert f"Action {action} cannot be taken back" in refused.stderr
    assert "--happened" in refused.stderr.replace("\n", " ")
    assert {"nobody": "has no undo", "a process": "played", "a supervisor": "--stop"}[others] in refused.stderr
    fits(refused.stderr)
    assert lines_of(here("log", "show", spec, "--json").stdout) == before, "nothing was written"
    if others == "nobody":
        assert "undo it" not in answered(spec, action)


def test_a_long_report_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of forty actions without an undo: the report was one line of any length."""
    monkeypatch.setenv("COLUMNS", "80")
    many = tuple(range(14_000, 54_000, 1000))
    shown = lines_of_report(
        UndoReport(of=2000, left=many, open=many, stopped_at=7000, why="its undo failed: " + "no " * 40)
    )
    fits("\n".join(shown))
    assert str(many[-1]) in " ".join(shown)


def test_a_pause_of_another_run_is_not_said_of_a_new_one(tmp_path: Path) -> None:
    """``run --new`` beside a paused run said that it was paused, and then resumed."""
    spec = set_up(tmp_path)
    (tmp_path / "dead").touch()
    assert here("run", spec, "the first").returncode == 4
    (tmp_path / "dead").unlink()
    assert here("pause", spec, "--run", 2000).returncode == 0
    for command in (("--new", "the first"), ("another",)):
        said = here("run", spec, *command)
        assert said.stdout == "Booked.\n", said.stderr
        assert "PAUSED" not in said.stderr and "resumed" not in said.stderr, said.stderr
        assert '"released"' not in here("run", spec, "--new", "--json", "the third").stdout
    assert "PAUSED run 2000" in here("pending", spec).stdout, "it still is"


def test_what_a_stop_ends_stays_ended(tmp_path: Path) -> None:
    """A stopped run is not let go on by ``resume``, as was said; of a stopped agent new runs may begin."""
    spec = set_up(tmp_path)
    booked(spec)
    (tmp_path / "dead").touch()
    assert here("run", spec, "the second").returncode == 4
    run = max(one["run"] for one in lines_of(here("actions", spec, "--json").stdout))
    assert "resume" in here("pause", spec, "--run", run).stdout
    stopped = here("stop", spec, "--run", run).stdout
    assert "It stays ended" in stopped
    assert "resume" not in stopped
    assert "lets new runs begin" in here("stop", spec, "--agent", "travel").stdout


async def test_what_was_tried_again_cannot_be_given_up_and_that_is_said() -> None:
    """The refusal names the action that tried it again (was "received failed, expected a failed action")."""
    engine = MemoryEngine()
    down = Flaky(ToolError("busy", kind="failed", definite=True))
    async with an_agent(engine, [], [down.tool]) as agent:
        first = await agent.propose_action(Action(tool="send", arguments={"item": "a"}))
        await agent.validate_action(first)
        await agent.execute_action(first)
        again = await agent.propose_action(first.action, run=first.run, retry_of=first.position)
        with pytest.raises(UsageError, match=f"tried again by {again.position}"):
            await agent.skip_failed_action(first.position)
