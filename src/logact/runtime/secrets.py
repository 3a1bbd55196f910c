"""Secrets by reference: ``secret://name@version`` stands in the log, the value only in the executor's memory.

The executor resolves references just before the tool runs, and replaces values by their references in whatever
comes back, before anyone sees it. A literal secret in proposed arguments is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from logact.errors import SecretInArguments, UsageError

REFERENCE = re.compile(r"secret://([A-Za-z0-9_.-]+(?:@[A-Za-z0-9_.-]+)?)")
SECRET_CHARS_MIN = 4
"""Shorter values are not looked for in texts: they would match by chance."""


class Secrets:
    """Named secret values; names may carry a version (``github@3``). Never printed, never logged."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    def __repr__(self) -> str:
        return f"<Secrets: {len(self._values)} names>"

    def __bool__(self) -> bool:
        return bool(self._values)

    def names(self) -> list[str]:
        """The names that there are, never their values."""
        return list(self._values)

    def resolve(self, value: Any) -> Any:
        """The value with every reference replaced. UsageError names a reference that is not known."""
        return _map(value, lambda text: REFERENCE.sub(self._value, text))

    def _value(self, found: re.Match[str]) -> str:
        name = found.group(1)
        known = self._values.get(name)
        if known is None and "@" not in name:
            versions = sorted(key for key in self._values if key.partition("@")[0] == name)
            known = self._values[versions[-1]] if versions else None
        if known is None:
            raise UsageError(
                "A secret is not known to this executor",
                received=f"secret://{name}",
                expected="one of " + ", ".join(f"secret://{key}" for key in sorted(self._values)) or "no secrets",
                todo="give it to the agent with secrets={...}",
            )
        return known

    def redact(self, value: Any) -> Any:
        """The value with every secret replaced by its reference."""
        if not self._values:
            return value
        return _map(value, self.redact_text)

    def redact_text(self, text: str) -> str:
        """The text with every secret replaced by its reference; longer secrets first."""
        for name, secret in sorted(self._values.items(), key=lambda item: -len(item[1])):
            if len(secret) >= SECRET_CHARS_MIN and secret in text:
                text = text.replace(secret, f"secret://{name}")
        return text

    def refuse_literals(self, arguments: Any) -> None:
        """Raise SecretInArguments if a secret's value stands in the arguments themselves."""
        if self._values and self.redact(arguments) != arguments:
            raise SecretInArguments(
                "The arguments hold a secret's value",
                received="(not shown)",
                expected="secret://name@version",
                todo="write the reference; the executor puts the value in",
            )


def _map(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map(key, change): _map(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map(item, change) for item in value]
    return value
