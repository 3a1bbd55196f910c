"""``logact undo``: what a run or an action did is taken back, as far as its tools know how."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from logact.agent import LogActAgent
from logact.agent_tuning import undo_change
from logact.cli import look
from logact.cli.common import go, json_option, named, put, put_json
from logact.entry import Notice
from logact.errors import LogTrimmed, UsageError
from logact.introspection.tuning import APPLIED
from logact.logs.base import SharedLog
from logact.spec import build_agent, load_spec
from logact.spec_change import change_tool
from logact.spec_parts import tools_of
from logact.undoing import UndoReport


@click.command("undo")
@click.argument("spec", type=click.Path())
@click.argument("position", type=int, metavar="RUN|ACTION|CHANGE")
@click.option("--takeover", is_flag=True, help="Fence off another process that plays this agent.")
@click.option("--log", "url", metavar="URL", callback=named, help="Use this log, whatever the file says.")
@json_option
def undo_command(spec: str, position: int, takeover: bool, url: str | None, as_json: bool) -> None:
    """Take back what a RUN or an ACTION did, newest first.

    Each undo is proposed, voted on, committed and executed like any other action, by the undo that the tool of SPEC
    declares. It stops at the first that does not succeed; the same command goes on. A change that was applied to
    save tokens (`logact swarm show` names its position) is taken back by one entry.

    \b
    Examples:
      logact undo logact.toml 2000
      logact undo logact.toml 12004

    \b
    Exit codes: 0 all is undone; 1 something still stands; 2 there is
    nothing at this position; 4 something is in doubt.
    """
    from logact.cli.common import log_url

    agent = undoer(spec, takeover=takeover, log=log_url(url) if url else None)

    async def work() -> UndoReport | int:
        async with agent.log as log:
            if await _is_change(log, position):
                return await undo_change(log, position)
            return await agent.undo(position)

    report = go(work())
    if isinstance(report, int):
        if as_json:
            put_json({"complete": True, "undoes": position, "position": report})
        else:
            put(f"The change at {position} is taken back, from its agent's next turn on.")
        return
    if as_json:
        put_json({"complete": report.complete, **msgspec.to_builtins(report)})
    else:
        put(lines_of(report))
    if not report.complete:
        raise click.exceptions.Exit(1)


async def _is_change(log: SharedLog, position: int) -> bool:
    """Whether a change was applied there. What is not there any more may still be undone: the fold knows of it."""
    try:
        said = (await log.get(position)).payload
    except (UsageError, LogTrimmed):
        return False
    return isinstance(said, Notice) and said.code == APPLIED


def undoer(specification: str, **options: Any) -> LogActAgent:
    """The agent of a specification, with all that it can take back."""
    file = load_spec(specification)
    tools = [*tools_of(file, file.log_url), change_tool(file.path)]  # what `logact debug --apply` changed, too
    return build_agent(file, tools=tools, **options)


def lines_of(report: UndoReport) -> list[str]:
    """A report for people."""
    return [part for line in report.in_words().splitlines() for part in look.wrapped("", line, label_width=0)]
