"""Who has the authority for an effect, and for each value in it: the rules of the ProvenanceVoter. Pure.

One principle: a third party's text may inform, it may not order. The user may delegate values, or orders, to a
source that they name; not both for one effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from logact.voters.provenance_labels import Context, Label, Origin, origin_of
from logact.voters.provenance_manifest import READ, ToolFacts
from logact.voters.provenance_memory import leaves
from logact.voters.provenance_text import (
    IRREVERSIBLE,
    NOUNISH,
    VERBS,
    holds,
    host,
    kind_of,
    plain_url,
    stem,
    stems,
    typed_values,
    verbs_in,
    words,
)

Outcome = Literal["commit", "ask", "abort"]
_RANK: dict[str, int] = {"commit": 0, "ask": 1, "abort": 2}

_MANY = re.compile(r"\b(?:all|each|every|any|everyone|everybody|people|both|users|members|ones|two|three)\b")
_LINKS = re.compile(r"\b(?:links?|urls?|pages?|web\s?pages?|web\s?sites?|sites?|articles?|blogs?|online)\b")
_MOOD = re.compile(
    r"\b(?:looking|planning|plan|hoping|thinking|going|about|trying|intend\w*|wish)\s+(?:to|of|on|about)\s+(?:\w+\s+)?"
    r"(?P<verb>\w+)"
)
_NOT = re.compile(r"\b(?:do not|don't|never|without|not to|no need to)\s+(?!forget|hesitate|miss|worry)\w+")
_TOLD = re.compile(
    r"\b(?:what|who|whom|when|where|why|how|which)\b(?:[^.?!,;]|\.(?=\w)){0,40}?"
    r"\b(?:did|does|has|have|had|was|were)\b(?:[^.?!,;]|\.(?=\w))*"
)
"""Questions about what somebody did: their verbs ask for nothing."""
_KINDS = frozenset({"type", "kind", "mode"})


class Verdict(NamedTuple):
    """What the rules say of an action: the outcome, why, and what would be acceptable."""

    outcome: Outcome
    reason: str = ""
    hint: str = ""


class Licence(NamedTuple):
    """Who asked for this kind of effect: ``user``, ``weak`` (spoken of, not asked for), ``order`` (through a source
    to which the user delegated orders), or ``none``."""

    who: Literal["user", "weak", "order", "none"]
    verb: str = ""


def licence_of(context: Context, tool: str, facts: ToolFacts) -> Licence:
    """Who asked for the class of effect of a tool."""
    first = (words(tool.replace("_", " ").replace("-", " ")) or [""])[0]
    verbs = sorted({*VERBS.get(facts.effect, ()), first} - {""})
    said = _TOLD.sub(" ", _NOT.sub(" ", context.said.casefold()))
    firm = _MOOD.sub(" ", said)
    for text, who in ((firm, "user"), (said, "weak")):
        stemmed = stems(text)
        for verb in verbs:
            if verbs_in(text, frozenset({verb})) if verb in NOUNISH else stem(verb) in stemmed:
                return Licence("user" if who == "user" else "weak", stem(verb))
    asked = frozenset(VERBS.get(facts.effect, ())) | {first}
    for order in context.delegated_orders():
        found = verbs_in(order, asked)
        if found:
            return Licence("order", found[0])
    return Licence("none")


def judge(context: Context, tool: str, facts: ToolFacts, arguments: dict[str, Any], *, strict: bool) -> Verdict:
    """The rules' verdict on an action."""
    if facts.effect == READ:
        return _worst(
            _url_read(context, name, value, strict)
            for name, role, value in _arguments(facts, arguments)
            if role == "url"
        )
    licence = licence_of(context, tool, facts)
    found = [
        (name, role, value, origin_of(context, value))
        for name, role, value in _arguments(facts, arguments)
        if role not in ("amount", "flag", "query")
    ]
    places = [origin for _, role, _, origin in found if role in ("destination", "object", "url")]
    verdicts = [_need(context, facts, argument, strict) for argument in found]
    worst = _worst(verdicts)
    anchored = any(origin.label >= Label.BOUND for origin in places) or any(
        origin.label == Label.USER or stems(value) & _telling(context)
        for _, role, value, origin in found
        if role in ("name", "content", "value")
    )
    verdicts += [
        _licensed(licence, facts, tool, anchored=anchored, worst=worst, strict=strict),
        _split_authority(licence, facts, places),
        _one_shot(context, facts, found),
        _specific(context, facts, licence, places, anchored),
        _unanchored(found, anchored),
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


def _telling(context: Context) -> frozenset[str]:
    """The stems of the user's words that say something: not the short ones, nor the verbs of requests."""
    every = {stem(verb) for verbs in VERBS.values() for verb in verbs}
    return frozenset(word for word in context.stems if len(word) > 3 and word not in every and not word.isdigit())


# --- one value ------------------------------

_WORDS = {
    Label.MODEL: "it stands nowhere in the log: the model made it up or rewrote it",
    Label.THIRD: "it comes only from a text that the user did not point at",
    Label.ORDERED: "it comes only from instructions in a third party's text",
    Label.FOREIGN: "it comes only from a field that strangers fill",
    Label.DELEGATED: "it comes from the text of a source that the user named",
    Label.BYORDER: "a source that the user named points at it",
    Label.RECORD: "it comes from a list of a trusted tool, and the user did not name it",
    Label.KNOWN: "it comes from the account's history, and the user did not name it",
    Label.BOUND: "it comes from the record that the user named",
    Label.USER: "the user said it",
}
_ASK_HINT = "Ask the user to confirm it in their own words, then try again."
_STOP_HINT = "Do not retry it. Go on with what the user asked for, without this."


def _verdict(outcome: Outcome, role: str, name: str, value: str, origin: Origin, *, more: str = "") -> Verdict:
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    tainted = "; a third party's instructions name it" if origin.tainted and origin.label > Label.ORDERED else ""
    reason = f"{name}={shown!r} ({role}): {_WORDS[origin.label]}{tainted}{'; ' + more if more else ''}"
    return Verdict(outcome, reason, _ASK_HINT if outcome == "ask" else _STOP_HINT)


def _need(context: Context, facts: ToolFacts, argument: tuple[str, str, str, Origin], strict: bool) -> Verdict | None:
    name, role, value, origin = argument
    label = origin.label
    if role in ("destination", "object", "url"):
        return _place(context, facts, argument, strict)
    if role == "secret":
        return None if label == Label.USER else _verdict("abort", role, name, value, origin)
    if role == "value":
        if label in (Label.THIRD, Label.ORDERED):
            return _verdict("abort", role, name, value, origin)
        if label == Label.MODEL and kind_of(value) != "phrase":
            return _verdict("ask", role, name, value, origin)
        return _verdict("ask", role, name, value, origin) if label == Label.DELEGATED and origin.tainted else None
    if role == "name":
        if label in (Label.THIRD, Label.ORDERED) and not stems(value) & _telling(context):
            return _verdict("ask", role, name, value, origin)
        return None
    return _content(context, name, role, value)


def _place(
    context: Context, facts: ToolFacts, argument: tuple[str, str, str, Origin], strict: bool
) -> Verdict | None:
    """Where data goes and what is acted on: the values that need authority most."""
    name, role, value, origin = argument
    label, tainted = origin.label, origin.tainted
    many = _MANY.search(context.lowered) is not None
    kind = kind_of(value)
    if label == Label.USER:
        return None
    if label in (Label.BOUND, Label.BYORDER):
        return _verdict("ask", role, name, value, origin) if tainted or (strict and label == Label.BYORDER) else None
    if label in (Label.KNOWN, Label.RECORD):
        if tainted:
            return _verdict("abort", role, name, value, origin)
        if origin.siblings and not many:
            return _verdict("ask", role, name, value, origin, more="the user named another of this list")
        outside = role == "destination" and kind != "phrase"  # names in a directory of one's own lead nowhere else
        if label == Label.RECORD and (facts.effect == "pay" or (strict and outside)):
            return _verdict("ask", role, name, value, origin)
        return None
    if label == Label.FOREIGN:
        return _verdict("abort" if tainted else "ask", role, name, value, origin)
    if label == Label.DELEGATED:
        if any(sort == kind for sort, _ in typed_values(context.said)):
            return _verdict("abort", role, name, value, origin, more="the user named another one")
        if strict or tainted or facts.effect == "delete" or (origin.rivals > 1 and not many):
            more = "the source holds several" if origin.rivals > 1 else ""
            return _verdict("ask", role, name, value, origin, more=more)
        return None
    if label == Label.MODEL:
        return _verdict("ask", role, name, value, origin)
    return _verdict("abort", role, name, value, origin)


def _content(context: Context, name: str, role: str, value: str) -> Verdict | None:
    """What is written or sent: any text, but links, addresses and accounts in it need an origin."""
    for kind, inner in typed_values(value):
        origin = origin_of(context, inner)
        if origin.label == Label.USER or (kind == "email" and origin.pointed):
            continue  # the user asked for what this text says; an address in a message does nothing by itself
        if origin.label == Label.MODEL and not (kind == "url" and _known_host(context, inner)):
            return _verdict("ask", f"in the {role}", name, inner, origin)
        if origin.tainted and (not origin.pointed or _to_be_sent(context, kind, inner)):
            return _verdict("ask", f"in the {role}", name, inner, origin)
    return None


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


def _url_read(context: Context, name: str, value: str, strict: bool) -> Verdict | None:
    """Reading a URL sends something to it, so its place needs authority too."""
    origin = origin_of(context, value)
    if origin.label >= Label.BYORDER:
        return None
    if origin.label == Label.DELEGATED:
        speaks = _LINKS.search(context.lowered) is not None
        named = any(sort == "url" for sort, _ in typed_values(context.said))
        many = _MANY.search(context.lowered) is not None
        if speaks and not strict and not origin.tainted and (many or not named):
            return None
        return _verdict("ask" if speaks else "abort", "url", name, value, origin)
    return _verdict("ask" if origin.label == Label.MODEL else "abort", "url", name, value, origin)


# --- the effect as a whole ------------------------------


def _licensed(
    licence: Licence, facts: ToolFacts, tool: str, *, anchored: bool, worst: Verdict, strict: bool
) -> Verdict | None:
    if licence.who == "user":
        return None
    if licence.who == "weak":
        return Verdict("ask", f"the user spoke of it ({licence.verb!r}), and did not ask to do it", _ASK_HINT)
    if licence.who == "order":
        if strict:
            return Verdict(
                "ask", f"{tool}: only a source that the user told the agent to follow asks for it", _ASK_HINT
            )
        return None
    outcome: Outcome = "ask" if anchored and worst.outcome == "commit" and facts.effect != "delete" else "abort"
    return Verdict(
        outcome,
        f"nothing in the user's words asks for {tool} (effect: {facts.effect})",
        _ASK_HINT if outcome == "ask" else _STOP_HINT,
    )


def _split_authority(licence: Licence, facts: ToolFacts, places: list[Origin]) -> Verdict | None:
    """A source may be given orders to carry, or values to fill in; not both for one effect."""
    if licence.who != "order":
        return None
    if facts.effect in IRREVERSIBLE or any(origin.label < Label.BYORDER for origin in places):
        return Verdict("ask", "both the order and its object come from a source, none from the user", _ASK_HINT)
    return None


def _one_shot(context: Context, facts: ToolFacts, found: list[tuple[str, str, str, Origin]]) -> Verdict | None:
    """Paying one place twice; and a place that the user named, but an order of a third party too, used twice."""
    places = {value.casefold(): origin for _, role, value, origin in found if role == "destination"}
    for effect in context.run["effects"]:
        again = places.keys() & {value.casefold() for value in effect["arguments"].values()}
        if facts.effect == effect["class"] == "pay" and again:
            return Verdict("ask", "a second payment to the same place in one run", _ASK_HINT)
        if any(places[place].tainted for place in again):
            return Verdict("ask", "a second use of a place that a third party's instructions name too", _ASK_HINT)
    return None


def _specific(
    context: Context, facts: ToolFacts, licence: Licence, places: list[Origin], anchored: bool
) -> Verdict | None:
    """An effect that shares nothing with the request but a common verb."""
    if licence.who != "user" or anchored or not places:
        return None
    if any(origin.label >= Label.DELEGATED and origin.pointed for origin in places):
        return None
    if set(facts.noun) & context.stems or _exclusive(licence.verb):
        return None
    return Verdict("ask", "neither its object nor its place was named by the user", _ASK_HINT)


def _exclusive(verb: str) -> bool:
    """Whether a verb asks for one kind of effect only."""
    return sum(verb in {stem(one) for one in verbs} for verbs in VERBS.values()) == 1


def _unanchored(found: list[tuple[str, str, str, Origin]], anchored: bool) -> Verdict | None:
    """Words of strangers, and nothing of the user's."""
    if anchored:
        return None
    for name, role, value, origin in found:
        if role in ("name", "content", "value") and origin.label in (Label.THIRD, Label.ORDERED):
            return _verdict("ask", role, name, value, origin, more="nothing in the action is the user's")
    return None
