"""What users wrote, called in LogAct's process: whatever it raises, prints or returns, LogAct goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logact import Action, ToolContext, Voter
from logact import env as environment
from logact.cli import own_output
from logact.cli.own_output import PRINTED_CHARS_MAX
from logact.core.views import LogEntry
from logact.entry import Vote
from logact.env_guest import Contained, from_outside, guest
from logact.errors import ActionRejected, ModelNonsense
from logact.models import ScriptedModel
from logact.spec import load_spec
from logact.spec_parts import load_object
from logact.tools import Tool
from logact.tools.answers import ImageResult
from logact.tools.returned import returned
from tests.cli_help import here, lines_of, logact, make
from tests.runtime.kit import agent, memory_log, run, simple
from tests.runtime.test_executor import outcome
from tests.runtime.test_voter_host import Says, vote_of


class Odd(BaseException):
    """Nothing that ``except Exception`` would catch."""


LEAVING: list[tuple[BaseException, str]] = [
    (SystemExit(3), "SystemExit: 3"),
    (SystemExit(0), "SystemExit: 0"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (StopIteration("end"), "StopIteration"),
    (Odd("odd"), "Odd: odd"),
]


def raising(error: BaseException) -> tuple[Callable[[], str], Callable[[], Any]]:
    """A plain and an async function that raise it."""

    def plain() -> str:
        raise error

    async def asynchronous() -> str:
        raise error

    return plain, asynchronous


@pytest.mark.parametrize(("error", "words"), LEAVING, ids=str)
def test_what_a_tool_raises_is_its_failure_at_once(error: BaseException, words: str) -> None:
    """An exit ended the process with the tool's code, and StopIteration hung until the tool's time was over."""
    for function in raising(error):
        result = run(outcome(simple(function, "read", timeout_s=15)))
        assert result.error is not None
        assert result.error.kind == "failed"
        assert not result.error.definite
        assert words in result.error.message


@pytest.mark.parametrize(("error", "words"), LEAVING, ids=str)
def test_what_a_voter_raises_is_a_rejection(error: BaseException, words: str) -> None:
    """In a thread, in the loop at once, and awaited: the vote says why (an exit ended the process unheard)."""
    plain, asynchronous = raising(error)
    for one in (
        Says(lambda _: plain(), quick=True),
        Says(lambda _: plain(), quick=False, timeout_s=15),
        Says(lambda _: asynchronous(), quick=True),
    ):
        vote = run(vote_of(one))
        assert vote.approved is False
        assert words in vote.reason


def test_a_voter_that_gives_up_by_itself_is_a_rejection() -> None:
    """CancelledError of its own was taken for the cancellation of whoever asked."""

    async def gives_up() -> Vote:
        raise asyncio.CancelledError

    assert "CancelledError" in run(vote_of(Says(lambda _: gives_up()))).reason


def test_a_memory_that_exits_fails_its_votes() -> None:
    """Also what a voter does with the entries that it observes is its own failure."""

    class Forgets(Voter):
        def observe(self, memory: Any, entry: Any) -> Any:
            sys.exit(0)

        def check(self, entry: LogEntry) -> Vote:
            return Vote(approved=True)

    async def main() -> None:
        one = agent(memory_log(), voters=[Forgets("forgets")], tools=[simple(lambda: "x", name="look")])
        with pytest.raises(ActionRejected, match="SystemExit: 0"):
            await one.act(Action(tool="look"))

    run(main())


def test_probe_undo_and_pins_that_exit() -> None:
    """A probe that exits cannot tell; an undo and pins that exit have failed."""

    def exits(**_: Any) -> Any:
        sys.exit(4)

    one = Tool(lambda: "x", name="one", effect="reversible", probe=exits, undo=exits, pins=exits)
    answer = run(one.probe({}, ToolContext()))
    assert answer.happened is None
    assert "SystemExit: 4" in answer.detail
    with pytest.raises(Contained, match="SystemExit: 4"):
        run(one.undo({}, None, ToolContext()))
    with pytest.raises(Contained, match="SystemExit: 4"):
        one.pins({})


def test_a_model_function_that_exits_gave_no_answer() -> None:
    """A scripted model is a user's function too."""

    def exits(_: Any) -> Any:
        sys.exit(5)

    async def main() -> None:
        with pytest.raises(ModelNonsense, match="SystemExit: 5"):
            await agent(memory_log(), ScriptedModel(exits)).run("go")

    run(main())


def test_what_comes_from_outside_stays_what_it_is() -> None:
    """A signal's exit or interrupt, a cancelled task and GeneratorExit are no failures of a tool."""

    def leaves(*_: Any) -> None:
        sys.exit(9)

    async def struck() -> str:
        signal.raise_signal(signal.SIGUSR1)
        return "not reached"

    before = signal.signal(signal.SIGUSR1, leaves)
    try:
        with pytest.raises(SystemExit) as caught:
            run(simple(struck).call({}, ToolContext()))
        assert from_outside(caught.value)
    finally:
        signal.signal(signal.SIGUSR1, before)

    async def twice() -> str:
        signal.raise_signal(signal.SIGINT)  # asyncio cancels the task for the first, and raises for the second
        signal.raise_signal(signal.SIGINT)
        return "not reached"

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(simple(twice).call({}, ToolContext()))

    async def waits() -> str:
        await asyncio.sleep(60)
        return "not reached"

    async def main() -> None:
        task = asyncio.ensure_future(simple(waits).call({}, ToolContext()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    closed = simple(waits).call({}, ToolContext())
    with pytest.raises(GeneratorExit):
        closed.throw(GeneratorExit)


def test_the_door_to_threads_holds_nobody_up() -> None:
    """What a future refuses, and what ends processes, comes out of a thread as an ordinary error."""

    async def main() -> None:
        for error, words in LEAVING:
            with pytest.raises(Contained, match=words) as caught:
                await environment.current().in_thread(raising(error)[0])
            assert caught.value.__cause__ is error

    run(main())


def test_an_error_that_cannot_be_read_is_a_failure() -> None:
    """The text of an exception is a user's code as well (it ended the executor)."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def mute() -> str:
        raise Mute

    result = run(outcome(simple(mute, "read")))
    assert result.error is not None
    assert "Mute" in result.error.message


def test_a_module_that_exits_is_a_wrong_specification(tmp_path: Path) -> None:
    """A tool's file without a main guard ended ``logact run`` with its own code and no word."""
    spec = make(tmp_path)
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(Exception, match="SystemExit: 0"):
        load_object("exits.py:pay", load_spec(str(spec)))


TALKS = r'''
import asyncio, subprocess, sys, threading
from logact import Vote, tool
from logact.models import call, say

print("IMPORTED")
answer = [call("talks"), call("shouts"), call("strays"), call("exits"), call("exits_beside"), say("Done.")]


@tool(effect="read")
def talks() -> str:
    """Talk."""
    print("TALKS")
    sys.stdout.buffer.write(b"BYTES\n")
    return "x"


@tool(effect="read")
def shouts() -> str:
    """Shout."""
    for _ in range(3000):
        print("S" * 100)
    return "x"


@tool(effect="read")
def strays() -> str:
    """Talk from a thread of its own."""
    thread = threading.Thread(target=print, args=("STRAY",))
    thread.start()
    thread.join()
    return "x"


@tool(effect="irreversible")
def exits() -> str:
    """Exit."""
    sys.exit(3)


@tool(effect="irreversible")
async def exits_beside() -> str:
    """Exit, in a task of its own."""
    async def inner():
        print("INNER")
        sys.exit(3)
    async with asyncio.TaskGroup() as group:
        group.create_task(inner())
    return "x"


def careful(entry):
    print("VOTER")
    return Vote(approved=True)


ALL = [talks, shouts, strays, exits, exits_beside]
'''


def test_a_commands_output_is_its_own(tmp_path: Path) -> None:
    """What tools, voters and modules print goes to standard error, up to a limit; tools that exit have failed.

    It stood between the objects of ``--json`` and in front of the answer of ``-q``, and an exit was the command's.
    """
    spec = make(tmp_path)
    (tmp_path / "parts.py").write_text(TALKS)
    text = spec.read_text().replace('use = "parts.py:pay"', 'use = "parts.py:ALL"')
    spec.write_text(text.replace('[[tools]]\nuse = "parts.py:shred"\n', ""))
    done = logact("run", spec, "--json", "go")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = lines_of(done.stdout)
    assert [one["value"] for one in lines if one["event"] == "done"][:3] == ["x", "x", "x"]
    failed = [one["error"]["message"] for one in lines if one["event"] == "failed"]
    assert [("SystemExit: 3" in one) for one in failed] == [True, True]
    for said in ("IMPORTED", "TALKS", "BYTES", "STRAY", "VOTER", "INNER"):
        assert said in done.stderr
    assert 0.9 * PRINTED_CHARS_MAX < done.stderr.count("S") < 1.1 * PRINTED_CHARS_MAX
    assert "not shown" in done.stderr
    quiet = here("run", spec, "-q", "--new", "go")
    assert quiet.stdout == "Done.\n"
    assert "TALKS" in quiet.stderr


def test_a_libraries_output_is_its_users(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the command line a tool prints where its user has it print."""

    def talks() -> str:
        print("TALKS")
        return "x"

    run(outcome(simple(talks, "read")))
    assert capsys.readouterr().out == "TALKS\n"


def test_what_is_printed_aside_has_an_end_for_each_call(capsys: pytest.CaptureFixture[str]) -> None:
    """One call that prints without end takes nothing from the next one; the command's own words have no limit."""
    with own_output.own_output():
        for _ in range(2):
            with guest():
                for _ in range(10):
                    print("g" * PRINTED_CHARS_MAX)
        print("o" * 2 * PRINTED_CHARS_MAX)
        other = threading.Thread(target=print, args=("stray",))
        other.start()
        other.join()
    out, err = capsys.readouterr()
    assert err.count("g") == 2 * PRINTED_CHARS_MAX
    assert err.count("not shown") == 2
    assert "stray" in err
    assert out == "o" * 2 * PRINTED_CHARS_MAX + "\n"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": float("nan"), "b": float("inf")}, {"a": None, "b": None}),
        (b"\xff\xfe", "//4="),
        ((1, "x"), [1, "x"]),
        ({1: Path("/tmp")}, {"1": "/tmp"}),
        ("\ud800", "?"),
    ],
)
def test_what_json_knows_a_form_of_is_converted(value: Any, stored: Any) -> None:
    """The conversions that the docs name."""

    def gives() -> Any:
        return value

    result = run(outcome(simple(gives, "read")))
    assert result.error is None
    assert result.value == stored


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def cyclic() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


class Shy:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        sys.exit(1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "[object: JSON cannot hold this value; return text"),
        (cyclic(), "[[...]]"),
        (nested(150), "[list: "),
        (nested(100_000), "[list: "),
        ({"a": [object()]}, "[dict: "),
        (Shy(), "[Shy: "),
    ],
    ids=["object", "circle", "deep", "bottomless", "inside", "shy"],
)
def test_what_json_cannot_hold_is_text_and_no_failure(value: Any, words: str) -> None:
    """The call has had its effect: a model that were told of a failure might do it again."""

    def gives() -> Any:
        return value

    result = run(outcome(simple(gives)))
    assert result.error is None
    assert words in result.value
    assert "return text, numbers, lists or objects" in result.value


def test_a_tool_of_another_make_gives_text_too() -> None:
    """A subclass that returns what it likes is held to the same rule."""

    class Own(Tool):
        async def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
            return {"x": object()}

    result = run(outcome(Own(lambda: "x", name="own", effect="read")))
    assert result.error is None
    assert result.value.startswith("[dict: ")


def test_no_value_with_images_makes_a_failure_of_a_call() -> None:
    """A list of images that holds itself, or that raises when it is looked at, becomes text that says so."""

    class Odd(list[Any]):
        """Cannot be gone through."""

        def __iter__(self) -> Any:
            raise SystemExit

    image = ImageResult(data=b"x", media_type="image/png")
    circle: list[Any] = [image]
    circle.append(circle)
    first, second = returned(circle)
    assert first is image and "JSON cannot hold this value" in second
    assert "JSON cannot hold this value" in returned(Odd([image]))
