"""A swarm's own history as a way to fewer tokens: read it once, and hand each agent its part.

It owns the order of those steps; what is wasteful ``tokens`` says, and what applying means, the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from logact.errors import UsageError
from logact.introspection.token_reading import Spending, spending
from logact.introspection.tokens import Optimization, Saving, optimizations, saving
from logact.introspection.trials import Candidate, price_of

if TYPE_CHECKING:
    from logact.agent import LogActAgent


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence of an answer, and the positions that support it."""

    text: str
    cites: tuple[int, ...]


class Optimized(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for each agent, where what was applied stands, and how far the log had been read.

    ``position`` is what ``measured`` compares before and after with. ``dropped`` counts sentences of a model's advice
    that cited nothing, or what is not there; ``failed`` says why there is no advice.
    """

    optimizations: dict[str, Optimization]
    applied: dict[str, list[int]]
    position: int
    advice: tuple[Statement, ...] = ()
    dropped: int = 0
    failed: str = ""

    def __getitem__(self, agent_id: str) -> Optimization:
        """An agent's part, for its ``apply_optimization``. KeyError for who was not asked about."""
        return self.optimizations[agent_id]


async def swarm_log(swarm: Sequence[LogActAgent]) -> Spending:
    """What these agents spent their tokens on. UsageError if they share no log."""
    if not swarm or any(agent.log is not swarm[0].log for agent in swarm):
        raise UsageError("A swarm is one or more agents on one log", received=f"{len(swarm)} agents")
    return await spending(swarm[0].log, [agent.agent_id for agent in swarm])


async def optimize(swarm: Sequence[LogActAgent], *, automatic: bool, digests: bool = False) -> Optimized:
    """Compute, and hand each agent its part."""
    found = await swarm_log(swarm)
    models = {agent.agent_id: _models(agent) for agent in swarm}
    wanted = optimizations(found, [agent.agent_id for agent in swarm], digests=digests, models=models)
    applied = {
        agent.agent_id: await agent.apply_optimization(wanted[agent.agent_id], automatic=automatic) for agent in swarm
    }
    return Optimized(optimizations=wanted, applied=applied, position=found.seen)


async def measured(swarm: Sequence[LogActAgent], position: int) -> Saving:
    """What the log shows: tokens per run before and after a position."""
    return saving(await swarm_log(swarm), position)


def _models(agent: LogActAgent) -> list[Candidate]:
    """The agent's own model and those that it may try; none if a price is not known."""
    known = [agent.model, *agent.try_models.values()]
    priced = [(model.name, price_of(model)) for model in known if model is not None]
    found = [Candidate(name=name, price=price) for name, price in priced if price is not None]
    return found if len(found) == len(known) else []
