"""What the tests of voting share: logs of entries made by hand, and agents around logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logact import codec
from logact.core import machine
from logact.core.state import Action, State
from logact.entry import (
    Author,
    Effect,
    Entry,
    Intent,
    Payload,
    Policy,
    Run,
    Vote,
    VoterInPolicy,
    position_of,
)


def approve(**more: Any) -> Vote:
    return Vote(approved=True, **more)


def reject(**more: Any) -> Vote:
    return Vote(approved=False, **more)


def abstain(**more: Any) -> Vote:
    return Vote(approved=None, **more)


def policy(need: Any, *names: str, kind: str = "", **more: Any) -> Policy:
    """A policy over these voters (those that the expression names, if none are given)."""
    from logact.core.voting import names as names_of

    wrapped = {"all": [need]} if isinstance(need, str) else need
    listed = names or tuple(names_of(wrapped))
    voters = {name: VoterInPolicy(kind="human" if name.startswith("human:") else kind) for name in listed}
    return Policy(version=1, voters=voters, need=wrapped, **more)


def all_open() -> Policy:
    """A policy under which everything passes."""
    return Policy(version=1, need={"open": "a test"})


class Script:
    """A log in memory, written entry by entry, each by its own writer, and folded."""

    def __init__(self) -> None:
        self.state: State = machine.initial("log")
        self.record = 0

    def add(self, payload: Payload, role: str, name: str = "", *, tool: str = "", time_ms: int = 0) -> Entry:
        """One more entry, applied. ``state.verdict`` says whether it took effect."""
        self.record += 1
        entry = Entry(
            position=position_of(self.record),
            kind=type(payload).__name__,
            payload=payload,
            author=Author(role, name or role, f"i{self.record}"),
            time_ms=time_ms or self.record,
            log="log",
            tool=tool,
            number=1,
            record_hash=f"h{self.record}",
        )
        self.state = machine.apply(self.state, entry)
        return entry

    def begin(self, given: Policy | None, agent: str = "ops") -> int:
        """A policy and a run."""
        if given is not None:
            self.add(given, "operator")
            assert not self.state.verdict, self.state.verdict
        return self.add(Run(agent=agent), "client").position

    def propose(
        self,
        run: int,
        tool: str = "pay",
        arguments: Mapping[str, Any] | None = None,
        *,
        effect: Effect = "irreversible",
        agent: str = "ops",
    ) -> Action:
        """An intent; the action that it is."""
        given = dict(arguments or {})
        digest = codec.digest_of(given)
        intent = Intent(
            run=run,
            agent=agent,
            tool=tool,
            arguments=given,
            arguments_digest=digest,
            effect=effect,
            deadline_ms=10_000_000,
        )
        return self.state.actions[self.add(intent, "driver", agent, tool=tool).position]

    def vote(self, action: Action, voter: str, vote: Vote, *, role: str = "voter", author: str = "") -> str:
        """A vote; why it took no effect ("": it did)."""
        import msgspec

        full = msgspec.structs.replace(
            vote, intent=action.id, voter=voter, arguments_digest=action.intent.arguments_digest
        )
        self.add(full, role, author or voter)
        return self.state.verdict
