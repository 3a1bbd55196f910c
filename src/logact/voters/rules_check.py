"""Finds rules that are wrong before any action meets them: unknown names, contradictions, rules that never decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from logact.entry import ToolSpec
from logact.errors import SpecError
from logact.voters.rules_history import Earlier, Same
from logact.voters.rules_rule import ActionRule, Matcher, nearest


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong with a rule. An ``error`` keeps the rules from being loaded; a ``warning`` does not."""

    code: Literal["unknown", "contradictory", "unreachable", "shadowed", "duplicate"]
    rule: str
    key: str
    message: str
    severity: Literal["error", "warning"] = "error"


def specs_of(tools: Iterable[Any]) -> tuple[ToolSpec, ...]:
    """Specifications from tools, toolboxes, functions, objects with ``.tools``, or specifications themselves."""
    from logact.tools.base import Toolbox, as_tools

    if isinstance(tools, Toolbox):
        return tools.specs()
    found: list[ToolSpec] = []
    for one in tools:
        found.extend([one] if isinstance(one, ToolSpec) else [tool.spec for tool in as_tools([one])])
    return tuple(found)


def check_rules(rules: Iterable[Any], tools: Iterable[Any] | None = None) -> list[Problem]:
    """What is wrong with these rules; with ``tools`` also unknown tools, arguments and impossible types."""
    listed = list(rules)
    specs = specs_of(tools) if tools is not None else None
    found: list[Problem] = []
    names: set[str] = set()
    for rule in listed:
        if rule.name in names:
            found.append(Problem(code="duplicate", rule=rule.name, key="name", message="two rules have this name"))
        names.add(rule.name)
        if isinstance(rule, ActionRule) and specs is not None:
            found.extend(_against(rule, specs))
    found.extend(_shadowed([rule for rule in listed if isinstance(rule, ActionRule)], specs))
    return found


def refuse_problems(problems: Sequence[Problem]) -> None:
    """Raise SpecError for the first error among them."""
    for one in problems:
        if one.severity == "error":
            raise SpecError(f"rule {one.rule!r}, {one.key}: {one.message}")


def _against(rule: ActionRule, specs: tuple[ToolSpec, ...]) -> list[Problem]:
    found = list(_matcher(rule, rule.matcher, "", specs))
    for condition in rule.history:
        if isinstance(condition, Earlier):
            key = condition.slot.rsplit("/", 1)[1]
            found.extend(_matcher(rule, condition.matcher, f"{key}.", specs))
        elif isinstance(condition, Same):
            known = _arguments([spec for spec in specs if rule.matcher.speaks_of(spec.name)])
            if known is not None and condition.argument[0] not in known:
                found.append(_unknown(rule, "same", condition.argument[0], known))
    if rule.expression is not None:
        known = _arguments([spec for spec in specs if rule.matcher.speaks_of(spec.name)])
        named = rule.expression.arguments if known is not None else []
        found.extend(_unknown(rule, "cel", name, known or set()) for name in named if name not in (known or ()))
    return found


def _matcher(rule: ActionRule, matcher: Matcher, key: str, specs: tuple[ToolSpec, ...]) -> Iterable[Problem]:
    names = [spec.name for spec in specs]
    for pattern in matcher.tools:
        if not any(fnmatchcase(name, pattern) for name in names):
            message = f"no tool is called {pattern!r}; known: {', '.join(sorted(names)) or 'none'}"
            yield Problem(
                code="unknown", rule=rule.name, key=f"{key}tool", message=_join(message, nearest(pattern, names))
            )
    meant = [spec for spec in specs if matcher.speaks_of(spec.name)]
    if not meant:
        return
    effects = {spec.effect for spec in meant}
    if matcher.effects and not effects & set(matcher.effects):
        message = f"its tools have the effects {', '.join(sorted(effects))}, so this can never match"
        yield Problem(code="contradictory", rule=rule.name, key=f"{key}effect", message=message)
    known = _arguments(meant)
    for condition in matcher.arguments:
        name = condition.path[0] if condition.name not in (known or ()) else condition.name
        if known is not None and name not in known:
            yield _unknown(rule, f"{key}arguments", name, known)
            continue
        schemas = [_schema(spec, name) for spec in meant]
        schemas = [one for one in schemas if one]
        if len(condition.path) == 1 and schemas and not any(_fits(condition.table, one) for one in schemas):
            message = f"this can never match a value of type {schemas[0].get('type', 'this')}: {condition.table!r}"
            if "enum" in schemas[0]:
                message += f"; known values: {schemas[0]['enum']!r}"
            yield Problem(code="contradictory", rule=rule.name, key=f"{key}arguments.{name}", message=message)


def _arguments(specs: Iterable[ToolSpec]) -> set[str] | None:
    """The names of these tools' arguments; None if one of them takes any."""
    found: set[str] = set()
    for spec in specs:
        if "properties" not in spec.parameters or spec.parameters.get("additionalProperties") not in (None, False):
            return None
        found |= set(spec.parameters["properties"])
    return found


def _schema(spec: ToolSpec, name: str) -> Mapping[str, Any]:
    found = spec.parameters.get("properties", {}).get(name, {})
    return found if isinstance(found, Mapping) else {}


_TYPES: dict[str, Any] = {
    "string": str,
    "integer": (int, float),
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
_NEEDS = {"min": "number", "max": "number", "above": "number", "below": "number"}
_NEEDS |= dict.fromkeys(
    ("full", "search", "under", "same_path", "host", "scheme", "port", "url_path", "email_domain"), "string"
)


def _fits(table: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether some value of this schema could satisfy these operators, as far as the schema says."""
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        return True
    if kind == "array":
        items = schema.get("items")
        each = {word: value for word, value in table.items() if word in _NEEDS or word == "one_of"}
        if "equals" in table and not isinstance(table["equals"], list):
            return False
        return not isinstance(items, Mapping) or not each or _fits(each, items)
    for word, value in table.items():
        need = _NEEDS.get(word.removeprefix("not_"))
        if need == "number" and kind not in ("integer", "number"):
            return False
        if need == "string" and kind != "string":
            return False
        wanted = [value] if word == "equals" else value if word == "one_of" else None
        if wanted is not None and not any(_possible(one, kind, schema) for one in wanted):
            return False
    return True


def _possible(value: Any, kind: str, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float) and not value.is_integer():
        return False
    return isinstance(value, _TYPES[kind])


def _unknown(rule: ActionRule, key: str, name: str, known: set[str]) -> Problem:
    message = f"no argument {name!r} in its tools; known: {', '.join(sorted(known)) or 'none'}"
    return Problem(code="unknown", rule=rule.name, key=key, message=_join(message, nearest(name, known)))


def _join(message: str, todo: str) -> str:
    return f"{message}. {todo.capitalize()}" if todo else message


# --- rules that never decide -------------------------------------------------------------------------------------

_FORCE = {"deny": 0, "allow": 1, "ask": 2}


def _shadowed(rules: list[ActionRule], specs: tuple[ToolSpec, ...] | None) -> Iterable[Problem]:
    order = sorted(range(len(rules)), key=lambda place: (_FORCE[rules[place].decision], place))
    for later, place in enumerate(order):
        rule = rules[place]
        for before in order[:later]:
            other = rules[before]
            if other.unconditional and _covers(other.matcher, rule.matcher, specs):
                same = other.decision == rule.decision
                yield Problem(
                    code="shadowed" if same else "unreachable",
                    rule=rule.name,
                    key="tool",
                    message=f"it never decides: rule {other.name!r} ({other.decision}) goes first for all of it",
                    severity="warning",
                )
                break


def _covers(wide: Matcher, narrow: Matcher, specs: tuple[ToolSpec, ...] | None) -> bool:
    if wide.effects and (not narrow.effects or not set(narrow.effects) <= set(wide.effects)):
        return False
    if wide.agents and (not narrow.agents or not all(_within(one, wide.agents) for one in narrow.agents)):
        return False
    if specs is not None:
        return all(wide.speaks_of(spec.name) for spec in specs if narrow.speaks_of(spec.name))
    return all(_within(one, wide.tools) for one in narrow.tools)


def _within(pattern: str, patterns: Sequence[str]) -> bool:
    plain = not set(pattern) & set("*?[")
    return any(one in (pattern, "*") or (plain and fnmatchcase(pattern, one)) for one in patterns)
