"""Broken versions of how votes combine and count: one at least for each form of policy, and for each false vote.

Each is a plausible slip in ``core.voting`` or ``core.judging``; the simulation catches it by ``policy_is_kept``,
for which the meaning of the policies is written a second time in ``ballots``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import msgspec

from logact.core import expressions, judging, machine, voting
from logact.core.state import OPEN, State
from logact.entry import Entry, Vote

Patch = Callable[[ExitStack], None]
Mistake = Callable[..., Any]

_AT_LEAST, _WEIGHTED, _FIRST = voting._at_least, voting._weighted, voting._first
_OVERRIDE, _FITS = voting._override, expressions.fits


def _silence_approves(count: int, heard: list[Any], *, veto: bool = False) -> Any:
    return _AT_LEAST(count, [one._replace(outcome="approve") if one.outcome == "wait" else one for one in heard])


def _one_less(count: int, heard: list[Any], *, veto: bool = False) -> Any:
    return _AT_LEAST(count - 1, heard, veto=veto)


def _deaf_to_vetoes(count: int, heard: list[Any], *, veto: bool = False) -> Any:
    return _AT_LEAST(count, heard)


def _one_is_all(inner: list[Any], heard: list[Any]) -> Any:
    return _AT_LEAST(1, heard)


def _over_groups(inner: list[Any], heard: list[Any]) -> Any:
    """An abstaining group is passed over, as a voter is."""
    for outcome in ("reject", "wait"):
        for verdict in heard:
            if verdict.outcome == outcome:
                return verdict
    return _AT_LEAST(1, heard)


def _of_those_heard(heard: list[Any]) -> Any:
    """A majority of those who have spoken so far."""
    approved = [one for one in heard if one.outcome == "approve"]
    rejected = [one for one in heard if one.outcome == "reject"]
    if len(approved) > len(rejected):
        return voting.Verdict("approve", "most")
    waiting = [one for one in heard if one.outcome == "wait"]
    return waiting[0] if waiting else voting.Verdict("reject", "not most")


def _all_weigh_alike(weights: Any, threshold: float, votes: Any) -> Any:
    return _WEIGHTED(dict.fromkeys(weights, 1), threshold, votes)


def _not_against(inner: list[Any], votes: Any) -> Any:
    """Who answers first without rejecting approves, also by an abstention."""
    taken = {name: msgspec.structs.replace(vote, approved=vote.approved is not False) for name, vote in votes.items()}
    return _FIRST(inner, taken)


def _no_veto(heard: list[Any]) -> Any:
    return heard[-1]


def _any_stage(inner: list[Any], about: Any, depth: int) -> Any:
    """A later stage that was heard decides before an earlier one."""
    heard = [voting._combine(part, about, depth) for part in inner]
    return next((one for one in heard if one.outcome == "approve"), heard[0])


def _overturns_all(need: Any, about: Any, depth: int) -> Any:
    return _OVERRIDE({**need, "classes": ["*"]}, about, depth)


def _blind_to_tools(case: Any, tool: str, effect: str) -> bool:
    return _FITS({key: value for key, value in case.items() if key != "tool"}, tool, effect)


def _blind_to_effects(case: Any, tool: str, effect: str) -> bool:
    return _FITS({key: value for key, value in case.items() if key != "effect"}, tool, effect)


POLICY_MISTAKES: dict[str, tuple[str, str, Mistake]] = {
    # mutant: the policy in which it shows, what it replaces in core.voting, by what
    "one_is_all": ("all", "_all", _one_is_all),
    "silence_approves": ("any", "_at_least", _silence_approves),
    "one_less_is_enough": ("two_of_three", "_at_least", _one_less),
    "vetoes_unheard": ("two_and_no_veto", "_at_least", _deaf_to_vetoes),
    "majority_of_those_heard": ("majority", "_majority", _of_those_heard),
    "all_weigh_alike": ("weighted", "_weighted", _all_weigh_alike),
    "veto_does_nothing": ("veto", "_veto", _no_veto),
    "abstaining_is_answering": ("first", "_first", _not_against),
    "any_stage_decides": ("escalate", "_escalate", _any_stage),
    "overturns_every_class": ("override", "_override", _overturns_all),
    "cases_blind_to_tools": ("by_tool", "fits", _blind_to_tools),
    "cases_blind_to_effects": ("by_effect", "fits", _blind_to_effects),
    "groups_passed_over": ("nested", "_all", _over_groups),
}
"""One mistake for each policy of ``ballots``."""


def _replacing(name: str, mistake: Mistake, stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(voting, name, mistake))


# --- votes that must not count ------------------------------

_HONEST = judging.on_vote


def _takes_back(state: State, entry: Entry, vote: Vote) -> str:
    """A voter's last vote counts, instead of its first."""
    action = state.actions.get(vote.intent)
    if action is not None and action.status == "proposed" and entry.author.name == vote.voter:
        action.votes.pop(vote.voter, None)
    return _HONEST(state, entry, vote)


def _late_too(state: State, entry: Entry, vote: Vote) -> str:
    """A vote after the decision is taken for one before it."""
    action = state.actions.get(vote.intent)
    if action is not None and action.status in OPEN - {"proposed"} and vote.voter not in action.votes:
        action.votes[vote.voter] = vote
        return ""
    return _HONEST(state, entry, vote)


def _of_anything(state: State, entry: Entry, vote: Vote) -> str:
    """A vote for other arguments counts."""
    action = state.actions.get(vote.intent)
    digest = action.intent.arguments_digest if action is not None else ""
    return _HONEST(state, entry, msgspec.structs.replace(vote, arguments_digest=digest))


def _handling(handler: Mistake, stack: ExitStack) -> None:
    stack.enter_context(mock.patch.dict(machine._HANDLERS, {"Vote": handler}))


VOTE_MISTAKES: dict[str, tuple[str, Mistake]] = {
    "last_vote_wins": ("all", _takes_back),
    "late_votes_count": ("any", _late_too),
    "votes_for_other_arguments": ("all", _of_anything),
}


def cases_of_mutants() -> list[tuple[str, str, Patch]]:
    """(name, the policy of its plans, patch) of each mutant."""
    found: list[tuple[str, str, Patch]] = [
        (name, policy, partial(_replacing, attribute, mistake))
        for name, (policy, attribute, mistake) in POLICY_MISTAKES.items()
    ]
    return found + [(name, policy, partial(_handling, handler)) for name, (policy, handler) in VOTE_MISTAKES.items()]


__all__ = ["POLICY_MISTAKES", "VOTE_MISTAKES", "cases_of_mutants"]
