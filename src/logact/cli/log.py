"""``logact log``: entries as they stand in a log, and the log as a thing: verify, measure, copy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from logact.cli import exchange as _exchange
from logact.cli import look
from logact.cli import mending as _mending
from logact.cli import moving as _moving
from logact.cli.common import F, json_option, put, put_json, say_trimmed, with_log
from logact.cli.entries import head, renderer, strips
from logact.cli.stats import statistics, stats_json, stats_lines
from logact.cli.witness import witness_command, witness_meant
from logact.core import machine
from logact.core.state import State
from logact.entry import KINDS, Entry, end_of, record_of
from logact.errors import SALVAGE, LogCorrupt, UsageError
from logact.introspection.history import history
from logact.logs.base import Clause, Filter, SharedLog


@click.group("log")
def log_command() -> None:
    """Show, follow, export, verify, measure and copy a log.

    LOG is a URL (sqlite:///ops.db), the path of a log's file, or a specification (logact.toml).
    """


class Wanted(msgspec.Struct, frozen=True):
    """Which entries are asked for."""

    matching: Filter | None
    since_ms: int
    until_ms: int

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is asked for."""
        if self.since_ms and entry.time_ms < self.since_ms:
            return False
        if self.until_ms and entry.time_ms > self.until_ms:
            return False
        return self.matching is None or any(_fits(clause, entry) for clause in self.matching.clauses)


def _fits(clause: Clause, entry: Entry) -> bool:
    run = entry.position if entry.kind == "Run" else entry.run
    action = entry.position if entry.kind == "Intent" else entry.action
    return (
        (not clause.kinds or entry.kind in clause.kinds)
        and (not clause.agents or entry.agent in clause.agents)
        and (not clause.runs or run in clause.runs)
        and (not clause.actions or action in clause.actions)
        and (not clause.tools or entry.tool in clause.tools)
    )


def _kinds(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    known = {name.lower(): name for name in KINDS}
    found = []
    for name in ",".join(given).split(",") if given else ():
        if name.lower() not in known:
            from difflib import get_close_matches

            near = get_close_matches(name.lower(), known, n=1)
            raise click.BadParameter(
                f"there is no kind {name!r}."
                + (f" Did you mean {known[near[0]]}?" if near else f" Kinds are {', '.join(KINDS)}."),
                ctx,
                parameter,
            )
        found.append(known[name.lower()])
    return tuple(found)


def filters(function: F) -> F:
    """The options that choose entries."""
    for option in (
        click.option("--until", metavar="TIME", help="Not after this time; like --since."),
        click.option("--since", metavar="TIME", help="Not before this time: -3h, -15min, today, 2026-11-22T10:00."),
        click.option("--tool", "tools", multiple=True, metavar="NAME", help="Only what is about this tool."),
        click.option("--run", "runs", multiple=True, type=int, metavar="N", help="Only this run."),
        click.option("--action", "actions", multiple=True, type=int, metavar="N", help="Only this action."),
        click.option("--agent", "agents", multiple=True, metavar="NAME", help="Only this agent."),
        click.option(
            "--kind",
            "kinds",
            multiple=True,
            metavar="KIND",
            callback=_kinds,
            help="Only this kind: Intent, Vote, ...",
        ),
    ):
        function = option(function)
    return function


def wanted(options: dict[str, Any]) -> Wanted:
    """The choice that the options of :func:`filters` make; takes them out of ``options``."""
    fields = {name: tuple(options.pop(name)) for name in ("kinds", "agents", "actions", "runs", "tools")}
    since, until = options.pop("since"), options.pop("until")
    return Wanted(
        Filter((Clause(**fields),)) if any(fields.values()) else None,
        look.parse_time(since) if since else 0,
        look.parse_time(until) if until else 0,
    )


# --- showing ---------------------------------------------------------------------------------------------------


Render = Callable[[State, Entry], list[str]]


@log_command.command("show")
@click.argument("log")
@filters
@click.option("-n", "last", type=click.IntRange(1, 1_000_000_000), metavar="N", help="Only the last N of them.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@click.option("--detail", is_flag=True, help="Everything about each entry, one field a line.")
@click.option("--timeline", is_flag=True, help="Time since the first entry, and each action's life as a strip.")
@json_option
def show(log: str, **options: Any) -> None:
    """Show the entries of LOG, oldest first.

    An entry that took no effect is shown too, with the reason.

    \b
    Examples:
      logact log show ops.db --kind Intent,Abort --since -3h
      logact log show ops.db --action 12000 --detail
      logact log show ops.db --timeline
      logact log show ops.db --json | jq .kind
    """
    _show(log, **options)


@log_command.command("tail")
@click.argument("log")
@filters
@click.option(
    "-n", "last", type=click.IntRange(1, 1_000_000_000), default=10, show_default=True, metavar="N", help="How many."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--detail", is_flag=True, help="Everything about each entry, one field a line.")
@json_option
def tail(log: str, **options: Any) -> None:
    """Show the last entries of LOG.

    \b
    Example:
      logact log tail -f ops.db
    """
    _show(log, timeline=False, **options)


def _show(
    log: str, *, last: int | None, follow: bool, detail: bool, timeline: bool, as_json: bool, **options: Any
) -> None:
    choice = wanted(options)

    async def work(opened: SharedLog) -> None:
        kept: deque[tuple[Entry, str]] = deque(maxlen=last)
        first = [0]

        def collect(state: State, entry: Entry) -> None:
            first[0] = first[0] or entry.time_ms
            if choice.fits(entry):
                kept.append((entry, state.verdict))

        told = await history(opened, observer=collect)
        await say_trimmed(opened, told)
        several = len({run.agent for run in told.state.runs.values()}) > 1
        render = renderer(detail, timeline, as_json, several, first[0])
        if not as_json and not timeline and not detail and kept:
            put(head())
        for entry, verdict in kept:
            put(render(entry, verdict))
        if timeline and not as_json:
            put(strips(told, {entry.action or entry.position for entry, _ in kept}))
        if not kept and not follow and not as_json:
            hint = "" if choice.matching is None and not choice.since_ms else " fit `--kind`, `--since` and the like"
            click.echo(
                f"None of {look.count(told.entries, 'entry', 'entries')}{hint}."
                if told.entries
                else "The log is empty.",
                err=True,
            )
        if follow:
            state = told.state
            async for entry in opened.follow(end_of(record_of(state.position))):
                state = machine.apply(state, entry)
                if choice.fits(entry):
                    put(render(entry, state.verdict))

    with_log(log, work)


# --- the log as a thing ----------------------------------------------------------------------------------------


@log_command.command("verify", short_help="Find what was changed, dropped or reordered.")
@click.argument("log")
@click.option("--witness", metavar="FILE|URL", help="Where heads were written down: a file, or another log.")
@click.option("--key", default="", metavar="PUBLIC", help="The public key that the witness's heads are signed with.")
@json_option
def verify(log: str, witness: str | None, key: str, as_json: bool) -> None:
    """Check every digest and every writer's chain of LOG, and every blob that its entries name.

    Finds the first entry that was changed, dropped or reordered, and says what it cannot see. The witness is that of
    LOG, if it is a specification that names one, and its heads have to be signed with the key that it names.

    \b
    Example:
      logact log verify ops.db && echo sound

    \b
    Exit codes: 0 sound; 2 --key without a witness; 3 damaged;
    5 the log or the witness is not available.
    """
    from logact.logs.verify import verify as check

    meant = witness_meant(log, witness, key)

    async def work(opened: SharedLog) -> Any:
        return await check(opened, witness=meant.place or None, key=meant.public)

    try:
        report = with_log(log, work)
    except LogCorrupt as error:  # the engine itself cannot read on
        if as_json:
            put_json({"ok": False, "problems": [{"position": 0, "what": f"{error.message}: {error.received}"}]})
        else:
            put(look.paint("DAMAGED", "red") + ": the log cannot be read to its end")
            put(look.wrapped("", f"{error.message}: {error.received}", label_width=2))
            put(["", *look.wrapped("to do", error.todo or SALVAGE, indent=2)])
        raise click.exceptions.Exit(3) from error
    if as_json:
        put_json({"ok": not report.problems, **look.plain(report)})
    else:
        _print_report(report)
    if report.problems:
        raise click.exceptions.Exit(3)


def _print_report(report: Any) -> None:
    word = look.paint("DAMAGED", "red") if report.problems else look.paint("sound", "green")
    entries = look.count(report.entries, "entry", "entries")
    records = look.count(report.records, "record")
    put(f"{word}: {entries} in {records}, positions {report.first} to {report.last}")
    put(look.wrapped("chain", report.chain, indent=2))
    if report.problems:
        put("")
        for one in report.problems[:20]:
            put(look.wrapped(str(one.position), one.what, indent=2))
        if len(report.problems) > 20:
            put(f"  and {len(report.problems) - 20} more (--json shows all)")
        put(["", *look.wrapped("to do", SALVAGE, indent=2)])
    told = [
        (report.ineffective, "took no effect"),
        (report.erased, "had its payload erased"),
        (report.blobs, "blobs were looked at"),
        (report.lost_blobs, "of them are lost, as a repair has said"),
        (report.checkpoints, "checkpoints were compared"),
        (report.witnessed, "heads of the witness were compared"),
    ]
    lines = [look.wrapped(str(number), text, indent=2) for number, text in told if number]
    for line in lines:
        put(line)
    if report.cannot_see:
        put(["", "What this check cannot see:"])
        for text in report.cannot_see:
            put(look.wrapped(" -", text, indent=0, label_width=3))


@log_command.command("stats", short_help="Count entries, actions, votes, tokens.")
@click.argument("log")
@filters
@json_option
def stats(log: str, as_json: bool, **options: Any) -> None:
    """Count what stands in LOG: kinds, actions by status, votes, what took no effect, tokens, cost, time.

    \b
    Example:
      logact log stats ops.db --since -1d
    """
    choice = wanted(options)

    async def work(opened: SharedLog) -> None:
        found = await statistics(opened, choice.fits)
        if as_json:
            put_json(stats_json(found))
        else:
            put(stats_lines(found))

    with_log(log, work, past=True)


@log_command.command("backup")
@click.argument("log")
@click.argument("file", type=click.Path(dir_okay=False))
@json_option
def backup(log: str, file: str, as_json: bool) -> None:
    """Copy LOG to a new FILE, consistently, while agents run.

    \b
    Example:
      logact log backup ops.db ops-monday.db
    """

    async def work(opened: SharedLog) -> None:
        copy = getattr(opened.engine, "backup", None)
        if copy is None:
            raise UsageError(
                "This engine has no backup of its own",
                received=opened.engine.info().engine,
                todo="use the server's tools, or `logact log export`",
            )
        await copy(Path(file))

    with_log(log, work)
    done = {"backup": file, "bytes": Path(file).stat().st_size}
    if as_json:
        put_json(done)
    else:
        put(f"Wrote {look.size(Path(file).stat().st_size)} to {file}.")


log_command.add_command(_exchange.import_command)
log_command.add_command(filters(_exchange.export_command))
log_command.add_command(_mending.trim_command)
log_command.add_command(_mending.repair_command)
log_command.add_command(_moving.move_command)
log_command.add_command(witness_command)
