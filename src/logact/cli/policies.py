"""``logact backtest`` and ``logact rules``: what a policy would have done, and what rules say, beforehand."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from logact.cli import look
from logact.cli.common import existing_log, go, json_option, put, put_json, say_trimmed
from logact.core.views import Action
from logact.entry import EFFECTS, Policy
from logact.errors import SpecError, UsageError
from logact.introspection.backtest import Backtest, Judged, backtest
from logact.spec import load_spec, parse_spec
from logact.spec_parts import policy_of, tools_of, voters_of
from logact.voters.base import Voter
from logact.voters.rules import ActionInterceptor, check_rules

NAME = "backtest"


@click.command("backtest")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option(
    "--policy", "file", required=True, type=click.Path(), metavar="FILE", help="Voters and a policy (TOML)."
)
@click.option("--agent", default="", metavar="NAME", help="Only this agent's actions.")
@click.option("--fail-on-change", is_flag=True, help="Exit with 1 if any action would have gone another way.")
@click.option("--ask", is_flag=True, help="Ask models where they left no vote. That costs money.")
@json_option
def backtest_command(
    *, logs: tuple[str, ...], file: str, agent: str, fail_on_change: bool, ask: bool, as_json: bool
) -> None:
    """Judge the actions of LOG... again under another policy, and show what would have gone the other way.

    FILE holds [[voters]] and [policy] as in a specification (which will do too). Votes of models and people are
    those in the logs; where there is none, the action would wait for them. Nothing is appended, nothing acts.

    \b
    Example:
      logact backtest --policy new.toml ops.db other.db

    \b
    Exit codes: 0 done; 1 something changes, with --fail-on-change.
    """
    voters, policy = policy_from_file(file)

    async def work() -> Backtest:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(existing_log(name)) for name in logs]
            done = await backtest(opened, voters, policy, agent=agent, ask=ask)
            for one in opened:
                await say_trimmed(one)
            return done

    found = go(work())
    if as_json:
        for one in found.changes:
            put_json({"event": "change", **_plain(one)})
        put_json(
            {"event": "summary", "actions": len(found.judged), "changes": len(found.changes), "table": _rows(found)}
        )
    else:
        put(_lines(found))
    if fail_on_change and found.changes:
        raise click.exceptions.Exit(1)


def policy_from_file(file: str) -> tuple[list[Voter], Policy]:
    """The voters and the policy of a file; it may be a whole specification, or these two parts of one."""
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError("The policy cannot be read", received=f"{file}: {error}") from error
    whole = any(line.strip() == "[agent]" for line in text.splitlines())
    spec = load_spec(file) if whole else parse_spec(f'{text}\n[agent]\nname = "{NAME}"\n', path=file)
    voters = voters_of(spec, tools_of(spec)) if spec.tools else voters_of(spec)
    policy = policy_of(spec, voters, "")
    return voters, policy if policy is not None else Policy(version=1)


def _plain(one: Judged) -> dict[str, Any]:
    return {
        "log": one.log,
        "action": one.action,
        "agent": one.agent,
        "tool": one.tool,
        "arguments": one.arguments,
        "before": one.before,
        "after": one.after,
        "ended": one.ended,
        "by": one.by,
        "reason": one.reason,
        "waits_for": one.waits_for,
    }


def _rows(found: Backtest) -> list[dict[str, Any]]:
    return [
        {"before": before, "after": after, "ended": ended, "actions": count}
        for (before, after, ended), count in found.table().items()
    ]


_WOULD = {"approve": "would pass", "reject": "would be rejected", "wait": "would wait"}


def _lines(found: Backtest) -> list[str]:
    lines: list[str] = []
    for one in found.changes:
        waits = f" for {', '.join(one.waits_for)}" if one.waits_for else ""
        head = (
            look.paint(f"{one.action}", None, bold=True) + f"  {one.tool}: {one.before}, {_WOULD[one.after]}{waits}"
        )
        lines.append(f"{head}; it ended: {one.ended}")
        lines += look.wrapped("", look.arguments(one.arguments, 300), indent=2, label_width=0)
        if one.reason and one.after != "wait":
            lines += look.wrapped("", f"{one.by}: {one.reason}" if one.by else one.reason, indent=2, label_width=0)
        lines.append("")
    rows = [
        (
            before,
            _WOULD[after],
            ended,
            str(count),
            "" if {"approved": "approve", "rejected": "reject"}.get(before) == after else "*",
        )
        for (before, after, ended), count in found.table().items()
    ]
    lines += look.table(rows, head=("WAS", "NOW", "IT ENDED", "ACTIONS", ""), right=(3,))
    changes = look.count(len(found.changes), "change")
    return [*lines, "", f"{changes} in {look.count(len(found.judged), 'action')}."]


# --- rules ------------------------------


@click.group("rules")
def rules_command() -> None:
    """Look at rules before they are in force: `check` them, or `explain` what they say about an action.

    \b
    Examples:
      logact rules check rules.toml
      logact rules explain rules.toml send '{"to": "eve@else.org"}'
    """


@rules_command.command("check")
@click.argument("file", type=click.Path())
@click.option("--spec", type=click.Path(), metavar="SPEC", help="Check them against this agent's tools too.")
@json_option
def rules_check(file: str, spec: str | None, as_json: bool) -> None:
    """Find rules in FILE that can never decide, contradict others, or name what is not there.

    \b
    Example:
      logact rules check rules.toml --spec logact.toml

    \b
    Exit codes: 0 nothing found; 1 warnings; 2 the rules cannot be loaded.
    """
    tools = tools_of(load_spec(spec)) if spec else None
    voter = ActionInterceptor.from_toml(file)
    problems = check_rules(voter.rules, tools)
    for one in problems:
        if as_json:
            put_json(one)
        else:
            put(look.wrapped("", f"{one.severity}: rule {one.rule!r}, {one.key}: {one.message}", label_width=0))
    if not as_json:
        put(f"{look.count(len(voter.rules), 'rule')}, {look.count(len(problems), 'problem')}.")
    if problems:
        raise click.exceptions.Exit(2 if any(one.severity == "error" for one in problems) else 1)


@rules_command.command("explain")
@click.argument("file", type=click.Path())
@click.argument("tool")
@click.argument("arguments", default="{}")
@click.option("--agent", default="", metavar="NAME", help="As this agent's action.")
@click.option("--effect", type=click.Choice(EFFECTS), default="irreversible", help="The tool's declared effect.")
@json_option
def rules_explain(*, file: str, tool: str, arguments: str, agent: str, effect: Any, as_json: bool) -> None:
    """Say which rule in FILE decides about a call of TOOL with ARGUMENTS (JSON), and why.

    \b
    Example:
      logact rules explain rules.toml send '{"to": "eve@else.org"}'
    """
    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise UsageError("ARGUMENTS is no JSON", received=arguments, expected='for example {"path": "a"}') from error
    if not isinstance(given, dict):
        raise UsageError("ARGUMENTS is no JSON object", received=arguments)
    voter = ActionInterceptor.from_toml(file)
    found = voter.explain(Action(tool=tool, arguments=given, effect=effect), agent=agent)
    if as_json:
        put_json(found)
        return
    put(look.wrapped(found.decision, found.reason))
    if found.hint:
        put(look.wrapped("hint", found.hint))
    for name, decision in found.matched:
        put(look.wrapped("matches", f"{name} ({decision})" + (", which decides" if name == found.rule else "")))
