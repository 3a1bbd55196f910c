"""What cancels, controls, policies, fences, claims and heartbeats mean, and when they take no effect. Pure."""

from __future__ import annotations

from logact.core import voting
from logact.core.claiming import on_task_claim
from logact.core.forking import raised
from logact.core.settling import give_up, reject, retriable, settle_call
from logact.core.state import AgentState, RunState, State
from logact.core.watching import begin_anew
from logact.entry import Cancel, Claim, Control, Entry, Fence, Heartbeat, Policy


def on_cancel(state: State, entry: Entry, cancel: Cancel) -> str:
    if not cancel.scope:
        action = state.actions.get(cancel.intent)
        if action is not None and action.restart_allowed:
            give_up(state, entry, action, cancel.reason or "cancelled")
            return ""
        if action is not None and action.status in ("executing", "in_doubt"):
            action.cancel_wanted = True  # it may be too late; the executor tries, the result says what became of it
            return ""
        if action is not None and not action.is_open and retriable(action) and not action.retried_by:
            action.cancel_wanted, action.reason = True, cancel.reason or "cancelled before it was tried again"
            if action.status == "failed":
                action.status = "failed_final"
            settle_call(state, action, entry.position)
            return ""
        return reject(state, entry, cancel.intent, "cancelled", cancel.reason or "cancelled", started_too=True)
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
            reject(state, entry, key, code, reason or f"{code} ({scope})", started_too=True)
        elif action.restart_allowed:
            give_up(state, entry, action, reason or f"{code} ({scope})")
        elif code == "cancelled":
            action.cancel_wanted = True
    for run in state.runs.values():
        if run.status == "running" and scope in control_scopes(run.agent, run.id, 0)[:3]:
            run.status, run.ok = "stopped", False


def control_scopes(agent: str, run: int, action: int) -> tuple[str, str, str, str]:
    """The scopes whose control entries concern an action."""
    return ("log", f"agent:{agent}", f"run:{run}", f"action:{action}")


def scope_problem(scope: str) -> str:
    """What is wrong with a control scope ("" if nothing)."""
    kind, _, rest = scope.partition(":")
    if kind not in ("log", "agent", "run", "action", "supervisor") or (kind == "log") == bool(rest):
        return f"{scope!r} is no scope; expected log, agent:NAME, run:POSITION, action:POSITION or supervisor:AGENT"
    return ""


def on_control(state: State, entry: Entry, control: Control) -> str:
    problem = scope_problem(control.scope)
    if not problem and control.verb != "resume":
        problem = _ended_problem(state, control.scope)
    if problem:
        return problem
    if control.verb == "pause":
        if control.scope in state.paused:
            return f"{control.scope} is paused already"
        state.paused[control.scope] = entry.position
        state.paused_why.pop(control.scope, None)
        if control.reason:
            state.paused_why[control.scope] = control.reason
        return ""
    if control.verb == "resume":
        done = _about_budgets(state, control)
        if done is not None:
            return done
        state.paused_why.pop(control.scope, None)
        gone = state.paused.pop(control.scope, 0) or state.stopped.pop(control.scope, 0)
        if not gone:
            return f"{control.scope} is neither paused nor stopped"
        for run in state.runs.values():
            if run.status == "running" and control.scope in control_scopes(run.agent, run.id, 0)[:3]:
                begin_anew(run)
        return ""
    state.stopped[control.scope] = entry.position
    _stop_runs(state, entry, control.scope, "stopped", control.reason)
    return ""


def _about_budgets(state: State, control: Control) -> str | None:
    """What a resume about budgets comes to: why it takes no effect, "" if it did all that it says, else None."""
    if control.budgets:
        if control.scope != "log" or not state.budgets_at:
            return (
                "the budgets of voters did not go to another log" if control.scope == "log" else "they are the log's"
            )
        state.budgets_at, state.budgets_in = 0, ""
        return "" if "log" not in state.paused and "log" not in state.stopped else None
    kind, _, number = control.scope.partition(":")
    run = state.runs.get(int(number)) if kind == "run" and number.isdecimal() else None
    if control.limits is not None:
        if run is None:
            return f"{control.scope} is no run that the log knows"
        run.limits, run.moved = raised(run, control.limits), ""
        begin_anew(run)
        return "" if control.scope not in state.paused and control.scope not in state.stopped else None
    if run is not None and run.moved:
        return f"what run {run.id} may still use is in log {run.moved}: say what it may use here in all (--limit)"
    return None


def _ended_problem(state: State, scope: str) -> str:
    """Why an action cannot be held back any more ("" if it can, or it is no action that the fold holds)."""
    kind, _, number = scope.partition(":")
    action = state.actions.get(int(number)) if kind == "action" and number.isdecimal() else None
    return f"action {action.id} has ended: it is {action.status}" if action is not None and not action.is_open else ""


def on_policy(state: State, entry: Entry, policy: Policy) -> str:
    now = state.policies.get(state.policy_at.get(policy.agent, 0))
    in_force = now.version if now is not None else 0
    if policy.expected != in_force and not state.lost:  # policies may be gone
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


def on_fence(state: State, entry: Entry, fence: Fence) -> str:
    held = state.agents.get(fence.agent)
    epoch = held.epoch if held is not None else 0
    if fence.epoch != epoch + 1 and not (state.lost and fence.epoch > epoch):  # fences may be gone
        return f"the epoch of agent {fence.agent!r} is {epoch}, so {fence.epoch} is not the next"
    state.agents[fence.agent] = AgentState(fence.epoch, fence.holder, entry.position)
    for key in state.open_actions:
        action = state.actions[key]
        if action.intent.agent == fence.agent and action.status == "executing" and not action.restart_allowed:
            action.status = "in_doubt"
            action.reason = f"its executor was fenced off in epoch {fence.epoch}"
    for run in state.runs.values():
        if run.agent == fence.agent and run.life != fence.holder:
            _end_with_life(run, ok=False)
    return ""


def on_claim(state: State, entry: Entry, claim: Claim) -> str:
    if claim.run:
        return on_task_claim(state, entry, claim)
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


def on_heartbeat(state: State, entry: Entry, beat: Heartbeat) -> str:
    life = state.incarnations.get(entry.author.incarnation)
    if life is None:
        return "the beginning of its record is missing"
    life.agent = beat.agent or life.agent
    if beat.host and life.birth is None:
        life.birth = beat
    life.left = life.left or beat.leaving
    for run in state.runs.values() if beat.leaving else ():
        if run.life == entry.author.incarnation:
            _end_with_life(run, ok=True)
    return ""


def _end_with_life(run: RunState, *, ok: bool) -> None:
    """End a run that has no answer of its own. What of it is unfinished is settled all the same."""
    if run.life and run.status == "running":
        run.status, run.ok = "finished", ok
