"""``logact approve``, ``deny`` and ``approvals``: what people say about actions that wait for them, and how well."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec

from logact.cli import look
from logact.cli.common import json_option, put, put_json, who, with_log
from logact.errors import UsageError
from logact.introspection.approvals import Quality, approvals_of, draft_rule, drafts, tried
from logact.introspection.backtest import Judged
from logact.logs.base import SharedLog
from logact.logs.network_url import redacted
from logact.runtime.approvals import Approval, approve, deny, pending_in
from logact.spec_toml import pairs
from logact.voters.human import Pending

_AS = click.option("--as", "by", metavar="NAME", help="In whose name (LOGACT_OPERATOR, or your login name).")
_SEEN = click.option("--digest", default="", metavar="D", help="Only if the arguments still have this digest.")


@click.command("approve")
@click.argument("log")
@click.argument("action", type=int, required=False)
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the log.")
@_AS
@_SEEN
@json_option
def approve_command(log: str, action: int | None, *, reason: str, by: str | None, digest: str, as_json: bool) -> None:
    """Approve an ACTION that waits in LOG for you; without ACTION show what waits for people.

    An approval holds for exactly the arguments that are shown. After the deadline it is refused.

    \b
    Examples:
      logact approve ops.db
      logact approve ops.db 12000 --reason "checked with Eve"

    \b
    Exit codes: 0 it counts; 1 it took no effect (too late, decided); 2 there
    is no such action, or it does not wait for you.
    """

    async def work(opened: SharedLog) -> Approval | list[Pending]:
        if action is None:
            return await pending_in(opened)
        return await approve(opened, action, by or who(), reason, arguments_digest=digest)

    _show(with_log(log, work), log, as_json)


@click.command("deny")
@click.argument("log")
@click.argument("action", type=int)
@click.option("--reason", default="", metavar="TEXT", help="Why; the model is told.")
@click.option("--hint", default="", metavar="TEXT", help="What would be acceptable; the model is told.")
@click.option("--rule", type=click.Path(path_type=Path), metavar="FILE", help="Also draft a rule for next time.")
@_AS
@_SEEN
@json_option
def deny_command(
    *,
    log: str,
    action: int,
    reason: str,
    hint: str,
    rule: Path | None,
    by: str | None,
    digest: str,
    as_json: bool,
) -> None:
    """Deny an ACTION that waits in LOG for you.

    With --rule a rule that denies the like from now on is drafted and added to FILE. It holds once the agent's
    voters use that file; `logact backtest` shows what it would have changed.

    \b
    Example:
      logact deny ops.db 12000 --reason "not that customer" --rule rules.toml

    \b
    Exit codes: 0 it counts; 1 it took no effect (too late, decided); 2 there
    is no such action, or it does not wait for you.
    """

    async def work(opened: SharedLog) -> tuple[Approval, Pending | None]:
        waiting = next((one for one in await pending_in(opened) if one.action == action), None)
        return await deny(opened, action, by or who(), reason, hint=hint, arguments_digest=digest), waiting

    done, waiting = with_log(log, work)
    if rule is not None and waiting is not None and done.took_effect:
        _add_rule(rule, draft_rule(waiting, "deny", reason or f"denied by {done.by}"))
    _show(done, log, as_json)
    if rule is not None and waiting is not None and done.took_effect and not as_json:
        put(
            [
                f"A rule was drafted at the end of {rule}: read it, then test it with",
                f"logact backtest and {redacted(log)}",
            ]
        )


@click.command("approvals")
@click.argument("log")
@click.option("--drafts", "want_drafts", is_flag=True, help="What is always approved, as drafts of rules (TOML).")
@json_option
def approvals_command(log: str, want_drafts: bool, as_json: bool) -> None:
    """How people approve in LOG: how long they take, how often without a thought, what they came to regret.

    \b
    Examples:
      logact approvals ops.db
      logact approvals ops.db --drafts > drafts.toml
    """

    async def work(opened: SharedLog) -> tuple[list[Quality], list[tuple[dict[str, Any], list[int], list[Judged]]]]:
        told, found = await approvals_of(opened)
        offered = drafts(told) if want_drafts else []
        return found, [(rule, actions, await tried(opened, rule)) for rule, actions in offered]

    found, offered = with_log(log, work, past=True)
    if want_drafts:
        for table, actions, backtested in offered:
            if as_json:
                put_json({"rule": table, "actions": actions, "backtest": backtested})
            else:
                put(_draft(table, actions, backtested))
        if not offered and not as_json:
            click.echo("Nothing was approved often enough, each time, to be a rule.", err=True)
        return
    if as_json:
        for one in found:
            put_json(one)
        return
    put(_quality(found) if found else ["Nobody has approved or denied anything."])


def _draft(table: dict[str, Any], actions: list[int], backtested: list[Judged]) -> list[str]:
    """A rule as TOML, with what it would have let pass in this log above it."""
    ended = Counter(one.ended for one in backtested)
    stopped = [str(one.action) for one in backtested if one.before == "rejected"]
    told = ", ".join(f"{count} {how}" for how, count in sorted(ended.items()))
    return [
        f"# approved each time: {', '.join(map(str, actions))}",
        f"# backtest: it would have let {len(backtested)} actions pass ({told})",
        *([f"# CAREFUL: of these were rejected: {', '.join(stopped)}"] if stopped else []),
        "[[rules]]",
        *pairs(table),
        "",
    ]


def _quality(found: list[Quality]) -> list[str]:
    rows = [
        (
            one.person,
            str(one.approvals),
            str(one.denials),
            look.duration(one.seconds * 1000),
            str(one.quick),
            str(one.streak),
            str(len(one.regretted)),
        )
        for one in found
    ]
    head = ("PERSON", "YES", "NO", "MEDIAN", "IN 3 S", "YES IN A ROW", "REGRETTED")
    return look.table(rows, head=head, right=(1, 2, 3, 4, 5, 6))


def _show(found: Approval | list[Pending], log: str, as_json: bool) -> None:
    if isinstance(found, list):
        if as_json:
            for one in found:
                put_json(one)
        else:
            put([line for one in found for line in _waiting(one, log)] or ["Nothing waits for people."])
        return
    if as_json:
        put_json(found)
    else:
        verb = "approved" if found.approved else "denied"
        if not found.took_effect:
            lines = [f"It took no effect: {found.why}."]
        elif found.status == "proposed":
            lines = [
                f"Action {found.action} is {verb} by {found.by}; it still waits for {', '.join(found.waits_for)}."
            ]
        else:
            lines = [f"Action {found.action} is {verb} by {found.by}: {found.status}."]
        put([part for line in lines for part in look.wrapped("", line, label_width=0)])
    if not found.took_effect:
        raise click.exceptions.Exit(1)


def _waiting(one: Pending, log: str) -> list[str]:
    """What a person has to see before saying yes: everything that would run."""
    lines = [look.paint(f"action {one.action}", None, bold=True) + f"  {one.tool}, {one.effect}, agent {one.agent}"]
    if one.undoes:
        lines += look.wrapped("UNDO", f"it takes action {one.undoes} back, which has these arguments", indent=2)
    shown: list[tuple[str, Any]] = [("task", one.task), ("because", one.reasoning)]
    for label, text in shown:
        if text:
            lines += look.wrapped(label, look.clean(str(text)), indent=2)
    for name, value in one.arguments.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        lines += look.wrapped(name, look.clean(text), indent=2)
    lines += look.wrapped(
        "waits for", " or ".join("anybody" if name == "*" else name for name in one.approvers), indent=2
    )
    for name, reason in one.said.items():
        lines += look.wrapped(name, look.clean(reason), indent=2)
    if one.expires_ms:
        lines += look.wrapped("until", look.moment(one.expires_ms), indent=2)
    return [*lines, f"  logact approve {redacted(log)} {one.action} --digest {one.arguments_digest}", ""]


def _add_rule(path: Path, rule: dict[str, Any]) -> None:
    text = "\n".join(["", "[[rules]]", *pairs(rule), ""])
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            "The denial counts, but the rule could not be written", received=f"{path}: {error}"
        ) from error
