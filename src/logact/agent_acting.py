"""One action of a caller's own loop, from its proposal to its value, in two durable writes where that can be.

The first holds the proposal with its votes, the decision and the start (``runtime.inline``); the second the result.
What this process cannot say at once (a slow voter, a pause, arguments too large for an entry) goes the longer way.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import msgspec

from logact import codec
from logact.agent_results import ExecutionResult
from logact.core.state import State
from logact.core.views import Action, LogEntry, view
from logact.entry import Entry, Payload, Recovery, Result
from logact.errors import ActionFailed, ActionRejected, ConditionFailed, KeyConflict, LogTrimmed, UsageError
from logact.introspection.history import history
from logact.logs import queries
from logact.logs.base import where

if TYPE_CHECKING:
    from logact.agent import LogActAgent
    from logact.agent_parts import Parts

TRIES_MAX = 3
"""How often a lost race is tried again in one record before the longer way is gone."""


LOOK_S = 1.0
"""How long a wait for another task of this process lasts at most before it looks again: its end wakes nobody."""


async def act(agent: LogActAgent, action: Action, key: str) -> Any:
    """Propose, validate and execute; the value. Under a key that was used before, what became of it then."""
    async with agent._playing() as parts:
        entry, started = await _propose(agent, parts, action, key)
        if started:
            done = await executed(agent, parts, entry.position, parts.executor.execute(entry.position, 1))
        else:
            if entry.status == "proposed":
                judged = await agent.validate_action(entry)
                entry = judged.entry or entry
            if entry.status in ("rejected", "cancelled"):
                raise ActionRejected(f"{action.tool} was not committed", received=entry.reason, todo=entry.hint)
            done = await _carried_out(agent, parts, entry)
        if not done.success:
            raise ActionFailed(f"{action.tool} failed", received=done.error)
        return done.result


async def executed(agent: LogActAgent, parts: Parts, key: int, work: Awaitable[object]) -> ExecutionResult:
    """What running an action came to, while ``work`` runs it."""
    host = parts.host
    results: list[Result] = []
    intent = await host.full_intent(host.state.actions[key])  # the fold lets go of it once the action is settled

    def collect(state: State, one: Entry) -> None:
        if isinstance(one.payload, Result) and one.payload.intent == key and not state.verdict:
            results.append(one.payload)

    host.tail.observe(collect)
    try:
        mine = await work
        if mine is False and key in parts.executor.running:  # the agent's own loop has taken it up
            await host.tail.until(lambda state: key not in parts.executor.running)
    finally:
        host.tail.unobserve(collect)
    if not results:
        blocked = host.state.blocked(host.state.actions[key])
        return ExecutionResult(success=False, error=f"not started: {blocked or 'the log moved on'}")
    settled = msgspec.structs.replace(host.state.actions[key], intent=intent)
    return await told(agent, results[-1], view(host.state, settled))


async def told(agent: LogActAgent, result: Result, entry: LogEntry) -> ExecutionResult:
    """A result of the log as a caller gets it."""
    if result.error is not None:
        return ExecutionResult(success=False, error=result.error.message, failure=result.error, entry=entry)
    value = await queries.value_of(agent.log, result)
    return ExecutionResult(success=True, result=value, entry=msgspec.structs.replace(entry, result=value))


async def looked(agent: LogActAgent, parts: Parts, position: int) -> LogEntry:
    """One action with its arguments and its result, as far as the fold holds it. UsageError if it does not."""
    state = await parts.host.tail.catch_up()
    action = state.actions.get(position)
    if action is None:
        raise UsageError("The agent's fold holds no such action", received=str(position), todo="see `logact actions`")
    value = None
    try:
        settled = (await agent.log.get(action.settled_at)).payload if action.settled_at else None
        value = await queries.value_of(agent.log, settled) if isinstance(settled, Result) else None
        action = msgspec.structs.replace(action, intent=await parts.host.full_intent(action))
    except LogTrimmed:
        pass  # what the fold holds of it is all that there is
    return msgspec.structs.replace(view(state, action), result=value)


async def _propose(agent: LogActAgent, parts: Parts, action: Action, key: str) -> tuple[LogEntry, bool]:
    """The proposal, and whether it is started and this caller's to run."""
    host = parts.host
    run = await agent._own_loop_run(parts)
    async with parts.proposing:  # two at once would lose each other's race
        for _ in range(TRIES_MAX):
            await parts.decider.settle()  # a deadline that passed is an entry before anything is judged after it
            held = host.state.agents.get(agent.agent_id)
            waits = parts.executor.circuits.left_s(agent.agent_id, action.tool)
            if key in host.state.keys or waits or held is None or held.holder != host.incarnation:
                break
            intent = parts.proposer.intent_for_action(host.state.runs[run], action)
            if parts.proposer.outsourced(intent)[1]:
                break
            try:
                proposed = await parts.inline.propose(intent, key=key)
            except (ConditionFailed, KeyConflict):
                await host.tail.catch_up()
                continue
            return agent._view(parts, proposed.action), proposed.started
        return await agent.propose_action(action, run=run, key=key), False


async def proposed_before(agent: LogActAgent, parts: Parts, action: Action, key: str) -> LogEntry:
    """The proposal that was made under a key before, as it is now. UsageError if it was another action's."""
    position = parts.host.state.keys.get(key, 0)
    if not position:  # so long ago that the fold has let the key go
        async for one in agent.log.read_kept(matching=where(kinds=["Intent"], agents=[agent.agent_id])):
            if one.key == key:
                position = one.position
    if not position and (begins := await agent.log.begins()):
        raise _gone(f"{key!r} for {action.tool}", begins)
    entry, _ = await _story(agent, parts, position)
    tool = agent.tools.get(action.tool)
    wanted = codec.digest_of(tool.check(action.arguments) if tool is not None else action.arguments)
    if entry.action.tool != action.tool or entry.intent.arguments_digest != wanted:
        raise UsageError(
            "The key was used for another action",
            received=f"{key!r} for {action.tool}",
            expected=f"{entry.action.tool} with the arguments of {position}",
            todo="use another key",
        )
    return entry


async def _carried_out(agent: LogActAgent, parts: Parts, entry: LogEntry) -> ExecutionResult:
    """Carry out what was committed; what an earlier life carried out is read back."""
    if entry.status == "validated":
        return await agent.execute_action(entry)
    while entry.position in parts.executor.running:  # another task of this process is at it
        await parts.host.tail.until(lambda state: entry.position not in parts.executor.running, LOOK_S)
    if entry.status in ("executing", "in_doubt"):
        await agent.recover_from_failure()  # raises what only a person can settle
    entry, last = await _story(agent, parts, entry.position)
    if isinstance(last, Result) and entry.status in ("executed", "failed", "failed_final"):
        return await told(agent, last, entry)
    if isinstance(last, Recovery) and entry.status == "executed":
        return ExecutionResult(success=True, result=last.value, entry=entry)
    return ExecutionResult(success=False, error=f"it is {entry.status} {entry.reason}".strip(), entry=entry)


async def _story(agent: LogActAgent, parts: Parts, position: int) -> tuple[LogEntry, Payload | None]:
    """An action as it is now, and the entry that settled it; also one that the fold has let go."""
    state = await parts.host.tail.catch_up()
    action = state.actions.get(position)
    if action is not None:
        return view(state, action), await _settled(agent, action.settled_at)
    if parts.told is None or parts.told.action(position) is None:
        parts.told = await history(agent.log)
    action = parts.told.action(position)
    if action is None and position < (begins := parts.told.began):
        raise _gone(f"the action at position {position}", begins)
    if action is None:
        raise UsageError("The key was used for something else", received=f"position {position}", todo="use another")
    ends = [one.payload for one in parts.told.effective(position) if isinstance(one.payload, Result | Recovery)]
    return view(parts.told.state, action), ends[-1] if ends else None


async def _settled(agent: LogActAgent, position: int) -> Payload | None:
    """What settled an action (None: nothing yet)."""
    if not position:
        return None
    try:
        return (await agent.log.get(position)).payload
    except LogTrimmed:
        raise _gone(f"a result at position {position}", await agent.log.begins()) from None


def _gone(received: str, begins: int) -> UsageError:
    """A key of which the log knows that it was used, and no more."""
    return UsageError(
        "What was done under this key was trimmed: it is not done again, and what came of it cannot be read",
        received=received,
        expected=f"a key that was first used at position {begins} or later",
        todo="look it up in the archive that the trim made; use another key for another action",
    )
