"""Broken versions of the real code, at least one for each guarantee: the simulation has to catch every one.

A mutant patches real classes while its block lasts. ``caught_by`` names the invariant that has to fail first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import msgspec

from logact import codec
from logact.agent import LogActAgent
from logact.agent_results import ValidationResult
from logact.core import acting, controlling, driving, executing, holes, machine, recovering, settling, voting
from logact.core.state import Action, State
from logact.entry import KINDS, MAY_APPEND, Entry, Recovery, Started, Undone, Vote
from logact.errors import LogCorrupt, ReadFailed
from logact.logs import verify as verifying
from logact.logs.base import Filter
from logact.runtime.driver import Driver
from logact.runtime.executor import Executor
from logact.runtime.recoverer import Recoverer
from logact.runtime.tail import Tail
from logact.runtime.voter_host import VoterHost
from logact.testing.ballots import ballot
from logact.testing.mutants_claims import CASES as CLAIMS
from logact.testing.mutants_hanging import CASES as HANGING
from logact.testing.mutants_supervising import CASES as SUPERVISING
from logact.testing.mutants_voting import cases_of_mutants
from logact.testing.plan import Event, Form, Plan
from logact.tools import Tool, ToolContext


class Mutant(msgspec.Struct, frozen=True):
    """One broken version: which guarantee it breaks, who has to catch it, and in which form it shows."""

    name: str
    guarantee: int
    caught_by: str
    patch: Callable[[ExitStack], None]
    form: Form = "decoupled"
    adapt: Callable[[Plan], Plan] = lambda plan: plan
    policy: str = ""

    def plan(self, seed: int) -> Plan:
        """The plan of a seed in the form, and under the policy, in which this mutant shows."""
        if self.policy:
            return ballot(self.policy, seed, self.form)
        return self.adapt(Plan.random(seed, self.form))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The real code is broken inside of this block."""
        with ExitStack() as stack:
            self.patch(stack)
            yield


def _set(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(owner, name, value))


def _acts_first(stack: ExitStack) -> None:
    """The tool runs, and only then its start is written down."""
    honest = Executor._perform

    async def perform(self: Executor, action_id: int, *, fresh: bool) -> bool:
        action = self.host.state.actions[action_id]
        tool = self.tools.get(action.intent.tool)
        if fresh and tool is not None:
            context = ToolContext(agent=self.host.agent, action=action_id, attempt=len(action.attempts) + 1)
            await self.calling.call(tool, action.intent.arguments, context)
        return await honest(self, action_id, fresh=fresh)

    _set(stack, Executor, "_perform", perform)


def _first_vote_wins(stack: ExitStack) -> None:
    honest = voting.evaluate

    def evaluate(policy: Any, effect: Any, votes: Any, *more: Any) -> voting.Verdict:
        verdict = honest(policy, effect, votes, *more)
        if verdict.outcome == "wait" and any(vote.approved for vote in votes.values()):
            return voting.Verdict("approve", "one is enough")
        return verdict

    _set(stack, voting, "evaluate", evaluate)


def _approves_on_failure(stack: ExitStack) -> None:
    def failed(self: VoterHost, voter: Any, why: str) -> Vote:
        return Vote(approved=True, reason=why)

    _set(stack, VoterHost, "_failed", failed)


def _refused_without_expiry(stack: ExitStack) -> None:
    """The caller gets tired of waiting and is told "refused", and the log knows nothing of it."""
    honest = LogActAgent.validate_action

    async def impatient(self: LogActAgent, entry: Any) -> ValidationResult:
        try:
            async with asyncio.timeout(0.5):
                return await honest(self, entry)
        except TimeoutError:
            return ValidationResult(approved=False, reason="no decision in time")

    _set(stack, LogActAgent, "validate_action", impatient)


def _asks_again(stack: ExitStack) -> None:
    """After a restart the driver asks for the turn that it finds half done once more, to be on the safe side."""
    honest = Driver.drive

    async def drive(self: Driver, run_id: int) -> Any:
        run = self.host.state.runs[run_id]
        if run.waiting_calls and run.turn:
            again = msgspec.structs.replace(run)
            again.context = [position for position in run.context if position < run.inference]
            again.turn, again.inference, again.calls = run.turn - 1, 0, {}
            await self.asker.infer(again)
        return await honest(self, run_id)

    _set(stack, Driver, "drive", drive)


def _unfenced(stack: ExitStack) -> None:
    """It appends its start and acts, whether or not that start took effect."""
    _set(stack, Executor, "start_unless", staticmethod(lambda action: Filter(())))
    _set(stack, Executor, "_still_mine", lambda self, action_id, attempt: True)
    _set(stack, executing, "took_effect", lambda *_: True)
    stack.enter_context(mock.patch("logact.runtime.executor.invariants.check_may_run", lambda *_: None))


def _restarts_irreversible(stack: ExitStack) -> None:
    honest_step, honest_recovery = recovering.next_step, machine._HANDLERS["Recovery"]

    def next_step(action: Action, **more: Any) -> recovering.Step:
        step = honest_step(action, **more)
        return step if step.verb == "wait" else recovering.Step("restart", "why not")

    def recovery(state: State, entry: Entry, payload: Recovery) -> str:
        action = state.actions.get(payload.intent)
        if payload.settlement == "restart" and action is not None and action.status in ("executing", "in_doubt"):
            action.restart_allowed = True
            return ""
        return honest_recovery(state, entry, payload)

    _set(stack, recovering, "next_step", next_step)
    stack.enter_context(mock.patch.dict(machine._HANDLERS, {"Recovery": recovery}))


def _guesses(stack: ExitStack) -> None:
    """What nobody can tell is taken for "it did not happen"."""

    async def settle(self: Recoverer, action: Action) -> bool:
        if not self._gone(action):
            return False
        settled = Recovery(
            intent=action.id, attempt=len(action.attempts), settlement="not_happened", evidence="guess"
        )
        await self._write(action, self._doubt(action, "its executor is gone"), settled)
        return True

    _set(stack, Recoverer, "settle", settle)


def _takes_back_unseen(stack: ExitStack) -> None:
    """What may have happened is taken back before the log says so."""

    async def undo(self: Recoverer, action: Action, tool: Tool) -> None:
        intent = await self.host.full_intent(action)
        await tool.undo(intent.arguments, None, self._context(action, intent))
        begins = Recovery(intent=action.id, attempt=len(action.attempts), settlement="undo")
        await self._write(action, self._doubt(action, "its executor is gone"), begins, Undone(intent=action.id))

    _set(stack, Recoverer, "_undo", undo)


def _tries_cancelled_again(stack: ExitStack) -> None:
    """What did not happen is tried again, whatever a person said of it."""
    honest = settling.retriable

    def retriable(action: Action) -> bool:
        lost = action.status == "failed" and action.error is not None and action.error.kind == "cancelled"
        return lost or honest(msgspec.structs.replace(action, cancel_wanted=False))

    for module in (settling, driving, acting, controlling):
        _set(stack, module, "retriable", retriable)


def _assumes_done(stack: ExitStack) -> None:
    """What was started is taken for done."""

    async def settle(self: Recoverer, action: Action) -> bool:
        if not self._gone(action):
            return False
        settled = Recovery(intent=action.id, attempt=len(action.attempts), settlement="happened", evidence="hope")
        await self._write(action, self._doubt(action, "its executor is gone"), settled)
        return True

    _set(stack, Recoverer, "settle", settle)


def _forgets_behind_a_hole(stack: ExitStack) -> None:
    """A run with a hole is over, so nothing in it was ever started."""

    def start_problem(state: State, action: Action, started: Started) -> str:
        return "its run has a hole"

    _set(stack, holes, "start_problem", start_problem)


def _stops_at_a_bad_entry(stack: ExitStack) -> None:
    honest = machine.apply

    def apply(state: State, entry: Entry) -> State:
        if entry.kind not in KINDS:
            raise LogCorrupt("What is this?", received=entry.kind)
        return honest(state, entry)

    _set(stack, machine, "apply", apply)


def _skips_after_a_read_error(stack: ExitStack) -> None:
    honest = Tail.catch_up

    async def catch_up(self: Tail) -> State:
        try:
            return await honest(self)
        except ReadFailed:
            self._fold.record += 1  # whatever it was
            return await honest(self)

    _set(stack, Tail, "catch_up", catch_up)


def _other_arguments(stack: ExitStack) -> None:
    honest = Tool.call

    async def call(self: Tool, arguments: dict[str, Any], context: ToolContext) -> Any:
        if self.name in ("put", "pay"):
            arguments = {"item": f"{arguments['item']} and more"}
        return await honest(self, arguments, context)

    _set(stack, Tool, "call", call)


def _believes_every_record(stack: ExitStack) -> None:
    _set(stack, verifying._Findings, "_chain", lambda *_: None)
    _set(stack, codec, "check_record", lambda body: codec.read_head(body)[1])
    _set(stack, verifying._Findings, "_checkpoint", lambda *_: None)


def _ignores_checkpoints(stack: ExitStack) -> None:
    async def load(self: Tail) -> None:
        return None

    _set(stack, Tail, "_load_checkpoint", load)


def _ignores_roles(stack: ExitStack) -> None:
    everything = frozenset(KINDS)
    _set(stack, machine, "MAY_APPEND", dict.fromkeys(MAY_APPEND, everything))


def _with_checkpoints(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, checkpoint_every=20)


def _with_silent_voters(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, voters=(("guard", 1, "slow"), ("budget", 4, "slow")))


def _with_more_kills(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, points=(*plan.points, *(("agent", place, 0.2) for place in range(6, 60, 6))))


def _with_cancels(plan: Plan) -> Plan:
    """Plans in which a person cancels again and again, and the agent dies now and then."""
    events = tuple(Event(0.5 + 0.4 * turn, "cancel", "person") for turn in range(12))
    return _with_more_kills(msgspec.structs.replace(plan, events=(*plan.events, *events)))


def _with(forgery: str) -> Callable[[Plan], Plan]:
    """Plans in which this forgery happens early."""
    return lambda plan: msgspec.structs.replace(plan, events=(*plan.events, Event(0.3, "forge", forgery)))


MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant("acts_before_its_start", 1, "nothing_acts_unseen", _acts_first),
        Mutant("takes_back_unseen", 1, "nothing_acts_unseen", _takes_back_unseen, "inline", _with_more_kills),
        Mutant("first_vote_wins", 1, "nothing_acts_unseen", _first_vote_wins),
        Mutant("approves_on_failure", 2, "closed_by_default", _approves_on_failure),
        Mutant(
            "refused_without_expiry",
            3,
            "deadlines_end_in_the_log",
            _refused_without_expiry,
            "own",
            _with_silent_voters,
        ),
        Mutant("asks_the_model_again", 4, "store_then_replay", _asks_again),
        Mutant("unfenced_executor", 5, "no_double_effect", _unfenced),
        Mutant("restarts_irreversible", 5, "no_double_effect", _restarts_irreversible, "inline"),
        Mutant("guesses_not_happened", 5, "no_double_effect", _guesses, "inline"),
        Mutant(
            "tries_cancelled_again", 5, "cancelled_stays_cancelled", _tries_cancelled_again, "inline", _with_cancels
        ),
        Mutant("assumes_done", 5, "no_lost_effect", _assumes_done, "inline"),
        Mutant("forgets_behind_a_hole", 5, "holes_hide_nothing", _forgets_behind_a_hole),
        Mutant("stops_at_a_bad_entry", 6, "one_bad_entry_never_stops", _stops_at_a_bad_entry, adapt=_with("unknown")),
        Mutant("skips_after_a_read_error", 7, "read_error_is_no_absence", _skips_after_a_read_error),
        Mutant("runs_other_arguments", 8, "approval_binds", _other_arguments),
        Mutant("believes_every_record", 9, "tampering_shows", _believes_every_record),
        Mutant(
            "ignores_checkpoints", 10, "recovery_is_bounded", _ignores_checkpoints, "decoupled", _with_checkpoints
        ),
        Mutant("ignores_roles", 11, "roles_are_enforced", _ignores_roles, adapt=_with("checkpoint")),
        *(Mutant(one.name, one.guarantee, one.caught_by, one.patch, adapt=one.adapt) for one in HANGING),
        *(Mutant(one.name, one.guarantee, one.caught_by, one.patch, "swarm", one.adapt) for one in CLAIMS),
        *(Mutant(one.name, one.guarantee, one.caught_by, one.patch, "supervised", one.adapt) for one in SUPERVISING),
        *(Mutant(name, 1, "policy_is_kept", patch, policy=policy) for name, policy, patch in cases_of_mutants()),
    )
}
"""Every mutant by name."""


__all__ = ["MUTANTS", "Mutant"]
