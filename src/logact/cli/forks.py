"""``logact fork`` and ``logact diff``: another future from the same past, and what became different."""

from __future__ import annotations

import click
import msgspec

from logact.cli import look
from logact.cli.common import at, existing_log, go, json_option, log_url, put, put_json, warn_of_damage, who
from logact.errors import UsageError
from logact.introspection.diff import Difference, RunChange, diff
from logact.logs.network_url import redacted
from logact.logs.url import open_log
from logact.runtime.forking import Fork, fork


@click.command("fork")
@click.argument("log", metavar="LOG@POSITION")
@click.argument("target", metavar="DST")
@click.option("--keep-parent", is_flag=True, help="Do not pause the parent's runs: their budgets exist twice then.")
@json_option
def fork_command(log: str, target: str, keep_parent: bool, as_json: bool) -> None:
    """Start a new log DST with the past of LOG up to POSITION.

    What was done stays done, and is not done again. What is unfinished there belongs to the parent, and is closed
    in the fork. Budgets are moved: the parent's runs that go on in the fork are paused.

    \b
    Examples:
      logact fork ops.db@12000 try.db
      logact run other-model.toml --log try.db

    \b
    Exit codes: 0 forked; 2 no such position, or DST is not empty;
    3 the log is damaged.
    """
    name, position = at(log)
    if position is None:
        raise UsageError(
            "Where does it fork?", received=redacted(log), expected="LOG@POSITION", todo="see `logact log show`"
        )

    async def work() -> Fork:
        async with existing_log(name) as source, open_log(log_url(target)) as new:
            return await fork(source, position, new, name=who(), keep_parent=keep_parent)

    done = go(work())
    if as_json:
        put_json(msgspec.to_builtins(done))
        return
    put(f"Forked {done.parent} at {done.position}: {look.count(done.records, 'record')}.")
    put(look.wrapped("fork", f"{redacted(target)} (log {done.log})", indent=2))
    if done.closed:
        put(look.wrapped("closed", f"{', '.join(map(str, done.closed))}, since the parent has them", indent=2))
    for run in done.paused:
        lets_go = f"`logact resume {redacted(name)} --run {run}` lets it go on"
        put(look.wrapped("paused", f"run {run} in the parent; {lets_go}", indent=2))


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
