"""What a run waits for that is neither its model nor its tools: an environment, a delay, people. Pure.

A wait is no entry: it follows from the fold, so a restart, or a reader from elsewhere, sees it as well.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from logact.core import deciding
from logact.core.state import Action, RunState, State, circuit_key

CHARS_MAX = 300


class Wait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is waited for.

    ``environment``: the circuit of ``tool`` is open, and it is left alone until ``until_ms``. ``backoff``: a failed
    action is tried again then. ``people``: ``who`` have to speak, until then at most (0: no deadline). ``model``:
    the model's provider is asked again then. ``action`` is what waits (0: nothing that was proposed); ``until_ms`` is
    by the wall clock; ``why`` is what was said when it failed.
    """

    kind: Literal["environment", "backoff", "people", "model"]
    agent: str = ""
    run: int = 0
    action: int = 0
    tool: str = ""
    until_ms: int = 0
    why: str = ""
    who: tuple[str, ...] = ()


def of_state(state: State, *, agent: str = "", run: int = 0) -> list[Wait]:
    """Everything that is waited for now, by all agents and runs or by one, and every open circuit."""
    found = [
        wait
        for one in state.runs.values()
        if one.status == "running" and agent in ("", one.agent) and run in (0, one.id)
        for wait in of_run(state, one)
    ]
    told = {circuit_key(wait.agent, wait.tool) for wait in found if wait.kind == "environment"}
    for key, circuit in state.circuits.items():
        whose, _, tool = key.rpartition(" ")
        if circuit.at and key not in told and agent in ("", whose) and not run:
            found.append(Wait(kind="environment", agent=whose, tool=tool, until_ms=circuit.until_ms))
    return found


def of_run(state: State, run: RunState) -> list[Wait]:
    """What the calls of a run's present turn wait for."""
    actions = (state.actions.get(run.calls[index].action) for index in run.waiting_calls)
    return [wait for action in actions if action is not None for wait in [of_action(state, action)] if wait]


def of_action(state: State, action: Action) -> Wait | None:
    """What an action waits for, if it is one of these."""
    if action.status == "proposed":
        return _people(state, action)
    shut = of_circuit(state, action.intent.agent, action.intent.tool, action)
    if action.status == "validated" or action.restart_allowed:
        return shut
    if not _again(state, action):
        return None
    if shut is not None and (action.shut or shut.until_ms > action.retry_at_ms):
        return shut
    kind: Literal["environment", "backoff"] = "environment" if action.shut else "backoff"
    return _wait(kind, action, until_ms=action.retry_at_ms)


def of_circuit(state: State, agent: str, tool: str, action: Action | None = None, *, run: int = 0) -> Wait | None:
    """The wait of a call for the circuit of its tool, if it is open and nothing tries it."""
    circuit = state.circuits.get(circuit_key(agent, tool))
    if circuit is None or not circuit.at:
        return None
    trial = state.actions.get(circuit.trial)
    if trial is not None and trial.status == "executing":
        return None
    if action is not None:
        return _wait("environment", action, until_ms=circuit.until_ms)
    return Wait(kind="environment", agent=agent, run=run, tool=tool, until_ms=circuit.until_ms)


def _again(state: State, action: Action) -> bool:
    """Whether a failed action is to be tried again by the run that waits for it."""
    run = state.runs.get(action.intent.run)
    if action.status != "failed" or not action.retry_at_ms or action.retried_by or run is None:
        return False
    return run.status == "running" and any(run.calls[index].action == action.id for index in run.waiting_calls)


def _people(state: State, action: Action) -> Wait | None:
    policy = state.policy_for(action)
    names = [name for name in deciding.awaited(state, action) if name not in action.votes]
    if policy is None or not names or any(policy.voters[name].kind != "human" for name in names):
        return None  # what a machine has still to say comes soon, and may make the people's word needless
    people = tuple(dict.fromkeys(name.partition(":")[2] or name for name in names))
    return msgspec.structs.replace(_wait("people", action, until_ms=action.intent.deadline_ms), why="", who=people)


def _wait(kind: Literal["environment", "backoff", "people"], action: Action, *, until_ms: int) -> Wait:
    intent = action.intent
    why = f"{action.error.kind}: {action.error.message}"[:CHARS_MAX] if action.error is not None else ""
    return Wait(
        kind=kind, agent=intent.agent, run=intent.run, action=action.id, tool=intent.tool, until_ms=until_ms, why=why
    )
