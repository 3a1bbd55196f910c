"""The fold of what introspection counts: ``observe(profile, state, entry)`` after each entry that was applied.

It is an observer of the ordinary fold, so it needs no second reading of the log. It reads no clock and does no I/O;
entries that took no effect are counted as entries and change nothing else. Numbers in, numbers out: what they mean
(is this slow? is this a loop?) is for ``signals`` and ``performance`` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    Spec,
    Started,
    Vote,
)
from logact.introspection import applied
from logact.introspection import profile_actions as actions
from logact.introspection import profile_turns as turns
from logact.introspection.profile import NAMES_KEPT, RUNS_DETAILED, TOPIC_KEPT, Profile, RunProfile
from logact.introspection.profile_sums import aside, let_go, named, of, sums_for, used

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
    run = profile.runs.get(entry.run)
    if run is not None:
        run.entries += 1
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
        entries=1,
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
    turns.hear(run, entry.position, turns.digest_of_input(given))
    run.progress_ms, run.progress = entry.time_ms, entry.position
    if given.text[:400] not in run.topic:
        run.topic = [*run.topic, given.text[:400]][-TOPIC_KEPT:]


def _output(profile: Profile, state: State, entry: Entry, output: Output) -> None:
    run = of(profile, output.run, entry)
    if run is None:
        return
    run.turn_useful = True
    turns.close_turn(run)
    turns.hear(run, entry.position, "answered")
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


# --- what is beside the runs ------------------------------------------------------------------------------------


def _finding(profile: Profile, state: State, entry: Entry, found: Finding) -> None:
    if found.usage is None:
        return
    run = profile.runs.get(found.run)
    used(named(sums_for(profile, run, found.agent).models, found.model or "(introspection)"), found.usage)
    if run is not None:
        aside(run, found.usage)


def _spec(profile: Profile, state: State, entry: Entry, spec: Spec) -> None:
    """What each tool takes of every request that offers it; the latest specification counts."""
    if spec.agent in profile.offered or len(profile.offered) < NAMES_KEPT:
        profile.models[spec.agent] = spec.model
        profile.offered[spec.agent] = {tool.name: turns.size_of_offer(tool) for tool in spec.tools[:NAMES_KEPT]}


def _notice(profile: Profile, state: State, entry: Entry, notice: Notice) -> None:
    if notice.code == IMPORTED and notice.agent:
        profile.imported[notice.agent] = str(notice.data.get("format", ""))
    applied.on_notice(profile, entry, notice)


_HANDLERS: dict[str, tuple[type, Callable[[Profile, State, Entry, Any], None]]] = {
    "Spec": (Spec, _spec),
    "Run": (Run, _run),
    "Input": (Input, _input),
    "Inference": (Inference, turns.on_inference),
    "Compaction": (Compaction, turns.on_compaction),
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
