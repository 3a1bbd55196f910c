"""Broken versions of what supervises: leases, the end of who hangs, circuit breakers. Each is caught by its check."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import msgspec

from logact.core import driving, machine
from logact.runtime import assembly
from logact.runtime.circuits import Circuits
from logact.runtime.host import Host
from logact.runtime.leases import Hearing
from logact.testing.plan import Event, Plan


class Case(msgspec.Struct, frozen=True):
    """One broken version: which guarantee, who catches it, how it is broken, and in which plans it shows."""

    name: str
    guarantee: int
    caught_by: str
    patch: Callable[[ExitStack], None]
    adapt: Callable[[Plan], Plan] = lambda plan: plan


def _set(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(owner, name, value))


def _impatient(stack: ExitStack) -> None:
    """A lease counts as over at once."""
    _set(stack, Hearing, "silent_s", lambda self, incarnation: 1e9)


def _settles_who_may_wake(stack: ExitStack) -> None:
    """Who was fenced off counts as gone: its process is not ended, and goes on with its effect when it wakes."""
    honest = Host.gone
    _set(stack, Host, "end", lambda self, incarnation: True)
    _set(stack, Host, "gone", lambda self, key: key in self.state.fenced or honest(self, key))


def _forgets_circuits(stack: ExitStack) -> None:
    """A breaker whose state is not minded: the next call is made at once."""
    honest = driving.next_step
    _set(stack, Circuits, "left_s", lambda self, agent, tool: 0.0)
    _set(stack, driving, "next_step", lambda state, run, now_ms, **more: honest(state, run, now_ms + 10**7, **more))


def _fenced_go_on(stack: ExitStack) -> None:
    """Being fenced off means nothing to votes, decisions and answers."""
    _set(stack, machine, "_BEGINNING", frozenset())


def _never_notices(stack: ExitStack) -> None:
    """Who was fenced off goes on as the same life, and writes what takes no effect."""

    async def never(host: Host) -> None:
        await host.env.sleep(1e6)

    _set(stack, assembly, "_until_fenced", never)
    _set(stack, Host, "is_fenced", lambda *_: False)


def _with_a_driver_that_wakes(plan: Plan) -> Plan:
    """It has its answer, wakes up after its lease, and only then another one comes."""
    hangs = (("driver", "before_inference", 0, 22.0),)
    return msgspec.structs.replace(
        plan, hangs=hangs, points=(), steps=(), models=(), events=(Event(24.0, "twin", "driver"),)
    )


def _with_hangs(plan: Plan) -> Plan:
    """Both executors stop in front of their first effect, and wake up after their lease."""
    hangs = tuple((name, "before_effect", 0, 12.0) for name in ("executor-1", "executor-2"))
    return msgspec.structs.replace(plan, hangs=hangs, points=(), steps=(), events=())


def _with_an_environment_gone(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, away=((0.0, 8.0),), events=())


CASES: tuple[Case, ...] = (
    Case("impatient_lease", 12, "leases_are_honoured", _impatient, _with_hangs),
    Case("fenced_go_on", 12, "fenced_begin_nothing", _fenced_go_on, _with_a_driver_that_wakes),
    Case("never_notices", 12, "fenced_begin_nothing", _never_notices, _with_a_driver_that_wakes),
    Case("settles_who_may_wake", 5, "nothing_acts_unseen", _settles_who_may_wake, _with_hangs),
    Case("forgets_circuits", 13, "breakers_hold", _forgets_circuits, _with_an_environment_gone),
)
