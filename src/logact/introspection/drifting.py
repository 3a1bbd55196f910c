"""Whether a run still works on its task, by words alone: a cheap question that needs no model. Pure.

A call belongs to the task if it shares a word with what the user asked for, or with what calls that belong to it said
or brought. A call without words of its own (no arguments) is neither. So work that is reached step by step from the
task belongs to it, however far it goes, and a run of calls that nothing led to does not.
"""

from __future__ import annotations

import re

from logact.introspection.profile import RunProfile, Step

_WORD = re.compile(r"[^\W_]{3,}")
_COMMON = frozenset(
    _WORD.findall(
        "the and for with from that this have has was are you your all any not but can will would should could into "
        "true false null none name names path file type text list user value data status date time limit query get "
        "set com www http https org net html json txt"
    )
)


def words_of(text: str) -> set[str]:
    """The words of a text that say what it is about, shortened to their stems' beginnings."""
    found = set()
    for word in _WORD.findall(text.lower()):
        if word not in _COMMON:
            found.add(word[:6])
    return found


def drifting(run: RunProfile, calls: int) -> list[int]:
    """The positions of so many calls in a row, or more, with nothing in common with the task; [] if there are none.

    Of a run that goes on only the latest calls count, of one that is over all that are remembered. The run must have
    begun on its task: work that never names what it is about cannot be told apart from drift.
    """
    if len(run.steps) < calls + 1 or not run.topic:
        return []
    about: set[str] = set()
    for text in run.topic:
        about |= words_of(text)
    belonged = False
    apart: list[Step] = []
    longest: list[Step] = []
    for step in run.steps:
        said = words_of(step.said)
        if not said or step.retry_of:
            continue
        if said & about or words_of(step.tool.replace("_", " ")) & about:
            about |= said | words_of(step.got)
            belonged, apart = True, []
        elif belonged:
            apart.append(step)
            longest = apart if len(apart) >= len(longest) else longest
    found = apart if run.status == "running" else longest
    return [step.position for step in found] if len(found) >= calls else []
