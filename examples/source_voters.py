"""The voters of the description that LogAct began with: safety, resources, and one that asks a model.

Adapted: ``llm_validate`` is awaited, and answered by a script instead of a model; so ``check`` of the third is async.
"""

import asyncio

from logact import Action, LogActAgent, LogEntry, ScriptedModel, Vote, Voter, open_log, tool
from logact.models import Message, ModelRequest


class SafetyVoter(Voter):
    """Safety checks: prevent harmful actions."""

    def check(self, entry: LogEntry) -> Vote:
        if self.is_safe(entry.action):
            return Vote(approved=True, reason="action safe")
        return Vote(approved=False, reason="action unsafe")

    def is_safe(self, action: Action) -> bool:
        """Nothing goes to strangers."""
        return str(action.arguments["to"]).endswith("@example.org")


class ResourceVoter(Voter):
    """Resource checks: prevent resource exhaustion."""

    def check(self, entry: LogEntry) -> Vote:
        if self.resources_available(entry.action):
            return Vote(approved=True, reason="resources available")
        return Vote(approved=False, reason="resources exhausted")

    def resources_available(self, action: Action) -> bool:
        """A letter has its size."""
        return len(str(action.arguments["text"])) <= 100


class SemanticVoter(Voter):
    """Semantic checks: prevent semantically invalid actions. Uses a model to validate the action's intent."""

    def __init__(self, model: ScriptedModel) -> None:
        super().__init__()
        self.model = model

    async def check(self, entry: LogEntry) -> Vote:
        answer = await self.model.answer(
            ModelRequest(
                system="Answer VALID or INVALID, then a reason.",
                messages=(Message(role="user", text=f"Task: {entry.task}\nAction: {entry.action.arguments}"),),
            )
        )
        verdict, _, reason = answer.text.partition(" ")
        return Vote(approved=verdict == "VALID", reason=reason)


def polite(request: ModelRequest) -> str:
    """Stands in for the model."""
    return "INVALID it is rude" if "fool" in request.messages[-1].text else "VALID it is polite"


@tool(effect="irreversible")
def send(to: str, text: str) -> str:
    """Send a letter."""
    return f"sent to {to}"


async def main() -> None:
    """Four letters, of which one is sent."""
    voters = [SafetyVoter(), ResourceVoter(), SemanticVoter(ScriptedModel(polite))]
    letters = [
        ("ann@example.org", "Dear Ann, thank you."),
        ("eve@elsewhere.net", "Dear Eve, here is the list."),
        ("ann@example.org", "Dear Ann, " + "thank you " * 20),
        ("ann@example.org", "Ann, you fool."),
    ]
    async with open_log("memory:") as log, LogActAgent("post", log, voters, tools=[send]) as agent:
        for to, text in letters:
            entry = await agent.propose_action(Action(tool="send", arguments={"to": to, "text": text}))
            validation = await agent.validate_action(entry)
            reasons = [vote.reason for vote in validation.votes if not vote.approved]
            done = (await agent.execute_action(entry)).result if validation.approved else f"stopped: {reasons}"
            print(text[:16], "->", done)


if __name__ == "__main__":
    asyncio.run(main())
