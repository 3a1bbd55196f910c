"""What every command shares: which log is meant, running coroutines, JSON lines, options."""

from __future__ import annotations

import asyncio
import getpass
import math
import os
import re
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from click.core import ParameterSource

from logact import env as environment
from logact.cli import look
from logact.env_guest import from_outside
from logact.errors import SALVAGE, LogActError, LogUnavailable, UsageError
from logact.logs.base import SharedLog
from logact.logs.network_url import redacted
from logact.logs.url import BUILT_IN, open_log

if TYPE_CHECKING:
    from logact.introspection.history import History

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//.*)?")


class Seconds(click.FloatRange):
    """A time span in seconds; ``nan``, which lies in every range and in none, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return found


def named(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """For options that name something: an empty text (of a variable that is not set) is not "left out"."""
    given = ctx.get_parameter_source(param.name or "") is not ParameterSource.DEFAULT
    if given and value is not None and not value.strip():
        raise click.BadParameter("it is empty; leave the option out, or say what it names")
    return value


LOG_HELP = "LOG is a URL (sqlite:///ops.db), the path of a log's file, or a specification (logact.toml)."

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for machines.")


def log_url(text: str) -> str:
    """The URL that a LOG argument means."""
    if not text.strip():
        raise UsageError(
            "No log is named",
            received="an empty text",
            expected="a log's file or URL, or a specification",
            todo="check the variable or the line that it came from",
        )
    if text.endswith(".toml"):
        from logact.spec import load_spec

        return load_spec(text).log_url
    if "://" in text or ((_SCHEME.fullmatch(text) or _known(text)) and not exists(text)):
        from logact.spec import absolute_url

        return absolute_url(text, Path.cwd())
    path = Path(text).absolute()
    if exists(path) and path.is_dir() and (path / "logact.toml").is_file():
        return log_url(str(path / "logact.toml"))
    from urllib.parse import quote

    return f"sqlite:///{quote(str(path))}"


def exists(path: str | Path) -> bool:
    """Whether a file is there; one of an impossible name is not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


POSITION_DIGITS_MAX = 16


def at(text: str) -> tuple[str, int | None]:
    """A LOG[@POSITION] argument: the log, and the position if one is named. Raises UsageError if it is none."""
    name, mark, said = text.rpartition("@")
    authority = name.partition("://")[2]
    if not mark or "/" in said or exists(text):
        return text, None  # the mark is of a user or of a directory
    if said.isascii() and said.isdigit() and len(said) <= POSITION_DIGITS_MAX:
        return name, int(said)
    if "://" in name and not set(authority) & set("/?"):
        return text, None  # scheme://user@host
    raise UsageError(
        "This is not a position",
        received=f"{said[:40]!r} after {redacted(name)}@",
        expected="LOG@POSITION with a number, as in ops.db@12000",
        todo="see the positions with `logact log show LOG`",
    )


def _known(text: str) -> bool:
    """Whether it begins like the URL of a built-in engine, as ``sqlite:ops.db`` does; its engine knows better."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme.lower() in BUILT_IN


def existing_log(text: str) -> SharedLog:
    """The log that a LOG argument means; never creates one. Raises LogUnavailable if it is not there."""
    from logact.spec_parts import file_of

    url = log_url(text)
    if url.startswith("memory:"):
        raise UsageError(
            "A log in memory lives in the process that made it",
            received=redacted(url),
            expected="a log that others can read",
            todo="name a file or a server",
        )
    log = open_log(url, **_keys_of(text))
    log.engine.create = False
    log.refuse_half_forks = True
    file = file_of(url)
    if file is None:
        return log
    if not exists(file):
        raise LogUnavailable(
            "There is no log", received=str(file), todo="check the path; `logact run` makes a log when it starts"
        )
    _check_file(file, url)
    return log


def _keys_of(text: str) -> dict[str, str]:
    """The key files that a specification names; of any other LOG none."""
    path = Path(text)
    path = path / "logact.toml" if exists(path) and path.is_dir() else path
    if path.suffix != ".toml" or not exists(path) or not path.is_file():
        return {}
    from logact.spec import load_spec

    return load_spec(path).keys


def _check_file(file: Path, url: str) -> None:
    """Refuse what opening would otherwise make: a database of an empty file, a log of a mistyped name."""
    import sqlite3
    from urllib.parse import parse_qs, quote, urlsplit

    if not file.is_file():
        raise LogUnavailable("The log is not a file", received=str(file), todo="name the log's file")
    if file.stat().st_size == 0:
        raise LogUnavailable("The file is empty, so it holds no log", received=str(file), todo="check the path")
    name = parse_qs(urlsplit(url).query).get("log", ["main"])[0]
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=5)
        try:
            names = [str(row[0]) for row in connection.execute("SELECT name FROM logs ORDER BY name")]
        finally:
            connection.close()
    except sqlite3.Error:
        return  # the engine says what is wrong, in its own words
    if name not in names:
        raise LogUnavailable(
            "The file holds no log of this name",
            received=name,
            expected=", ".join(names[:10]) or "no log at all",
            todo="name it with sqlite:///FILE?log=NAME",
        )


THREADS_END_S = 2.0
"""How long a tool that runs on in a thread is waited for once everything else is done."""


def go(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end.

    A tool that still runs in a thread then (it timed out, or Ctrl-C came) is not waited for: ``main`` ends the
    process, which ends the tool, and the log says that it was started.
    """
    pool = ThreadPoolExecutor(thread_name_prefix="logact")
    runner = asyncio.Runner()
    runner.get_loop().set_default_executor(pool)
    try:
        return _to_its_end(runner, work)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        clock = environment.current()
        end = clock.monotonic() + THREADS_END_S
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("logact")]
        for thread in threads:
            thread.join(max(0.0, end - clock.monotonic()))
        if not any(thread.is_alive() for thread in threads):
            runner.close()


def _to_its_end(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
    """Run on although a task that a tool began for itself exits: the loop lets that through, past everybody.

    Whoever awaits that task, the tool that is, gets the exit as well, and fails of it.
    """
    task: asyncio.Task[T] | None = None

    async def first() -> T:
        nonlocal task
        task = asyncio.current_task()
        return await work

    async def further(begun: asyncio.Task[T]) -> T:
        return await begun

    try:
        return runner.run(first())
    except SystemExit as error:
        problem = error
    while task is not None and not task.done() and not from_outside(problem):
        try:
            return runner.run(further(task))
        except SystemExit as error:
            problem = error
    raise problem


async def say_trimmed(log: SharedLog, told: History | None = None) -> None:
    """One line about what a trimmed log (or this fold of it) cannot show. Nothing of a whole or of a damaged log."""
    began = told.began if told is not None and not told.damaged else 0
    if position := began or await log.begins():
        click.echo(f"Trimmed: what stood before position {position} is not shown.", err=True)


def with_log(text: str, work: Callable[[SharedLog], Coroutine[Any, Any, T]], *, past: bool = False) -> T:
    """Open an existing log, do something with it, close it. ``past``: say what of the past was trimmed."""

    async def inside() -> T:
        async with existing_log(text) as log:
            try:
                found = await work(log)
                if past:
                    await say_trimmed(log)
                return found
            finally:
                warn_of_damage(log)
                if log.stale_s is not None:
                    click.echo(f"STALE: the log cannot be reached; this is {log.stale_s:.0f} s old.", err=True)

    return go(inside())


def warn_of_damage(log: SharedLog) -> None:
    """Say it if what was shown of a log passed over damage before its checkpoint."""
    if log.passed_over:
        click.echo("\n".join(look.wrapped("DAMAGED", f"{log.passed_over}. To do: {SALVAGE}.")), err=True)


def put_json(thing: Any) -> None:
    """One JSON object on a line of its own."""
    click.echo(msgspec.json.encode(thing).decode(errors="replace"))


def put(lines: str | list[str]) -> None:
    """Lines for people."""
    for line in [lines] if isinstance(lines, str) else lines:
        click.echo(line)


def error_json(error: LogActError) -> dict[str, Any]:
    """An error as a JSON object."""
    return {
        "event": "error",
        "code": error.code,
        "definite": error.definite,
        "exit_code": error.exit_code,
        "message": str(error),
    }


def who() -> str:
    """The name under which a person acts here: LOGACT_OPERATOR, or the login name."""
    try:
        return os.environ.get("LOGACT_OPERATOR", "").strip() or getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "operator"
