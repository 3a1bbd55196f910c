"""Types to JSON Schema, and a model's arguments to checked values.

This module owns the shape of a tool's arguments. It never calls the tool.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from logact.errors import ArgumentError, ToolDefinitionError

NESTING_MAX = 64
"""How deep a model's arguments may be nested; deeper ones are nonsense, or an attack on a recursive reader."""

_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1  # what every reader of the log can hold
_MISSING = inspect.Parameter.empty


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One argument as the model sees it. ``default`` is ``inspect.Parameter.empty`` where it must be given."""

    name: str
    type: Any
    schema: dict[str, Any]
    default: Any = _MISSING

    @property
    def required(self) -> bool:
        """Whether the model has to give it."""
        return self.default is _MISSING


def arguments_of(
    function: Callable[..., Any], tool: str, context_type: type, descriptions: Mapping[str, str]
) -> tuple[tuple[Argument, ...], str]:
    """The arguments that a function takes, and the name of its context parameter ("" if it has none).

    Raises :class:`ToolDefinitionError` for a parameter that cannot be offered to a model.
    """
    hints = hints_of(function, tool, context_type)
    context = ""
    kept: list[tuple[str, Any, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolDefinitionError(
                f"The tool {tool!r} has a parameter that a model cannot name",
                received=str(parameter),
                expected="parameters that can be passed by name",
                todo="give each argument its own named and typed parameter",
            )
        if parameter.name not in hints:
            raise ToolDefinitionError(
                f"The parameter {parameter.name!r} of the tool {tool!r} has no type",
                received=str(parameter),
                expected=f"a type, such as {parameter.name}: str",
                todo="annotate it, so that what a model sends can be checked before anything happens",
            )
        annotation = hints[parameter.name]
        if annotation is context_type or context_type in typing.get_args(annotation):
            context = parameter.name
        else:
            kept.append((parameter.name, annotation, parameter.default))
    schemas = _schemas([annotation for _, annotation, _ in kept], [name for name, _, _ in kept], tool)
    arguments = []
    for (name, annotation, default), schema in zip(kept, schemas, strict=True):
        full = dict(schema)
        if descriptions.get(name):
            full["description"] = descriptions[name]
        if default is not _MISSING:
            try:
                full["default"] = plain(default)
            except (TypeError, ValueError):
                pass  # a default that JSON cannot show still works; the model just isn't told about it
        arguments.append(Argument(name=name, type=annotation, schema=full, default=default))
    return tuple(arguments), context


def hints_of(function: Callable[..., Any], tool: str, context_type: type) -> dict[str, Any]:
    """The function's type hints, resolved. Names only known while type checking make it fail, with advice."""
    target = function if inspect.isroutine(function) else type(function).__call__
    known = {context_type.__name__: context_type} | _enclosed(inspect.unwrap(target))
    try:
        return typing.get_type_hints(target, localns=known, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ToolDefinitionError(
            f"The types of the tool {tool!r} cannot be read",
            received=str(error),
            expected="types that are importable where the function is defined",
            todo="define or import them at the module's top level",
        ) from error


def _enclosed(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function takes from the functions around it, where it has a value already."""
    found = {}
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            pass  # it is defined further down
    return found


def object_schema(arguments: tuple[Argument, ...]) -> dict[str, Any]:
    """The JSON Schema of all arguments together: one closed object."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {argument.name: argument.schema for argument in arguments},
        "required": [argument.name for argument in arguments if argument.required],
        "additionalProperties": False,
    }
    shared: dict[str, Any] = {}
    for argument in arguments:
        shared |= argument.schema.pop("$defs", {})
    return schema | {"$defs": shared} if shared else schema


def convert(arguments: Mapping[str, Any], expected: tuple[Argument, ...], tool: str) -> dict[str, Any]:
    """The typed values of a model's arguments, defaults filled in.

    Raises :class:`ArgumentError` that names the argument, what was received and what was expected.
    """
    if not isinstance(arguments, Mapping):
        raise ArgumentError(
            f"The arguments of {tool!r} are not an object",
            received=type(arguments).__name__,
            expected="an object with a value for each argument",
        )
    names = {argument.name for argument in expected}
    for name in arguments:
        if name not in names:
            raise ArgumentError(
                f"{tool!r} has no argument {name!r}",
                received=short(name),
                expected=f"only {', '.join(sorted(names)) or 'an empty object'}",
                todo="leave it out or correct its name",
            )
    values: dict[str, Any] = {}
    for argument in expected:
        if argument.name not in arguments:
            if argument.required:
                raise ArgumentError(
                    f"The argument {argument.name!r} of {tool!r} is missing",
                    received=f"only {', '.join(map(str, arguments)) or 'an empty object'}",
                    expected=f"{argument.name}: {describe(argument.schema)}",
                )
            values[argument.name] = argument.default
            continue
        given = arguments[argument.name]
        _sane(given, argument.name, tool)
        _known(given, argument.schema, argument.name, tool)
        try:
            values[argument.name] = msgspec.convert(given, argument.type, strict=True, dec_hook=_decode)
        except (msgspec.ValidationError, RecursionError) as error:
            text, _, place = str(error).partition(" - at `$")
            where = argument.name + place.rstrip("`")
            raise ArgumentError(
                f"The argument {where!r} of {tool!r} does not fit: {text}",
                received=short(given),
                expected=f"{argument.name}: {describe(argument.schema)}",
            ) from error
    return values


def check_open(arguments: Mapping[str, Any], schema: Mapping[str, Any], tool: str) -> dict[str, Any]:
    """Arguments of a tool whose schema comes from elsewhere: names, presence and plain types are checked here.

    What the schema says beyond that is for its source to check.
    """
    if not isinstance(arguments, Mapping):
        raise ArgumentError(
            f"The arguments of {tool!r} are not an object",
            received=type(arguments).__name__,
            expected="an object with a value for each argument",
        )
    properties: Mapping[str, Any] = schema.get("properties", {})
    closed = schema.get("additionalProperties") is False or (properties and "additionalProperties" not in schema)
    for name, value in arguments.items():
        _sane(value, str(name), tool)
        if name not in properties:
            if closed:
                raise ArgumentError(
                    f"{tool!r} has no argument {name!r}",
                    received=short(name),
                    expected=f"only {', '.join(properties)}",
                )
            continue
        kinds = properties[name].get("type") if isinstance(properties[name], Mapping) else None
        if isinstance(kinds, str) and kinds in _JSON_TYPES and not _is_a(value, kinds):
            raise ArgumentError(
                f"The argument {name!r} of {tool!r} does not fit", received=short(value), expected=f"{name}: {kinds}"
            )
    for name in schema.get("required", ()):
        if name not in arguments:
            raise ArgumentError(
                f"The argument {name!r} of {tool!r} is missing",
                received=f"only {', '.join(map(str, arguments)) or 'an empty object'}",
                expected=f"{name}: {describe(properties.get(name, {}))}",
            )
    return dict(arguments)


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, _JSON_TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def plain(value: Any) -> Any:
    """A value as JSON knows it: structs, dataclasses, enums and paths become objects and strings."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode)


def short(value: Any, characters_max: int = 80) -> str:
    """A value as text for an error message."""
    text = repr(value)
    return text if len(text) <= characters_max else f"{text[:characters_max]}... ({len(text)} characters)"


def describe(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, for error messages."""
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(describe(branch) for branch in schema["anyOf"])
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {describe(schema['items'])}"
    if schema.get("type") == "object" and "properties" in schema:
        return f"object with {', '.join(schema['properties'])}"
    limits = [f"{word} {schema[key]}" for key, word in _LIMITS.items() if key in schema]
    return " ".join([str(schema.get("type", "any value")), *limits])


_LIMITS = {
    "minimum": "of at least",
    "maximum": "of at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "minLength": "of at least this length:",
    "maxLength": "of at most this length:",
    "pattern": "matching",
}


# --- inner parts ------------------------------


def _schemas(types: list[Any], names: list[str], tool: str) -> list[dict[str, Any]]:
    schemas = []
    for name, annotation in zip(names, types, strict=True):
        try:
            (schema,), components = msgspec.json.schema_components(
                [annotation], schema_hook=_schema, ref_template="#/$defs/{name}"
            )
            # building a decoder is what finds unions that could not be told apart
            msgspec.json.Decoder(annotation, dec_hook=_decode)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ToolDefinitionError(
                f"The type of the parameter {name!r} of the tool {tool!r} cannot be sent by a model",
                received=(str(error).splitlines() or [repr(annotation)])[-1],
                expected="str, int, float, bool, list, dict, Literal, Enum, a msgspec.Struct or a dataclass",
                todo="use such a type and convert inside the function",
            ) from error
        cyclic: dict[str, Any] = {}
        inlined = _inline(schema, components, (), cyclic)
        schemas.append(inlined | {"$defs": cyclic} if cyclic else inlined)
    return schemas


def _inline(schema: Any, components: dict[str, Any], inside: tuple[str, ...], cyclic: dict[str, Any]) -> Any:
    """Replaces references by what they name, as many providers read none; only recursive types keep theirs."""
    if isinstance(schema, list):
        return [_inline(item, components, inside, cyclic) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in inside:
            if name not in cyclic:
                cyclic[name] = {}  # first, so that the recursion ends
                cyclic[name] = _inline(components[name], components, (*inside, name), cyclic)
            return {"$ref": schema["$ref"]}
        return _inline(components[name], components, (*inside, name), cyclic)
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "properties":
            result[key] = {name: _inline(part, components, inside, cyclic) for name, part in value.items()}
        else:
            result[key] = value if key in ("default", "enum") else _inline(value, components, inside, cyclic)
    if "properties" in result and result.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


def _sane(value: Any, where: str, tool: str, depth: int = 0) -> None:
    """Refuses what JSON, the log or a recursive reader could not hold."""
    wrong = ""
    if isinstance(value, float) and not math.isfinite(value):
        wrong = "a finite number"
    elif isinstance(value, int) and not _INTEGER_MIN <= value <= _INTEGER_MAX:
        wrong = "an integer of at most 64 bits"
    elif isinstance(value, str) and not _is_unicode(value):
        wrong = "text without lone surrogates"
    elif depth > NESTING_MAX:
        wrong = f"at most {NESTING_MAX} levels of nesting"
    if wrong:
        received = short(value) if depth <= NESTING_MAX else "a deeper value"
        raise ArgumentError(f"The argument {where!r} of {tool!r} cannot be used", received=received, expected=wrong)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or not _is_unicode(key):
                raise ArgumentError(
                    f"The argument {where!r} of {tool!r} cannot be used", received=short(key), expected="text as keys"
                )
            _sane(item, f"{where}.{key}", tool, depth + 1)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _sane(item, f"{where}[{place}]", tool, depth + 1)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _known(value: Any, schema: Mapping[str, Any], where: str, tool: str) -> None:
    """Refuses unknown fields inside of structs: msgspec would drop them, and the model would not learn of it."""
    branches = schema.get("anyOf", [schema])
    if isinstance(value, Mapping):
        objects = [branch for branch in branches if branch.get("type") == "object" or not branch or "$ref" in branch]
        if not objects or any(branch.get("additionalProperties") is not False for branch in objects):
            return
        fields: dict[str, Any] = {}
        for branch in objects:
            fields |= branch.get("properties", {})
        for key, item in value.items():
            if key not in fields:
                raise ArgumentError(
                    f"{tool!r} has no argument '{where}.{key}'",
                    received=short(key),
                    expected=f"only {', '.join(fields)}",
                    todo="leave it out or correct its name",
                )
            _known(item, fields[key], f"{where}.{key}", tool)
    elif isinstance(value, list):
        items = [branch["items"] for branch in branches if isinstance(branch.get("items"), dict)]
        if len(items) == 1:
            for place, item in enumerate(value):
                _known(item, items[0], f"{where}[{place}]", tool)


def _schema(cls: type) -> dict[str, Any]:
    if issubclass(cls, PurePath):
        return {"type": "string"}
    raise NotImplementedError(f"{cls!r} has no JSON form")


def _decode(cls: type, value: Any) -> Any:
    if issubclass(cls, PurePath):
        if not isinstance(value, str):
            raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")
        return cls(value)
    raise NotImplementedError(f"{cls!r} has no JSON form")


def _encode(value: Any) -> Any:
    if isinstance(value, Path | PurePath):
        return str(value)
    raise TypeError(f"{type(value)!r} has no JSON form")
