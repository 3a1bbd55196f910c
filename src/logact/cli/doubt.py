"""``logact doubt``: what was started and has no result; a person looks at the world and says what is true."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from logact import env
from logact.cli import describe, look
from logact.cli.actions import story
from logact.cli.common import go, json_option, put, put_json, who, with_log
from logact.core.state import Action, State
from logact.entry import Finding, NewEntry, Payload, Recovery, Settlement
from logact.errors import AgentBusy, UsageError
from logact.introspection.history import History, history
from logact.logs.base import SharedLog, where
from logact.logs.network_url import redacted

FLAGS: dict[Settlement, str] = {
    "happened": "--happened",
    "not_happened": "--did-not-happen",
    "superseded": "--superseded",
}


@click.command("doubt")
@click.argument("log")
@click.argument("action", type=int, required=False)
@click.option("--happened", is_flag=True, help="It did happen; the run goes on with that.")
@click.option("--did-not-happen", is_flag=True, help="It did not; it is proposed again.")
@click.option("--superseded", is_flag=True, help="Nobody can tell; close it as unknown.")
@click.option("--undo", is_flag=True, help="It did happen, and is taken back; LOG has to be a specification.")
@click.option("--probe", is_flag=True, help="Ask the tool's probe now; LOG has to be a specification.")
@click.option("--reason", default="", metavar="TEXT", help="How you know; it stands in the log.")
@click.option("--value", metavar="TEXT", help="With --happened: what the action returned.")
@click.option("--cite", "cites", multiple=True, type=int, metavar="N", help="Positions that support it.")
@click.option("--by", metavar="NAME", help="Who says so; your login name by default.")
@click.option("--executor-is-gone", is_flag=True, help="You made sure of it, where it cannot be proven from here.")
@json_option
def doubt_command(
    log: str,
    action: int | None,
    *,
    happened: bool,
    did_not_happen: bool,
    superseded: bool,
    as_json: bool,
    undo: bool,
    probe: bool,
    **more: Any,
) -> None:
    """Show what in LOG may or may not have happened; settle one ACTION.

    An action is in doubt when it was started, its executor is gone, and no result came. Look at the world
    first: nothing is guessed here. A conflict (a late result says something else than was settled) is shown
    and settled here, too. On a terminal, ACTION without an answer asks for one. A second answer to the same
    question takes no effect.

    \b
    Examples:
      logact doubt ops.db
      logact doubt ops.db 12004 --happened --reason "invoice 77 was sent"
      logact doubt ops.db 12004 --did-not-happen
      logact doubt logact.toml 12004 --probe
      logact doubt logact.toml 12004 --undo --reason "wrong customer"

    \b
    Exit codes: 0 nothing is in doubt, or it is settled; 1 it took no
    effect; 2 it is not in doubt; 4 something is in doubt.
    """
    settlement = _one_answer(happened=happened, did_not_happen=did_not_happen, superseded=superseded)
    if undo and settlement not in (None, "happened"):
        raise UsageError("What did not happen cannot be undone", received=f"--undo and {FLAGS[settlement]}")
    if (undo or probe) and not log.endswith(".toml"):
        raise UsageError(
            "Only the agent's tools know how",
            received=redacted(log),
            expected="a specification",
            todo="name logact.toml as LOG",
        )
    if undo:
        settlement, more["reason"] = "happened", more["reason"] or "it did, and is to be taken back"
    if (settlement is not None or undo or probe) and action is None:
        raise UsageError(
            "Which action?", received="no ACTION", todo=f"`logact doubt {redacted(log)}` lists what is in doubt"
        )
    if settlement is not None and settlement != "happened" and more["value"] is not None:
        raise UsageError("--value is what the action returned", received=FLAGS[settlement], expected="--happened")

    if undo and action is not None:
        from logact.cli.doubt_tools import refuse_undo

        refuse_undo(log, action)  # before anything is settled

    about: list[Action] = []

    async def work(opened: SharedLog) -> int:
        told = await history(opened)
        about[:] = [told.state.actions[one] for one in (action,) if one in told.state.actions]
        if action is None:
            return _list(told, log, as_json)
        if settlement is None:
            return await _show(opened, told, action, as_json)
        return await _settle(opened, told, action, settlement, as_json=as_json, **more)

    if probe and action is not None:
        from logact.cli.doubt_tools import probe_says

        answer = go(probe_says(log, action))
        put_json(answer) if as_json else put(look.wrapped("probe", answer["said"], indent=2))
    code = with_log(log, work)
    on_terminal = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if action is not None and settlement is None and code == 4 and on_terminal:
        settlement, undo, more["reason"] = _asked_for(log, about[0])
        code = with_log(log, work) if settlement is not None else code
    if undo and not code and action is not None:
        from logact.cli.doubt_tools import take_back

        code = take_back(log, action, as_json)
    if code:
        raise click.exceptions.Exit(code)


def _one_answer(**given: bool) -> Settlement | None:
    """The answer that was given, if any. Raises UsageError for two: the last one must not win unseen."""
    said = [f"--{name.replace('_', '-')}" for name, yes in given.items() if yes]
    if len(said) > 1:
        raise UsageError("One action has one answer", received=" and ".join(said), expected="one of them")
    return next((settlement for settlement, flag in FLAGS.items() if flag in said), None)


def _asked_for(log: str, action: Action) -> tuple[Settlement | None, bool, str]:
    """Ask the person at the terminal what is true: (the settlement, whether to undo it, how they know)."""
    choices = {"h": "it happened", "n": "it did not happen", "x": "nobody can tell", "l": "later"}
    of = action.intent.undoes
    if of:
        choices["h"] = f"the undo happened: {of} is taken back"
        choices["n"] = f"the undo did not happen: {of} still stands"
    if log.endswith(".toml") and _can_undo(log, action.id):
        choices["u"] = "it happened, undo it"
    put(["", *(f"  {key}  {text}" for key, text in choices.items())])
    chosen = click.prompt("Which is true?", type=click.Choice(list(choices)), default="l")
    meanings: dict[str, Settlement] = {"h": "happened", "n": "not_happened", "x": "superseded", "u": "happened"}
    settlement = meanings.get(chosen)
    if settlement is None:
        return None, False, ""
    if chosen == "u":
        from logact.cli.doubt_tools import refuse_undo

        refuse_undo(log, action.id)
    return settlement, chosen == "u", click.prompt("How do you know?", default="", show_default=False)


def _can_undo(log: str, position: int) -> bool:
    """Whether the action's tool has an undo; who plays the agent is asked when the undo is chosen."""
    from logact.cli.doubt_tools import why_no_undo

    try:
        return not why_no_undo(log, position)
    except AgentBusy:
        return True


def holder_gone(state: State, action: Action) -> bool | None:
    """Whether the process that started the action is gone: True, False (it lives), None (cannot be told here)."""
    current = action.current
    life = state.incarnations.get(current.incarnation) if current is not None else None
    if life is None or life.birth is None:
        return None
    if life.left:
        return True
    birth = life.birth
    identity = env.ProcessIdentity(host=birth.host, pid=birth.pid, started=birth.started, boot=birth.boot)
    alive = env.current().alive(identity)
    return None if alive is None else not alive


def _holder(state: State, action: Action) -> str:
    current = action.current
    life = state.incarnations.get(current.incarnation) if current is not None else None
    if life is None or life.birth is None:
        return "an unknown process"
    return f"process {life.birth.pid} on {life.birth.host.split('/')[0]}"


def _unsettled(state: State) -> list[Action]:
    conflicts = [state.actions[key] for key in state.conflicts if key in state.actions]
    return conflicts + [
        one for one in state.unfinished() if one.status == "in_doubt" or holder_gone(state, one) is not False
    ]


def _list(told: History, log: str, as_json: bool) -> int:
    found = _unsettled(told.state)
    if as_json:
        for one in found:
            put_json({**describe.action_json(told.state, one), "executor_gone": holder_gone(told.state, one)})
    elif not found:
        put("Nothing is in doubt.")
    for one in found if not as_json else ():
        put(_short(told.state, one))
    if found and not as_json:
        put(["", f"Look at one:  logact doubt {redacted(log)} {found[0].id}"])
    return 4 if found else 0


def _short(state: State, action: Action) -> list[str]:
    head = f"{action.id}  {look.paint(action.status, look.STATUS_COLOURS.get(action.status))}  "
    room = look.width() - len(str(action.id)) - len(action.status) - 4
    return [
        head + look.fit(describe.intent(action.intent), room),
        *look.wrapped("", _known(state, action), label_width=4),
    ]


def _known(state: State, action: Action) -> str:
    if action.conflict:
        return f"CONFLICT: {describe.conflict(action)}; started by {_holder(state, action)}"
    undo = undo_means(action)
    return f"{undo}\n{_holds(state, action)}" if undo else _holds(state, action)


def undo_means(action: Action) -> str:
    """What the answers mean where the action is an undo ("" where it is none)."""
    of = action.intent.undoes
    return f"the undo of {of}: if it happened, {of} is taken back; if not, {of} still stands" if of else ""


def _holds(state: State, action: Action) -> str:
    gone = holder_gone(state, action)
    fate = {True: "is gone", False: "is alive", None: "may be alive; that cannot be told from here"}[gone]
    why = f": {action.reason}" if action.reason and action.status == "in_doubt" else ""
    return f"started by {_holder(state, action)}, which {fate}; no result{why}"


async def _show(log: SharedLog, told: History, position: int, as_json: bool) -> int:
    action = _asked(told.state, position)
    if as_json:
        put_json({**describe.action_json(told.state, action), "executor_gone": holder_gone(told.state, action)})
    else:
        put(await story(log, told, action))
        put(look.wrapped("known", _known(told.state, action), indent=2))
        if action.intent.effect in ("read", "idempotent"):
            put(look.wrapped("also", "`logact run` starts it again under the same key by itself", indent=2))
    return 4


def _asked(state: State, position: int) -> Action:
    action = state.actions.get(position)
    if action is None:
        near = ", ".join(str(one.id) for one in _unsettled(state)) or "nothing is in doubt"
        raise UsageError("There is no action at this position", received=str(position), expected=near)
    if not action.conflict and (action.status not in ("executing", "in_doubt") or action.restart_allowed):
        raise UsageError(
            f"Action {position} is not in doubt", received=action.status, expected="executing or in_doubt",
            todo="`logact actions LOG ACTION` shows its story",
        )  # fmt: skip
    return action


async def _settle(
    log: SharedLog,
    told: History,
    position: int,
    settlement: Settlement,
    *,
    reason: str,
    value: str | None,
    cites: tuple[int, ...],
    by: str | None,
    executor_is_gone: bool,
    as_json: bool,
) -> int:
    state = told.state
    action = _asked(state, position)
    name = by or who()
    payloads: list[Payload] = []
    if action.status == "executing":
        gone = holder_gone(state, action)
        if gone is False or (gone is None and not executor_is_gone):
            raise UsageError(
                f"Action {position} may still be running",
                received=f"started by {_holder(state, action)}, which "
                + ("is alive" if gone is False else "may be alive"),
                expected="an executor that is gone",
                todo="end that process first" if gone is False else "make sure of it, then add --executor-is-gone",
            )
        payloads.append(Finding(code="in_doubt", message=f"its executor is gone (says {name})", cites=(position,)))
    payloads.append(
        Recovery(
            intent=position,
            attempt=len(action.attempts),
            settlement=settlement,
            evidence=name,
            reason=reason,
            value=_value(value),
            cites=cites,
        )
    )
    intent = action.intent
    entries = [
        NewEntry(payload=one, role="operator", name=name, agent=intent.agent, run=intent.run, tool=intent.tool)
        for one in payloads
    ]
    from logact.logs.base import Condition

    unless = where(kinds=["Result", "Recovery", "Undone", "Started"], actions=[position])
    done = await log.append(*entries, condition=Condition(state.position, unless))
    after = (await history(log, done.position + len(entries) - 1)).state
    settled = after.actions[position]
    answer = {
        "action": position,
        "settlement": settlement,
        "position": done.position + len(entries) - 1,
        "effective": not after.verdict,
        "reason": after.verdict,
        "status": settled.status,
    }
    if as_json:
        put_json(answer)
    elif after.verdict:
        put(f"No effect: {after.verdict}.")
    else:
        put(f"Settled: action {position} is {settled.status}, says {name}.")
        put(look.wrapped("", _after(after, action, settlement), label_width=2))
    return 1 if after.verdict else 0


def _after(state: State, action: Action, settlement: Settlement) -> str:
    """What comes of an answer."""
    if action.conflict:
        undo = f"; what did happen can be undone: logact undo SPEC {action.id}" if settlement == "happened" else ""
        return f"It is no conflict any more{undo if action.intent.undo else ''}."
    of = action.intent.undoes
    if of:
        stands = state.actions[of].status if of in state.actions else "undone"
        if stands == "undone":
            return f"So action {of} is undone."
        return f"So action {of} is {stands}. To take it back again: logact undo SPEC {of}"
    run = state.runs.get(action.intent.run)
    return _next(settlement) if run is not None and run.status == "running" else "Its run has ended."


def _value(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _next(settlement: Settlement) -> str:
    return {
        "happened": "The run goes on with it as done: logact run SPEC",
        "not_happened": "The run proposes it again, to be voted on: logact run SPEC",
    }.get(settlement, "The run goes on and tells the model that the effect is unknown: logact run SPEC")
