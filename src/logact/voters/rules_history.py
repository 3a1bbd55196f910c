"""Conditions on what came before: limits, "after", "not after", "same as before"; folded from the log's entries.

The memory is plain data, and every step gives a new one: hosts keep earlier memories. An action counts from its
intent on, unless it is refused. Time is that of entries, never a clock's. Where the past leaves a question open
(an action that is undecided or still runs), the reading that permits less counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from logact import codec
from logact.entry import Abort, Cancel, Entry, Expiry, Intent, Recovery, Result, Started
from logact.voters.rules_conditions import MISSING, fetch, refuse

Memory = dict[str, Any]
BUCKETS_MAX = 1000
"""How many runs or agents a condition remembers; the longest known one is forgotten first."""
OPEN_MAX = 10_000
TIMES_MAX = 10_000

PERIODS_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
WITHIN = ("run", "agent", "log")
EMPTY: Memory = {"now": 0, "open": {}, "slots": {}}


class Limit(msgspec.Struct, frozen=True):
    """``more_than`` and ``at_most``: a number of actions per run, agent, log, or stretch of time."""

    slot: str
    count: int
    period_ms: int
    within: str
    negated: bool


class Earlier(msgspec.Struct, frozen=True):
    """``after`` and ``not_after``: whether an action like that came before."""

    slot: str
    matcher: Any
    within: str
    negated: bool


class Same(msgspec.Struct, frozen=True):
    """``same`` and ``not_same``: whether an argument has the value that it had the last time."""

    slot: str
    argument: tuple[str, ...]
    within: str
    negated: bool


Condition = Limit | Earlier | Same


def limit_of(rule: str, key: str, given: Any, slot: str) -> Limit:
    """From ``{count = 5, per = "hour", within = "log"}``."""
    if not isinstance(given, Mapping) or not set(given) <= {"count", "per", "within"} or "count" not in given:
        raise refuse(rule, key, "not a limit", received=repr(given), expected='{count = 5, per = "run"}')
    count, per = given["count"], given.get("per", "run")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= TIMES_MAX:
        raise refuse(
            rule, f"{key}.count", "not a number of actions", received=repr(count), expected=f"0 to {TIMES_MAX}"
        )
    if key == "at_most" and count == 0:
        raise refuse(rule, f"{key}.count", "at most none can never match", received="0", expected="1 or more")
    if per in PERIODS_MS:
        return Limit(slot, count, PERIODS_MS[per], _within(rule, key, given, "agent"), key == "at_most")
    if per not in WITHIN or "within" in given:
        expected = f"{', '.join(WITHIN)}; or {', '.join(PERIODS_MS)}, which may have within"
        raise refuse(rule, f"{key}.per", "not a stretch", received=repr(per), expected=expected)
    return Limit(slot, count, 0, per, key == "at_most")


def same_of(rule: str, key: str, given: Any, slot: str) -> Same:
    """From an argument's name, or ``{argument = "to", within = "agent"}``."""
    table = {"argument": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping) or not set(table) <= {"argument", "within"}:
        raise refuse(rule, key, "not an argument's name", received=repr(given))
    name = table.get("argument")
    if not isinstance(name, str) or not name:
        raise refuse(rule, key, "not an argument's name", received=repr(name))
    return Same(slot, tuple(name.split(".")), _within(rule, key, table, "run"), key == "not_same")


def _within(rule: str, key: str, table: Mapping[str, Any], default: str) -> str:
    found = table.get("within", default)
    if found not in WITHIN:
        raise refuse(rule, f"{key}.within", "not a scope", received=repr(found), expected=", ".join(WITHIN))
    return str(found)


def scope_of(conditions: list[Condition]) -> Literal["", "log", "agent", "run"]:
    """The widest scope that these conditions look at."""
    found = {one.within for one in conditions}
    return "log" if "log" in found else "agent" if "agent" in found else "run" if found else ""


def bucket(within: str, run: int, agent: str) -> str:
    """Which pile an action belongs to."""
    return str(run) if within == "run" else agent if within == "agent" else ""


def holds(
    condition: Condition, memory: Memory, *, run: int, agent: str, arguments: Any, now_ms: int, strict: bool
) -> bool:
    """Whether a condition holds of an action that is proposed now; ``strict`` in rules that deny or ask."""
    slot = memory["slots"].get(condition.slot, {}).get(bucket(condition.within, run, agent), {})
    if isinstance(condition, Limit):
        if condition.period_ms:
            begin = (now_ms or memory["now"]) - condition.period_ms
            count = sum(1 for _, time_ms in slot.get("times", ()) if time_ms > begin)
        else:
            count = slot.get("count", 0)
        return (count >= condition.count) is not condition.negated
    if isinstance(condition, Earlier):
        happened = slot.get("count", 0) > 0 if strict is not condition.negated else slot.get("done", 0) > 0
        return happened is not condition.negated
    value = fetch(arguments, condition.argument)
    if value is MISSING:
        return False
    digest = codec.digest_of(value)
    before = set(slot.get("waiting", {}).values()) | ({slot["last"]} if "last" in slot else set())
    equal = digest in before if strict is not condition.negated else before == {digest}
    return equal is not condition.negated


def observe(memory: Memory, entry: Entry, watchers: list[tuple[Condition, Any]]) -> Memory:
    """The memory after one more entry. ``watchers`` pairs conditions with ``matches(intent) -> bool | None``."""
    payload = entry.payload
    if isinstance(payload, Intent):
        return _proposed(memory, entry, payload, watchers)
    if not isinstance(payload, Abort | Cancel | Expiry | Started | Result | Recovery):
        return memory
    key = str(payload.intent)
    if key not in memory["open"]:
        return memory
    found = memory["open"][key]
    slots = dict(memory["slots"])
    opened = dict(memory["open"])
    if isinstance(payload, Started):
        for slot, pile, _, digest in found:
            if digest:
                _change(slots, slot, pile, lambda old, digest=digest: {**old, "last": digest})
        return {**memory, "slots": slots}
    del opened[key]
    refused = isinstance(payload, Abort | Cancel | Expiry)
    succeeded = isinstance(payload, Result) and payload.error is None
    succeeded = succeeded or (isinstance(payload, Recovery) and payload.settlement == "happened")
    if isinstance(payload, Recovery) and payload.settlement == "restart":
        return memory
    for slot, pile, certain, _ in found:
        _change(slots, slot, pile, lambda old, c=certain: _closed(old, key, refused=refused, done=succeeded and c))
    return {**memory, "slots": slots, "open": opened}


def _proposed(memory: Memory, entry: Entry, intent: Intent, watchers: list[tuple[Condition, Any]]) -> Memory:
    memory = {**memory, "now": entry.time_ms}
    noted: list[list[Any]] = []
    slots: dict[str, Any] = memory["slots"]
    for condition, matches in watchers:
        told = matches(intent)
        if told is False:
            continue
        if not noted:
            slots = dict(slots)
        pile = bucket(condition.within, intent.run, intent.agent)
        digest = ""
        if isinstance(condition, Same):
            value = fetch(intent.arguments, condition.argument)
            if value is MISSING:
                continue
            digest = codec.digest_of(value)
        period = condition.period_ms if isinstance(condition, Limit) else 0
        _change(slots, condition.slot, pile, lambda old, d=digest, p=period: _opened(old, entry, d, p))
        noted.append([condition.slot, pile, told is True, digest])
    if not noted:
        return memory
    opened = {**memory["open"], str(entry.position): noted}
    if len(opened) > OPEN_MAX:
        del opened[next(iter(opened))]
    return {**memory, "slots": slots, "open": opened}


def _change(slots: dict[str, Any], slot: str, pile: str, step: Any) -> None:
    piles = dict(slots.get(slot, {}))
    piles[pile] = step(piles.pop(pile, {}))  # the youngest stands last
    if len(piles) > BUCKETS_MAX:
        del piles[next(iter(piles))]
    slots[slot] = piles


def _opened(old: Memory, entry: Entry, digest: str, period: int) -> Memory:
    new: Memory = {**old, "count": old.get("count", 0) + 1}
    if digest:
        new["waiting"] = {**old.get("waiting", {}), str(entry.position): digest}
    if period:
        kept = [one for one in old.get("times", ()) if one[1] > entry.time_ms - period]
        new["times"] = [*kept, [entry.position, entry.time_ms]][-2 * TIMES_MAX :]
    return new


def _closed(old: Memory, key: str, *, refused: bool, done: bool) -> Memory:
    new = dict(old)
    if refused:
        new["count"] = max(0, old.get("count", 0) - 1)
        if "times" in old:
            new["times"] = [one for one in old["times"] if str(one[0]) != key]
    if "waiting" in old:
        new["waiting"] = {known: value for known, value in old["waiting"].items() if known != key}
    if done:
        new["done"] = old.get("done", 0) + 1
    return new
