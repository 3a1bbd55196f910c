"""The action interceptor of the description that LogAct began with, and the one that ships.

Adapted: it is a ``Voter``, so that a policy can name it. The rules are objects with ``name``, ``matches(action)`` and
``should_stop``; the interceptor that ships takes the same objects, and its own ``ActionRule``.
"""

import asyncio
from collections.abc import Sequence

from logact import Action, ActionInterceptor, ActionRule, LogActAgent, LogEntry, Vote, Voter, open_log, tool


class NoProduction:
    """A rule."""

    name = "no-production"
    should_stop = True

    def matches(self, action: Action) -> bool:
        """Whether the rule speaks of this action."""
        return action.arguments.get("database") == "production"


class OwnInterceptor(Voter):
    """Stop unwanted actions before execution."""

    def __init__(self, rules: Sequence[NoProduction]) -> None:
        super().__init__()
        self.rules = rules

    def check(self, entry: LogEntry) -> Vote:
        """Check an action against the rules."""
        for rule in self.rules:
            if rule.matches(entry.action) and rule.should_stop:
                return Vote(approved=False, reason=f"stopped by rule: {rule.name}")
        return Vote(approved=True, reason="no rules matched")


@tool(effect="irreversible")
def drop(database: str) -> str:
    """Drop a database."""
    return f"dropped {database}"


async def main() -> None:
    """The same two actions, judged by three interceptors."""
    interceptors: list[Voter] = [
        OwnInterceptor([NoProduction()]),
        ActionInterceptor([NoProduction()]),
        ActionInterceptor([ActionRule("no-production", tool="drop", arguments={"database": "production"})]),
    ]
    for number, interceptor in enumerate(interceptors):
        async with (
            open_log("memory:") as log,
            LogActAgent(f"dba-{number}", log, [interceptor], tools=[drop]) as agent,
        ):
            for database in ("scratch", "production"):
                entry = await agent.propose_action(Action(tool="drop", arguments={"database": database}))
                validation = await agent.validate_action(entry)
                if validation.approved:
                    print(interceptor.name, "->", (await agent.execute_action(entry)).result)
                else:
                    print(interceptor.name, "->", validation.reason)


if __name__ == "__main__":
    asyncio.run(main())
