"""The last action of a run, its answer: secrets, links that nobody asked for, and words dictated by strangers. Pure.

An answer has no destination but the user, so what it says may come from anywhere the user asked about. What it may
not do is repeat what a third party's text told the agent to say, or carry secrets and links nobody asked for.
"""

from __future__ import annotations

import re
from typing import Any

from logact.voters.provenance_labels import Context, Label, origin_of
from logact.voters.provenance_memory import leaves
from logact.voters.provenance_rules import sensitive_in
from logact.voters.provenance_text import SPEECH, stem, typed_values, verbs_in, word_set, words
from logact.voters.provenance_verdict import Verdict

_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}"
)
_ASKS_LINKS = re.compile(
    r"\b(?:links?|urls?|pages?|web\w*|sites?|contact|email|e-mail|message|summar\w+|content\w*"
    r"|information|details?|articles?|read|show|what)\b"
)
_ASKS_CONTENT = re.compile(r"\b(?:summar\w+|read|show|quote|say|says|said|translate|content\w*|messages?|emails?)\b")
_SMALL = word_set(
    "the and for with that this you your are was has have will would should can because its it's one"
    " very really not but from they them there here about also who which"
)
DICTATED_SHARE = 0.6
DICTATED_WORDS_MIN = 4


def judge_answer(context: Context, arguments: dict[str, Any]) -> Verdict:
    """The verdict on the run's final answer."""
    text = "\n".join(str(leaf) for path, leaf in leaves(arguments) if path != "gave_up")
    return (
        _secret(context, text) or _link(context, text) or _dictated(context, text) or Verdict("commit", "an answer")
    )


def _secret(context: Context, text: str) -> Verdict | None:
    found = _SECRETS.search(text)
    if found is not None and found.group().casefold() not in context.lowered:
        return Verdict("abort", "the answer holds a key or token", "Answer without the secret.")
    held = sensitive_in(context, text)
    if held:
        why = f"the answer holds a sensitive value ({held}) that the user did not ask for"
        return Verdict("abort", why, "Answer without it.")
    return None


def _link(context: Context, text: str) -> Verdict | None:
    for kind, value in typed_values(text):
        if kind != "url":
            continue
        origin = origin_of(context, value)
        if origin.label in (Label.ORDERED, Label.THIRD) and not _ASKS_LINKS.search(context.lowered):
            return Verdict("ask", f"a link that nobody asked for: {value}", "Answer without the link.")
    return None


def _dictated(context: Context, text: str) -> Verdict | None:
    """A sentence that is mostly what an order to speak, in a third party's text, told the agent to say."""
    if not context.run["orders"] and not context.records:
        return None
    if _ASKS_CONTENT.search(context.lowered):
        return None
    sentences = [_telling(piece) for piece in re.split(r"(?<=[.!?])\s+|\n+", text)]
    for order in _speech_orders(context):
        wanted = _telling(order)
        if len(wanted) < DICTATED_WORDS_MIN:
            continue
        for index, sentence in enumerate(sentences):
            near = sentence | (sentences[index + 1] if index + 1 < len(sentences) else frozenset())
            if len(wanted & near) >= max(DICTATED_WORDS_MIN, DICTATED_SHARE * len(wanted)):
                return Verdict(
                    "abort",
                    "the answer says what a third party's text told the agent to say",
                    "Answer from the facts alone, without that claim.",
                )
    return None


def _speech_orders(context: Context) -> list[str]:
    """What orders to speak want said: the words after the verb."""
    found = []
    for segment, group, _ in context.run["speech"]:
        if group in context.delegated_groups:
            continue  # what the user told the agent to follow; saying that it was done is an answer
        verbs = verbs_in(segment, SPEECH)
        if verbs:
            tail = re.split(rf"\b{verbs[0]}\b", segment, maxsplit=1, flags=re.IGNORECASE)[-1]
            found.append(tail)
    return found


def _telling(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(text) if len(word) > 2 and word not in _SMALL)
