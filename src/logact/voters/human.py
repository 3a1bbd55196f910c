"""People as voters: who may approve, how many have to, how they are told, and what waits for them.

A person approves or denies by a ``Vote`` entry as a client, in their own name, bound to the action's exact arguments
(see ``logact.runtime.approvals``). Nothing is kept but the log: what is pending is folded from it, so an agent that
waits costs nothing and survives restarts. Changed arguments are another intent, which is approved anew.

In a policy every approver stands as ``NAME:PERSON`` (``human:alice``); ``human:*`` is any person.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import Any
from urllib import request as http
from urllib.parse import urlsplit

import msgspec

from logact import env as environment
from logact.core import deciding
from logact.core.state import Action, State
from logact.core.views import LogEntry
from logact.entry import Abort, BlobRef, Cancel, Commit, Effect, Entry, Expiry, Notice, Vote, VoterInPolicy
from logact.errors import SpecError, UsageError
from logact.voters.base import Voter

EXPIRES_S = 24 * 3600.0
"""How long a decision waits for people, unless the voter says otherwise."""

NOTIFY_S_MAX = 30.0
"""How long telling somebody may take."""

ASKED = "approval_asked"
"""The code of the notice that stands in the log once people were told."""


class HumanVoter(Voter):
    """``needed`` of the ``approvers`` have to approve; one denial rejects. After ``expires_s`` the action is aborted.

    ``approvers`` are the names in which people act (``logact approve --as NAME``); with none, any one person may.
    ``notify`` is told of each action that waits: a webhook (``https://...``, gets JSON by POST) or a command (gets
    the same JSON on its standard input; no shell). Telling is best effort: what waits is in the log in any case.
    Raises SpecError for what cannot be used.
    """

    kind = "human"
    placement = "async"

    def __init__(
        self,
        name: str = "human",
        approvers: Sequence[str] = (),
        needed: int = 1,
        *,
        expires_s: float = EXPIRES_S,
        notify: str | Sequence[str] = "",
    ) -> None:
        super().__init__(name)
        people = [approvers] if isinstance(approvers, str) else list(approvers)
        if ":" in name or not name:
            raise SpecError("A group of people needs a name without a colon", received=repr(name))
        for person in people:
            if not isinstance(person, str) or not person.strip() or person == "*":
                raise SpecError(
                    "An approver is a name", received=repr(person), todo='for example approvers=["alice"]'
                )
        if len(set(people)) < len(people):
            raise SpecError("An approver is named twice", received=", ".join(people))
        if not 1 <= needed <= max(1, len(people)):
            raise SpecError(
                "So many people cannot approve",
                received=f"needed={needed}",
                expected=f"1 to {len(people)}" if people else "named approvers, where more than one is needed",
            )
        if not 0 < expires_s < 10 * 366 * 86400:
            raise SpecError("expires_s is not usable", received=repr(expires_s), expected="seconds, up to ten years")
        self.approvers = people
        self.needed = needed
        self.decide_within_s = expires_s
        self.notify = notify if isinstance(notify, str) else list(notify)
        if isinstance(notify, str) and "://" in notify and urlsplit(notify).scheme not in ("http", "https"):
            raise SpecError("A webhook is an http or https URL", received=notify)

    def listed(self) -> dict[str, VoterInPolicy]:
        """One voter of the policy for each person."""
        known = self.in_policy()
        return {f"{self.name}:{person}": known for person in self.approvers or ["*"]}

    def expression(self) -> Any:
        """So many of them, where each one can deny."""
        names = list(self.listed())
        return names[0] if len(names) == 1 else {"k": self.needed, "of": names, "veto": True}

    def in_policy(self) -> VoterInPolicy:
        if self.shadow:
            raise SpecError("People are not asked for votes that don't count", received=f"{self.name}: shadow")
        return msgspec.structs.replace(super().in_policy(), timeout_ms=int(self.decide_within_s * 1000))

    def check(self, entry: LogEntry) -> Vote:
        """Never called by a host: people answer through the log."""
        raise UsageError("People answer through the log", todo="see `logact pending` and `logact approve`")

    def for_replay(self) -> None:
        """What a person would have said, nobody can tell; what they did say stands in the log."""

    def config(self) -> dict[str, Any]:
        return {"approvers": self.approvers, "needed": self.needed, "expires_s": self.decide_within_s}

    # --- telling people ------------------------------

    def initial(self) -> Any:
        return {"asked": {}}

    def observe(self, memory: Any, entry: Entry) -> Any:
        """Remembers which actions people were told of, so that nobody is told twice."""
        payload = entry.payload
        if isinstance(payload, Notice) and payload.code == ASKED and payload.data.get("voter") == self.name:
            return {"asked": {**memory["asked"], str(payload.data.get("action")): entry.position}}
        if isinstance(payload, Commit | Abort | Expiry | Cancel) and str(payload.intent) in memory["asked"]:
            return {"asked": {key: at for key, at in memory["asked"].items() if key != str(payload.intent)}}
        return memory

    def has_told(self, memory: Any, action: int) -> bool:
        """Whether there is nobody to tell of an action (any more)."""
        return not self.notify or str(action) in memory["asked"]

    async def tell(self, waiting: Pending) -> str:
        """Tell people of an action that waits; why that failed ("" if it did not). Never raises."""
        body = msgspec.json.encode(waiting)
        try:
            async with asyncio.timeout(NOTIFY_S_MAX):
                if isinstance(self.notify, str) and "://" in self.notify:
                    await environment.current().in_thread(_post, self.notify, body)
                    return ""
                return await _command(self.notify, body)
        except Exception as error:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _NoRedirect(http.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: it could carry the arguments elsewhere."""


def _post(url: str, body: bytes) -> None:
    opener = http.build_opener(_NoRedirect)
    asked = http.Request(url, data=body, headers={"content-type": "application/json"}, method="POST")  # noqa: S310 - checked
    with opener.open(asked, timeout=NOTIFY_S_MAX):
        pass


async def _command(command: str | list[str], body: bytes) -> str:
    words = shlex.split(command) if isinstance(command, str) else command
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stdout=nothing, stderr=nothing
    )
    try:
        await process.communicate(body)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return f"the command ended with code {process.returncode}" if process.returncode else ""


# --- what waits for people ------------------------------


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """An action that waits for people: what it is, who may approve, what was said so far, and until when.

    ``approvers`` may still say something, ``needed`` tells how many voters the policy waits for at least.
    ``arguments_blob`` is set where the arguments are too large for the entry. ``undoes`` is the action that an undo
    takes back: its tool and arguments are that action's. Times are wall clock, in ms.
    """

    action: int
    agent: str
    run: int
    tool: str
    arguments: dict[str, Any]
    arguments_digest: str
    effect: Effect
    task: str = ""
    reasoning: str = ""
    approvers: tuple[str, ...] = ()
    voters: tuple[str, ...] = ()
    votes: dict[str, bool | None] = {}
    said: dict[str, str] = {}
    asked_ms: int = 0
    expires_ms: int = 0
    arguments_blob: BlobRef | None = None
    undoes: int = 0


def people_awaited(state: State, action: Action) -> list[str]:
    """The voters of an undecided action's policy that are people and are waited for now."""
    policy = state.policy_for(action)
    if policy is None or action.status != "proposed":
        return []
    return [name for name in deciding.awaited(state, action) if policy.voters[name].kind == "human"]


def person_of(voter: str) -> str:
    """The person that a policy's voter stands for; ``*`` is anybody."""
    return voter.partition(":")[2] or voter


def pending(state: State) -> list[Pending]:
    """Every action that waits for people now, oldest first. Pure."""
    found = []
    for action in state.undecided():
        names = people_awaited(state, action)
        if names:
            found.append(_pending(state, action, names))
    return found


def _pending(state: State, action: Action, names: list[str]) -> Pending:
    intent = action.intent
    run = state.runs.get(intent.run)
    return Pending(
        action=action.id,
        agent=intent.agent,
        run=intent.run,
        tool=intent.tool,
        arguments=intent.arguments,
        arguments_digest=intent.arguments_digest,
        arguments_blob=intent.arguments_blob,
        effect=intent.effect,
        task=run.title if run is not None else "",
        reasoning=intent.reasoning,
        approvers=tuple(dict.fromkeys(map(person_of, names))),
        voters=tuple(names),
        votes={name: vote.approved for name, vote in action.votes.items()},
        said={name: vote.reason for name, vote in action.votes.items() if vote.reason},
        asked_ms=action.proposed_ms,
        expires_ms=intent.deadline_ms,
        undoes=intent.undoes,
    )


def waits_for_people(state: State, run: int) -> list[Pending]:
    """What a run waits for, if people are all that it waits for; else nothing."""
    open_ones = [state.actions[key] for key in state.open_actions if state.actions[key].intent.run == run]
    if not open_ones:
        return []
    found = []
    for action in open_ones:
        names = people_awaited(state, action)
        if not names or set(names) != set(deciding.awaited(state, action)):
            return []
        found.append(_pending(state, action, names))
    return found
