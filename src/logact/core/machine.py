"""The state machine: ``apply(state, entry) -> state``, the meaning of every kind of entry.

An entry takes effect only if its precondition holds in the fold of everything before it; otherwise it is kept,
counted, shown (``state.verdict`` says why), and changes nothing. So any number of drivers, deciders, executors
and recoverers may run, crash and restart with no coordination beyond the log.

``apply`` is total: it never raises for any entry. It consumes the state that it is given and returns it
changed; whoever needs the old one folds again or copies first. It reads no clock and does no I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from logact.core import voting
from logact.core.state import Action, AgentState, Attempt, CallState, Ignored, Incarnation, RunState, State
from logact.entry import (
    KINDS,
    MAY_APPEND,
    RECORD_ENTRIES_MAX,
    Abort,
    Author,
    Cancel,
    Claim,
    Commit,
    Compaction,
    Control,
    Entry,
    ErasedPayload,
    Expiry,
    Failure,
    Fence,
    Finding,
    Heartbeat,
    Inference,
    Input,
    Intent,
    Output,
    Policy,
    Recovery,
    Result,
    Run,
    Started,
    Undone,
    Unknown,
    Vote,
)

IGNORED_KEPT = 100
SETTLED_KEPT = 256
RUNS_KEPT = 1000
KEYS_KEPT = 10_000
INCARNATIONS_KEPT = 1000

AMBIGUOUS = frozenset({"timeout", "ambiguous", "cancelled", "crash"})
"""Failures after which the effect may have happened; for strict effects they leave the action in doubt."""

REJECTIONS = frozenset({"rejected", "repeated"})
"""Codes of aborts that say what the same action would meet again."""

REJECTIONS_KEPT = 256

RETRIED_CODES = frozenset({"policy_changed"})
"""Codes of aborts after which the driver proposes the same action again under the new circumstances."""

_CARRYING = frozenset(
    (
        "Inference",
        "Intent",
        "Vote",
        "Commit",
        "Abort",
        "Expiry",
        "Cancel",
        "Started",
        "Result",
        "Undone",
        "Recovery",
        "Output",
    )
)
"""Kinds without which a run looks as if less had happened than did."""

ANSWER = "answer"
"""The tool name of a run's final answer: proposed, voted on and committed like any other action."""


def initial(log: str = "", *, keep: bool = False) -> State:
    """The fold of nothing. ``keep`` never lets go of settled actions (for views)."""
    return State(log=log, keep=keep)


def fold(state: State, entries: Iterable[Entry]) -> State:
    """Apply entries in order."""
    for entry in entries:
        state = apply(state, entry)
    return state


def apply(state: State, entry: Entry) -> State:
    """The state after one more entry. Total and deterministic; consumes ``state``."""
    if entry.position <= state.position:
        return state  # read twice: positions are unique and increasing, so this one is known
    state.position = entry.position
    why = _record_problem(state, entry)
    if not why:
        why = _entry_problem(state, entry)
        if not why:
            handler = _HANDLERS.get(entry.kind)
            if handler is not None:
                why = handler(state, entry, entry.payload)
    state.verdict = why
    state.counts[entry.kind] = state.counts.get(entry.kind, 0) + 1
    if why:
        state.ignored_count += 1
        state.ignored.append(Ignored(entry.position, entry.kind, why))
        if len(state.ignored) > IGNORED_KEPT:
            del state.ignored[0]
    return state


# --- what must hold of any record and any entry --------------------


def _record_problem(state: State, entry: Entry) -> str:
    """Follow the writer's chain once per record; a record that is there twice takes no effect the second time."""
    record = entry.position // RECORD_ENTRIES_MAX
    if entry.position % RECORD_ENTRIES_MAX:
        return "the record is a duplicate" if state.duplicate == record else ""
    state.chain = _hash(state.chain, entry.record_hash)
    writer = entry.author.incarnation
    life = state.incarnations.get(writer)
    if life is None:
        life = state.incarnations[writer] = Incarnation(role=entry.author.role, name=entry.author.name)
        if len(state.incarnations) > INCARNATIONS_KEPT:
            _forget_the_gone(state)
    if life.number == entry.number and life.hash == entry.record_hash:
        state.duplicate = record
        return "the record is a duplicate"
    if entry.key:
        if entry.key in state.keys:
            state.duplicate = record
            life.number, life.hash = entry.number, entry.record_hash
            return "its idempotency key was used before"
        state.keys[entry.key] = entry.position
        if len(state.keys) > KEYS_KEPT:
            del state.keys[next(iter(state.keys))]
    if (entry.number != life.number + 1 or entry.previous != life.hash) and not state.broken:
        state.broken = (
            f"position {entry.position}: record {entry.number} of writer {writer} does not follow "
            f"its record {life.number}"
        )
    life.number, life.hash = entry.number, entry.record_hash
    life.last, life.last_ms = entry.position, entry.time_ms
    return ""


def _forget_the_gone(state: State) -> None:
    """Lives that said goodbye may go, but for those whose open actions somebody still has to settle."""
    needed = {one.incarnation for key in state.open_actions for one in state.actions[key].attempts}
    gone = [key for key, life in state.incarnations.items() if life.left and key not in needed]
    for key in gone[: INCARNATIONS_KEPT // 2]:
        del state.incarnations[key]


def _entry_problem(state: State, entry: Entry) -> str:
    if state.log and entry.log != state.log:
        return f"it was written for another log ({entry.log})"
    state.log = state.log or entry.log
    known = KINDS.get(entry.kind)
    if known is None or entry.version > known.VERSION:
        if entry.critical and not state.halted:
            state.halted = f"{entry.kind} version {entry.version} at position {entry.position}"
        return f"this version does not know {entry.kind} version {entry.version}"
    if isinstance(entry.payload, Unknown):
        return f"its payload does not fit a {entry.kind}"
    allowed = MAY_APPEND.get(entry.author.role)  # type: ignore[call-overload]
    if allowed is None or entry.kind not in allowed:
        return f"the role {entry.author.role!r} may not append a {entry.kind}"
    if isinstance(entry.payload, ErasedPayload):
        return _erased(state, entry)
    return ""


def _erased(state: State, entry: Entry) -> str:
    """An entry that cannot be read any more says nothing, and what depended on it must not happen again.

    Without an intent, its call would look as if it had never been proposed; so a run with a gap ends here.
    """
    if entry.critical or (entry.kind == "Cancel" and not entry.action):
        state.halted = state.halted or f"{entry.kind} at position {entry.position}, whose payload was erased"
    action = state.actions.get(entry.action)
    run = state.runs.get(entry.run or (action.intent.run if action is not None else 0))
    if run is not None and entry.kind in _CARRYING:
        run.status, run.ok = "stopped", False
    if action is not None and entry.kind == "Result" and action.status in ("executing", "in_doubt"):
        action.status, action.reason = "superseded", "its result was erased"
        _settle(state, action, entry.position)
    return "its payload was erased"


# --- runs and the driver --------------------


def _run(state: State, entry: Entry, run: Run) -> str:
    held = state.control_over(run.agent)
    if held.startswith("stopped"):
        return f"{held}: no new run"
    state.runs[entry.position] = RunState(
        id=entry.position,
        agent=run.agent,
        title=run.title,
        limits=run.limits,
        dry_run=run.dry_run,
        started_ms=entry.time_ms,
        digest=_hash("", f"run {run.agent}"),
    )
    if not state.keep and len(state.runs) > RUNS_KEPT:
        for key, old in state.runs.items():
            if old.status != "running":
                del state.runs[key]
                state.scopes.pop(f"run:{key}", None)
                break
    return ""


def _input(state: State, entry: Entry, given: Input) -> str:
    run = state.runs.get(given.run)
    if run is None:
        return f"there is no run {given.run}"
    if run.status == "stopped":
        return f"run {given.run} was stopped"
    run.status = "running"
    run.rejected = {}
    run.expired = 0
    if run.waiting_calls:
        run.inbox.append(entry.position)  # a provider wants tool results right after the calls
    else:
        run.context.append(entry.position)
    return ""


def _inference(state: State, entry: Entry, inference: Inference) -> str:
    run = state.runs.get(inference.run)
    if run is None:
        return f"there is no run {inference.run}"
    if run.status != "running":
        return f"run {run.id} is {run.status}"
    if inference.turn != run.turn + 1:
        return f"run {run.id} is at turn {run.turn}, so turn {inference.turn} is not the next"
    if run.waiting_calls:
        return f"calls of turn {run.turn} are not settled"
    late = _unseen(run, inference)
    if late:
        run.context = [position for position in run.context if position not in late]
        run.inbox = late
    run.turn = inference.turn
    run.inference = entry.position
    run.context.append(entry.position)
    usage = inference.usage
    run.input_tokens += usage.input_tokens
    run.output_tokens += usage.output_tokens
    run.cost_usd += usage.cost_usd or 0.0
    run.context_tokens = usage.input_tokens + usage.output_tokens
    # a broken call is settled by the inference itself: the driver tells the model what was wrong with it
    run.calls = {
        index: CallState(settled_at=entry.position if call.broken else 0)
        for index, call in enumerate(inference.calls)
    } or {0: CallState()}
    _close_turn(run)
    return ""


def _unseen(run: RunState, inference: Inference) -> list[int]:
    """Inputs that came while the model was thinking: they are not answered yet, so they come after its answer."""
    seen = (inference.base, *inference.context)
    places = [place for place, position in enumerate(run.context) if position in seen]
    if not places:
        return []  # it does not say what it saw, or a compaction came in between
    return run.context[places[-1] + 1 :]


def _compaction(state: State, entry: Entry, compaction: Compaction) -> str:
    run = state.runs.get(compaction.run)
    if run is None:
        return f"there is no run {compaction.run}"
    if run.waiting_calls:
        return "calls of the present turn are not settled"
    if compaction.upto not in run.context:
        return f"position {compaction.upto} is not in the run's context"
    place = run.context.index(compaction.upto)
    run.context = [entry.position, *run.context[place + 1 :]]
    run.context_tokens = 0
    run.input_tokens += compaction.usage.input_tokens
    run.output_tokens += compaction.usage.output_tokens
    run.cost_usd += compaction.usage.cost_usd or 0.0
    return ""


def _intent(state: State, entry: Entry, intent: Intent) -> str:
    run = state.runs.get(intent.run)
    if run is None:
        return f"there is no run {intent.run}"
    if run.agent != intent.agent:
        return f"run {run.id} belongs to agent {run.agent!r}, not to {intent.agent!r}"
    held = state.control_over(intent.agent, intent.run)
    if held.startswith("stopped"):
        return held
    if run.status == "stopped" or (run.status == "finished" and intent.inference):
        return f"run {run.id} is {run.status}"
    call: CallState | None = None
    if intent.inference:
        if intent.inference != run.inference or intent.call not in run.calls:
            return f"call {intent.call} of inference {intent.inference} is not open"
        call = run.calls[intent.call]
        if call.settled_at:
            return f"call {intent.call} of inference {intent.inference} is settled"
        if call.action and call.action != intent.retry_of:
            return f"call {intent.call} of inference {intent.inference} is action {call.action} already"
    if intent.retry_of:
        why = _retry_problem(state, intent)
        if why:
            return why
        state.actions[intent.retry_of].retried_by = entry.position
    if intent.undoes:
        why = _undo_problem(state, intent)
        if why:
            return why
        state.undoing[intent.undoes] = entry.position
    scopes = scopes_of(intent)
    before = state.actions[intent.retry_of] if intent.retry_of else None
    action = Action(
        id=entry.position,
        intent=intent,
        policy=state.policy_position(intent.agent),
        proposed_ms=entry.time_ms,
        marks={scope: state.scopes[scope] for scope in scopes if scope in state.scopes},
    )
    if before is not None:
        action.retries = before.retries + 1
        action.scheduled = before.scheduled + (before.retry_at_ms > 0)
        action.first_ms = before.first_ms or before.proposed_ms
        # what may have happened must look the same to the outside world; what certainly did not is a new request
        maybe = before.key_of or (before.id if before.happened is None else 0)
        action.key_of = 0 if before.status == "undone" else maybe
    state.actions[action.id] = action
    state.open_actions[action.id] = None
    run.actions += 1
    if call is not None:
        call.action = action.id
    _mark(state, action, entry.position)
    return ""


def _retry_problem(state: State, intent: Intent) -> str:
    before = state.actions.get(intent.retry_of)
    if before is None:
        return f"there is no action {intent.retry_of} to try again"
    if before.intent.tool != intent.tool or before.intent.arguments_digest != intent.arguments_digest:
        return f"a retry of action {before.id} must have its tool and arguments"
    if before.intent.undoes != intent.undoes:
        return f"a retry of action {before.id} must undo what it undoes"
    if before.retried_by:
        return f"action {before.id} was tried again already, as {before.retried_by}"
    if before.status == "rejected" and not before.attempts:
        return ""
    if before.status not in ("failed", "undone"):
        return f"action {before.id} is {before.status}, not failed"
    if _may_repeat(before) or before.status == "undone":
        return ""
    return f"action {before.id} ({before.intent.effect}) may have happened, so it is not tried again"


def _undo_problem(state: State, intent: Intent) -> str:
    """Why an intent may not undo what it names. What the fold has let go is for whoever proposes it to know."""
    if intent.undoes in state.undoing:
        return f"action {intent.undoes} is being undone already, by {state.undoing[intent.undoes]}"
    if intent.undoes in state.undone:
        return f"action {intent.undoes} was undone already"
    target = state.actions.get(intent.undoes)
    if target is None:
        return "" if 0 < intent.undoes < state.position else f"there is no action {intent.undoes} to undo"
    if target.intent.agent != intent.agent or target.intent.tool != intent.tool:
        return f"the undo of action {target.id} must be of its agent and tool"
    if target.intent.arguments_digest != intent.arguments_digest:
        return f"the undo of action {target.id} must have its arguments"
    if target.status != "executed" or not target.intent.undo:
        return f"action {target.id} is {target.status}" + ("" if target.intent.undo else ", and declared no undo")
    return ""


def _may_repeat(action: Action) -> bool:
    """Whether doing it (again) is harmless: by its effect, or since it certainly did not happen."""
    return action.intent.effect in ("read", "idempotent") or action.happened is False


def scopes_of(intent: Intent) -> tuple[str, ...]:
    """The scopes in which an intent counts for votes that depend on history."""
    return ("log", f"agent:{intent.agent}", f"run:{intent.run}", f"tool:{intent.tool}")


# --- votes and decisions --------------------


def _vote(state: State, entry: Entry, vote: Vote) -> str:
    action = state.actions.get(vote.intent)
    if action is None:
        return f"there is no open action {vote.intent}"
    if vote.shadow and action.status != "proposed" and entry.author.name == vote.voter:
        return ""  # it never counts, so it may come late
    if action.status != "proposed":
        return f"action {action.id} is {action.status} already"
    policy = state.policy_for(action)
    known = policy.voters.get(vote.voter) if policy else None
    if known is None:
        return f"{vote.voter!r} is not a voter of the policy in force at the intent"
    if not may_vote(entry.author, vote.voter, known.kind):
        return f"{entry.author.role} {entry.author.name!r} may not vote as {vote.voter!r}"
    if vote.voter in action.votes:
        return f"{vote.voter!r} voted on action {action.id} already"
    if vote.arguments_digest and vote.arguments_digest != action.intent.arguments_digest:
        return "the vote is for other arguments"
    if vote.scope and vote.scope not in scopes_of(action.intent):
        return f"{vote.scope!r} is no scope of this intent"
    if vote.scope and action.marks.get(vote.scope, 0) > vote.seen:
        return f"something in scope {vote.scope!r} came between position {vote.seen} and the intent"
    if not (vote.shadow or known.shadow):
        action.votes[vote.voter] = vote
    return ""


def may_vote(author: Author, voter: str, kind: str) -> bool:
    """Whether an author may cast a voter's vote: a voter in its own name; a person, as a client, in their own.

    People stand in policies as ``human:NAME``, or just ``NAME``; ``human:*`` is any person.
    """
    if kind != "human":
        return author.role == "voter" and author.name == voter
    return author.role == "client" and (voter.partition(":")[2] or voter) in (author.name, "*")


def _commit(state: State, entry: Entry, commit: Commit) -> str:
    action = state.actions.get(commit.intent)
    if action is None:
        return f"there is no open action {commit.intent}"
    if action.status != "proposed":
        return f"action {action.id} is {action.status} already"
    bound = state.bound_since(action.intent.agent)
    if bound > action.id:
        return f"the binding policy at {bound} is newer than the intent"
    verdict = voting.evaluate(state.policy_for(action), action.intent.effect, action.votes, action.intent.tool)
    if verdict.outcome != "approve":
        return f"the votes do not carry it: {verdict.reason}"
    action.status = "validated"
    action.decided_at = entry.position
    action.reason = commit.reason or verdict.reason
    action.start_by_ms = commit.start_by_ms
    _mark(state, action, entry.position)
    return ""


def _abort(state: State, entry: Entry, abort: Abort) -> str:
    return _reject(state, entry, abort.intent, abort.code, abort.reason, hint=abort.hint)


def _expiry(state: State, entry: Entry, expiry: Expiry) -> str:
    action = state.actions.get(expiry.intent)
    if action is None:
        return f"there is no open action {expiry.intent}"
    if action.status == "proposed" and action.intent.deadline_ms:
        return _reject(state, entry, action.id, "expired", expiry.reason or "no decision before the deadline")
    if action.status == "validated" and action.start_by_ms:
        return _reject(state, entry, action.id, "expired", expiry.reason or "not started in time", started_too=True)
    return f"action {action.id} is {action.status}: nothing to expire"


def _cancel(state: State, entry: Entry, cancel: Cancel) -> str:
    if not cancel.scope:
        action = state.actions.get(cancel.intent)
        if action is not None and action.restart_allowed:
            _give_up(state, entry, action, cancel.reason or "cancelled")
            return ""
        if action is not None and action.status in ("executing", "in_doubt"):
            action.cancel_wanted = True  # it may be too late; the executor tries, the result says what became of it
            return ""
        if action is not None and action.status == "failed" and action.retry_at_ms and not action.retried_by:
            action.status, action.reason = "failed_final", cancel.reason or "cancelled before it was tried again"
            _settle_call(state, action, entry.position)
            return ""
        return _reject(state, entry, cancel.intent, "cancelled", cancel.reason or "cancelled", started_too=True)
    problem = scope_problem(cancel.scope)
    if problem:
        return problem
    _stop_runs(state, entry, cancel.scope, "cancelled", cancel.reason)
    return ""


def _stop_runs(state: State, entry: Entry, scope: str, code: str, reason: str) -> None:
    """End the running runs in a scope; what has not started never will, what runs is asked to stop."""
    for key in list(state.open_actions):
        action = state.actions[key]
        if scope not in control_scopes(action.intent.agent, action.intent.run, key):
            continue
        if action.status in ("proposed", "validated"):
            _reject(state, entry, key, code, reason or f"{code} ({scope})", started_too=True)
        elif action.restart_allowed:
            _give_up(state, entry, action, reason or f"{code} ({scope})")
        elif code == "cancelled":
            action.cancel_wanted = True
    for run in state.runs.values():
        if run.status == "running" and scope in control_scopes(run.agent, run.id, 0)[:3]:
            run.status, run.ok = "stopped", False


def _give_up(state: State, entry: Entry, action: Action, why: str) -> None:
    """An attempt was lost, and the next will never be: whether it happened stays unknown."""
    action.status, action.happened, action.reason = "superseded", None, f"not started again: {why}"
    _settle(state, action, entry.position)


def control_scopes(agent: str, run: int, action: int) -> tuple[str, str, str, str]:
    """The scopes whose control entries concern an action."""
    return ("log", f"agent:{agent}", f"run:{run}", f"action:{action}")


def scope_problem(scope: str) -> str:
    """What is wrong with a control scope ("" if nothing)."""
    kind, _, rest = scope.partition(":")
    if kind not in ("log", "agent", "run", "action") or (kind == "log") == bool(rest):
        return f"{scope!r} is no scope; expected log, agent:NAME, run:POSITION or action:POSITION"
    return ""


def _reject(
    state: State, entry: Entry, key: int, code: str, reason: str, *, hint: str = "", started_too: bool = False
) -> str:
    action = state.actions.get(key)
    if action is None:
        return f"there is no open action {key}"
    if action.status != "proposed" and not (started_too and action.status == "validated"):
        return f"action {action.id} is {action.status} already"
    action.status = "rejected"
    action.decided_at = action.decided_at or entry.position
    action.code, action.reason, action.hint = code, reason, hint
    action.happened = False
    run = state.runs.get(action.intent.run)
    if run is not None and code == "expired":
        run.expired += 1
    if run is not None and code in REJECTIONS and action.intent.arguments_digest:
        seen = rejection_key(action.policy, action.intent)
        run.rejected[seen] = run.rejected.get(seen, 0) + 1
        if len(run.rejected) > REJECTIONS_KEPT:
            del run.rejected[next(iter(run.rejected))]
    _settle(state, action, entry.position)
    return ""


def rejection_key(policy: int, intent: Intent) -> str:
    """Under what a run counts how often the same action was rejected; a new policy begins to count anew."""
    return f"{policy} {intent.tool} {intent.arguments_digest}"


# --- execution --------------------


def _started(state: State, entry: Entry, started: Started) -> str:
    action = state.actions.get(started.intent)
    if action is None:
        return f"there is no open action {started.intent}"
    why = start_problem(state, action, entry.author.incarnation, started.epoch)
    if why:
        return why
    if started.attempt != len(action.attempts) + 1:
        return f"attempt {started.attempt} is not the next of action {action.id}"
    action.attempts.append(Attempt(started.attempt, entry.author.incarnation, started.epoch, entry.position))
    action.status = "executing"
    action.restart_allowed = False
    _mark(state, action, entry.position)
    return ""


def start_problem(state: State, action: Action, incarnation: str, epoch: int) -> str:
    """Why this incarnation may not start the action now, in this epoch ("" if it may)."""
    if not (action.status == "validated" or action.restart_allowed):
        return f"action {action.id} is {action.status}"
    held = state.agents.get(action.intent.agent)
    if held is not None:
        if epoch != held.epoch:
            return f"epoch {epoch} is over; it is {held.epoch}"
        if held.holder and held.holder != incarnation:
            return f"another incarnation ({held.holder}) holds agent {action.intent.agent!r}"
    elif epoch:
        return f"epoch {epoch} was never opened"
    if action.cancel_wanted:
        return f"action {action.id} was cancelled"
    run = state.runs.get(action.intent.run)
    if run is None:
        return f"run {action.intent.run} ended too long ago"
    if run.dry_run and action.intent.effect != "read":
        return f"run {run.id} is a dry run"
    if run.status == "stopped":
        return f"run {run.id} was stopped"
    return state.blocked(action)


def _result(state: State, entry: Entry, result: Result) -> str:
    action = state.actions.get(result.intent)
    if action is None:
        return f"there is no open action {result.intent}"
    current = action.current
    if current is None:
        return f"action {action.id} was never started"
    theirs = next((one for one in action.attempts if one.number == result.attempt), None)
    if theirs is None or theirs.incarnation != entry.author.incarnation:
        return f"attempt {result.attempt} of action {action.id} was not started by this incarnation"
    if action.status not in ("executing", "in_doubt") or theirs is not current or theirs.reported:
        return _late_result(state, action, theirs, result)
    theirs.reported = True
    error = result.error
    action.error = error
    if error is None:
        action.status, action.happened = "executed", True
    elif error.definite:
        action.status, action.happened = "failed", False
    elif error.kind in AMBIGUOUS and action.intent.effect in ("reversible", "irreversible"):
        action.status, action.reason = "in_doubt", error.message
        return ""
    else:
        action.status = "failed"
    if action.status == "failed" and result.gave_up:
        action.status, action.reason = "failed_final", result.gave_up
    elif action.status == "failed" and result.retry_at_ms > 0 and _may_repeat(action):
        action.retry_at_ms = result.retry_at_ms
        action.retry_delay_ms = max(0, result.retry_at_ms - entry.time_ms)
    _settle(state, action, entry.position, result.state_after or error)
    return ""


def _late_result(state: State, action: Action, attempt: Attempt, result: Result) -> str:
    """A result after its action was settled otherwise: kept, and a conflict if it says something else."""
    said = f"action {action.id} is {action.status} already"
    if attempt.reported:
        return said  # the same result once more, after an append of unknown fate
    attempt.reported = True
    did = result.error is None and action.happened is False
    did_not = result.error is not None and result.error.definite and action.happened is True
    if not did and not (did_not and attempt is action.current):
        return said
    if not action.conflict:
        action.conflict = True
        state.conflicts.append(action.id)
    return f"{said}: CONFLICT, it {'did' if did else 'did not'} happen"


def _undone(state: State, entry: Entry, undone: Undone) -> str:
    action = state.actions.get(undone.intent)
    doing = state.actions.get(state.undoing.get(undone.intent, 0))
    current = doing.current if doing is not None and doing.status == "executing" else None
    allowed = current is not None and current.incarnation == entry.author.incarnation
    if action is None:
        if not allowed:
            return f"there is no action {undone.intent}"
        _let_go_undone(state, undone.intent, entry.position)
        return ""
    if action.status not in ("executed", "in_doubt"):
        return f"action {action.id} is {action.status}: nothing to undo"
    if action.status == "executed" and not allowed:
        return f"no undo of action {action.id} was committed and is running here"
    if undone.error is not None:
        action.status, action.error = "in_doubt", undone.error
        state.open_actions[action.id] = None
        return ""
    action.status, action.happened, action.undone_by = "undone", False, entry.position
    _settle(state, action, entry.position)
    return ""


def _let_go_undone(state: State, target: int, position: int) -> None:
    """Remember that an action was undone that the fold does not hold any more."""
    state.undone[target] = position
    if len(state.undone) > KEYS_KEPT:
        del state.undone[next(iter(state.undone))]


def _output(state: State, entry: Entry, output: Output) -> str:
    run = state.runs.get(output.run)
    action = state.actions.get(output.intent)
    if run is None or action is None or action.intent.tool != ANSWER or action.intent.run != output.run:
        return "an output belongs to a committed answer of its run"
    if action.status not in ("executing", "executed"):
        return f"the answer {action.id} is {action.status}"
    if run.status != "running":
        return f"run {run.id} is {run.status}"
    run.status = "finished"
    run.output, run.ok = entry.position, output.ok
    more = bool(run.inbox)
    if run.waiting_calls:
        run.calls = {
            index: CallState(call.action, call.settled_at or entry.position) for index, call in run.calls.items()
        }
        _close_turn(run)
    if more:  # somebody wrote while the answer was on its way: the conversation goes on
        run.status = "running"
    return ""


# --- recovery and control --------------------


def _recovery(state: State, entry: Entry, recovery: Recovery) -> str:
    action = state.actions.get(recovery.intent)
    if action is None:
        return f"there is no open action {recovery.intent}"
    if recovery.settlement in ("skip", "failed_final"):
        if action.status not in ("failed", "rejected", "undone"):
            return f"action {action.id} is {action.status}, not failed"
        if action.retried_by:
            return f"action {action.id} was tried again, as {action.retried_by}"
        action.status = "skipped" if recovery.settlement == "skip" else "failed_final"
        action.reason = recovery.reason or action.reason
        _settle_call(state, action, entry.position)
        return ""
    if action.status not in ("executing", "in_doubt") or action.restart_allowed:
        return f"action {action.id} is {action.status}: nothing to settle"
    if recovery.attempt != len(action.attempts):
        return f"attempt {recovery.attempt} is not the present one of action {action.id}"
    if recovery.settlement == "restart":
        if action.intent.effect not in ("read", "idempotent"):
            return f"action {action.id} ({action.intent.effect}) is never restarted"
        if ended(state, action):
            return f"action {action.id} was cancelled or its run stopped: it is not restarted"
        action.restart_allowed = True
        return ""
    if action.status != "in_doubt":
        return f"action {action.id} is executing, and nothing in the log says that its executor is gone"
    action.reason = recovery.reason
    if recovery.settlement == "happened":
        action.status, action.happened = "executed", True
        if action.intent.undoes:  # what happened is an undo
            target = state.actions.get(action.intent.undoes)
            if target is None:
                _let_go_undone(state, action.intent.undoes, entry.position)
            elif target.status == "executed":
                target.status, target.happened, target.undone_by = "undone", False, entry.position
    elif recovery.settlement == "not_happened":
        action.status, action.happened = "failed", False
        action.error = Failure(kind="not_happened", message=recovery.reason or "it did not happen", definite=True)
    else:
        action.status, action.happened = "superseded", None
    _settle(state, action, entry.position)
    return ""


def ended(state: State, action: Action) -> bool:
    """Whether nothing of an action may begin any more: it was cancelled, or its run was stopped."""
    run = state.runs.get(action.intent.run)
    return action.cancel_wanted or run is None or run.status == "stopped"


def _finding(state: State, entry: Entry, finding: Finding) -> str:
    if finding.code != "in_doubt":
        return ""
    for key in finding.cites:
        action = state.actions.get(key)
        if action is not None and action.status == "executing" and not action.restart_allowed:
            action.status = "in_doubt"
            action.reason = finding.message
    return ""


def _policy(state: State, entry: Entry, policy: Policy) -> str:
    now = state.policies.get(state.policy_at.get(policy.agent, 0))
    in_force = now.version if now is not None else 0
    if policy.expected != in_force:
        return f"it expects policy version {policy.expected}, but {in_force} is in force"
    if policy.version <= in_force:
        return f"its version {policy.version} is not above {in_force}"
    wrong = voting.problems(policy)
    if wrong:
        return "it cannot be used: " + "; ".join(wrong)
    state.policy_at[policy.agent] = entry.position
    needed = {state.actions[key].policy for key in state.open_actions} | set(state.policy_at.values())
    state.policies = {at: kept for at, kept in state.policies.items() if at in needed}
    state.policies[entry.position] = policy
    if policy.binding:
        state.binding_at[policy.agent] = entry.position
    return ""


def _control(state: State, entry: Entry, control: Control) -> str:
    problem = scope_problem(control.scope)
    if problem:
        return problem
    if control.verb == "pause":
        if control.scope in state.paused:
            return f"{control.scope} is paused already"
        state.paused[control.scope] = entry.position
        return ""
    if control.verb == "resume":
        gone = state.paused.pop(control.scope, 0) or state.stopped.pop(control.scope, 0)
        return "" if gone else f"{control.scope} is neither paused nor stopped"
    state.stopped[control.scope] = entry.position
    _stop_runs(state, entry, control.scope, "stopped", control.reason)
    return ""


def _fence(state: State, entry: Entry, fence: Fence) -> str:
    held = state.agents.get(fence.agent)
    epoch = held.epoch if held is not None else 0
    if fence.epoch != epoch + 1:
        return f"the epoch of agent {fence.agent!r} is {epoch}, so {fence.epoch} is not the next"
    state.agents[fence.agent] = AgentState(fence.epoch, fence.holder, entry.position)
    for key in state.open_actions:
        action = state.actions[key]
        if action.intent.agent == fence.agent and action.status == "executing" and not action.restart_allowed:
            action.status = "in_doubt"
            action.reason = f"its executor was fenced off in epoch {fence.epoch}"
    return ""


def _claim(state: State, entry: Entry, claim: Claim) -> str:
    holder = state.claims.get(claim.task)
    if claim.release:
        if holder != claim.agent:
            return f"task {claim.task!r} is not held by {claim.agent!r}"
        del state.claims[claim.task]
        return ""
    if holder is not None:
        return f"task {claim.task!r} is held by {holder!r}"
    state.claims[claim.task] = claim.agent
    return ""


def _heartbeat(state: State, entry: Entry, beat: Heartbeat) -> str:
    life = state.incarnations.get(entry.author.incarnation)
    if life is None:
        return "the beginning of its record is missing"
    life.agent = beat.agent or life.agent
    if beat.host and life.birth is None:
        life.birth = beat
    life.left = life.left or beat.leaving
    return ""


def _checkpoint(state: State, entry: Entry, _: Any) -> str:
    state.checkpoint = entry.position
    state.counted_at_checkpoint = sum(state.counts.values())
    return ""


def _seal(state: State, _: Entry, __: Any) -> str:
    state.sealed = True
    return ""


# --- settling --------------------


def _mark(state: State, action: Action, position: int) -> None:
    for scope in scopes_of(action.intent):
        state.scopes[scope] = position


def _settle(state: State, action: Action, position: int, detail: object = "") -> None:
    """An action reached an end: close it, advance its run's digest, settle its call, and let old ones go."""
    action.settled_at = position
    action.restart_allowed = False
    state.open_actions.pop(action.id, None)
    if action.intent.undoes and state.undoing.get(action.intent.undoes) == action.id:
        del state.undoing[action.intent.undoes]
    _mark(state, action, position)
    run = state.runs.get(action.intent.run)
    if run is not None:
        if action.code != "expired":
            run.expired = 0
        run.last = position
        run.digest = _hash(run.digest, f"{action.id} {action.status} {action.intent.arguments_digest} {detail}")
        if _final(action):
            _settle_call(state, action, position)
    if not state.keep:
        action.votes = {}
        if action.status != "failed":
            action.intent = msgspec.structs.replace(action.intent, arguments={}, reasoning="", pins=())
        if len(state.actions) - len(state.open_actions) > 2 * SETTLED_KEPT:
            old = [
                key
                for key, one in state.actions.items()
                if key not in state.open_actions and not _awaited(state, one)
            ]
            for key in old[:SETTLED_KEPT]:
                del state.actions[key]


def _awaited(state: State, action: Action) -> bool:
    """Whether a driver has yet to try a settled action again, or to give it up."""
    run = state.runs.get(action.intent.run)
    if run is None or action.intent.inference != run.inference:
        return False
    call = run.calls.get(action.intent.call)
    return call is not None and not call.settled_at and call.action == action.id


def _final(action: Action) -> bool:
    """Whether the model may be shown this end of the call.

    Not what certainly did not happen because of a crash, an undo or a changed policy: the driver tries it again
    (or gives it up by a ``Recovery``). Not a released answer either: its ``Output`` ends the turn.
    """
    return not retriable(action) and not (action.intent.tool == ANSWER and action.status == "executed")


def retriable(action: Action) -> bool:
    """Whether the driver itself tries the action again, as a new intent, without asking the model."""
    if action.status == "undone":
        return True
    if action.status == "failed":
        return action.retry_at_ms > 0 or (action.error is not None and action.error.kind == "not_happened")
    return action.status == "rejected" and action.code in RETRIED_CODES


def _settle_call(state: State, action: Action, position: int) -> None:
    run = state.runs.get(action.intent.run)
    if run is None or action.intent.inference != run.inference:
        return
    call = run.calls.get(action.intent.call)
    if call is not None and not call.settled_at and call.action == action.id:
        call.settled_at = position
        _close_turn(run)


def _close_turn(run: RunState) -> None:
    """When every call of the turn is settled: the turn's results join the context in call order, then the inbox."""
    if run.waiting_calls:
        return
    settled = [call.settled_at for _, call in sorted(run.calls.items()) if call.settled_at != run.inference]
    run.context.extend(settled)
    run.context.extend(run.inbox)
    run.inbox = []


def _hash(first: str, second: str) -> str:
    return hashlib.sha256(f"{first}\n{second}".encode()).hexdigest()


_HANDLERS: dict[str, Callable[[State, Entry, Any], str]] = {
    "Run": _run,
    "Input": _input,
    "Inference": _inference,
    "Compaction": _compaction,
    "Intent": _intent,
    "Vote": _vote,
    "Commit": _commit,
    "Abort": _abort,
    "Expiry": _expiry,
    "Cancel": _cancel,
    "Started": _started,
    "Result": _result,
    "Undone": _undone,
    "Output": _output,
    "Recovery": _recovery,
    "Finding": _finding,
    "Policy": _policy,
    "Control": _control,
    "Fence": _fence,
    "Claim": _claim,
    "Heartbeat": _heartbeat,
    "Checkpoint": _checkpoint,
    "Seal": _seal,
}
