"""What claims of a run's sub-tasks mean: who holds one, who loses it, and what completes it for ever. Pure.

The fold reads no clock, so a lease ends by an entry: whoever sees that a holder is gone writes a lapse, which names
the position of the claim that it ends. A renewal moves that position, so a lapse that came too late is void. Memory
is bounded by the run: its tasks are forgotten with it, and nobody can claim a task of a run that is not there.
"""

from __future__ import annotations

from logact.core.settling import give_up, reject
from logact.core.state import Held, RunState, State
from logact.entry import Claim, Entry

TASKS_MAX = 10_000
"""How many tasks of one run may have been claimed."""


def on_task_claim(state: State, entry: Entry, claim: Claim) -> str:
    """A claim, a renewal, a release or a lapse. Returns why it takes no effect ("" if it does)."""
    run = state.runs.get(claim.run)
    if run is None:
        return f"there is no run {claim.run}"
    if run.status != "running" and not run.hole:
        return f"run {run.id} is {run.status}: its tasks are closed"
    if claim.task in run.done:
        return f"task {claim.task!r} is done since position {run.done[claim.task]}"
    held = run.held.get(claim.task)
    if claim.lapses:
        return _lapse(state, entry, run, held, claim)
    if claim.release:
        return _release(state, entry, run, held, claim)
    player = state.agents.get(claim.agent)
    if player is not None and player.holder not in ("", entry.author.incarnation):
        return f"agent {claim.agent!r} is played by another incarnation"
    if held is not None and held.agent != claim.agent:
        return f"task {claim.task!r} is held by {held.agent!r}"
    if claim.task not in run.lives and len(run.lives) + len(run.done) >= TASKS_MAX:
        return f"run {run.id} has {TASKS_MAX} tasks already"
    if held is None or held.incarnation != entry.author.incarnation:
        run.lives[claim.task] = run.lives.get(claim.task, 0) + 1
    run.held[claim.task] = Held(claim.agent, entry.author.incarnation, entry.position, claim.lease_ms)
    run.claimed = True
    return ""


def no_work(state: State, entry: Entry, agent: str, parent: int) -> str:
    """Why an agent's process begins no work for another run whose tasks are claimed ("" if it may): it holds none.

    A process that sleeps between its claim and its work wakes up after the claim has lapsed, or the plan is over.
    """
    run = state.runs.get(parent)
    if run is None or not run.claimed or run.hole or state.lost:
        return ""  # with a hole, the claim may be gone
    writer = entry.author.incarnation
    if any((held.agent, held.incarnation) == (agent, writer) for held in run.held.values()):
        return ""
    return f"agent {agent!r} holds no task of run {parent} (any more)"


def _release(state: State, entry: Entry, run: RunState, held: Held | None, claim: Claim) -> str:
    if held is None or held.agent != claim.agent or held.incarnation != entry.author.incarnation:
        return f"task {claim.task!r} is not held by {claim.agent!r} in this life"
    if claim.result:
        worked = next((one for one in reversed(state.runs.values()) if one.output == claim.result), None)
        if worked is None or worked.agent != claim.agent or worked.parent != run.id:
            return f"position {claim.result} is no output of {claim.agent!r} for a task of run {run.id}"
        if not worked.ok and not worked.hole:
            return f"the output at {claim.result} says that the work failed"
        if claim.result in run.done.values():
            return f"the output at {claim.result} completed another task"
        run.done[claim.task] = claim.result
        run.lives.pop(claim.task, None)
    elif unsettled := unrepeatable(state, run, held.agent):
        return f"action {unsettled} of {held.agent!r} must not happen twice, and is not settled"
    del run.held[claim.task]
    return ""


def _lapse(state: State, entry: Entry, run: RunState, held: Held | None, claim: Claim) -> str:
    """The claim at one position ends, and the work under it: nothing of it starts any more."""
    if held is None or held.position != claim.lapses:
        return f"the claim at {claim.lapses} does not hold task {claim.task!r} (any more)"
    unsettled = unrepeatable(state, run, held.agent)
    if unsettled:
        return f"action {unsettled} of {held.agent!r} must not happen twice, and is not settled"
    del run.held[claim.task]
    if any(one.agent == held.agent for one in run.held.values()):
        return ""  # it may be at work for another task, and its runs do not say for which
    works = [one for one in state.runs.values() if working_for(one, run, held.agent)]
    for one in works:
        one.status, one.ok = "stopped", False
    stopped = [one.id for one in works]
    for key in list(state.open_actions):
        action = state.actions[key]
        if action.intent.run not in stopped:
            continue
        if action.status in ("proposed", "validated"):
            reject(state, entry, key, "cancelled", "the claim of its task lapsed", started_too=True)
        elif action.restart_allowed:
            give_up(state, entry, action, "the claim of its task lapsed")
    return ""


def working_for(one: RunState, run: RunState, agent: str) -> bool:
    """Whether a run is an agent's work, under way, for a task of another run."""
    return one.status == "running" and one.parent == run.id and one.agent == agent


def unrepeatable(state: State, run: RunState, agent: str) -> int:
    """An action of an agent's work for a run's task that may have happened, must not happen twice, and of which
    nobody has said what became of it (0: none). Whoever took the task up now might do it again."""
    for action in state.unfinished():
        work = state.runs.get(action.intent.run)
        if work is None or work.parent != run.id or action.intent.agent != agent:
            continue
        if action.intent.effect not in ("read", "idempotent"):
            return action.id
    return 0
