"""Which changes that save tokens are in force, counted beside the fold, so that an agent knows after any restart.

It remembers where each was applied, and whether what one handed over has changed since; what a change says stands in
its own entry, and what it means, ``tuning`` knows.
"""

from __future__ import annotations

from typing import Any

from logact.entry import Entry, Intent, Notice
from logact.introspection.profile import Applied, Profile
from logact.introspection.token_reading import changes, objects_of, touches

APPLIED, UNDONE = "optimization_applied", "optimization_undone"
"""The codes of the notices that apply a change, and take it back."""

ROLES = ("driver", "client")
"""Whose word applies a change."""

KEPT = 500
"""How many changes are remembered; the oldest is forgotten first."""


def on_notice(profile: Profile, entry: Entry, notice: Notice) -> None:
    """A change comes into force, or ends."""
    if entry.author.role not in ROLES:
        return
    if notice.code == APPLIED:
        measure = notice.data.get("measure")
        given: dict[str, Any] = measure if isinstance(measure, dict) else {}
        kind, data = str(given.get("kind", "")), given.get("data")
        arguments = data.get("arguments") if isinstance(data, dict) and kind == "share" else None
        kept = arguments if isinstance(arguments, dict) else {}
        profile.applied[entry.position] = Applied(agent=notice.agent, kind=kind, arguments=kept)
        if len(profile.applied) > KEPT:
            del profile.applied[next(iter(profile.applied))]
    elif notice.code == UNDONE:
        at = notice.data.get("undoes", 0)
        if isinstance(at, int) and at in profile.applied and profile.applied[at].agent == notice.agent:
            del profile.applied[at]


def on_intent(profile: Profile, intent: Intent) -> None:
    """What was handed over is stale once somebody is about to change it."""
    if not profile.applied or not changes(intent):
        return
    changed = objects_of(intent)
    for one in profile.applied.values():
        if one.kind == "share" and not one.stale and touches(changed, one.arguments):
            one.stale = True
