"""The only part that touches the environment. It acts only after it has folded its own effective ``Started``.

The chain, readable in one go: committed? -> append ``Started`` -> did it take effect, and is it ours? -> run the
tool (``calling``) -> append ``Result``. This file owns when an action is started, and what is written down of it; it
never runs one whose start did not take effect, and leaves the call itself to ``calling``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from logact import codec
from logact.core import breaking, executing, invariants, retrying
from logact.core.settling import ANSWER
from logact.core.state import Action, State
from logact.entry import (
    Cancel,
    Effect,
    Failure,
    Intent,
    NewEntry,
    Output,
    Payload,
    Result,
    Started,
    Undone,
    stricter,
)
from logact.errors import (
    AccessRefused,
    BlobMissing,
    ConditionFailed,
    LogActError,
    LogCorrupt,
)
from logact.logs.base import Clause, Filter
from logact.runtime import values
from logact.runtime.calling import Calling
from logact.runtime.circuits import Circuits
from logact.runtime.host import Host
from logact.runtime.leaving import Leave
from logact.runtime.secrets import Secrets
from logact.runtime.tail import alone
from logact.tools import Tool

NOT_BEGUN = Failure(
    kind="not_happened", message="its lease ran out before it was begun, and it was taken away", definite=True
)

BEGAN_KEPT_MAX = 1000

RESULT_RETRY_S_MAX = 60.0
"""How long an executor keeps trying to write down a result before it gives up and leaves the action in doubt."""


class Executor:
    """Starts and runs committed actions of some agents with their tools."""

    def __init__(
        self,
        host: Host,
        tools: Mapping[str, Tool],
        *,
        agents: Iterable[str],
        secrets: Secrets | None = None,
        name: str = "executor",
        output_bytes_max: int = values.OUTPUT_BYTES_MAX,
        retry: Mapping[str, retrying.Backoff] | None = None,
        breaker: breaking.Breaker | None = None,
    ) -> None:
        self.host = host
        self.tools = tools
        self.agents = frozenset(agents)
        self.secrets = secrets or Secrets()
        self.name = name
        self.retry = retry or {}
        self.breaker = breaker
        self.circuits = Circuits(host)
        self.running: dict[int, asyncio.Timeout | None] = {}
        self.leave: Leave | None = None
        self.proposing = 0  # inline proposals that are being appended: what they start is their proposer's to run
        self._began: set[tuple[int, int]] = set()  # (action, attempt): what this life has once begun to run
        self.calling = Calling(
            host,
            tools,
            self.secrets,
            agents=self.agents,
            running=self.running,
            output_bytes_max=output_bytes_max,
        )

    def at_work(self, action_id: int = 0) -> bool:
        """Whether a thread still runs a tool (of this action, if given) although its call was given up."""
        return self.calling.at_work(action_id)

    # --- starting ------------------------------------------------------------------------------------------------

    @property
    def leaving(self) -> bool:
        """Whether nothing more is started; what was started is finished."""
        return self.leave is not None and self.leave.asked.is_set()

    def due(self, state: State) -> list[tuple[Action, bool]]:
        """Actions to work on: to be started (True), or started by this incarnation and not running (False)."""
        if not state.open_actions or state.halted or state.broken:
            return []
        now_ms = self.host.env.wall_ms()
        found = [
            (action, True)
            for action in (() if self.leaving else state.startable())
            if action.intent.agent in self.agents
            and not action.intent.external
            and action.id not in self.running
            and not (state.circuits and self.circuits.left_s(action.intent.agent, action.intent.tool))
            and (
                executing.only_rehearsed(state, action.intent)
                or not executing.may_start(state, action, self.host.incarnation, now_ms)
            )
        ]
        for action in state.unfinished():
            current = action.current
            if (
                current is not None
                and not self.proposing
                and current.incarnation == self.host.incarnation
                and action.status == "executing"
                and action.id not in self.running
                and (action.id, current.number) not in self._began
            ):
                found.append((action, False))
        return found

    async def run(self) -> None:
        """Start and run what is committed, until cancelled. Actions run concurrently."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._until_due()
                for action, fresh in self.due(self.host.state):
                    self.running[action.id] = None
                    group.create_task(self._work(action, fresh))

    async def _until_due(self) -> None:
        """Wait for something to start; the end of a circuit's delay is no entry."""
        state = self.host.state
        mark = self.circuits.mark(state)
        left = [self.circuits.left_s(one.intent.agent, one.intent.tool) for one in state.startable()] if mark else []
        soonest = min((one for one in left if one), default=None)
        await self.host.tail.until(
            lambda now: self.due(now) or self.circuits.mark(now) != mark,
            soonest + 0.001 if soonest is not None else 1.0 if mark else None,
            about=alone(self.agents),
        )

    async def _work(self, action: Action, fresh: bool) -> None:
        try:
            await self._perform(action.id, fresh=fresh)
        except AccessRefused:
            raise
        except LogActError:
            # the log refused or is away: forget, fold again, look again
            await self.host.env.sleep(0.1 + 0.1 * self.host.env.random())
        finally:
            self.running.pop(action.id, None)
            self.host.tail.wake()

    async def perform(self, action_id: int, *, fresh: bool = True) -> bool:
        """Start an action (unless it was started by us already) and run it.

        False if the start took no effect, or another task of this process has taken the action up.
        """
        if action_id in self.running:
            return False
        self.running[action_id] = None
        try:
            await self._circuit_rested(action_id)
            return await self._perform(action_id, fresh=fresh)
        finally:
            self.running.pop(action_id, None)
            self.host.tail.wake()

    async def _circuit_rested(self, action_id: int) -> None:
        """Wait while the circuit of an action's tool is open."""
        intent = self.host.state.actions[action_id].intent
        while left_s := self.circuits.left_s(intent.agent, intent.tool):
            mark = self.circuits.mark(self.host.state)
            await self.host.tail.until(lambda now, mark=mark: self.circuits.mark(now) != mark, left_s)  # type: ignore[misc]

    async def _perform(self, action_id: int, *, fresh: bool) -> bool:
        state = self.host.state
        action = state.actions[action_id]
        if executing.only_rehearsed(state, action.intent):
            taken_back = self.host.about(action.intent, rehearsed(action.id), "executor", self.name)
            await self.host.append([taken_back], unless=self.start_unless(action))
            return False
        attempt = len(action.attempts)
        answers = action.intent.tool == ANSWER
        intent = await self.host.full_intent(action) if answers else action.intent
        if fresh:
            attempt += 1
            # an answer's effect is an entry itself, so it goes along
            start = [self._entry(executing.start(state, action, self.host.lease_ms), intent)]
            entries = self.answer_entries(action_id, intent, attempt) if answers else start
            try:
                await self.host.append(entries, unless=self.start_unless(action))
            except ConditionFailed:
                return False
            await self.host.tail.catch_up()
        if answers:
            if not fresh and self._still_mine(action_id, attempt):  # it was started, and its output never came
                await self.host.append(self.answer_entries(action_id, intent, attempt)[1:])
            return True
        if not self._still_mine(action_id, attempt):
            return False
        await self.execute(action_id, attempt)
        return True

    def lost(self, action: Action) -> bool:
        """Whether this life began the present attempt, is not at it any more, and has no result of it on the way."""
        current = action.current
        if current is None or (action.id, current.number) not in self._began or action.id in self.running:
            return False
        riding = (entry.payload for entry in self.host.riding)
        return not any(isinstance(one, Result) and one.intent == action.id for one in riding)

    async def give_up_unbegun(self) -> None:
        """Say of what this life has started, and nobody has begun, that it was not; nobody begins it any more."""
        for action, fresh in self.due(self.host.state):
            if fresh:
                continue
            attempt = len(action.attempts)
            self._remember(action.id, attempt)
            said = Result(intent=action.id, attempt=attempt, error=NOT_BEGUN)
            await self._write_down([self._entry(said, action.intent)], [])

    def _still_mine(self, action_id: int, attempt: int) -> bool:
        """Whether the start that took effect is this incarnation's: the gate in front of every effect."""
        return executing.took_effect(self.host.state, action_id, attempt, self.host.incarnation)

    def answer_entries(self, reference: int, intent: Intent, attempt: int = 1) -> list[NewEntry]:
        """Start, release and finish a committed answer, in one record."""
        epoch = self.host.state.epoch(intent.agent)
        arguments = intent.arguments
        output = Output(
            run=intent.run,
            intent=reference,
            text=self.secrets.redact_text(str(arguments.get("text", ""))),
            value=self.secrets.redact(arguments.get("value")),
            ok=not arguments.get("gave_up"),
            reason=str(arguments.get("gave_up", "")),
        )
        started = self._entry(Started(intent=reference, attempt=attempt, epoch=epoch), intent)
        problem = _unreleasable(intent, output)
        if problem is not None:
            return [started, self._entry(Result(intent=reference, attempt=attempt, error=problem), intent)]
        return [started, self._entry(output, intent), self._entry(Result(intent=reference, attempt=attempt), intent)]

    @staticmethod
    def start_unless(action: Action) -> Filter:
        """What may not have come since the fold: control, fences, policies, or anything about this action."""
        return Filter(
            (
                Clause(kinds=("Control", "Fence", "Policy")),
                Clause(kinds=("Cancel",)),
                Clause(kinds=("Started", "Expiry", "Abort", "Recovery"), actions=(action.id,)),
            )
        )

    def _entry(self, payload: Payload, intent: Intent) -> NewEntry:
        return self.host.about(intent, payload, "executor", self.name)

    # --- running -------------------------------------------------------------------------------------------------

    async def execute(self, action_id: int, attempt: int, *, ride: bool = False) -> None:
        """Run the tool of an action that this incarnation started, and write down what happened."""
        if (action_id, attempt) in self._began:
            return  # two tasks of one process may both have seen the start; one of them acts
        self._remember(action_id, attempt)
        self.running.setdefault(action_id, None)
        self.host.working += 1
        try:
            action = self.host.state.actions[action_id]
            try:
                intent, digest, unusable = await self._approved(action)
                if unusable is None and await self._woke_late(action_id, attempt):
                    unusable = NOT_BEGUN
            except BaseException:
                self._began.discard((action_id, attempt))  # nothing was done yet: it is tried again
                raise
            blobs: list[tuple[str, bytes]] = []
            if unusable is not None:
                result = Result(intent=action_id, attempt=attempt, error=unusable)
            else:
                invariants.check_may_run(self.host.state, action_id, attempt, self.host.incarnation, digest)
                result, blobs = await self.calling.outcome(action, intent, attempt)
            tool = self.tools.get(intent.tool)
            effect = intent.effect
            if tool is not None and not intent.undoes:
                effect = stricter(effect, tool.effect)
            if result.error is not None and (self.retry or self.breaker is not None):
                result = self._scheduled(action, result, result.error, effect)
            entry = self._entry(result, intent)
            if intent.undoes and result.error is None:
                undone = self._entry(Undone(intent=intent.undoes, detail=str(result.value or "")), intent)
                await self._write_down([undone, entry], blobs)
            elif ride and effect in ("read", "idempotent") and not blobs and not intent.undoes:
                self.host.riding.append(entry)
            else:
                await self._write_down([entry], blobs)
        finally:
            self.host.working -= 1
            self.running.pop(action_id, None)
            if action_id in self.host.state.open_actions:
                self.host.tail.wake()  # it is in doubt, and its settlement waited until nothing of it runs here

    def _scheduled(self, action: Action, result: Result, error: Failure, effect: Effect) -> Result:
        """A failure with what comes next: when the action is tried again, or that it is given up."""
        env = self.host.env
        opened = breaking.opening(self.breaker, self.host.state, action, error, effect, now_ms=env.wall_ms())
        if opened.until_ms:
            again = opened.until_ms if opened.again else 0
            return msgspec.structs.replace(result, shut_until_ms=opened.until_ms, retry_at_ms=again)
        plan = retrying.schedule(self.retry, action, error, effect, now_ms=env.wall_ms(), random=env.random())
        return msgspec.structs.replace(result, retry_at_ms=plan.at_ms, gave_up=plan.gave_up)

    async def _woke_late(self, action_id: int, attempt: int) -> bool:
        """Whether this process slept between its start and now, and somebody took the action from it meanwhile.

        A process may be stopped at any point, so this only narrows the gap: who settles the action ends us first.
        """
        host = self.host
        if not host.lease_ms or host.env.monotonic() - host.wrote_at < host.lease_ms / 1000:
            return False
        await host.tail.catch_up()
        return not self._still_mine(action_id, attempt)

    def _remember(self, action_id: int, attempt: int) -> None:
        if len(self._began) > BEGAN_KEPT_MAX:
            open_ones = self.host.state.open_actions
            self._began = {key for key in self._began if key[0] in open_ones or key[0] in self.running}
        self._began.add((action_id, attempt))

    async def _approved(self, action: Action) -> tuple[Intent, str, Failure | None]:
        """The intent with the arguments that are at hand, their digest, and why it can never run, if it cannot."""
        try:
            intent = await self.host.full_intent(action)
        except (BlobMissing, LogCorrupt) as error:
            gone = Failure(kind="permanent", message=f"its arguments are gone: {error}", definite=True)
            return action.intent, "", gone
        digest = codec.digest_of(intent.arguments)
        return intent, digest, _other_arguments(intent, digest)

    async def _write_down(self, entries: list[NewEntry], blobs: list[tuple[str, bytes]]) -> None:
        """Append a result; while the log is away, keep trying: what happened must not be forgotten."""
        await self.host.insist(entries, blobs, RESULT_RETRY_S_MAX)


def rehearsed(action: int) -> Cancel:
    """What takes an approved action of a dry run back."""
    return Cancel(intent=action, reason="dry run: it was approved, and not carried out")


def _other_arguments(intent: Intent, digest: str) -> Failure | None:
    """Why arguments with this digest are not those that were approved, if they are not."""
    if digest == intent.arguments_digest:
        return None
    return Failure(kind="permanent", message="its arguments are not those of its digest", definite=True)


def _unreleasable(intent: Intent, output: Output) -> Failure | None:
    """Why a committed answer cannot be handed out, if it cannot."""
    size = len(msgspec.json.encode(output))
    if size > codec.PAYLOAD_BYTES_MAX:
        message = f"the answer has {size} bytes; at most {codec.PAYLOAD_BYTES_MAX} fit: write the rest to a file"
        return Failure(kind="permanent", message=message, definite=True)
    return _other_arguments(intent, codec.digest_of(intent.arguments))
