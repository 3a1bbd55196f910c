"""``logact run``: start a run, go on with an unfinished one, or say something to it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import click
import msgspec

from logact.agent import LogActAgent, last_run
from logact.agent_results import Answer
from logact.cli import describe, look
from logact.cli.common import Seconds, error_json, go, json_option, named, put, put_json
from logact.cli.progress import Progress
from logact.cli.stuck import Stuck
from logact.core.state import RunState, State
from logact.entry import Input, Limits, NewEntry, Output, Run, own
from logact.errors import AgentBusy, LogActError, LogTrimmed, RunFinished, RunPaused, RunStopped, UsageError
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.logs.url import open_log
from logact.models.telling import hearing
from logact.runtime.leaving import STOP_S, Leave, ending_well, on_signals
from logact.runtime.supervised import end_with_supervisor, supervised
from logact.spec import SpecFile, build_agent, load_spec


@click.command("run")
@click.argument("spec", type=click.Path())
@click.argument("task", nargs=-1)
@click.option("--new", is_flag=True, help="Start another run, even if this task was finished or is unfinished.")
@click.option("--dry-run", is_flag=True, help="Propose and vote; carry out nothing but reads.")
@click.option("--message", "-m", metavar="TEXT", help="Say something more: to the last run, finished or not.")
@click.option("--takeover", is_flag=True, help="Fence off another process that plays this agent.")
@click.option("--submit", is_flag=True, help="Only write TASK to the log, for parts that run elsewhere.")
@click.option("--no-wait", is_flag=True, help="End with exit code 8 where the run waits for people only.")
@click.option("--quiet", "-q", is_flag=True, help="Print the answer only.")
@click.option("--model", metavar="NAME", help="Use this model, whatever the file or LOGACT_MODEL says.")
@click.option("--log", "log_url", metavar="URL", callback=named, help="Use this log, whatever the file says.")
@click.option(
    "--stop-within",
    "stop_s",
    type=Seconds(0, 86_400),
    default=STOP_S,
    metavar="SECONDS",
    help=f"How long what runs may take to end after SIGTERM ({STOP_S:g}).",
)
@json_option
def run_command(
    *,
    spec: str,
    task: tuple[str, ...],
    new: bool,
    dry_run: bool,
    message: str | None,
    takeover: bool,
    submit: bool,
    no_wait: bool,
    quiet: bool,
    model: str | None,
    log_url: str | None,
    as_json: bool,
    stop_s: float,
) -> None:
    """Run the agent that SPEC describes on TASK, or go on where it stopped.

    The steps appear on standard error, the answer on standard output. A run that was interrupted goes on where
    the log stops: repeat the command, or leave TASK out. A finished task is not run twice without --new. Where it
    waits (for an environment, a delay, a rate limit, people), it says for what, and until when.

    \b
    Examples:
      logact run logact.toml "find duplicate files"
      logact run logact.toml                  # goes on
      logact run logact.toml -m "and delete them"
      logact run logact.toml --dry-run "clean up"

    \b
    Exit codes: 0 answered; 1 ended at a limit; 2 finished before, or
    another process plays the agent; 4 in doubt; 5 no log; 6 no model;
    7 stopped or fenced off; 8 waits for an approval (--no-wait); 130
    interrupted.
    """
    if message is not None and (task or new or dry_run):
        raise UsageError(
            "--message goes on with a run", received="a TASK, --new or --dry-run as well", todo="leave it out"
        )
    file = load_spec(spec)
    if submit:
        _submit(file, " ".join(task), dry_run, _url(log_url), as_json)
        return
    agent = build_agent(file, model=model, log=_url(log_url), takeover=takeover)
    if agent.model is None:
        raise UsageError(
            "This agent has no model",
            received=f"no model in {spec}, and LOGACT_MODEL is not set",
            todo="set LOGACT_MODEL (for example openai:gpt-4o), add model under [agent], or pass --model",
        )
    try:
        work = _play(
            agent,
            spec=spec,
            task=" ".join(task) or None,
            new=new,
            dry_run=dry_run,
            message=message,
            wait=not no_wait,
            quiet=quiet,
            as_json=as_json,
            stop_s=stop_s,
        )
        end_with_supervisor()
        answer = go(work)
    except LogActError as error:
        if as_json:
            put_json(error_json(error))
        raise
    if answer is not None and not answer.ok:
        raise click.exceptions.Exit(1)


def _submit(file: SpecFile, task: str, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Begin a run as a client does; the parts that play the agent take it up."""
    if not task:
        raise UsageError("Nothing to submit", received="no TASK", todo="give the task")
    name = file.agent.name
    limits = Limits(**msgspec.structs.asdict(file.agent.limits))
    begin = Run(agent=name, title=task, limits=limits, dry_run=dry_run)
    entries = [
        NewEntry(payload=begin, role="client", name="client", agent=name),
        NewEntry(payload=Input(run=own(0), text=task), role="client", name="client", agent=name, run=own(0)),
    ]

    async def work() -> int:
        async with open_log(url or file.log_url) as log:
            return (await log.append(*entries)).position

    position = go(work())
    if as_json:
        put_json({"event": "submitted", "run": position, "task": task})
    else:
        put(f"Submitted as run {position}; `logact driver {file.path}` (and the other parts) play it.")


def _url(given: str | None) -> str | None:
    from logact.cli.common import log_url

    return log_url(given) if given else None


async def _play(
    agent: LogActAgent,
    *,
    spec: str,
    task: str | None,
    new: bool,
    dry_run: bool,
    message: str | None,
    wait: bool,
    quiet: bool,
    as_json: bool,
    stop_s: float,
) -> Answer | None:
    progress = Progress(agent.agent_id, as_json=as_json, quiet=quiet)
    agent.leave = leave = Leave(stop_s)
    leave.position = lambda: agent.position
    on_signals(leave)

    def begin() -> Coroutine[Any, Any, Answer]:
        if message is not None:
            return agent.send(message)
        return agent.run(task, new=new, dry_run=dry_run, wait=wait)

    async with supervised(leave), agent.log:
        progress.begin(await agent.log.tail(), task, new=new)
        agent.observe(progress)
        agent.stuck = Stuck(as_json=as_json)
        try:
            with hearing(progress.waits):
                answer = await ending_well(begin, leave, lambda: agent.busy)
            if answer is None:
                raise click.Abort
        except RunFinished as error:
            raise await _finished(agent, spec, task, error) from error
        except AgentBusy:
            if message is None:
                raise
            await _leave_message(agent, spec, message, as_json)
            return None
        except RunStopped as error:
            raise _stopped(error, spec) from error
    if not as_json and not progress.gone:
        _print_answer(answer, quiet)
    return answer


def _print_answer(answer: Answer, quiet: bool) -> None:
    text = answer.text or (look.value(answer.value, 100_000) if answer.value is not None else "")
    if not quiet:
        click.echo("", err=True)
    click.echo(text)
    if not answer.ok:
        click.echo(f"Not ok: {answer.reason}", err=True)


async def _finished(agent: LogActAgent, spec: str, task: str | None, error: RunFinished) -> RunFinished:
    """The same refusal, with the answer that is there already and the commands that lead on."""
    told = await history(agent.log)
    runs = [
        run for run in told.state.runs.values() if run.agent == agent.agent_id and run.title == task and run.output
    ]
    answer = ""
    if runs:
        try:
            output = (await agent.log.get(runs[-1].output)).payload
            answer = f". It answered: {look.value(output.text, 300)}" if isinstance(output, Output) else ""
        except LogTrimmed:
            answer = f". What it answered was trimmed: the log begins at position {await agent.log.begins()}"
    return RunFinished(
        f"{error.message} ({error.received}){answer}",
        todo=f"--new runs it again; `logact run {spec} -m TEXT` continues it",
    )


def _stopped(error: RunStopped, spec: str) -> LogActError:
    if error.message == "No run can begin" and "paused" in str(error.received):
        return RunPaused(error.message, received=str(error.received), todo=f"run `{_resume(error, spec)}`")
    if "stopped (" in str(error.received):
        return RunStopped(
            error.message, received=str(error.received), todo=f"{_resume(error, spec)} lets it begin again"
        )
    return RunStopped(
        error.message, received=str(error.received), todo=f"logact run {spec} --new TASK starts another"
    )


def _resume(error: RunStopped, spec: str) -> str:
    scope = str(error.received).partition("(")[2].rstrip(")")
    return describe.resume_command(scope, spec)


async def _leave_message(agent: LogActAgent, spec: str, message: str, as_json: bool) -> None:
    """Another process plays the agent: the message goes into the log, and that process reads it there."""
    log: SharedLog = agent.log
    state: State = (await history(log)).state
    run = _last(state, agent.agent_id)
    said = Input(run=run.id, text=message)
    entry = NewEntry(payload=said, role="client", name="client", agent=agent.agent_id, run=run.id)
    done = await log.append(entry)
    after = (await history(log, done.position)).state
    if after.verdict:
        raise UsageError("The message took no effect", received=after.verdict)
    told: dict[str, Any] = {"event": "message", "position": done.position, "run": run.id, "text": message}
    if as_json:
        put_json({**told, "delivered": "log"})
        return
    put(
        [
            f"Message left at position {done.position}, for run {run.id}.",
            "Another process plays the agent and reads it",
        ]
    )
    put([f"there; follow with: logact log tail -f {spec}"])


def _last(state: State, agent: str) -> RunState:
    mine = [run for run in state.runs.values() if run.agent == agent]
    if not mine:
        raise UsageError("There is no run to say this to", received=f"agent {agent}", todo="start one with a TASK")
    return state.runs[last_run(state, agent)]
