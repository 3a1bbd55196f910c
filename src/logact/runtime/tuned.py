"""What was applied to save an agent tokens, followed by a driver that is a process of its own.

Owns what the model is shown and offered, and which model a run's is; it says so in the log where a trial ends.
"""

from __future__ import annotations

from typing import Protocol

from logact.entry import Checkpoint
from logact.introspection.tuning import Tuning
from logact.models.base import Model
from logact.runtime.driver import Driver
from logact.runtime.host import Host


class Tunable(Protocol):
    """What is needed to know of an agent."""

    agent_id: str
    system: str
    hide_tools: tuple[str, ...]
    tuning: Tuning
    try_models: dict[str, Model]


class Tuned:
    """Keeps one driver to what is in force. ``ready`` is called before each run."""

    def __init__(self, host: Host, agent: Tunable, driver: Driver) -> None:
        self.host = host
        self.agent = agent
        self.driver = driver
        self._own = driver.asker.model
        host.tail.observe(agent.tuning.observe, Tuning.KINDS)
        host.tail.restore(self._restored)

    async def _restored(self, checkpoint: Checkpoint | None) -> bool:
        if checkpoint is not None:
            await self.agent.tuning.load(self.host.log, checkpoint.upto)
        return True

    async def ready(self, run: int) -> None:
        """Write down what a trial has come to, and set the driver up for a run."""
        tuning, asker = self.agent.tuning, self.driver.asker
        judged = tuning.judged()
        if judged is not None:
            await self.host.append([self.host.entry(judged[0], "driver", self.agent.agent_id)])
        asker.system = tuning.prompt(self.agent.system)
        asker.hidden = tuning.hidden | {*self.agent.hide_tools}
        asker.model = tuning.tried(run, self.agent.try_models) or self._own
