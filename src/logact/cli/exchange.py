"""``logact log export`` and ``logact log import``: history to other tools, and from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from logact.cli import describe, look
from logact.cli.common import go, json_option, log_url, put, put_json, say_trimmed, with_log
from logact.core.state import State
from logact.entry import Entry
from logact.errors import UsageError
from logact.introspection.conversing import conversations, in_anthropics_form
from logact.introspection.exporting import traces
from logact.introspection.history import History, history
from logact.introspection.importing import ImportReport, import_trajectories
from logact.introspection.trajectories import FORMATS, read_trajectories
from logact.logs.base import SharedLog, where
from logact.logs.url import open_log

EXPORTS = ("jsonl", "messages", "anthropic", "otlp")
FILE_BYTES_MAX = 512 * 1024 * 1024


@click.command("import", short_help="Read conversations recorded elsewhere.")
@click.argument("log")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--format", "form", type=click.Choice(FORMATS), help="The form of FILES; found out if not given.")
@click.option("--agent", default="", metavar="NAME", help="Whose runs they are: imported:NAME.")
@json_option
def import_command(log: str, files: tuple[str, ...], form: Any, agent: str, as_json: bool) -> None:
    """Write recorded conversations from elsewhere into LOG, which is made if it is not there.

    FILES are OpenAI-style messages (JSON or JSON Lines), AgentDojo's recorded runs, or Claude Code's transcripts.
    What is imported is marked as such and can never act. Importing a file again changes nothing. A file that is no
    recording is left out and named, and the rest is imported.

    \b
    Examples:
      logact log import past.db ~/.claude/projects/*/*.jsonl
      logact health past.db --all

    \b
    Exit codes: 0 all were imported; 1 some files were left out; 2 none is a
    recording.
    """

    async def inside() -> ImportReport:
        reports: list[ImportReport] = []
        left_out: dict[str, str] = {}
        async with open_log(log_url(log)) as opened:
            for name in files:
                try:
                    trajectories = read_trajectories(_bytes(Path(name)), form, name=name)
                except UsageError as error:
                    left_out[name] = str(error)
                    if len(left_out) == len(files):
                        raise
                    continue
                reports.append(await import_trajectories(opened, trajectories, agent=agent, source=Path(name).name))
        return ImportReport(
            runs=tuple(run for one in reports for run in one.runs),
            agents=tuple(dict.fromkeys(name for one in reports for name in one.agents)),
            entries=sum(one.entries for one in reports),
            known=sum(one.known for one in reports),
            estimated=any(one.estimated for one in reports),
            lost=sum(one.lost for one in reports),
            left_out=left_out,
        )

    found = go(inside())
    if as_json:
        put_json(found)
    else:
        put(_import_lines(found))
    if found.left_out:
        raise click.exceptions.Exit(1)


def _import_lines(found: ImportReport) -> list[str]:
    again = f" ({found.known} of them known already)" if found.known else ""
    runs, entries = look.count(len(found.runs), "run"), look.count(found.entries, "entry", "entries")
    lines = look.wrapped("", f"Imported {runs}{again} of {', '.join(found.agents)}: {entries}.", label_width=0)
    if found.estimated:
        lines.append("  Tokens are not recorded there; they are estimated, at four characters each.")
    if found.lost:
        what = look.count(found.lost, "message or conversation", "messages or conversations")
        lines.append(f"  Left out: {what} that fitted nowhere or broke off.")
    for name, why in found.left_out.items():
        lines += look.wrapped("left out", look.clean(f"{name}: {why}"))
    return lines


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise UsageError(
                "The file is too large", received=look.size(path.stat().st_size), expected="up to 512 MB"
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            "The recording cannot be read", received=f"{path}: {error.strerror}", todo="check the path"
        ) from error


def _new(path: Path) -> TextIO:
    try:
        return path.open("x", encoding="utf-8")
    except FileExistsError as error:
        raise UsageError("The file exists", received=str(path), todo="name a new one") from error
    except OSError as error:
        raise UsageError(
            "The file cannot be made", received=f"{path}: {error.strerror}", todo="name another place"
        ) from error


async def _refuse_unknown(log: SharedLog, runs: tuple[int, ...]) -> None:
    """Raise UsageError for a run that the log does not hold."""
    if not runs:
        return
    held = {entry.position async for entry in log.read_kept(matching=where(kinds=["Run"]))}
    missing = [run for run in runs if run not in held]
    if missing:
        begins = await log.begins()
        raise UsageError(
            "The log holds no such run",
            received=", ".join(map(str, missing))
            + (f"; what stood before position {begins} was trimmed" if begins else ""),
            expected=", ".join(map(str, sorted(held)[-20:])) or "a log with runs",
            todo="see the runs with `logact actions LOG`",
        )


@click.command("export", short_help="Write entries to a file or elsewhere.")
@click.argument("log")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write to this new file instead.")
@click.option(
    "--format", "form", type=click.Choice(EXPORTS), default="jsonl", show_default=True, help="In which form."
)
def export_command(log: str, output: str | None, form: str, **options: Any) -> None:
    """Write LOG for other tools, as lines of JSON.

    jsonl: entries as they stand, one a line, whole headers, payloads and hashes. messages: a conversation for each
    run, one a line, in OpenAI's form; anthropic: the same in Anthropic's. otlp: OpenTelemetry traces, one JSON
    object, as collectors take it. All but the first heed --run only.

    \b
    Examples:
      logact log export ops.db -o ops.jsonl
      logact log export ops.db --format messages --run 12000
      logact log export ops.db --format otlp |
        curl -H 'content-type: application/json' -d @- $OTLP/v1/traces
    """
    from logact.cli.log import wanted

    runs = tuple(options["runs"])
    choice = wanted(options)
    file = Path(output) if output is not None else None

    async def work(opened: SharedLog) -> int:
        count = 0
        told: History | None = None
        target = _new(file) if file is not None else None

        def write(line: Any) -> None:
            nonlocal count
            text = msgspec.json.encode(line).decode(errors="replace")
            count += 1
            if target is None:
                click.echo(text)
            else:
                target.write(text + "\n")

        def entry_line(state: State, entry: Entry) -> None:
            if choice.fits(entry):
                write(describe.entry_json(entry, state.verdict))

        try:
            if form != "jsonl":
                await _refuse_unknown(opened, runs)
            if form == "jsonl":
                told = await history(opened, observer=entry_line)
            elif form in ("messages", "anthropic"):
                for one in await conversations(opened, runs):
                    write(one if form == "messages" else in_anthropics_form(one))
            else:
                write(await traces(opened, runs))
        finally:
            if target is not None:
                target.close()
        await say_trimmed(opened, told)
        return count

    written = with_log(log, work)
    if output is not None:
        nouns = {"jsonl": ("entry", "entries"), "otlp": ("object", "")}
        noun = nouns.get(form, ("conversation", ""))
        put(f"Wrote {look.count(written, *noun)} to {output}.")
