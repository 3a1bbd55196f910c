"""The proof that a specification says all of an agent: it is built again at once, and has to come out equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logact.errors import LogActError, SpecError
from logact.spec import SpecFile
from logact.spec_parts import policy_of, tools_of, voters_of
from logact.tools import Toolbox
from logact.voters.base import Voter

if TYPE_CHECKING:
    from logact.agent import LogActAgent


def prove(agent: LogActAgent, spec: SpecFile) -> None:
    """Build the tools, voters and policy of a specification, and compare them with the agent's.

    Raises SpecError, which names what came out differently.
    """
    try:
        tools = tools_of(spec, spec.log_url)
        voters = voters_of(spec, tools)
        policy = policy_of(spec, voters, agent.agent_id)
    except LogActError as error:
        raise SpecError("The agent cannot be built again from a file", received=str(error)) from error
    for what, one, two in (
        ("its tools", Toolbox(one for one in agent.tools.values() if not one.lent).specs(), Toolbox(tools).specs()),
        ("its voters", [_judges(each) for each in agent.voters], [_judges(each) for each in voters]),
        ("its policy", agent.policy, policy),
    ):
        if one != two:
            raise SpecError(
                f"A specification cannot hold all of the agent: {what} came out differently",
                received=_first_difference(one, two),
                todo="give that part in code: build_agent(spec, tools=..., voters=..., policy=...)",
            )


def _judges(voter: Voter) -> tuple[Any, ...]:
    return (voter.name, voter.kind, voter.config(), voter.on_failure, voter.placement, voter.timeout_s, voter.shadow)


def _first_difference(one: Any, two: Any) -> str:
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        for mine, theirs in zip(one, two, strict=False):
            if mine != theirs:
                return f"{mine!r:.150} became {theirs!r:.150}"
        return f"{len(one)} became {len(two)}"
    return f"{one!r:.200} became {two!r:.200}"
