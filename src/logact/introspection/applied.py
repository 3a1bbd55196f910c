"""Which changes that save tokens are in force, counted beside the fold, so that an agent knows after any restart.

It remembers where each was applied; what a change says stands in its own entry, and what it means, ``tuning`` knows.
"""

from __future__ import annotations

from logact.entry import Entry, Notice
from logact.introspection.profile import Applied, Profile
from logact.introspection.trials import APPLIED, SPOKESMEN, UNDONE

REMEMBERED = 500
"""How many changes are remembered; the oldest is forgotten first."""


def on_notice(profile: Profile, entry: Entry, notice: Notice) -> None:
    """A change comes into force, or ends."""
    if entry.author.role not in SPOKESMEN:
        return
    if notice.code == APPLIED:
        measure = notice.data.get("measure")
        kind = str(measure.get("kind", "")) if isinstance(measure, dict) else ""
        profile.applied[entry.position] = Applied(agent=notice.agent, kind=kind)
        if len(profile.applied) > REMEMBERED:
            del profile.applied[next(iter(profile.applied))]
    elif notice.code == UNDONE:
        at = notice.data.get("undoes", 0)
        if isinstance(at, int) and at in profile.applied and profile.applied[at].agent == notice.agent:
            del profile.applied[at]


def kinds_for(profile: Profile, agent: str) -> frozenset[str] | None:
    """The kinds of the changes in force for an agent; None where that is not known, since counting began later."""
    if profile.since:
        return None
    return frozenset(one.kind for one in profile.applied.values() if one.agent == agent)
