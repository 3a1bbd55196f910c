"""``logact bench``: what a log costs here, before an agent is put on it."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from logact import env as environment
from logact.cli import look
from logact.cli.common import go, json_option, put, put_json
from logact.cli.measuring import Measured, Times, measure
from logact.errors import UsageError
from logact.logs.network_url import redacted
from logact.logs.url import open_log
from logact.server.names import url_of

SECONDS_MAX = 3600


@click.command("bench")
@click.argument("url", metavar="[URL]", required=False)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="About how long to measure, in all.")
@json_option
def bench_command(url: str | None, seconds: float, as_json: bool) -> None:
    """Measure what a log costs here: appends, followers, replay, whole actions.

    Without URL, a file in the current directory, which is removed again. On a server, a new log named bench-...,
    which stays there, since no engine deletes one; nothing else on the server is touched. An action is proposed,
    voted on, committed, run and recorded, in two durable writes.

    \b
    Examples:
      logact bench
      logact bench postgresql://db.example/ops --seconds 20

    \b
    Exit codes: 0 measured; 2 this cannot be measured; 5 no log.
    """
    if not 0 < seconds <= SECONDS_MAX:
        raise UsageError(
            "That is no time to measure",
            received=f"--seconds {seconds:g}",
            expected=f"more than 0, up to {SECONDS_MAX:g}",
        )
    if url is None:
        with tempfile.TemporaryDirectory(prefix="logact-bench-", dir=_here(), ignore_cleanup_errors=True) as made:
            found = _measure(f"sqlite:///{quote(made)}/bench.db", seconds, Path(made))
    else:
        found = _measure(new_log(url), seconds, None)
    if as_json:
        put_json(msgspec.to_builtins(found))
    else:
        put(_in_words(found))
        if url is not None and not found.log.startswith("memory:"):
            put(f"{found.log} stays there, with what was written.")


def new_log(url: str) -> str:
    """The URL of a log of its own on the engine that a URL names."""
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() in ("sqlite", "file"):
        raise UsageError(
            "A file is measured where it would lie",
            received=redacted(url),
            expected="the URL of a server, or nothing",
            todo="go to that directory, and leave URL out",
        )
    return url_of(url, f"bench-{environment.current().identifier()}")


def _here() -> Path:
    here = Path.cwd()
    with suppress(OSError), tempfile.TemporaryFile(dir=here):
        return here
    raise UsageError("No file can be made here", received=str(here), todo="go to a directory that you may write")


def _measure(url: str, seconds: float, directory: Path | None) -> Measured:
    async def work() -> Measured:
        async with open_log(url) as log, open_log(url) as other:
            return await measure(log, other, seconds=seconds, directory=directory, say=_say)

    return go(work())


def _say(what: str) -> None:
    click.echo(f"... {what}", err=True)


def _in_words(found: Measured) -> list[str]:
    rows = [
        ("flush", _times(found.flush), "the disk's own, for as many bytes"),
        ("append", _times(found.append), "one after the other, durable"),
        (
            f"{found.writers} writers",
            f"{found.appends_per_s:,.0f}/s" if found.appends_per_s is not None else "",
            "appends at once, durable",
        ),
        ("follow", _times(found.follow), "from the append's start to another reader"),
        ("replay", f"{found.replay_per_s:,.0f}/s" if found.replay_per_s is not None else "", "entries read again"),
        ("action", _times(found.action), "proposed, voted, run, recorded"),
    ]
    table = look.table([row for row in rows if row[1]])
    return [f"{found.engine}: {look.count(found.entries, 'entry', 'entries')}", *table, *found.notes]


def _times(times: Times | None) -> str:
    return f"{times.median_ms:.2f} ms (p99 {times.p99_ms:.2f})" if times is not None else ""
