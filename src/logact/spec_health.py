"""``[health]`` in a specification: how often an agent's health is checked, and what follows from a verdict.

``logact health SPEC --schedule`` plays it; ``watch_health`` does in code. What was done stands in the log, and is
done again only when the verdict changes or a reason joins it: another signal, run or tool.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from logact.entry import Control, Finding, NewEntry, Notice, Payload
from logact.errors import LogActError, SpecError
from logact.introspection.agentic import AgenticIntrospection
from logact.introspection.health import Health
from logact.introspection.profiler import folded
from logact.introspection.signals import Thresholds
from logact.logs.base import SharedLog, where
from logact.runtime.checkpointer import bookmark
from logact.runtime.scheduler import Due, Job, Scheduler
from logact.spec_tables import HealthTable

if TYPE_CHECKING:
    from logact.agent import LogActAgent

BOOKMARK_AFTER = 10_000
"""More entries than the agent's own checkpoints leave behind."""

REASONS_MAX = 200
"""So many reasons of a verdict are written down."""

Act = Literal["nothing", "notify", "ask", "pause", "recover", "stop"]


def check_health(table: HealthTable, where: Callable[..., str]) -> None:
    """Raise SpecError for a threshold that there is not; ``where`` says where a key of the file stands."""
    known = Thresholds.__struct_fields__
    for name in table.thresholds:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SpecError(
                f"{where('health', 'thresholds', name)}: there is no threshold {name!r}",
                expected="one of " + ", ".join(known),
                todo=f"did you mean {near[0]!r}?" if near else "remove it",
            )


def thresholds_of(table: HealthTable | None) -> Thresholds:
    """The thresholds of a specification. They were checked when it was read."""
    return msgspec.convert(table.thresholds, Thresholds) if table is not None else Thresholds()


def job_of(table: HealthTable, agent: str) -> Job:
    """The scheduled job of an agent's health check."""
    return Job(name=f"health:{agent}", cron=table.cron, missed=table.missed, zone=table.zone)


def watch_health(log: SharedLog, agent: LogActAgent, table: HealthTable, model: Any = None) -> Scheduler:
    """A scheduler that checks an agent's health and acts on it. Raises SpecError and MissingExtra.

    Where checkpoints are far behind it writes one, so that each check reads only what came since the last.
    """
    introspection = AgenticIntrospection(model, thresholds=thresholds_of(table), author="health")

    async def work(due: Due) -> Mapping[str, Any]:
        try:
            await bookmark(log, agent=agent.agent_id, voters=agent.voters, after=BOOKMARK_AFTER)
        except LogActError:
            pass  # no right to write one, or a race: the check itself only takes longer
        found = await introspection.health(log, agent=agent.agent_id, strict=False)
        did = await act(log, agent, found, table)
        return {"verdict": found.verdict, "did": did}

    return Scheduler(log, [job_of(table, agent.agent_id)], work)


async def act(log: SharedLog, agent: LogActAgent, found: Health, table: HealthTable) -> str:
    """Do what the specification says for this verdict; what was done ("nothing" if that stands already)."""
    wanted: Act = "nothing" if found.verdict == "healthy" else table.on.get(found.verdict, "notify")
    reasons = _reasons(found)
    before = await _last(log, agent.agent_id)
    if before is None and found.verdict == "healthy":
        return "nothing"
    same = before is not None and (before.verdict, before.wanted) == (found.verdict, wanted)
    if before is not None and same and reasons <= before.reasons:
        return "nothing"
    did: str = wanted
    reason = f"health: {found.verdict}: " + "; ".join(one.message for one in found.signals[:3])[:400]
    scope = f"agent:{agent.agent_id}"
    held = (await folded(log)).state.control_over(agent.agent_id)
    entries: list[Payload] = []
    if wanted in ("pause", "ask") and not held:
        entries.append(Control(verb="pause", scope=scope, reason=reason))
    elif wanted == "stop" and not held.startswith("stopped"):
        entries.append(Control(verb="stop", scope=scope, reason=reason))
    elif wanted == "recover":
        did = await _recovered(agent)
    if wanted == "ask":
        todo = f"look at it (`logact health`), then `logact resume --agent {agent.agent_id}` or `logact stop`"
        entries.append(Notice(code="health_asks", message=f"{reason}. A person decides: {todo}"))
    elif wanted != "nothing":
        entries.append(Notice(code="health", message=reason, data={"verdict": found.verdict, "did": did}))
    cites = tuple(dict.fromkeys(cite for one in found.signals for cite in one.cites))[:100]
    data = {"verdict": found.verdict, "did": did, "wanted": wanted, "reasons": sorted(reasons)}
    message = reason if found.signals else f"health: {found.verdict}"
    entries.append(Finding(code="health", message=message, cites=cites, agent=agent.agent_id, data=data))
    batch = [NewEntry(payload=one, role="supervisor", name="health", agent=agent.agent_id) for one in entries]
    await log.append(*batch)
    return did


async def _recovered(agent: LogActAgent) -> str:
    """Settle what an earlier life left, or why that cannot be done (somebody plays it, only a person can tell)."""
    try:
        await agent.recover_from_failure()
    except LogActError as error:
        return f"recover did not work: {error}"[:300]
    return "recover"


class _Acted(msgspec.Struct, frozen=True):
    """What was acted on last, as the finding about it says."""

    verdict: str
    wanted: str
    reasons: frozenset[str] = frozenset()


def _reasons(found: Health) -> frozenset[str]:
    """What a verdict rests on, one text each: which signal, of which run, about which tool. Of very many the latest.

    Counts and positions are left out: they grow while the trouble stays the same one.
    """
    every = {
        (one.run, f"{one.code} {one.run or '-'} {about}".strip())
        for one in found.signals
        for about in one.about or ("",)
    }
    return frozenset(text for _, text in sorted(every)[-REASONS_MAX:])


async def _last(log: SharedLog, agent: str) -> _Acted | None:
    """What of this agent was acted on last; None if nothing was, or it was healthy since."""
    last = None
    async for entry in log.read_kept(matching=where(kinds=["Finding"], agents=[agent], roles=["supervisor"])):
        said = entry.payload
        if not isinstance(said, Finding) or said.code != "health" or "did" not in said.data:
            continue
        try:
            last = msgspec.convert(said.data, _Acted)
        except msgspec.ValidationError:
            continue  # somebody else's finding
        last = last if last.verdict != "healthy" else None
    return last
