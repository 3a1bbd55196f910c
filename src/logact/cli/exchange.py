"""``logact log export`` and ``logact log import``: history to other tools, and from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from logact.cli import look
from logact.cli.common import go, json_option, log_url, put, put_json
from logact.errors import UsageError
from logact.introspection.importing import ImportReport, import_trajectories
from logact.introspection.trajectories import FORMATS, read_trajectories
from logact.logs.url import open_log

FILE_BYTES_MAX = 512 * 1024 * 1024


@click.command("import")
@click.argument("log")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--format", "form", type=click.Choice(FORMATS), help="The form of FILES; found out if not given.")
@click.option("--agent", default="", metavar="NAME", help="Whose runs they are: imported:NAME.")
@json_option
def import_command(log: str, files: tuple[str, ...], form: Any, agent: str, as_json: bool) -> None:
    """Write recorded conversations from elsewhere into LOG, which is made if it is not there.

    FILES are OpenAI-style messages (JSON or JSON Lines), AgentDojo's recorded runs, or Claude Code's transcripts.
    What is imported is marked as such and can never act. Importing a file again changes nothing.

    \b
    Examples:
      logact log import past.db ~/.claude/projects/*/*.jsonl
      logact health past.db --all
    """

    async def inside() -> ImportReport:
        reports = []
        async with open_log(log_url(log)) as opened:
            for name in files:
                trajectories = read_trajectories(_bytes(Path(name)), form, name=name)
                reports.append(await import_trajectories(opened, trajectories, agent=agent, source=Path(name).name))
        return ImportReport(
            runs=tuple(run for one in reports for run in one.runs),
            agents=tuple(dict.fromkeys(name for one in reports for name in one.agents)),
            entries=sum(one.entries for one in reports),
            known=sum(one.known for one in reports),
            estimated=any(one.estimated for one in reports),
        )

    found = go(inside())
    if as_json:
        put_json(found)
        return
    again = f" ({found.known} of them known already)" if found.known else ""
    put(f"Imported {look.count(len(found.runs), 'run')}{again} of {', '.join(found.agents)}: "
        f"{look.count(found.entries, 'entry', 'entries')}.")  # fmt: skip
    if found.estimated:
        put("  Tokens are not recorded there; they are estimated, at four characters each.")


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
