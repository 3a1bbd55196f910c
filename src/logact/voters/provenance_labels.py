"""Who says a value: its label, from the user's own words down to nowhere in the log. Pure."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, NamedTuple

from logact.voters.provenance_memory import Memory, fingerprint, user_said
from logact.voters.provenance_text import (
    holds,
    in_data_position,
    kind_of,
    order_in,
    plain_url,
    segments,
    stems,
    typed_values,
    words,
)


class Label(IntEnum):
    """Where a value comes from; greater is better.

    ``USER``: the user's words. ``BOUND``: a structured field of a record that the user pointed at, or an id that
    an own action returned. ``KNOWN``: a field of the account's own history. ``RECORD``: a field of another record
    of a trusted tool. ``BYORDER``: a record named by a source to which the user delegated orders. ``DELEGATED``:
    data in a text that the user pointed at. ``FOREIGN``: a field that strangers fill. ``ORDERED``: stands in
    texts, but only inside orders. ``THIRD``: in a text that the user did not point at. ``MODEL``: nowhere.
    """

    MODEL = 0
    THIRD = 1
    ORDERED = 2
    FOREIGN = 3
    DELEGATED = 4
    BYORDER = 5
    RECORD = 6
    KNOWN = 7
    BOUND = 8
    USER = 9


class Origin(NamedTuple):
    """A value's label; ``tainted`` if an order of a third party names it, and ``ordered`` if an order does that the
    user handed over, too; ``rivals``: how many values of its type its source holds; ``source`` is the tool that gave
    it; ``siblings``: the user named another member of its list; ``pointed``: the user pointed at the text that it
    stands in; ``named``: they pointed at its record by name, not by asking for the list that it stands in."""

    label: Label
    tainted: bool = False
    rivals: int = 0
    source: str = ""
    siblings: bool = False
    pointed: bool = False
    named: bool = False
    ordered: bool = False


class Context:
    """What one vote looks at: a run's part of the memory, with what follows from it, computed once."""

    def __init__(self, memory: Memory | None, run: dict[str, Any], task: str, *, firm: bool) -> None:
        self.memory = memory or {}
        self.run = run
        self.said = "\n".join(self.run["words"]) or task
        self.lowered = self.said.casefold()
        self.stems = stems(self.said)
        self.firm = firm
        self.records: list[dict[str, Any]] = self.run["records"]
        self.follows = _follows(self.lowered)
        self._order_texts: list[str] | None = None
        self._delegated: frozenset[int] | None = None
        self._texts: list[tuple[dict[str, Any], str, str]] | None = None

    def selected(self, record: dict[str, Any]) -> bool:
        """Whether the user pointed at a record; in the firm sense only by naming it or asking for it."""
        return bool(record["selected"] >= (2 if self.firm else 1))

    @property
    def texts(self) -> list[tuple[dict[str, Any], str, str]]:
        """Every free text with its record, also in lower case."""
        if self._texts is None:
            self._texts = [(record, text, text.casefold()) for record in self.records for text in record["texts"]]
        return self._texts

    @property
    def order_texts(self) -> list[str]:
        """The orders of third parties that the user did not hand over, in lower case."""
        if self._order_texts is None:
            given = self.delegated_groups
            self._order_texts = [segment.casefold() for segment, group, _ in self.run["orders"] if group not in given]
        return self._order_texts

    @property
    def delegated_groups(self) -> frozenset[int]:
        """The results in which the texts stand that the user told the agent to follow."""
        if self._delegated is None:
            selected = {record["group"] for record in self.records if self.selected(record)}
            self._delegated = frozenset(selected) if self.follows else frozenset()
        return self._delegated

    def handed_over(self, folded: str) -> bool:
        """Whether a value stands in a text that the user told the agent to follow."""
        if not self.follows:
            return False
        return any(
            holds(lowered, folded)
            for record, _, lowered in self.texts
            if record["group"] in self.delegated_groups and self.selected(record)
        )

    def delegated_orders(self) -> list[str]:
        """The orders in texts that the user told the agent to follow."""
        return [segment for segment, group, _ in self.run["orders"] if group in self.delegated_groups]


def _follows(said: str) -> bool:
    """Whether the user hands orders over: "follow the instructions", "do the tasks in ..."."""
    return any(pattern.search(said) for pattern in _FOLLOWS)


_DOING = (
    r"\b(?:follow|do|perform|execute|complete|carry out|take care of|work (?:on|through)|go through|deal with"
    r"|implement|handle|finish)\b(?:[^.\n]|\.(?=\w)){0,60}?"
)
_FOLLOWS = (
    re.compile(
        rf"{_DOING}\b(?:instructions?|actions?|tasks?|to-?dos?|steps|requests?|directions|items|it says|asks)\b"
        r"(?!\s+(?:below|in the order))"
    ),
    re.compile(
        rf"{_DOING}\b(?:everything|whatever|what)\b(?:[^.\n]|\.(?=\w)){{0,60}}?"
        r"\b(?:ask(?:s|ed)?|says?|said|told|wants?|wanted|requested)\b"
    ),
)
"""How a user hands orders over: by what is to be done, or by who says what is to be done."""


def origin_of(context: Context, value: str) -> Origin:
    """Who says a value."""
    folded = value.casefold().strip()
    if not folded:
        return Origin(Label.USER)
    found = _origin(context, value, folded)
    ordered = found.tainted or _named_in(folded, [order.casefold() for order in context.delegated_orders()])
    return found._replace(ordered=ordered)


def _origin(context: Context, value: str, folded: str) -> Origin:
    tainted = _tainted(context, folded)
    if user_said(context.lowered, context.stems, value):
        return Origin(Label.USER, tainted)
    best = _in_fields(context, value, folded, tainted)
    if best.label > Label.DELEGATED and _is_own(context, value):
        best = Origin(Label.THIRD, tainted)  # the agent itself put it there
    if best.label > Label.DELEGATED:
        return best
    text = _in_texts(context, value, folded, tainted)
    return max(best, text, key=lambda origin: origin.label)


def _is_own(context: Context, value: str) -> bool:
    own = context.memory.get("own", {})
    return fingerprint(value) in own or bool(context.memory.get("own_full"))


def _same(kind: str, field: str, folded: str) -> bool:
    if field == folded:
        return True
    return kind == "url" and plain_url(field) == plain_url(folded)


def _in_fields(context: Context, value: str, folded: str, tainted: bool) -> Origin:
    kind = kind_of(value)
    best = Origin(Label.MODEL, tainted)
    for record in context.records:
        for path, field in record["fields"].items():
            if path.startswith("~") or not _same(kind, field, folded):
                continue
            if record["own"]:
                name = path.rsplit(".", 1)[-1].partition("#")[0].casefold()
                label = Label.BOUND if name == "id" or name.endswith(("_id", "id_")) else Label.MODEL
            elif context.selected(record):
                label = Label.BOUND
            elif record["history"]:
                label = Label.KNOWN
            elif record["untrusted"] and kind != "phrase":
                label = Label.FOREIGN
            else:
                label = Label.RECORD
            if label > best.label:
                named = label == Label.RECORD and _sibling_named(context, record, path)
                by_name = bool(record["named"]) or bool(record["own"])
                best = Origin(label, tainted, source=record["tool"], siblings=named, named=by_name)
    lent = best.label in (Label.RECORD, Label.KNOWN, Label.FOREIGN) and context.follows
    if lent and any(holds(order.casefold(), folded) for order in context.delegated_orders()):
        best = best._replace(label=max(best.label, Label.BYORDER))
    return best


def _sibling_named(context: Context, record: dict[str, Any], path: str) -> bool:
    """Whether the user named another member of the list that the value comes from: then the choice was theirs."""
    name, own = path.partition("#")[0], record["fields"][path]
    return any(
        field != own and len(field) > 2 and holds(context.lowered, field)
        for other in context.records
        if other["group"] == record["group"]
        for where, field in other["fields"].items()
        if where.partition("#")[0] == name
    )


def _tainted(context: Context, folded: str) -> bool:
    return _named_in(folded, context.order_texts)


def _named_in(folded: str, orders: list[str]) -> bool:
    """Whether one of these orders names a value."""
    if len(folded) < 2:
        return False
    if kind_of(folded) == "url":
        folded = plain_url(folded)
    if folded.isdigit() and len(folded) < 6:
        return any(
            holds(order, folded) and any(mark in order for mark in ("id", "number", "no.", "#")) for order in orders
        )
    return any(holds(order, folded) for order in orders)


def _in_texts(context: Context, value: str, folded: str, tainted: bool) -> Origin:
    kind = kind_of(value)
    needle = plain_url(value) if kind == "url" else folded
    best = Origin(Label.MODEL, tainted)
    for record, text, lowered in context.texts:
        if needle not in lowered or not holds(lowered, needle):
            continue
        data = in_data_position(text, needle, kind)
        ordered = not data and any(holds(part.casefold(), needle) and order_in(part) for part in segments(text))
        label = Label.ORDERED if ordered else Label.THIRD
        if data and context.selected(record):
            label = Label.DELEGATED
        if label > best.label:
            rivals = len({other for sort, other in typed_values(text) if sort == kind}) if kind != "phrase" else 1
            by_name = bool(record["named"])
            best = Origin(label, tainted, rivals, record["tool"], pointed=context.selected(record), named=by_name)
    if best.label == Label.MODEL and kind == "phrase" and len(words(folded)) >= 3:
        mine = {word for word in words(folded) if len(word) > 2}
        if mine and any(mine <= set(words(order)) for order in context.order_texts):
            return Origin(Label.ORDERED, True)  # all its words stand in one order
    return best
