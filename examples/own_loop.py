"""A loop of your own: no model, no driver. You propose, voters judge, and only what is committed runs."""

import asyncio

from logact import Action, LogActAgent, LogEntry, Vote, open_log, tool


@tool(effect="idempotent")
def set_limit(service: str, per_minute: int) -> str:
    """Set how many requests a service takes per minute."""
    return f"{service}: {per_minute} per minute"


def not_too_low(entry: LogEntry) -> Vote:
    """Nobody is locked out."""
    fine = entry.action.arguments["per_minute"] >= 10
    return Vote(approved=fine, reason="enough for everybody" if fine else "that locks people out")


async def main() -> None:
    """Propose two changes; one is stopped before it runs."""
    wanted = [("search", 600), ("login", 0)]
    async with (
        open_log("sqlite:///own_loop.db") as log,
        LogActAgent("limits", log, [not_too_low], tools=[set_limit]) as agent,
    ):
        for service, per_minute in wanted:
            action = Action(tool="set_limit", arguments={"service": service, "per_minute": per_minute})
            entry = await agent.propose_action(action)
            judged = await agent.validate_action(entry)
            if not judged.approved:
                print(f"{service}: stopped: {judged.reason}")
                continue
            done = await agent.execute_action(entry)
            print(f"{service}: done: {done.result}" if done.success else f"{service}: failed: {done.error}")


if __name__ == "__main__":
    asyncio.run(main())
