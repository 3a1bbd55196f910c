"""``logact swarm``: agents of a specification share a task, and what the log says of it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click
import msgspec

from logact.cli import look
from logact.cli.common import Seconds, existing_log, go, json_option, put, put_json
from logact.errors import SpecError, UsageError
from logact.introspection.agentic import AgenticIntrospection
from logact.introspection.optimizing import Optimized
from logact.logs.url import open_log
from logact.spec import build_agent, load_spec, model_of
from logact.swarm import SubTask, Swarm, SwarmResult
from logact.swarm.looking import Change, SwarmLook
from logact.swarm.looking import look as looked

AGENTS_MAX = 100


@click.group("swarm")
def swarm_command() -> None:
    """Agents that share one task through one log: who does what, and what it cost.

    \b
    Example:
      logact swarm run logact.toml "review the module" --plan plan.toml
      logact swarm show logact.toml --follow
    """


@swarm_command.command("run")
@click.argument("spec", type=click.Path())
@click.argument("task")
@click.option("--plan", type=click.Path(), metavar="FILE", help="The tasks, in TOML or JSON; else the model splits.")
@click.option(
    "--agents",
    type=click.IntRange(1, AGENTS_MAX),
    default=3,
    show_default=True,
    metavar="N",
    help="How many agents this process plays.",
)
@click.option(
    "--first",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="The number in the first one's name; other processes take others.",
)
@click.option(
    "--role",
    "played",
    multiple=True,
    metavar="N=ROLE",
    help="Agent number N plays ROLE, and may do tasks for it. Repeat for more.",
)
@click.option("--together", is_flag=True, help="Keep related tasks on one agent, in one conversation.")
@click.option("--handover", is_flag=True, help="Hand long results over as summaries.")
@click.option("--talk", is_flag=True, help="Let the agents write to each other and see what the others do.")
@click.option("--optimize", is_flag=True, help="First apply what this log shows would save these agents tokens.")
@click.option(
    "--lease",
    "lease_s",
    type=Seconds(min=0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a claim lasts unless it is renewed.",
)
@json_option
def swarm_run(
    spec: str,
    task: str,
    *,
    plan: str | None,
    agents: int,
    first: int,
    optimize: bool,
    lease_s: float,
    as_json: bool,
    **how: Any,
) -> None:
    """Share TASK among agents as SPEC describes them, and print the joined answer.

    The agents are NAME-1, NAME-2 and so on, each with SPEC's tools, voters and limits. The same command in another
    process (with another --first) joins in; after a crash it goes on. FILE holds [[task]] tables (or a list) with
    name, text, and perhaps after, role and keep; or plain texts. A task for a role waits until an agent plays it.
    With --optimize another model is only tried if the agents' voters approve.

    \b
    Examples:
      logact swarm run logact.toml "review it" --plan plan.toml --role 1=judge
      logact swarm run logact.toml "review the module" --agents 5 --first 6
    """
    wanted = load_spec(spec)
    tasks = read_plan(Path(plan)) if plan is not None else None
    roles = read_roles(how.pop("played"), wanted.agent.name, range(first, first + agents))
    nobodys = {one.role for one in tasks or () if isinstance(one, SubTask) and one.role} - {*chain(*roles.values())}
    if nobodys:
        click.echo(f"Nobody here plays {', '.join(sorted(nobodys))}: those tasks wait for another process.", err=True)

    async def inside() -> SwarmResult:
        async with open_log(wanted.log_url, **wanted.keys) as log:
            made = [
                build_agent(wanted, log=log, agent_id=f"{wanted.agent.name}-{number}")
                for number in range(first, first + agents)
            ]
            planner = None if tasks is not None else model_of(wanted)
            swarm = Swarm(
                made,
                log,
                name=f"{wanted.agent.name}-swarm",
                planner=planner,
                roles=roles,
                lease_s=lease_s,
                voters=(),
                **how,
            )
            if optimize:
                click.echo(
                    _applied(await AgenticIntrospection().optimize_token_usage(made, automatic=True)), err=True
                )
            found: SwarmResult = await swarm.run(task, tasks)
            return found

    result = go(inside())
    if as_json:
        answers = {name: {"position": one.position, "text": one.text} for name, one in result.results.items()}
        put_json({"run": result.run, "position": result.position, "text": result.text, "results": answers})
    else:
        put([look.clean(line) for line in result.text.split("\n")])


@swarm_command.command("show")
@click.argument("log")
@click.option("--run", type=int, default=0, metavar="N", help="The task of this run; else the last.")
@click.option("--follow", is_flag=True, help="Show it again whenever something changes, until it is over.")
@json_option
def swarm_show(log: str, *, run: int, follow: bool, as_json: bool) -> None:
    """The tasks of a swarm in LOG: who has them, what failed, tokens, and what changes saved.

    LAPSES are claims that were ended since their holder was gone. What a change saved is measured: tokens per answer
    of its agent's runs before and after it.

    \b
    Examples:
      logact swarm show logact.toml
      logact swarm show ops.db --follow

    \b
    Exit codes: 0 done or under way; 1 a task failed, or the whole was stopped.
    """

    async def inside() -> SwarmLook:
        async with existing_log(log) as opened:
            before: SwarmLook | None = None
            while True:
                found = await looked(opened, run)
                if found != before:
                    _show(found, as_json, again=before is not None)
                before = found
                if not follow or found.status != "running":
                    return found
                await opened.open()
                await opened.engine.wait(await opened.engine.tail(), 1.0)

    found = go(inside())
    if found.status == "stopped" or any(one.failures and one.status != "done" for one in found.tasks):
        raise click.exceptions.Exit(1)


def _applied(found: Optimized) -> str:
    """What was applied before the work, in a line."""
    count = sum(map(len, found.applied.values()))
    return f"Applied {look.count(count, 'change')}; see them with `logact swarm show`."


def read_roles(given: Sequence[str], name: str, numbers: range) -> dict[str, list[str]]:
    """The roles of each agent of this process, from texts such as ``2=judge``. UsageError for anything else."""
    roles: dict[str, list[str]] = {}
    for one in given:
        number, separator, role = one.partition("=")
        if not separator or not role.strip() or not number.strip().isdecimal() or int(number) not in numbers:
            raise UsageError(
                "This gives no agent of this process a role",
                received=one,
                expected=f"N=ROLE, with N from {numbers[0]} to {numbers[-1]}",
            )
        roles.setdefault(f"{name}-{int(number)}", []).append(role.strip())
    return roles


def read_plan(path: Path) -> list[SubTask | str]:
    """The tasks in a file. SpecError if it holds none, or something else; UsageError if it is not there."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError("The plan cannot be read", received=f"{path}: {error.strerror}") from error
    given: Any
    try:
        text = _text(path, data)
        given = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
        given = given.get("task", given) if isinstance(given, dict) else given
        return msgspec.convert(given, list[SubTask | str])
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError) as error:
        raise SpecError(
            "The plan's file holds no plan",
            received=f"{path}: {error}",
            expected='tables such as [[task]] name = "a" text = "..." after = ["b"], or a list of texts',
        ) from error


def _show(found: SwarmLook, as_json: bool, *, again: bool) -> None:
    if as_json:
        put_json(msgspec.to_builtins(found))
        return
    if again:
        put("")
    done = sum(1 for one in found.tasks if one.status == "done")
    put(look.wrapped("task", f"{look.clean(found.title)} (run {found.run} of {found.swarm}, {found.status})"))
    money = f", {found.usd:.4f} USD" if found.usd else ""
    put(look.wrapped("so far", f"{done} of {len(found.tasks)} done, {found.tokens} tokens ({found.cached_tokens} "
                               f"cached){money}"))  # fmt: skip
    rows = [
        [
            look.fit(look.clean(one.name), 16),
            one.status,
            look.fit(look.clean(one.agent or "-"), 16),
            str(one.claims),
            str(one.lapses),
            str(len(one.failures)),
            str(one.tokens),
            str(one.result or "-"),
        ]
        for one in found.tasks
    ]
    head = ["TASK", "STATUS", "AGENT", "CLAIMS", "LAPSES", "FAILED", "TOKENS", "RESULT"]
    put(["", *look.table(rows, head=head, right=(3, 4, 5, 6, 7))])
    for one in found.tasks:
        if one.failures and one.status != "done":
            put(look.wrapped("failed", f"{look.clean(one.name)}: {look.clean(one.failures[-1])}"))
    if found.changes:
        put("")
    for change in found.changes:
        if change.undone:
            put(look.wrapped("undone", f"{look.clean(change.agent)}, {change.kind} at {change.position}"))
    for group in _in_force(found):
        first = group[0]
        kinds = ", ".join(f"{one.kind} at {one.position}" for one in group)
        saved = "not measured yet" if first.saved_pct is None else (
            f"{first.saved_pct:g} % fewer tokens per answer ({first.before:g} before, {first.after:g} after)"
        )  # fmt: skip
        together = "together " if len(group) > 1 and first.saved_pct is not None else ""
        put(look.wrapped("saved", f"{look.clean(first.agent)}, {kinds}: {together}{saved}"))
    if found.shared_answers:
        put(look.wrapped("spared", look.count(found.shared_answers, "request") + " answered from the log"))


def _in_force(found: SwarmLook) -> list[list[Change]]:
    """The changes in force, those together that came together: what they saved cannot be told apart."""
    groups: list[list[Change]] = []
    for change in found.changes:
        if change.undone:
            continue
        group = next((one for one in groups if change.position in one[0].beside), None)
        if group is None:
            groups.append([change])
        else:
            group.append(change)
    return groups


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SpecError(
            "The plan's file holds no plan", received=f"{path}, which is no text", expected="TOML, or JSON in a .json"
        ) from error
