"""``logact log move``: a log goes on elsewhere."""

from __future__ import annotations

import click
import msgspec

from logact.cli import look
from logact.cli.common import json_option, log_url, put, put_json, who, with_log
from logact.logs.base import SharedLog
from logact.runtime.moving import Moved, move


@click.command("move", short_help="Go on at another place, while agents run.")
@click.argument("log", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--copy", is_flag=True, help="Copy the history too, and compare it; else it stays in SRC.")
@json_option
def move_command(log: str, target: str, copy: bool, as_json: bool) -> None:
    """Let the log SRC go on at DST, on any engine, while agents run.

    Positions, ids and history stay what they are. SRC is sealed by an entry that names DST: whoever opens SRC, or has
    it open, goes on at DST. If the move is interrupted, run it again, or just open either: exactly one of the two can
    be written at any time. Without --copy the history stays in SRC, which has to stay readable.

    Passwords do not belong into DST: its address is written into the log.

    \b
    Examples:
      logact log move ops.db postgresql://db.example/ops?log=ops
      logact log move ops.db /mnt/big/ops.db --copy

    \b
    Exit codes: 0 moved; 2 DST is not empty, or SRC moved elsewhere;
    3 a copy differs; 5 one of them cannot be reached.
    """

    def progress(done: int, of: int) -> None:
        if not as_json:
            click.echo(f"\rcopied and compared {done} of {of} records", nl=done >= of, err=True)

    async def work(opened: SharedLog) -> Moved:
        return await move(opened, log_url(target), copy=copy, name=who(), progress=progress)

    done = with_log(log, work)
    if as_json:
        put_json(msgspec.to_builtins(done))
        return
    put(f"The log {done.log} goes on elsewhere, after position {done.position}.")
    put(look.wrapped("now at", done.target, indent=2))
    if done.copied:
        said = f"copied and compared ({look.count(done.copied, 'record')}); {done.source} can go"
    else:
        said = f"stays at {done.source}, which has to stay readable"
    put(look.wrapped("history", said, indent=2))
