"""Settles actions that were started and have no result, as their declared effects allow. It guesses nothing.

The table is ``core.recovering``. Whether the executor is really gone has to be proven (its process is dead, or it
was this one and it knows that it does not run the action); until then the recoverer waits. One whose lease ran out
is fenced off in the log and then, since no epoch stops an effect that is under way, killed if it runs on this host;
where that cannot be done, a person is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from logact.core import executing, recovering, settling
from logact.core.state import Action, State
from logact.core.views import named
from logact.entry import Finding, Intent, NewEntry, Notice, Payload, Recovery, Undone
from logact.errors import AccessRefused, ConditionFailed, LogActError
from logact.logs.base import where
from logact.runtime import values
from logact.runtime.executor import Executor
from logact.runtime.host import Host
from logact.runtime.leases import Hearing, fence_off, hung, who
from logact.runtime.secrets import Secrets
from logact.runtime.tail import alone
from logact.tools import ProbeAnswer, Tool, ToolContext

PROBE_TIMEOUT_S = 60.0
ALIVE_POLL_S = 1.0
"""How often a recoverer looks whether another process is gone; a death is no entry, so nothing can wake it."""


class Recoverer:
    """Settles the unfinished actions of some agents. ``asking`` holds what only a person can settle, and why."""

    def __init__(
        self,
        host: Host,
        tools: Mapping[str, Tool],
        *,
        agents: Iterable[str],
        executor: Executor | None = None,
        secrets: Secrets | None = None,
        name: str = "recoverer",
        end_hung: bool = True,
    ) -> None:
        self.host = host
        self.tools = tools
        self.agents = frozenset(agents)
        self.executor = executor
        self.secrets = secrets or (executor.secrets if executor is not None else Secrets())
        self.name = name
        self.end_hung = end_hung
        self.hearing = Hearing(host)
        self.ended: list[str] = []  # incarnations whose processes this one has killed
        self.asking: dict[int, str] = {}
        self._out_of_reach: dict[int, None] = {}  # asked only since their executor could not be ended from here
        self._since: dict[int, float] = {}  # by action: since when only a thread keeps it from being settled
        self.settled = 0
        self._unsure: dict[int, str] = {}  # by action: what its probe said that could not tell

    def due(self, state: State) -> list[Action]:
        """Unfinished actions of these agents that this process is not running itself."""
        found: list[Action] = []
        if state.halted or state.broken:
            return found
        for action in state.unfinished():
            if action.intent.agent not in self.agents or action.intent.external:
                continue
            if action.id in self.asking and not (action.id in self._out_of_reach and self._gone(action)):
                continue
            current = action.current
            if current is not None and current.incarnation == self.host.incarnation:
                if self.executor is None or action.id in self.executor.running:
                    continue
                if action.status == "executing" and not self.executor.lost(action):
                    continue  # about to begin, or to report
            found.append(action)
        return found

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            pause_s = ALIVE_POLL_S if self._out_of_reach else None
            await self.host.tail.until(self.due, pause_s, about=alone(self.agents))
            waits = False
            for action in self.due(self.host.state):
                try:
                    waits = not await self.settle(action) or waits
                except ConditionFailed:
                    pass
                except AccessRefused:
                    raise
                except LogActError:
                    waits = True
            if waits:
                await self.host.env.sleep(ALIVE_POLL_S)

    def doubts(self) -> str:
        """What only a person can settle, in words ("" if nothing)."""
        open_ones = {
            key: why
            for key, why in self.asking.items()
            if key in self.host.state.actions and self.host.state.actions[key].is_open
        }
        if len(open_ones) != len(self.asking):
            self.asking = open_ones
            self._out_of_reach = {key: None for key in self._out_of_reach if key in open_ones}
        return "; ".join(
            f"action {key} ({named(self.host.state.actions[key].intent)}) is in doubt: {why}"
            for key, why in open_ones.items()
        )

    def _gone(self, action: Action) -> bool:
        current = action.current
        if current is None:
            return False
        if current.incarnation == self.host.incarnation:
            return self.executor is not None and not self.executor.at_work(action.id)
        return _reported(action, self.tools.get(action.intent.tool)) or self.host.gone(current.incarnation) is True

    async def _let_go(self, action: Action) -> bool:
        """Whether an executor that lives is gone by now: its lease ran out, and it was fenced off and ended."""
        current, state = action.current, self.host.state
        if current is None or await self._only_a_thread(action):
            return False
        holder, agent = current.incarnation, action.intent.agent
        if holder == self.host.incarnation:
            return False
        if holder not in state.fenced:
            if not current.lease_ms or self.hearing.silent_s(holder) * 1000 < current.lease_ms:
                return False
            finding = hung(state, holder, agent, run=action.intent.run, cites=(action.id,))
            if not await fence_off(self.host, self.host.about(action.intent, finding, "recoverer", self.name), agent):
                return False
        gone = self.host.gone(holder)
        if gone is False and self.end_hung and self.host.end(holder):
            self.ended.append(holder)
            gone = self.host.gone(holder) or False  # it may take a moment to die: the next look will tell
        elif gone is not True:
            reading = action.intent.effect == "read"  # a read that goes on somewhere does no harm
            if reading:
                return True
            whose = who(self.host.state.incarnations.get(holder))
            await self._ask(
                action,
                f"{whose}, gives no sign of life and cannot be ended from here; end it, then say what happened",
            )
            self._out_of_reach[action.id] = None
        return gone is True

    async def _only_a_thread(self, action: Action) -> bool:
        """Whether an executor gave an action up while its thread may go on; after a lease a person is asked."""
        tool, current = self.tools.get(action.intent.tool), action.current
        given_up = action.status == "in_doubt" and action.error is not None and current is not None
        if not given_up or (tool is not None and not tool.in_thread):
            return False
        now = self.host.env.monotonic()
        since = self._since.setdefault(action.id, now)
        if not self.host.lease_ms or (now - since) * 1000 < self.host.lease_ms:
            return True
        whose = who(self.host.state.incarnations.get(current.incarnation)) if current is not None else ""
        await self._ask(
            action, f"a thread of {whose}, may still be at work on it, and no thread can be stopped: end that process"
        )
        self._out_of_reach[action.id] = None
        return True

    async def settle(self, action: Action) -> bool:
        """Take the next step of one settlement. False if it has to wait for a process to end."""
        tool = self.tools.get(action.intent.tool)
        if self._gone(action):
            gone = True
            if action.id in self._out_of_reach:  # it was asked about, and is not out of reach any more
                del self._out_of_reach[action.id]
                self.asking.pop(action.id, None)
        else:
            gone = await self._let_go(action)
            if action.id in self.asking:
                return True
        undoes = bool(action.intent.undoes)  # then the tool's effect is not what runs, its undo is
        step = recovering.next_step(
            action,
            holder_gone=gone,
            effect_now=None if tool is None else action.intent.effect if undoes else tool.effect,
            can_probe=tool is not None and tool.has_probe and not undoes,
            can_undo=tool is not None and tool.has_undo and tool.safe_undo and not undoes,
            probe_said_unknown=action.id in self._unsure,
            ended=settling.ended(self.host.state, action),
        )
        attempt = len(action.attempts)
        if step.verb == "wait":
            return False
        if step.verb == "restart":
            await self._write(
                action,
                Recovery(
                    intent=action.id, attempt=attempt, settlement="restart", evidence="effect", reason=step.reason
                ),
            )
        elif step.verb == "close":
            closed = Recovery(
                intent=action.id, attempt=attempt, settlement="superseded", evidence="cancel", reason=step.reason
            )
            await self._write(action, self._doubt(action, step.reason), closed)
        elif step.verb == "probe" and tool is not None:
            await self._probe(action, tool, attempt)
        elif step.verb == "undo" and tool is not None:
            await self._undo(action, tool)
        else:
            said = self._unsure.get(action.id, "")
            await self._ask(action, f"{step.reason} ({said})" if said else step.reason)
        self.settled += 1
        return True

    async def _ask(self, action: Action, reason: str) -> None:
        """Say in the log that only a person can settle it; only then is it set aside, since others learn it there."""
        notice = Notice(
            code="in_doubt", message=f"action {action.id} ({named(action.intent)}): {reason}", run=action.intent.run
        )
        await self._write(action, self._doubt(action, reason), notice)
        self.asking[action.id] = reason
        self.host.tail.wake()

    def _doubt(self, action: Action, reason: str) -> Finding:
        return Finding(
            code="in_doubt", message=reason, cites=(action.id,), agent=action.intent.agent, run=action.intent.run
        )

    async def _probe(self, action: Action, tool: Tool, attempt: int) -> None:
        """Ask the tool whether the effect happened, and write down what it says."""
        answer = await self.probed(action, tool)
        if answer.happened is None:
            self._unsure[action.id] = values.printable(self.secrets.redact_text(answer.detail))[:500]
            self.host.tail.wake()
            return
        settled = Recovery(
            intent=action.id,
            attempt=attempt,
            settlement="happened" if answer.happened else "not_happened",
            evidence="probe",
            reason=self.secrets.redact_text(answer.detail),
            value=self.secrets.redact(answer.value),
        )
        await self._write(action, self._doubt(action, "its executor is gone"), settled)

    async def probed(self, action: Action, tool: Tool) -> ProbeAnswer:
        """What the tool's probe says now; a probe that fails cannot tell. Writes nothing."""
        intent = await self.host.full_intent(action)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await tool.probe(self.secrets.resolve(intent.arguments), self._context(action, intent))
        except Exception as error:
            return ProbeAnswer(happened=None, detail=f"the probe failed: {type(error).__name__}: {error}")

    async def _undo(self, action: Action, tool: Tool) -> None:
        """Take back what may have happened: said first, so that no result on its way is taken for the last word."""
        intent = await self.host.full_intent(action)
        if not action.undo_begun:
            reason = "its executor is gone, and its undo is safe whether or not it happened"
            begins = Recovery(
                intent=action.id, attempt=len(action.attempts), settlement="undo", evidence="undo", reason=reason
            )
            await self._write(action, self._doubt(action, "its executor is gone"), begins)
            if not self.host.state.actions[action.id].undo_begun or self.host.state.broken:
                return
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                detail = await tool.undo(self.secrets.resolve(intent.arguments), None, self._context(action, intent))
        except Exception as error:
            await self._ask(action, f"its undo failed: {type(error).__name__}: {error}")
            return
        done = self.host.about(intent, Undone(intent=action.id, detail=detail), "recoverer", self.name)
        await self.host.append([done], unless=where(kinds=["Recovery", "Undone"], actions=[action.id]))

    def _context(self, action: Action, intent: Intent) -> ToolContext:
        state = self.host.state
        return ToolContext(
            agent=intent.agent,
            run=intent.run,
            action=action.id,
            attempt=len(action.attempts),
            key=executing.key_of(state.log, action),
            epoch=state.epoch(intent.agent),
            log=state.log,
        )

    async def _write(self, action: Action, *payloads: Payload) -> None:
        entries: list[NewEntry] = [
            self.host.about(action.intent, payload, "recoverer", self.name) for payload in payloads
        ]
        kinds = ["Result", "Recovery", "Undone", "Started"]
        await self.host.append(entries, unless=where(kinds=kinds, actions=[action.id]))


def _reported(action: Action, tool: Tool | None) -> bool:
    """Whether the executor itself wrote that it is done with the attempt, and cannot tell what came of it."""
    if action.status != "in_doubt" or action.error is None:
        return False
    goes_on = action.error.kind in ("timeout", "cancelled") and (tool is None or tool.in_thread)
    return not goes_on  # a thread cannot be interrupted: that executor has to be gone
