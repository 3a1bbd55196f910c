"""When a failed action is tried again, and when it is given up. Pure; time and randomness are arguments.

The schedule is part of the result that says that the action failed, so it is durable with it: whoever drives the run
after a crash goes on counting where the dead process stood. The try itself is a new intent with ``retry_of``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from logact.core.state import Action
from logact.entry import Effect, Failure

RETRIED_KINDS: tuple[str, ...] = ("transient", "environment", "timeout", "ambiguous")
"""Classes of failures after which a further try may help. A refusal (``permanent``) is none of them."""

DELAY_S_MAX = 86_400.0
"""The longest delay that a service may ask for and get; longer ones are cut to a day."""

NEVER_KINDS: frozenset[str] = frozenset({"permanent", "cancelled", "not_happened"})
"""Classes that are never tried again by schedule: refused, taken back, or settled otherwise."""


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How one class of failures is tried again. Times are in seconds.

    The n-th retry waits ``base_delay * 2 ** n``, at most ``max_delay``, then up to the share ``jitter`` of it less,
    at random. Nothing begins later than ``total_s`` after the first try was proposed (0: no limit).
    """

    max_retries: int = 3
    base_delay: float = 0.5
    max_delay: float = 60.0
    total_s: float = 600.0
    jitter: float = 0.25


class Schedule(NamedTuple):
    """What comes after a failure: a further try not before ``at_ms``, the end in words (``gave_up``), or neither."""

    at_ms: int = 0
    gave_up: str = ""


def schedule(
    rules: Mapping[str, Backoff], action: Action, failure: Failure, effect: Effect, *, now_ms: int, random: float
) -> Schedule:
    """What comes after this failure of an action under these rules (by class of failure).

    ``effect`` is the strictest declaration that counts; ``random`` is in [0, 1). A service's own delay counts where
    it is longer, also beyond ``max_delay``, since asking earlier would only be refused again.
    """
    rule = rules.get(failure.kind)
    if rule is None or failure.kind in NEVER_KINDS or rule.max_retries <= 0:
        return Schedule()
    if not (failure.definite or effect in ("read", "idempotent")):
        return Schedule()  # it may have happened
    tries = action.scheduled - action.waited  # what waited for a tool's circuit was no try of this schedule
    if tries >= rule.max_retries:
        return Schedule(gave_up=f"tried {action.retries + 1} times, and given up")
    at_ms = now_ms + round(delay_s(rule, tries, failure, random) * 1000)
    since_ms = action.first_ms or action.proposed_ms
    if rule.total_s and at_ms - since_ms > rule.total_s * 1000:
        return Schedule(gave_up=f"given up after {action.retries + 1} tries: {rule.total_s:g} s would be over")
    return Schedule(at_ms=at_ms)


def delay_s(rule: Backoff, tries: int, failure: Failure, random: float) -> float:
    """How long to wait before the next try, after ``tries`` earlier retries."""
    own: float = min(rule.base_delay * 2 ** min(tries, 60), rule.max_delay) * (1 - rule.jitter * random)
    asked: float = failure.retry_after_s or 0.0
    return min(max(own, asked, 0.0), DELAY_S_MAX)
