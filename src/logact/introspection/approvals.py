"""How well people approve, read from a log: how long they take, runs of yes, what they came to regret.

And what they always say yes to, as the draft of a rule: to be read, backtested, and put into a policy by a person.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from typing import Any

import msgspec

from logact.core.settling import ANSWER
from logact.core.state import Action, State
from logact.entry import Entry, Finding, Intent, Policy, Vote, VoterInPolicy
from logact.introspection.backtest import REGRETTED, Judged, backtest
from logact.introspection.history import History, history
from logact.logs.base import SharedLog
from logact.voters.human import Pending
from logact.voters.rules import ActionInterceptor

QUICK_S = 3.0
"""An answer within this time can hardly have been thought about."""

STREAK_MIN = 5
"""So many yeses in a row to one tool are offered as a rule."""


class Quality(msgspec.Struct, kw_only=True):
    """One person's approvals. ``streak`` is the longest run of yes; ``quick`` how many answers came within 3 s;
    ``regretted`` the approved actions that were undone, contradicted, or marked as regretted later.
    """

    person: str
    approvals: int = 0
    denials: int = 0
    seconds: float = 0.0
    quick: int = 0
    streak: int = 0
    regretted: list[int] = []


async def approvals_of(log: SharedLog) -> tuple[History, list[Quality]]:
    """A log's history, and how well people approved in it."""
    regretted: set[int] = set()

    def watch(state: State, entry: Entry) -> None:
        if isinstance(entry.payload, Finding) and entry.payload.code == REGRETTED and not state.verdict:
            regretted.update(entry.payload.cites)

    told = await history(log, observer=watch)
    return told, quality(told, regretted)


def quality(told: History, marked: Collection[int] = ()) -> list[Quality]:
    """Each person's approvals in a log, those with most first. ``marked`` are the actions found to be regretted."""
    found: dict[str, Quality] = {}
    times: dict[str, list[float]] = {}
    running: dict[str, int] = {}
    for position, person, vote, seconds in _answers(told):
        one = found.setdefault(person, Quality(person=person, regretted=[]))
        times.setdefault(person, []).append(seconds)
        one.quick += seconds < QUICK_S
        running[person] = running.get(person, 0) + 1 if vote.approved else 0
        one.streak = max(one.streak, running[person])
        if not vote.approved:
            one.denials += 1
            continue
        one.approvals += 1
        action = told.state.actions[position]
        if action.status == "undone" or action.conflict or position in marked:
            one.regretted.append(position)
    for person, one in found.items():
        one.seconds = round(statistics.median(times[person]), 1)
    return sorted(found.values(), key=lambda one: -(one.approvals + one.denials))


def _answers(told: History) -> list[tuple[int, str, Vote, float]]:
    """Every answer of a person: (action, person, vote, seconds since it was asked), in the log's order."""
    found = []
    for key, story in told.stories.items():
        action = told.state.actions.get(key)
        for entry in told.effective(key) if story and action is not None else ():
            if isinstance(entry.payload, Vote) and entry.author.role == "client" and action is not None:
                seconds = max(0.0, (entry.time_ms - action.proposed_ms) / 1000)
                found.append((entry.position, key, entry.author.name, entry.payload, seconds))
    return [(key, person, vote, seconds) for _, key, person, vote, seconds in sorted(found, key=lambda one: one[0])]


# --- drafts of rules ------------------------------


def draft_rule(action: Pending | Action, decision: str, reason: str = "") -> dict[str, Any]:
    """A rule that decides like this about actions like this: the same tool, and equal plain arguments.

    A draft: it is for a person to read and widen. Arguments that are lists, tables or long texts are left out.
    """
    intent: Pending | Intent = action.intent if isinstance(action, Action) else action
    plain = {
        name: value
        for name, value in intent.arguments.items()
        if isinstance(value, int | float | bool) or (isinstance(value, str) and 0 < len(value) <= 200)
    }
    rule: dict[str, Any] = {
        "name": f"{decision}-{intent.tool}-{intent.arguments_digest[:6]}",
        "decision": decision,
        "tool": intent.tool,
    }
    if plain:
        rule["arguments"] = plain
    if reason:
        rule["reason"] = reason
    return rule


def drafts(told: History) -> list[tuple[dict[str, Any], list[int]]]:
    """What people always said yes to, at least five times, as drafts of rules, each with the actions behind it.

    The arguments that were equal each time stand in the rule; so nothing is allowed that nobody has seen.
    """
    by_tool: dict[str, list[int]] = {}
    denied: set[str] = set()
    for key, _, vote, _ in _answers(told):
        tool = told.state.actions[key].intent.tool
        if tool == ANSWER:
            continue
        if vote.approved:
            by_tool.setdefault(tool, []).append(key)
        else:
            denied.add(tool)
    found = []
    for tool, given in by_tool.items():
        keys = list(dict.fromkeys(given))
        if tool in denied or len(keys) < STREAK_MIN:
            continue
        intents = [told.state.actions[key].intent for key in keys]
        first = draft_rule(told.state.actions[keys[0]], "allow", f"approved {len(keys)} times by people")
        same = {
            name: value
            for name, value in first.get("arguments", {}).items()
            if all(intent.arguments.get(name) == value for intent in intents)
        }
        first.pop("arguments", None)
        found.append(({**first, **({"arguments": same} if same else {})}, keys))
    return found


async def tried(log: SharedLog, rule: dict[str, Any]) -> list[Judged]:
    """The actions of a log that a draft would have let pass, each with what was decided and how it really ended."""
    voter = ActionInterceptor.from_toml({"name": "draft", "rules": [rule], "default": "ask"})
    policy = Policy(version=1, voters={"draft": VoterInPolicy(kind="rules")}, need={"all": ["draft"]})
    found = await backtest([log], [voter], policy, answers=False)
    return [one for one in found.judged if one.after == "approve"]
