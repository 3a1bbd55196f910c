"""``logact health``, ``debug``, ``cost``, ``ask``: what a log says about how its agents do."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from logact.cli import look
from logact.cli.common import F, existing_log, go, json_option, put, put_json, who
from logact.cli.introspect_lines import debug_lines, health_lines, model_lines, table_rows
from logact.errors import UsageError
from logact.introspection.agentic import AgenticIntrospection, Debugged, Reply
from logact.introspection.costs import BY, Costs, costs
from logact.introspection.health import RECENT_S, Health
from logact.introspection.profiler import folded
from logact.introspection.signals import Thresholds
from logact.models.base import Model
from logact.runtime.checkpointer import bookmark
from logact.voters.base import Voter

if TYPE_CHECKING:
    from logact.spec_change import Applied

T = TypeVar("T")


def asking(function: F) -> F:
    """The options of commands that may ask a model."""
    for option in (
        json_option,
        click.option("--checkpoint", is_flag=True, help="First write a checkpoint, if the last is far behind."),
        click.option("--no-record", is_flag=True, help="Do not write the model's answer into LOG."),
        click.option("--summarise", is_flag=True, help="Have the model sum up older stretches, once, as entries."),
        click.option("--tokens", "tokens_max", type=click.IntRange(min=500), default=12_000, show_default=True,
                     metavar="N", help="How much of the history the model is shown."),
        click.option("--run", type=int, default=0, metavar="N", help="Only this run."),
        click.option("--agent", default="", metavar="NAME", help="Only this agent."),
    ):  # fmt: skip
        function = option(function)
    return function


def _model(log: str, name: str | None, *, needed: bool) -> Model | None:
    """The model that is asked: --model, else (where one is needed) LOGACT_MODEL, else the specification's."""
    from logact.models import model_from_environment, model_from_name

    if name:
        base_url = os.environ.get("LOGACT_BASE_URL", "").strip() or None
        return model_from_name(name, base_url=base_url)
    if not needed:
        return None
    found = model_from_environment()
    if found is None and log.endswith(".toml"):
        from logact.spec import load_spec, model_of

        made: Model | None = model_of(load_spec(log))
        return made
    return found


def _thresholds(log: str) -> Thresholds | None:
    """Those of the specification's [health], if LOG is one."""
    if not log.endswith(".toml"):
        return None
    from logact.spec import load_spec
    from logact.spec_health import thresholds_of

    return thresholds_of(load_spec(log).health)


def _over(
    log: str,
    model: Model | None,
    work: Any,
    *,
    tokens_max: int,
    no_record: bool,
    summarise: bool,
    checkpoint: bool,
) -> Any:
    """Open the log, do the work with an introspection over it, close everything."""

    async def inside() -> Any:
        introspection = AgenticIntrospection(
            model,
            thresholds=_thresholds(log),
            tokens_max=tokens_max,
            record=not no_record,
            summarise=summarise,
            author=who(),
        )
        async with existing_log(log) as opened:
            if checkpoint:
                await bookmark(opened, voters=_voters(log))
            return await work(introspection, opened)

    return go(inside())


def _voters(log: str) -> list[Voter]:
    """The voters of the specification, if LOG is one: a checkpoint carries what they remember."""
    if not log.endswith(".toml"):
        return []
    from logact.spec import load_spec
    from logact.spec_parts import tools_of, voters_of

    spec = load_spec(log)
    return voters_of(spec, tools_of(spec, spec.log_url))


def _strict(log: str, agent: str, run: int) -> bool:
    """Whether what is named has to be in the log. The agent of a specification may not have begun yet."""
    if run or not agent or not log.endswith(".toml"):
        return True
    from logact.spec import load_spec

    return load_spec(log).agent.name != agent


# --- health -----------------------------------------------------------------------------------------------------


@click.command("health")
@click.argument("log")
@click.option("--model", metavar="NAME", help="Also ask this model for its judgement; it may make the verdict worse.")
@click.option("--all", "every", is_flag=True, help="Also of runs that ended more than a day ago.")
@click.option("--schedule", is_flag=True, help="Check and act when [health] of the file says, until Ctrl-C.")
@click.option("--due", is_flag=True, help="Check and act if that is due now, and end.")
@asking
def health_command(
    log: str,
    *,
    model: str | None,
    every: bool,
    schedule: bool,
    due: bool,
    as_json: bool,
    agent: str,
    run: int,
    **how: Any,
) -> None:
    """How the agents of LOG are doing: a verdict, the reasons, and where they stand.

    Computed: loops, stalls, retries, growing contexts, silent voters, slow tools, dear models, repeated reads,
    budgets, doubt, signs of life, drift from the task.

    \b
    Examples:
      logact health ops.db || notify-somebody
      logact health logact.toml --json
      logact health logact.toml --schedule &

    \b
    Exit codes: 0 healthy, or nothing was due; 1 degraded; 20 stuck;
    21 runaway; 22 unsafe; those of errors: 2 (an unknown agent or run, too),
    3, 5, 6 (see `logact --help`).
    """
    if schedule or due:
        from logact.cli.schedules import play

        code = play(log, model, once=due, as_json=as_json)
        if code:
            raise click.exceptions.Exit(code)
        return
    recent_s, strict = 0.0 if every else RECENT_S, _strict(log, agent, run)

    def work(introspection: AgenticIntrospection, opened: Any) -> Coroutine[Any, Any, Health]:
        return introspection.health(opened, agent=agent, run=run, recent_s=recent_s, strict=strict)

    found: Health = _over(log, _model(log, model, needed=False), work, **how)
    if as_json:
        put_json({**msgspec.to_builtins(found), "exit_code": found.exit_code})
    else:
        put(health_lines(found))
    if found.exit_code:
        raise click.exceptions.Exit(found.exit_code)


# --- debug ------------------------------------------------------------------------------------------------------


@click.command("debug")
@click.argument("log")
@click.option("--model", metavar="NAME", help="Have this model explain it, and propose changes.")
@click.option("--apply", "apply_", is_flag=True, help="Have the agent of the specification vote on the changes.")
@asking
def debug_command(
    log: str, *, model: str | None, apply_: bool, as_json: bool, agent: str, run: int, **how: Any
) -> None:
    """Where the time, tokens and money of LOG went, and what would help.

    Computed: by model, tool and voter; the slowest and dearest; what was done twice; how contexts grew; errors that
    are alike. With --model also an explanation and proposals, each with the positions that show it.

    \b
    Examples:
      logact debug ops.db
      logact debug ops.db --run 12000 --model openai:gpt-4o
      logact debug logact.toml --apply

    With --apply, LOG is a specification, and what its own agent did is looked at. Each change that can be made in it
    (a setting, one more rule) is proposed as an action of its agent, voted on like any other, and made if it passes;
    `logact undo` takes it back, newest first. A limit that is set is never raised.

    \b
    Exit codes: 0 done; 1 a change was refused, or did not work (--apply).
    """
    if apply_ and not log.endswith(".toml"):
        raise UsageError("Changes are made in a specification", received=log, expected="a file such as logact.toml")

    def work(introspection: AgenticIntrospection, opened: Any) -> Coroutine[Any, Any, Debugged]:
        return introspection.debug(opened, agent=agent, run=run, strict=_strict(log, agent, run))

    agent = _owner(log, agent) if apply_ else agent
    found: Debugged = _over(log, _model(log, model, needed=False), work, **how)
    made = go(_applied(log, found)) if apply_ else []
    if as_json:
        put_json({**msgspec.to_builtins(found), "applied": msgspec.to_builtins(made)})
    else:
        put(debug_lines(found))
        for one in made:
            word = "applied" if one.applied else f"not applied: {look.clean(one.reason)}"
            put(look.wrapped(str(one.action or "-"), f"{look.clean(one.title)}: {word}"))
        if apply_ and not made:
            put("No proposal can be applied as it is.")
    if apply_ and not all(one.applied for one in made if one.action):
        raise click.exceptions.Exit(1)


def _owner(log: str, agent: str) -> str:
    """The agent of a specification: what others did is no reason to change its file."""
    from logact.spec import load_spec

    owner = load_spec(log).agent.name
    if agent not in ("", owner):
        raise UsageError(
            "A specification is changed because of what its own agent did", received=agent, expected=owner
        )
    return owner


async def _applied(log: str, found: Debugged) -> list[Applied]:
    """Have the specification's agent vote on the changes, and make those that pass."""
    from logact.spec import build_agent, load_spec
    from logact.spec_change import change_tool, propose
    from logact.spec_parts import tools_of

    spec = load_spec(log)
    tools = [*tools_of(spec, spec.log_url), change_tool(spec.path)]
    agent = build_agent(spec, tools=tools)
    async with agent.log:
        return await propose(agent, [*found.performance.proposals, *found.proposals], spec)


# --- cost -------------------------------------------------------------------------------------------------------


@click.command("cost")
@click.argument("log")
@click.option("--by", type=click.Choice(BY), default="agent", show_default=True, help="What the sums are grouped by.")
@json_option
def cost_command(log: str, by: Any, as_json: bool) -> None:
    """Tokens, money and time of LOG, by agent, run, model or tool.

    \b
    Example:
      logact cost ops.db --by model
    """

    async def inside() -> Costs:
        async with existing_log(log) as opened:
            return costs((await folded(opened)).profile, by)

    found = go(inside())
    if as_json:
        put_json(found)
        return
    if not found.rows:
        put("Nothing was used.")
        return
    put(table_rows(by.upper(), found.rows))
    usd = f"{found.usd:.4f} USD" if found.usd is not None else "no price known"
    if found.usd is None and found.at_least_usd:
        usd = f"at least {found.at_least_usd:.4f} USD (not every price is known)"
    put(["", f"Together {found.tokens} tokens, {usd}."])
    if found.since:
        put(f"What stands before position {found.since} is not counted.")


# --- ask --------------------------------------------------------------------------------------------------------


@click.command("ask")
@click.argument("log")
@click.argument("question")
@click.option("--model", metavar="NAME", help="The model to ask, instead of LOGACT_MODEL or the specification's.")
@asking
def ask_command(
    log: str, question: str, *, model: str | None, as_json: bool, agent: str, run: int, **how: Any
) -> None:
    """Ask LOG a question in plain words; the answer cites positions.

    Sentences without a position, or with one that is not there, are dropped and counted.

    \b
    Example:
      logact ask ops.db "Why was the invoice not sent?"

    \b
    Exit codes: 0 answered; 1 nothing in the log supports an answer;
    6 the model gave none.
    """

    def work(introspection: AgenticIntrospection, opened: Any) -> Coroutine[Any, Any, Reply]:
        return introspection.ask(opened, question, agent=agent, run=run, strict=_strict(log, agent, run))

    found: Reply = _over(log, _model(log, model, needed=True), work, **how)
    if as_json:
        put_json(found)
    else:
        for one in found.statements:
            put(look.wrapped("", f"{look.clean(one.text)} [{' '.join(map(str, one.cites))}]", label_width=0))
        if not found.statements:
            put("Nothing in the log supports an answer.")
        if found.left_out:
            put(f"({found.left_out} older lines did not fit; --tokens shows more, --summarise sums them up)")
        put(model_lines(found.dropped, "", found.trimmed))
    if not found.statements:
        raise click.exceptions.Exit(1)
