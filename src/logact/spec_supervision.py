"""From a specification's tables to what supervises an agent: recovery, a breaker, a watch.

It makes objects only; what they do is the agent's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from logact.core.breaking import Breaker
from logact.errors import SpecError, UsageError
from logact.runtime.watcher import Watch
from logact.spec_recovery import check_recovery, recovering
from logact.spec_supervise import check as check_supervise
from logact.spec_tables import BreakerTable, CodeTools, SuperviseTable, WatchTable, WebTools

if TYPE_CHECKING:
    from logact.spec import SpecFile

LEASE_S_MIN = 2.0
"""The shortest lease that a specification may ask for."""


def supervision(spec: SpecFile) -> dict[str, Any]:
    """The agent's options that the tables give; what a file leaves out is left to the agent's own defaults."""
    found: dict[str, Any] = {
        "checkpoint_every": spec.checkpoints.every,
        "checkpoint_bytes": spec.checkpoints.bytes,
        "checkpoint_s": spec.checkpoints.seconds,
        "lease_s": spec.agent.lease_s,
        "end_hung": spec.agent.end_hung,
        "hide_tools": spec.agent.hide_tools,
        "reuse_reads_s": spec.agent.reuse_reads_s,
    }
    if spec.recovery is not None:
        found["recovery"] = recovering(spec)
    if spec.breaker is not None:
        found["breaker"] = breaker_of(spec.breaker)
    if spec.watch is not None:
        found["watch"] = watch_of(spec.watch)
    return found


def check_tables(spec: SpecFile, where: Callable[..., str]) -> None:
    """Raise SpecError for numbers that fit their types and cannot be used. ``where`` names the place of a table."""
    check_supervise(spec.supervise, lambda key: where("supervise", key))
    if spec.health is not None:
        from logact.spec_health import check_health

        check_health(spec.health, where)
    makers: tuple[tuple[str, Callable[[], object]], ...] = (
        ("recovery", lambda: check_recovery(spec.recovery) if spec.recovery is not None else None),
        ("breaker", lambda: breaker_of(spec.breaker) if spec.breaker is not None else None),
        ("watch", lambda: watch_of(spec.watch) if spec.watch is not None else None),
    )
    for table, make in makers:
        try:
            make()
        except UsageError as error:
            raise SpecError(
                f"{where(table)}: {error.message}", received=error.received, expected=error.expected
            ) from error
    if spec.checkpoints.every < 1:
        raise SpecError(
            f"{where('checkpoints', 'every')}: checkpoints.every is not usable",
            received=str(spec.checkpoints.every),
            expected="a number of entries, from 1",
        )
    if spec.checkpoints.bytes < 0 or spec.checkpoints.seconds < 0:
        raise SpecError(f"{where('checkpoints')}: checkpoints is not usable", expected="bytes and seconds from 0")
    for place, tools in enumerate(spec.tools):
        if isinstance(tools, CodeTools | WebTools) and not tools.timeout_s > 0:
            raise SpecError(
                f"{where('tools', place, 'timeout_s')}: a tool's timeout_s is not usable",
                received=f"{tools.timeout_s:g}",
                expected="seconds, above 0",
            )
    _check_lease(spec, where)


def _check_lease(spec: SpecFile, where: Callable[..., str]) -> None:
    """A lease that can be kept, and a supervisor that looks no later than it runs out."""
    lease_s, hang_s = spec.agent.lease_s, spec.supervise.hang_s
    if not (lease_s == 0 or lease_s >= LEASE_S_MIN):
        raise SpecError(
            f"{where('agent', 'lease_s')}: agent.lease_s is not usable",
            received=f"{lease_s:g}",
            expected=f"seconds, from {LEASE_S_MIN:g}, or 0 for none",
            todo="signs of life come each third of it; an ordinary pause of a busy machine must not look like a hang",
        )
    if hang_s != SuperviseTable().hang_s and 0 < lease_s < hang_s:
        raise SpecError(
            f"{where('supervise', 'hang_s')}: supervise.hang_s is longer than agent.lease_s",
            received=f"hang_s = {hang_s:g}, lease_s = {lease_s:g}",
            expected=f"hang_s up to {lease_s:g}",
            todo="a part that is silent for lease_s is fenced off and ended before the supervisor would replace it: "
            "raise lease_s as well, or lower hang_s",
        )


def breaker_of(table: BreakerTable) -> Breaker:
    """A breaker as a table says. Raises UsageError."""
    return Breaker(**msgspec.structs.asdict(table))


def watch_of(table: WatchTable) -> Watch:
    """A watch as a table says. Raises UsageError."""
    return Watch(**msgspec.structs.asdict(table))


def witnessed(spec: SpecFile) -> dict[str, Any]:
    """An agent's arguments about its log's witness: ``witness`` and ``signing_key``, as far as they are set."""
    from logact.spec import absolute_url

    options: dict[str, Any] = {}
    if place := spec.log.witness:
        options["witness"] = absolute_url(place, spec.directory) if "://" in place else str(spec.at(place))
    if spec.log.signing_key:
        options["signing_key"] = spec.at(spec.log.signing_key)
    return options
