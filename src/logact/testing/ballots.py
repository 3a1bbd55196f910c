"""Every form of policy in the simulation: who judges how, and what each policy means, written a second time.

The meaning here shares no code with ``core.voting``: it is a plain sentence about the votes in the log, so that a
mistake there does not excuse itself. The checker asks it at every commit and at every rejection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from logact.core.views import LogEntry
from logact.entry import Vote
from logact.testing.loop import PROCESS
from logact.testing.plan import BALLOT_FAULTS, Event, Form, Plan
from logact.voters.base import Voter
from logact.voters.combine import (
    all_of,
    any_of,
    case,
    cases,
    escalate,
    first_of,
    k_of,
    majority_of,
    override,
    veto,
    weighted,
)

if TYPE_CHECKING:
    from logact.testing.town import Town

JUDGES = ("a", "b", "c")
DUTIES = {"guard": ("a", "c"), "budget": ("b", "c")}
"""Which judges a voter's process hosts: both host ``c``, so that it votes twice, and not always alike."""

OVERTURNED = "post-outside"
"""The class of rejections that ``override`` may overturn; the other one is ``never``."""

ROUNDING = 1e-9


class Ballot:
    """The votes on one action, in the order of the log, as the sentences below speak of them."""

    def __init__(self, votes: Mapping[str, Vote], tool: str, effect: str) -> None:
        self.votes, self.tool, self.effect = votes, tool, effect

    def yes(self, name: str) -> bool:
        return name in self.votes and self.votes[name].approved is True

    def no(self, name: str) -> bool:
        return name in self.votes and self.votes[name].approved is False

    def abstained(self, name: str) -> bool:
        return name in self.votes and self.votes[name].approved is None

    def heard(self, *judges: str) -> bool:
        return all(name in self.votes for name in judges)

    def count(self, *judges: str) -> int:
        return sum(self.yes(name) for name in judges)

    def all(self, *judges: str) -> bool:
        return self.heard(*judges) and not any(self.no(name) for name in judges) and self.count(*judges) > 0

    def chance(self, name: str) -> float:
        """How probable approval is by a vote that was heard."""
        vote = self.votes[name]
        sure = 1.0 if vote.confidence is None else vote.confidence
        return sure if vote.approved else 1.0 - sure


Sentence = Callable[[Ballot], bool]


class Kind(msgspec.Struct, frozen=True):
    """One policy: as an expression, and as a sentence that says when an action may pass."""

    need: dict[str, Any]
    passes: Sentence


def _majority(votes: Ballot) -> bool:
    against = sum(votes.no(name) for name in JUDGES)
    silent = sum(name not in votes.votes for name in JUDGES)
    return votes.count(*JUDGES) > against + silent


WEIGHTS = {"a": 2.0, "b": 1.0, "c": 1.0}
THRESHOLD = 0.6


def _weighted(votes: Ballot) -> bool:
    """Who is silent may still be certain that it is wrong; who abstains is not asked for a probability."""
    counted = [name for name in JUDGES if not votes.abstained(name)]
    total = sum(WEIGHTS[name] for name in counted)
    sure = sum(WEIGHTS[name] * votes.chance(name) for name in counted if name in votes.votes)
    return votes.count(*JUDGES) > 0 and sure >= THRESHOLD * total - ROUNDING


def _first(votes: Ballot) -> bool:
    said = [vote.approved for vote in votes.votes.values() if vote.approved is not None]
    return bool(said) and said[0] is True


def _escalated(votes: Ballot) -> bool:
    for name in JUDGES:
        if not votes.abstained(name):
            return votes.yes(name)
    return False


def _overridden(votes: Ballot) -> bool:
    if not votes.heard("a", "b"):
        return False
    against = [name for name in ("a", "b") if votes.no(name)]
    if not against:
        return votes.count("a", "b") > 0
    return votes.yes("c") and all(votes.votes[name].code == OVERTURNED for name in against)


def _by_tool(votes: Ballot) -> bool:
    if votes.tool.startswith(("p", "s")):
        return votes.yes("a")
    if votes.tool.endswith("ook"):
        return votes.count("b", "c") == 2
    return votes.all("a", "b")


def _by_effect(votes: Ballot) -> bool:
    if votes.effect == "read":
        return votes.yes("a")
    if votes.effect in ("idempotent", "reversible"):
        return votes.count("b", "c") > 0
    return votes.all(*JUDGES)


def _nested(votes: Ballot) -> bool:
    together = votes.heard("a") and not votes.no("a") and votes.count("b", "c") > 0
    return together or votes.count("b", "c") == 2


POLICIES: dict[str, Kind] = {
    "all": Kind(all_of(*JUDGES), lambda votes: votes.all(*JUDGES)),
    "any": Kind(any_of(*JUDGES), lambda votes: votes.count(*JUDGES) > 0),
    "two_of_three": Kind(k_of(2, *JUDGES), lambda votes: votes.count(*JUDGES) >= 2),
    "two_and_no_veto": Kind(
        k_of(2, *JUDGES, veto=True),
        lambda votes: votes.count(*JUDGES) >= 2 and not any(votes.no(name) for name in JUDGES),
    ),
    "majority": Kind(majority_of(*JUDGES), _majority),
    "weighted": Kind(weighted(WEIGHTS, THRESHOLD), _weighted),
    "veto": Kind(
        veto("a", over=any_of("b", "c")),
        lambda votes: votes.heard("a") and not votes.no("a") and votes.count("b", "c") > 0,
    ),
    "first": Kind(first_of(*JUDGES), _first),
    "escalate": Kind(escalate(*JUDGES), _escalated),
    "override": Kind(override(all_of("a", "b"), "c", ["post-*"]), _overridden),
    "by_tool": Kind(
        cases(
            case("a", tool=["p*", "s*"]),
            case(k_of(2, "b", "c"), tool="*ook"),
            otherwise=all_of("a", "b"),
        ),
        _by_tool,
    ),
    "by_effect": Kind(
        cases(
            case("a", effect="read"),
            case(any_of("b", "c"), effect=["idempotent", "reversible"]),
            otherwise=all_of(*JUDGES),
        ),
        _by_effect,
    ),
    "nested": Kind(
        any_of(all_of("a", any_of("b", "c")), escalate(k_of(2, "b", "c"))),
        _nested,
    ),
}
"""Every form that a policy can take, by name."""


def may_pass(policy: str, votes: Mapping[str, Vote], tool: str, effect: str) -> bool:
    """Whether these votes, in the order of the log, let an action pass."""
    return POLICIES[policy].passes(Ballot(votes, tool, effect))


def could_pass(policy: str, votes: Mapping[str, Vote], tool: str, effect: str) -> bool:
    """Whether it would pass if everybody who is silent approved: then a rejection came too early."""
    silent = {name: Vote(approved=True) for name in JUDGES if name not in votes}
    return may_pass(policy, {**votes, **silent}, tool, effect)


class Judge(Voter):
    """Approves, rejects or abstains by the luck of the item; all reject what is forbidden, none the answer."""

    timeout_s = 50.0

    def __init__(self, town: Town, name: str) -> None:
        super().__init__(name)
        self.town = town

    async def check(self, entry: LogEntry) -> Any:
        item = str(entry.action.arguments.get("item", "answer"))
        strange = await self.town.question(self.name, item)
        if strange is not None:
            return strange
        process = PROCESS.get()
        vote = self._opinion(entry.action.tool, item, process.name if process is not None else "")
        self.town.answers.setdefault((self.name, item), set()).add(vote.approved is True)
        return vote

    def _opinion(self, tool: str, item: str, process: str) -> Vote:
        if tool == "answer":
            return Vote(approved=True, reason="say it")
        if tool == "wipe":
            return Vote(approved=False, reason="never", code="never")
        dice = random.Random(f"judge {self.town.plan.menu} {self.name} {item}")
        drawn = dice.choices((True, False, None), (5, 3, 2))[0]
        if self.name == "c" and process == "voter-budget" and dice.random() < 0.5:
            self.town.world.count("voter_contradicts")
            drawn = None if drawn is None else not drawn
        return Vote(
            approved=drawn,
            reason=f"{self.name} says so",
            code=dice.choice((OVERTURNED, "never")) if drawn is False else "",
            confidence=dice.choice((None, 0.55, 0.8)),
        )


def ballot(policy: str, seed: int, form: Form | None = None) -> Plan:
    """The plan of a seed under a policy: voters that are late, silent, slow, ill, and votes that are forged."""
    plan = Plan.random(seed, form)
    dice = random.Random(f"ballot {policy} {seed}")
    away = dice.random() < 0.6  # while no decider reads the log, votes pile up, and their order matters
    return msgspec.structs.replace(
        plan,
        policy=policy,
        voters=tuple(
            (dice.choice(JUDGES), nth, fault)
            for nth, fault in enumerate(dice.sample(BALLOT_FAULTS, dice.randint(0, 4)))
        ),
        events=(
            *plan.events,
            *(Event(0.05, "cut", name, dice.random() * 3) for name in ("decider-1", "decider-2") if away),
            *(
                Event(round(dice.random() * 6, 3), "forge", name, dice.random())
                for name in dice.sample(("vote", "vote_again", "vote_late", "vote_other"), 3)
            ),
        ),
    )


def ballot_of(seed: int, form: Form | None = None) -> Plan:
    """The plan of a seed, each policy in turn."""
    names = sorted(POLICIES)
    return ballot(names[seed % len(names)], seed, form)
