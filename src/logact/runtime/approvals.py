"""What people do about actions that wait for them: approve and deny, through the log.

Before anything is judged, what is overdue is expired: an approval that comes too late is refused by the log
and not by a clock. After the vote, what it decides is decided at once, so that an approval in time does not expire
because the agent happens to sleep.
"""

from __future__ import annotations

import msgspec

from logact.core.state import Action, State
from logact.entry import NewEntry, Vote
from logact.errors import ConditionFailed, LogError, ReadOnlyIncarnation, UsageError
from logact.logs.base import SharedLog, where
from logact.runtime.decider import DECISIONS, Decider
from logact.runtime.host import Host, refuse_damaged
from logact.voters.human import Pending, pending, people_awaited, person_of

TRIES_MAX = 5


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an approval or a denial.

    ``took_effect`` says whether the log counts it; if not, ``why`` says why. ``status`` is the action's after it, and
    ``waits_for`` who else has to speak. ``positions`` are the votes' (two, if a person stands in two groups).
    """

    action: int
    by: str
    approved: bool
    took_effect: bool
    why: str = ""
    status: str = ""
    reason: str = ""
    waits_for: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()


async def pending_in(log: SharedLog) -> list[Pending]:
    """Every action on a log that waits for people now, with its arguments in full."""
    host = await _host(log, "people")
    found = []
    for one in pending(host.state):
        if one.arguments_blob is not None:
            intent = await host.full_intent(host.state.actions[one.action])
            one = msgspec.structs.replace(one, arguments=intent.arguments)  # noqa: PLW2901 - the same, in full
        found.append(one)
    return found


async def approve(log: SharedLog, action: int, by: str, reason: str = "", *, arguments_digest: str = "") -> Approval:
    """Approve an action in a person's name. ``arguments_digest`` is of what the person saw, if it is to be checked.

    Raises UsageError if there is no such action or the person may not speak; a vote that comes too late is no error.
    """
    return await _speak(log, action, by, True, reason, "", arguments_digest)


async def deny(
    log: SharedLog, action: int, by: str, reason: str = "", *, hint: str = "", arguments_digest: str = ""
) -> Approval:
    """Deny an action in a person's name; ``reason`` and ``hint`` (what would be acceptable) go to the model."""
    return await _speak(log, action, by, False, reason, hint, arguments_digest)


async def _host(log: SharedLog, agent: str) -> Host:
    host = Host(log, agent)
    host.leaves()  # nothing of an agent is played here
    state = await host.tail.start()
    refuse_damaged(state)
    if state.halted:
        raise ReadOnlyIncarnation("The log holds an entry that this version must not ignore", received=state.halted)
    return host


async def _speak(  # noqa: PLR0917 - one private call under two names
    log: SharedLog, key: int, by: str, approved: bool, reason: str, hint: str, arguments_digest: str
) -> Approval:
    host = await _host(log, by)
    action = _action(host.state, key)
    decider = Decider(host, agents=[action.intent.agent], name=by)
    for _ in range(TRIES_MAX):
        expired = await _settle(host, decider, key)
        action = _action(host.state, key)
        if action.status != "proposed" or expired:
            return _done(host.state, action, by, approved, (), expired or _already(action))
        if arguments_digest and arguments_digest != action.intent.arguments_digest:
            raise UsageError(
                "The action has other arguments than those that were looked at",
                received=arguments_digest,
                expected=action.intent.arguments_digest,
            )
        names = _names(host.state, action, by)
        said = reason or ("approved" if approved else "denied")
        entries = [_entry(action, name, by, approved, said, hint) for name in names]
        try:
            done = await host.append(entries, unless=where(kinds=[*DECISIONS, "Vote"], actions=[key]))
        except ConditionFailed:
            continue  # somebody spoke or decided meanwhile: look again
        ineffective = {one.position: one.why for one in host.state.ignored}
        positions = tuple(done.position + place for place in range(len(names)))
        why = next((ineffective[at] for at in positions if at in ineffective), "")
        await _settle(host, decider, key)
        return _done(host.state, _action(host.state, key), by, approved, positions, why)
    raise UsageError("Too many others speak about this action at once", received=str(key), todo="try again")


async def _settle(host: Host, decider: Decider, key: int) -> str:
    """Decide what can be decided; why the action is over although nobody could write that down ("" if it is not)."""
    try:
        await decider.settle()
    except LogError:
        # this client may not decide (a served log); then others do, and only the deadline concerns us
        deadline_ms = host.state.actions[key].intent.deadline_ms
        if 0 < deadline_ms <= host.env.wall_ms():
            return "it is too late: the deadline has passed"
    return ""


def _action(state: State, key: int) -> Action:
    action = state.actions.get(key)
    if action is None:
        raise UsageError("There is no such action", received=str(key), todo="see `logact pending`")
    return action


def _names(state: State, action: Action, by: str) -> list[str]:
    """The voters of the policy in whose place a person may speak now. UsageError if there are none."""
    policy = state.policy_for(action)
    mine = [
        name
        for name, known in (policy.voters if policy is not None else {}).items()
        if known.kind == "human" and person_of(name) in (by, "*")
    ]
    awaited = people_awaited(state, action)
    names = [name for name in mine if name in awaited]
    if names:
        return names
    if any(name in action.votes for name in mine):
        raise UsageError(
            f"{by} has spoken about action {action.id} already", received=by, todo="see `logact pending`"
        )
    raise UsageError(
        f"Action {action.id} does not wait for {by}",
        received=by,
        expected=", ".join(map(person_of, awaited)) or "nobody: it does not wait for people now",
    )


def _entry(action: Action, voter: str, by: str, approved: bool, reason: str, hint: str) -> NewEntry:  # noqa: PLR0917
    vote = Vote(
        approved=approved,
        reason=reason,
        hint=hint,
        intent=action.id,
        voter=voter,
        arguments_digest=action.intent.arguments_digest,
    )
    return Host.about(action.intent, vote, "client", by)


def _already(action: Action) -> str:
    late = "it is too late: " if action.code == "expired" else ""
    return f"{late}the action is {action.status} already" + (f" ({action.reason})" if action.reason else "")


def _done(  # noqa: PLR0917
    state: State, action: Action, by: str, approved: bool, positions: tuple[int, ...], why: str
) -> Approval:
    return Approval(
        action=action.id,
        by=by,
        approved=approved,
        took_effect=not why,
        why=why,
        status=action.status,
        reason=action.reason,
        waits_for=tuple(map(person_of, people_awaited(state, action))),
        positions=positions,
    )
