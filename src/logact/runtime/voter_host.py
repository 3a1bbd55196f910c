"""Asks voters and writes their votes down: one host, any number of voters.

A voter that raises, hangs, or answers nonsense counts as its failure policy says (reject, unless stated
otherwise), and the vote says so. The host keeps each voter's memory folded from effective entries.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from logact import codec
from logact.core import deciding, voting
from logact.core.state import Action, State
from logact.core.views import log_entry, view
from logact.entry import BlobRef, Checkpoint, Entry, Intent, Policy, Vote
from logact.errors import ConditionFailed, LogActError
from logact.logs.base import where
from logact.runtime.host import Host
from logact.voters.base import Voter, read_vote

REASON_CHARS_MAX = 2000


class VoterHost:
    """Hosts voters on one log. ``run`` votes on what is proposed there; ``ask`` serves the inline form."""

    def __init__(self, host: Host, voters: Sequence[Voter], *, agents: Iterable[str] | None = None) -> None:
        self.host = host
        self.voters = {voter.name: voter for voter in voters}
        self.agents = frozenset(agents) if agents is not None else None
        self.memories: dict[str, Any] = {voter.name: voter.initial() for voter in voters}
        self.configs = {voter.name: codec.digest_of(voter.config()) for voter in voters}
        self._remembering = [voter for voter in voters if type(voter).observe is not Voter.observe]
        self._busy: set[tuple[int, str]] = set()
        self._before: dict[int, dict[str, Any]] = {}  # memories as they were before each open intent
        host.tail.restore(self._restore)
        host.tail.observe(self._observe)

    async def _restore(self, checkpoint: Checkpoint | None) -> bool:
        found = {voter.name: voter.initial() for voter in self._remembering}
        for voter in self._remembering if checkpoint is not None else ():
            ref = checkpoint.voters.get(voter.name) if checkpoint is not None else None
            if ref is None:
                return False  # this voter joined later: it has to read the history itself
            found[voter.name] = msgspec.json.decode(await self.host.log.get_blob(ref.digest))
            if not voter.accepts(found[voter.name]):
                return False
        self.memories.update(found)
        return True

    def _observe(self, state: State, entry: Entry) -> None:
        if state.verdict:
            return
        if self._remembering and entry.kind == "Intent":
            self._before[entry.position] = dict(self.memories)
            if len(self._before) > 2 * len(state.open_actions) + 64:
                self._before = {key: kept for key, kept in self._before.items() if key in state.open_actions}
        for voter in self._remembering:
            self.memories[voter.name] = voter.observe(self.memories[voter.name], entry)

    def serialised(self) -> dict[str, tuple[BlobRef, bytes]]:
        """Every voter's memory, as a checkpoint carries it."""
        found = {}
        for voter in self._remembering:
            data = msgspec.json.encode(self.memories[voter.name])
            found[voter.name] = (BlobRef(digest=codec.digest(data), size=len(data)), data)
        return found

    async def ask_inline(self, policy: Policy | None, intent: Intent, task: str) -> list[Vote]:
        """The votes of this host's inline voters on an intent that is not in the log yet, in order.

        Stage by stage: a voter that can no longer change the outcome is not asked.
        """
        seen = self.host.state.position
        votes: list[Vote] = []
        asked: set[str] = set()
        names = voting.shadowed(policy)
        while True:
            names = [*names, *voting.wanted(policy, intent.effect, counted(votes), intent.tool)]
            stage = [name for name in dict.fromkeys(names) if name not in asked and self._inline(policy, name)]
            if not stage:
                return votes
            asked.update(stage)
            heard = counted(votes)
            votes += [await self.ask(self.voters[name], intent, task=task, seen=seen, votes=heard) for name in stage]
            names = []

    def _inline(self, policy: Policy | None, name: str) -> bool:
        """Whether a voter lives here, and is asked before the intent is appended."""
        known = policy.voters.get(name) if policy is not None else None
        mine = self.voters.get(name)
        return mine is not None and mine.placement == "inline" and (known is None or known.placement == "inline")

    async def ask(
        self,
        voter: Voter,
        intent: Intent,
        *,
        task: str = "",
        seen: int,
        action: Action | None = None,
        votes: Mapping[str, Vote] | None = None,
    ) -> Vote:
        """One voter's vote, complete; failures become the vote that its failure policy names. Never raises."""
        env = self.host.env
        # an intent in the log is judged by what came before it, so that two that wait don't refuse each other
        memories = self._before.get(action.id, self.memories) if action is not None else self.memories
        memory = memories.get(voter.name)
        if action is None:
            entry = msgspec.structs.replace(log_entry(intent, task=task, memory=memory), votes=dict(votes or {}))
        else:  # large arguments are not in the log's entry but beside it: a voter sees all of them
            entry = msgspec.structs.replace(
                view(self.host.state, action, memory=memory),
                action=log_entry(intent).action,
                intent=intent,
                task=task or self._task(intent.run),
            )
        began = env.monotonic()
        try:
            answer = voter.check(entry)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(voter.timeout_s):
                    answer = await answer
            vote = read_vote(answer, voter.name)
        except TimeoutError:
            vote = self._failed(voter, f"it did not answer within {voter.timeout_s:g} s")
        except Exception as error:
            vote = self._failed(voter, f"it failed: {type(error).__name__}: {error}")
        return msgspec.structs.replace(
            vote,
            voter=voter.name,
            config=self.configs.get(voter.name, ""),
            arguments_digest=intent.arguments_digest,
            reason=vote.reason[:REASON_CHARS_MAX],
            hint=vote.hint[:REASON_CHARS_MAX],
            scope=scope_of(voter, intent),
            seen=seen if voter.scope else 0,
            shadow=voter.shadow,
            duration_ms=round((env.monotonic() - began) * 1000, 3),
        )

    def _task(self, run: int) -> str:
        known = self.host.state.runs.get(run)
        return known.title if known is not None else ""

    def _failed(self, voter: Voter, why: str) -> Vote:
        approved = {"reject": False, "abstain": None, "approve": True}[voter.on_failure]
        return Vote(
            approved=approved, reason=f"the voter {voter.name!r} failed ({why}), which counts as {voter.on_failure}"
        )

    # --- decoupled: vote on what the log proposes ---------------------------------------------------------------

    def due(self, state: State) -> list[tuple[Action, Voter]]:
        """The votes that this host owes: undecided actions whose policy wants a voter that lives here."""
        if state.halted:
            return []
        return [
            (action, self.voters[name])
            for action in state.undecided()
            if self.agents is None or action.intent.agent in self.agents
            for name in self._owed(state, action)
            if name in self.voters and name not in action.votes and (action.id, name) not in self._busy
        ]

    def _owed(self, state: State, action: Action) -> list[str]:
        """Whom to ask about an undecided action now: slow voters only when the fast ones have left it open."""
        policy = state.policy_for(action)
        if policy is None or deciding.repeated(state, action.intent, action.policy):
            return []
        names = deciding.awaited(state, action)
        if any(policy.voters[name].placement == "inline" for name in names):
            names = [name for name in names if policy.voters[name].placement == "inline"]
        return names + voting.shadowed(policy)

    async def run(self) -> None:
        """Vote until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self.host.tail.until(self.due)
                for action, voter in self.due(self.host.state):
                    self._busy.add((action.id, voter.name))
                    group.create_task(self._vote(action, voter))

    async def _vote(self, action: Action, voter: Voter) -> None:
        key = (action.id, voter.name)
        try:
            intent = await self.host.full_intent(action)
            vote = await self.ask(voter, intent, seen=action.id - 1, action=action)
            vote = msgspec.structs.replace(vote, intent=action.id)
            entry = self.host.about(intent, vote, "voter", voter.name)
            once = where(kinds=["Vote", "Commit", "Abort", "Expiry", "Cancel"], actions=[action.id])
            await self.host.append([entry], unless=once if not voter.shadow else None)
        except ConditionFailed:
            self._busy.discard(key)  # somebody else voted or decided; look again
            self.host.tail.wake()
        except LogActError:
            await self.host.env.sleep(0.2)
            self._busy.discard(key)
            self.host.tail.wake()
        else:
            if not voter.shadow:
                self._busy.discard(key)


def counted(votes: Iterable[Vote]) -> dict[str, Vote]:
    """The votes that count, by voter, in order."""
    return {vote.voter: vote for vote in votes if not vote.shadow}


def scope_of(voter: Voter, intent: Intent) -> str:
    """The scope of a voter's votes on an intent, as entries name it."""
    if not voter.scope or voter.scope == "log":
        return voter.scope
    value = {"agent": intent.agent, "run": intent.run, "tool": intent.tool}[voter.scope]
    return f"{voter.scope}:{value}"
