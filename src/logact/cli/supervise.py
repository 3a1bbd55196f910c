"""``logact supervise``: keep the parts of an agent alive as processes; look at them, pause and stop them."""

from __future__ import annotations

import signal
from typing import Any, Literal

import click
import msgspec

from logact import env as environment
from logact.cli import look
from logact.cli.common import existing_log, go, json_option, log_url, named, put, put_json, who
from logact.cli.progress import Progress
from logact.cli.supervise_status import shown_status, status_of
from logact.entry import Control, NewEntry
from logact.errors import UsageError
from logact.introspection.history import history
from logact.runtime.leaving import Leave, on_signals
from logact.runtime.supervision import scope_of
from logact.runtime.supervisor import Supervisor
from logact.spec import SpecFile, build_agent, load_spec
from logact.spec_supervise import parts_of, settings_of

Verb = Literal["pause", "resume", "stop"]


@click.command("supervise")
@click.argument("spec", type=click.Path())
@click.option("--status", "verb", flag_value="status", help="Say what runs, from the log, and end.")
@click.option("--pause", "verb", flag_value="pause", help="Have the supervisor stop its parts until --resume.")
@click.option("--resume", "verb", flag_value="resume", help="Have it start them again.")
@click.option("--stop", "verb", flag_value="stop", help="Have it stop its parts and end.")
@click.option("--takeover", is_flag=True, help="End another supervisor of this agent first.")
@click.option("--steps", is_flag=True, help="Show what the agent does, too.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but why it ends.")
@click.option("--model", default="", metavar="NAME", help="Use this model, whatever the file or LOGACT_MODEL says.")
@click.option("--log", "url", default="", metavar="URL", callback=named, help="Use this log, whatever the file says.")
@json_option
def supervise_command(
    spec: str,
    *,
    verb: str | None,
    takeover: bool,
    steps: bool,
    quiet: bool,
    model: str,
    url: str,
    as_json: bool,
) -> None:
    """Start the parts of the agent that SPEC describes, and start again what ends or hangs.

    Which parts, and how they are restarted, stands in the table [supervise]; without it each part is a process of
    its own. `logact run SPEC --submit TASK` gives them work. SIGTERM or Ctrl-C ends it well: what runs is finished
    first, within stop_s; a second Ctrl-C ends it at once. A supervisor that is killed is simply started again.

    --pause, --resume and --stop are entries in the log, so they work from other machines too.

    \b
    Examples:
      logact supervise logact.toml &
      logact supervise logact.toml --status
      logact supervise logact.toml --stop

    \b
    Exit codes: 0 stopped as asked; 1 it gave up (a part cannot run, or
    they end too often); 2 another supervisor lives; 3 the log is
    damaged; 5 no log; 7 another supervisor took the agent over. With
    --status: 0 all runs, 1 something does not.
    """
    file = load_spec(spec)
    chosen = log_url(url) if url else file.log_url
    if chosen.startswith("memory:"):
        raise UsageError(
            "The parts of an agent meet in a log", received=chosen, expected="a log that processes can share"
        )
    if verb == "status":
        _status(file, chosen, as_json)
    elif verb is not None:
        _control(file, chosen, verb, as_json)
    else:
        _supervise(file, url, model, takeover=takeover, steps=steps, quiet=quiet, as_json=as_json)


def _supervise(
    file: SpecFile, url: str, model: str, *, takeover: bool, steps: bool, quiet: bool, as_json: bool
) -> None:
    agent = build_agent(file, log=log_url(url) if url else None, model=model or None)
    kinds = file.supervise.parts
    if agent.model is None and ("driver" in kinds or "agent" in kinds):
        raise UsageError(
            "This agent has no model",
            received=f"no model in {file.path}, and LOGACT_MODEL is not set",
            todo="set LOGACT_MODEL, add model under [agent], or pass --model",
        )
    parts = parts_of(file, [voter.name for voter in agent.voters], model=model, log=log_url(url) if url else "")
    settings = settings_of(file)
    progress = Progress(agent.agent_id, as_json=as_json, quiet=quiet or not (steps or as_json))

    async def work() -> None:
        leave = Leave(settings.stop_s)
        on_signals(leave, signal.SIGTERM, signal.SIGINT)
        async with agent.log as log:
            teller = Teller(agent.agent_id, log.url, as_json=as_json, quiet=quiet)
            supervisor = Supervisor(log, agent.agent_id, parts, settings, tell=teller, whole_process=True)
            progress.begin(await log.tail())
            if steps:
                supervisor.chronicle.tail.observe(progress)
            await supervisor.run(leave, takeover=takeover)

    go(work())


class Teller:
    """Shows what a supervisor does, a line each, or a JSON object each."""

    def __init__(self, agent: str, url: str, *, as_json: bool, quiet: bool) -> None:
        self.agent = agent
        self.url = url
        self.as_json = as_json
        self.quiet = quiet

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        now_ms = environment.current().wall_ms()
        try:
            if self.as_json:
                put_json({"event": event, "agent": self.agent, "time_ms": now_ms, **facts})
            elif not self.quiet:
                self._lines(event, facts, look.clock(now_ms))
        except OSError:
            pass  # nobody listens; the log knows

    def _lines(self, event: str, facts: dict[str, Any], clock: str) -> None:
        word, part, text, colour = self._words(event, facts)
        lines = look.wrapped("", text, indent=0, label_width=36)
        head = f"{clock}  {look.paint(look.pad(word, 10), colour)} {look.pad(part, 14)} "
        for place, line in enumerate(lines[:4]):
            click.echo((head + line.strip() if place == 0 else line).rstrip(), err=True)

    def _words(self, event: str, facts: dict[str, Any]) -> tuple[str, str, str, str | None]:
        part = str(facts.get("part", ""))
        if event == "supervising":
            return "supervises", "", f"{self.agent} on {self.url}, {facts['strategy']}; Ctrl-C ends it", None
        if event == "started":
            again = f", start {facts['life']}" if facts["life"] > 1 else ""
            return "started", part, f"process {facts['pid']}{again}", None
        if event == "ended":
            return "ENDED", part, _end(facts), "red"
        if event == "hung":
            return "HUNG", part, f"process {facts['pid']}: {facts['why']}; killed", "red"
        if event == "said":
            return "says", part, str(facts["line"]), "yellow"
        if event == "rests":
            return "rests", part, f"{code_words(facts['code'])}; started again when the log has work", None
        if event in ("ended_as_asked", "killed"):
            return ("KILLED" if event == "killed" else "stopped"), part, str(facts["why"]), None
        if event == "waits":
            return "waits", part, f"{facts['again_s']:g} s are left of the delay after its last end", None
        if event == "takes_along":
            return "restarts", part, "and with it " + ", ".join(facts["others"]), None
        if event == "orphan":
            how = "was killed" if facts["killed"] else "ended"
            return "orphan", "", f"process {facts['pid']} of an earlier supervisor {how}", "yellow"
        if event == "gives_up":
            return "GIVES UP", "", str(facts["what"]), "red"
        if event == "not_started":
            return "NO START", part, str(facts["error"]), "red"
        words = {
            "paused": ("paused", f"goes on after `logact supervise SPEC --resume` ({self.agent})"),
            "resumed": ("resumed", ""),
            "stopped": ("stopped", f"restarts: {facts.get('restarts', 0)}"),
        }
        word, text = words.get(event, (event, ""))
        return word, part, text, None


def code_words(code: int | None) -> str:
    """An exit code for people."""
    if code is None:
        return "not started"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}"


def _end(facts: dict[str, Any]) -> str:
    ran = f" after {facts['ran_s']:g} s" if "ran_s" in facts else ""
    why = f" ({facts['why']})" if facts.get("why") else ""
    again = ""
    if "again_s" in facts:
        limit = f"end {facts['of']} of {facts['restarts']} within {facts['within_s']:g} s"
        again = f"; again in {facts['again_s']:g} s ({limit})"
    return f"{code_words(facts.get('code'))}{ran}{why}{again}"


def _status(file: SpecFile, url: str, as_json: bool) -> None:
    async def work() -> dict[str, Any]:
        async with existing_log(url) as log:
            return await status_of(log, file)

    told = go(work())
    if as_json:
        put_json(told)
    else:
        put(shown_status(told))
    if not told["running"] or any(part["state"] != "running" for part in told["parts"] if part["kind"] != "agent"):
        raise click.exceptions.Exit(1)


def _control(file: SpecFile, url: str, verb: str, as_json: bool) -> None:
    """Append what the supervisor then obeys; for a stop, wait until it is gone."""
    agent = file.agent.name
    payload = Control(verb=msgspec.convert(verb, Verb), scope=scope_of(agent), reason=f"by {who()}")
    entry = NewEntry(payload=payload, role="operator", name=who(), agent=agent)

    async def work() -> tuple[int, str, bool]:
        env = environment.current()
        async with existing_log(url) as log:
            done = await log.append(entry)
            after = (await history(log, done.position)).state
            end = env.monotonic() + file.supervise.stop_s + STOPPED_S
            told = await status_of(log, file)
            while verb == "stop" and told["running"] and env.monotonic() < end:
                await env.sleep(0.5)
                told = await status_of(log, file)
            return done.position, after.verdict, told["running"]

    position, verdict, running = go(work())
    if as_json:
        put_json({"verb": verb, "agent": agent, "position": position, "effective": not verdict, "running": running})
    elif verdict:
        put(f"It took no effect: {verdict}.")
    elif verb == "stop":
        put(f"The supervisor of {agent} {'has not ended yet' if running else 'has ended'}.")
    else:
        there = "" if running else "; no supervisor runs now, and the next one will obey it"
        put(f"{'Paused' if verb == 'pause' else 'Resumed'} at {position}{there}.")
    if verdict or (verb == "stop" and running):
        raise click.exceptions.Exit(1)


STOPPED_S = 10.0
"""How much longer than its parts a supervisor may take to end."""
