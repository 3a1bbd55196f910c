"""Conditions on arguments: from a table such as ``{path = {under = "data"}}`` to a test, checked when it is made.

A condition holds, fails, or cannot be told (the value is missing or unreadable). What cannot be told counts as
the reading that permits less: it holds in a rule that denies or asks, and fails in a rule that allows. Lists
are judged by element in the same spirit: one is enough to deny, all are needed to allow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from logact.errors import SpecError
from logact.voters.rules_values import domain_of, host_matches, host_of, is_under, place_of, same, url_of

MISSING: Any = object()
Told = bool | None
Test = Callable[[Any, bool], Told]
"""A test of one value; the second argument says whether links may be resolved on disk."""

TEXT_CHARS_MAX = 100_000
"""The longest text that a regular expression is tried on; longer ones cannot be told."""


def refuse(rule: str, key: str, what: str, *, received: Any = None, expected: str = "", todo: str = "") -> SpecError:
    """The error for a rule that cannot be loaded; it names the rule and the key."""
    return SpecError(f"rule {rule!r}, {key}: {what}", received=received, expected=expected, todo=todo)


def text_list(rule: str, key: str, value: Any) -> tuple[str, ...]:
    """One text or a list of texts, none of them empty."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple | set) else ()
    if not found or not all(isinstance(one, str) and one for one in found):
        raise refuse(
            rule, key, "this can never match", received=repr(value), expected="a text, or a list of at least one"
        )
    return found


def _number(rule: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        raise refuse(rule, key, "not a number", received=repr(value), expected="a number")
    return value


def _compare(operator: str, bound: float) -> Test:
    def test(value: Any, _: bool) -> Told:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
            return None
        if operator == "min":
            return value >= bound
        if operator == "max":
            return value <= bound
        return value > bound if operator == "above" else value < bound

    return test


def _regex(rule: str, key: str, value: Any, *, whole: bool) -> Test:
    if not isinstance(value, str) or not value:
        raise refuse(rule, key, "not a regular expression", received=repr(value), expected="a text")
    try:
        compiled = re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise refuse(rule, key, f"this regular expression cannot compile ({error})", received=value) from error
    match = compiled.fullmatch if whole else compiled.search

    def test(value: Any, _: bool) -> Told:
        if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX:
            return None
        return match(value) is not None

    return test


def _one_of(rule: str, key: str, value: Any) -> Test:
    if not isinstance(value, list | tuple | set | frozenset) or not value:
        raise refuse(rule, key, "an empty set can never match", received=repr(value), expected="a list of values")
    plain = {one for one in value if isinstance(one, str)}
    others = [one for one in value if not isinstance(one, str)]
    return lambda found, _: found in plain if isinstance(found, str) else any(same(found, one) for one in others)


def _under(rule: str, key: str, value: Any, root: str) -> Test:
    directories = text_list(rule, key, value)
    placed = [place_of(one, root) for one in directories]
    lexical = [place_of(one, root, resolve=False) for one in directories]
    if None in placed or None in lexical:
        raise refuse(rule, key, "not a path", received=repr(value), expected="a path without ~")

    def test(found: Any, resolve: bool) -> Told:
        place = place_of(found, root, resolve=resolve)
        if place is None:
            return None
        return any(is_under(place, one) for one in (placed if resolve else lexical) if one)

    return test


def _same_path(rule: str, key: str, value: Any, root: str) -> Test:
    wanted = text_list(rule, key, value)

    def test(found: Any, resolve: bool) -> Told:
        place = place_of(found, root, resolve=resolve)
        return None if place is None else any(place == place_of(one, root, resolve=resolve) for one in wanted)

    return test


def _hosts(rule: str, key: str, value: Any) -> tuple[str, ...]:
    patterns = tuple(one.lower().removesuffix(".") for one in text_list(rule, key, value))
    for one in patterns:
        bare = one.replace("*", "x").replace("?", "x")
        if ("[" in one and ":" not in one) or (host_of(bare) is None and "." in bare) or "/" in one or "@" in one:
            raise refuse(
                rule, key, "not a host", received=one, expected="a host such as api.example.com, *.example.com"
            )
    return tuple((host_of(one) or one) if not one.isascii() and "*" not in one else one for one in patterns)


def _host(rule: str, key: str, value: Any) -> Test:
    patterns = _hosts(rule, key, value)

    def test(found: Any, _: bool) -> Told:
        url = url_of(found)
        return None if url is None else host_matches(url.host, patterns)

    return test


def _email(rule: str, key: str, value: Any) -> Test:
    patterns = _hosts(rule, key, value)

    def test(found: Any, _: bool) -> Told:
        domain = domain_of(found)
        return None if domain is None else host_matches(domain, patterns)

    return test


def _url_part(rule: str, key: str, value: Any, part: str) -> Test:
    if part == "port":
        ports = value if isinstance(value, list | tuple) else [value]
        if not ports or not all(isinstance(one, int) and 0 < one < 65536 for one in ports):
            raise refuse(rule, key, "not a port", received=repr(value), expected="1 to 65535, or a list of these")
        wanted: Any = set(ports)
    else:
        wanted = tuple(one.lower() if part == "scheme" else one for one in text_list(rule, key, value))

    def test(found: Any, _: bool) -> Told:
        url = url_of(found)
        if url is None:
            return None
        if part == "port":
            return bool(url.port in wanted)
        if part == "scheme":
            return bool(url.scheme in wanted)
        return any(fnmatchcase(url.path, str(one)) for one in wanted)

    return test


def _length(rule: str, key: str, value: Any, *, at_least: bool) -> Test:
    bound = value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise refuse(rule, key, "not a length", received=repr(value), expected="a whole number from 0")

    def test(found: Any, _: bool) -> Told:
        if not isinstance(found, str | list | dict):
            return None
        return bool(len(found) >= bound if at_least else len(found) <= bound)

    return test


def _contains(value: Any) -> Test:
    def test(found: Any, _: bool) -> Told:
        if isinstance(found, str):
            return value in found if isinstance(value, str) else None
        if isinstance(found, list):
            return any(same(one, value) for one in found)
        return value in found if isinstance(found, dict) else None

    return test


BY_ELEMENT = (
    "one_of", "full", "search", "min", "max", "above", "below", "under", "same_path", "host", "scheme", "port",
    "url_path", "email_domain",
)  # fmt: skip
WHOLE = ("equals", "contains", "min_length", "max_length", "present")
NEGATED = ("equals", "one_of", "full", "search", "under", "same_path", "host", "scheme", "email_domain", "contains")
OPERATORS = (*BY_ELEMENT, *WHOLE, *(f"not_{one}" for one in NEGATED))
"""Every operator that an argument's table may hold."""


def operator(rule: str, key: str, name: str, value: Any, root: str) -> Test:
    """The test of one positive operator. Raises SpecError for what can never match."""
    if name == "equals":
        return lambda found, _: same(found, value)
    if name == "contains":
        return _contains(value)
    if name == "one_of":
        return _one_of(rule, key, value)
    if name in ("full", "search"):
        return _regex(rule, key, value, whole=name == "full")
    if name in ("min", "max", "above", "below"):
        return _compare(name, _number(rule, key, value))
    if name in ("min_length", "max_length"):
        return _length(rule, key, value, at_least=name == "min_length")
    if name in ("under", "same_path"):
        return (_under if name == "under" else _same_path)(rule, key, value, root)
    if name == "host":
        return _host(rule, key, value)
    if name == "email_domain":
        return _email(rule, key, value)
    return _url_part(rule, key, value, name)


def table_of(value: Any) -> dict[str, Any]:
    """A condition in its long form: a plain value means equals, a list one_of."""
    if isinstance(value, Mapping):
        return dict(value)
    return {"one_of": list(value)} if isinstance(value, list | tuple | set) else {"equals": value}


def fetch(arguments: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a dotted path, or MISSING."""
    found: Any = arguments
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return MISSING
        found = found[part]
    return found


class ArgumentCondition:
    """All conditions on one argument; ``strict`` in rules that deny or ask."""

    def __init__(self, rule: str, name: str, given: Any, *, strict: bool, root: str) -> None:
        self.name = name
        self.path = tuple(name.split("."))
        self.table = table_of(given)
        self.strict = strict
        self.tests: list[tuple[Test, bool, bool]] = []  # test, negated, by element
        self.present: bool | None = None
        key = f"arguments.{name}"
        if not name or not self.table:
            raise refuse(rule, key, "no condition", received=repr(given), expected=", ".join(OPERATORS))
        for word, value in self.table.items():
            if word not in OPERATORS:
                raise refuse(rule, key, f"unknown operator {word!r}", expected=", ".join(OPERATORS))
            if word == "present":
                if not isinstance(value, bool):
                    raise refuse(rule, f"{key}.present", "not a yes or no", received=repr(value))
                self.present = value
                continue
            bare = word.removeprefix("not_")
            test = operator(rule, f"{key}.{word}", bare, value, root)
            self.tests.append((test, bare != word, bare in BY_ELEMENT))
        self._contradictions(rule, key)

    def _contradictions(self, rule: str, key: str) -> None:
        table = self.table
        low = max((table[one] for one in ("min", "above") if one in table), default=None)
        high = min((table[one] for one in ("max", "below") if one in table), default=None)
        if low is not None and high is not None and (low > high or (low == high and {"above", "below"} & set(table))):
            raise refuse(rule, key, "this range is empty", received=f"{low} to {high}", todo="exchange the bounds")
        if table.get("min_length", 0) > table.get("max_length", float("inf")):
            raise refuse(rule, key, "this range of lengths is empty", received=repr(table))
        if self.present is False and self.tests:
            raise refuse(rule, key, "absent, and yet with a value: this can never match", received=repr(table))
        values = [table["equals"]] if "equals" in table else list(table.get("one_of", ()))
        if values and not any(self._possible(value) for value in values):
            raise refuse(
                rule, key, "its conditions contradict each other, so it can never match", received=repr(table)
            )

    def _possible(self, value: Any) -> bool:
        """Whether a value could satisfy every test; by elements, a list may satisfy each with another element."""
        if isinstance(value, list):
            return True
        return all(
            test(value, False) is not negated for test, negated, _ in self.tests if test(value, False) is not None
        )

    def holds(self, arguments: Mapping[str, Any], resolve: bool = True) -> bool:
        """Whether it holds, with what cannot be told counted as what permits less."""
        value = arguments.get(self.name, MISSING)
        if value is MISSING and len(self.path) > 1:
            value = fetch(arguments, self.path)
        if self.present is not None and (value is not MISSING) is not self.present:
            return False
        if value is MISSING:
            # absence satisfies nothing that is asked of a value; a denial of "not among these" holds
            return self.present is False or (self.strict and all(negated for _, negated, _ in self.tests))
        return all(self._told(test, negated, each, value, resolve) for test, negated, each in self.tests)

    def _told(self, test: Test, negated: bool, each: bool, value: Any, resolve: bool) -> bool:
        if each and isinstance(value, list):
            found = [self._one(test(one, resolve), negated) for one in value]
            return any(found) if self.strict else bool(found) and all(found)
        return self._one(test(value, resolve), negated)

    def _one(self, told: Told, negated: bool) -> bool:
        return self.strict if told is None else told is not negated

    def describe(self) -> str:
        """The condition in words, for hints and explanations."""
        return " and ".join(f"{self.name} {word.replace('_', ' ')} {value!r}" for word, value in self.table.items())


def default_root(root: str | os.PathLike[str] | None) -> str:
    """Where relative paths start: the given directory, resolved, or the process's own."""
    return os.path.realpath(os.fspath(root) if root is not None else ".")
