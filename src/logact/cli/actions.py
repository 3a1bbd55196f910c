"""``logact actions``: one line for each action, or the whole story of one."""

from __future__ import annotations

from typing import Any, get_args

import click
import msgspec

from logact.cli import describe, look
from logact.cli.common import json_option, put, put_json, say_trimmed, with_log
from logact.core.settling import ANSWER
from logact.core.state import Action, Status
from logact.core.views import named
from logact.core.waiting import of_action
from logact.entry import (
    Abort,
    BlobRef,
    Cancel,
    Commit,
    Control,
    Entry,
    Expiry,
    Finding,
    Intent,
    Output,
    Recovery,
    Result,
    Started,
    Undone,
    Vote,
)
from logact.errors import LogTrimmed, UsageError
from logact.introspection.history import History, history
from logact.logs.base import SharedLog


@click.command("actions")
@click.argument("log")
@click.argument("action", type=int, required=False)
@click.option("--agent", metavar="NAME", help="Only this agent's.")
@click.option("--run", type=int, metavar="N", help="Only this run's.")
@click.option("--tool", metavar="NAME", help="Only this tool's.")
@click.option(
    "--status",
    metavar="STATUS",
    type=click.Choice([*get_args(Status), "open"]),
    help="Only these: executed, rejected, in_doubt, open, ...",
)
@click.option("-n", "last", type=click.IntRange(1, 1_000_000_000), metavar="N", help="Only the last N of them.")
@json_option
def actions_command(log: str, action: int | None, as_json: bool, **choice: Any) -> None:
    """What was proposed, and what became of it; or the whole story of one ACTION.

    The story shows who let an action through or stopped it: every vote with its reason, the decision, the
    start, the result, and what recovery did.

    \b
    Examples:
      logact actions ops.db --status rejected
      logact actions ops.db 12000
    """

    async def work(opened: SharedLog) -> None:
        told = await history(opened)
        if action is not None:
            await _one(opened, told, action, as_json)
        else:
            _list(told, as_json, **choice)
            await say_trimmed(opened, told)

    with_log(log, work)


def _list(
    told: History,
    as_json: bool,
    *,
    agent: str | None,
    run: int | None,
    tool: str | None,
    status: str | None,
    last: int | None,
) -> None:
    every = [one for _, one in sorted(told.state.actions.items())]
    chosen = [
        one
        for one in every
        if (agent is None or one.intent.agent == agent)
        and (run is None or one.intent.run == run)
        and (tool is None or one.intent.tool == tool)
        and (status is None or one.status == status or (status == "open" and one.is_open))
    ][-(last or 0) :]
    if as_json:
        for one in chosen:
            put_json(describe.action_json(told.state, one))
        return
    if not chosen:
        hint = "" if not every else f"; there are {len(every)} others"
        click.echo(f"No actions{hint}.", err=True)
        return
    put(rows(told, chosen))


def rows(told: History, chosen: list[Action]) -> list[str]:
    """One line for each action; runs are set apart by their tasks."""
    several = len({one.intent.agent for one in told.state.actions.values()}) > 1
    strips = {one.id: describe.strip(told.effective(one.id), one.status) for one in chosen}
    number = max(6, *(len(str(one.id)) for one in chosen))
    status = max(6, *(len(one.status) for one in chosen))
    strip = max(4, min(12, max(look.cells(text) for text in strips.values())))
    tool = max(4, min(16, max(look.cells(one.intent.tool) for one in chosen)))
    head = (
        f"{'ACTION':>{number}}  {look.pad('STATUS', status)}  {look.pad('LIFE', strip)}  {look.pad('TOOL', tool)}  "
    )
    lines = [look.paint(head + "WHAT", None, bold=True)]
    run = 0
    for one in chosen:
        if one.intent.run != run:
            run = one.intent.run
            lines.append(_run_line(told, run, several))
        left = f"{one.id:>{number}}  "
        state = look.paint(look.pad(one.status, status), look.STATUS_COLOURS.get(one.status))
        middle = f"  {look.pad(strips[one.id], strip)}  {look.pad(one.intent.tool, tool)}  "
        room = look.width() - len(left) - status - look.cells(middle)
        lines.append(
            (left + state + middle + describe.outcome(told.state, one, told.effective(one.id), room)).rstrip()
        )
    return lines


NAME_CELLS_MAX = 30
"""How much of a line an agent's name takes beside the title of its run."""


def _run_line(told: History, number: int, several: bool) -> str:
    run = told.state.runs.get(number)
    if run is None:
        return f"{look.glyph('run')} run {number}"
    who = f" of {look.fit(run.agent, NAME_CELLS_MAX)}" if several else ""
    held = told.state.control_over(run.agent, run.id)
    status = held if held and run.status == "running" else run.status + ("" if run.ok else ", not ok")
    head = f"{look.glyph('run')} run {number}{who} ({status}{', dry run' if run.dry_run else ''}): "
    return head + look.fit(look.clean(run.title), look.width() - look.cells(head))


# --- one action ------------------------------------------------------------------------------------------------


async def _one(log: SharedLog, told: History, position: int, as_json: bool) -> None:
    action = told.action(position)
    if action is None:
        raise UsageError(
            "There is no action at this position",
            received=str(position),
            expected=_nearby(told, position),
            todo="`logact actions LOG` lists them",
        )
    if as_json:
        put_json(
            {
                **describe.action_json(told.state, action),
                "entries": [
                    describe.entry_json(entry, told.ineffective.get(entry.position, ""))
                    for entry in told.stories.get(position, ())
                ],
            }
        )
        return
    put(await story(log, told, action))


def _nearby(told: History, position: int) -> str:
    near = sorted(told.state.actions, key=lambda key: abs(key - position))[:3]
    return "for example " + ", ".join(map(str, sorted(near))) if near else "an intent's position; the log holds none"


async def story(log: SharedLog, told: History, action: Action) -> list[str]:
    """Everything about one action, in the order in which it happened."""
    proposed = action.intent
    entries = told.stories.get(action.id, [])
    status = look.paint(action.status, look.STATUS_COLOURS.get(action.status), bold=True)
    life = describe.strip(told.effective(action.id), action.status)
    lines = [f"{look.paint(f'Action {action.id}', None, bold=True)}  {named(proposed)}  {status}  {life}"]
    run = told.state.runs.get(proposed.run)
    lines += look.wrapped("run", f"{proposed.run}: {run.title if run else '?'} (agent {proposed.agent})", indent=2)
    lines += look.wrapped("effect", proposed.effect + _settles(proposed), indent=2)
    if proposed.reasoning:
        lines += look.wrapped("reasoning", proposed.reasoning, indent=2)
    lines += await _arguments(log, proposed)
    for pin in proposed.pins:
        lines += look.wrapped("pinned", f"{pin.path} {pin.digest}", indent=2)
    for label, other in (
        ("undo of", proposed.undoes),
        ("again after", proposed.retry_of),
        ("tried again", action.retried_by),
        ("undo", _undo_of(told, action)),
    ):
        if other:
            lines += look.wrapped(label, f"action {other}", indent=2, label_width=13)
    lines.append("")
    first = entries[0].time_ms if entries else 0
    for entry in entries:
        lines += await _step(log, told, entry, first)
    output = await _output(log, told, action)
    if output is not None:
        lines += _line(output, first, "answered", "the caller has it")
    if action.conflict:
        lines += ["", *look.wrapped("CONFLICT", describe.conflict(action), indent=2)]
        lines += look.wrapped("next", f"logact doubt LOG {action.id} settles it", indent=2)
    if action.is_open or of_action(told.state, action) is not None:
        lines += ["", *look.wrapped("now", describe.waits_for(told.state, action), indent=2)]
        lines += _ways_out(action)
    return lines


def _undo_of(told: History, action: Action) -> int:
    """The last action that takes this one back, whatever became of it."""
    return max((one.id for one in told.state.actions.values() if one.intent.undoes == action.id), default=0)


def _settles(proposed: Intent) -> str:
    if proposed.effect in ("read", "idempotent"):
        return " (started again if its result is lost)"
    if proposed.probe:
        return " (a probe can tell whether it happened)"
    if proposed.undo:
        return " (has an undo)"
    return " (if its result is lost, a person decides)"


async def _arguments(log: SharedLog, proposed: Intent) -> list[str]:
    given = proposed.arguments
    if proposed.arguments_blob is not None:
        given = msgspec.json.decode(await log.get_blob(proposed.arguments_blob.digest))
    if not given:
        return look.wrapped("arguments", "none", indent=2)
    lines = ["  arguments"]
    label = min(24, max(len(name) for name in given) + 2)
    for name, one in given.items():
        lines += look.wrapped(name, _whole(one), indent=4, label_width=label)
    return lines


LINES_MAX = 12
CHARS_MAX = 2000


def _whole(one: Any) -> str:
    """A value over several lines, but not over all of them."""
    text = one if isinstance(one, str) else msgspec.json.encode(one).decode(errors="replace")
    if len(text) > CHARS_MAX:
        text = f"{text[:CHARS_MAX]} ... ({len(text)} characters; --json shows all)"
    lines = text.splitlines()
    if len(lines) > LINES_MAX:
        text = "\n".join([*lines[:LINES_MAX], f"... ({len(lines)} lines; --json shows all)"])
    return text


def _line(entry: Entry, first_ms: int, word: str, text: str) -> list[str]:
    offset = look.pad(
        "+" + look.duration(entry.time_ms - first_ms) if entry.time_ms > first_ms else look.clock(first_ms), 10
    )
    return look.wrapped(f"{offset}{entry.position:>8}  {word}", text, indent=2, label_width=32)


async def _step(log: SharedLog, told: History, entry: Entry, first: int) -> list[str]:
    word, text = _told(entry)
    said = entry.payload
    if isinstance(said, Result) and said.error is None:
        text = f"in {look.duration(said.duration_ms)}\n{_whole(await _value(log, said.value, said.blob))}".rstrip()
    verdict = told.ineffective.get(entry.position)
    if verdict:
        text = f"{look.glyph('none')} no effect: {verdict}\n{text}"
    return _line(entry, first, word, text)


def _told(entry: Entry) -> tuple[str, str]:
    said = entry.payload
    author = (
        f"{entry.author.role} {entry.author.name}" if entry.author.name != entry.author.role else entry.author.role
    )
    if isinstance(said, Intent):
        return "proposed", f"by {author}"
    if isinstance(said, Vote):
        word = {True: "for", False: "AGAINST", None: "abstained"}[said.approved]
        hint = f"\nhint: {said.hint}" if said.hint else ""
        shadow = " (shadow: does not count)" if said.shadow else ""
        mark = look.glyph({True: "approve", False: "reject", None: "abstain"}[said.approved])
        return f"{mark} {word}", f"{said.voter}{shadow}: {said.reason or 'no reason given'}{hint}"
    if isinstance(said, Commit):
        return f"{look.glyph('commit')} committed", said.reason + (
            f" (policy at {said.policy})" if said.policy else ""
        )
    if isinstance(said, Abort):
        return f"{look.glyph('abort')} rejected", said.reason
    if isinstance(said, Expiry):
        return f"{look.glyph('abort')} expired", said.reason
    if isinstance(said, Cancel):
        return f"{look.glyph('abort')} cancelled", f"by {author}" + (f": {said.reason}" if said.reason else "")
    if isinstance(said, Started):
        attempt = f", attempt {said.attempt}" if said.attempt > 1 else ""
        return f"{look.glyph('start')} started", f"by {entry.author.incarnation}, epoch {said.epoch}{attempt}"
    if isinstance(said, Result):
        word = "error" if said.error is not None else "ok"
        return f"{look.glyph(word)} {'failed' if said.error else 'done'}", describe.failure(
            said.error
        ) if said.error else ""
    if isinstance(said, Recovery):
        text = describe.what(entry).removeprefix(f"{said.intent} ")
        cites = f"\ncites {', '.join(map(str, said.cites))}" if said.cites else ""
        return f"{look.glyph('recovery')} recovery", f"{text}, by {author}{cites}"
    if isinstance(said, Undone):
        return f"{look.glyph('recovery')} undone", describe.failure(said.error) if said.error else said.detail
    if isinstance(said, Finding):
        return "in doubt", f"{said.message} (found by {author})"
    if isinstance(said, Control):
        return said.verb, f"by {author}" + (f": {said.reason}" if said.reason else "")
    if isinstance(said, Output):
        return "answered", "the caller has it"
    return entry.kind.lower(), describe.what(entry)


async def _value(log: SharedLog, value: Any, blob: BlobRef | None) -> Any:
    return msgspec.json.decode(await log.get_blob(blob.digest)) if blob is not None else value


async def _output(log: SharedLog, told: History, action: Action) -> Entry | None:
    """The released answer, where its story does not hold it (it is about the run)."""
    if action.intent.tool != ANSWER or any(entry.kind == "Output" for entry in told.stories.get(action.id, ())):
        return None
    run = told.state.runs.get(action.intent.run)
    if run is None or not run.output:
        return None
    try:
        entry = await log.get(run.output)
    except LogTrimmed:
        return None
    return entry if isinstance(entry.payload, Output) and entry.payload.intent == action.id else None


def _ways_out(action: Action) -> list[str]:
    if action.status == "in_doubt":
        return look.wrapped(
            "next", f"logact doubt LOG {action.id} --happened | --did-not-happen | --superseded", indent=2
        )
    if action.status in ("proposed", "validated"):
        return look.wrapped("next", f"logact cancel LOG --action {action.id} takes it back", indent=2)
    return []
