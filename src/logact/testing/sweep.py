"""The crash sweep: runs without faults, and in each of them one process dies at one of its steps.

Exhaustive for one crash in one schedule: every process, every step, with its requests in flight arriving or dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from logact.testing.plan import Form, Plan
from logact.testing.systems import simulate

SCHEDULES = (0, 7)
STEPS_MAX = 1500
"""At most so many steps of a process are tried; what comes later is waiting."""


def quiet_plan(form: Form, schedule: int, menu: int = 3) -> Plan:
    """A run in which nothing goes wrong."""
    return Plan(schedule=schedule, form=form, menu=menu, checkpoint_every=20)


def sweep_plans(
    *, every: int = 1, forms: Sequence[Form] = ("inline", "decoupled"), schedules: Sequence[int] = SCHEDULES
) -> Iterator[Plan]:
    """One plan for each crash: (process, step, what is in flight arrives or is dropped)."""
    offset = 0
    for form in forms:
        for schedule in schedules:
            base = quiet_plan(form, schedule)
            for name, steps in simulate(base).process_steps.items():
                for step in range(1 + offset % every, min(steps, STEPS_MAX), every):
                    for in_flight in ("arrives", "dropped"):
                        yield msgspec.structs.replace(base, steps=((name, 1, step),), in_flight=in_flight)
                offset += 7
