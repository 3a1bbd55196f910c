"""Conditions as CEL expressions, through the optional package ``common-expression-language``.

An expression sees ``tool``, ``effect``, ``agent``, ``task``, ``reasoning`` (texts), ``run`` (a number) and
``arguments``. It is tried when it is loaded: what does not parse, names something else, calls an unknown function,
has a constant value or a type error is refused then, and never waits to "not match" later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from logact.errors import MissingExtra
from logact.voters.rules_conditions import refuse

VARIABLES = ("tool", "effect", "agent", "task", "reasoning", "run", "arguments")
EXPRESSION_CHARS_MAX = 10_000
_ARGUMENT = re.compile(r"\barguments\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)|\barguments\s*\[\s*[\"']([^\"']+)[\"']\s*\]")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_TYPES = {"int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type", "type"}
_SAMPLE: dict[str, Any] = {
    "tool": "sample",
    "effect": "read",
    "agent": "sample",
    "task": "sample",
    "reasoning": "sample",
    "run": 1,
    "arguments": {},
}


class Expression:
    """A compiled CEL expression.

    Raises MissingExtra without the package, SpecError for an expression that could never decide anything.
    """

    def __init__(self, rule: str, source: str) -> None:
        try:
            import cel
        except ImportError as error:
            raise MissingExtra(
                f"rule {rule!r}, cel: CEL expressions need an optional package", todo="pip install 'logact[cel]'"
            ) from error
        if not source.strip() or len(source) > EXPRESSION_CHARS_MAX:
            raise refuse(rule, "cel", "an expression has 1 to 10000 characters", received=f"{len(source)}")
        self.source = source
        try:
            self._program = cel.compile(source)
        except (ValueError, TypeError, RuntimeError) as error:
            raise refuse(rule, "cel", f"this does not parse ({_first(error)})", received=source) from error
        bound = set(_BOUND.findall(source)) | _TYPES
        named = [one for one in self._program.variables() if one not in VARIABLES and one not in bound]
        if named:
            raise refuse(rule, "cel", f"unknown name {named[0]!r}", received=source, expected=", ".join(VARIABLES))
        if not self._program.variables():
            raise refuse(rule, "cel", "this does not depend on the action", received=source)
        for name in self._program.functions():
            if name.isidentifier() and name not in bound and not _is_function(cel, name):
                raise refuse(rule, "cel", f"unknown function {name!r}", received=source)
        self._try(rule, source)
        self.arguments = sorted({first or second for first, second in _ARGUMENT.findall(_without_texts(source))})

    def _try(self, rule: str, source: str) -> None:
        """Run it on an action with no arguments: only a missing argument may keep it from answering."""
        try:
            answer = self._program.execute(_SAMPLE)
        except TypeError as error:
            raise refuse(rule, "cel", f"this can never match ({_first(error)})", received=source) from error
        except (ValueError, RuntimeError) as error:
            if "no such key" not in str(error).lower():
                raise refuse(rule, "cel", f"this can never match ({_first(error)})", received=source) from error
        except KeyError:
            return
        else:
            if not isinstance(answer, bool):
                raise refuse(rule, "cel", "this is not a yes or no", received=source)

    def holds(self, values: Mapping[str, Any]) -> bool | None:
        """What it says of an action; None where it fails or answers something else."""
        try:
            answer = self._program.execute(dict(values))
        except Exception:  # whatever it raises, it did not answer
            return None
        return answer if isinstance(answer, bool) else None


def _is_function(cel: Any, name: str) -> bool:
    """Whether the package knows a function, plain or as a method; it says so only when one is called."""
    for form in (
        f"{name}('x')",
        f"'x'.{name}('x')",
        f"timestamp('2024-01-01T00:00:00Z').{name}()",
        f"duration('1s').{name}()",
    ):
        try:
            cel.compile(form).execute({})
        except Exception as error:  # wrong arguments are an answer, too
            if "undefined" in str(error).lower():
                continue
        return True
    return False


def _first(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]


def _without_texts(source: str) -> str:
    """The expression with its texts emptied, except those used as a key."""
    return re.sub(r"(?<!\[)(\"[^\"]*\"|'[^']*')", '""', source)
