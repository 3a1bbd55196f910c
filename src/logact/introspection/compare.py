"""Two runs side by side, of one log or of two: what each did, what it used, how long it took, what came of it."""

from __future__ import annotations

import difflib

import msgspec

from logact import codec
from logact.core.settling import ANSWER
from logact.core.state import Action
from logact.entry import Output
from logact.errors import UsageError
from logact.introspection.history import history
from logact.introspection.profile import RunProfile
from logact.introspection.profiler import Profiler
from logact.logs.base import SharedLog

ANSWER_CHARS = 2000


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run in numbers. Times in ms; ``usd`` is None where a price is missing; ``ok`` None: it has no end yet.

    ``trimmed``: what it did before this position was trimmed, so steps (or the answer) are missing; 0: it is whole.
    """

    log: str
    run: int
    agent: str
    title: str
    status: str
    ok: bool | None
    answer: str = ""
    turns: int = 0
    actions: int = 0
    done: int = 0
    failed: int = 0
    rejected: int = 0
    retries: int = 0
    tokens: int = 0
    wasted_tokens: int = 0
    usd: float | None = None
    model_ms: float = 0.0
    tools_ms: float = 0.0
    votes_ms: float = 0.0
    whole_ms: int = 0
    trimmed: int = 0


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the two side by side: the same call in both, or in one of them (position 0 in the other)."""

    tool: str
    arguments: str
    a: int = 0
    b: int = 0
    a_status: str = ""
    b_status: str = ""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison. ``same_actions``: both made the same calls in the same order, and they ended alike.

    Of a run whose beginning was trimmed that is not known, and neither is said to be the same.
    """

    a: Figures
    b: Figures
    pairs: tuple[Pair, ...]
    same_actions: bool
    same_answer: bool


async def compare(
    a: SharedLog,
    b: SharedLog,
    *,
    a_run: int = 0,
    b_run: int = 0,
    a_upto: int | None = None,
    b_upto: int | None = None,
) -> Compared:
    """Compare two runs (0: the last of its log). Raises UsageError if there is none, and what reading raises."""
    one, first = await _side(a, a_run, a_upto)
    two, second = await _side(b, b_run, b_upto)
    pairs = _aligned(first, second)
    known = not (one.trimmed or two.trimmed)
    return Compared(
        a=one,
        b=two,
        pairs=tuple(pairs),
        same_actions=known and all(pair.a and pair.b and pair.a_status == pair.b_status for pair in pairs),
        same_answer=known and one.answer == two.answer and one.ok == two.ok,
    )


async def _side(log: SharedLog, run: int, upto: int | None) -> tuple[Figures, list[Action]]:
    profiler = Profiler(log)
    told = await history(log, upto, observer=profiler.observe, restore=profiler.restore)
    runs = profiler.profile.runs
    chosen = run or max(told.state.runs, default=0)
    known = runs.get(chosen)
    if known is None and chosen in told.state.runs:
        raise UsageError(
            "Of this run nothing is known that could be compared",
            received=f"run {chosen}, which began before position {told.began}; what stood there was trimmed",
            expected=", ".join(map(str, runs)) or "a run that began later",
            todo="compare it in the archive that the trim made",
        )
    if known is None:
        raise UsageError(
            "There is no such run to compare",
            received=str(run) if run else "a log without runs",
            expected=", ".join(map(str, runs)) or "a run",
            todo="see `logact state`",
        )
    state = told.state.runs[chosen]
    answer = await _answer(log, state.output) if state.output >= max(1, told.began) else ""
    actions = [
        one for _, one in sorted(told.state.actions.items()) if one.intent.run == chosen and one.intent.tool != ANSWER
    ]
    figures = _figures(told.state.log, known, state.status, state.ok if state.output else None, answer)
    gone = known.actions > len(actions) or profiler.profile.since > chosen or 0 < state.output < told.began
    return msgspec.structs.replace(figures, trimmed=told.began if gone else 0), actions


async def _answer(log: SharedLog, position: int) -> str:
    output = (await log.get(position)).payload
    if not isinstance(output, Output):
        return ""
    return (output.text or msgspec.json.encode(output.value).decode())[:ANSWER_CHARS]


def _figures(log: str, run: RunProfile, status: str, ok: bool | None, answer: str) -> Figures:
    priced = bool(run.model.count) and run.priced
    return Figures(
        log=log,
        run=run.id,
        agent=run.agent,
        title=run.title,
        status=status,
        ok=ok,
        answer=answer,
        turns=run.turns,
        actions=run.actions,
        done=run.done,
        failed=run.failed,
        rejected=run.rejected,
        retries=run.retries,
        tokens=run.tokens,
        wasted_tokens=run.wasted_tokens,
        usd=run.model.cost_usd + run.side_usd if priced else None,
        model_ms=run.model.ms,
        tools_ms=run.tool_ms,
        votes_ms=run.wait_ms,
        whole_ms=max(0, run.last_ms - run.started_ms),
    )


def _key(action: Action) -> str:
    digest = action.intent.arguments_digest or codec.digest_of(action.intent.arguments)
    return f"{action.intent.tool} {digest}"


def _aligned(first: list[Action], second: list[Action]) -> list[Pair]:
    """The two sequences of calls, the longest common parts side by side."""
    keys = [[_key(one) for one in side] for side in (first, second)]
    matcher = difflib.SequenceMatcher(a=keys[0], b=keys[1], autojunk=False)
    pairs = []
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        if tag == "equal":
            both = zip(first[a_from:a_to], second[b_from:b_to], strict=True)
            pairs += [_pair(one, two) for one, two in both]
            continue
        pairs += [_pair(one, None) for one in first[a_from:a_to]]
        pairs += [_pair(None, two) for two in second[b_from:b_to]]
    return pairs


def _pair(one: Action | None, two: Action | None) -> Pair:
    known = one or two
    intent = known.intent if known is not None else None
    return Pair(
        tool=intent.tool if intent is not None else "",
        arguments=msgspec.json.encode(intent.arguments).decode()[:200] if intent is not None else "",
        a=one.id if one is not None else 0,
        b=two.id if two is not None else 0,
        a_status=one.status if one is not None else "",
        b_status=two.status if two is not None else "",
    )
