"""Tools: declarations, schemas, argument checks, probes, undo, toolboxes."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from logact.entry import Pin
from logact.errors import ArgumentError, ToolDefinitionError
from logact.tools import (
    ImageResult,
    ProbeAnswer,
    Tool,
    Toolbox,
    ToolContext,
    ToolError,
    as_tools,
    failure_of,
    tool,
)

CONTEXT = ToolContext(agent="a", run=1000, action=2000, attempt=1, key="key-1", epoch=3, log="log")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(msgspec.Struct):
    street: str
    number: int = 1


@dataclasses.dataclass
class Person:
    name: str
    home: Address | None = None


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


@tool(effect="read")
def everything(
    text: str,
    count: int,
    ratio: float,
    flag: bool,
    items: list[str],
    table: dict[str, int],
    choice: Literal["a", "b"] = "a",
    color: Color = Color.RED,
    person: Person | None = None,
    either: int | str = 0,
    where: Path = Path("x"),
    small: Annotated[int, msgspec.Meta(ge=1, le=9)] = 5,
    tree: Tree | None = None,
) -> Any:
    """Take everything.

    It has two paragraphs.

    Args:
        text: A text
            over two lines: with a colon.
        count (int): How many.

    Returns:
        Nothing of interest.
    """
    return {"color": color, "person": person, "where": where}


GOOD: dict[str, Any] = {"text": "t", "count": 1, "ratio": 1, "flag": True, "items": ["i"], "table": {"k": 1}}


def call(target: Tool, arguments: dict[str, Any], context: ToolContext = CONTEXT) -> Any:
    return asyncio.run(target.call(arguments, context))


def test_schema_of_all_types() -> None:
    """A model sees every supported type as plain JSON Schema, without references except for recursive types."""
    parameters = everything.parameters
    properties = parameters["properties"]
    assert parameters["additionalProperties"] is False
    assert parameters["required"] == ["text", "count", "ratio", "flag", "items", "table"]
    assert properties["text"] == {"type": "string", "description": "A text over two lines: with a colon."}
    assert properties["count"] == {"type": "integer", "description": "How many."}
    assert properties["items"] == {"type": "array", "items": {"type": "string"}}
    assert properties["choice"] == {"enum": ["a", "b"], "default": "a"}
    assert properties["color"] == {"enum": ["blue", "red"], "default": "red"}
    assert properties["where"] == {"type": "string", "default": "x"}
    assert properties["small"]["minimum"] == 1
    person = next(branch for branch in properties["person"]["anyOf"] if branch.get("type") == "object")
    assert person["properties"]["name"] == {"type": "string"}
    assert "$ref" not in msgspec.json.encode(properties["person"]).decode()
    assert list(parameters["$defs"]) == ["Tree"]
    assert everything.description == "Take everything.\n\nIt has two paragraphs."


def test_rest_docstring() -> None:
    """Descriptions are read from reST fields, too."""

    @tool
    def f(x: int, y: str = "") -> None:
        """Do it.

        :param x: the number
            of things
        :param str y: the name
        :returns: nothing
        """

    assert f.description == "Do it."
    assert f.parameters["properties"]["x"]["description"] == "the number of things"
    assert f.parameters["properties"]["y"]["description"] == "the name"


def test_undeclared_effect_is_irreversible() -> None:
    """Whoever declares nothing gets the strictest treatment."""

    @tool
    def f() -> None: ...

    assert (f.effect, f.declared) == ("irreversible", False)
    assert as_tools([lambda_named := f.function])[0].effect == "irreversible"
    assert lambda_named is f.function


def test_check_normalises_and_is_idempotent() -> None:
    """Checked arguments are plain JSON with defaults filled in, and pass the check again unchanged."""
    checked = everything.check(GOOD | {"person": {"name": "n", "home": {"street": "s"}}})
    assert checked["person"] == {"name": "n", "home": {"street": "s", "number": 1}}
    assert (checked["color"], checked["where"], checked["small"], checked["ratio"]) == ("red", "x", 5, 1.0)
    assert everything.check(checked) == checked
    msgspec.json.encode(checked)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"count": "1"}, ["'count'", "integer", "'1'"]),
        ({"count": 1.5}, ["'count'", "integer"]),
        ({"count": True}, ["'count'", "integer", "True"]),
        ({"count": 2**70}, ["'count'", "64 bits"]),
        ({"ratio": float("nan")}, ["'ratio'", "nan", "finite"]),
        ({"ratio": float("inf")}, ["'ratio'", "inf", "finite"]),
        ({"flag": 1}, ["'flag'", "boolean"]),
        ({"items": "i"}, ["'items'", "array of string"]),
        ({"items": ["i", 2]}, ["'items[1]'", "`int`"]),
        ({"table": {"k": float("-inf")}}, ["'table.k'", "finite"]),
        ({"table": {1: 1}}, ["'table'", "text as keys"]),
        ({"text": "\ud800"}, ["'text'", "surrogates"]),
        ({"text": None}, ["'text'", "string"]),
        ({"choice": "c"}, ["'choice'", "'a', 'b'"]),
        ({"color": "green"}, ["'color'", "'blue', 'red'"]),
        ({"small": 10}, ["'small'", "at most 9"]),
        ({"person": {"name": 1}}, ["'person.name'", "`str`"]),
        ({"person": {"name": "n", "age": 3}}, ["'person.age'", "name, home"]),
        ({"person": {"name": "n", "home": {"street": "s", "zip": "1"}}}, ["'person.home.zip'"]),
        ({"extra": 1}, ["'extra'", "choice"]),
    ],
)
def test_wrong_arguments_name_what_is_wrong(change: dict[str, Any], names: list[str]) -> None:
    """A wrong argument is refused with its name, what was received and what was expected."""
    with pytest.raises(ArgumentError) as caught:
        everything.check(GOOD | change)
    for name in names:
        assert name in str(caught.value)
    assert "received" in str(caught.value)
    assert "expected" in str(caught.value)
    with pytest.raises(ArgumentError):  # a call checks again: nothing unchecked gets through
        call(everything, GOOD | change)


def test_missing_argument() -> None:
    """A missing argument is named with its type."""
    with pytest.raises(ArgumentError, match=r"'count' of 'everything' is missing.*expected count: integer"):
        everything.check({key: value for key, value in GOOD.items() if key != "count"})


def test_not_an_object() -> None:
    """Arguments that are no object at all are refused, not crashed on."""
    nonsense: Any
    for nonsense in ([], "text", None, 3):
        with pytest.raises(ArgumentError, match="not an object"):
            everything.check(nonsense)


def test_deep_nesting_is_refused() -> None:
    """Nesting beyond the limit is an error of its own, not a RecursionError."""

    @tool
    def f(x: Any) -> None: ...

    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ArgumentError, match="levels of nesting"):
        f.check({"x": deep})


def test_definitions_that_are_refused() -> None:
    """A tool that a model could not use, or whose declaration contradicts itself, is refused with advice."""

    def untyped(x) -> None: ...  # type: ignore[no-untyped-def]
    def star(*args: int) -> None: ...
    def stars(**kwargs: int) -> None: ...
    def positional(x: int, /) -> None: ...
    def strange(x: threading.Thread) -> None: ...
    def plain(x: int) -> None: ...
    def other(y: int) -> None: ...
    def unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (untyped, star, stars, positional, strange, unknown, lambda: None):
        with pytest.raises(ToolDefinitionError, match=r"received.*expected") as caught:
            Tool(function)
        assert caught.value.todo
    for options in (
        {"effect": "harmless"},
        {"effect": "reversible"},
        {"effect": "read", "undo": plain},
        {"safe_undo": True},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"destinations": ("to",)},
        {"probe": other},
        {"name": "no blanks"},
        {"name": "x" * 65},
    ):
        with pytest.raises(ToolDefinitionError):
            Tool(plain, **options)


def test_unknown_type_names_give_advice() -> None:
    """A method that still wants self is refused, since nobody could give it."""

    class Holder:
        def method(self, x: int) -> int:
            return x

    with pytest.raises(ToolDefinitionError, match="'self'"):
        tool(Holder.method)
    assert call(tool(Holder().method), {"x": 3}) == 3


def test_plain_and_async_functions() -> None:
    """Plain functions run in a thread, async ones in the loop; both stay callable."""

    @tool
    def plain(x: int) -> bool:
        return threading.current_thread() is threading.main_thread()

    @tool
    async def asynchronous(x: int) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert call(plain, {"x": 1}) is False
    assert call(asynchronous, {"x": 1}) is True
    assert plain(1) is True
    assert plain.__name__ == "plain"  # type: ignore[attr-defined]


def test_context_is_given_and_not_shown() -> None:
    """A ToolContext parameter, whatever its name, is filled in, and the model neither sees nor sets it."""

    @tool
    def f(x: int, where: ToolContext) -> list[Any]:
        return [x, where.key, where.epoch]

    assert list(f.parameters["properties"]) == ["x"]
    assert call(f, {"x": 1}) == [1, "key-1", 3]
    with pytest.raises(ArgumentError):
        f.check({"x": 1, "where": {"key": "forged"}})


def test_results_are_plain() -> None:
    """Results become plain JSON data; what JSON cannot hold must not look like a failure."""
    assert call(everything, GOOD) == {"color": "red", "person": None, "where": "x"}

    def result_of(value: Any) -> Any:
        @tool
        def f() -> Any:
            return value

        return call(f, {})

    assert result_of(Address("s")) == {"street": "s", "number": 1}
    assert "object" in result_of(object())
    assert result_of({1: "\ud800"}) == {"1": "?"}
    image = ImageResult(b"x", "image/png")
    assert result_of(image) is image
    assert result_of(["a", image]) == ["a", image]


def test_probe_answers() -> None:
    """True, False and None are answers; a crash or nonsense means "cannot tell", never "it did not happen"."""

    def answer(value: Any) -> ProbeAnswer:
        def probe(x: int, context: ToolContext) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        @tool(effect="irreversible", probe=probe)
        def f(x: int, y: str = "") -> None: ...

        assert f.has_probe
        return asyncio.run(f.probe({"x": 1}, CONTEXT))

    assert answer(True).happened is True
    assert answer(False).happened is False
    assert answer(None).happened is None
    assert answer(ProbeAnswer(True, Address("s"), "d")) == ProbeAnswer(True, {"street": "s", "number": 1}, "d")
    assert answer("no").happened is None
    assert answer(0).happened is None
    broken = answer(OSError("unreachable"))
    assert broken.happened is None
    assert "unreachable" in broken.detail

    @tool
    def without() -> None: ...

    assert asyncio.run(without.probe({}, CONTEXT)).happened is None


def test_undo_gets_arguments_result_and_context() -> None:
    """An undo takes those of arguments, result and context that it names; it may be async."""

    async def undo(x: int, result: Any, context: ToolContext) -> str:
        return f"undid {x} {result} {context.key}"

    @tool(effect="reversible", undo=undo, safe_undo=True)
    def f(x: int, y: int = 0) -> int:
        return x

    assert asyncio.run(f.undo({"x": 1}, {"r": 2}, CONTEXT)) == "undid 1 {'r': 2} key-1"
    assert f.spec.undo
    assert f.spec.safe_undo

    @tool
    def without() -> None: ...

    with pytest.raises(ToolError) as caught:
        asyncio.run(without.undo({}, None, CONTEXT))
    assert caught.value.definite


def test_pins() -> None:
    """Pins come as pairs or as Pin, from the arguments that the function names."""

    @tool(pins=lambda path: [(path, "digest"), Pin("other", "d2")])
    def f(path: str, x: int = 0) -> None: ...

    assert f.pins({"path": "p"}) == (Pin("p", "digest"), Pin("other", "d2"))
    assert everything.pins(GOOD) == ()


def test_spec() -> None:
    """The specification holds what votes and recovery need to know."""

    @tool(effect="idempotent", version="7", timeout_s=1.5, name="named", description="other")
    def f(x: int) -> None:
        """Text."""

    spec = f.spec
    assert (spec.name, spec.description, spec.effect, spec.version) == ("named", "other", "idempotent", "7")
    assert spec.timeout_ms == 1500
    assert not spec.probe


def test_toolbox() -> None:
    """A toolbox finds by name, suggests, refuses duplicates, and its digest ignores the order."""

    @tool
    def read_thing(x: int) -> None: ...

    @tool
    def write_thing(x: int) -> None: ...

    @tool(name="read_thing")
    def again(x: int) -> None: ...

    class Set:
        tools = (write_thing,)

    box = Toolbox([read_thing, Set()])
    assert list(box) == ["read_thing", "write_thing"]
    assert box.get("nothing") is None
    assert box.nearest("readthing") == "read_thing"
    assert box.nearest("zzz") == ""
    assert box.digest == Toolbox([write_thing, read_thing]).digest
    assert box.digest != Toolbox([read_thing]).digest
    with pytest.raises(ToolDefinitionError, match="two tools named 'read_thing'"):
        Toolbox([read_thing, again])
    with pytest.raises(ToolDefinitionError, match="Not a tool"):
        as_tools([3])


def test_errors_as_failures() -> None:
    """Only an error that says so is definite; an ordinary exception says nothing about how far it came."""
    assert failure_of(ToolError("m", kind="transient", definite=True, retry_after_s=2.0)).retry_after_s == 2.0
    assert failure_of(ToolError("m")).definite is False
    assert failure_of(ValueError("v")).definite is False
    assert failure_of(TimeoutError()).kind == "timeout"
    assert failure_of(ConnectionResetError()).kind == "transient"
    assert failure_of(asyncio.CancelledError()).kind == "cancelled"
    assert failure_of(ArgumentError("m")).definite is True


def test_import_is_lean() -> None:
    """Importing the package loads none of the built-in tools, nothing heavy, and few modules at all."""
    code = (
        "import sys, logact.env, logact.codec, logact.entry\n"
        "before = set(sys.modules)\nimport logact.tools\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    for heavy in ("urllib", "mcp", "http", "ctypes", "logact.tools.files", "logact.tools.shell"):
        assert heavy not in loaded
    assert len(loaded) < 60


def test_a_tool_may_use_what_is_defined_further_down() -> None:
    """A closure over a name that has no value yet is an ordinary function."""

    def look(place: str) -> str:
        """Look."""
        return later + place

    made = Tool(look, effect="read")
    later = "at "
    assert [one.name for one in made.arguments] == ["place"] and look("home") == "at home"
