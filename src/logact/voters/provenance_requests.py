"""Which effects are asked for, and by whom: the user, a source to which they gave orders over, a stranger. Pure.

What stands in quotation marks is content and asks for nothing, nor does what others did or what is not to be done.
What is only spoken of ("I plan to pay"), or asked of somebody else ("remind me to book", "ask Bob to pay") is *weak*.
The rest asks, by a verb of the class, or by a noun of it that is to be made ("make a payment", "I need a refund").
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from logact.voters.provenance_labels import Context
from logact.voters.provenance_manifest import ToolFacts
from logact.voters.provenance_text import NOUNISH, VERBS, stem, stems, verbs_in, word_set, words

NOUNS: dict[str, frozenset[str]] = {
    "pay": word_set("payment transfer refund reimbursement donation remittance"),
    "book": word_set("reservation booking order purchase"),
    "delete": word_set("cancellation deletion removal"),
    "add": word_set("invitation registration enrolment"),
    "message": word_set("reply message email mail notification"),
    "create": word_set("appointment event file note entry reminder"),
    "update": word_set("change update correction"),
    "post": word_set("post publication announcement"),
}
"""By class of effect, the nouns by which people ask for one to be made."""

_MAKE = (
    r"\b(?:make|create|place|do|arrange|request|need|want|like|issue|prepare|set up|add|put)\b(?:\s+[\w'-]+){0,3}?\s+"
)
_QUOTED = re.compile(r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|(?<!\w)'[^'\n]{2,300}'(?!\w)")
_MOOD = re.compile(
    r"\b(?:looking|planning|plan|hoping|thinking|going|about|trying|intend\w*|wish)\s+(?:to|of|on|about)\s+(?:\w+\s+)?"
    r"(?P<verb>\w+)"
)
_OTHERS = re.compile(r"\b(?:remind\w*|(?:ask|tell|urge|advise)\w*)\s+(?:[\w.@+-]+\s+){0,4}?(?:to|of|about)\s+\w+")
_NOT = re.compile(r"\b(?:do not|don't|never|without|not to|no need to)\s+(?!forget|hesitate|miss|worry)\w+")
_TOLD = re.compile(
    r"\b(?:what|who|whom|when|where|why|how|which)\b(?:[^.?!,;]|\.(?=\w)){0,40}?"
    r"\b(?:did|does|has|have|had|was|were)\b(?:[^.?!,;]|\.(?=\w))*"
)
"""Questions about what somebody did: their verbs ask for nothing."""


class Licence(NamedTuple):
    """Who asked for this kind of effect: ``user``, ``weak`` (spoken of, not asked for), ``order`` (through a source
    to which the user delegated orders), or ``none``."""

    who: Literal["user", "weak", "order", "none"]
    verb: str = ""


def licence_of(context: Context, tool: str, facts: ToolFacts, others: frozenset[str] = frozenset()) -> Licence:
    """Who asked for the class of effect of a tool. ``others`` are the nouns of other tools with effects of its class.

    Where they are there, a request counts for the tool whose noun its clause holds: who asks to book a table and to
    look for a room has not asked to book a room.
    """
    asked = _verbs(tool, facts)
    said = _TOLD.sub(" ", _NOT.sub(" ", _QUOTED.sub(" ", context.said.casefold())))
    firm = _OTHERS.sub(" ", _MOOD.sub(" ", said))
    spoken = ""
    for text in (firm, said):
        for clause in _clauses(text) if others else [text]:
            found = _asks(clause, asked, facts.effect)
            for_another = others & stems(clause) and not set(facts.noun) & stems(clause)
            if found and text is firm and not for_another:
                return Licence("user", found)
            spoken = spoken or found
    if spoken:
        return Licence("weak", spoken)
    for order in context.delegated_orders():
        verbs = verbs_in(order, asked)
        if verbs:
            return Licence("order", verbs[0])
    return Licence("none")


def _clauses(text: str) -> list[str]:
    return re.split(r"[.!?;\n]+(?=\s|$)|,?\s+(?:and|then|also)\s+", text)


def _verbs(tool: str, facts: ToolFacts) -> frozenset[str]:
    first = (words(tool.replace("_", " ").replace("-", " ")) or [""])[0]
    return frozenset({*VERBS.get(facts.effect, ()), first} - {""})


def _asks(text: str, verbs: frozenset[str], effect: str) -> str:
    """The stem of the verb, or noun, by which a user's text asks for a class of effect ("": it does not)."""
    stemmed = stems(text)
    for verb in sorted(verbs):
        if verbs_in(text, frozenset({verb})) if verb in NOUNISH else stem(verb) in stemmed:
            return stem(verb)
    made = _to_be_made(effect)
    found = made.search(text) if made is not None else None
    return stem(found.group("noun")) if found is not None else ""


@lru_cache(maxsize=32)
def _to_be_made(effect: str) -> re.Pattern[str] | None:
    nouns = NOUNS.get(effect)
    return re.compile(rf"{_MAKE}(?P<noun>{'|'.join(sorted(nouns))})s?\b") if nouns else None


def contested(context: Context, tool: str, facts: ToolFacts) -> bool:
    """Whether a third party's order, which the user did not hand over, asks for this kind of effect too."""
    asked, nouns, made = _verbs(tool, facts), set(facts.noun), _to_be_made(facts.effect)
    for order in context.order_texts:
        if nouns and not nouns & stems(order):
            continue
        if verbs_in(order, asked) or (made is not None and made.search(order)):
            return True
    return False


def exclusive(verb: str) -> bool:
    """Whether a verb, or noun, asks for one kind of effect only."""
    return sum(verb in {stem(one) for one in (*VERBS[kind], *NOUNS.get(kind, ()))} for kind in VERBS) == 1
