"""The coordination of the description that LogAct began with, by its own hands, and the one that ships.

Adapted: the calls are awaited. Who follows up is the agents' own affair: a class with two methods.
"""

import asyncio
from collections.abc import Sequence

from logact import Action, LogActAgent, LogEntry, MultiAgentLogAct, SafetyVoter, open_log, tool
from logact.logs.base import SharedLog
from logact.swarm import Task

shelf: list[str] = []


@tool(effect="idempotent")
def put(item: str) -> str:
    """Put an item on the shelf."""
    shelf.append(item)
    return f"{item} is on the shelf"


class Helper(LogActAgent):
    """Adds a label to whatever is put on the shelf."""

    def should_follow_up(self, entry: LogEntry) -> bool:
        return entry.action.tool == "put"

    def follow_up_action(self, entry: LogEntry) -> Action:
        return Action(tool="put", arguments={"item": f"label of {entry.action.arguments['item']}"})


class OwnMultiAgent:
    """Several agents, coordinated by the order of their log."""

    def __init__(self, agents: Sequence[LogActAgent], shared_log: SharedLog) -> None:
        self.agents = agents
        self.log = shared_log

    def find_agent(self, agent_id: str) -> LogActAgent:
        return next(agent for agent in self.agents if agent.agent_id == agent_id)

    async def coordinate_task(self, task: Task) -> None:
        first_proposal = await self.agents[0].propose_action(task.initial_action())
        for agent in self.agents[1:]:
            if isinstance(agent, Helper) and agent.should_follow_up(first_proposal):
                await agent.propose_action(agent.follow_up_action(first_proposal))
        for entry in await self.log.get_proposed():
            agent = self.find_agent(entry.agent_id)
            await agent.validate_action(entry)
        for entry in await self.log.get_validated_ordered():
            agent = self.find_agent(entry.agent_id)
            await agent.execute_action(entry)


async def main() -> None:
    """The same task, coordinated twice."""
    for kind in (OwnMultiAgent, MultiAgentLogAct):
        shelf.clear()
        async with open_log("memory:") as log:
            agents = [
                cls(name, log, [SafetyVoter()], tools=[put]) for cls, name in ((LogActAgent, "a"), (Helper, "b"))
            ]
            await kind(agents, log).coordinate_task(Task(action=Action(tool="put", arguments={"item": "jam"})))
            history = [*await log.get_history("a"), *await log.get_history("b")]
            print(kind.__name__, shelf, [entry.result for entry in history])


if __name__ == "__main__":
    asyncio.run(main())
