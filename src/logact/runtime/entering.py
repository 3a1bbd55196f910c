"""How a process takes up an agent: is anybody else playing it, fence the old holder off, write the policy down.

One record: a sign of life, the fence, and where they changed, the specification and the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from logact import codec
from logact.core import voting
from logact.core.state import State
from logact.entry import Fence, NewEntry, Policy, Spec
from logact.errors import AgentBusy, ConditionFailed, LogSealed, SpecError
from logact.logs.base import Clause, Filter
from logact.runtime.host import Host
from logact.runtime.supervised import supervisor_pid
from logact.voters.base import Voter

HOLDER_SILENT_MS = 90_000
"""A holder on another host counts as gone after this long without any entry. Use --takeover to be faster."""

TRIES_MAX = 10


def policy_for(voters: Sequence[Voter], agent: str) -> Policy | None:
    """The policy in which all of these voters must approve; None without voters (then only reads pass)."""
    if not voters:
        return None
    counted = [voter.expression() for voter in voters if not voter.shadow]
    return draft(voters, agent, {"all": counted} if counted else {})


def policy_from(given: Policy | Mapping[str, Any] | str | None, voters: Sequence[Voter], agent: str) -> Policy | None:
    """The policy that an agent was given: as it is, from an expression over its voters, or that all must approve.

    In an expression the name of a group (people) stands for all of it. Raises SpecError for what cannot be used.
    """
    if given is None:
        return policy_for(voters, agent)
    if isinstance(given, Policy):
        policy = given
    else:
        groups = {voter.name: voter.expression() for voter in voters if voter.expression() != voter.name}
        need = expanded({"all": [given]} if isinstance(given, str) else given, groups)
        policy = draft(voters, agent, need)
    wrong = voting.problems(policy)
    if wrong:
        raise SpecError(
            "The policy cannot be used",
            received="; ".join(wrong),
            expected="voters: " + (", ".join(policy.voters) or "none"),
        )
    return policy


def draft(voters: Sequence[Voter], agent: str, need: Any) -> Policy:
    """A policy over these voters, with time enough for the slowest of them."""
    policy = Policy(version=1, agent=agent, need=need)
    listed = {name: known for voter in voters for name, known in voter.listed().items()}
    within_ms = max((int(voter.decide_within_s * 1000) for voter in voters), default=0) or policy.decide_within_ms
    return msgspec.structs.replace(
        policy,
        voters=listed,
        decide_within_ms=within_ms,
        start_within_ms=max(policy.start_within_ms, within_ms),
    )


def expanded(need: Any, groups: Mapping[str, Any]) -> Any:
    """An expression with the names of groups replaced by what they stand for."""
    if isinstance(need, str):
        return groups.get(need, need)
    if isinstance(need, list | tuple):
        return [expanded(part, groups) for part in need]
    if not isinstance(need, Mapping):
        return need
    plain = {"classes", "tool", "effect", "open", "weighted", "first"}
    return {key: value if key in plain else expanded(value, groups) for key, value in need.items()}


async def enter(
    host: Host, *, policy: Policy | None, spec: Spec | None, takeover: bool = False, fence: bool = True
) -> None:
    """Take up the agent. Raises AgentBusy if another live process plays it."""
    lost = 0
    while lost < TRIES_MAX:
        state = host.state
        before = state.agents.get(host.agent), state.policy_position(host.agent)
        if state.sealed:
            raise LogSealed("The log is sealed; it goes on elsewhere", todo="open the log that its Seal entry names")
        held = state.agents.get(host.agent)
        holder = held.holder if held is not None else ""
        if holder and not takeover:
            _refuse_if_alive(host, state, holder)
        if fence and not takeover:
            _refuse_if_supervised(host, state)
        entries: list[NewEntry] = [host.birth()]
        if not fence and held is not None and holder and not state.incarnations[holder].left:
            # parts hold nothing; a whole agent that died still does, so it is fenced off, and the role is open
            opened = Fence(agent=host.agent, epoch=held.epoch + 1, reason="its holder is gone; parts play the agent")
            entries.append(host.entry(opened, "recoverer", host.agent))
        if fence:
            epoch = (held.epoch if held is not None else 0) + 1
            claim = Fence(agent=host.agent, epoch=epoch, holder=host.incarnation, reason="took up the agent")
            entries.append(host.entry(claim, "recoverer", host.agent))
        if spec is not None and host.last_spec.get(host.agent) != spec.digest:
            entries.append(host.entry(spec, "executor", host.agent))
        changed = policy_change(state, policy)
        if changed is not None:
            entries.append(host.entry(changed, "operator", host.agent))
        unless = Filter((Clause(kinds=("Fence",), agents=(host.agent,)), Clause(kinds=("Policy",))))
        try:
            await host.append(entries, unless=unless)
            return
        except ConditionFailed:
            # others' policies fail this too: a hundred agents may begin at once, and one of them gets on each time
            now = host.state.agents.get(host.agent), host.state.policy_position(host.agent)
            lost += now != before
    raise AgentBusy(
        "Several processes try to take up this agent at once",
        received=host.agent,
        todo="let one of them go first",
    )


def refuse_if_played(host: Host) -> None:
    """Raise AgentBusy if another live process, or parts under a supervisor, play the agent of this host."""
    held = host.state.agents.get(host.agent)
    if held is not None and held.holder:
        _refuse_if_alive(host, host.state, held.holder)
    _refuse_if_supervised(host, host.state)


def policy_change(state: State, wanted: Policy | None) -> Policy | None:
    """The policy entry that makes ``wanted`` the one in force, or None if it is already (or nothing is wanted)."""
    if wanted is None:
        return None
    now = state.policies.get(state.policy_at.get(wanted.agent, 0))
    version = now.version if now is not None else 0
    changed = msgspec.structs.replace(wanted, version=version + 1, expected=version)
    if now is not None and msgspec.structs.replace(changed, version=now.version, expected=now.expected) == now:
        return None
    return changed


def spec_for(agent: str, model: str, system: str, tools: Any, voters: Sequence[Voter]) -> Spec:
    """The specification entry of an agent as it is set up now."""
    draft = Spec(
        agent=agent,
        model=model,
        system=codec.digest(system.encode()) if system else "",
        tools=tools,
        voters={voter.name: voter.in_policy().kind for voter in voters},
    )
    return msgspec.structs.replace(draft, digest=codec.digest_of(draft))


def _refuse_if_alive(host: Host, state: State, holder: str) -> None:
    life = state.incarnations.get(holder)
    gone = host.gone(holder)
    if gone is None and life is not None and host.env.wall_ms() - life.last_ms > HOLDER_SILENT_MS:
        return
    if life is None or gone:
        return
    where = f"process {life.birth.pid} on {life.birth.host.split('/')[0]}" if life.birth is not None else "elsewhere"
    raise AgentBusy(
        f"The agent {host.agent!r} is being played on this log already",
        received=f"by {where} (incarnation {holder})",
        todo="stop that process, use another agent name, or pass takeover=True (--takeover) to fence it off",
    )


def _refuse_if_supervised(host: Host, state: State) -> None:
    """A whole agent would fence the parts off that a supervisor keeps alive, and they would wait for ever."""
    supervisor = state.claims.get(f"supervise:{host.agent}", "")
    life = state.incarnations.get(supervisor)
    if life is None or life.birth is None or life.birth.pid == supervisor_pid() or host.gone(supervisor) is not False:
        return
    raise AgentBusy(
        f"The agent {host.agent!r} is being played by parts under a supervisor",
        received=f"process {life.birth.pid} on {life.birth.host.split('/')[0]}",
        todo="give it work with `logact run SPEC --submit TASK`, or end it with `logact supervise SPEC --stop`",
    )
