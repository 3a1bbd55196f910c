"""Ways to combine voters, as plain data for ``LogActAgent(policy=...)`` or ``Policy(need=...)``.

Each part is a voter's name, a Voter, or another expression. What they mean is ``logact.core.voting``'s to say; what a
policy cannot use is refused when the agent is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from logact.voters.base import Voter

Part: TypeAlias = "str | Voter | Mapping[str, Any]"
Need: TypeAlias = dict[str, Any]


def all_of(*parts: Part) -> Need:
    """Every part is heard and none rejects. A voter that abstains is passed over, if another one approves."""
    return {"all": [_part(part) for part in parts]}


def any_of(*parts: Part) -> Need:
    """One part that approves is enough."""
    return {"any": [_part(part) for part in parts]}


def k_of(k: int, *parts: Part, veto: bool = False) -> Need:
    """At least ``k`` parts approve; with ``veto`` a single rejection rejects."""
    found: Need = {"k": k, "of": [_part(part) for part in parts]}
    return {**found, "veto": True} if veto else found


def majority_of(*parts: Part) -> Need:
    """More parts approve than reject, of those that don't abstain. A tie rejects."""
    return {"majority": [_part(part) for part in parts]}


def weighted(weights: Mapping[str, float], threshold: float) -> Need:
    """The mean probability of approval, by weight, reaches ``threshold``; votes count by their confidence."""
    return {"weighted": dict(weights), "threshold": threshold}


def veto(vetoing: Part | Sequence[Part], over: Part) -> Need:
    """``over`` decides, unless one of ``vetoing`` rejects. Who may veto is waited for; its approval is not enough."""
    listed = [vetoing] if isinstance(vetoing, str | Voter | Mapping) else list(vetoing)
    return {"veto": [_part(part) for part in listed], "over": _part(over)}


def first_of(*voters: str | Voter) -> Need:
    """Whoever answers first decides, in the order of the log."""
    return {"first": [voter.name if isinstance(voter, Voter) else voter for voter in voters]}


def escalate(*parts: Part) -> Need:
    """The first part that does not abstain decides. The next one is asked only after the earlier ones abstained."""
    return {"escalate": [_part(part) for part in parts]}


def override(base: Part, by: Part, classes: Sequence[str]) -> Need:
    """``base`` decides, and ``by`` may overturn its rejections of the named ``classes`` (globs; ``voter/class``).

    ``by`` is asked only if all of what rejects is of those classes. A rejection without a class is never overturned.
    """
    return {"override": _part(base), "by": _part(by), "classes": list(classes)}


def case(need: Part, *, tool: str | Sequence[str] = (), effect: str | Sequence[str] = ()) -> Need:
    """One case of :func:`cases`: what is needed for tools (globs) and effects such as these."""
    found: Need = {"need": _part(need)}
    if tool:
        found["tool"] = tool if isinstance(tool, str) else list(tool)
    if effect:
        found["effect"] = effect if isinstance(effect, str) else list(effect)
    return found


def cases(*given: Need, otherwise: Part | None = None) -> Need:
    """The first case that fits the action decides, else ``otherwise``; with neither, only reads pass."""
    found: Need = {"cases": list(given)}
    return found if otherwise is None else {**found, "else": _part(otherwise)}


def open_to_all(reason: str) -> Need:
    """Everything passes, and the reason stands in the log."""
    return {"open": reason}


def _part(part: Part) -> Any:
    if isinstance(part, Voter):
        return part.expression()
    return part if isinstance(part, str) else dict(part)
