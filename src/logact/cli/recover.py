"""``logact recover``: what a crash left unfinished is settled now, without going on with the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from logact.agent import LogActAgent
from logact.cli import describe, look
from logact.cli.common import go, json_option, named, put, put_json
from logact.cli.progress import Progress
from logact.core.state import Action
from logact.errors import InDoubt, UsageError
from logact.introspection.history import History, history
from logact.spec import build_agent, load_spec

if TYPE_CHECKING:
    from logact.introspection.semantic_recovery import SemanticOutcome


class Settled(msgspec.Struct, frozen=True):
    """What became of one action that was unfinished: its status before and now."""

    action: int
    tool: str
    what: str
    was: str
    now: str


@click.command("recover")
@click.argument("spec", type=click.Path())
@click.option("--semantic", is_flag=True, help="Then ask the model how to go on after what failed.")
@click.option(
    "--skip", type=int, metavar="ACTION", help="Then give up this failed action; the run goes on without it."
)
@click.option("--reason", default="", metavar="TEXT", help="Why it is given up, for the log and the model.")
@click.option("--model", metavar="NAME", help="Use this model, whatever the file or LOGACT_MODEL says.")
@click.option("--takeover", is_flag=True, help="Fence off another process that plays this agent.")
@click.option("--log", "url", metavar="URL", callback=named, help="Use this log, whatever the file says.")
@json_option
def recover_command(
    *,
    spec: str,
    semantic: bool,
    skip: int | None,
    reason: str,
    model: str | None,
    takeover: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Settle what a crash left unfinished, and stop there.

    Folds the log, and finishes each open action of SPEC's agent as its tool declares: reads and idempotent ones run
    again under the same key, others are probed or undone. What nobody can know stays in doubt, for `logact doubt`.
    `logact run` does the same, and then goes on with the task. --semantic has the model read the history, look at
    the world through tools that only read, and propose: retry, skip, or another plan, which is voted on.
    [recovery.semantic] in SPEC names its model and limits; where it fails, the mode of [recovery] takes over.

    \b
    Examples:
      logact recover logact.toml
      logact recover logact.toml --semantic
      logact recover logact.toml --skip 14000 --reason "the host is retired"

    \b
    Exit codes: 0 nothing is open; 1 the model's plan was not carried out;
    2 no such failed action, or another process plays the agent; 4 something
    is in doubt; 5 no log; 6 no model (--semantic).
    """
    from logact.cli.common import log_url
    from logact.introspection.semantic_recovery import SemanticRecovery

    if semantic and skip is not None:
        raise UsageError("Two ways to go on", received="--semantic and --skip", expected="one of them")
    if reason and skip is None:
        raise UsageError("A reason for nothing", received="--reason without --skip", todo="add --skip ACTION")
    agent = build_agent(load_spec(spec), model=model, takeover=takeover, log=log_url(url) if url else None)
    if isinstance(agent.recovers, SemanticRecovery) and model:
        agent.recovers.model = None  # what --model names is the agent's
    if semantic and agent.model is None and not getattr(agent.recovers, "model", None):
        raise UsageError(
            "This agent has no model to ask",
            received=f"no model in {spec}, and LOGACT_MODEL is not set",
            todo="set LOGACT_MODEL, add model under [agent] or [recovery.semantic], or pass --model",
        )
    go(_recover(agent, semantic=semantic, skip=skip, reason=reason, as_json=as_json))


async def _recover(agent: LogActAgent, *, semantic: bool, skip: int | None, reason: str, as_json: bool) -> None:
    outcome: SemanticOutcome | None = None
    doubt: InDoubt | None = None
    progress = Progress(agent.agent_id, as_json=as_json)
    async with agent.log:
        before = await history(agent.log)
        unfinished = [one for one in before.state.unfinished() if one.intent.agent == agent.agent_id]
        progress.begin(await agent.log.tail())
        agent.observe(progress)
        try:
            if semantic:
                outcome = await _ask(agent)
            else:
                await agent.recover_from_failure()
            if skip is not None:
                await agent.skip_failed_action(skip, reason)
        except InDoubt as error:
            doubt = error
        settled = _became(unfinished, await history(agent.log))
    if as_json:
        put_json(
            {
                "event": "recovered_all",
                "agent": agent.agent_id,
                "settled": [msgspec.to_builtins(one) for one in settled],
                "skipped": skip or 0,
                "in_doubt": doubt is not None,
                "semantic": msgspec.to_builtins(outcome) if outcome is not None else None,
            }
        )
    else:
        put(_in_words(agent.agent_id, settled, outcome, skip))
    if doubt is not None:
        raise doubt
    if outcome is not None and not outcome.ok:
        raise click.exceptions.Exit(1)


async def _ask(agent: LogActAgent) -> SemanticOutcome:
    from logact.introspection.semantic_recovery import SemanticRecovery, plain_of

    recovery = agent.recovers
    if not isinstance(recovery, SemanticRecovery):
        recovery = SemanticRecovery(fallback=plain_of(recovery))
    return await recovery.recover_with_introspection(agent)


def _became(unfinished: list[Action], told: History) -> list[Settled]:
    """What each of these actions is now. One that left the fold was settled and is history."""
    found = []
    for one in unfinished:
        now = told.state.actions.get(one.id) or told.action(one.id)
        status = now.status if now is not None else "settled"
        found.append(Settled(one.id, one.intent.tool, describe.intent(one.intent, 200), one.status, status))
    return found


def _in_words(agent: str, settled: list[Settled], outcome: SemanticOutcome | None, skip: int | None) -> list[str]:
    lines = [
        f"{one.action}  {one.was.replace('_', ' ')} → {one.now.replace('_', ' ')}  {one.what}" for one in settled
    ]
    lines = [look.fit(line, look.width()) for line in lines] or [f"Nothing of {agent} was unfinished."]
    if skip is not None:
        lines.append(f"{skip} is given up; the run goes on without it.")
    if outcome is not None:
        said = f"The model: {outcome.decision or 'no analysis'}. {outcome.reasoning}".strip()
        lines += look.wrapped("", said, indent=0, label_width=0)
        if outcome.fell_back:
            lines += look.wrapped("", f"Not carried out: {outcome.fell_back}", indent=0, label_width=0)
    return lines
