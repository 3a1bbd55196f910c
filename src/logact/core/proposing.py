"""What runs, inputs, answers of the model, compactions and intents mean, and when they take no effect. Pure."""

from __future__ import annotations

from logact.core.claiming import no_work
from logact.core.holes import run_of, stop, tear
from logact.core.settling import chained, close_turn, mark, may_repeat, scopes_of
from logact.core.state import Action, CallState, RunState, State
from logact.core.watching import begin_anew
from logact.entry import Compaction, Entry, Inference, Input, Intent, Run

RUNS_KEPT = 1000


def on_run(state: State, entry: Entry, run: Run) -> str:
    held = state.control_over(run.agent)
    if held.startswith("stopped") and not state.lost:
        return f"{held}: no new run"
    if why := no_work(state, entry, run.agent, run.parent):
        return why
    state.runs[entry.position] = RunState(
        id=entry.position,
        agent=run.agent,
        title=run.title,
        limits=run.limits,
        dry_run=run.dry_run,
        parent=run.parent,
        life=entry.author.incarnation if run.ends_with_life else "",
        started_ms=entry.time_ms,
        digest=chained("", f"run {run.agent}"),
    )
    if state.lost or state.torn(run.parent):  # the fence, policy or claim that it begins under may be gone
        tear(state, state.runs[entry.position], entry.position)
    if not state.keep and len(state.runs) > RUNS_KEPT:
        for key, old in state.runs.items():
            if old.status != "running":
                del state.runs[key]
                state.scopes.pop(f"run:{key}", None)
                break
    return ""


def on_input(state: State, entry: Entry, given: Input) -> str:
    run = run_of(state, entry, given.run)
    if run is None:
        return f"there is no run {given.run}"
    if run.status == "stopped" and not run.hole:
        return f"run {given.run} was stopped"
    player, plan = state.agents.get(run.agent), state.runs.get(run.parent)
    own_word = player is not None and player.holder == entry.author.incarnation
    if own_word and run.status != "running" and plan is not None and plan.status == "running":
        why = no_work(state, entry, run.agent, run.parent)  # others may say more, and all may once the plan is over
        if why:
            return why
    run.status = "running"
    run.rejected = {}
    run.expired = 0
    begin_anew(run)
    if run.hole:
        stop(run)
    if run.is_waiting and not run.hole:
        run.inbox.append(entry.position)  # a provider wants tool results right after the calls
    else:
        run.context.append(entry.position)
    return ""


def on_inference(state: State, entry: Entry, inference: Inference) -> str:
    run = run_of(state, entry, inference.run)
    if run is None:
        return f"there is no run {inference.run}"
    why = _turn_problem(run, inference) if not run.hole else ""
    if why:
        return why
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
    if not run.waiting_calls:
        run.idle += 1  # a turn of broken calls brings nothing new
    close_turn(run)
    return ""


def _turn_problem(run: RunState, inference: Inference) -> str:
    if run.status != "running":
        return f"run {run.id} is {run.status}"
    if inference.turn != run.turn + 1:
        return f"run {run.id} is at turn {run.turn}, so turn {inference.turn} is not the next"
    return f"calls of turn {run.turn} are not settled" if run.is_waiting else ""


def _unseen(run: RunState, inference: Inference) -> list[int]:
    """Inputs that came while the model was thinking: they are not answered yet, so they come after its answer."""
    seen = (inference.base, *inference.context)
    places = [place for place, position in enumerate(run.context) if position in seen]
    if not places:
        return []  # it does not say what it saw, or a compaction came in between
    return run.context[places[-1] + 1 :]


def on_compaction(state: State, entry: Entry, compaction: Compaction) -> str:
    run = state.runs.get(compaction.run)
    if run is None:
        return f"there is no run {compaction.run}"
    if run.is_waiting:
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


def on_intent(state: State, entry: Entry, intent: Intent) -> str:
    run = run_of(state, entry, intent.run)
    if run is None:
        return f"there is no run {intent.run}"
    if run.agent != intent.agent:
        return f"run {run.id} belongs to agent {run.agent!r}, not to {intent.agent!r}"
    why = "" if run.hole else _intent_problem(state, run, intent)
    if not why and intent.undoes and not run.hole:
        why = _undo_problem(state, intent)
    if why:
        return why
    call = run.calls.get(intent.call) if intent.inference and intent.inference == run.inference else None
    scopes = scopes_of(intent)
    before = state.actions.get(intent.retry_of) if intent.retry_of else None
    if before is not None:
        before.retried_by = entry.position
    if intent.undoes:
        state.undoing[intent.undoes] = entry.position
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
        action.waited = before.waited + before.shut
        action.first_ms = before.first_ms or before.proposed_ms
        # what may have happened must look the same to the outside world; what certainly did not is a new request
        maybe = before.key_of or (before.id if before.happened is None else 0)
        action.key_of = 0 if before.status == "undone" else maybe
    state.actions[action.id] = action
    state.open_actions[action.id] = None
    run.actions += 1
    if call is not None:
        call.action = action.id
    mark(state, action, entry.position)
    return ""


def _intent_problem(state: State, run: RunState, intent: Intent) -> str:
    held = state.control_over(intent.agent, intent.run)
    if held.startswith("stopped"):
        return held
    if run.status == "stopped" or (run.status == "finished" and intent.inference):
        return f"run {run.id} is {run.status}"
    if intent.inference:
        if intent.inference != run.inference or intent.call not in run.calls:
            return f"call {intent.call} of inference {intent.inference} is not open"
        call = run.calls[intent.call]
        if call.settled_at:
            return f"call {intent.call} of inference {intent.inference} is settled"
        if call.action and call.action != intent.retry_of:
            return f"call {intent.call} of inference {intent.inference} is action {call.action} already"
    return _retry_problem(state, intent) if intent.retry_of else ""


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
    if before.conflict:
        return f"a late result says that action {before.id} did happen, so it is not tried again"
    if before.status == "rejected" and not before.attempts:
        return ""
    if before.status not in ("failed", "undone"):
        return f"action {before.id} is {before.status}, not failed"
    if may_repeat(before) or before.status == "undone":
        return ""
    return f"action {before.id} ({before.intent.effect}) may have happened, so it is not tried again"


def _undo_problem(state: State, intent: Intent) -> str:
    """Why an intent may not undo what it names. What the fold has let go is for whoever proposes it to know."""
    if intent.undoes in state.undoing:
        return f"action {intent.undoes} is being undone already, by {state.undoing[intent.undoes]}"
    if intent.undoes in state.undone:
        return f"action {intent.undoes} was undone already"
    target = state.actions.get(intent.undoes)
    if target is not None and state.torn(target.intent.run):
        return ""  # that it was done may be gone; whoever proposed it knew
    if target is None:
        return "" if 0 < intent.undoes < state.position else f"there is no action {intent.undoes} to undo"
    if target.intent.agent != intent.agent or target.intent.tool != intent.tool:
        return f"the undo of action {target.id} must be of its agent and tool"
    if target.intent.arguments_digest != intent.arguments_digest:
        return f"the undo of action {target.id} must have its arguments"
    if target.status != "executed" or not target.intent.undo:
        return f"action {target.id} is {target.status}" + ("" if target.intent.undo else ", and declared no undo")
    return ""
