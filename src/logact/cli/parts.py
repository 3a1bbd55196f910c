"""``logact driver``, ``voter``, ``decider``, ``executor``, ``recoverer``: the parts of an agent, a process each.

The parts meet only in the log; any number of each may run, on one machine or on several.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import click

from logact.agent import LogActAgent
from logact.cli.common import F, go, json_option, log_url
from logact.cli.progress import Progress
from logact.errors import UsageError
from logact.logs.base import SharedLog
from logact.spec import build_agent, load_spec

Play = Callable[[SharedLog, LogActAgent, Progress], Coroutine[Any, Any, None]]


def part(function: F) -> F:
    """What all parts take."""
    for option in (
        json_option,
        click.option("--quiet", "-q", is_flag=True, help="Say nothing."),
        click.option("--log", "url", metavar="URL", help="Use this log, whatever the file says."),
        click.argument("spec", type=click.Path()),
    ):
        function = option(function)
    return function


@click.command("driver")
@part
@click.option("--model", metavar="NAME", help="Use this model, whatever the file or LOGACT_MODEL says.")
def driver_command(spec: str, *, model: str | None, **options: Any) -> None:
    """Ask the model, and propose what it wants. It cannot act.

    Takes up every run of the agent that is not finished; `logact run SPEC --submit TASK` begins one.

    \b
    Example:
      logact driver logact.toml &
    """
    from logact.runtime.assembly import play_driver

    _play(
        "driver", spec, lambda log, agent, shown: play_driver(log, agent, observers=[shown]), model=model, **options
    )


@click.command("voter")
@part
@click.option("--name", "names", multiple=True, metavar="NAME", help="Only this voter of the file; may be repeated.")
def voter_command(spec: str, *, names: tuple[str, ...], **options: Any) -> None:
    """Judge what is proposed, with the voters that SPEC lists. It cannot act.

    \b
    Example:
      logact voter logact.toml --name safety &
    """
    from logact.runtime.assembly import play_voter

    _play(
        "voter",
        spec,
        lambda log, agent, shown: play_voter(log, agent, names=names or None, observers=[shown]),
        **options,
    )


@click.command("decider")
@part
def decider_command(spec: str, **options: Any) -> None:
    """Turn votes into commits and aborts, and passed deadlines into expiries.

    \b
    Example:
      logact decider logact.toml &
    """
    from logact.runtime.assembly import play_decider

    _play("decider", spec, lambda log, agent, shown: play_decider(log, agent, observers=[shown]), **options)


@click.command("executor")
@part
def executor_command(spec: str, **options: Any) -> None:
    """Carry out what is committed, with the tools that SPEC lists. The only part that acts.

    \b
    Example:
      logact executor logact.toml &
    """
    from logact.runtime.assembly import play_executor

    _play("executor", spec, lambda log, agent, shown: play_executor(log, agent, observers=[shown]), **options)


@click.command("recoverer")
@part
def recoverer_command(spec: str, **options: Any) -> None:
    """Settle what executors that are gone left behind, as the tools' declared effects allow.

    \b
    Example:
      logact recoverer logact.toml &
    """
    from logact.runtime.assembly import play_recoverer

    _play("recoverer", spec, lambda log, agent, shown: play_recoverer(log, agent, observers=[shown]), **options)


def _play(
    role: str, spec: str, play: Play, *, url: str | None, quiet: bool, as_json: bool, model: str | None = None
) -> None:
    agent = build_agent(load_spec(spec), log=log_url(url) if url else None, model=model)
    if agent.log.url.startswith("memory:"):
        raise UsageError(
            "The parts of an agent meet in a log", received=agent.log.url, expected="a log that processes can share"
        )
    progress = Progress(agent.agent_id, as_json=as_json, quiet=quiet)

    async def work() -> None:
        async with agent.log as log:
            progress.begin(await log.tail())
            if not quiet:
                click.echo(f"{role} of {agent.agent_id} on {log.url}; Ctrl-C ends it", err=True)
            await play(log, agent, progress)

    go(work())
