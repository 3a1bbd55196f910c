"""The four phases of the description that LogAct began with: propose, validate, execute, recover.

Adapted: the calls are awaited, an entry's status is folded from the log rather than written into it, and the state is
asked for rather than kept.
"""

import asyncio

from logact import Action, LogActAgent, LogEntry, Vote, Voter, open_log, tool

files = {"notes.txt": "buy milk", "taxes.txt": "paid"}


@tool(effect="idempotent")
def remove(name: str) -> str:
    """Remove a file."""
    files.pop(name, None)
    return f"{name} is removed"


class KeepTaxes(Voter):
    """Some things are kept."""

    def check(self, entry: LogEntry) -> Vote:
        if entry.action.arguments["name"] != "taxes.txt":
            return Vote(approved=True, reason="not the taxes")
        return Vote(approved=False, reason="taxes are kept for ten years")


async def main() -> None:
    """One action that runs, one that does not, and a recovery with nothing to do."""
    shared_log = open_log("memory:")
    agent = LogActAgent(agent_id="cleaner", shared_log=shared_log, voters=[KeepTaxes()], tools=[remove])
    async with shared_log, agent:
        # Phase 1: the action is not executed yet, only proposed
        entry = await agent.propose_action(Action(tool="remove", arguments={"name": "notes.txt"}))
        print(entry.status, sorted(files))

        # Phase 3 before phase 2 does nothing
        execution = await agent.execute_action(entry)
        print(execution.success, execution.error)

        # Phase 2: voters check it; actions can be stopped before execution
        validation = await agent.validate_action(entry)
        print(validation.approved, [vote.reason for vote in validation.votes])

        # Phase 3: only executed if validation passed
        execution = await agent.execute_action(entry)
        print(execution.success, execution.result, sorted(files))

        stopped = await agent.propose_action(Action(tool="remove", arguments={"name": "taxes.txt"}))
        validation = await agent.validate_action(stopped)
        print(validation.approved, [vote.reason for vote in validation.votes], sorted(files))

        # Phase 4: the log enables consistent state reconstruction
        state = await agent.recover_from_failure()
        print(state.open_actions, state.snapshot() == (await agent.state()).snapshot())


if __name__ == "__main__":
    asyncio.run(main())
