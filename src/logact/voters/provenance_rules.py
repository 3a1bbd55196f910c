"""Who has the authority for an effect, and for each value in it: the rules of the ProvenanceVoter. Pure.

One principle: a third party's text may inform, it may not order. The user may delegate values, or orders, to a
source that they name; not both for one effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from logact.voters.provenance_labels import Context, Label, Origin, origin_of
from logact.voters.provenance_manifest import READ, ToolFacts
from logact.voters.provenance_memory import leaves
from logact.voters.provenance_places import in_own_words, place, telling, url_read
from logact.voters.provenance_requests import Licence, contested, exclusive, licence_of
from logact.voters.provenance_text import (
    IRREVERSIBLE,
    VERBS,
    holds,
    host,
    kind_of,
    plain_url,
    stems,
    typed_values,
    verbs_in,
    words,
)
from logact.voters.provenance_verdict import ASK_HINT, STOP_HINT, Outcome, Verdict, said

_RANK: dict[str, int] = {"commit": 0, "ask": 1, "abort": 2}

_KINDS = frozenset({"type", "kind", "mode"})


def judge(
    context: Context,
    tool: str,
    facts: ToolFacts,
    arguments: dict[str, Any],
    *,
    strict: bool,
    others: frozenset[str] = frozenset(),
) -> Verdict:
    """The rules' verdict on an action. ``others``: the nouns of other tools with effects of its class."""
    if facts.effect == READ:
        return _worst(
            url_read(context, name, value, strict)
            for name, role, value in _arguments(facts, arguments)
            if role == "url"
        )
    licence = licence_of(context, tool, facts, others if facts.effect in IRREVERSIBLE else frozenset())
    found = [
        (name, role, value, origin_of(context, value))
        for name, role, value in _arguments(facts, arguments)
        if role not in ("amount", "flag", "query")
    ]
    places = [origin for _, role, _, origin in found if role in ("destination", "object", "url")]
    completes = any(role == "object" and origin.label == Label.USER for _, role, _, origin in found)
    verdicts = [_need(context, facts, argument, strict, completes=completes) for argument in found]
    worst = _worst(verdicts)
    anchored = any(origin.label >= Label.BOUND for origin in places) or any(
        in_own_words(context, value, origin)
        for _, role, value, origin in found
        if role in ("name", "content", "value")
    )
    verdicts += [
        _licensed(licence, facts, tool, anchored=anchored, worst=worst, strict=strict),
        _split_authority(licence, facts, places),
        _one_shot(context, facts, found),
        _specific(context, facts, licence, places, anchored),
        _told_apart(context, facts, tool, licence, found),
        _unanchored(context, licence, found, anchored),
    ]
    return _worst(verdicts)


def _arguments(facts: ToolFacts, arguments: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, value in arguments.items():
        for path, leaf in leaves(value, name):
            role = facts.role(name)
            if isinstance(leaf, bool) or path.rsplit(".", 1)[-1] in _KINDS:
                role = "flag"
            elif isinstance(leaf, float):
                role = "amount"
            yield path, role, str(leaf)


def _worst(verdicts: Any) -> Verdict:
    worst = Verdict("commit", "every value and the kind of effect come from whom the user trusts")
    for verdict in verdicts:
        if verdict is not None and _RANK[verdict.outcome] > _RANK[worst.outcome]:
            worst = verdict
    return worst


# --- one value ------------------------------


def _need(
    context: Context, facts: ToolFacts, argument: tuple[str, str, str, Origin], strict: bool, *, completes: bool
) -> Verdict | None:
    name, role, value, origin = argument
    label = origin.label
    if role in ("destination", "object", "url"):
        return place(context, facts, argument, strict, completes=completes)
    if role == "secret":
        return None if label == Label.USER else said("abort", role, name, value, origin)
    if role == "value":
        if label in (Label.THIRD, Label.ORDERED):
            return said("abort", role, name, value, origin)
        if label == Label.MODEL and kind_of(value) != "phrase":
            return said("ask", role, name, value, origin)
        return said("ask", role, name, value, origin) if label == Label.DELEGATED and origin.tainted else None
    if role == "name":
        strangers = label in (Label.THIRD, Label.ORDERED) or (label == Label.DELEGATED and not origin.named)
        if strangers and (len(words(value)) > 2 or not stems(value) & telling(context)):
            return said("ask", role, name, value, origin)
        return None
    return _content(context, name, role, value) or _sensitive(context, role, value)


def _content(context: Context, name: str, role: str, value: str) -> Verdict | None:
    """What is written or sent: any text, but links, addresses and accounts in it need an origin."""
    for kind, inner in typed_values(value):
        origin = origin_of(context, inner)
        if origin.label == Label.USER or (kind == "email" and origin.pointed):
            continue  # the user asked for what this text says; an address in a message does nothing by itself
        if origin.label == Label.MODEL and not (kind == "url" and _known_host(context, inner)):
            return said("ask", f"in the {role}", name, inner, origin)
        if origin.ordered and (not origin.pointed or _to_be_sent(context, kind, inner)):
            return said("ask", f"in the {role}", name, inner, origin)
    return None


_SENSITIVE = re.compile(
    r"\bpass(?:words?|ports?|codes?)\b|\bsecrets?\b|\btokens?\b|\bcards?\b|\bssn\b|\bsocial\b|\bcvv\b|\bpin\b"
    r"|\bprivate key\b|\bid number\b"
)


def sensitive_in(context: Context, text: str) -> str:
    """The name of a sensitive field whose value stands in a text, and of which the user did not speak ("": none)."""
    lowered = text.casefold()
    for record in context.records:
        for path, value in record["fields"].items():
            name = path.rsplit(".", 1)[-1].partition("#")[0].casefold().replace("_", " ")
            sensitive = _SENSITIVE.search(name)
            if sensitive is None or path.startswith("key:") or len(value) < 4 or value not in lowered:
                continue
            if not stems(sensitive.group()) <= context.stems and value not in context.lowered:
                return str(name)
    return ""


def _sensitive(context: Context, role: str, value: str) -> Verdict | None:
    """What goes out must not hold a sensitive field of a record, unless the user spoke of it."""
    held = sensitive_in(context, value)
    why = f"the {role} holds a sensitive value ({held}) that the user did not ask for"
    return Verdict("abort", why, "Try again without it.") if held else None


def _known_host(context: Context, url: str) -> bool:
    """Whether the log knows the host of a URL that the agent wrote in its own way."""
    place = host(url)
    return holds(context.lowered, place) or any(holds(lowered, place) for _, _, lowered in context.texts)


def _to_be_sent(context: Context, kind: str, value: str) -> bool:
    """Whether an order wants a value to be passed on, rather than looked at."""
    needle = plain_url(value) if kind == "url" else value.casefold()
    passing_on = VERBS["message"] | VERBS["post"] | VERBS["share"]
    return any(
        needle in segment.casefold() and verbs_in(segment, passing_on) for segment, _, _ in context.run["orders"]
    )


# --- the effect as a whole ------------------------------


def _licensed(
    licence: Licence, facts: ToolFacts, tool: str, *, anchored: bool, worst: Verdict, strict: bool
) -> Verdict | None:
    if licence.who == "user":
        return None
    if licence.who == "weak":
        return Verdict("ask", f"the user spoke of it ({licence.verb!r}), and did not ask to do it", ASK_HINT)
    if licence.who == "order":
        if strict:
            return Verdict(
                "ask", f"{tool}: only a source that the user told the agent to follow asks for it", ASK_HINT
            )
        return None
    outcome: Outcome = "ask" if anchored and worst.outcome == "commit" and facts.effect != "delete" else "abort"
    return Verdict(
        outcome,
        f"nothing in the user's words asks for {tool} (effect: {facts.effect})",
        ASK_HINT if outcome == "ask" else STOP_HINT,
    )


def _split_authority(licence: Licence, facts: ToolFacts, places: list[Origin]) -> Verdict | None:
    """A source may be given orders to carry, or values to fill in; not both for one effect."""
    if licence.who != "order":
        return None
    if facts.effect in IRREVERSIBLE or any(origin.label < Label.BYORDER for origin in places):
        return Verdict("ask", "both the order and its object come from a source, none from the user", ASK_HINT)
    return None


def _one_shot(context: Context, facts: ToolFacts, found: list[tuple[str, str, str, Origin]]) -> Verdict | None:
    """Paying one place twice; and a place that the user named, but an order of a third party too, used twice."""
    places = {value.casefold(): origin for _, role, value, origin in found if role == "destination"}
    for effect in context.run["effects"]:
        again = places.keys() & {value.casefold() for value in effect["arguments"].values()}
        if facts.effect == effect["class"] == "pay" and again:
            return Verdict("ask", "a second payment to the same place in one run", ASK_HINT)
        if any(places[place].tainted for place in again):
            return Verdict("ask", "a second use of a place that a third party's instructions name too", ASK_HINT)
    return None


def _specific(
    context: Context, facts: ToolFacts, licence: Licence, places: list[Origin], anchored: bool
) -> Verdict | None:
    """An effect that shares nothing with the request but a common verb."""
    if licence.who != "user" or anchored or not places:
        return None
    if any(origin.label >= Label.DELEGATED and origin.pointed for origin in places):
        return None
    if set(facts.noun) & context.stems or exclusive(licence.verb):
        return None
    return Verdict("ask", "neither its object nor its place was named by the user", ASK_HINT)


def _told_apart(
    context: Context, facts: ToolFacts, tool: str, licence: Licence, found: list[tuple[str, str, str, Origin]]
) -> Verdict | None:
    """Where a stranger's order asks for the same kind of effect as the user, this one has to be the user's.

    It is, if its place, object or name is one that they said or pointed at by name, and no order names it.
    """
    if licence.who != "user" or not contested(context, tool, facts):
        return None
    for _, role, value, origin in found:
        if role in ("destination", "object", "url") and not origin.tainted:
            if origin.label == Label.USER or (origin.named and origin.label >= Label.DELEGATED):
                return None
        elif role in ("name", "value") and in_own_words(context, value, origin):
            return None
    if any(origin.label == Label.USER for _, role, _, origin in found if role in ("destination", "object", "url")):
        return None  # the user said it first; a second use of it is a matter of its own
    return Verdict(
        "ask", f"a third party's instructions ask for {tool} too, and this one is not the user's", ASK_HINT
    )


def _unanchored(
    context: Context, licence: Licence, found: list[tuple[str, str, str, Origin]], anchored: bool
) -> Verdict | None:
    """Words of strangers, and nothing of the user's; unless they told the agent to do what those words say."""
    if anchored:
        return None
    for name, role, value, origin in found:
        if licence.who == "order" and not origin.tainted and context.handed_over(value.casefold()):
            continue
        if role in ("name", "content", "value") and origin.label in (Label.THIRD, Label.ORDERED):
            return said("ask", role, name, value, origin, more="nothing in the action is the user's")
    return None
