"""What a voter is: something that judges an intent, and cannot act.

A voter shares nothing with the agent but the log. It answers with a :class:`~logact.entry.Vote`; its host writes
the vote down. A voter that needs history keeps a memory that it folds from entries (``observe``), so that the
memory can travel in a checkpoint and is never read from anywhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import msgspec

from logact import codec
from logact.core.views import LogEntry
from logact.entry import Entry, Vote, VoterInPolicy
from logact.errors import SpecError, UsageError

TIMEOUT_S = 30.0
"""How long a voter may take, unless it says otherwise. After that its failure policy counts."""


class Voter:
    """The base of voters. Override ``check``; plain and async both work.

    ``name`` is what policies and votes call it. ``on_failure`` is what counts when it raises, hangs past
    ``timeout_s`` seconds or answers nonsense. ``placement`` is ``inline`` (asked before the intent is appended, in
    the agent's process) or ``async`` (asked from the log). ``scope`` is set by voters whose votes depend on
    history: ``log``, ``agent``, ``run`` or ``tool``.
    """

    kind: str = ""
    timeout_s: float = TIMEOUT_S
    on_failure: Literal["reject", "abstain", "approve"] = "reject"
    placement: Literal["inline", "async"] = "inline"
    scope: Literal["", "log", "agent", "run", "tool"] = ""
    shadow: bool = False
    quick: bool = False
    """Whether a plain ``check`` only computes. It is then called on the event loop itself; any other plain one runs
    in a thread, so that one that hangs can be given up after ``timeout_s``."""
    decide_within_s: float = 0
    """How long a decision may wait for this voter; 0: as long as the policy says for all."""

    def __init__(self, name: str = "") -> None:
        self.name = name or type(self).__name__

    def check(self, entry: LogEntry) -> Vote | Awaitable[Vote]:
        """Judge a proposed action. A missing or wrong answer counts as a failure, never as approval."""
        raise NotImplementedError(f"{type(self).__name__} must define check(entry)")

    def initial(self) -> Any:
        """The memory before any entry; plain data that JSON can hold."""
        return None

    def observe(self, memory: Any, entry: Entry) -> Any:
        """The memory after one more effective entry. Pure: no clock, no randomness, no I/O."""
        return memory

    def accepts(self, memory: Any) -> bool:
        """Whether a memory from a checkpoint fits this voter as it is set up now; if not, it is folded anew."""
        return True

    def config(self) -> dict[str, Any]:
        """What this voter judges by, as plain data; its digest stands on every vote."""
        return {}

    def listed(self) -> dict[str, VoterInPolicy]:
        """How a policy lists this voter: one entry under its name, or several (a group of people)."""
        return {self.name: self.in_policy()}

    def expression(self) -> Any:
        """What a policy's expression holds where this voter is meant."""
        return self.name

    def for_replay(self) -> Voter | None:
        """This voter as it can judge actions of the past, by the log alone; None if it cannot."""
        return self

    def in_policy(self) -> VoterInPolicy:
        """How a policy lists this voter."""
        return VoterInPolicy(
            kind=self.kind or type(self).__name__,
            config=codec.digest_of(self.config()),
            timeout_ms=int(self.timeout_s * 1000),
            on_failure=self.on_failure,
            placement=self.placement,
            shadow=self.shadow,
        )


class FunctionVoter(Voter):
    """A plain or async function ``(entry) -> Vote | bool`` as a voter."""

    kind = "function"

    def __init__(self, function: Callable[[LogEntry], Any], name: str = "") -> None:
        super().__init__(name or getattr(function, "__name__", "voter"))
        self.function = function

    def check(self, entry: LogEntry) -> Any:
        return self.function(entry)

    def config(self) -> dict[str, Any]:
        try:
            return {"source": inspect.getsource(self.function)}
        except (OSError, TypeError):
            return {"name": self.name}


def as_voters(given: Iterable[Voter | Callable[[LogEntry], Any]]) -> list[Voter]:
    """Voters from voters and plain functions; names must differ."""
    found: list[Voter] = []
    for one in given:
        if isinstance(one, Voter):
            found.append(one)
        elif callable(one) and not isinstance(one, type):
            found.append(FunctionVoter(one))
        else:
            raise UsageError(
                "This is not a voter",
                received=repr(one),
                expected="a Voter object or a function that takes an entry",
                todo="for a class write MyVoter() rather than MyVoter",
            )
    names = [voter.name for voter in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            "Two voters have one name", received=", ".join(twice), todo="give one of them another: Voter(name=...)"
        )
    return found


def read_vote(answer: Any, voter: str) -> Vote:
    """A voter's answer as a Vote. Anything but a Vote, True, False or None (abstain) is nonsense: TypeError."""
    if isinstance(answer, Vote):  # built without a check of its fields' types: one that approves by a text is none
        return msgspec.convert(msgspec.to_builtins(answer), Vote)
    if isinstance(answer, bool):
        return Vote(approved=answer, reason="approved" if answer else f"{voter} rejected it")
    raise TypeError(f"expected a Vote, received {type(answer).__name__}")
