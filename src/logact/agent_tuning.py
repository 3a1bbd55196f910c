"""Applies what would save an agent tokens: at once where that is asked for, by a vote otherwise; each is an entry.

A smaller model is never applied without a vote. Owns the way there; what a change means, ``introspection.tuning``
says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from logact.agent_parts import Parts, only, running
from logact.core.state import RunState
from logact.core.views import Action
from logact.entry import NewEntry, Notice
from logact.errors import LogActError, ModelError, UsageError
from logact.introspection.token_reading import TUNED
from logact.introspection.tokens import Measure, Optimization
from logact.introspection.tuning import Tuning, applied_to
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.tools import Tool

if TYPE_CHECKING:
    from logact.agent import LogActAgent

NAME = TUNED


async def apply(agent: LogActAgent, optimization: Optimization, *, automatic: bool) -> list[int]:
    """Apply an agent's part. Where the entries stand that apply what was approved, and is not in force already."""
    if optimization.agent != agent.agent_id:
        raise UsageError(
            "This is another agent's part", received=optimization.agent, expected=agent.agent_id, todo="hand it there"
        )
    found = []
    for measure in optimization.measures:
        if any(_same(measure, one) for one in agent.tuning.measures.values()):
            continue
        old = [at for at, one in agent.tuning.measures.items() if _replaces(measure, one)]
        if automatic and measure.kind != "model":
            found.append(await write(agent, agent.tuning.notice(measure)))
        else:
            found += await _voted(agent, measure)
        if found and any(_same(measure, agent.tuning.measures[at]) for at in found if at in agent.tuning.measures):
            for at in old:
                await write(agent, agent.tuning.undone(at, "replaced"))
    return found


def equip(agent: LogActAgent) -> None:
    """Put before the agent's tools and model what a change in force needs, unless it stands there already."""
    from logact.swarm import answers, digests, sharing

    if agent.tuning.shares_reads:
        sharing.equip(agent)
    if agent.tuning.shares_answers:
        answers.equip(agent)
    if agent.tuning.digests is not None and not digests.is_equipped(agent):
        digests.equip(agent)


async def write(agent: LogActAgent, notice: Notice) -> int:
    """Append a change of the tuning, and take it into force."""
    done = await agent.log.append(NewEntry(payload=notice, role="client", name=agent.agent_id, agent=agent.agent_id))
    agent.tuning.take(await agent.log.get(done.position))
    return done.position


async def undo_change(log: SharedLog, position: int, reason: str = "") -> int:
    """Take a change back that was applied to whichever agent; it follows at once, wherever it is at work.

    Where the entry stands that says so. Raises UsageError if no change is in force from there.
    """
    agent = await applied_to(log, position)
    notice = Tuning(agent).undone(position, reason)
    return (await log.append(NewEntry(payload=notice, role="client", name=agent, agent=agent))).position


# --- a cheaper model on trial ------------------------------


async def drive(agent: LogActAgent, parts: Parts, run: int, *, wait: bool) -> RunState:
    """Drive a run with the agent's model, or with one that is on trial; that one is left if it does not answer."""
    while True:
        await judge(agent)
        model, tried = model_of(agent, run)
        try:
            async with running(*parts.loops()):
                done = await parts.driver(model, wait=wait).drive(run)
                await parts.voter_host.tried()
        except BaseExceptionGroup as errors:
            error = only(errors)
            if tried and isinstance(error, ModelError) and await judge(agent) == "undo":
                continue
            raise error from None
        await judge(agent)
        return done


async def judge(agent: LogActAgent) -> str:
    """Write down what a trial has come to, if it has: ``keep`` or ``undo``, else nothing."""
    judged = agent.tuning.judged()
    if judged is None:
        return ""
    notice, verdict = judged
    await write(agent, notice)
    return verdict.does


def model_of(agent: LogActAgent, run: int) -> tuple[Model, bool]:
    """The model for a run, and whether it is one on trial."""
    if agent.model is None:
        raise UsageError("This agent has no model", todo="give it one with model=..., or use propose_action")
    other = agent.tuning.tried(run, agent.try_models)
    model = other or agent.model
    return (agent.asks(model) if agent.asks is not None else model), other is not None


# --- the vote ------------------------------


async def _voted(agent: LogActAgent, measure: Measure) -> list[int]:
    """Propose the change as an action under the agent's own voters; nothing without their approval."""
    from logact.agent import LogActAgent as Proposer

    applied: list[int] = []

    async def apply_optimization(measure: dict[str, Any]) -> str:
        """Change what an agent is shown or offered, to save tokens."""
        notice = agent.tuning.notice(msgspec.convert(measure, Measure))
        applied.append(await write(agent, notice))
        return f"applied at {applied[-1]}"

    tool = Tool(apply_optimization, effect="idempotent", name=NAME)
    proposer = Proposer(f"{agent.agent_id}-tuning", agent.log, agent.voters, tools=[tool])
    try:
        await proposer.act(Action(tool=NAME, arguments={"measure": msgspec.to_builtins(measure)}))
    except LogActError as error:
        if not error.definite:
            raise
    return applied


def _replaces(one: Measure, other: Measure) -> bool:
    """Whether a measure takes the place of another: the same text handed over, or another choice of tools."""
    if one.kind != other.kind:
        return False
    return one.kind != "share" or (one.data["tool"], one.data["arguments"]) == (
        other.data["tool"],
        other.data["arguments"],
    )


def _same(one: Measure, other: Measure) -> bool:
    """Whether two measures change the same in the same way."""
    if one.kind != other.kind:
        return False
    if one.kind == "share":
        return (one.data["tool"], one.data["arguments"], one.data["text"]) == (
            other.data["tool"],
            other.data["arguments"],
            other.data["text"],
        )
    return one.data == other.data


__all__ = ["NAME", "Tuning", "apply", "write"]
