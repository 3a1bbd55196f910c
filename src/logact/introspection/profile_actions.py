"""The part of the profile's fold that is about actions: proposals, votes, decisions, results, failures."""

from __future__ import annotations

from logact.core import watching
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import Abort, Commit, Entry, Expiry, Intent, Recovery, Result, Started, Vote
from logact.introspection.profile import (
    NAMES_OF_A_RUN,
    OPEN_KEPT,
    POSITIONS_KEPT,
    REPEATS_KEPT,
    RUNS_DETAILED,
    SAID_CHARS,
    STEPS_KEPT,
    Cluster,
    Open,
    Profile,
    Repeat,
    RunProfile,
    Silence,
    Step,
)
from logact.introspection.profile_sums import (
    aside,
    clustered,
    let_go,
    named,
    of,
    short_digest,
    short_text,
    size_of,
    sums_for,
    took,
    top,
    used,
)
from logact.introspection.profile_turns import hear

BYTES_PER_TOKEN = 4

_WATCHED = watching.Thresholds()


def on_intent(profile: Profile, state: State, entry: Entry, intent: Intent) -> None:
    profile.open[entry.position] = Open(entry.time_ms, intent.run, intent.agent)
    if len(profile.open) > OPEN_KEPT:
        del profile.open[next(iter(profile.open))]
    run = of(profile, intent.run, entry)
    if run is None or intent.tool == ANSWER:
        return
    run.actions += 1
    called = run.sums.called
    if intent.tool in called or len(called) < NAMES_OF_A_RUN:
        called[intent.tool] = called.get(intent.tool, 0) + 1
    call = f"{intent.tool} {intent.arguments_digest or short_digest(intent.arguments)}"
    step = Step(entry.position, intent.tool, call, intent.effect, entry.time_ms, retry_of=intent.retry_of)
    step.said = short_text(intent.arguments) if intent.arguments else ""
    run.steps.append(step)
    if len(run.steps) > STEPS_KEPT:
        del run.steps[0]
    elif len(run.steps) == 1 and len(profile.runs) > RUNS_DETAILED:
        let_go(profile)
    if intent.retry_of:
        run.retries += 1
        follows = run.chain_at[-1:] == [intent.retry_of]
        run.chain = run.chain + 1 if follows else 1
        run.chain_at = [*run.chain_at, entry.position][-POSITIONS_KEPT:] if follows else [entry.position]
        run.chain_max = max(run.chain_max, run.chain)
    repeat = run.repeats.pop(call, None) or Repeat(intent.tool, intent.effect, run=run.id)
    repeat.count += 1
    repeat.positions = [*repeat.positions, entry.position][-POSITIONS_KEPT:]
    run.repeats[call] = repeat
    if len(run.repeats) > REPEATS_KEPT:
        single = next((key for key, one in run.repeats.items() if one.count == 1), next(iter(run.repeats)))
        del run.repeats[single]


def on_vote(profile: Profile, state: State, entry: Entry, vote: Vote) -> None:
    waiting = profile.open.get(vote.intent)
    run = profile.runs.get(waiting.run) if waiting is not None else None
    agent = waiting.agent if waiting is not None else entry.agent
    sums = sums_for(profile, run, agent)
    tally = named(sums.voters, vote.voter)
    waited = float(entry.time_ms - waiting.at_ms) if waiting is not None else 0.0
    tally.count += 1
    tally.failed += vote.approved is False
    took(tally, max(vote.duration_ms, waited), vote.intent)
    hung = vote.approved is not True and " failed (it did not answer within " in vote.reason
    if hung:
        _silent(profile, agent, vote.voter, vote.intent)
    elif vote.voter in profile.silence.get(agent, {}):
        del profile.silence[agent][vote.voter]
    if waiting is not None:
        waiting.heard.append(vote.voter)
        if waited or vote.duration_ms:
            waiting.late = vote.voter
        if not waiting.decided_ms and vote.duration_ms > waited and run is not None:
            run.wait_ms += vote.duration_ms - waited
    if vote.usage is not None:
        used(named(sums.models, f"voter {vote.voter}"), vote.usage)
        tally.input_tokens += vote.usage.input_tokens
        tally.output_tokens += vote.usage.output_tokens
        tally.cost_usd += vote.usage.cost_usd or 0.0
        tally.priced += vote.usage.cost_usd is not None
        if run is not None:
            aside(run, vote.usage)


def _silent(profile: Profile, agent: str, voter: str, intent: int) -> None:
    found = profile.silence.setdefault(agent, {}).setdefault(voter, Silence())
    found.count += 1
    found.positions = [*found.positions, intent][-POSITIONS_KEPT:]


def on_commit(profile: Profile, state: State, entry: Entry, commit: Commit) -> None:
    run = _decided(profile, entry, commit.intent)
    if run is not None:
        run.streak, run.streak_at = 0, []


def _decided(profile: Profile, entry: Entry, intent: int) -> RunProfile | None:
    waiting = profile.open.get(intent)
    if waiting is None:
        return None
    waited = entry.time_ms - waiting.at_ms
    waiting.decided_ms = entry.time_ms
    run = of(profile, waiting.run, entry)
    if waiting.late and waited:
        named(sums_for(profile, run, waiting.agent).voters, waiting.late).held_ms += waited
    if run is not None:
        run.wait_ms += waited
    return run


def on_abort(profile: Profile, state: State, entry: Entry, abort: Abort) -> None:
    _rejected(profile, state, entry, abort.intent, abort.code)


def on_expiry(profile: Profile, state: State, entry: Entry, expiry: Expiry) -> None:
    waiting = profile.open.get(expiry.intent)
    marker = "; no vote came from "
    if waiting is not None and not waiting.decided_ms and marker in expiry.reason:
        for name in expiry.reason.partition(marker)[2].split(", "):
            _silent(profile, waiting.agent, name, expiry.intent)
    _rejected(profile, state, entry, expiry.intent, "expired")


def _rejected(profile: Profile, state: State, entry: Entry, intent: int, code: str) -> None:
    run = _decided(profile, entry, intent)
    profile.open.pop(intent, None)
    if run is None:
        return
    refusal = entry.payload
    if isinstance(refusal, Abort | Expiry):
        hear(run, entry.position, short_digest(refusal.reason))
    run.rejected += 1
    run.streak += 1
    run.streak_at = [*run.streak_at, intent][-POSITIONS_KEPT:]
    step = _step(run, intent)
    _noticed(run, state)
    if step is not None:
        step.status, step.settled_ms, step.result = "rejected", entry.time_ms, code


def _noticed(run: RunProfile, state: State) -> None:
    """What the fold sees of loops and stalls is forgotten when a run ends: the worst of it is kept."""
    known = state.runs.get(run.id)
    if known is None or known.idle < _WATCHED.repeats - 1:
        return
    run.idle_max = max(run.idle_max, known.idle)
    loop = watching.looping(known, _WATCHED.repeats)
    if loop is not None and len(loop.cites) >= len(run.loop_at):
        run.loop, run.loop_at = loop.message, list(loop.cites)


def _step(run: RunProfile, intent: int) -> Step | None:
    """The remembered call whose intent stands there; nearly always the latest."""
    for step in reversed(run.steps):
        if step.position <= intent:
            return step if step.position == intent else None
    return None


def on_started(profile: Profile, state: State, entry: Entry, started: Started) -> None:
    waiting = profile.open.get(started.intent)
    run = of(profile, waiting.run, entry) if waiting is not None else None
    step = _step(run, started.intent) if run is not None else None
    if step is not None:
        step.status = "executing"


def on_result(profile: Profile, state: State, entry: Entry, result: Result) -> None:
    waiting = profile.open.get(result.intent)
    action = state.actions.get(result.intent)
    if action is not None and action.status == "in_doubt":
        return
    profile.open.pop(result.intent, None)
    tool = entry.tool or (action.intent.tool if action is not None else "")
    if tool == ANSWER or waiting is None:
        return
    run = of(profile, waiting.run, entry)
    sums = sums_for(profile, run, waiting.agent)
    tally = named(sums.tools, tool)
    tally.count += 1
    took(tally, result.duration_ms, result.intent)
    top(sums.slowest, result.duration_ms, result.intent, tool)
    step = _step(run, result.intent) if run is not None else None
    if run is not None:
        run.tool_ms += result.duration_ms
        _noticed(run, state)
        if step is not None and step.retry_of:
            run.retry_ms += result.duration_ms
    if step is not None:
        step.ms += result.duration_ms
    if result.error is not None:
        tally.failed += 1
        kind, message = result.error.kind, result.error.message
        clustered(sums, Cluster(tool, kind, message, 1, entry.time_ms, [result.intent]))
        if run is not None:
            run.failed += 1
            hear(run, entry.position, short_digest(f"{result.error.kind} {result.error.message}"))
        if step is not None:
            step.status, step.settled_ms, step.result = "failed", entry.time_ms, result.error.kind
        return
    size = result.blob.size if result.blob is not None else size_of(result.value)
    tally.output_tokens += size // BYTES_PER_TOKEN
    top(sums.largest, size // BYTES_PER_TOKEN, result.intent, tool)
    if run is not None:
        _done(run, entry, result, step, size // BYTES_PER_TOKEN)


def _done(run: RunProfile, entry: Entry, result: Result, step: Step | None, tokens: int) -> None:
    run.done += 1
    digest = result.blob.digest if result.blob is not None else short_digest(result.value)
    hear(run, entry.position, digest)
    if step is None:
        return
    step.status, step.settled_ms, step.result, step.result_tokens = "executed", entry.time_ms, digest, tokens
    step.got = result.blob.preview[:SAID_CHARS] if result.blob is not None else short_text(result.value)
    repeat = run.repeats.get(step.call)
    told_before = False
    if repeat is not None:
        repeat.ms += result.duration_ms
        told_before = repeat.result == digest and repeat.changes == run.changes
        if told_before:
            repeat.same += 1
            repeat.tokens += tokens
        repeat.result, repeat.changes = digest, run.changes
    if step.effect != "read":
        run.changes += 1
        if repeat is not None:
            repeat.changes = run.changes  # it itself is no reason for it to tell something else
    if not told_before:
        run.turn_useful = True
        run.progress_ms, run.progress = entry.time_ms, entry.position


def on_recovery(profile: Profile, state: State, entry: Entry, settled: Recovery) -> None:
    action = state.actions.get(settled.intent)
    if action is None or action.is_open:
        return
    waiting = profile.open.pop(settled.intent, None)
    run = of(profile, waiting.run, entry) if waiting is not None else None
    step = _step(run, settled.intent) if run is not None else None
    if run is not None:
        hear(run, entry.position, short_digest(f"{settled.settlement} {settled.reason}"))
    if step is not None:
        step.status, step.settled_ms = action.status, entry.time_ms
