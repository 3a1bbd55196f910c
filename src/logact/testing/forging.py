"""Entries that must change nothing: forged, malformed, of unknown kinds. Appended straight to the base."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from logact import codec
from logact.core.state import Action
from logact.entry import (
    Abort,
    BlobRef,
    Checkpoint,
    Commit,
    Control,
    Inference,
    Intent,
    NewEntry,
    Payload,
    Policy,
    Recovery,
    Result,
    Role,
    Started,
    Undone,
    Vote,
)
from logact.logs.base import Draft
from logact.testing.simulated_log import SimulatedLog
from logact.testing.world import EPOCH_MS

if TYPE_CHECKING:
    from logact.testing.checks import Checker


class Strange(Payload, frozen=True, kw_only=True):
    """A kind that no version knows, and that nobody has to understand."""

    wish: str = ""


class StrangeAndCritical(Payload, frozen=True, kw_only=True):
    """A kind that no version knows, and that must be understood."""

    wish: str = ""
    CRITICAL: ClassVar[bool] = True


def _malformed_vote(target: int) -> Payload:
    """Says that it is a Vote, and is none."""
    fields: list[Any] = [("intent", int), ("approved", str, "yes")]
    cls: Any = msgspec.defstruct("Vote", fields, bases=(Payload,), frozen=True, kw_only=True)
    made: Payload = cls(intent=target)
    return made


def forge(checker: Checker, log: SimulatedLog, salt: float, kind: str = "") -> str:
    """Append one entry that must take no effect, of this kind or any; its kind. The checker fails if it does."""
    world = log.world
    dice = random.Random(f"forge {salt} {world.loop.time()}")
    drawn = dice.choice(list(_FORGERIES))
    kind = kind if kind in _FORGERIES or kind in _BALLOTS else drawn
    target = _target(checker, dice)
    if kind in _BALLOTS:
        known = checker.open_actions() or list(checker.state.actions.values())
        found = [made for action in known if (made := _BALLOTS[kind](checker, action))]
        if not found:
            return ""  # there is nothing yet that it could be about
        payload, role, name, broken = dice.choice(found)
    else:
        payload, role, name, broken = _FORGERIES[kind](checker, target)
    append_raw(checker, log, NewEntry(payload=payload, role=role, name=name), broken)
    world.count(f"forged_{kind}")
    return kind


def _target(checker: Checker, dice: random.Random) -> int:
    """An action to forge something about: an open one, if there is one."""
    waiting = [action.id for action in checker.open_actions()]
    known = waiting or list(checker.state.actions)
    return dice.choice(known) if known else 1000


def append_raw(checker: Checker, log: SimulatedLog, entry: NewEntry, broken: str = "") -> int:
    """A record by a writer of its own, in the base at once. ``broken`` names what its effect would break."""
    world = log.world
    writer = f"forger{len(checker.forged)}"
    checker.forged[writer] = broken
    encoded = codec.encode_record(
        [entry],
        log=log.base.log_id,
        writer=writer,
        number=1,
        previous=codec.GENESIS,
        time_ms=EPOCH_MS + int(world.loop.time() * 1000),
        randomness=bytes(codec.SALT_BYTES),
    )
    draft = Draft(writer=writer, number=1, body=encoded.body, content=encoded.content, heads=encoded.heads)
    record, _ = log.base.append_now(draft)
    try:
        checker.committed(record, draft)
    except BaseException as error:
        world.fail(error)
    log.ring()
    return record


def _attempts(checker: Checker, target: int) -> int:
    action = checker.state.actions.get(target)
    return len(action.attempts) if action is not None else 0


Forgery = tuple[Payload, Role, str, str]

_FORGERIES: dict[str, Callable[[Checker, int], Forgery]] = {
    "commit": lambda checker, target: (Commit(intent=target), "driver", "ops", "roles_are_enforced"),
    "commit_early": lambda checker, target: (
        Commit(intent=target if not checker.votes.get(target) else 1),
        "decider",
        "decider",
        "nothing_acts_unseen",
    ),
    "vote": lambda checker, target: (
        Vote(approved=True, intent=target, voter="a" if checker.town.plan.policy else "guard"),
        "voter",
        "budget",
        "roles_are_enforced",
    ),
    "vote_as_person": lambda checker, target: (
        Vote(approved=True, intent=target, voter="guard"),
        "client",
        "guard",
        "roles_are_enforced",
    ),
    "abort": lambda checker, target: (Abort(intent=target), "executor", "executor-1", "roles_are_enforced"),
    "started": lambda checker, target: (
        Started(intent=target, attempt=_attempts(checker, target) + 1),
        "driver",
        "ops",
        "roles_are_enforced",
    ),
    "started_twice": lambda checker, target: (
        Started(intent=target, attempt=max(1, _attempts(checker, target)))
        if _attempts(checker, target)
        else Started(intent=1),
        "executor",
        "executor-1",
        "no_double_effect",
    ),
    "result": lambda checker, target: (
        Result(intent=target, attempt=max(1, _attempts(checker, target)), value="ok"),
        "executor",
        "executor-1",
        "one_bad_entry_never_stops",
    ),
    "recovery": lambda checker, target: (
        Recovery(intent=target, attempt=1, settlement="not_happened"),
        "driver",
        "ops",
        "roles_are_enforced",
    ),
    "undone": lambda checker, target: (Undone(intent=target), "voter", "guard", "roles_are_enforced"),
    "policy": lambda checker, target: (
        Policy(version=99, need={"open": "everything"}),
        "driver",
        "ops",
        "roles_are_enforced",
    ),
    "policy_stale": lambda checker, target: (
        Policy(version=99, expected=77, agent="ops", need={"open": "everything"}),
        "operator",
        "person",
        "closed_by_default",
    ),
    "policy_unreadable": lambda checker, target: (
        Policy(version=99, expected=0, agent="nobody", need={"all": ["ghost"]}),
        "operator",
        "person",
        "closed_by_default",
    ),
    "control": lambda checker, target: (Control(verb="stop"), "client", "ops", "roles_are_enforced"),
    "intent": lambda checker, target: (
        Intent(run=1000, agent="ops", tool="wipe", arguments={"item": "forged"}),
        "voter",
        "guard",
        "roles_are_enforced",
    ),
    "inference": lambda checker, target: (
        Inference(run=1000, turn=77, text="I forge"),
        "driver",
        "ops",
        "store_then_replay",
    ),
    "checkpoint": lambda checker, target: (
        Checkpoint(upto=5, chain="no", state=BlobRef(digest="none", size=1)),
        "driver",
        "ops",
        "roles_are_enforced",
    ),
    "unknown": lambda checker, target: (Strange(wish="anything"), "client", "ops", "one_bad_entry_never_stops"),
    "malformed": lambda checker, target: (
        _malformed_vote(target),
        "voter",
        "guard",
        "one_bad_entry_never_stops",
    ),
}


def _vote(action: Action, voter: str, *, approved: bool, digest: str = "") -> Forgery:
    """A vote by the right voter's own name; only what it says, or when it comes, is wrong."""
    digest = digest or action.intent.arguments_digest
    payload = Vote(approved=approved, intent=action.id, voter=voter, arguments_digest=digest)
    return payload, "voter", voter, "policy_is_kept"


def _again(checker: Checker, action: Action) -> Forgery | None:
    """The voter takes back what it said."""
    heard = checker.votes.get(action.id, {})
    contrary = {voter: vote.approved is not True for voter, vote in heard.items()}
    return next((_vote(action, voter, approved=said) for voter, said in contrary.items()), None)


def _late(checker: Checker, action: Action) -> Forgery | None:
    """Somebody who had not been heard votes after the decision."""
    policy = checker.state.policy_for(action)
    silent = [name for name in (policy.voters if policy else {}) if name not in checker.votes.get(action.id, {})]
    return _vote(action, silent[0], approved=True) if silent and action.status != "proposed" else None


def _other(checker: Checker, action: Action) -> Forgery | None:
    """An approval of other arguments."""
    policy = checker.state.policy_for(action)
    return _vote(action, next(iter(policy.voters)), approved=True, digest="another") if policy else None


_BALLOTS: dict[str, Callable[[Checker, Action], Forgery | None]] = {
    "vote_again": _again,
    "vote_late": _late,
    "vote_other": _other,
}
"""Votes that must not count though their voter's name is right."""

__all__ = ["Forgery", "StrangeAndCritical", "append_raw", "forge"]
