"""The two recoveries of the description that LogAct began with, by their own hands, and the ones that ship.

Adapted: calls are awaited; an entry is never changed, so a retry names what it tries again and its count is folded
from the log; the analysis is a plain function here, where a model's answer would be.
"""

import asyncio
from collections.abc import Sequence

from logact import Action, LogActAgent, LogEntry, RetryRecovery, SafetyVoter, ToolError, open_log, tool
from logact.logs.base import SharedLog

down = {"first": 2, "second": 9, "third": 9}
sent: list[str] = []


@tool(effect="idempotent")
def send(to: str) -> str:
    """Send the weekly mail to somebody."""
    if down.get(to, 0) > 0:
        down[to] -= 1
        raise ToolError("the server is away", kind="transient", definite=True)
    sent.append(to)
    return f"sent to {to}"


class Analysis:
    """What a model made of a history."""

    def __init__(self, failed: LogEntry) -> None:
        name = failed.action.arguments["to"]
        self.should_retry, self.retry_action = name == "first", failed.action
        self.should_skip = name == "second"
        self.alternative_action = Action(tool="send", arguments={"to": "archive"})


class OwnSemanticRecovery:
    """The agent analyses its own history, and decides."""

    async def recover_with_introspection(self, agent: LogActAgent) -> LogEntry:
        history = await agent.log.get_history(agent.agent_id)
        analysis = self.llm_analyze(prompt="Analyze the history and suggest a recovery", context=history)
        if analysis.should_retry:
            return await agent.propose_action(analysis.retry_action)
        if analysis.should_skip:
            return await agent.skip_failed_action()
        return await agent.propose_alternative(analysis.alternative_action)

    def llm_analyze(self, prompt: str, context: Sequence[LogEntry]) -> Analysis:
        return Analysis([entry for entry in context if entry.status == "failed"][-1])


class OwnRetryRecovery:
    """Retry what failed, with a longer delay each time."""

    max_retries = 3
    base_delay = 0.01

    async def recover(self, entry: LogEntry, agent: LogActAgent) -> LogEntry:
        if entry.status != "failed":
            return entry
        retry_count = entry.retry_count
        if retry_count < self.max_retries:
            await asyncio.sleep(self.base_delay * 2**retry_count)
            new_entry = await agent.propose_action(entry.action, retry_of=entry.position)
            await agent.validate_action(new_entry)
            await agent.execute_action(new_entry)
            return await self.recover(await agent.look(new_entry.position), agent)
        entry = await agent.give_up(entry.position)
        await agent.log.update(entry)
        return entry


async def failed(log: SharedLog, name: str, to: str) -> tuple[LogActAgent, LogEntry]:
    """An agent with an action that did not work."""
    agent = LogActAgent(name, log, [SafetyVoter()], tools=[send])
    entry = await agent.propose_action(Action(tool="send", arguments={"to": to}))
    await agent.validate_action(entry)
    await agent.execute_action(entry)
    return agent, await agent.look(entry.position)


async def main() -> None:
    """Three failures recovered by analysis, one of them by retries, and one given up."""
    async with open_log("memory:") as log:
        for to in ("first", "second", "third"):
            agent, _ = await failed(log, f"semantic-{to}", to)
            after = await OwnSemanticRecovery().recover_with_introspection(agent)
            print(to, "->", after.status, after.action.arguments["to"])
        for name, recovery in (("own", OwnRetryRecovery()), ("shipped", RetryRecovery(base_delay=0.01))):
            down.update({"first": 2, "second": 9})
            for to in ("first", "second"):
                agent, entry = await failed(log, f"{name}-{to}", to)
                after = await recovery.recover(entry, agent)
                print(name, to, "->", after.status, after.result, f"after {after.retry_count} retries")


if __name__ == "__main__":
    asyncio.run(main())
