"""``logact pending``: everything that waits, for whom, and why."""

from __future__ import annotations

import click

from logact.cli import describe, look, waiting
from logact.cli.common import json_option, put, put_json, with_log
from logact.core.state import Action, State
from logact.core.waiting import of_run
from logact.env import current
from logact.introspection.history import History, history
from logact.logs.network_url import redacted


@click.command("pending")
@click.argument("log")
@json_option
def pending_command(log: str, as_json: bool) -> None:
    """What waits in LOG: for votes, for a decision, for its executor, for a person, or because of a pause.

    \b
    Example:
      logact pending ops.db

    \b
    Exit codes: 0 nothing is in doubt; 4 a person has to settle something.
    """
    told = with_log(log, history)
    state = told.state
    open_ones = [state.actions[key] for key in state.open_actions]
    doubtful = state.doubtful()
    if as_json:
        for scope, position in state.paused.items():
            put_json({"held": "paused", "scope": scope, "position": position})
        for scope, position in state.stopped.items():
            put_json({"held": "stopped", "scope": scope, "position": position})
        for action in open_ones:
            put_json(describe.action_json(state, action))
    else:
        put(_lines(told, open_ones, log))
    if doubtful:
        raise click.exceptions.Exit(4)


def _lines(told: History, open_ones: list[Action], log: str) -> list[str]:
    state = told.state
    lines = held_lines(state)
    for action in open_ones:
        lines += ["", *_action(state, action, log)] if lines else _action(state, action, log)
    running = [run for run in state.runs.values() if run.status == "running" and not run.life]
    unfinished = [run for run in running if run.context or run.inbox]
    quiet = [run for run in unfinished if not any(one.intent.run == run.id for one in open_ones)]
    if quiet:
        lines += [""] if lines else []
        for run in quiet:
            head = f"run {run.id} of {run.agent} is not finished: "
            lines.append(head + look.fit(look.clean(run.title), look.width() - look.cells(head)))
            for wait in of_run(state, run):
                lines += look.wrapped("", f"action {wait.action}: {waiting.words(wait)}", label_width=4)
    return lines or ["Nothing waits."]


def held_lines(state: State) -> list[str]:
    """What is paused or stopped, one line each."""
    lines = []
    for word, held, colour in (("PAUSED", state.paused, "yellow"), ("STOPPED", state.stopped, "red")):
        for scope, position in held.items():
            lines.append(look.paint(f"{word} {scope.replace(':', ' ')}", colour) + f", since position {position}")
            why = state.paused_why.get(scope, "") if word == "PAUSED" else ""
            if why:
                lines += look.wrapped("", f"{why}; `{lets_go(state, scope)}` lets it go on", label_width=2)
    if state.budgets_at:
        text = f"What voters' budgets had left is in the log {state.budgets_in}, since position {state.budgets_at}"
        lines += look.wrapped("", f"{text}; `logact resume LOG --budgets` lets them count here", label_width=0)
    return lines


def lets_go(state: State, scope: str) -> str:
    """The command that ends a pause."""
    kind, _, number = scope.partition(":")
    run = state.runs.get(int(number)) if kind == "run" and number.isdecimal() else None
    return describe.resume_command(scope) + (" --limit NAME=N" if run is not None and run.moved else "")


def _action(state: State, action: Action, log: str) -> list[str]:
    age = look.duration(current().wall_ms() - action.proposed_ms)
    status = look.paint(action.status, look.STATUS_COLOURS.get(action.status))
    head = f"{action.id}  {status}  "
    room = look.width() - len(str(action.id)) - len(action.status) - 4
    lines = [head + look.fit(describe.intent(action.intent), room)]
    lines += look.wrapped(
        "", f"{describe.waits_for(state, action)}; proposed {age} ago by {action.intent.agent}", label_width=4
    )
    if action.status == "proposed" and action.intent.deadline_ms:
        left = action.intent.deadline_ms - current().wall_ms()
        text = (
            f"expires in {look.duration(left)}"
            if left > 0
            else "its deadline is over: the next part that looks expires it"
        )
        lines += look.wrapped("", text, label_width=4)
    if action.status == "in_doubt":
        lines += look.wrapped("", f"logact doubt {redacted(log)} {action.id}", label_width=4)
    return lines
