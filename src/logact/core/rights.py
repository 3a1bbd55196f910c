"""Who may append what: the table of ``entry.MAY_APPEND``, and the limits of single rights.

One source for the fold, for the server that checks tokens, for the page of the documentation and for the tests.
Pure: it judges an author and a payload, and knows no token.
"""

from __future__ import annotations

from collections.abc import Callable

from logact.entry import MAY_APPEND, Cancel, Claim, Payload, Recovery, Vote

Check = Callable[[str, Payload], bool]


def _own_vote(name: str, payload: Payload) -> bool:
    return isinstance(payload, Vote) and payload.voter == name


def _own_approval(name: str, payload: Payload) -> bool:
    """People stand in policies as ``human:NAME`` or just ``NAME``; ``human:*`` is whoever answers first."""
    return isinstance(payload, Vote) and (payload.voter.partition(":")[2] or payload.voter) in (name, "*")


def _gives_up(_: str, payload: Payload) -> bool:
    return isinstance(payload, Recovery) and payload.settlement == "failed_final" and payload.attempt == 0


def _task(_: str, payload: Payload) -> bool:
    """In whose name does not matter here: one connection may speak for several agents, as it may propose for them."""
    return isinstance(payload, Claim) and payload.run != 0 and not payload.lapses


def _one_action(_: str, payload: Payload) -> bool:
    return isinstance(payload, Cancel) and not payload.scope and payload.intent != 0


LIMITS: dict[tuple[str, str], tuple[str, Check]] = {
    ("client", "Vote"): ("in its own name", _own_approval),
    ("voter", "Vote"): ("in its own name", _own_vote),
    ("driver", "Recovery"): ("to give up a failed action", _gives_up),
    ("driver", "Claim"): ("of a run's task", _task),
    ("driver", "Cancel"): ("of one action", _one_action),
    ("executor", "Cancel"): ("of one action", _one_action),
}
"""Rights that reach less far than the kind: (role, kind) to what is allowed, in words and as a check."""


def problem(role: str, name: str, payload: Payload) -> str:
    """Why an author may not append a payload ("" if it may). ``name`` is the component's, as the log shows it."""
    kind = type(payload).__name__
    allowed = MAY_APPEND.get(role)  # type: ignore[call-overload]
    if allowed is None or kind not in allowed:
        return f"the role {role!r} may not append a {kind}"
    return beyond(role, name, payload)


def beyond(role: str, name: str, payload: Payload) -> str:
    """Why a payload goes beyond the limit of its author's right ("" if it does not)."""
    kind = type(payload).__name__
    limit = LIMITS.get((role, kind))
    if limit is not None and not limit[1](name, payload):
        return f"the role {role!r} may append a {kind} only {limit[0]}"
    return ""


def table() -> list[tuple[str, list[str]]]:
    """Each role with what it may append, in words; the kinds that everybody may append are left out."""
    everyone = common()
    rows: list[tuple[str, list[str]]] = []
    for role, kinds in MAY_APPEND.items():
        listed = sorted(kinds - set(everyone))
        words = [f"{kind} ({LIMITS[role, kind][0]})" if (role, kind) in LIMITS else kind for kind in listed]
        rows.append((role, words))
    return rows


def common() -> list[str]:
    """The kinds that every role but the reader may append."""
    kinds = [kinds for role, kinds in MAY_APPEND.items() if role != "reader"]
    return sorted(frozenset.intersection(*kinds))
