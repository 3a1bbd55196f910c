"""``LogActAgent``: one agent around one shared log, wired once.

It owns the wiring of the parts and the public calls; the parts own what they do. Use ``run`` for the built-in
loop, or ``propose_action``, ``validate_action`` and ``execute_action`` for a loop of your own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec

from logact import agent_acting, agent_stepping, agent_tuning
from logact.agent_parts import Parts, only, running
from logact.agent_results import AgentState, Answer, ExecutionResult, ValidationResult
from logact.core.breaking import Breaker
from logact.core.leasing import LEASE_S
from logact.core.settling import ANSWER
from logact.core.state import RunState, State
from logact.core.views import Action, LogEntry, view
from logact.entry import (
    Entry,
    Heartbeat,
    Input,
    Limits,
    Output,
    Part,
    Policy,
    Recovery,
    Run,
    Settlement,
    Vote,
    own,
)
from logact.errors import (
    ActionRejected,
    ConditionFailed,
    InDoubt,
    KeyConflict,
    LimitReached,
    LogActError,
    RunFinished,
    RunStopped,
    SpecError,
    UsageError,
)
from logact.introspection.applied import kinds_for
from logact.introspection.profiler import Profiler
from logact.introspection.semantic_recovery import Plain, SemanticRecovery, plain_of
from logact.introspection.tuning import REUSING, Tuning, applied_to
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.runtime.asker import MODEL_TIMEOUT_S
from logact.runtime.entering import enter, policy_from, spec_for
from logact.runtime.host import Host
from logact.runtime.leaving import Leave
from logact.runtime.retry import RetryRecovery
from logact.runtime.reuse import Reads, reusing
from logact.runtime.secrets import Secrets
from logact.runtime.tail import Tail
from logact.runtime.watcher import Watch
from logact.tools import Toolbox
from logact.voters.base import Voter, as_voters

if TYPE_CHECKING:
    from logact.introspection.tokens import Optimization
    from logact.undoing import UndoReport


class LogActAgent:
    """An agent that plays a shared log: it proposes, voters judge, and only what is committed runs.

    ``voters`` must all approve (a ``policy`` says otherwise: a Policy, or an expression from ``logact.voters``, such
    as ``any_of("rules", "model")``); without voters only tools with the effect ``read``
    pass. ``tools`` are functions with ``@tool``; ``model`` is any :class:`~logact.models.base.Model` or a name such
    as ``openai:gpt-4o``. ``secrets`` are values that the log, the model and the voters never see. ``answer_type``
    asks for a structured final answer (a type that ``msgspec`` can convert to). ``recovery`` says how failed actions
    are tried again; without it the model is told of each failure. A SemanticRecovery is asked where somebody wants it
    (``logact recover --semantic``); its fallback holds meanwhile. ``breaker`` leaves a tool alone whose environment
    is gone, and the run waits for it. ``watch`` says what is done about loops, stalls, rising errors and limits that
    come near. Who works gives a sign of life in the log within ``lease_s`` (0: none); ``end_hung`` lets a recovery
    kill the process of an executor on this host whose lease ran out. Checkpoints come after ``checkpoint_every``
    entries, ``checkpoint_bytes`` or ``checkpoint_s`` seconds (0: not by this measure). ``witness`` is a file or
    another log's URL that the log's heads are written to, signed with the key in the file ``signing_key`` if there is
    one: the agent refuses to act on a log that lost what the witness saw. The model is not offered ``hide_tools``.
    Reads are answered from the log for ``reuse_reads_s`` seconds (0: never), while nothing changed what they read.
    ``try_models`` are cheaper models that ``optimize_token_usage`` may propose to try instead of ``model``.

    Nothing happens before the first ``await``; ``async with agent`` keeps its parts running between calls.
    """

    def __init__(
        self,
        agent_id: str,
        shared_log: SharedLog | None = None,
        voters: Iterable[Voter | Callable[[LogEntry], Any]] = (),
        *,
        log: SharedLog | None = None,
        model: Model | str | None = None,
        tools: Iterable[Any] = (),
        system: str = "",
        policy: Policy | Mapping[str, Any] | str | None = None,
        secrets: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        answer_type: Any = None,
        context_tokens_max: int = 0,
        model_timeout_s: float = MODEL_TIMEOUT_S,
        decide_within_s: float = 0,
        checkpoint_every: int = 2000,
        checkpoint_bytes: int = 0,
        checkpoint_s: float = 0,
        takeover: bool = False,
        recovery: Plain | SemanticRecovery | None = None,
        breaker: Breaker | None = None,
        watch: Watch | None = None,
        lease_s: float = LEASE_S,
        end_hung: bool = True,
        witness: str | PathLike[str] | None = None,
        signing_key: str | PathLike[str] | None = None,
        hide_tools: Iterable[str] = (),
        reuse_reads_s: float = 0,
        try_models: Iterable[Model | str] = (),
    ) -> None:
        chosen = log if log is not None else shared_log
        if not isinstance(chosen, SharedLog):
            raise UsageError(
                "An agent needs a log",
                received=repr(chosen),
                expected="a SharedLog",
                todo='open one with open_log("sqlite:///ops.db")',
            )
        if not agent_id or not agent_id.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UsageError(
                "An agent's name is not usable",
                received=repr(agent_id),
                expected="letters, digits, '-', '_' and '.'",
                todo='for example "ops"',
            )
        self.agent_id = agent_id
        self.log = chosen
        self.voters: list[Voter] = as_voters(voters)
        self.model = _model(model)
        self.try_models = {one.name: one for one in map(_model, try_models) if one is not None}
        self.tools = Toolbox(tools)
        if ANSWER in self.tools:
            raise SpecError(
                "A tool may not be called 'answer'", todo="rename it: 'answer' is how a run ends, and is voted on too"
            )
        self.system = system
        self.policy = policy_from(policy, self.voters, agent_id)
        self.secrets = Secrets(secrets)
        self.limits = limits or Limits()
        self.answer_type = answer_type
        self.context_tokens_max = context_tokens_max
        self.model_timeout_s = model_timeout_s
        self.decide_within_ms = int(decide_within_s * 1000)
        self.checkpoint_every = checkpoint_every
        self.takeover = takeover
        self.checkpoint_bytes = checkpoint_bytes
        self.checkpoint_s = checkpoint_s
        plain = plain_of(recovery)
        self.recovers = recovery  # as it was given; what the executor goes by is its retries
        self.recovery = plain if isinstance(plain, RetryRecovery) else None
        self.breaker = breaker
        self.watch = watch or Watch()
        self.lease_s = lease_s
        self.end_hung = end_hung
        self.witness = witness
        self.signing_key = signing_key
        self.leave: Leave | None = None
        self.stuck: Callable[[LogActError | None, float], None] | None = None  # see Host
        self.tuning = Tuning(agent_id)
        self.hide_tools = tuple(hide_tools)
        self.reuse_reads_s = reuse_reads_s
        self.reads = Reads(chosen, lambda: inf if self.tuning.shares_reads else self.reuse_reads_s)
        self.asks: Callable[[Model], Model] | None = None  # puts something before the model, if anything stands there
        self._parts: Parts | None = None
        self._stack: AsyncExitStack | None = None
        self._observers: list[tuple[Callable[[State, Entry], None], Iterable[str]]] = []
        self._tail: Tail | None = None
        self.tuning.applied = lambda: agent_tuning.equip(self)
        self.observe(self.tuning.observe, Tuning.KINDS)
        if reuse_reads_s:
            reusing(self.tools, self.reads)
            self.observe(self.reads.observe, Reads.KINDS)

    def observe(self, observer: Callable[[State, Entry], None], kinds: Iterable[str] = ()) -> None:
        """Call ``observer(state, entry)`` for each entry from here on (of these kinds), as it becomes visible."""
        self._observers.append((observer, tuple(kinds)))
        if self._tail is not None:
            self._tail.observe(observer, kinds)

    @property
    def position(self) -> int:
        """How far this process has read the log (0 while it does not play the agent)."""
        return self._parts.host.state.position if self._parts is not None else 0

    @property
    def busy(self) -> bool:
        """Whether an action runs, or an answer of the model is on the way."""
        parts = self._parts
        return parts is not None and (bool(parts.executor.running) or parts.asking)

    def is_observed_by(self, observer: Callable[[State, Entry], None]) -> bool:
        """Whether an observer is called already."""
        return any(one[0] == observer for one in self._observers)

    def unobserve(self, observer: Callable[[State, Entry], None]) -> None:
        """Stop calling an observer."""
        self._observers.remove(next(one for one in self._observers if one[0] == observer))
        if self._tail is not None:
            self._tail.unobserve(observer)

    # --- a whole run ---------------------------------------------------------------------------------------------

    async def run(
        self,
        task: str | None = None,
        *,
        new: bool = False,
        dry_run: bool = False,
        images: Sequence[tuple[bytes, str]] = (),
        key: str = "",
        wait: bool = True,
        parent: int = 0,
    ) -> Answer:
        """Work on a task until it is answered.

        An unfinished run of this agent with the same task (or any, if ``task`` is None) is resumed where it
        stands; ``new`` starts another. A finished one with the same task raises RunFinished. ``dry_run`` proposes and
        votes, and carries out nothing but reads. Raises InDoubt if only a person can tell what happened. With
        ``wait=False`` a run that waits for nothing but people's approvals raises WaitingForApproval instead.
        ``parent`` is the run whose sub-task it works on.
        """
        async with self._playing() as parts:
            run_id = await self._find_or_start(
                parts, task, new=new, dry_run=dry_run, images=images, key=key, parent=parent
            )
            return await self._drive(parts, run_id, wait=wait)

    async def send(self, message: str, run: int = 0, *, images: Sequence[tuple[bytes, str]] = ()) -> Answer:
        """A further message: continues a finished run (the last, if none is named), or joins a running one."""
        if not message.strip() and not images:
            raise UsageError("A message needs a text or an image", received=repr(message))
        async with self._playing() as parts:
            run_id = run or last_run(parts.host.state, self.agent_id)
            known = parts.host.state.runs.get(run_id)
            if known is None or known.agent != self.agent_id:
                raise UsageError("There is no such run to continue", received=str(run), todo="see `logact actions`")
            await self._input(parts, run_id, message, images)
            return await self._drive(parts, run_id)

    def run_sync(self, task: str | None = None, **options: Any) -> Answer:
        """``run`` for code without an event loop."""

        async def once() -> Answer:
            try:
                return await self.run(task, **options)
            finally:
                await self.log.close()

        return asyncio.run(once())

    async def stream(self, task: str | None = None, **options: Any) -> AsyncIterator[Entry]:
        """Like ``run``, yielding each entry as it becomes visible; the run's ``Output`` comes last."""
        queue: asyncio.Queue[Entry | None] = asyncio.Queue()

        def put(state: State, entry: Entry) -> None:
            queue.put_nowait(entry)

        self.observe(put)
        try:
            async with asyncio.TaskGroup() as group:

                async def work() -> None:
                    try:
                        await self.run(task, **options)
                    finally:
                        queue.put_nowait(None)

                group.create_task(work())
                while (entry := await queue.get()) is not None:
                    yield entry
        except BaseExceptionGroup as errors:
            raise only(errors) from None
        finally:
            self.unobserve(put)

    @property
    def id(self) -> str:
        """The agent's name: ``agent_id``."""
        return self.agent_id

    # --- the finer calls -----------------------------------------------------------------------------------------

    async def propose_action(self, action: Action, *, run: int = 0, retry_of: int = 0, key: str = "") -> LogEntry:
        """Phase 1: write the proposal to the log. Nothing runs. Raises ArgumentError for arguments that don't fit.

        Under a ``key`` of your own it is proposed once: whoever proposes under it again, in a later life too, gets
        the first proposal with what became of it. So a loop that was interrupted can begin again from its start.
        """
        async with self._playing() as parts:
            if key in parts.host.state.keys:
                return await agent_acting.proposed_before(self, parts, action, key)
            run_id = run or await self._own_loop_run(parts)
            state = parts.host.state
            if run_id not in state.runs:
                raise UsageError("There is no such run", received=str(run_id), todo="see `logact actions`")
            before = state.actions.get(retry_of)
            if before is not None and before.intent.undoes:  # an undo again, not what it undoes
                done_before = await parts.host.full_intent(before)
                intent = parts.proposer.intent_for_undo(state.runs[run_id], before.intent.undoes, done_before)
                intent = msgspec.structs.replace(intent, retry_of=retry_of)
            else:
                intent = parts.proposer.intent_for_action(state.runs[run_id], action, retry_of=retry_of)
            small, blobs = parts.proposer.outsourced(intent)
            entry = parts.host.about(intent, small, "driver", self.agent_id)
            try:
                done = await parts.host.append([entry], blobs=blobs, key=key)
            except KeyConflict:  # another life was faster; its proposal has another deadline, so other bytes
                await parts.host.tail.catch_up()
                return await agent_acting.proposed_before(self, parts, action, key)
            return self._view(parts, done.position)

    async def propose_alternative(self, action: Action, *, run: int = 0) -> LogEntry:
        """Propose something else instead of what failed: an ordinary proposal, for the same voters."""
        return await self.propose_action(action, run=run)

    async def validate_action(self, entry: LogEntry) -> ValidationResult:
        """Phase 2: have the voters judge it, and wait for the decision. Nothing runs."""
        async with self._playing() as parts:
            host, key = parts.host, entry.position
            votes: dict[str, Vote] = {}

            def collect(state: State, one: Entry) -> None:
                if isinstance(one.payload, Vote) and one.payload.intent == key and not state.verdict:
                    votes[one.payload.voter] = one.payload

            host.tail.observe(collect)
            for vote in (host.state.actions[key].votes if key in host.state.actions else {}).values():
                votes[vote.voter] = vote
            try:
                async with running(parts.voter_host.run(), parts.decider.run(), host.tail.follow()):
                    await host.tail.until(lambda state: _decided(state, key))
            finally:
                host.tail.unobserve(collect)
            action = host.state.actions[key]
            approved = action.status != "rejected"
            return ValidationResult(
                approved=approved,
                votes=tuple(votes.values()),
                reason=action.reason,
                hint=action.hint,
                entry=view(host.state, action),
            )

    async def execute_action(self, entry: LogEntry) -> ExecutionResult:
        """Phase 3: run it, if it was committed. Raises InDoubt if nobody can tell what happened."""
        async with self._playing() as parts:
            host, key = parts.host, entry.position
            action = host.state.actions.get(key)
            if action is None or action.status != "validated":
                status = action.status if action is not None else "not an open action"
                return ExecutionResult(success=False, error=f"not validated: it is {status}", entry=entry)
            return await agent_acting.executed(self, parts, key, parts.executor.perform(key))

    async def act(self, action: Action, *, key: str = "") -> Any:
        """Propose, validate and execute in one call, in two durable writes; the value.

        Under a ``key`` of your own it happens once: whoever asks for it again, in a later life too, gets the value
        that is in the log. Raises ActionRejected, ActionFailed, and InDoubt if only a person can tell.
        """
        return await agent_acting.act(self, action, key)

    async def recover_from_failure(self) -> AgentState:
        """Fold the log, settle what an earlier life left unfinished, and say where the agent stands.

        Raises InDoubt for what only a person can settle.
        """
        async with self._playing() as parts:
            while True:
                await parts.decider.settle()  # deadlines that passed, with nobody there to say so
                pending = parts.recoverer.due(parts.host.state)
                startable = [one for one, _ in parts.executor.due(parts.host.state)]
                if not pending and not startable:
                    break
                for action in pending:
                    try:
                        settled = await parts.recoverer.settle(action)
                    except ConditionFailed:
                        continue  # somebody else was faster
                    if not settled:
                        await parts.host.env.sleep(0.2)
                        await parts.host.tail.catch_up()
                for action in startable:
                    await parts.executor.perform(action.id)
            doubts = parts.recoverer.doubts()
            if doubts:
                raise InDoubt(doubts, todo="look at the world, then settle it with `logact doubt`")
            return await self.state()

    async def undo(self, position: int) -> UndoReport:
        """Take back what a run or an action did, newest first; each undo is an action of its own, voted on.

        It stops at the first undo that does not succeed; repeat it to go on. Raises UsageError and InDoubt.
        """
        from logact.undoing import undo

        return await undo(self, position)

    @asynccontextmanager
    async def saga(self, title: str) -> AsyncIterator[int]:
        """A group of actions of a loop of your own, as a run: if the block raises, what they did is undone.

        The error goes on, with a note that says what was undone and what still stands.
        """
        async with self._playing() as parts:
            before = parts.own_run
            begin = Run(agent=self.agent_id, title=title, ends_with_life=True)
            parts.own_run = run = (await parts.host.append([parts.host.entry(begin, "client")])).position
            try:
                yield run
            except Exception as error:
                error.add_note((await self.undo(run)).in_words())
                raise
            finally:
                parts.own_run = before

    async def look(self, position: int) -> LogEntry:
        """One action as the log has it now, as far as the fold still holds it. UsageError if it does not."""
        async with self._playing() as parts:
            return await agent_acting.looked(self, parts, position)

    async def skip_failed_action(self, action: int = 0, reason: str = "") -> LogEntry:
        """Give up a failed action (the latest one, if none is named); the model is told, and the run goes on.

        What may have happened is no failure: that is settled with ``logact doubt``. Raises UsageError.
        """
        return await self._close_failed(action, "skip", reason)

    async def give_up(self, position: int, reason: str = "") -> LogEntry:
        """Close a failed action as ``failed_final``. Raises UsageError."""
        return await self._close_failed(position, "failed_final", reason)

    async def _close_failed(self, position: int, settlement: Settlement, reason: str) -> LogEntry:
        async with self._playing() as parts:
            state = await parts.host.tail.catch_up()
            failed = [
                one.id
                for one in state.actions.values()
                if one.intent.agent == self.agent_id and one.status in ("failed", "undone") and not one.retried_by
            ]
            chosen = position or max(failed, default=0)
            if chosen not in failed:
                action = state.actions.get(chosen)
                told: str = action.status if action else "unknown"
                if action is not None and action.retried_by:
                    told += f", and tried again by {action.retried_by}"
                raise UsageError(
                    "There is no failed action to give up",
                    received=f"action {chosen} ({told})" if chosen else "none failed",
                    expected=", ".join(map(str, failed)) or "a failed action that was not tried again",
                )
            intent = state.actions[chosen].intent
            closed = Recovery(intent=chosen, attempt=0, settlement=settlement, evidence=self.agent_id, reason=reason)
            await parts.host.append([parts.host.about(intent, closed, "recoverer", self.agent_id)])
            return self._view(parts, chosen)

    async def apply_optimization(self, optimization: Optimization, *, automatic: bool = False) -> list[int]:
        """Apply this agent's part of an optimization, by a vote or (``automatic``) at once; each is an entry."""
        return await agent_tuning.apply(self, optimization, automatic=automatic)

    async def undo_optimization(self, position: int, reason: str = "") -> int:
        """Take a change back that was applied at a position. Where the entry stands that says so.

        Raises UsageError if nothing that is in force was applied to this agent there.
        """
        owner = await applied_to(self.log, position)
        if owner != self.agent_id:
            raise UsageError("This change was applied to another agent", received=owner, expected=self.agent_id)
        return await agent_tuning.write(self, self.tuning.undone(position, reason))

    async def state(self) -> AgentState:
        """The agent as the log has it now."""
        async with self._playing() as parts:
            return agent_stepping.state_of(await parts.host.tail.catch_up(), self.agent_id)

    async def reconstruct_state(self, entry: LogEntry | None = None) -> AgentState:
        """The agent's state, folded from its log: now, or as it was when an action had ended. Raises UsageError."""
        return await agent_stepping.state_after(self, entry)

    async def propose_next_action(self) -> LogEntry | None:
        """Have the model go on with the run under way as far as its next proposal; nothing runs. None: no such run.

        What is proposed waits for ``validate_action`` and ``execute_action``, or for the next ``run``.
        """
        return await agent_stepping.next_action(self)

    # --- life ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> LogActAgent:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self._playing())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()

    @asynccontextmanager
    async def _playing(self) -> AsyncIterator[Parts]:
        """This process plays the agent meanwhile; nested uses share one life."""
        if self._parts is not None:
            yield self._parts
            return
        parts = await self._take_up()
        self._parts = parts
        try:
            yield parts
        finally:
            self._parts = self._tail = None
            await self._leave(parts)

    async def _take_up(self) -> Parts:
        await self.log.open()
        tail = Tail(self.log, shared=self.witness is None)
        tail.joins_if(self._needs_no_history)
        host = Host(self.log, self.agent_id, tail=tail, lease_s=self.lease_s)
        parts = Parts(self, host)
        for observer, kinds in self._observers:
            tail.observe(observer, kinds)
        self._tail = tail
        try:
            if parts.witness is not None:
                await parts.witness.load()
            await tail.start()
            if parts.witness is not None:
                await parts.witness.admit()
            if not tail.whole and kinds_for(Profiler.of(tail).profile, self.agent_id) != frozenset():
                await self.tuning.load(self.log, tail.state.position)
            spec = spec_for(
                self.agent_id, self.model.name if self.model else "", self.system, self.tools.specs(), self.voters
            )
            async with tail.turn("enter"):  # others' policies would make each of many try again and again
                await enter(host, policy=self.policy, spec=spec, takeover=self.takeover)
        except BaseException:
            self._tail = None
            host.leaves()  # its fence may be in the log all the same
            host.tail.leave()
            if parts.witness is not None:
                await parts.witness.close()
            raise
        return parts

    def _needs_no_history(self, counted: Mapping[str, object]) -> bool:
        """Whether this agent has no use for what came before: no results or answers that it may be given again."""
        profiler = counted.get(Profiler.NAME)
        applied = kinds_for(profiler.profile, self.agent_id) if isinstance(profiler, Profiler) else None
        return not self.reuse_reads_s and applied is not None and applied.isdisjoint(REUSING)

    async def _leave(self, parts: Parts) -> None:
        """Say goodbye, so that the next life needs no proof that this one is gone. Best effort."""
        goodbye = parts.host.entry(Heartbeat(agent=self.agent_id, leaving=True), "executor", self.agent_id)
        parts.host.leaves(parts.executor.at_work)
        try:
            if not parts.executor.at_work():  # else a thread of this process still runs a tool: it has not left
                await parts.host.append([goodbye])
        except Exception as error:
            parts.farewell = error
        finally:
            parts.host.tail.leave()
            if parts.witness is not None:
                await parts.witness.close()

    # --- helpers -------------------------------------------------------------------------------------------------

    async def _drive(self, parts: Parts, run_id: int, *, wait: bool = True) -> Answer:
        run = await agent_tuning.drive(self, parts, run_id, wait=wait)
        if run.status == "stopped":
            raise RunStopped(
                "The run was stopped", received=f"run {run_id}", todo="start another with new=True (--new)"
            )
        return await self._answer(run)

    async def _answer(self, run: RunState) -> Answer:
        entry = await self.log.get(run.output)
        output = entry.payload
        if not isinstance(output, Output):
            raise LimitReached("The run's output cannot be read", received=entry.kind)
        value = output.value
        if value is not None and self.answer_type is not None:
            value = msgspec.convert(value, self.answer_type)
        return Answer(
            run=run.id, text=output.text, value=value, ok=output.ok, reason=output.reason, position=entry.position
        )

    async def _find_or_start(
        self,
        parts: Parts,
        task: str | None,
        *,
        new: bool,
        dry_run: bool,
        images: Sequence[tuple[bytes, str]],
        key: str,
        parent: int,
    ) -> int:
        state = parts.host.state
        if not new:
            mine = [run for run in state.runs.values() if run.agent == self.agent_id and run.dry_run == dry_run]
            mine = [run for run in mine if not parent or run.parent == parent]
            mine = [run for run in mine if not run.life]  # undos, own loops, analyses: nobody's task
            unfinished = [run for run in mine if (run.status == "running" and run.context) or run.inbox]
            for run in reversed(unfinished):
                if task is None or run.title == task:
                    return run.id
            if task is None:
                raise UsageError("There is no unfinished run to resume", todo="give a task")
            for run in reversed(mine):
                if run.title == task and run.status == "finished":
                    raise RunFinished(
                        "This task was finished before",
                        received=f"run {run.id}",
                        todo="start another run of it with new=True (--new), or send a further message",
                    )
        if not task:
            raise UsageError("A run needs a task", received=repr(task), expected="a text")
        begin = Run(
            agent=self.agent_id,
            title=task,
            limits=self.limits,
            dry_run=dry_run,
            parent=parent,
            answer_schema=msgspec.json.schema(self.answer_type) if self.answer_type is not None else None,
        )
        parts_of_input, blobs = _images(images)
        given = Input(run=own(0), text=task, parts=parts_of_input)
        host = parts.host
        entries = [host.entry(begin, "client"), host.entry(given, "client", run=own(0))]
        done = await host.append(entries, key=key, blobs=blobs)
        if done.position not in host.state.runs:
            raise RunStopped(
                "No run can begin", received=host.state.control_over(self.agent_id), todo="resume it first"
            )
        return done.position

    async def _input(self, parts: Parts, run: int, text: str, images: Sequence[tuple[bytes, str]]) -> None:
        parts_of_input, blobs = _images(images)
        given = Input(run=run, text=text, parts=parts_of_input)
        await parts.host.append([parts.host.entry(given, "client", run=run)], blobs=blobs)

    async def _own_loop_run(self, parts: Parts) -> int:
        """The run that actions of a caller's own loop belong to: one for each life of the agent."""
        async with parts.proposing:
            if not parts.own_run:
                begin = Run(agent=self.agent_id, title="(own loop)", ends_with_life=True)
                parts.own_run = (await parts.host.append([parts.host.entry(begin, "client")])).position
            return parts.own_run

    def _view(self, parts: Parts, key: int) -> LogEntry:
        action = parts.host.state.actions.get(key)
        if action is None:
            raise ActionRejected(
                "The proposal took no effect", received=parts.host.state.verdict or f"position {key}"
            )
        return view(parts.host.state, action)


def _decided(state: State, key: int) -> bool:
    action = state.actions.get(key)
    return action is None or action.status != "proposed"


def last_run(state: State, agent: str) -> int:
    """The last run of a task; undos, loops of one's own, and a recovery's analyses have nobody who would listen."""
    mine = [run for run in state.runs.values() if run.agent == agent]
    told = [one for one in mine if not one.life and (one.context or one.inbox)]
    return max((run.id for run in told or mine), default=0)


def _images(images: Sequence[tuple[bytes, str]]) -> tuple[tuple[Part, ...], list[tuple[str, bytes]]]:
    from logact import codec
    from logact.entry import BlobRef

    parts, blobs = [], []
    for data, media_type in images:
        ref = BlobRef(digest=codec.digest(data), size=len(data), media_type=media_type)
        parts.append(Part(blob=ref))
        blobs.append((ref.digest, data))
    return tuple(parts), blobs


def _model(given: Model | str | None) -> Model | None:
    if isinstance(given, str):
        from logact.models import model_from_name

        return model_from_name(given)
    return given
