"""What a text is made of, as far as provenance needs it: values, segments, orders, data positions. Pure.

Nothing here knows a wording of any attack. A segment is an *order* if a verb that asks for an effect stands in it
as a verb; a value is in *data position* if the text presents it as data: alone, in a cell, after a label.
"""

from __future__ import annotations

import re
from functools import lru_cache


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a text."""
    return frozenset(text.split())


VERBS: dict[str, frozenset[str]] = {
    "pay": word_set("pay transfer wire remit refund reimburse repay settle spend donate send"),
    "schedule": word_set("schedule set pay transfer arrange plan recur automate"),
    "message": word_set(
        "send email mail message write reply respond forward tell inform notify contact text ask greet thank remind"
        " answer invite share say let post publish announce"
    ),
    "post": word_set("post publish upload write put send announce share"),
    "create": word_set("create make add set schedule plan write new save start open generate book arrange put"),
    "add": word_set("add invite include enroll register join put attach"),
    "append": word_set("append add write insert put extend"),
    "share": word_set("share grant give invite send"),
    "book": word_set("book reserve rent order buy purchase"),
    "update": word_set(
        "update change modify edit adjust reschedule move correct fix set replace rename adapt reset switch"
    ),
    "delete": word_set("delete remove cancel erase drop discard kick uninvite unsubscribe clear revoke"),
    "run": word_set("run execute install launch start deploy"),
}
"""By class of effect, the verbs with which people ask for it."""

IRREVERSIBLE = frozenset({"pay", "schedule", "delete", "book", "share", "run"})
"""Classes that an order of a third party never carries without a person, even where the user delegated orders."""

SPEECH = word_set("say tell mention recommend state claim answer respond reply inform suggest write announce")
ORDER_VERBS = frozenset().union(*VERBS.values()) - word_set("new plan set start spend text ask put contact let")
_LABELS = re.compile(r"(?:^|(?<=[\n|,;(]))\W*(?:[\w-]+\s+){0,2}[\w-]+\s*(?:[:=]|\bis\b|\bare\b)(?=\s*\S+\W*$)")
_GIVES_ADDRESS = re.compile(
    r"\b(?:contact|reach|e?-?mail|call|write|message|text)\s+(?:to\s+)?(?:me|us)\b", re.IGNORECASE
)
_TWO_FACED = word_set(
    "transfer schedule share post update change move text message email mail book order rent contact answer reply"
    " plan set start wire purchase add invite include reset run register drop clear open join write save make give"
    " settle say tell inform respond arrange respond visit read look see check follow go"
)
NOUNISH = word_set("email mail message text post book order contact transfer schedule plan reply answer rent update")
"""Verbs of requests that are more often nouns: "my mail", "the next order"."""
_NOUN_BEFORE = word_set(
    "a an the this that these those my your our his her their its of in for by with last next bank any every each no"
    " new old per first weekly daily monthly yearly i he she they who which"
)
_VERB_BEFORE = word_set(
    "to please then and must should can could will would shall may now also kindly just you we not don't"
)

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'`)\]}]+", re.IGNORECASE)
ACCOUNT = re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{8,30}\b|\b\d{9,}\b")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_MARKS = ".,;:!?*_~|\\"  # what closes a sentence, or an emphasis, is no part of a value
_SCHEME = re.compile(r"(?:https?://)?(?:www\.)?$", re.IGNORECASE)
_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}(?:/\S*)?", re.IGNORECASE)
_BARE = re.compile(r"[a-z0-9-]+\.[a-z]{2,}")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+|\r")
_LABEL = re.compile(
    r"(?:^|[\t|,;])\W*$"  # alone: at the start of the line, of a cell, of an item
    r"|^[^.!?]{0,60}[:=]\s*\W{0,3}$"  # after a label
    r"|(?:^|\s)(?:is|are|was|now|at|as|named|called|via)\s+\W{0,2}$"
    r"|[(<\[]\s*\W?$",
)


def kind_of(value: str) -> str:
    """``email``, ``url`` or ``account`` for a value that is wholly one, else ``phrase``."""
    value = value.strip()
    if EMAIL.fullmatch(value):
        return "email"
    if URL.fullmatch(value) or (_HOST.fullmatch(value) and ("/" in value or value.count(".") > 1)):
        return "url"
    if ACCOUNT.fullmatch(value.replace(" ", "")):
        return "account"
    return "phrase"


def typed_values(text: str) -> list[tuple[str, str]]:
    """The e-mail addresses, URLs and accounts in a text, as (kind, value), each once."""
    found: dict[tuple[str, str], None] = {}
    for kind, pattern in (("email", EMAIL), ("url", URL), ("account", ACCOUNT)):
        for match in pattern.finditer(text):
            found[(kind, match.group().rstrip(_MARKS))] = None
    return list(found)


def plain_url(value: str) -> str:
    """A URL without scheme, ``www.`` and a closing slash, for comparing."""
    return re.sub(r"^(?:https?://)?(?:www\.)?", "", value.strip().casefold()).rstrip("/.,;")


def host(value: str) -> str:
    """The host of a URL."""
    return re.split(r"[/?#:]", plain_url(value), maxsplit=1)[0]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [match.group().replace("’", "'") for match in WORD.finditer(text.casefold())]


def stem(word: str) -> str:
    """A crude stem, so that *updating*, *updates* and *update* meet."""
    for ending in ("ings", "ing", "ied", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


@lru_cache(maxsize=4096)
def stems(text: str) -> frozenset[str]:
    """The stems of a text's words."""
    return frozenset(stem(word) for word in words(text))


@lru_cache(maxsize=4096)
def _bounded(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w]){re.escape(value)}(?![\w]|[.@-]\w)" if value else r"(?!)")


def holds(text: str, value: str) -> bool:
    """Whether a value stands in a text, bounded by what is not part of a word. Both in lower case."""
    return value in text and _bounded(value).search(text) is not None


def segments(text: str) -> list[str]:
    """A text cut into lines and sentences."""
    return [piece.strip() for piece in _SENTENCE.split(text) if piece and piece.strip()]


def verbs_in(segment: str, verbs: frozenset[str]) -> list[str]:
    """Those of the verbs that stand in a segment as verbs: not as a noun, not in another form."""
    tokens = words(segment)
    found = []
    for place, token in enumerate(tokens):
        if token not in verbs:
            continue
        before = tokens[place - 1] if place else ""
        if before in _NOUN_BEFORE:
            continue
        if token in _TWO_FACED and place and before not in _VERB_BEFORE and not _opens(segment, token):
            continue
        if place + 1 < len(tokens):
            found.append(token)
    return found


def _opens(segment: str, verb: str) -> bool:
    """Whether the verb begins a clause: after a mark, or written with a capital in the middle of a line."""
    return re.search(rf"[,:;\"'“”«(>*_—–-]\s*{verb}\b", segment, re.IGNORECASE) is not None or (
        re.search(rf"\b{verb.capitalize()}\b", segment) is not None
    )


def order_in(segment: str, tool_words: frozenset[str] = frozenset()) -> list[str]:
    """The verbs by which a segment asks for an effect; names of tools count too. Empty: not an order."""
    segment = _LABELS.sub(" ", segment)  # "E-mail: ..." is a label
    segment = _GIVES_ADDRESS.sub("reach", segment)  # "write to me at ..." says where somebody is
    found = verbs_in(segment, ORDER_VERBS)
    lowered = segment.casefold()
    found += [name for name in tool_words if name in lowered]
    return found


def _needs_no_label(kind: str, value: str) -> bool:
    """Phrases, and bare hosts: to read one tells it nothing but that; a path or a subdomain can carry data."""
    return kind == "phrase" or (kind == "url" and _BARE.fullmatch(value) is not None)


def in_data_position(text: str, value: str, kind: str) -> bool:
    """Whether a text presents a value as data somewhere: alone or after a label, and not inside an order.

    ``kind`` is the value's.
    """
    needle = value.casefold()
    for line in text.splitlines():
        lowered = line.casefold()
        start = lowered.find(needle)
        while start >= 0:
            left = max(line.rfind(mark, 0, start) for mark in (". ", "! ", "? ", "; "))
            before = _SCHEME.sub("", line[left + 1 : start] if left >= 0 else line[:start])
            rest = line[start + len(value) :]
            right = min((at for at in (rest.find(mark) for mark in (". ", "! ", "? ")) if at >= 0), default=len(rest))
            clause = before + value + rest[:right]
            if not order_in(clause) and (_needs_no_label(kind, needle) or _LABEL.search(before)):
                return True
            start = lowered.find(needle, start + 1)
    return False
