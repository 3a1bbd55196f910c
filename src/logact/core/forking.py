"""What forks mean in a log: a copy that is not complete halts, and what is left to use is in one log only. Pure."""

from __future__ import annotations

import msgspec

from logact.core.state import RunState, State
from logact.entry import Entry, Fork, Limits

COUNTED = ("turns", "actions", "tokens")
"""The limits that are used up and can be moved; seconds pass in every log alike."""


def on_fork(state: State, entry: Entry, fork: Fork) -> str:
    if fork.step == "begun":
        if fork.fork == state.log:  # else it came along with the past of a fork
            state.forking = f"a fork of {fork.parent} at {fork.at} that was not completed"
            state.halted = state.halted or state.forking
        return ""
    if fork.step == "done" and state.forking and fork.fork == state.log:
        state.halted = "" if state.halted == state.forking else state.halted
        state.forking = ""
    other = fork.fork if fork.step == "moved" else fork.parent
    for key, limits in fork.limits.items():
        run = state.runs.get(int(key)) if key.isdecimal() else None
        if run is not None:
            run.limits = limits
            if run.moved:  # it went elsewhere, and came back here
                run.moved = ""
                state.paused.pop(f"run:{run.id}", None)
                state.paused_why.pop(f"run:{run.id}", None)
    for position in fork.empty:
        if position in state.runs:
            exhaust(state.runs[position], other)
    if fork.voters:
        state.budgets_at, state.budgets_in = entry.position, other
    elif fork.step == "done":
        state.budgets_at, state.budgets_in = 0, ""
    return ""


def used(run: RunState) -> dict[str, int]:
    """What a run used of each limit that can be moved."""
    return {"turns": run.turn, "actions": run.actions, "tokens": run.input_tokens + run.output_tokens}


def left(run: RunState) -> dict[str, int]:
    """What a run may still use, by each of its limits that can be moved."""
    return {
        name: max(0, getattr(run.limits, name) - count)
        for name, count in used(run).items()
        if getattr(run.limits, name)
    }


def granted(run: RunState, rest: dict[str, int]) -> Limits:
    """The limits with which a run may still use so much (below 0: none, since 0 stands for no limit)."""
    counts = used(run)
    return msgspec.structs.replace(run.limits, **{name: counts[name] + more or -1 for name, more in rest.items()})


def exhaust(run: RunState, other: str) -> None:
    """Leave a run nothing: it is in the log ``other``."""
    run.limits = granted(run, dict.fromkeys(left(run), 0))
    run.moved = other


def raised(run: RunState, limits: Limits) -> Limits:
    """A run's limits with those set that are named."""
    named = {name: count for name, count in msgspec.structs.asdict(limits).items() if count > 0}
    return msgspec.structs.replace(run.limits, **named)
