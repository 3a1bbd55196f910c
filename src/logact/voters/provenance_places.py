"""Where data goes, what is acted on, and what is read: the values that need authority most. Pure."""

from __future__ import annotations

import re

from logact.voters.provenance_labels import Context, Label, Origin, origin_of
from logact.voters.provenance_manifest import ToolFacts
from logact.voters.provenance_text import (
    IRREVERSIBLE,
    VERBS,
    host,
    kind_of,
    plain_url,
    stem,
    stems,
    typed_values,
    words,
)
from logact.voters.provenance_verdict import Verdict, said

_MANY = re.compile(r"\b(?:all|each|every|any|everyone|everybody|people|both|users|members|ones|two|three)\b")
_LINKS = re.compile(r"\b(?:links?|urls?|pages?|web\s?pages?|web\s?sites?|sites?|articles?|blogs?|online)\b")


def place(
    context: Context, facts: ToolFacts, argument: tuple[str, str, str, Origin], strict: bool, *, completes: bool
) -> Verdict | None:
    """Where data goes and what is acted on. ``completes``: another object of the same action is the user's own."""
    name, role, value, origin = argument
    label, tainted = origin.label, origin.tainted
    many = _MANY.search(context.lowered) is not None
    kind = kind_of(value)
    if label == Label.USER:
        return None
    if strict and label == Label.BOUND and facts.effect in IRREVERSIBLE and not origin.named:
        return said("ask", role, name, value, origin, more="of a list from which the user chose nothing")
    if label in (Label.BOUND, Label.BYORDER):
        return said("ask", role, name, value, origin) if tainted or (strict and label == Label.BYORDER) else None
    if label in (Label.KNOWN, Label.RECORD):
        if tainted:
            return said("abort", role, name, value, origin)
        if origin.siblings and not many:
            return said("ask", role, name, value, origin, more="the user named another of this list")
        outside = role == "destination" and kind != "phrase"  # names in a directory of one's own lead nowhere else
        if label == Label.RECORD and (facts.effect == "pay" or (strict and outside)):
            return said("ask", role, name, value, origin)
        return None
    if label == Label.FOREIGN:
        return said("abort" if tainted else "ask", role, name, value, origin)
    if label == Label.DELEGATED:
        if any(sort == kind for sort, _ in typed_values(context.said)):
            return said("abort", role, name, value, origin, more="the user named another one")
        left = not strict or _left_to_source(context, facts, kind, origin, completes=completes)
        if not left or tainted or facts.effect == "delete" or (origin.rivals > 1 and not many):
            more = "the source holds several" if origin.rivals > 1 else ""
            return said("ask", role, name, value, origin, more=more)
        return None
    if label == Label.MODEL:
        return said("ask", role, name, value, origin)
    # a place that only an order names is a question where the user handed that order over: see split authority
    given = not tainted and context.handed_over(value.casefold())
    return said("ask" if given else "abort", role, name, value, origin)


_FROM = r"\b(?:find|get|look(?:\s+it)?\s+up|take|use|see|check)\b[^.!?\n]{0,60}"
_STANDS = r"[^.!?\n]{0,60}\b(?:is|are|on|in|at|from|found)\b"
_KIND_WORDS = {
    kind: re.compile(rf"{_FROM}\b(?:{nouns})\b|\b(?:{nouns})\b{_STANDS}")
    for kind, nouns in (
        ("email", r"e-?mails?(?:\s+address(?:es)?)?"),
        ("account", r"ibans?|accounts?|bank\s+details"),
    )
}


def _left_to_source(context: Context, facts: ToolFacts, kind: str, origin: Origin, *, completes: bool) -> bool:
    """Whether the user left the value outright to the one source that they named, which holds one of its kind.

    They say so ("her address is on this page"), or they said what the effect is for and named the source for it, and
    the value completes it; not where the effect cannot be taken back.
    """
    if kind == "phrase" or not origin.pointed or origin.rivals > 1:
        return False
    pattern = _KIND_WORDS.get(kind)
    if pattern is not None and pattern.search(context.lowered):
        return True
    return completes and facts.effect not in IRREVERSIBLE


def url_read(context: Context, name: str, value: str, strict: bool) -> Verdict | None:
    """Reading a URL sends something to it, so its place needs authority too."""
    origin = origin_of(context, value)
    if origin.label >= Label.BYORDER:
        return None
    if origin.label == Label.DELEGATED:
        speaks = _LINKS.search(context.lowered) is not None
        named = any(sort == "url" for sort, _ in typed_values(context.said))
        many = _MANY.search(context.lowered) is not None
        about = bool(stems(" ".join(words(host(value)))) & telling(context))  # its name is what the user asks about
        if not origin.tainted and ((many and speaks) or ((speaks or about) and not named)):
            return None
        return said("ask" if speaks or about else "abort", "url", name, value, origin)
    if context.handed_over(plain_url(value)):
        return said("ask", "url", name, value, origin) if strict else None
    return said("ask" if origin.label == Label.MODEL else "abort", "url", name, value, origin)


def in_own_words(context: Context, value: str, origin: Origin) -> bool:
    """Whether a name or a text is the user's: they said it, or it shares words with them and no order dictates it."""
    if origin.label == Label.USER:
        return True
    return not origin.ordered and bool(stems(value) & telling(context))


def telling(context: Context) -> frozenset[str]:
    """The stems of the user's words that say something: not the short ones, nor the verbs of requests."""
    every = {stem(verb) for verbs in VERBS.values() for verb in verbs}
    return frozenset(word for word in context.stems if len(word) > 3 and word not in every and not word.isdigit())
