"""``logact driver``, ``voter``, ``decider``, ``executor``, ``recoverer``, ``checkpointer``: parts, a process each.

The parts meet only in the log; any number of each may run, on one machine or on several. SIGTERM ends one well: it
finishes what it runs, begins nothing more, and says goodbye in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import click

from logact.agent import LogActAgent
from logact.cli.common import F, Seconds, go, json_option, log_url, named, put, put_json, who
from logact.cli.progress import Progress
from logact.errors import UsageError
from logact.logs.base import SharedLog
from logact.models.telling import hearing
from logact.runtime.leaving import STOP_S, Leave, on_signals
from logact.runtime.supervised import end_with_supervisor, supervised
from logact.spec import build_agent, load_spec
from logact.spec_parts import secrets_there

ACTING = ("executor", "recoverer")
"""The parts that touch the world, and so need the specification's secrets."""

Play = Callable[[SharedLog, LogActAgent, Progress, Leave], Coroutine[Any, Any, None]]


def part(function: F) -> F:
    """What all parts take."""
    for option in (
        json_option,
        click.option(
            "--stop-within",
            "stop_s",
            type=Seconds(0, 86_400),
            default=STOP_S,
            metavar="SECONDS",
            help=f"How long what runs may take to end after SIGTERM ({STOP_S:g}).",
        ),
        click.option("--quiet", "-q", is_flag=True, help="Say nothing."),
        click.option("--log", "url", metavar="URL", callback=named, help="Use this log, whatever the file says."),
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
        "driver",
        spec,
        lambda log, agent, shown, leave: play_driver(log, agent, observers=[shown], leave=leave),
        model=model,
        **options,
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
        lambda log, agent, shown, leave: play_voter(log, agent, names=names or None, observers=[shown], leave=leave),
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

    _play(
        "decider",
        spec,
        lambda log, agent, shown, leave: play_decider(log, agent, observers=[shown], leave=leave),
        **options,
    )


@click.command("executor")
@part
def executor_command(spec: str, **options: Any) -> None:
    """Carry out what is committed, with the tools that SPEC lists. The only part that acts.

    \b
    Example:
      logact executor logact.toml &
    """
    from logact.runtime.assembly import play_executor

    _play(
        "executor",
        spec,
        lambda log, agent, shown, leave: play_executor(log, agent, observers=[shown], leave=leave),
        **options,
    )


@click.command("recoverer")
@part
def recoverer_command(spec: str, **options: Any) -> None:
    """Settle what executors that are gone left behind, as the tools' declared effects allow.

    \b
    Example:
      logact recoverer logact.toml &
    """
    from logact.runtime.assembly import play_recoverer

    _play(
        "recoverer",
        spec,
        lambda log, agent, shown, leave: play_recoverer(log, agent, observers=[shown], leave=leave),
        **options,
    )


@click.command("checkpointer")
@part
def checkpointer_command(spec: str, **options: Any) -> None:
    """Write checkpoints, so that a restart of any part reads the log's end and not all of it.

    \b
    Example:
      logact checkpointer logact.toml &
    """
    from logact.runtime.assembly import play_checkpointer

    _play(
        "checkpointer",
        spec,
        lambda log, agent, shown, leave: play_checkpointer(log, agent, observers=[shown], leave=leave),
        **options,
    )


@click.command("policy")
@json_option
@click.option("--log", "url", metavar="URL", callback=named, help="Use this log, whatever the file says.")
@click.argument("spec", type=click.Path())
def policy_command(spec: str, *, url: str | None, as_json: bool) -> None:
    """Put the policy and the specification that SPEC describes in force, as an operator.

    Where one process plays all parts it does so itself. Where the log is served and each part has a token of its
    own, none of them may: an operator does, before the parts begin and whenever SPEC changed.

    \b
    Example:
      logact policy logact.toml
    """
    from logact.runtime.setting_up import put_in_force

    file = load_spec(spec)
    agent = build_agent(file, log=log_url(url) if url else None, secrets=secrets_there(file))

    async def work() -> tuple[int, int]:
        async with agent.log as log:
            written = await put_in_force(log, agent, by=who())
            return written, await log.tail()

    written, position = go(work())
    if as_json:
        put_json({"event": "policy", "agent": agent.agent_id, "written": written, "position": position})
    elif written:
        put(f"In force for {agent.agent_id} on {agent.log.url}.")
    else:
        put(f"It was in force for {agent.agent_id} before.")


def _play(
    role: str,
    spec: str,
    play: Play,
    *,
    url: str | None,
    quiet: bool,
    as_json: bool,
    stop_s: float,
    model: str | None = None,
) -> None:
    end_with_supervisor()
    file = load_spec(spec)
    # only who acts needs the secrets: the others know those that are there, to redact them
    secrets = None if role in ACTING else secrets_there(file)
    agent = build_agent(file, log=log_url(url) if url else None, model=model, secrets=secrets)
    if agent.log.url.startswith("memory:"):
        raise UsageError(
            "The parts of an agent meet in a log", received=agent.log.url, expected="a log that processes can share"
        )
    progress = Progress(agent.agent_id, as_json=as_json, quiet=quiet)

    async def work() -> None:
        leave = Leave(stop_s)
        on_signals(leave)
        async with supervised(leave), agent.log as log:
            progress.begin(await log.tail())
            if not quiet:
                click.echo(f"{role} of {agent.agent_id} on {log.url}; Ctrl-C ends it", err=True)
            with hearing(progress.waits):
                await play(log, agent, progress, leave)

    go(work())
