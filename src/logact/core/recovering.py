"""What to do with an action that was started and has no result: the table of guarantee 5. Pure.

=============  =================  ==========================================================================
effect         declared           what happens once its executor is gone
=============  =================  ==========================================================================
read           anything           started again under the same key
idempotent     anything           started again under the same key
reversible     probe              asked: it happened / it did not (then tried again as a new intent)
reversible     undo, safe_undo    undone, then tried again as a new intent
irreversible   probe              asked: it happened / it did not (then tried again as a new intent)
any other      none               in doubt: a person decides, nothing is guessed
=============  =================  ==========================================================================

The stricter of the effect that the intent froze and the tool's present one counts. What was cancelled, or whose run
was stopped, is not started again: where it could have been, it is closed with its effect unknown.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from logact.core.state import Action
from logact.entry import Effect, stricter

RETRIES_MAX = 3
"""How often the driver tries an action again that a crash prevented, before it is given up."""


class Step(NamedTuple):
    """The next step of a settlement: ``wait`` (the executor may live), ``restart``, ``probe``, ``undo``, ``ask``,
    or ``close`` (with the effect unknown, since it was cancelled)."""

    verb: Literal["wait", "restart", "probe", "undo", "ask", "close"]
    reason: str


def next_step(
    action: Action,
    *,
    holder_gone: bool,
    effect_now: Effect | None,
    can_probe: bool,
    can_undo: bool,
    probe_said_unknown: bool = False,
    ended: bool = False,
) -> Step:
    """What to do with an unfinished action.

    ``holder_gone`` must be proven (the process is dead, or it was this one and it knows that it does not run the
    action). ``effect_now`` is the tool's present declaration, None if the tool is gone. ``ended`` says that nothing
    of this action may begin any more.
    """
    frozen = action.intent.effect
    effect = stricter(frozen, effect_now) if effect_now is not None else frozen
    if not holder_gone:
        return Step("wait", "its executor may still be at work")
    if effect in ("read", "idempotent"):
        if ended:
            return Step("close", "it was interrupted, and is not started again since it was cancelled or stopped")
        if effect_now is None:
            return Step("ask", f"the tool {action.intent.tool!r} is not offered any more")
        return Step("restart", f"its effect is {effect}: started again under the same key")
    if action.intent.probe and can_probe and not probe_said_unknown:
        return Step("probe", "the tool can tell whether it happened")
    if effect == "reversible" and action.intent.safe_undo and can_undo:
        return Step("undo", "the undo is safe whether or not it happened")
    if probe_said_unknown:
        return Step("ask", "the probe could not tell whether it happened")
    return Step("ask", f"its effect is {effect} and nothing can tell whether it happened")
