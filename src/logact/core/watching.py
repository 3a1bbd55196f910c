"""What the fold says about how a run is going: loops, stalls, rising errors, a budget that runs out. Pure.

``note_end`` is the fold's own: it keeps the last ends of a run's actions (``RunState.trace``) and counts how many
brought nothing new (``RunState.idle``). ``signals`` reads them; time is an argument. Whoever acts on a signal writes
a ``Finding`` down first, which the fold takes once for each occurrence (``RunState.noticed``).
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import msgspec

from logact.core.state import Action, End, RunState, State
from logact.entry import Entry, Finding, Result

Code = Literal["loop", "stall", "errors", "budget"]
CODES: tuple[Code, ...] = ("loop", "stall", "errors", "budget")
"""What is noticed about a run: the same again, nothing new, more and more failures, a limit that comes near."""

TRACE_KEPT = 32
"""How many ends of actions a run remembers."""

NOTICED_KEPT = 64

QUIET = 5
"""So many actions in a row that went well end an occurrence of ``errors``."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When a signal is on; 0 switches it off.

    ``repeats``: the same action with the same arguments and the same outcome so often, with nothing new in between.
    ``idle``: so many ends of actions (or turns of broken calls) in a row that brought nothing new. ``errors``: so
    many failures among the last ``window`` ends, and more than among those before. ``budget``: the share of a limit
    of the run that is used.
    """

    repeats: int = 5
    idle: int = 12
    errors: int = 6
    window: int = 10
    budget: float = 0.8


class Signal(NamedTuple):
    """One thing that is noticed. ``key`` tells occurrences of one code apart; ``cites`` are actions."""

    code: Code
    key: str
    message: str
    cites: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Under what the fold remembers that it was noticed."""
        return f"{self.code} {self.key}"


def signals(state: State, run: RunState, thresholds: Thresholds, now_ms: int) -> list[Signal]:
    """Everything that is to be noticed about a run as it stands, in the order of ``CODES``."""
    if run.status != "running":
        return []
    found = [
        looping(run, thresholds.repeats),
        stalled(run, thresholds.idle),
        failing(run, thresholds.errors, thresholds.window),
        *spending(run, thresholds.budget, now_ms),
    ]
    return [one for one in found if one is not None]


def unnoticed(state: State, run: RunState, thresholds: Thresholds, now_ms: int) -> list[Signal]:
    """The signals of a run that no finding in the log speaks of yet."""
    return [one for one in signals(state, run, thresholds, now_ms) if one.name not in run.noticed]


def looping(run: RunState, repeats: int) -> Signal | None:
    """The latest action, if it came so often with nothing new in between (its first time may have been new)."""
    if not repeats or not run.trace or run.idle < repeats - 1:
        return None
    last = run.trace[-1]
    same = [one.action for one in run.trace[-(run.idle + 1) :] if one.key == last.key]
    if len(same) < repeats:
        return None
    tool = last.key.partition(" ")[0]
    message = f"{tool} was called {len(same)} times with the same arguments and the same outcome ({last.end})"
    return Signal("loop", last.key, message, tuple(same))


def stalled(run: RunState, idle: int) -> Signal | None:
    """A run whose last so many ends of actions brought nothing that it did not have."""
    if not idle or run.idle < idle:
        return None
    return Signal(
        "stall", "", f"nothing new came of the last {run.idle} actions", tuple(_cited(run.trace[-run.idle :]))
    )


def failing(run: RunState, errors: int, window: int) -> Signal | None:
    """Failures that rise: so many among the last ``window`` ends, and more than among as many before them."""
    if not errors or not window:
        return None
    now = [one for one in run.trace[-window:] if one.bad]
    before = [one for one in run.trace[-2 * window : -window] if one.bad]
    if len(now) < errors or len(now) <= len(before):
        return None
    seen = min(window, len(run.trace))
    message = f"{len(now)} of the last {seen} actions failed or were refused, {len(before)} of those before"
    return Signal("errors", "", message, tuple(_cited(now)))


def spending(run: RunState, share: float, now_ms: int) -> list[Signal]:
    """The limits of a run of which at least this share is used."""
    if not share:
        return []
    limits = run.limits
    used = (
        ("turns", run.turn, limits.turns),
        ("actions", run.actions, limits.actions),
        ("tokens", run.input_tokens + run.output_tokens, limits.tokens),
        ("seconds", max(0, now_ms - run.started_ms) // 1000, limits.seconds),
    )
    return [
        Signal("budget", name, f"{count} of {limit} {name} are used ({count * 100 // limit} %)")
        for name, count, limit in used
        if limit > 0 and count >= limit * share
    ]


def next_look_ms(run: RunState, thresholds: Thresholds) -> int:
    """When (wall clock, ms) time alone may make a signal of this run come on; 0 if never."""
    if run.status != "running" or not run.limits.seconds or not thresholds.budget or "budget seconds" in run.noticed:
        return 0
    return run.started_ms + int(run.limits.seconds * thresholds.budget * 1000) + 1


def _cited(ends: list[End]) -> list[int]:
    return [one.action for one in ends if one.action][-TRACE_KEPT:]


# --- the fold's part -------------------------------------------------------------------------------------------


def note_end(run: RunState, action: Action, result: Result | None) -> None:
    """An action of a run came to its end: remember it, and whether it brought something new."""
    key = f"{action.intent.tool} {action.intent.arguments_digest[:16]}"
    done = action.status == "executed"
    earlier = [one for one in run.trace if one.key == key]
    # the outcome is computed only where there is something to compare it with: most actions come once
    outcome = _outcome(action, result) if earlier else ""
    before = [one.outcome for one in earlier if one.end == "executed"]
    new = done and (not before or (any(before) and outcome not in before))
    run.trace.append(End(action.id, key, action.status, outcome, not done and action.status != "undone"))
    if len(run.trace) > TRACE_KEPT:
        del run.trace[0]
    if not new:
        run.idle += 1
        return
    run.idle = 0
    if run.noticed:
        quiet = len(run.trace) >= QUIET and not any(one.bad for one in run.trace[-QUIET:])
        over = ("loop", "stall", "errors") if quiet else ("loop", "stall")
        run.noticed = {name: at for name, at in run.noticed.items() if name.partition(" ")[0] not in over}


def _outcome(action: Action, result: Result | None) -> str:
    """A short digest of what came of an action."""
    if result is None:
        told: object = (action.status, action.code, action.reason)
    elif result.error is not None:
        told = (result.error.kind, result.error.message)
    else:
        told = (result.value, result.blob.digest if result.blob is not None else "")
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:12]


def begin_anew(run: RunState) -> None:
    """A person looked at the run (an input, a resume), or it ended: what was noticed is over."""
    run.trace, run.idle, run.noticed = [], 0, {}


def note_finding(state: State, entry: Entry, finding: Finding) -> str:
    """A finding about a run; one of the same occurrence is known already, and takes no effect."""
    run = state.runs.get(finding.run)
    if run is None:
        return f"there is no run {finding.run}"
    name = f"{finding.code} {finding.key}"
    if name in run.noticed:
        return f"it is known since position {run.noticed[name]}"
    run.noticed[name] = entry.position
    if len(run.noticed) > NOTICED_KEPT:
        del run.noticed[next(iter(run.noticed))]
    return ""
