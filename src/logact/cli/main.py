"""``logact``: the root command, and the one place where errors become messages and exit codes.

Commands are imported when they are used, so that ``logact --help`` is fast.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from importlib import import_module
from typing import Any

import click

from logact import __version__
from logact.cli.own_output import own_output
from logact.errors import LogActError, UsageError

COMMANDS = {
    "init": ("init", "Write a specification that works at once."),
    "run": ("run", "Run an agent, or go on where it stopped."),
    "actions": ("actions", "What was proposed, and what became of it."),
    "log": ("log", "Show, follow, export, verify, measure, copy a log."),
    "state": ("state", "What a log adds up to, now or at a position."),
    "pending": ("pending", "What waits, for whom, and why."),
    "approve": ("approvals", "Approve an action that waits for you."),
    "deny": ("approvals", "Deny an action that waits for you."),
    "approvals": ("approvals", "How well people approve; drafts of rules."),
    "rules": ("policies", "Check rules, or ask what they would decide."),
    "backtest": ("policies", "What another policy would have decided."),
    "pause": ("control", "Hold a log, an agent, a run or an action."),
    "resume": ("control", "Let go on what was paused or stopped."),
    "stop": ("control", "End runs; nothing new starts."),
    "cancel": ("control", "Take back what has not started."),
    "recover": ("recover", "Settle what a crash left, without going on."),
    "doubt": ("doubt", "Settle what may or may not have happened."),
    "undo": ("undo", "Take back what a run or an action did."),
    "fork": ("forks", "Start a new log from a point of another."),
    "diff": ("forks", "What differs between two points or two forks."),
    "health": ("introspect", "How agents do: a verdict, for monitoring too."),
    "compare": ("comparing", "Two runs side by side: actions, cost, time, outcome."),
    "debug": ("introspect", "Where time, tokens and money went."),
    "cost": ("introspect", "Tokens, money, time by agent, run, model, tool."),
    "ask": ("introspect", "Ask a log a question in plain words."),
    "simulate": ("simulate", "Your own agent under crashes and faults."),
    "skill": ("simulate", "How to use LogAct, for agents."),
    "swarm": ("swarm", "Agents that share a task: run, and who does what."),
    "driver": ("parts", "Play one part of an agent: it asks the model."),
    "voter": ("parts", "Play one part: it judges what is proposed."),
    "decider": ("parts", "Play one part: it turns votes into decisions."),
    "executor": ("parts", "Play one part: it carries out what is committed."),
    "recoverer": ("parts", "Play one part: it settles what crashes left."),
    "checkpointer": ("parts", "Play one part: it writes checkpoints."),
    "supervise": ("supervise", "Keep the parts of an agent alive as processes."),
    "policy": ("parts", "Put an agent's policy in force, as an operator."),
    "serve": ("serve", "Serve logs over the network, with roles."),
    "token": ("serve", "Who may use a served log: create, list, revoke."),
    "key": ("key", "Keys that sign what a part writes."),
    "doctor": ("doctor", "Check this installation, and prove the gate."),
    "bench": ("bench", "What a log costs here, measured."),
}
"""Each command: the module that holds it, and one line for ``logact --help``."""

EXIT_CODES = """\b
Exit codes:
  0   done, nothing to report        5   the log is not available
  1   findings, or a run not ok      6   the model gave no answer
  2   used wrongly, or nothing       7   paused, stopped or fenced off
      to do (busy, finished)         70  a defect of LogAct
  3   the log is damaged             8   waits for somebody's approval
  4   something is in doubt          130 interrupted; nothing is lost"""

SHOWN_CHARS_MAX = 2000

INTERRUPTED = "Interrupted. Nothing is lost; run the same command to go on."


class Commands(click.Group):
    """The root group: knows its commands by name, and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = COMMANDS.get(cmd_name)
        if known is None:
            return None
        found: click.Command = getattr(import_module(f"logact.cli.{known[0]}"), f"{cmd_name}_command")
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See `logact --help`."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, "-V", "--version", prog_name="logact")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def root(ctx: click.Context, debug: bool) -> None:
    """Reliable LLM agents through a shared log.

    An agent proposes, voters judge, only what is committed runs, and all of it stands in a log that outlives
    every crash.

    \b
    Example:
      logact init                       # writes logact.toml
      logact run logact.toml "tidy up"  # runs it, or goes on
      logact actions logact.toml        # what happened
    """
    ctx.ensure_object(dict)["debug"] = debug


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code, which the console script passes on."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # --debug may stand anywhere: people add it to the end of the line that failed
    given = [one for one in given if one != "--debug"]
    out = sys.stdout  # click puts another in its place when nobody reads any more
    try:
        _check_text(given)
        # not standalone, click gives the code of its own Exit back
        with own_output():
            found = root.main(given, prog_name="logact", standalone_mode=False, obj={"debug": debug})
        code = found if isinstance(found, int) else 0
    except click.ClickException as error:
        _say(misused(error))
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say(INTERRUPTED)
        code = 130
    except SystemExit as end:  # click's own way out of a closed pipe, and it gives 1, which means findings
        code = end.code if isinstance(end.code, int) and sys.stdout is out else 0
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - so that nothing is said at the end either
        code = 0
    except LogActError as error:
        if debug:
            traceback.print_exc()
        _say(told(error))
        code = error.exit_code
    except OSError as error:
        if debug:
            traceback.print_exc()
        _say(told(_refused(error)))
        code = UsageError.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        _say(f"Error: {type(error).__name__}: {error}")
        if not debug:
            _say("This is a defect of LogAct, or of a tool or voter. --debug shows where.")
        code = 70
    try:
        if sys.stdout is not None:  # closed by who started this
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        if code == 0 and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            _say(told(_refused(error)))
            code = UsageError.exit_code
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    left = [one for one in threading.enumerate() if one.name.startswith("logact") and not one.daemon]
    if left and arguments is None:
        # a tool still runs in a thread that nobody can interrupt; waiting for it could last for ever
        sys.stderr.flush()
        os._exit(code)
    return code


def _check_text(given: list[str]) -> None:
    """Bytes that are no text could be written neither into a log nor into a message. Raises UsageError."""
    for one in given:
        if not one.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in one):
            raise UsageError(
                "An argument is not text in this terminal's encoding",
                received=one.encode("utf-8", "backslashreplace").decode(),
                expected="UTF-8",
                todo="rename the file, or set the terminal to UTF-8",
            )


def _refused(error: OSError) -> UsageError:
    """What the operating system says of a file, a directory, or the place where the output goes."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return UsageError(
        "The operating system refused it",
        received=f"{where}{error.strerror or error}",
        todo="check the path, its permissions, and the room on the disk (--debug shows where it happened)",
    )


def misused(error: click.ClickException) -> str:
    """An option or argument that cannot be used, within the width of the terminal."""
    from logact.cli import look

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()  # the help itself
    lines = []
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        usage = context.command.collect_usage_pieces(context)
        lines += look.wrapped("Usage:", " ".join([context.command_path, *usage]), label_width=7)
        lines += [f"Try '{context.command_path} --help' for help.", ""]
    return "\n".join([*lines, *look.wrapped("Error:", _short(error.format_message()), label_width=7)])


def _short(text: str) -> str:
    """What fits a screen: a whole file may stand where a name was expected."""
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}... ({len(text)} characters)"


def told(error: LogActError) -> str:
    """An error for people: what is wrong, then what was received, expected, and what to do, a line each."""
    from logact.cli import look

    lines = look.wrapped("Error:", error.message, label_width=7)
    received = error.received if isinstance(error.received, str | None) else repr(error.received)
    for label, text in (("received", received), ("expected", error.expected), ("to do", error.todo)):
        if text:
            lines += look.wrapped(label, _short(text), indent=2, label_width=10)
    return "\n".join(lines)


def _say(text: str) -> None:
    try:
        click.echo(text, err=True)
    except OSError:
        pass  # nobody listens


if __name__ == "__main__":
    sys.exit(main())
