"""What a supervisor does when a part ends: whom it takes along, when they come back, when it gives up. Pure.

The strategies and the limit on restarts are those that Erlang's supervisors made standard: parts depend on each other
in the order in which they are started, and too many restarts in a short time mean that restarting does not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]

HOPELESS = frozenset({2, 3})
"""Exit codes of a part that another life would repeat: used wrongly (a bad specification), or the log is damaged."""

RESTED = frozenset({0, 1, 4, 7, 8})
"""Exit codes of a whole agent after which only the log can say what is next: answered, ended, in doubt, held back."""

Ending = Literal["failed", "hopeless", "rested"]


class End(NamedTuple):
    """One end of a part that counts: when, by the wall clock, and the delay before its next start."""

    at_ms: int
    part: str
    delay_ms: int = 0


def ending(code: int, *, whole_agent: bool) -> Ending:
    """What the exit code of a process means for its supervisor (below 0: the signal that killed it).

    A part is never done, so every end of it is a failure; a whole agent ends when its run does.
    """
    if whole_agent:
        return "hopeless" if code == 3 else "rested" if code in RESTED else "failed"
    return "hopeless" if code in HOPELESS else "failed"


def affected(strategy: Strategy, order: Sequence[str], ended: str) -> tuple[str, ...]:
    """The parts that have to be started anew when one has ended, that one included, in the order of their start."""
    if strategy == "one_for_all":
        return tuple(order)
    if strategy == "rest_for_one":
        return tuple(order[order.index(ended) :])
    return (ended,)


def recent(ends_ms: Sequence[int], now_ms: int, within_s: float) -> list[int]:
    """The ends that still count; those that seem to lie in the future do (a clock went back)."""
    return [end for end in ends_ms if now_ms - end <= within_s * 1000]


def gives_up(ends_ms: Sequence[int], now_ms: int, *, restarts: int, within_s: float) -> bool:
    """Whether so many parts ended in so short a time that restarting is no help. ``ends_ms`` holds the last one."""
    return len(recent(ends_ms, now_ms, within_s)) > restarts


def delay_s(times: int, *, base_s: float, max_s: float, random: float) -> float:
    """How long to wait before the next start of a part that ended ``times`` times lately; doubles, with jitter.

    ``random`` in [0, 1) takes up to half of it off, so that parts that died together don't come back together.
    """
    whole = min(max_s, base_s * float(2 ** min(max(0, times - 1), 30)))
    return whole * (1 - random / 2)


def left_s(end: End, now_ms: int) -> float:
    """How much of the delay after an earlier end is left; never more than all of it (a clock went back)."""
    return max(0, min(end.delay_ms, end.at_ms + end.delay_ms - now_ms)) / 1000
