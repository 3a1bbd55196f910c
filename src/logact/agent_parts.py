"""The parts of one agent in one process, wired once for one life, and run together.

Owns which part knows which. It makes no decision and appends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from logact.introspection.history import History
from logact.models.base import Model
from logact.runtime.assembly import keeper_of
from logact.runtime.checkpointer import Checkpointer
from logact.runtime.decider import Decider
from logact.runtime.driver import Driver
from logact.runtime.executor import Executor
from logact.runtime.host import Host
from logact.runtime.inline import Inline
from logact.runtime.leases import Pulse
from logact.runtime.proposer import Proposer
from logact.runtime.recoverer import Recoverer
from logact.runtime.verifying import BackgroundCheck
from logact.runtime.voter_host import VoterHost
from logact.runtime.watcher import Watcher

if TYPE_CHECKING:
    from logact.agent import LogActAgent


class Parts:
    """The parts of one life, wired once."""

    def __init__(self, agent: LogActAgent, host: Host) -> None:
        mine = [agent.agent_id]
        self.agent = agent
        self.host = host
        agent.reads.forget()
        self.voter_host = VoterHost(host, agent.voters, agents=mine)
        self.decider = Decider(host, agents=mine)
        retry = agent.recovery.rules if agent.recovery is not None else None
        self.executor = Executor(
            host, agent.tools, agents=mine, secrets=agent.secrets, retry=retry, breaker=agent.breaker
        )
        self.recoverer = Recoverer(host, agent.tools, agents=mine, executor=self.executor, end_hung=agent.end_hung)
        self.watcher = Watcher(host, agent.watch, hearing=self.recoverer.hearing)
        self.pulse = Pulse(host, self.executor.at_work)
        self.proposer = Proposer(host, agent.tools, agent.secrets, decide_within_ms=agent.decide_within_ms)
        self.inline = Inline(host, self.voter_host, self.executor)
        self.checkpointer = Checkpointer(
            host,
            every=agent.checkpoint_every,
            bytes_max=agent.checkpoint_bytes,
            seconds_max=agent.checkpoint_s,
            voters=self.voter_host,
        )
        self.witness = keeper_of(host, agent)
        self.executor.leave, host.stuck = agent.leave, agent.stuck
        self._drivers: list[Driver] = []
        self.own_run = 0
        self.proposing = asyncio.Lock()
        self.told: History | None = None
        self.farewell: Exception | None = None

    def driver(self, model: Model, *, wait: bool = True, stepwise: bool = False) -> Driver:
        """A driver for one run; ``stepwise``: one that only proposes."""
        agent = self.agent
        kind = agent.answer_type
        driver = Driver(
            self.host,
            model,
            self.proposer,
            system=agent.tuning.prompt(agent.system),
            hidden=agent.tuning.hidden | {*agent.hide_tools},
            inline=None if stepwise else self.inline,
            executor=None if stepwise else self.executor,
            answer_schema=msgspec.json.schema(kind) if kind is not None else None,
            check_answer=(lambda value: msgspec.convert(value, kind)) if kind is not None else None,
            context_tokens_max=agent.context_tokens_max,
            model_timeout_s=agent.model_timeout_s,
            doubts=self.recoverer.doubts,
            waits=(lambda run: "") if wait else self.voter_host.waits,
            watcher=self.watcher,
        )
        driver.leave = agent.leave
        for earlier in self._drivers:
            if not earlier.asking:  # one that goes on reads what it misses from the log
                earlier.transcript.close()
        self._drivers[:] = [driver]
        return driver

    @property
    def asking(self) -> bool:
        """Whether an answer of the model is on the way."""
        return any(driver.asking for driver in self._drivers)

    def running(self) -> AbstractAsyncContextManager[None]:
        """The parts beside the driver run meanwhile."""
        return running(*self.loops())

    def loops(self) -> list[Any]:
        """What runs beside the driver."""
        return [
            self.host.tail.follow(),
            self.voter_host.run(),
            self.decider.run(),
            self.executor.run(),
            self.recoverer.run(),
            self.checkpointer.run(),
            self.watcher.run(),
            self.pulse.run(),
            *([self.witness.run()] if self.witness is not None else []),
            *([check.run()] if (check := BackgroundCheck(self.host)).needed else []),
        ]


@asynccontextmanager
async def running(*loops: Any) -> AsyncIterator[None]:
    """These loops run meanwhile; what one of them raises ends the body."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as errors:
        raise only(errors) from None


def only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first real error of a group: users get it without the wrapping."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        real = [one for one in first.exceptions if not isinstance(one, asyncio.CancelledError)]
        first = (real or list(first.exceptions))[0]
    return first
