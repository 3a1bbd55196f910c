"""``logact state``: what a log adds up to, now or at a position."""

from __future__ import annotations

from typing import Any

import click

from logact.cli import describe, look, waiting
from logact.cli.common import at, json_option, put, put_json, with_log
from logact.cli.pending import held_lines
from logact.core.state import State
from logact.core.views import named
from logact.core.waiting import of_state
from logact.introspection.history import History, history
from logact.logs.base import SharedLog


@click.command("state")
@click.argument("log", metavar="LOG[@POSITION]")
@json_option
def state_command(log: str, as_json: bool) -> None:
    """The folded state of LOG: agents, runs, open actions, policies, what is paused or waited for.

    As it is now, or as of POSITION.

    \b
    Examples:
      logact state ops.db
      logact state ops.db@12000
    """
    name, upto = at(log)

    async def work(opened: SharedLog) -> History:
        return await history(opened, upto)

    told = with_log(name, work)
    if as_json:
        put_json(_json(told))
    else:
        put(_lines(told))


def _json(told: History) -> dict[str, Any]:
    state = told.state
    plain: dict[str, Any] = look.plain(state)
    for name in ("incarnations", "keys", "scopes", "keep", "verdict", "duplicate", "actions", "ignored"):
        plain.pop(name, None)
    plain["open_actions"] = [describe.action_json(state, state.actions[key]) for key in state.open_actions]
    plain["waits"] = [look.plain(wait) for wait in of_state(state)]
    plain["policies"] = {str(at): look.plain(policy) for at, policy in state.policies.items()}
    return plain


def _lines(told: History) -> list[str]:
    state = told.state
    if not told.entries:
        return ["The log is empty."]
    lines = [
        *look.wrapped("log", state.log),
        *look.wrapped("position", f"{state.position}, {look.moment(told.last_ms)}"),
        *look.wrapped("chain", state.chain),
    ]
    for label, text in (("HALTED", state.halted), ("BROKEN", state.broken)):
        if text:
            lines += look.wrapped(label, text)
    if state.sealed:
        lines += look.wrapped("sealed", "nothing can be appended here any more")
    if told.damaged:
        lines += look.wrapped("damaged", f"{told.damaged}; this starts at a checkpoint after it")
    elif told.trimmed:
        lines += look.wrapped("trimmed", "the beginning is gone; this starts at a checkpoint")
    lines += held_lines(state)
    lines += ["", *_agents(state), "", *_runs(state)]
    if state.open_actions:
        rows = [
            [
                str(key),
                state.actions[key].status,
                named(state.actions[key].intent),
                describe.waits_for(state, state.actions[key]),
            ]
            for key in state.open_actions
        ]
        lines += ["", *look.table(rows, head=["OPEN", "STATUS", "TOOL", "WHY"], right=[0])]
    waits = of_state(state)
    if waits:
        lines += ["", look.paint("WAITS", None, bold=True)]
        for wait in waits:
            head = f"action {wait.action}" if wait.action else f"run {wait.run}" if wait.run else wait.agent
            lines += look.wrapped(head, waiting.words(wait, command=True), indent=2, label_width=17)
    if state.conflicts:
        lines += ["", *look.wrapped("CONFLICTS", ", ".join(map(str, state.conflicts)))]
        lines += look.wrapped("", "late results say something else than was settled: see `logact doubt LOG`")
    return lines


def _agents(state: State) -> list[str]:
    names = sorted({run.agent for run in state.runs.values()} | set(state.agents))
    rows = []
    for name in names:
        held = state.agents.get(name)
        life = state.incarnations.get(held.holder) if held is not None else None
        player = "nobody" if life is None or life.left else f"{held.holder}" if held is not None else ""
        if life is not None and not life.left and life.birth is not None:
            player = f"process {life.birth.pid} on {life.birth.host.split('/')[0]}, if it lives"
        policy = state.policy_of(name)
        rows.append(
            [
                name,
                str(state.epoch(name)),
                player,
                describe.need(policy.need) if policy is not None else "none: only reads pass",
            ]
        )
    return look.table(rows, head=["AGENT", "EPOCH", "PLAYED BY", "WHO MUST AGREE"], right=[1]) or ["No agents yet."]


def _runs(state: State) -> list[str]:
    rows = [
        [
            str(run.id),
            state.control_over(run.agent, run.id) if run.status == "running" and state.control_over(run.agent, run.id)
            else run.status + ("" if run.ok else ", not ok"),
            str(run.turn),
            str(run.actions),
            str(run.input_tokens + run.output_tokens),
            look.clean(run.title),
        ]
        for run in state.runs.values()
    ][-20:]  # fmt: skip
    return look.table(rows, head=["RUN", "STATUS", "TURNS", "ACTIONS", "TOKENS", "TASK"], right=[0, 2, 3, 4]) or [
        "No runs yet."
    ]
