"""``logact health SPEC --schedule`` and ``--due``: health checks at the times that a specification says."""

from __future__ import annotations

from typing import Any

import click

from logact.cli.common import go, put, put_json
from logact.errors import UsageError
from logact.introspection.health import EXIT_CODES
from logact.logs.url import open_log
from logact.runtime.scheduler import Due, Work
from logact.spec import build_agent, load_spec
from logact.spec_health import watch_health


def play(log: str, model: str | None, *, once: bool, as_json: bool) -> int:
    """Run what is due: once, or until interrupted. Says what was checked, and what was done.

    Returns the exit code of the verdict, if something was checked.
    """
    if not log.endswith(".toml"):
        raise UsageError("A schedule stands in a specification", received=log, expected="a file such as logact.toml")
    spec = load_spec(log)
    table = spec.health
    if table is None:
        raise UsageError(
            "The specification says nothing about health",
            received=log,
            todo='add [health] with cron = "*/15 * * * *"',
        )

    verdicts: list[str] = []

    async def inside() -> None:
        from logact.models import model_from_name

        name = model or table.model
        async with open_log(spec.log_url) as opened:
            agent = build_agent(spec, log=opened)
            scheduler = watch_health(opened, agent, table, model_from_name(name) if name else None)
            scheduler.work = _told(scheduler.work, as_json, verdicts)
            if once:
                if not await scheduler.tick() and not as_json:
                    put("Nothing is due.")
            else:
                await scheduler.run()

    go(inside())
    return max((EXIT_CODES[one] for one in verdicts), default=0)


def _told(work: Work, as_json: bool, verdicts: list[str]) -> Work:
    async def inner(due: Due) -> Any:
        outcome = await work(due)
        verdicts.append(str(outcome["verdict"]))
        if as_json:
            put_json({"job": due.job.name, "at_ms": due.at_ms, "missed": due.missed, **outcome})
        else:
            click.echo(f"{due.job.name}: {outcome['verdict']}, {outcome['did']}")
        return outcome

    return inner
