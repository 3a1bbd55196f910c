"""What a driver does next with a run: ask the model, propose a call, wait, or stop. Pure; time is an argument."""

from __future__ import annotations

from typing import Literal, NamedTuple

from logact.core.recovering import RETRIES_MAX
from logact.core.settling import ANSWER, retriable
from logact.core.state import Action, RunState, State

EXPIRED_MAX = 8
"""How many actions may expire one after the other before the run is ended, instead of asking the model for ever."""

SHUT = "the environment of its tool is gone"

STUBBORN_MAX = 6
"""A run whose model has proposed one rejected action so often is concluded."""


class Step(NamedTuple):
    """The driver's next step.

    ``infer``: ask the model. ``compact``: shorten the context first. ``propose``: append the intent of ``call``
    (``retry_of`` an earlier action, or 0). ``give_up``: close ``retry_of``, which was tried too often.
    ``conclude``: a limit was reached, answer with its reason. ``wait``: for the entries of others, and where
    ``until_ms`` is set until that time. ``cut``: the run's time is over, so take back what is open of it. ``done``.
    """

    verb: Literal["infer", "compact", "propose", "give_up", "conclude", "wait", "cut", "done"]
    call: int = 0
    retry_of: int = 0
    reason: str = ""
    until_ms: int = 0


def next_step(
    state: State,
    run: RunState,
    now_ms: int,
    *,
    context_tokens_max: int = 0,
    answer_calls: frozenset[int] = frozenset(),
    rested: frozenset[int] = frozenset(),
    riding: frozenset[int] = frozenset(),
    shut: frozenset[int] = frozenset(),
    let_go: bool = False,
) -> Step:
    """The next step of a run. ``answer_calls`` are the calls of the present turn that are answers: they come last.

    The calls of a turn run one after the other, in every form: a call may count on what the one before it did.
    ``riding`` are actions that ran, and whose results go with the next record.

    ``shut`` are calls whose tool's environment is gone: they wait, and so does the turn, without asking the model.

    ``rested`` are failed actions whose delay is over by another measure than the wall clock, which may jump.

    ``let_go``: the run's time is over, and what was interrupted is not waited for any longer.
    """
    if run.status != "running":
        return Step("done", reason=run.status)
    waiting = run.waiting_calls
    if not waiting:
        reason = limit_reached(run, now_ms)
        if reason:
            return Step("conclude", reason=reason)
        if context_tokens_max and run.context_tokens > context_tokens_max and len(run.context) > 3:
            return Step("compact")
        if not run.context:
            return Step("wait", reason="no input yet")
        return Step("infer")
    if overdue(run, now_ms):
        return _ending(state, run, limit_reached(run, now_ms), let_go=let_go)
    if answer_calls:
        waiting.sort(key=lambda call: (call in answer_calls, call))
    for index in waiting:
        call = run.calls[index]
        if not call.action:
            if index in answer_calls and any(other not in answer_calls or other < index for other in waiting):
                continue  # an answer goes out after the turn's other calls have ended, one answer after the other
            if index in shut:
                return Step("wait", call=index, reason=SHUT)
            return Step("propose", call=index)
        action = state.actions.get(call.action)
        if action is not None and not action.is_open and retriable(action):
            if action.conflict:  # doing it again could do it twice
                return Step("give_up", call=index, retry_of=action.id, reason="a late result says that it did happen")
            if action.retry_at_ms > now_ms and action.id not in rested:
                return Step("wait", reason="a failed call rests", until_ms=action.retry_at_ms)
            if index in shut:
                return Step("wait", call=index, reason=SHUT)
            if action.retry_at_ms or action.retries - action.scheduled < RETRIES_MAX:
                return Step("propose", call=index, retry_of=action.id)
            return Step("give_up", call=index, retry_of=action.id, reason=f"tried {action.retries + 1} times")
        if call.action not in riding:
            return Step("wait", reason="an earlier call is not settled")
    return Step("wait", reason="calls are not settled")


def resting(state: State, run: RunState) -> list[Action]:
    """Failed actions of the present turn that wait for their next try."""
    latest = (state.actions.get(run.calls[index].action) for index in run.waiting_calls)
    return [one for one in latest if one is not None and one.status == "failed" and one.retry_at_ms]


def seconds_left(run: RunState, now_ms: int) -> float | None:
    """How long the run may still take by its limit of seconds; None without one."""
    if not run.limits.seconds:
        return None
    return max(0.0, run.limits.seconds - (now_ms - run.started_ms) / 1000)


def lasts_s(run: RunState | None, now_ms: int) -> float:
    """How long what belongs to a run may still take: for ever, where it has no limit of seconds or is over."""
    left_s = seconds_left(run, now_ms) if run is not None and run.status == "running" else None
    return float("inf") if left_s is None else left_s


def overdue(run: RunState, now_ms: int) -> bool:
    """Whether the run's own time is over."""
    return seconds_left(run, now_ms) == 0.0


def _ending(state: State, run: RunState, reason: str, *, let_go: bool) -> Step:
    """A run's time is over in the middle of a turn: nothing more begins, what runs is interrupted, then it ends.

    An answer that is being judged ends the run anyway, so it may have its votes.
    """
    mine = [one for one in map(state.actions.__getitem__, state.open_actions) if one.intent.run == run.id]
    if any(one.intent.tool == ANSWER for one in mine):
        return Step("wait", reason="its answer is being judged")
    if to_cut(state, run):
        return Step("cut", reason=reason)
    if not mine or let_go:
        return Step("conclude", reason=reason)
    return Step("wait", reason="what was interrupted is not settled")


def to_cut(state: State, run: RunState) -> list[int]:
    """The actions of a run whose time is over that still have to be cancelled: open ones, and further tries."""
    found = [
        one.id
        for one in map(state.actions.__getitem__, state.open_actions)
        if one.intent.run == run.id and one.intent.tool != ANSWER and not one.cancel_wanted
    ]
    return found + [one.id for one in resting(state, run)]


def limit_reached(run: RunState, now_ms: int) -> str:
    """Which limit of the run is used up ("" if none)."""
    limits = run.limits
    if run.moved:
        return f"what it had left is in the log {run.moved}"
    if limits.turns and run.turn >= limits.turns:
        return f"the limit of {limits.turns} turns is reached"
    if limits.actions and run.actions >= limits.actions:
        return f"the limit of {limits.actions} actions is reached"
    used = run.input_tokens + run.output_tokens
    if limits.tokens and used >= limits.tokens:
        return f"the limit of {limits.tokens} tokens is reached ({used} used)"
    if limits.seconds and now_ms - run.started_ms >= limits.seconds * 1000:
        return f"the limit of {limits.seconds} seconds is reached"
    if run.rejected and max(run.rejected.values()) >= STUBBORN_MAX:
        return f"the same rejected action was proposed {STUBBORN_MAX} times"
    if run.expired >= EXPIRED_MAX:
        return f"{EXPIRED_MAX} actions in a row expired undecided: is a decider alive, and do the clocks agree?"
    return ""


def moment(state: State, run_id: int) -> tuple[int, int, int, str, int] | None:
    """What an answer of the model is for: it changes with another answer, a summary, a takeover and the run's end."""
    run = state.runs.get(run_id)
    if run is None:
        return None
    return run.turn, run.inference, run.context[0] if run.context else 0, run.status, state.epoch(run.agent)


__all__ = ["ANSWER", "SHUT", "Step", "limit_reached", "moment", "next_step", "resting", "seconds_left"]
