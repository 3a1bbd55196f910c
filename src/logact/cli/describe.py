"""Entries and actions in words: one line each, and stable JSON. Prints nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from logact.cli import look, waiting
from logact.core import deciding
from logact.core.settling import ANSWER
from logact.core.state import Action, State
from logact.core.waiting import of_action
from logact.entry import (
    Abort,
    Cancel,
    Checkpoint,
    Claim,
    Commit,
    Compaction,
    Control,
    Entry,
    Erased,
    ErasedPayload,
    Expiry,
    Failure,
    Fence,
    Finding,
    Fork,
    Heartbeat,
    Inference,
    Input,
    Intent,
    Mail,
    Notice,
    Output,
    Policy,
    Recovery,
    Result,
    Retried,
    Run,
    Seal,
    Spec,
    Started,
    Trim,
    Undone,
    Unknown,
    Vote,
)

# --- entries ---------------------------------------------------------------------------------------------------


def entry_json(entry: Entry, ineffective: str = "") -> dict[str, Any]:
    """An entry as a JSON object: the whole header, the payload, and why it took no effect, if so."""
    found: dict[str, Any] = look.plain(entry)
    found["ineffective"] = ineffective
    return found


def what(entry: Entry) -> str:
    """What an entry says, in one line."""
    tell = _TELL.get(type(entry.payload))
    return look.clean(tell(entry.payload)) if tell is not None else entry.kind


def _run(run: Run) -> str:
    return f"{'dry run' if run.dry_run else 'run'} of {run.agent}: {run.title}"


def _spec(spec: Spec) -> str:
    voters = ", ".join(spec.voters) or "none"
    return f"{spec.agent}: model {spec.model or 'none'}, {look.count(len(spec.tools), 'tool')}, voters {voters}"


def _inference(said: Inference) -> str:
    calls = ", ".join(call.tool + (" (broken)" if call.broken else "") for call in said.calls)
    tokens = f"{said.usage.input_tokens}+{said.usage.output_tokens} tokens"
    errors = sum(one.count for one in said.retried)
    again = f", after {look.count(errors, 'error')}" if errors else ""
    return f"turn {said.turn}: {'asks for ' + calls if calls else said.text} ({tokens}{again})"


def retried(errors: Iterable[Retried]) -> str:
    """Errors of a provider that were survived, in words."""
    return ", ".join(f"{one.count} x {one.kind}{f' (status {one.status})' if one.status else ''}" for one in errors)


def intent(proposed: Intent, room: int = 200) -> str:
    """A proposed action in one line; an undo says what it takes back, since its tool and arguments are the same."""
    before = f"undo of {proposed.undoes}: " if proposed.undoes else ""
    return before + _call(proposed, room - len(before))


def _call(proposed: Intent, room: int) -> str:
    if proposed.tool == ANSWER:
        return f"answer: {look.value(proposed.arguments.get('text') or proposed.arguments.get('value', ''), room)}"
    given = proposed.arguments
    if proposed.arguments_blob is not None:
        return f"{proposed.tool} {proposed.arguments_blob.preview}"
    return f"{proposed.tool} {look.arguments(given, room)}".rstrip()


def _intent(proposed: Intent) -> str:
    return intent(proposed) + (f" (again, after {proposed.retry_of})" if proposed.retry_of else "")


def _vote(vote: Vote) -> str:
    word = {True: "approves", False: "rejects", None: "abstains"}[vote.approved]
    shadow = " (shadow)" if vote.shadow else ""
    return f"{vote.voter} {word}{shadow} {vote.intent}" + (f": {vote.reason}" if vote.reason else "")


def failure(error: Failure) -> str:
    """A failure in words; what is indefinite is said so."""
    return f"{error.kind}: {error.message}" + ("" if error.definite else " (the effect may have happened)")


def result(done: Result, room: int = 200) -> str:
    """What came out, in one line."""
    if done.error is not None:
        return failure(done.error)
    if done.blob is not None:
        return look.value(done.blob.preview, room) + f" ({look.size(done.blob.size)})"
    if done.value is None:
        return ""
    return look.value(done.value, room) + (" (cut)" if done.truncated else "")


def _result(done: Result) -> str:
    word = "failed" if done.error is not None else "done"
    again = f", again at {look.clock(done.retry_at_ms)}" if done.retry_at_ms else ""
    end = f", {done.gave_up}" if done.gave_up else ""
    return (
        f"{done.intent} {word} in {look.duration(done.duration_ms)}: {result(done)}".removesuffix(": ") + again + end
    )


def _claim(said: Claim) -> str:
    of = f" of run {said.run}" if said.run else ""
    if said.lapses:
        return f"the claim at {said.lapses} of {said.task}{of} lapses, says {said.agent}"
    if said.release and said.result:
        return f"{said.agent} completes {said.task}{of} by the output at {said.result}"
    return f"{said.agent} {'lets go of' if said.release else 'takes'} {said.task}{of}"


def _recovery(settled: Recovery) -> str:
    word = {
        "restart": "may start again",
        "undo": "is being taken back",
        "happened": "did happen",
        "not_happened": "did not happen",
        "superseded": "is closed, its effect unknown",
        "skip": "is skipped",
        "failed_final": "is given up",
    }[settled.settlement]
    why = ": ".join(part for part in (settled.evidence, settled.reason) if part)
    return f"{settled.intent} {word}" + (f" ({why})" if why else "")


def need(expression: Any) -> str:
    """A policy's expression in words."""
    if isinstance(expression, str):
        return expression
    if not isinstance(expression, dict) or not expression:
        return "nobody; only reads pass"
    if "open" in expression:
        return f"OPEN, nobody is asked ({expression['open']})"
    parts = expression.get("all") or expression.get("any") or expression.get("of") or []
    inner = ", ".join(need(part) if isinstance(part, str) else f"({need(part)})" for part in parts)
    if "k" in expression:
        return f"{expression['k']} of {inner}"
    if len(parts) == 1:
        return inner
    return ("all of " if "all" in expression else "any of ") + inner


def _policy(policy: Policy) -> str:
    whose = f" for {policy.agent}" if policy.agent else ""
    return f"version {policy.version}{whose}: {need(policy.need)}" + (", binding" if policy.binding else "")


def _heartbeat(beat: Heartbeat) -> str:
    if beat.leaving:
        return f"{beat.agent} left"
    return f"{beat.agent}: process {beat.pid} on {beat.host.split('/')[0]}" if beat.pid else f"{beat.agent} is alive"


def _fork(said: Fork) -> str:
    text = {
        "begun": f"a fork of {said.parent} at {said.at} begins; it may not be used before it is complete",
        "moved": f"forked at {said.at}: what runs had left went to the log {said.fork}",
        "done": f"this fork of {said.parent} at {said.at} is complete",
    }[said.step]
    gone = [f"run {run}" for run in said.empty] + (["budgets of voters"] if said.voters else [])
    where = "there now" if said.step == "moved" else "left in the parent"
    return text + (f" [{where}: {', '.join(gone)}]" if gone else "")


def _because(text: str, reason: str) -> str:
    return f"{text} ({reason})" if reason else text


_TELL: dict[type, Callable[[Any], str]] = {
    Run: _run,
    Spec: _spec,
    Input: lambda said: said.text or look.count(len(said.parts), "part"),
    Inference: _inference,
    Compaction: lambda said: f"everything up to {said.upto} in short: {said.summary}",
    Intent: _intent,
    Vote: _vote,
    Commit: lambda said: _because(f"{said.intent} may run", said.reason),
    Abort: lambda said: f"{said.intent} will not run: {said.reason}",
    Cancel: lambda said: _because(f"{said.scope or said.intent} is taken back", said.reason),
    Started: lambda said: f"{said.intent} starts" + (f", attempt {said.attempt}" if said.attempt > 1 else ""),
    Result: _result,
    Undone: lambda said: f"{said.intent} undone: {failure(said.error) if said.error else said.detail}",
    Recovery: _recovery,
    Policy: _policy,
    Control: lambda said: _because(f"{said.verb} {said.scope}", said.reason),
    Fence: lambda said: _because(
        f"{said.agent}: epoch {said.epoch}" + (f", held by {said.holder[:8]}" if said.holder else ", open"),
        said.reason,
    ),
    Fork: _fork,
    Heartbeat: _heartbeat,
    Claim: _claim,
    Expiry: lambda said: f"{said.intent} is too late: {said.reason}",
    Checkpoint: lambda said: f"up to {said.upto}, {look.size(said.state.size)}",
    Trim: lambda said: f"what stood before {said.before} was dropped",
    Seal: lambda said: _because(
        "the log ends here" + (f" and goes on at {said.next}" if said.next else ""), said.reason
    ),
    Erased: lambda said: _because(f"the payload at {said.target} was erased", said.reason),
    ErasedPayload: lambda said: "(erased)",
    Mail: lambda said: f"{said.sender} to {said.to}: {said.body}",
    Output: lambda said: ("" if said.ok else "not ok: ") + (said.text or look.value(said.value)),
    Finding: lambda said: (
        f"{said.code}: {said.message}" + (f" [{' '.join(map(str, said.cites))}]" if said.cites else "")
    ),
    Notice: lambda said: f"{said.code}: {said.message}",
    Unknown: lambda said: f"(this version does not know it) {look.value(said.data)}",
}


# --- actions ---------------------------------------------------------------------------------------------------


def strip(entries: list[Entry], status: str) -> str:
    """An action's life as marks, in the order of the log: ``●▲◆━■``."""
    marks = "".join(mark(entry) for entry in entries)
    return marks + (look.glyph("doubt") if status == "in_doubt" else "")


def mark(entry: Entry) -> str:
    """The mark of an entry in an action's life; "" for those that are not part of it."""
    said = entry.payload
    if isinstance(said, Vote):
        return look.glyph({True: "approve", False: "reject", None: "abstain"}[said.approved])
    if isinstance(said, Result):
        return look.glyph("error" if said.error is not None else "ok")
    name = _MARKS.get(entry.kind)
    return look.glyph(name) if name else ""


_MARKS = {
    "Intent": "intent",
    "Commit": "commit",
    "Abort": "abort",
    "Expiry": "abort",
    "Cancel": "abort",
    "Started": "start",
    "Recovery": "recovery",
    "Undone": "recovery",
}


def waits_for(state: State, action: Action) -> str:
    """Why an open action does not go on, in one line."""
    blocked = state.blocked(action)
    if action.status == "proposed":
        missing = [name for name in deciding.awaited(state, action) if name not in action.votes]
        until = f", until {waiting.at(action.intent.deadline_ms)}" if action.intent.deadline_ms else ""
        return "waits for the vote of " + ", ".join(missing) + until if missing else "waits for a decision"
    wait = None if blocked else of_action(state, action)
    if wait is not None and wait.kind != "people":
        return waiting.words(wait)
    if action.status == "validated":
        return f"committed, but {blocked}" if blocked else "committed, waits for its executor"
    if action.undo_begun:
        return f"is being taken back: {action.reason}"
    if action.status == "in_doubt":
        return f"a person has to settle it: {action.reason}" if action.reason else "a person has to settle it"
    if action.restart_allowed:
        return f"may start again, but {blocked}" if blocked else "may start again"
    return "runs, or its process is gone"


def outcome(state: State, action: Action, entries: list[Entry], room: int = 200) -> str:
    """The last column of an action's line: what it wanted, and what matters about how it went."""
    before = f"undo of {action.intent.undoes}: " if action.intent.undoes else ""
    wanted = _call(action.intent, room - len(before))
    tool = action.intent.tool
    wanted = wanted.removeprefix(tool).removeprefix(":").strip() if wanted.startswith(tool) else wanted
    wanted = before + wanted
    if action.is_open:
        after = waits_for(state, action)
    elif action.status == "executed":
        done = next((one.payload for one in reversed(entries) if isinstance(one.payload, Result)), None)
        after = ""
        if tool != ANSWER and isinstance(done, Result) and done.error is None:
            after = result(done, room)
    elif (wait := of_action(state, action)) is not None:
        after = f"next try at {waiting.at(wait.until_ms)}: {failure(action.error) if action.error else ''}"
    elif action.status in ("failed", "failed_final") and action.error is not None:
        after = failure(action.error)
    else:
        after = action.reason
    if action.conflict:
        after = f"CONFLICT: {conflict(action)}"
    if not after:
        return look.fit(wanted, room)
    arrow = f" {look.glyph('arrow')} "
    # what became of it matters more than what was asked: it gets at least half of the room
    short = look.fit(wanted, max(room // 2 - 2, room - look.cells(after) - len(arrow)))
    return look.fit(f"{short}{arrow}{look.clean(after)}" if short else look.clean(after), room)


def conflict(action: Action) -> str:
    """What a late result says that contradicts the settlement."""
    done = "did not happen" if action.happened else "did happen"
    return f"a late result says that it {done}, and it was settled otherwise"


def action_json(state: State, action: Action) -> dict[str, Any]:
    """An action as a JSON object."""
    proposed = action.intent
    wait = of_action(state, action)
    return {
        "action": action.id,
        "status": action.status,
        "agent": proposed.agent,
        "run": proposed.run,
        "tool": proposed.tool,
        "arguments": proposed.arguments,
        "effect": proposed.effect,
        "reason": action.reason,
        "code": action.code,
        "votes": {
            name: {"approved": vote.approved, "reason": vote.reason, "hint": vote.hint}
            for name, vote in action.votes.items()
        },
        "attempts": len(action.attempts),
        "error": look.plain(action.error) if action.error is not None else None,
        "retry_of": proposed.retry_of,
        "retried_by": action.retried_by,
        "undoes": proposed.undoes,
        "conflict": action.conflict,
        "proposed_ms": action.proposed_ms,
        "waits_for": waits_for(state, action) if action.is_open or wait is not None else "",
        "waits_until_ms": wait.until_ms if wait is not None else 0,
    }


def resume_command(scope: str, log: str = "LOG") -> str:
    """The command that lets go on what is paused or stopped in a scope."""
    kind, _, name = scope.partition(":")
    return f"logact resume {log}" + (f" --{kind} {name}" if name else "")
