"""Broken versions of the supervisor, each caught by a check of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import msgspec

from logact.core import supervising
from logact.runtime.supervisor import Supervisor
from logact.testing.mutants_hanging import Case
from logact.testing.plan import Event, Plan


def _set(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(owner, name, value))


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def _leaves_orphans(stack: ExitStack) -> None:
    """What an earlier supervisor left is not ended first."""
    _set(stack, Supervisor, "_end_orphans", _nothing)


def _never_gives_up(stack: ExitStack) -> None:
    """Parts are started again without limit."""
    _set(stack, supervising, "gives_up", lambda *_, **__: False)


def _after_recalling(stack: ExitStack, forget: Callable[[Supervisor], None]) -> None:
    """A supervisor that is started again forgets something of what it read back from the log."""
    honest = Supervisor._recall

    def recall(self: Supervisor, ends: Sequence[supervising.End]) -> None:
        honest(self, ends)
        forget(self)

    _set(stack, Supervisor, "_recall", recall)


def _forgets_restarts(stack: ExitStack) -> None:
    """A supervisor that is started again begins to count at zero."""
    _after_recalling(stack, lambda self: self._ends_ms.clear())


def _comes_back_at_once(stack: ExitStack) -> None:
    """A supervisor that is started again starts every part, whatever was left of its delay."""
    _set(stack, supervising, "left_s", lambda *_: 0.0)


def _backs_off_anew(stack: ExitStack) -> None:
    """A supervisor that is started again remembers that parts ended, and not which: delays begin anew."""

    def forget(self: Supervisor) -> None:
        for slot in self.slots.values():
            slot.ends_ms.clear()

    _after_recalling(stack, forget)


def _never_waits(stack: ExitStack) -> None:
    """A part that ended is started again at once, each time."""
    _set(stack, supervising, "delay_s", lambda *_, **__: 0.0)


def _sees_no_hang(stack: ExitStack) -> None:
    """Nobody looks whether parts give signs of life."""
    _set(stack, Supervisor, "_end_the_hung", _nothing)


def _quiet(plan: Plan, *events: Event, restarts: int = 10) -> Plan:
    return msgspec.structs.replace(
        plan, events=events, steps=(), points=(), hangs=(), restarts=restarts, strategy="one_for_one"
    )


def _with_orphans(plan: Plan) -> Plan:
    return _quiet(plan, Event(1.0, "hang", "voter-guard", 500.0), Event(2.0, "kill", "supervisor", 0.2))


def _with_illness(plan: Plan) -> Plan:
    return _quiet(plan, Event(0.0, "ill", "decider-1", 30.0), restarts=3)


def _with_illness_and_kills(plan: Plan) -> Plan:
    kills = [Event(at_s, "kill", "supervisor", 0.2) for at_s in (4.0, 8.0, 11.0)]
    return _quiet(plan, Event(0.0, "ill", "decider-1", 30.0), *kills, restarts=3)


def _with_a_kill_amid_a_delay(plan: Plan) -> Plan:
    return _quiet(plan, Event(0.0, "ill", "decider-1", 30.0), Event(4.0, "kill", "supervisor", 0.2), restarts=30)


def _with_a_hang(plan: Plan) -> Plan:
    return _quiet(plan, Event(0.35, "hang", "driver", 500.0))


CASES: tuple[Case, ...] = (
    Case("leaves_orphans", 17, "one_life_of_each_part", _leaves_orphans, _with_orphans),
    Case("never_gives_up", 17, "restarts_are_limited", _never_gives_up, _with_illness),
    Case("forgets_restarts", 17, "restarts_are_limited", _forgets_restarts, _with_illness_and_kills),
    Case("comes_back_at_once", 17, "backoff_is_kept", _comes_back_at_once, _with_a_kill_amid_a_delay),
    Case("backs_off_anew", 17, "backoff_is_kept", _backs_off_anew, _with_a_kill_amid_a_delay),
    Case("never_waits", 17, "backoff_is_kept", _never_waits, _with_illness),
    Case("sees_no_hang", 17, "hung_parts_are_replaced", _sees_no_hang, _with_a_hang),
)
