"""``logact log trim`` and ``logact log repair``: a log made shorter, and one made whole as far as it goes."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from logact.cli import look
from logact.cli.common import go, json_option, log_url, put, put_json, who, with_log
from logact.cli.witness import witness_meant
from logact.errors import UsageError
from logact.logs.base import SharedLog
from logact.logs.network_url import redacted
from logact.runtime.repairing import Repair, repair
from logact.runtime.trimming import Trimmed, trim


@click.command("trim", short_help="Drop what old checkpoints make needless.")
@click.argument("log")
@click.option("--archive", type=click.Path(dir_okay=False, path_type=Path), help="Copy the whole log there first.")
@click.option("--before", type=int, default=0, metavar="N", help="Keep everything from this position on.")
@json_option
def trim_command(log: str, archive: Path | None, before: int, as_json: bool) -> None:
    """Drop what stands before the last checkpoint of LOG but one.

    What is undecided or in doubt travels in the checkpoint; what a running run still needs stays. A log that
    does not verify is not trimmed, and an archive is verified before anything is dropped.

    \b
    Example:
      logact log trim ops.db --archive ops-2026.db

    \b
    Exit codes: 0 trimmed; 1 nothing could be dropped; 2 the archive
    exists; 3 the log is damaged.
    """

    async def work(opened: SharedLog) -> Trimmed:
        return await trim(opened, archive=archive, before=before, name=who())

    done = with_log(log, work)
    if as_json:
        put_json(msgspec.to_builtins(done))
    else:
        put(
            f"Dropped {look.count(done.records, 'record')} before position {done.before}."
            if done.before
            else "Nothing was dropped."
        )
        for one in done.held_by:
            put(f"  {one}")
    if not done.before:
        raise click.exceptions.Exit(1)


@click.command("repair", short_help="Salvage what is readable of a damaged file.")
@click.argument("log")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path), metavar="DST")
@click.option("--witness", metavar="FILE|URL", help="Where heads of the log were written down.")
@json_option
def repair_command(log: str, target: Path, witness: str | None, as_json: bool) -> None:
    """Salvage every readable record of the damaged file LOG into a new log DST.

    Says exactly what is missing. Where something is, runs are ended and what was started is left in doubt: nothing
    begins on the strength of a log with holes. LOG itself is not touched. If LOG is a specification, its witness is
    asked. A log of which something is missing is not the one that a witness saw: have the witness begin anew then,
    with `logact log witness`.

    \b
    Example:
      logact log repair ops.db mended.db --witness /mnt/other/ops.heads

    \b
    Exit codes: 0 nothing is missing; 1 something is; 2 DST exists;
    3 nothing can be read; 5 no such file.
    """
    from urllib.parse import parse_qs, urlsplit

    from logact.spec_parts import file_of

    url = log_url(log)
    file = file_of(url)
    if file is None:
        raise UsageError("Only files are repaired", received=redacted(url), expected="a SQLite log")
    name = parse_qs(urlsplit(url).query).get("log", ["main"])[0]
    meant = witness_meant(log, witness)
    done = go(repair(file, target, log=name, witness=meant.place or None, name=who(), key=meant.public))
    if as_json:
        put_json({"complete": done.complete, **msgspec.to_builtins(done)})
    else:
        put(_lines(done, target))
        if meant.place and not done.complete:
            said = f"`logact log witness LOG{f' --witness {redacted(witness)}' if witness else ''}`"
            put(look.wrapped("next", f"put it in LOG's place, then have the witness go on from it: {said}", indent=2))
    if not done.complete:
        raise click.exceptions.Exit(1)


def _lines(done: Repair, target: Path) -> list[str]:
    entries = look.count(done.entries, "entry", "entries")
    lines = [f"Salvaged {entries} in {look.count(done.records, 'record')} to {target}."]
    lines += [f"  missing: positions {first} to {last + 999}" for first, last in done.missing]
    lines += [f"  missing: the payload at {position}" for position in done.unreadable]
    lines += [f"  missing: blob {digest}" for digest in done.missing_blobs]
    lines += [f"  missing: the tail ({done.lost_tail})"] if done.lost_tail else []
    lines += [f"  note: {one}" for one in done.notes]
    lines += [f"  ended: run {run}" for run in done.stopped_runs]
    lines += [f"  in doubt: action {one}; see `logact doubt {target}`" for one in done.in_doubt]
    lines += [f"  uncertain: action {one} may have been started in what is missing" for one in done.uncertain]
    return lines if not done.complete else [*lines, "Nothing is known to be missing."]
