"""The introspection of the description that LogAct began with: performance, health, and a swarm's tokens.

Adapted: the calls are awaited, and a model's context is the log, so that its answer can cite positions of it. What
can be computed is computed; the model here is a script, as a real one's answer differs each time.
"""

import asyncio

from logact import AgenticIntrospection, LogActAgent, SafetyVoter, ScriptedModel, open_log, tool
from logact.entry import Call
from logact.models import call
from logact.models.base import ModelRequest
from logact.models.scripted import turn_of

looks: list[str] = []


@tool(effect="read")
def look(shelf: str) -> str:
    """Look at a shelf."""
    looks.append(shelf)
    return "plum jam, " * 300


def work(request: ModelRequest) -> Call | str:
    """Looks at the same shelf twice, and says so."""
    return call("look", shelf="seven") if turn_of(request) < 2 else "There is jam."


def analyst(request: ModelRequest) -> Call:
    """Says one thing of the case that it was asked about, and where that stands: the first position it was shown."""
    words = request.messages[-1].text.split()
    cited = next(int(word) for word in words if word.isdecimal() and len(word) > 3)
    claim = {"text": "The shelf is looked at again and again.", "cites": [cited]}
    return call("reply", case=words[1], answer=[claim])


async def main() -> None:
    """Two agents work, are looked at, and are made to use fewer tokens."""
    async with open_log("memory:") as log:
        model = ScriptedModel(work)
        swarm = [LogActAgent(name, log, [SafetyVoter()], model=model, tools=[look]) for name in ("ann", "bob")]
        for agent in swarm:
            for day in ("monday", "tuesday", "wednesday"):
                await agent.run(f"Is there jam on {day}?")

        introspection = AgenticIntrospection()
        issues = await introspection.debug_performance(swarm[0])
        print("issues:", [f"{one.tool} {one.count} times" for one in issues.performance.repeated])
        health = await introspection.health_check(swarm[0])
        print("health:", health.verdict)
        analysis = await AgenticIntrospection(ScriptedModel(analyst)).llm_analyze(
            prompt="Identify performance issues in recent actions", context=log, agent="ann"
        )
        print("a model says:", analysis.text, "cites", len(analysis.statements[0].cites))

        optimization = await introspection.optimize_token_usage(swarm)
        for agent in swarm:
            await agent.apply_optimization(optimization[agent.id], automatic=True)
        before = len(looks)
        for agent in swarm:
            await agent.run("Is there jam on thursday?")
        print("looks before:", before, "- after:", len(looks) - before)


if __name__ == "__main__":
    asyncio.run(main())
