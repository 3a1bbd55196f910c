"""An agent's policy and specification, written down by an operator: where no part may do that itself.

A process that plays all parts does it when it takes the agent up; parts with a token each cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from logact.entry import Spec
from logact.logs.base import SharedLog, where
from logact.runtime.entering import enter, policy_change, spec_for
from logact.runtime.host import Host

if TYPE_CHECKING:
    from logact.runtime.assembly import Playable


async def set_up(host: Host, agent: Playable) -> None:
    """What a driver does first: write both down where they changed, if this connection may; else only be born."""
    roles = host.log.engine.roles
    if roles is None or {"operator", "executor"} <= roles:
        await enter(host, policy=agent.policy, spec=_spec(agent), fence=False)
    else:
        await host.append([host.birth()])


async def put_in_force(log: SharedLog, agent: Playable, *, by: str = "operator") -> int:
    """Write down an agent's policy and specification as an operator, where they changed: how many entries."""
    host = Host(log, agent.agent_id)
    await host.tail.start()
    spec = _spec(agent)
    changed = policy_change(host.state, agent.policy)
    entries = [host.entry(spec, "operator", by)] if host.last_spec.get(agent.agent_id) != spec.digest else []
    entries += [host.entry(changed, "operator", by)] if changed is not None else []
    if entries:
        await host.append(entries, unless=where(kinds=["Policy"]))
    return len(entries)


def _spec(agent: Playable) -> Spec:
    name = agent.model.name if agent.model is not None else ""
    return spec_for(agent.agent_id, name, agent.system, agent.tools.specs(), agent.voters)
