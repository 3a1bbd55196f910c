"""The fold of what introspection counts: ``observe(profile, state, entry)`` after each entry that was applied.

It is an observer of the ordinary fold, so it needs no second reading of the log. It reads no clock and does no I/O;
entries that took no effect are counted as entries and change nothing else. Numbers in, numbers out: what they mean
(is this slow? is this a loop?) is for ``signals`` and ``performance`` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import (
    Abort,
    Commit,
    Compaction,
    Control,
    Entry,
    Expiry,
    Finding,
    Inference,
    Input,
    Intent,
    Notice,
    Output,
    Recovery,
    Result,
    Run,
    Started,
    Vote,
)
from logact.introspection import profile_actions as actions
from logact.introspection.profile import (
    NAMES_KEPT,
    POSITIONS_KEPT,
    RUNS_DETAILED,
    TOPIC_KEPT,
    TURNS_KEPT,
    Profile,
    RunProfile,
)
from logact.introspection.profile_sums import aside, let_go, named, of, top, used

IMPORTED = "imported"
"""The code of the notice that says that what follows was recorded elsewhere."""


def observe(profile: Profile, state: State, entry: Entry) -> None:
    """Count one entry, after the fold applied it."""
    if entry.position <= profile.position:
        return
    profile.position = entry.position
    profile.entries += 1
    profile.first_ms = profile.first_ms or entry.time_ms
    profile.last_ms = entry.time_ms
    if state.verdict:
        return
    handler = _HANDLERS.get(entry.kind)
    if handler is not None and isinstance(entry.payload, handler[0]):
        handler[1](profile, state, entry, entry.payload)


# --- runs -------------------------------------------------------------------------------------------------------


def _run(profile: Profile, state: State, entry: Entry, run: Run) -> None:
    profile.runs[entry.position] = RunProfile(
        id=entry.position,
        agent=run.agent,
        title=run.title[:200],
        imported=run.agent in profile.imported,
        started_ms=entry.time_ms,
        last_ms=entry.time_ms,
        progress_ms=entry.time_ms,
        progress=entry.position,
        topic=[run.title[:400]] if run.title else [],
    )
    if len(profile.runs) > RUNS_DETAILED:
        let_go(profile)


def _input(profile: Profile, state: State, entry: Entry, given: Input) -> None:
    run = of(profile, given.run, entry)
    if run is None:
        return
    run.status = "running"
    run.progress_ms, run.progress = entry.time_ms, entry.position
    if given.text[:400] not in run.topic:
        run.topic = [*run.topic, given.text[:400]][-TOPIC_KEPT:]


def _output(profile: Profile, state: State, entry: Entry, output: Output) -> None:
    run = of(profile, output.run, entry)
    if run is None:
        return
    run.turn_useful = True
    _close_turn(run)
    known = state.runs.get(output.run)
    run.status = known.status if known is not None else "finished"
    run.ok = output.ok
    run.progress_ms, run.progress = entry.time_ms, entry.position


def _control(profile: Profile, state: State, entry: Entry, control: Control) -> None:
    if control.verb != "stop":
        return
    for run in profile.runs.values():
        known = state.runs.get(run.id)
        if known is not None and known.status == "stopped":
            run.status, run.ok = "stopped", False


# --- the model --------------------------------------------------------------------------------------------------


def _inference(profile: Profile, state: State, entry: Entry, said: Inference) -> None:
    name = said.model or "(unnamed)"
    usage = said.usage
    used(named(profile.models, name), usage, said.latency_ms, entry.position)
    if entry.agent:
        used(named(profile.agents, entry.agent), usage, said.latency_ms, entry.position)
    turns = profile.turns_by_model.setdefault(name, {}) if len(profile.turns_by_model) < NAMES_KEPT else {}
    kind = ",".join(sorted({call.tool for call in said.calls})) or ANSWER
    if kind in turns or len(turns) < NAMES_KEPT:
        turns[kind] = turns.get(kind, 0) + 1
    tokens = usage.input_tokens + usage.output_tokens
    top(profile.dearest, usage.cost_usd if usage.cost_usd is not None else tokens / 1e9, entry.position, name)
    top(profile.slowest, said.latency_ms, entry.position, f"model {name}")
    run = of(profile, said.run, entry)
    if run is None:
        return
    _close_turn(run)
    used(run.model, usage, said.latency_ms, entry.position)
    run.turns += 1
    run.context_first = run.context_first or usage.input_tokens
    run.contexts.append(usage.input_tokens)
    run.contexts_at.append(entry.position)
    del run.contexts[:-TURNS_KEPT], run.contexts_at[:-TURNS_KEPT]
    run.turn_at, run.turn_tokens, run.turn_usd = entry.position, tokens, usage.cost_usd or 0.0
    run.turn_useful = not said.calls  # an answer; it may still be refused
    run.turn_tools = [call.tool for call in said.calls]


def _close_turn(run: RunProfile) -> None:
    """The turn is over: if nothing of it settled anything new, what it cost was wasted."""
    if run.turn_at and not run.turn_useful:
        run.wasted_tokens += run.turn_tokens
        run.wasted_usd += run.turn_usd
        run.wasted_at = [*run.wasted_at, run.turn_at][-POSITIONS_KEPT:]
    run.turn_at = 0


def _compaction(profile: Profile, state: State, entry: Entry, done: Compaction) -> None:
    run = of(profile, done.run, entry)
    used(named(profile.models, done.model or "(unnamed)"), done.usage)
    if run is not None:
        run.compactions += 1
        aside(run, done.usage)


def _finding(profile: Profile, state: State, entry: Entry, found: Finding) -> None:
    profile.findings[found.code] = profile.findings.get(found.code, 0) + 1
    if found.usage is not None:
        used(named(profile.models, found.model or "(introspection)"), found.usage)


def _notice(profile: Profile, state: State, entry: Entry, notice: Notice) -> None:
    if notice.code == IMPORTED and notice.agent:
        profile.imported[notice.agent] = str(notice.data.get("format", ""))


_HANDLERS: dict[str, tuple[type, Callable[[Profile, State, Entry, Any], None]]] = {
    "Run": (Run, _run),
    "Input": (Input, _input),
    "Inference": (Inference, _inference),
    "Compaction": (Compaction, _compaction),
    "Intent": (Intent, actions.on_intent),
    "Vote": (Vote, actions.on_vote),
    "Commit": (Commit, actions.on_commit),
    "Abort": (Abort, actions.on_abort),
    "Expiry": (Expiry, actions.on_expiry),
    "Started": (Started, actions.on_started),
    "Result": (Result, actions.on_result),
    "Recovery": (Recovery, actions.on_recovery),
    "Output": (Output, _output),
    "Control": (Control, _control),
    "Finding": (Finding, _finding),
    "Notice": (Notice, _notice),
}
