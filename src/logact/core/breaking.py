"""Circuit breakers: what the fold knows of tools whose environment is gone, and when they are tried again. Pure.

An executor counts environment failures of a tool in the fold; at the limit its result says until when the circuit is
open (``Result.shut_until_ms``), so the state of every breaker is in the log. Nobody proposes or starts a call of the
tool before that time by its own clock; then one action is the trial, and the fold lets no other start beside it. A
trial that finds the environment gone opens the circuit for longer; an answer of the tool closes it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from logact.core.state import Action, Circuit, State, circuit_key
from logact.entry import Effect, Entry, Failure, Result
from logact.errors import UsageError

ENVIRONMENT = "environment"
"""The class of failures that opens a circuit."""

UNSURE = frozenset({"timeout", "transient", "ambiguous", "cancelled"})
"""Failures after which nobody knows whether the environment is back: they neither open nor close."""

CIRCUITS_KEPT = 1000


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """When a tool's circuit opens, and for how long. Times are in seconds.

    It opens after ``failures`` environment failures in a row, for ``delay_s``, doubled with every trial that fails,
    at most ``delay_s_max``. While it is open, an action that failed so is tried again as the trial, if its effect
    allows it, until ``wait_s`` have passed since it opened first; then the model is told.
    """

    failures: int = 3
    delay_s: float = 1.0
    delay_s_max: float = 60.0
    wait_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.delay_s <= self.delay_s_max or self.wait_s < 0:
            raise UsageError(
                "A breaker cannot be used",
                received=f"failures={self.failures}, delay_s={self.delay_s:g}, "
                f"delay_s_max={self.delay_s_max:g}, wait_s={self.wait_s:g}",
                expected="failures from 1, delay_s above 0 and up to delay_s_max, wait_s from 0",
            )


class Opening(NamedTuple):
    """What an environment failure comes to: open until then (0: not yet), and whether the action waits for it."""

    until_ms: int = 0
    again: bool = False


def opening(
    breaker: Breaker | None, state: State, action: Action, failure: Failure, effect: Effect, *, now_ms: int
) -> Opening:
    """Whether this failure opens the circuit of its tool, and whether its action is the one to try again."""
    if breaker is None or failure.kind != ENVIRONMENT:
        return Opening()
    known = state.circuits.get(circuit_key(action.intent.agent, action.intent.tool)) or Circuit()
    if known.failures + 1 < breaker.failures and not known.at:
        return Opening()
    delay_s = min(breaker.delay_s * 2 ** min(known.opened, 60), breaker.delay_s_max)
    if failure.retry_after_s:
        delay_s = max(delay_s, min(failure.retry_after_s, breaker.delay_s_max))
    waited_ms = now_ms - known.since_ms if known.since_ms else 0
    repeatable = failure.definite or effect in ("read", "idempotent")
    return Opening(now_ms + round(delay_s * 1000), repeatable and waited_ms < breaker.wait_s * 1000)


def start_problem(state: State, action: Action) -> str:
    """Why the fold lets no call of this tool start now: another action is trying whether its environment is back."""
    circuit = state.circuit(action.intent)
    if circuit is None or not circuit.trial or circuit.trial == action.id:
        return ""
    trial = state.actions.get(circuit.trial)
    if trial is None or trial.status != "executing":
        return ""
    return f"the circuit of {action.intent.tool!r} is open, and action {trial.id} tries whether it is back"


# --- the fold's part -------------------------------------------------------------------------------------------


def on_start(state: State, action: Action) -> None:
    """An action of a tool whose circuit is open starts: it is the trial."""
    circuit = state.circuit(action.intent)
    if circuit is not None:
        circuit.trial = action.id


def on_result(state: State, entry: Entry, action: Action, result: Result) -> None:
    """Count a failure, open, or close."""
    key = circuit_key(action.intent.agent, action.intent.tool)
    error = result.error
    if error is not None and error.kind in UNSURE:
        circuit = state.circuits.get(key)
        if circuit is not None and circuit.trial == action.id:
            circuit.trial = 0
        return
    if error is None or error.kind != ENVIRONMENT:
        state.circuits.pop(key, None)
        return
    circuit = state.circuits.setdefault(key, Circuit())
    circuit.failures += 1
    if circuit.trial == action.id:
        circuit.trial = 0
    if result.shut_until_ms > 0:
        circuit.at, circuit.until_ms = entry.position, result.shut_until_ms
        circuit.delay_ms = max(0, result.shut_until_ms - entry.time_ms)
        circuit.since_ms = circuit.since_ms or entry.time_ms
        circuit.opened += 1
    if len(state.circuits) > CIRCUITS_KEPT:
        del state.circuits[next(iter(state.circuits))]
