"""Tools: functions with declared effects, checked arguments, and ways to settle a doubt.

``@tool`` turns a typed function into a :class:`Tool`. What is not declared is assumed to be the worst: a tool
without an effect is irreversible. This module never decides whether a tool may run, and writes no log; time
limits (``timeout_s``) are enforced by whoever calls :meth:`Tool.call`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from logact import env as environment
from logact.codec import digest_of
from logact.entry import EFFECTS, Effect, Pin, ToolSpec
from logact.env_guest import guest, said
from logact.errors import ToolDefinitionError
from logact.tools import schema
from logact.tools.answers import FailureKind, ImageResult, ProbeAnswer, ToolContext, ToolError, failure_of
from logact.tools.docstring import read_docstring
from logact.tools.returned import returned

__all__ = [
    "FailureKind",
    "ImageResult",
    "ProbeAnswer",
    "Tool",
    "ToolContext",
    "ToolError",
    "Toolbox",
    "as_tools",
    "failure_of",
    "tool",
]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what all providers accept


class Tool:
    """A function that an agent may ask for. Calling the object calls the function, without any log."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        effect: Effect | None = None,
        name: str = "",
        description: str = "",
        version: str = "1",
        timeout_s: float | None = None,
        probe: Callable[..., Any] | None = None,
        undo: Callable[..., Any] | None = None,
        safe_undo: bool = False,
        pins: Callable[..., Any] | None = None,
        untrusted: bool = False,
        destinations: Sequence[str] = (),
        content: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """See :func:`tool`. ``parameters`` is the schema of a tool that comes from elsewhere. Its function takes
        the arguments as one dictionary and the context, since their names are not ours; ``check`` then knows only
        names, presence and plain types, and the source checks the rest.
        """
        self.name = name or getattr(function, "__name__", "")
        if not _NAME.fullmatch(self.name):
            raise ToolDefinitionError(
                "A tool needs a name that models can call",
                received=repr(self.name),
                expected="1 to 64 of the characters a-z, A-Z, 0-9, _ and -",
                todo="pass name=",
            )
        self.function = function
        self.declared = effect is not None
        self.effect: Effect = effect or "irreversible"
        self.version = version
        self.timeout_s = timeout_s
        self.safe_undo = safe_undo
        self.untrusted = untrusted
        self.destinations = tuple(destinations)
        self.content = tuple(content)
        text, per_argument = read_docstring(inspect.getdoc(function))
        self.description = description or text
        self._open = parameters is not None
        if parameters is not None:
            self.arguments: tuple[schema.Argument, ...] = ()
            self._context_name = ""
            self.parameters: dict[str, Any] = dict(parameters)
        else:
            self.arguments, self._context_name = schema.arguments_of(function, self.name, ToolContext, per_argument)
            self.parameters = schema.object_schema(self.arguments)
        self._run = _Callback(function, self, "call", whole=self._open)
        self._probe = _Callback(probe, self, "probe") if probe else None
        self._undo = _Callback(undo, self, "undo", extra="result") if undo else None
        self._pins = _Callback(pins, self, "pins") if pins else None
        self._check_declaration()
        functools.update_wrapper(self, function, updated=())
        self.inner: Tool | None = None  # what this one stands before
        self.lent = False  # put among an agent's tools by a swarm, which says nothing of the agent

    def plain(self) -> Tool:
        """The tool as it was made, without what stands before it."""
        return self.inner.plain() if self.inner is not None else self

    def has_before(self, kind: type[Tool]) -> bool:
        """Whether something of a kind stands before the tool as it was made."""
        return isinstance(self, kind) or (self.inner is not None and self.inner.has_before(kind))

    @property
    def has_probe(self) -> bool:
        """Whether it can be asked if its effect happened."""
        return self._probe is not None

    @property
    def in_thread(self) -> bool:
        """Whether its function is a plain one, which runs in a worker thread that nobody can interrupt."""
        return not self._run.is_async

    @property
    def has_undo(self) -> bool:
        """Whether its effect can be taken back."""
        return self._undo is not None

    @property
    def spec(self) -> ToolSpec:
        """The tool as the log and the model see it."""
        return ToolSpec(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            effect=self.effect,
            version=self.version,
            probe=self.has_probe,
            undo=self.has_undo,
            safe_undo=self.safe_undo,
            timeout_ms=round((self.timeout_s or 0) * 1000),
        )

    def check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as they will be logged and voted on: checked, with defaults filled in, as plain JSON.

        Defaults are filled in so that an approval binds to them too. Raises ``ArgumentError``.
        """
        if self._open:
            return schema.check_open(arguments, self.parameters, self.name)
        values = schema.convert(arguments, self.arguments, self.name)
        return {name: schema.plain(value) for name, value in values.items() if _loggable(value)}

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """Run it. Returns plain JSON data, or an :class:`ImageResult` (also inside of a list).

        Plain functions run in a thread. What the function raises comes through, but for what would end the process
        or the loop (``env_guest``). A value that JSON cannot hold becomes text (``returned``): the effect has
        happened, so a strange result must not look like a failure.
        """
        return returned(await self._run(self._typed(arguments), context))

    async def probe(self, arguments: dict[str, Any], context: ToolContext) -> ProbeAnswer:
        """Ask whether the effect happened. Never raises: a probe that fails has answered "cannot tell"."""
        if self._probe is None:
            return ProbeAnswer(None, detail=f"{self.name} declares no probe")
        try:
            answer = await self._probe(self._typed(arguments), context)
        except Exception as error:
            return ProbeAnswer(None, detail=f"the probe failed: {said(error)}")
        if isinstance(answer, ProbeAnswer):
            return ProbeAnswer(answer.happened, returned(answer.value), answer.detail)
        if answer is None or isinstance(answer, bool):
            return ProbeAnswer(answer)
        return ProbeAnswer(None, detail=f"the probe answered {schema.short(answer)} instead of True, False or None")

    async def undo(self, arguments: dict[str, Any], result: Any, context: ToolContext) -> str:
        """Take the effect back; returns what was done, in words. What the undo raises comes through."""
        if self._undo is None:
            raise ToolError(f"{self.name} declares no undo", kind="permanent", definite=True)
        answer = await self._undo(self._typed(arguments), context, result)
        return answer if isinstance(answer, str) else "" if answer is None else schema.short(answer)

    def pins(self, arguments: dict[str, Any]) -> tuple[Pin, ...]:
        """What an approval of this call depends on beyond its arguments, with digests. Blocking."""
        if self._pins is None:
            return ()
        found = self._pins.now(self._typed(arguments), ToolContext())
        return tuple(pin if isinstance(pin, Pin) else Pin(*pin) for pin in found or ())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name} ({self.effect})>"

    def _typed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._open:
            return dict(arguments)
        return schema.convert(arguments, self.arguments, self.name)

    def _check_declaration(self) -> None:
        wrong = ""
        names = set(self.parameters.get("properties", ()))
        if self.effect not in EFFECTS:
            wrong, received, expected = "an effect that does not exist", repr(self.effect), ", ".join(EFFECTS)
        elif self.effect == "reversible" and not self.has_undo:
            wrong, received, expected = "no undo, but is declared reversible", "no undo=", "undo=function"
        elif self.effect == "read" and self.has_undo:
            wrong, received, expected = "an undo, but only reads", "effect='read'", "another effect, or no undo"
        elif self.safe_undo and not self.has_undo:
            wrong, received, expected = "no undo that could be safe", "safe_undo=True", "undo=function"
        elif self.timeout_s is not None and not self.timeout_s > 0:
            wrong, received, expected = "a useless time limit", repr(self.timeout_s), "seconds above 0"
        elif unknown := [name for name in (*self.destinations, *self.content) if name not in names]:
            wrong, received, expected = "marks for arguments it does not have", ", ".join(unknown), ", ".join(names)
        if wrong:
            raise ToolDefinitionError(
                f"The tool {self.name!r} has {wrong}",
                received=received,
                expected=expected,
                todo="correct its declaration",
            )


class _Callback:
    """A tool's function, probe, undo or pins: called with those of the tool's arguments that it names."""

    def __init__(
        self, function: Callable[..., Any], owner: Tool, role: str, *, extra: str = "", whole: bool = False
    ) -> None:
        if not callable(function):
            raise ToolDefinitionError(f"The {role} of {owner.name!r} is no function", received=schema.short(function))
        self.function = function
        inner = function.function if isinstance(function, Tool) else function
        self.is_async = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
            getattr(type(inner), "__call__", None)  # noqa: B004 - the method itself is wanted
        )
        self.whole = whole
        self.all_names = False
        self.extra = extra
        self.context = ""
        self.names: list[str] = []
        if whole:
            return
        known = {argument.name for argument in owner.arguments} | set(owner.parameters.get("properties", ()))
        hints = schema.hints_of(inner, owner.name, ToolContext)
        for parameter in inspect.signature(inner).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self.all_names = True
            elif hints.get(parameter.name) is ToolContext or parameter.name == owner._context_name:
                self.context = parameter.name
            elif parameter.name in known or (extra and parameter.name == extra):
                self.names.append(parameter.name)
            elif parameter.default is parameter.empty and not self.all_names:
                raise ToolDefinitionError(
                    f"The {role} of {owner.name!r} wants a parameter that nobody gives",
                    received=str(parameter),
                    expected=f"some of {', '.join(sorted(known))}, {extra + ', ' if extra else ''}or a ToolContext",
                    todo="name it as the tool's own argument",
                )

    def _bind(self, values: dict[str, Any], context: ToolContext, extra: Any) -> dict[str, Any]:
        bound = dict(values) if self.all_names else {name: values[name] for name in self.names if name in values}
        if self.extra and (self.all_names or self.extra in self.names):
            bound[self.extra] = extra
        if self.context:
            bound[self.context] = context
        return bound

    async def __call__(self, values: dict[str, Any], context: ToolContext, extra: Any = None) -> Any:
        bound = {} if self.whole else self._bind(values, context, extra)
        with guest():
            if self.whole:
                return await self.function(values, context)
            if self.is_async:
                return await self.function(**bound)
            answer = await environment.current().in_thread(self.function, **bound)
            return await answer if inspect.isawaitable(answer) else answer

    def now(self, values: dict[str, Any], context: ToolContext) -> Any:
        """Call it here and now, blocking."""
        with guest():
            return self.function(**self._bind(values, context, None))


def _loggable(value: Any) -> bool:
    """Whether JSON holds it. A default that it cannot hold is left out; the call fills it in again."""
    try:
        msgspec.json.encode(schema.plain(value))
    except (TypeError, ValueError):
        return False
    return True


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    function: None = None,
    /,
    *,
    effect: Effect | None = None,
    name: str = "",
    description: str = "",
    version: str = "1",
    timeout_s: float | None = None,
    probe: Callable[..., Any] | None = None,
    undo: Callable[..., Any] | None = None,
    safe_undo: bool = False,
    pins: Callable[..., Any] | None = None,
    untrusted: bool = False,
    destinations: Sequence[str] = (),
    content: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function. Usable bare (``@tool``) or with options (``@tool(effect="read")``).

    ``effect`` is ``read``, ``idempotent`` (doing it twice is doing it once), ``reversible`` (has an ``undo``) or
    ``irreversible``, which is also what an undeclared one means. ``probe`` answers whether the effect happened;
    ``undo`` takes it back, and may take the parameter ``result``; ``safe_undo`` says that it does no harm where
    nothing happened. ``pins`` gives ``(path, digest)`` pairs that an approval depends on. All three take those of
    the tool's arguments that they name, and a :class:`ToolContext`. ``untrusted`` marks results that strangers
    can write. ``destinations`` and ``content`` name the arguments that say where data goes, and what goes there.

    Raises :class:`ToolDefinitionError`.
    """
    if function is not None:
        return Tool(function, **options)
    return lambda decorated: Tool(decorated, **options)


def as_tools(items: Iterable[Any]) -> list[Tool]:
    """Tools from tools, plain functions (then irreversible), and objects that have ``.tools``."""
    found: list[Tool] = []
    for item in items:
        if isinstance(item, Tool):
            found.append(item)
        elif isinstance(getattr(item, "tools", None), Iterable):
            found.extend(as_tools(item.tools))
        elif callable(item):
            found.append(Tool(item))
        else:
            raise ToolDefinitionError(
                "Not a tool",
                received=schema.short(item),
                expected="a tool, a typed function, or an object with .tools",
            )
    return found


class Toolbox(Mapping[str, Tool]):
    """The tools of an agent by name. Two tools of one name are refused."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for item in as_tools(items):
            if item.name in self._tools:
                raise ToolDefinitionError(
                    f"There are two tools named {item.name!r}",
                    received=f"{_origin(self._tools[item.name])} and {_origin(item)}",
                    expected="one tool for each name",
                    todo="rename one with name=",
                )
            self._tools[item.name] = item
        self._digest = ""

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def specs(self) -> tuple[ToolSpec, ...]:
        """The specifications of all tools, sorted by name."""
        return tuple(self._tools[name].spec for name in sorted(self._tools))

    @property
    def digest(self) -> str:
        """A digest of all specifications: the same for the same tools, whatever their order."""
        if not self._digest:
            self._digest = digest_of(self.specs())
        return self._digest

    def add(self, tool: Tool) -> None:
        """One more tool, of a name that is new, for whoever holds this toolbox."""
        self._tools[tool.name] = tool
        self._digest = ""

    def put_before(self, before: Callable[[Tool], Tool]) -> None:
        """Put something before each tool, for whoever holds this toolbox; names and specifications stay."""
        self._tools = {name: before(tool) for name, tool in self._tools.items()}

    def nearest(self, name: str) -> str:
        """The known name that looks most like ``name``; "" if none does."""
        found = difflib.get_close_matches(name, self._tools, n=1, cutoff=0.6)
        return found[0] if found else ""


def _origin(item: Tool) -> str:
    return f"{getattr(item.function, '__module__', '?')}.{getattr(item.function, '__qualname__', item.name)}"
