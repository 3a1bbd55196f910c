"""Canary actions: harmless calls that must be stopped. What was seen to be stopped is proved, not configured.

Each canary runs on a log of its own in memory. Its tool only notes that it ran; nothing outside is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logact.agent import LogActAgent
from logact.core.views import Action, LogEntry
from logact.entry import Policy
from logact.errors import LogActError
from logact.logs.url import open_log
from logact.tools import Tool
from logact.voters.base import Voter

if TYPE_CHECKING:
    from logact.cli.doctor import Check
    from logact.spec import SpecFile

DANGER = "rm -rf / --no-preserve-root"


class _Broken(Voter):
    """A voter of a specification, as it is when it fails: everything but its answer is its own."""

    def __init__(self, like: Voter) -> None:
        super().__init__(like.name)
        self.on_failure = like.on_failure
        self.placement = like.placement
        self.shadow = like.shadow

    def check(self, entry: LogEntry) -> Any:
        raise RuntimeError("the canary broke this voter on purpose")


class _Crashing(_Broken):
    def __init__(self) -> None:
        super().__init__(Voter("canary-voter"))


async def fire_canaries(file: SpecFile | None) -> list[Check]:
    """Fire all canaries; the voters are those of a specification, where one is given."""
    from logact.cli.doctor import Check

    found = [await _fire("no voter", "without any voter, an irreversible action", [])]
    found.append(await _fire("broken voter", "with a voter that crashes, an action", [_Crashing()]))
    if file is None:
        return found
    from logact.spec_parts import policy_of, tools_of, voters_of
    from logact.spec_tables import CodeTools

    tools: list[Tool] | None = None
    try:
        tools = tools_of(file)
        found.append(Check("tools", "ok", _names([tool.name for tool in tools])))
    except LogActError as error:
        found.append(Check("tools", "FAILED", str(error)))
    try:
        voters = voters_of(file, tools)
        policy = policy_of(file, voters, "canary")
    except LogActError as error:
        return [*found, Check("voters", "FAILED", str(error))]
    if not voters and policy is None:
        return [*found, Check("voters", "note", "none, so only tools that read are let through")]
    found.append(Check("voters", "ok", _names([voter.name for voter in voters])))
    broken = [_Broken(voter) for voter in voters]
    broken_policy = policy_of(file, broken, "canary")
    found.append(
        await _fire("voters broken", "when all of these voters crash, an action", broken, policy=broken_policy)
    )
    awake = await _fire("voters awake", f"`{DANGER}`", voters, policy=policy, tool="run_shell")
    if awake.verdict == "FAILED" and not any(isinstance(table, CodeTools) for table in file.tools):
        awake = Check(
            "voters awake", "note", f"{awake.said}; this agent has no tool that runs code, so it cannot ask"
        )
    return [*found, awake]


def _names(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else "none"


async def _fire(
    name: str, what: str, voters: list[Any], *, policy: Policy | None = None, tool: str = "logact_canary"
) -> Check:
    """Propose, have it judged, and try to execute whatever the verdict was; then look whether the body ran."""
    from logact.cli.doctor import Check

    ran: list[str] = []

    def canary(command: str) -> str:
        """Run a command."""
        ran.append(command)
        return "the canary ran"

    body = Tool(canary, name=tool, effect="irreversible")
    async with open_log("memory:") as log:
        agent = LogActAgent("canary", log=log, voters=voters, tools=[body], policy=policy, decide_within_s=10)
        try:
            async with agent:
                entry = await agent.propose_action(Action(tool=tool, arguments={"command": DANGER}))
                judged = await agent.validate_action(entry)
                await agent.execute_action(judged.entry or entry)
        except LogActError as error:
            if not ran:
                return Check(name, "proved", f"{what} was stopped: {error}")
            raise
    if ran:
        return Check(name, "FAILED", f"{what} was let through, and the canary's body ran")
    if judged.approved:
        return Check(name, "FAILED", f"{what} was approved, though it did not run")
    return Check(name, "proved", f"{what} was stopped, its body did not run: {judged.reason}")
