"""What introspection may propose to change: a setting of a short list, or one more rule that denies. Pure.

Nothing here can loosen a policy, a tool's effect or a voter. Applying a change is an action like any other, proposed
and voted on; ``logact.spec_change`` has its tool.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from logact.errors import SpecError
from logact.introspection.performance import Change
from logact.voters.rules_rule import rule_of

SETTINGS: dict[str, type] = {
    "agent.model": str,
    "agent.context_tokens_max": int,
    "agent.model_timeout_s": float,
    "agent.limits.turns": int,
    "agent.limits.actions": int,
    "agent.limits.tokens": int,
    "agent.limits.seconds": int,
    "checkpoints.every": int,
}
"""The settings that a proposal may change, and what they hold. Numbers are above 0."""


def read_change(given: Any, models: Collection[str]) -> Change | None:
    """A change as a model gave it; None if it is none, names no setting of the list, or loosens something.

    A model's name has to be one of ``models``: a text in the history must not choose who is asked from now on.
    """
    if not isinstance(given, dict):
        return None
    try:
        change = msgspec.convert(given, Change)
    except msgspec.ValidationError:
        return None
    if problem(change) or (change.setting == "agent.model" and change.value not in models):
        return None
    return change


def problem(change: Change) -> str:
    """Why a change may not be applied ("" if it may)."""
    if bool(change.setting) == bool(change.rule):
        return "it names neither one setting nor one rule"
    if change.rule is not None:
        if change.rule.get("decision") != "deny":
            return f"a rule that does not deny: {change.rule.get('decision')!r}"
        try:
            rule_of(change.rule, root=None, place=0)
        except SpecError as error:
            return str(error)
        return ""
    kind = SETTINGS.get(change.setting)
    if kind is None:
        return f"{change.setting!r} is not one of {', '.join(SETTINGS)}"
    value = change.value
    if kind is str:
        return "" if isinstance(value, str) and value.strip() else "its value is no name"
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return "its value is no number above 0"
    if kind is int and not isinstance(value, int):
        return "its value is no whole number"
    return ""
