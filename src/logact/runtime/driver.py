"""Drives runs: has the model asked, proposes what it wants, and waits for what becomes of it. It cannot act.

Each step is a pure question to ``core.driving`` and one append. What the model said is stored (by ``asker``) before
anything follows from it, and never asked again: after a crash the same inference goes on with its next call.
This file owns the order of the steps and what keeps a run from going on; it never talks to the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from logact.core import driving, waiting
from logact.core.settling import ANSWER
from logact.core.state import RunState, State
from logact.entry import (
    Call,
    Inference,
    Recovery,
    Result,
)
from logact.errors import (
    ConditionFailed,
    Fenced,
    InDoubt,
    LimitReached,
    LogCorrupt,
    ReadOnlyIncarnation,
    RunPaused,
    WaitingForApproval,
)
from logact.logs.base import Clause, Filter
from logact.models.base import Model
from logact.models.telling import tell
from logact.runtime.asker import MODEL_TIMEOUT_S, Asker
from logact.runtime.circuits import Circuits
from logact.runtime.ending import Ending
from logact.runtime.executor import Executor
from logact.runtime.host import Host, refuse_damaged
from logact.runtime.inline import Inline
from logact.runtime.leaving import Leave
from logact.runtime.proposer import Proposer
from logact.runtime.transcript import Transcript
from logact.runtime.watcher import Watcher


class Driver:
    """Drives runs of one agent: asks the model, proposes its calls, waits for what becomes of them."""

    def __init__(
        self,
        host: Host,
        model: Model,
        proposer: Proposer,
        *,
        system: str = "",
        inline: Inline | None = None,
        executor: Executor | None = None,
        answer_schema: dict[str, Any] | None = None,
        check_answer: Callable[[Any], Any] | None = None,
        context_tokens_max: int = 0,
        model_timeout_s: float = MODEL_TIMEOUT_S,
        doubts: Callable[[], str] = lambda: "",
        waits: Callable[[int], str] = lambda run: "",
        watcher: Watcher | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self.host = host
        self.proposer = proposer
        self.inline = inline
        self.executor = executor
        self.context_tokens_max = context_tokens_max
        self.doubts = doubts
        self.waits = waits
        self.watcher = watcher
        self.circuits = Circuits(host)
        self.transcript = Transcript(host)
        self.asker = Asker(
            host,
            model,
            proposer,
            self.transcript,
            system=system,
            answer_schema=answer_schema,
            check_answer=check_answer,
            context_tokens_max=context_tokens_max,
            model_timeout_s=model_timeout_s,
            hidden=hidden,
        )
        self.asking = False  # an answer of the model is on the way
        self.leave: Leave | None = None  # once it is asked for, the model is asked nothing more
        self.name = host.agent
        self._at: tuple[int, Inference, frozenset[int]] = (0, Inference(run=0, turn=0), frozenset())
        self._rests: dict[int, float] = {}  # by failed action: when, by the monotonic clock, its delay is over
        self._told: list[waiting.Wait] = []  # what it waits for, as it was told
        self.ending = Ending(host, self.name, doubts)

    # --- the loop ------------------------------------------------------------------------------------------------

    async def drive(self, run_id: int) -> RunState:
        """Work on a run until it is finished or stopped. Raises what keeps it from going on."""
        while True:
            state = self.host.state
            self._refuse_unsound(state)
            run = state.runs[run_id]
            self._refuse_fenced(state, run.agent)
            held = state.control_over(run.agent, run.id)
            if held and run.status == "running":
                await self._released(run, held)
                continue
            step = await self._next(state, run)
            if step.verb == "done":
                await self.host.flush()
                return run
            try:
                await self._take(run, step)
            except ConditionFailed:
                continue  # somebody else was faster; the fold says what is next

    async def _released(self, run: RunState, held: str) -> None:
        """Wait until what holds the run back has changed. RunPaused if only a person's word can change it."""
        await self.host.flush()
        await self.host.tail.until(
            lambda now: now.control_over(run.agent, run.id) != held or self._asks(run.id) or self.host.is_fenced(now)
        )
        asked = self._asks(run.id)
        if asked and self.host.state.control_over(run.agent, run.id) == held:
            raise RunPaused(
                "The run is paused, and waits for a person",
                received=asked,
                todo=f"look at `logact actions`, then `logact resume LOG --run {run.id}` and run again, or stop it",
            )

    async def _next(self, state: State, run: RunState) -> driving.Step:
        answers, shut = frozenset[int](), frozenset[int]()
        if run.inference and run.is_waiting:
            inference, answers = await self._inference(run)
            shut = self._shut(state, run, inference) if state.circuits else shut
        return driving.next_step(
            state,
            run,
            self.host.env.wall_ms(),
            context_tokens_max=self.context_tokens_max,
            answer_calls=answers,
            rested=self._rested(state, run),
            riding=frozenset(one.payload.intent for one in self.host.riding if isinstance(one.payload, Result))
            if self.host.riding
            else frozenset(),
            shut=shut,
            let_go=self.ending.lets_go(run),
        )

    def _shut(self, state: State, run: RunState, inference: Inference) -> frozenset[int]:
        """The calls of the turn that have to wait for the environment of their tool."""
        return frozenset(
            index
            for index, call in enumerate(inference.calls)
            if self.circuits.left_s(run.agent, call.tool) or self.circuits.tried(run.agent, call.tool)
        )

    async def _shut_s(self, run: RunState, step: driving.Step) -> float | None:
        """How long a call waits for its tool's circuit; None while another action tries it."""
        inference, _ = await self._inference(run)
        return self.circuits.left_s(run.agent, inference.calls[step.call].tool) or None

    def _rested(self, state: State, run: RunState) -> frozenset[int]:
        """Failed actions whose delay is over by a clock that does not jump: no wait is longer than was planned."""
        now = self.host.env.monotonic()
        resting = driving.resting(state, run)
        self._rests = {one.id: self._rests.get(one.id, now + one.retry_delay_ms / 1000) for one in resting}
        return frozenset(key for key, end in self._rests.items() if end <= now)

    async def _take(self, run: RunState, step: driving.Step) -> None:
        if step.verb == "wait":
            await self._wait(run, step)
            return
        self.host.working += 1
        try:
            await self._work(run, step)
        finally:
            self.host.working -= 1

    async def _work(self, run: RunState, step: driving.Step) -> None:
        if step.verb == "infer" and self.watcher is not None and self.watcher.has_news and await self.watcher.look():
            return  # a loop is stopped before the model is asked for more of it
        if step.verb == "infer":
            await self._infer_or_leave(run)
        elif step.verb == "compact":
            await self.asker.compact(run)
        elif step.verb == "propose":
            await self._propose(run, step)
        elif step.verb == "give_up":
            payload = Recovery(
                intent=step.retry_of, attempt=0, settlement="failed_final", evidence="effect", reason=step.reason
            )
            await self.host.append([self.host.entry(payload, "driver", self.name, run=run.id)])
        elif step.verb == "cut":
            await self.ending.cut(run, step.reason)
        elif step.verb == "conclude":
            await self._conclude(run, step.reason)

    async def _wait(self, run: RunState, step: driving.Step | None = None) -> None:
        """Wait until the fold asks for something else; a doubt that only a person can settle is raised."""
        before = self.host.state.position
        await self.host.flush()
        if self.host.state.position != before:
            return  # what rode may be all that was waited for, and nothing else need come
        timeout_s = self._pause_s(step.until_ms) if step is not None and step.until_ms else None
        if step is not None and step.reason == driving.SHUT:
            timeout_s = await self._shut_s(run, step)
        await self._tell(run, step)
        ends_s, let_go = self.ending.left_s(run), self.ending.lets_go(run)
        timeout_s = min((one for one in (timeout_s, ends_s) if one is not None), default=None)
        await self.host.tail.until(
            lambda state: state.position != before or (self.doubts() and not let_go) or self.waits(run.id),
            timeout_s,
            about=run.agent,
        )
        doubts = self.doubts()
        if doubts and not driving.overdue(run, self.host.env.wall_ms()):
            raise InDoubt(doubts, todo="look at the world, then settle it with `logact doubt`")
        waits = self.waits(run.id)
        if waits:
            raise WaitingForApproval(waits, todo="answer with `logact approve` or `logact deny`, then run again")

    async def _tell(self, run: RunState, step: driving.Step | None) -> None:
        """Say what begins to be waited for: the log is silent meanwhile."""
        state = self.host.state
        waits = waiting.of_run(state, run)
        if not waits and step is not None and step.reason == driving.SHUT:  # a call that is not even proposed
            inference, _ = await self._inference(run)
            shut = waiting.of_circuit(state, run.agent, inference.calls[step.call].tool, run=run.id)
            waits = [shut] if shut is not None else []
        before, self._told = self._told, waits
        for wait in waits:
            if wait not in before:
                tell(wait)

    def _pause_s(self, until_ms: int) -> float:
        """How long to wait for the next try of something: by the wall clock, or less if that went back."""
        end = min(self._rests.values(), default=0.0)
        left_s = min((until_ms - self.host.env.wall_ms()) / 1000, end - self.host.env.monotonic())
        return max(0.001, left_s)

    @staticmethod
    def _refuse_unsound(state: State) -> None:
        refuse_damaged(state)
        if state.halted:
            raise ReadOnlyIncarnation(
                "The log holds a critical entry that this version does not understand",
                received=state.halted,
                todo="upgrade LogAct; this version may read, and does not act",
            )

    def _asks(self, run: int) -> str:
        """Why a run is paused until a person resumes it ("" if it is not)."""
        return self.watcher.asks(run) if self.watcher is not None else ""

    def _refuse_fenced(self, state: State, agent: str) -> None:
        if self.host.is_fenced(state):
            raise Fenced(
                "This process gave no sign of life for too long, and was fenced off",
                received=f"position {state.fenced[self.host.incarnation]}",
                todo="begin another life: run again",
            )
        held = state.agents.get(agent)
        if self.inline is not None and held is not None and held.holder not in ("", self.host.incarnation):
            raise Fenced(
                "Another process took this agent over",
                received=f"epoch {held.epoch}, held by incarnation {held.holder}",
                todo="stop here; that process goes on",
            )

    # --- the model -----------------------------------------------------------------------------------------------

    async def _infer_or_leave(self, run: RunState) -> None:
        if self.leave is not None and self.leave.asked.is_set():
            await self.host.flush()
            await self.host.tail.until(lambda state: False)
        self.asking = True
        try:
            await self.asker.infer(run)
        finally:
            self.asking = False

    # --- proposals -----------------------------------------------------------------------------------------------

    async def _inference(self, run: RunState) -> tuple[Inference, frozenset[int]]:
        """The inference whose calls a run is at, and which of its calls are answers; the last one is remembered."""
        if self._at[0] == run.inference:
            return self._at[1], self._at[2]
        entry = await self.transcript.entry(run.inference)
        payload = entry.payload
        if not isinstance(payload, Inference):
            raise LogCorrupt("A run's inference cannot be read", received=f"{entry.kind} at {entry.position}")
        if payload.raw is not None:
            calls = msgspec.json.decode(await self.host.log.get_blob(payload.raw.digest), type=tuple[Call, ...])
            payload = msgspec.structs.replace(payload, calls=calls)
        found = (index for index, call in enumerate(payload.calls) if call.tool == ANSWER and not call.broken)
        self._at = (run.inference, payload, frozenset(found))
        return self._at[1], self._at[2]

    async def _propose(self, run: RunState, step: driving.Step) -> None:
        inference, _ = await self._inference(run)
        call = inference.calls[step.call] if inference.calls else None
        intent = self.proposer.intent_for_call(
            run, run.inference, step.call, call, text=inference.text, retry_of=step.retry_of
        )
        # a call that was proposed may still be waiting only because its result rides: it brings no further record
        more = any(not (call.action or call.settled_at) for index, call in run.calls.items() if index != step.call)
        await self.submit(run, intent, more=more)

    async def _conclude(self, run: RunState, reason: str) -> None:
        """A limit is reached: say so as the answer, which is voted on like any other."""
        earlier = [
            action
            for action in self.host.state.actions.values()
            if action.intent.run == run.id and action.intent.tool == ANSWER and not action.intent.inference
        ]
        if earlier and not earlier[-1].is_open:
            raise LimitReached(reason, todo="raise the limit and run again, or start a new run")
        if earlier:
            await self._wait(run)
            return
        reason = self.ending.words(run, reason)
        intent = self.proposer.intent(run, ANSWER, {"text": f"I stopped: {reason}.", "gave_up": reason})
        await self.submit(run, intent)

    async def submit(self, run: RunState, intent: Any, *, more: bool = False) -> int:
        """Propose an intent in the form that this process plays: inline, or by an intent alone. Returns its id."""
        small, blobs = self.proposer.outsourced(intent)
        if self.inline is None or blobs:
            unless = Filter((Clause(kinds=("Intent", "Inference"), runs=(run.id,)),))
            done = await self.host.append(
                [self.host.about(intent, small, "driver", self.name)], unless=unless, blobs=blobs
            )
            return done.position
        proposed = await self.inline.propose(intent)
        if proposed.started and intent.tool != ANSWER and self.executor is not None:
            await self.executor.execute(proposed.action, 1, ride=more)
        return proposed.action
