"""``logact fork`` and ``logact diff``: another future from the same past, and what became different."""

from __future__ import annotations

import click
import msgspec

from logact.cli import look
from logact.cli.common import at, existing_log, go, json_option, log_url, put, put_json, warn_of_damage, who
from logact.errors import LogActError, UsageError
from logact.introspection.diff import Difference, RunChange, diff
from logact.logs.network_url import redacted
from logact.logs.url import open_log
from logact.runtime.forking import Forked, fork


@click.command("fork")
@click.argument("log", metavar="LOG@POSITION")
@click.argument("target", metavar="DST")
@click.option("--keep-parent", is_flag=True, help="Budgets stay in LOG, whose runs go on; DST has none of them.")
@json_option
def fork_command(log: str, target: str, keep_parent: bool, as_json: bool) -> None:
    """Start a new log DST with the past of LOG up to POSITION.

    What was done stays done, and is not done again. What is unfinished there belongs to the parent, and is closed
    in the fork. Budgets are in one log only: what is left goes to DST, and the runs of LOG that go on there are
    paused; or it stays in LOG. `logact resume LOG --run N --limit NAME=N` gives a run more.

    \b
    Examples:
      logact fork ops.db@12000 try.db
      logact run other-model.toml --log try.db

    \b
    Exit codes: 0 forked; 2 no such position, or DST is not empty;
    3 the log is damaged, and DST, if it was begun, cannot be used.
    """
    name, position = at(log)
    if position is None:
        raise UsageError(
            "Where does it fork?", received=redacted(log), expected="LOG@POSITION", todo="see `logact log show`"
        )
    begun: list[bool] = []

    async def work() -> Forked:
        async with existing_log(name) as source:
            new = open_log(log_url(target))
            try:
                return await fork(
                    source, position, new, name=who(), keep_parent=keep_parent, begun=lambda: begun.append(True)
                )
            finally:
                await new.close()

    try:
        done = go(work())
    except LogActError:
        if begun:
            click.echo(f"{redacted(target)} is not complete and cannot be used: delete it, and fork again.", err=True)
        raise
    if as_json:
        put_json(msgspec.to_builtins(done))
        return
    put(f"Forked {done.parent} at {done.position}: {look.count(done.records, 'record')}.")
    put(look.wrapped("fork", f"{redacted(target)} (log {done.log})", indent=2))
    if done.closed:
        put(look.wrapped("closed", f"{', '.join(map(str, done.closed))}, since the parent has them", indent=2))
    for run in map(str, done.paused):
        more = " --limit NAME=N" if run in done.limits else ""
        lets_go = f"`logact resume {redacted(name)} --run {run}{more}` lets it go on"
        put(look.wrapped("paused", f"run {run} in the parent; {lets_go}", indent=2))
    for run, limits in done.limits.items():
        counts = [f"{count} {what}" for what, count in msgspec.structs.asdict(limits).items() if count > 0]
        put(
            look.wrapped(
                "budget", f"run {run} may use {', '.join(counts)} in all in the fork; none at home", indent=2
            )
        )
    for run in map(str, done.empty):
        gives = f"`logact resume {redacted(target)} --run {run} --limit NAME=N` gives it some"
        put(
            look.wrapped(
                "budget", f"run {run} has nothing left in the fork: the parent has or had it; {gives}", indent=2
            )
        )
    if done.voters:
        gives = f"`logact resume {redacted(target)} --budgets` lets them count from here"
        put(
            look.wrapped(
                "budget", f"voters have nothing to give in the fork, what is left is elsewhere; {gives}", indent=2
            )
        )


@click.command("diff")
@click.argument("a", metavar="LOG[@POSITION]")
@click.argument("b", metavar="LOG[@POSITION]")
@json_option
def diff_command(a: str, b: str, as_json: bool) -> None:
    """What differs between two points of a log, or two forks: actions, runs, what is in force.

    \b
    Examples:
      logact diff ops.db@12000 ops.db
      logact diff ops.db try.db

    \b
    Exit codes: 0 nothing differs; 1 something does.
    """
    (first, a_upto), (second, b_upto) = at(a), at(b)

    async def work() -> Difference:
        async with existing_log(first) as one, existing_log(second) as two:
            try:
                return await diff(one, two, a_upto=a_upto, b_upto=b_upto)
            finally:
                for log in (one, two):
                    warn_of_damage(log)

    found = go(work())
    if as_json:
        put_json({"same": found.same, **msgspec.to_builtins(found)})
    else:
        put(_lines(found))
    if not found.same:
        raise click.exceptions.Exit(1)


def _lines(found: Difference) -> list[str]:
    ends = f"a ends at {found.a.position}, b at {found.b.position}."
    if found.common:
        lines = [f"The same up to {found.common}; {ends}"]
    else:
        lines = ["Nothing in common: the two hold no entry that is the same at the same position.", ends]
    if found.since:
        lines.append(f"Compared from {found.since} on: what stood before was trimmed from one of them.")
    if found.actions:
        rows = [[str(one.action), one.tool, one.a or "-", one.b or "-"] for one in found.actions]
        lines += ["", *look.table(rows, head=["ACTION", "TOOL", "A", "B"], right=[0])]
    if found.runs:
        rows = [row for one in found.runs for row in _sides(one)]
        head = ["RUN", "IN", "STATUS", "TURNS", "ACTIONS", "TOKENS", "TASK"]
        lines += ["", *look.table(rows, head=head, right=[0, 3, 4, 5])]
    return [*lines, *(line for one in found.settings for line in look.wrapped("", one, label_width=2))]


def _sides(run: RunChange) -> list[list[str]]:
    """A line for each side: both side by side do not fit a terminal."""
    named = (("a", run.a), ("b", run.b))
    figures = [[name, *map(str, side or ("-",) * 4)] for name, side in named]
    return [[str(run.run), *figures[0], run.title], ["", *figures[1], ""]]
