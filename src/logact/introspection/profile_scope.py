"""One part of a profile: a whole log, one agent, or one run, whose sums are its own. Pure."""

from __future__ import annotations

from logact.introspection.profile import Profile, RunProfile, Sums
from logact.introspection.profile_sums import add


def runs_of(profile: Profile, agent: str = "", run: int = 0) -> list[RunProfile]:
    """The runs that are kept one by one."""
    return [one for one in profile.runs.values() if (not agent or one.agent == agent) and (not run or one.id == run)]


def counted(profile: Profile, agent: str = "", run: int = 0) -> list[RunProfile]:
    """The runs, and the sums of those that are not kept one by one any more."""
    older = [] if run else [one for name, one in profile.older.items() if not agent or name == agent]
    return [*runs_of(profile, agent, run), *(one for one in older if one.runs)]


def sums_of(profile: Profile, agent: str = "", run: int = 0) -> Sums:
    """What was used, by name. Of an agent also what belongs to none of its runs."""
    found = Sums()
    for one in runs_of(profile, agent, run):
        add(found, one.sums)
    if not run:
        for name, one in profile.older.items():
            if not agent or name == agent:
                add(found, one.sums)
        for name, sums in profile.aside.items():
            if not agent or name == agent:
                add(found, sums)
    return found


def agents_of(profile: Profile, agent: str = "", run: int = 0) -> set[str]:
    """The agents that a part of the log is about."""
    return {agent} if agent else {one.agent for one in counted(profile, agent, run)}
