"""``logact compare``: two runs side by side."""

from __future__ import annotations

import re

import click
import msgspec

from logact.cli import look
from logact.cli.common import POSITION_DIGITS_MAX, at, existing_log, exists, go, json_option, put, put_json
from logact.errors import UsageError
from logact.introspection.compare import Compared, Figures, compare
from logact.logs.network_url import redacted

_RUN = re.compile(r"(?P<place>.*)#(?P<run>[^#/]*)", re.DOTALL)


def place(text: str) -> tuple[str, int | None, int]:
    """A LOG[@POSITION][#RUN] argument: the log, up to where, and the run (0: its last)."""
    found = None if exists(text) else _RUN.fullmatch(text)
    if found is None:
        return *at(text), 0
    run = found["run"]
    if not (run.isascii() and run.isdigit() and len(run) <= POSITION_DIGITS_MAX):
        raise UsageError(
            "This is not a run",
            received=f"{run[:40]!r} after {redacted(found['place'])}#",
            expected="LOG#RUN with a number, as in ops.db#1000",
            todo="see the runs with `logact state LOG`",
        )
    return *at(found["place"]), int(run)


@click.command("compare")
@click.argument("a", metavar="LOG[@POSITION][#RUN]")
@click.argument("b", metavar="LOG[@POSITION][#RUN]")
@json_option
def compare_command(a: str, b: str, as_json: bool) -> None:
    """Two runs side by side: what each did, used and came to. Without RUN the last one of each log.

    \b
    Examples:
      logact compare ops.db#1000 ops.db#9000
      logact compare ops.db try.db

    \b
    Exit codes: 0 the same actions and answer; 1 they differ.
    """
    (first, a_upto, a_run), (second, b_upto, b_run) = place(a), place(b)

    async def work() -> Compared:
        async with existing_log(first) as one, existing_log(second) as two:
            return await compare(one, two, a_run=a_run, b_run=b_run, a_upto=a_upto, b_upto=b_upto)

    found = go(work())
    if as_json:
        put_json(msgspec.to_builtins(found))
    else:
        put(_lines(found))
    if not (found.same_actions and found.same_answer):
        raise click.exceptions.Exit(1)


def _lines(found: Compared) -> list[str]:
    rows = [[name, one, two] for name, one, two in zip(_NAMES, _cells(found.a), _cells(found.b), strict=True)]
    lines = look.table(rows, head=["", "A", "B"])
    if found.pairs:
        steps = [
            [
                {(True, True): "=", (True, False): "a", (False, True): "b"}[bool(pair.a), bool(pair.b)],
                f"{pair.a or '-'} {pair.a_status}".strip(),
                f"{pair.b or '-'} {pair.b_status}".strip(),
                look.clean(f"{pair.tool} {pair.arguments}"),
            ]
            for pair in found.pairs
        ]
        lines += ["", *look.table(steps, head=["", "A", "B", "CALL"])]
    gone = [f"{name}: what it did before position {one.trimmed} was trimmed." for name, one in
            (("A", found.a), ("B", found.b)) if one.trimmed]  # fmt: skip
    if gone:
        return [*lines, "", *gone, "Whether they are the same is not known."]
    lines += ["", "The same actions." if found.same_actions else "The actions differ."]
    lines += ["The same answer." if found.same_answer else "The answers differ."]
    return lines


_NAMES = ("run", "task", "status", "turns", "actions", "failed", "refused", "retries", "tokens", "wasted", "cost",
          "model", "tools", "votes", "whole", "answer")  # fmt: skip


def _cells(one: Figures) -> list[str]:
    return [
        f"{one.run} of {one.agent}",
        look.fit(look.clean(one.title), 40),
        one.status + ("" if one.ok is not False else ", not ok"),
        *map(str, (one.turns, one.actions, one.failed, one.rejected, one.retries, one.tokens, one.wasted_tokens)),
        f"{one.usd:.4f} USD" if one.usd is not None else "unknown",
        look.duration(one.model_ms),
        look.duration(one.tools_ms),
        look.duration(one.votes_ms),
        look.duration(one.whole_ms),
        look.fit(look.clean(one.answer), 40),
    ]
