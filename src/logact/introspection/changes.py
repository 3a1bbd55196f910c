"""What introspection may propose to change: a setting of a short list, or one more rule that denies. Pure.

Nothing here can loosen a policy, a tool's effect, a voter or a limit that is set. Applying a change is an action like
any other, proposed and voted on; ``logact.spec_change`` has its tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from logact.errors import SpecError
from logact.introspection.performance import Change, Proposal
from logact.models.names import names_a_model
from logact.voters.rules_rule import rule_of

SETTINGS: dict[str, type] = {
    "agent.model": str,
    "agent.hide_tools": tuple,
    "agent.reuse_reads_s": float,
    "agent.context_tokens_max": int,
    "agent.model_timeout_s": float,
    "agent.limits.turns": int,
    "agent.limits.actions": int,
    "agent.limits.tokens": int,
    "agent.limits.seconds": int,
    "checkpoints.every": int,
}
"""The settings that a proposal may change, and what they hold. Numbers are above 0; names are added to those that
are there."""


CITES_MAX = 20

TIGHTENED = frozenset(
    {
        "agent.reuse_reads_s",
        "agent.context_tokens_max",
        "agent.model_timeout_s",
        "agent.limits.turns",
        "agent.limits.actions",
        "agent.limits.tokens",
        "agent.limits.seconds",
    }
)
"""The settings that a change may set where none is in force (0), and otherwise only make smaller."""


def in_the_way(change: Change, now: Any) -> str:
    """Why a change may not follow what is in force, or would do nothing ("" if it may).

    ``now`` is the value that the setting has (a sequence of names where it holds names).
    """
    value = change.value
    if isinstance(value, tuple):
        return "" if set(value) - set(now) else f"{', '.join(value)}: in force already"
    if value == now:
        return f"{change.setting} is {now} already"
    if change.setting in TIGHTENED and now and isinstance(value, int | float) and value > now:
        return f"{change.setting} is {now:g}, and {value:g} would loosen it"
    return ""


def read_change(given: Any, models: Mapping[str, str]) -> Change | None:
    """A change as a model gave it; None if it is none, names no setting of the list, or loosens something.

    A model has to be one of ``models`` (the names that stand in answers, and what each is set up by): a text in the
    history must not choose who is asked from now on.
    """
    if not isinstance(given, dict):
        return None
    try:
        change = msgspec.convert(given, Change)
    except msgspec.ValidationError:
        return None
    if change.setting == "agent.model":
        name = str(change.value)
        if name not in models and name not in models.values():
            return None
        change = Change(setting=change.setting, value=models.get(name, name))
    return None if problem(change) else change


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
    if kind is tuple:
        names = value if isinstance(value, tuple) else ()
        return "" if names and all(one.strip() for one in names) else "its value is no list of names"
    if kind is str:
        named = isinstance(value, str) and names_a_model(value.strip())
        return "" if named else f"{value!r} is not the name of a model such as openai:gpt-4o"
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return "its value is no number above 0"
    if kind is int and not isinstance(value, int):
        return "its value is no whole number"
    return ""


def tightest(proposals: Iterable[Proposal]) -> list[Proposal]:
    """The proposals with one for each number that is set: the smallest, which cites what shows the others too."""
    found: dict[object, Proposal] = {}
    for place, one in enumerate(proposals):
        number = one.change is not None and SETTINGS.get(one.change.setting) in (int, float)
        key: object = one.change.setting if number and one.change is not None else place
        other = found.get(key)
        found[key] = one if other is None else _together(other, one)
    return list(found.values())


def _together(one: Proposal, other: Proposal) -> Proposal:
    first, second = (proposal.change.value if proposal.change is not None else None for proposal in (one, other))
    looser = isinstance(first, int | float) and isinstance(second, int | float) and second < first
    kept, left = (other, one) if looser else (one, other)
    cites = tuple(dict.fromkeys((*kept.cites, *left.cites)))[:CITES_MAX]
    more = {name: max(getattr(kept, name), getattr(left, name)) for name in ("tokens", "ms", "usd")}
    return msgspec.structs.replace(kept, cites=cites, **more)
