"""``logact pause``, ``resume``, ``stop``, ``cancel``: entries that every part obeys before the next start."""

from __future__ import annotations

from typing import Any, Literal

import click

from logact.cli import describe, look
from logact.cli.common import F, json_option, put, put_json, who, with_log
from logact.core.driving import limit_reached
from logact.core.state import State
from logact.entry import Cancel, Control, Limits, NewEntry, Payload
from logact.env import current
from logact.errors import UsageError
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.logs.network_url import redacted

LIMITS = ", ".join(Limits.__struct_fields__)


def scoped(function: F) -> F:
    """The options that say what is meant."""
    for option in (
        json_option,
        click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the log."),
        click.option("--action", type=int, metavar="N", help="One action."),
        click.option("--run", type=int, metavar="N", help="One run."),
        click.option("--agent", metavar="NAME", help="One agent."),
        click.argument("log"),
    ):
        function = option(function)
    return function


@click.command("pause")
@scoped
def pause_command(**options: Any) -> None:
    """Hold LOG, or one agent, run or action: nothing more starts there until `logact resume`.

    What runs already goes on to its end. Nothing is lost.

    \b
    Example:
      logact pause ops.db --agent ops --reason "release in progress"

    \b
    Exit codes: 0 it holds; 1 it took no effect (paused already).
    """
    _control("pause", **options)


@click.command("resume")
@scoped
@click.option(
    "--limit", "limit", multiple=True, metavar="NAME=N", help=f"With --run: its {LIMITS} in all; repeatable."
)
@click.option("--budgets", is_flag=True, help="What voters' budgets had left when LOG was forked is here again.")
def resume_command(limit: tuple[str, ...], budgets: bool, **options: Any) -> None:
    """Let go on what was paused or stopped. Runs that a stop ended stay ended.

    What a run had left went to a fork, or stayed in the parent: --limit gives it more here, on your word.

    \b
    Examples:
      logact resume ops.db --agent ops
      logact resume ops.db --run 2000 --limit actions=20
    """
    if limit and options["run"] is None:
        raise UsageError("A limit is of one run", received="--limit without --run", todo="name the run")
    if budgets and any(options[one] is not None for one in ("agent", "run", "action")):
        raise UsageError(
            "Budgets of voters are the log's", received="--budgets and a narrower scope", todo="leave it out"
        )
    _control("resume", limits=_limits(limit), budgets=budgets, **options)


@click.command("stop")
@scoped
def stop_command(**options: Any) -> None:
    """End the runs of LOG, or of one agent, or one run; nothing new starts there until `logact resume`.

    What runs already goes on to its end; its result is kept.

    \b
    Example:
      logact stop ops.db --run 12000
    """
    _control("stop", **options)


@click.command("cancel")
@scoped
def cancel_command(**options: Any) -> None:
    """Take back what has not started: one action, or the runs of an agent, or one run, or all of LOG.

    An action that runs is asked to stop; its result says what became of it. Unlike a stop, new runs may begin.

    \b
    Example:
      logact cancel ops.db --action 12004 --reason "wrong file"
    """
    _control("cancel", **options)


Verb = Literal["pause", "resume", "stop", "cancel"]


def _limits(given: tuple[str, ...]) -> Limits | None:
    """The limits that were named on the command line."""
    found: dict[str, int] = {}
    for one in given:
        name, _, number = one.partition("=")
        if name not in Limits.__struct_fields__ or not (number.isascii() and number.isdigit() and int(number) > 0):
            raise UsageError("This is no limit", received=one, expected=f"NAME=N, N above 0, NAME one of {LIMITS}")
        found[name] = int(number)
    return Limits(**found) if found else None


def _control(
    verb: Verb,
    *,
    log: str,
    agent: str | None,
    run: int | None,
    action: int | None,
    reason: str,
    as_json: bool,
    limits: Limits | None = None,
    budgets: bool = False,
) -> None:
    if sum(one is not None for one in (agent, run, action)) > 1:
        raise UsageError("One of --agent, --run and --action", received="several", todo="name the narrowest one")
    scope = f"action:{action}" if action else f"run:{run}" if run else f"agent:{agent}" if agent else "log"

    async def work(opened: SharedLog) -> dict[str, Any]:
        before = (await history(opened)).state
        _check(before, agent, run, action)
        payload: Payload
        if verb == "cancel":
            payload = Cancel(intent=action or 0, scope="" if action else scope, reason=reason)
        else:
            payload = Control(verb=verb, scope=scope, reason=reason, limits=limits, budgets=budgets)
        done = await opened.append(_entry(payload, before, agent, run, action))
        after = (await history(opened, done.position)).state
        return {
            "verb": verb,
            "scope": scope,
            "position": done.position,
            "effective": not after.verdict,
            "reason": after.verdict,
            **_changes(before, after, verb, scope),
            "limited": _still(after, run),
        }

    told = with_log(log, work)
    if as_json:
        put_json(told)
    else:
        put(_lines(told, log))
    if not told["effective"]:
        raise click.exceptions.Exit(1)


def _still(state: State, key: int | None) -> str:
    """Which limit of a run is used up all the same, after a resume ("" if none)."""
    run = state.runs.get(key) if key is not None else None
    return limit_reached(run, current().wall_ms()) if run is not None else ""


def _entry(payload: Payload, state: State, agent: str | None, run: int | None, action: int | None) -> NewEntry:
    """The entry, marked with what it is about, so that filters find it."""
    if action is not None:
        intent = state.actions[action].intent
        return NewEntry(
            payload=payload, role="operator", name=who(), agent=intent.agent, run=intent.run, tool=intent.tool
        )
    if run is not None:
        return NewEntry(payload=payload, role="operator", name=who(), agent=state.runs[run].agent, run=run)
    return NewEntry(payload=payload, role="operator", name=who(), agent=agent or "")


def _check(state: State, agent: str | None, run: int | None, action: int | None) -> None:
    """Refuse a scope that names nothing: a typing error must not look like a pause."""
    if run is not None and run not in state.runs:
        raise UsageError("There is no such run", received=str(run), expected=_some(state.runs))
    if action is not None and action not in state.actions:
        raise UsageError("There is no such action", received=str(action), expected=_some(state.actions))
    known = {one.agent for one in state.runs.values()} | set(state.agents)
    if agent is not None and agent not in known:
        raise UsageError(
            "There is no such agent in this log", received=agent, expected=", ".join(sorted(known)) or "none yet"
        )


def _some(known: Any) -> str:
    last = sorted(known)[-5:]
    return "for example " + ", ".join(map(str, last)) if last else "none: the log holds none"


def _changes(before: State, after: State, verb: Verb, scope: str) -> dict[str, Any]:
    ended = [
        key for key, run in after.runs.items() if run.status == "stopped" and before.runs[key].status != "stopped"
    ]
    rejected = [
        key
        for key, one in after.actions.items()
        if one.status == "rejected" and before.actions[key].status in ("proposed", "validated")
    ]
    kind, _, name = scope.partition(":")
    inside = [
        one
        for one in map(after.actions.__getitem__, after.open_actions)
        if kind == "log"
        or (kind == "agent" and one.intent.agent == name)
        or (kind == "run" and str(one.intent.run) == name)
        or (kind == "action" and str(one.id) == name)
    ]
    return {
        "runs_ended": ended,
        "actions_rejected": rejected,
        "actions_held": [one.id for one in inside if one.status in ("proposed", "validated") and verb == "pause"],
        "actions_executing": [one.id for one in inside if one.status == "executing"],
    }


def _lines(told: dict[str, Any], log: str) -> list[str]:
    if not told["effective"]:
        return [f"No effect: {told['reason']}."]
    word = {"pause": "Paused", "resume": "Resumed", "stop": "Stopped", "cancel": "Cancelled"}[told["verb"]]
    lines = [f"{word} {told['scope'].replace(':', ' ')}, at position {told['position']}."]
    for key, text in (
        ("runs_ended", "ended"),
        ("actions_rejected", "will not run"),
        ("actions_held", "held until it is resumed"),
        (
            "actions_executing",
            "started already, " + ("and asked to stop" if told["verb"] == "cancel" else "and not interrupted"),
        ),
    ):
        if told[key] and not (key == "actions_executing" and told["verb"] == "resume"):
            noun = "run" if key.startswith("runs") else "action"
            lines += look.wrapped(
                "", f"{look.count(len(told[key]), noun)} {text}: " + ", ".join(map(str, told[key])), label_width=2
            )
    if told["verb"] == "resume" and told["limited"]:
        lines += look.wrapped("", f"but {told['limited']}: --limit sets it", label_width=2)
    kind = told["scope"].partition(":")[0]
    if told["verb"] == "stop" and kind in ("run", "action"):
        again = ": logact run SPEC --new TASK starts another" if kind == "run" else ""
        return [*lines, f"  It stays ended{again}"]
    if told["verb"] in ("pause", "stop"):
        what = "lets it go on" if told["verb"] == "pause" else "lets new runs begin"
        lines += [f"  {describe.resume_command(told['scope'], redacted(log))}   {what}"]
    return lines
