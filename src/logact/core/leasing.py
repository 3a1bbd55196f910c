"""What the parts of an agent owe right now: who has to take the next step, by part. Pure; time is an argument.

A lease itself cannot be judged here, since the fold reads no clock: whoever watches measures, by a clock of its own,
how long something is owed and how long an incarnation is silent, and writes a ``Finding`` down.
"""

from __future__ import annotations

from logact.core import deciding, driving, executing
from logact.core.settling import retriable
from logact.core.state import RunState, State

LEASE_S = 60.0
"""How long an incarnation that works may be silent, unless it was told otherwise."""

RENEWALS = 3
"""How often in one lease an incarnation that works gives a sign of life."""

AGENT = "agent"
"""The part of a process that plays all of them."""


def owed(state: State, agent: str, now_ms: int) -> dict[str, str]:
    """By part (``driver``, ``decider``, ``executor``, ``voter:NAME``): what it owes, in words that change when it
    takes its step. What a control, a delay or an open circuit holds back is owed by nobody."""
    found: dict[str, str] = {}
    if state.halted or state.broken or state.sealed:
        return found
    for run in state.runs.values():
        if run.agent == agent and run.status == "running" and not state.control_over(agent, run.id):
            step = _of_driver(state, run, now_ms)
            if step:
                found.setdefault("driver", step)
    for action in state.undecided():
        if action.intent.agent != agent:
            continue
        for voter in deciding.awaited(state, action):
            found.setdefault(f"voter:{voter}", f"a vote on action {action.id}")
        if deciding.decide(state, action, now_ms) is not None:
            found.setdefault("decider", f"a decision on action {action.id}")
    for action in state.startable():
        free = not action.intent.external and state.circuit(action.intent) is None
        if action.intent.agent == agent and free and not executing.may_start(state, action, "", now_ms, anybody=True):
            found.setdefault("executor", f"the start of action {action.id}")
    return found


def _of_driver(state: State, run: RunState, now_ms: int) -> str:
    """What the driver of a run owes it ("": it waits for others, or for a time)."""
    waiting = run.waiting_calls
    if not waiting:
        return f"turn {run.turn + 1} of run {run.id}" if run.context or driving.limit_reached(run, now_ms) else ""
    if driving.overdue(run, now_ms):
        ends = driving.next_step(state, run, now_ms, let_go=True).verb in ("cut", "conclude")
        return f"the end of run {run.id}" if ends else ""
    for index in waiting:
        action = state.actions.get(run.calls[index].action)
        if action is None and not run.calls[index].action:
            return "" if state.circuits else f"call {index} of turn {run.turn} of run {run.id}"
        if action is None or action.is_open or not retriable(action):
            return ""
        if not action.retry_at_ms:
            return f"a further try of action {action.id}"
    return ""


def plays(part: str, wanted: str) -> bool:
    """Whether an incarnation with this part plays what is wanted. ``voter:a,b`` hosts two voters."""
    kind, _, names = part.partition(":")
    asked, _, name = wanted.partition(":")
    return part == AGENT or (kind == asked and (not name or name in names.split(",")))
