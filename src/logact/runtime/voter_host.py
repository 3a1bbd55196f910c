"""Asks voters and writes their votes down: one host, any number of voters.

A voter that raises, hangs, or answers nonsense counts as its failure policy says (reject, unless stated
otherwise), and the vote says so. The host keeps each voter's memory folded from effective entries.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from logact import codec
from logact.core import deciding, voting
from logact.core.state import Action, State
from logact.core.views import LogEntry, log_entry, view
from logact.entry import BlobRef, Checkpoint, Entry, Intent, NewEntry, Notice, Policy, Vote
from logact.env_guest import guest, is_cancelled, said
from logact.errors import AccessRefused, ConditionFailed, LogActError
from logact.logs.base import where
from logact.runtime import values
from logact.runtime.host import Host
from logact.runtime.tail import alone
from logact.voters.base import FunctionVoter, Voter, read_vote
from logact.voters.human import ASKED, HumanVoter, pending, waits_for_people

REASON_CHARS_MAX = 2000

SHADOWS_MAX = 1000
"""How many actions may wait for slow voters in shadow; beyond that they are not tried on further ones."""

SHADOW_GRACE_S = 5.0
"""How long a run that has ended waits for them."""

BUSY_MAX = 10_000


class VoterHost:
    """Hosts voters on one log. ``run`` votes on what is proposed there; ``ask`` serves the inline form."""

    def __init__(self, host: Host, voters: Sequence[Voter], *, agents: Iterable[str] | None = None) -> None:
        self.host = host
        self.voters = {voter.name: voter for voter in voters}
        self.agents = frozenset(agents) if agents is not None else None
        self.memories: dict[str, Any] = {voter.name: voter.initial() for voter in voters}
        self.configs = {voter.name: codec.digest_of(voter.config()) for voter in voters}
        self._people = {
            name: voter
            for voter in voters
            if isinstance(voter, HumanVoter) and voter.notify
            for name in voter.listed()
        }
        self._remembering = [voter for voter in voters if type(voter).observe is not Voter.observe]
        self._busy: set[tuple[int, str]] = set()
        self._confused: dict[str, str] = {}  # by voter: why its memory cannot be folded any further
        self._shadows: deque[tuple[Voter, LogEntry]] = deque()
        self._trying = 0
        self._live = False
        self._before: dict[int, dict[str, Any]] = {}  # memories as they were before each open intent
        host.tail.restore(self._restore)
        if self._remembering:
            host.tail.observe(self._observe)
        else:
            host.tail.observe(self._observe, ("Intent", "Vote"), about=alone(self.agents))

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
        self._confused.clear()
        return True

    def _observe(self, state: State, entry: Entry) -> None:
        if state.verdict:
            return
        self._shadow(state, entry)
        if isinstance(entry.payload, Vote) and entry.payload.shadow:
            self._busy.add((entry.payload.intent, entry.payload.voter))
            if len(self._busy) > BUSY_MAX:
                self._busy = {one for one in self._busy if one[0] in state.open_actions}
        if self._remembering and entry.kind == "Intent":
            self._before[entry.position] = dict(self.memories)
            if len(self._before) > 2 * len(state.open_actions) + 64:
                self._before = {key: kept for key, kept in self._before.items() if key in state.open_actions}
        for voter in self._remembering:
            if voter.name in self._confused:
                continue
            try:
                with guest():
                    self.memories[voter.name] = voter.observe(self.memories[voter.name], entry)
            except Exception as error:  # a voter's own code; the log goes on, its votes count as failed
                self._confused[voter.name] = f"it could not take in the entry at {entry.position}: {said(error)}"

    def serialised(self) -> dict[str, tuple[BlobRef, bytes]]:
        """Every voter's memory, as a checkpoint carries it."""
        found = {}
        for voter in self._remembering:
            if voter.name in self._confused:
                continue
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
            if policy is not None and asked.issuperset(policy.voters):
                return votes
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
        return await self._judged(voter, intent, entry, seen=seen)

    async def _judged(self, voter: Voter, intent: Intent, entry: LogEntry, *, seen: int) -> Vote:
        env = self.host.env
        began = env.monotonic()
        self.host.working += 1
        try:
            if voter.name in self._confused:
                raise RuntimeError(self._confused[voter.name])
            with guest():
                if voter.quick or is_async(voter):
                    answer: object = voter.check(entry)
                else:
                    async with asyncio.timeout(voter.timeout_s):
                        answer = await env.in_thread(voter.check, entry)
                if inspect.isawaitable(answer):
                    async with asyncio.timeout(voter.timeout_s):
                        answer = await answer
            vote = read_vote(answer, voter.name)
        except TimeoutError:
            vote = self._failed(voter, f"it did not answer within {voter.timeout_s:g} s")
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            vote = self._failed(voter, f"it failed: {said(error)}")
        finally:
            self.host.working -= 1
        return msgspec.structs.replace(
            vote,
            voter=voter.name,
            config=self.configs.get(voter.name, ""),
            arguments_digest=intent.arguments_digest,
            reason=values.printable(vote.reason[:REASON_CHARS_MAX]),
            hint=values.printable(vote.hint[:REASON_CHARS_MAX]),
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
        reason = f"the voter {voter.name!r} failed ({why}), which counts as {voter.on_failure}"
        return Vote(approved=approved, reason=reason)

    # --- decoupled: vote on what the log proposes ---------------------------------------------------------------

    def due(self, state: State) -> list[tuple[Action, Voter]]:
        """The votes that this host owes: undecided actions whose policy wants a voter that lives here."""
        if not state.open_actions or state.halted or state.broken:
            return []
        found: list[tuple[Action, Voter]] = []
        for action in state.undecided():
            if self.agents is not None and action.intent.agent not in self.agents:
                continue
            for name in self._owed(state, action):
                voter = self.voters.get(name) or self._people.get(name)
                if voter is None or name in action.votes or (action.id, voter.name) in self._busy:
                    continue
                if isinstance(voter, HumanVoter) and self.has_told(voter, action.id):
                    continue
                found.append((action, voter))
        return found

    def has_told(self, voter: HumanVoter, action: int) -> bool:
        """Whether people need not be told of an action that waits for them (any more)."""
        return voter.has_told(self.memories[voter.name], action)

    def _owed(self, state: State, action: Action) -> list[str]:
        """Whom to ask about an undecided action now: slow voters only when the fast ones have left it open."""
        policy = state.policy_for(action)
        if policy is None or deciding.repeated(state, action.intent, action.policy):
            return []
        names = deciding.awaited(state, action)
        if any(policy.voters[name].placement == "inline" for name in names):
            names = [name for name in names if policy.voters[name].placement == "inline"]
        return names + voting.shadowed(policy)

    def waits(self, run: int) -> str:
        """Whom a run waits for, if people are all that it waits for, and they have been told ("" if not)."""
        found = waits_for_people(self.host.state, run)
        untold = [
            one.action
            for one in found
            for name in one.voters
            if name in self._people and not self.has_told(self._people[name], one.action)
        ]
        if untold:
            return ""
        return "; ".join(
            f"Action {one.action} ({one.tool}) waits for the approval of "
            + " or ".join("anybody" if who == "*" else who for who in one.approvers)
            for one in found
        )

    async def run(self) -> None:
        """Vote until cancelled."""
        self._live = True
        async with asyncio.TaskGroup() as group:
            while True:
                about = alone(self.agents)
                await self.host.tail.until(lambda state: self._shadows or self.due(state), about=about)
                while self._shadows:
                    group.create_task(self._try(*self._shadows.popleft()))
                for action, voter in self.due(self.host.state):
                    if (action.id, voter.name) not in self._busy:  # a group of people is due once for all of them
                        self._busy.add((action.id, voter.name))
                        told = isinstance(voter, HumanVoter)
                        group.create_task(self._tell(action, voter) if told else self._vote(action, voter))

    async def _tell(self, action: Action, voter: Voter) -> None:
        """Tell people of an action, and then write down that they were told: a crash in between tells them twice."""
        key = (action.id, voter.name)
        waiting = next((one for one in pending(self.host.state) if one.action == action.id), None)
        if waiting is not None and isinstance(voter, HumanVoter):
            failed = await voter.tell(waiting)
            told = f"could not be told: {failed}" if failed else "were told"
            notice = Notice(
                code=ASKED,
                message=f"{', '.join(waiting.approvers)} {told} that action {action.id} waits for them",
                agent=action.intent.agent,
                run=action.intent.run,
                data={"action": action.id, "voter": voter.name, "failed": failed},
            )
            try:
                await self.host.append([self.host.about(action.intent, notice, "voter", voter.name)])
            except AccessRefused:
                raise
            except LogActError:
                await self.host.env.sleep(0.2)
        self._busy.discard(key)
        self.host.tail.wake()

    async def _vote(self, action: Action, voter: Voter) -> None:
        key = (action.id, voter.name)
        try:
            intent = await self.host.full_intent(action)
            vote = await self.ask(voter, intent, seen=action.id - 1, action=action)
            vote = msgspec.structs.replace(vote, intent=action.id)
            entry = self.host.about(intent, vote, "voter", voter.name)
            if not await self._cast(entry, action.id, voter):
                self._busy.discard(key)  # somebody else voted or decided; look again
                self.host.tail.wake()
                return
        except AccessRefused:
            raise
        except LogActError:
            await self.host.env.sleep(0.2)
            self._busy.discard(key)
            self.host.tail.wake()
        else:
            # a vote that took no effect would take none again: not asked a second time in this life
            now = self.host.state.actions.get(action.id)
            if now is None or now.status != "proposed" or voter.name in now.votes:
                self._busy.discard(key)

    async def _cast(self, entry: NewEntry, key: int, voter: Voter) -> bool:
        """Write a vote down. What a voter said is not asked again because others spoke meanwhile."""
        if voter.shadow:
            await self.host.append([entry])
            return True
        once = where(kinds=["Vote", "Commit", "Abort", "Expiry", "Cancel"], actions=[key])
        while True:
            try:
                await self.host.append([entry], unless=once)
                return True
            except ConditionFailed:
                now = self.host.state.actions.get(key)
                if now is None or now.status != "proposed" or voter.name in now.votes:
                    return False

    # --- shadow: slow voters that are tried on live traffic -----------------------------------------------------

    def _shadow(self, state: State, entry: Entry) -> None:
        """Remember an intent for the slow voters in shadow: it may be decided before they have judged it."""
        intent = entry.payload
        policy = state.policy_of(intent.agent) if isinstance(intent, Intent) else None
        if not isinstance(intent, Intent) or policy is None or not self._live:
            return
        for name in voting.shadowed(policy):
            voter = self.voters.get(name)
            mine = self.agents is None or intent.agent in self.agents
            if voter is None or not mine or self._inline(policy, name) or len(self._shadows) >= SHADOWS_MAX:
                continue
            self._busy.add((entry.position, name))
            shown = log_entry(
                intent,
                position=entry.position,
                task=self._task(intent.run),
                memory=self.memories.get(name),
            )
            self._shadows.append((voter, msgspec.structs.replace(shown, timestamp=entry.time_ms)))

    async def _try(self, voter: Voter, entry: LogEntry) -> None:
        """Judge an action in shadow, whatever became of it meanwhile."""
        intent = entry.intent
        self._trying += 1
        try:
            if intent.arguments_blob is not None:
                data = await self.host.log.get_blob(intent.arguments_blob.digest)
                intent = msgspec.structs.replace(intent, arguments=msgspec.json.decode(data))
                entry = msgspec.structs.replace(entry, intent=intent, action=log_entry(intent).action)
            vote = await self._judged(voter, intent, entry, seen=entry.position - 1)
            vote = msgspec.structs.replace(vote, intent=entry.position, shadow=True)
            await self.host.append([self.host.about(intent, vote, "voter", voter.name)])
        except LogActError:
            return  # a vote that does not count is not worth a second try
        finally:
            self._trying -= 1
            self.host.tail.wake()

    async def tried(self) -> None:
        """Give slow voters in shadow a moment for what they have begun to judge, before the process goes away."""
        await self.host.tail.until(lambda _: not self._shadows and not self._trying, SHADOW_GRACE_S)


def counted(votes: Iterable[Vote]) -> dict[str, Vote]:
    """The votes that count, by voter, in order."""
    return {vote.voter: vote for vote in votes if not vote.shadow}


def is_async(voter: Voter) -> bool:
    """Whether a voter's check gives an awaitable rather than taking its time itself."""
    check = voter.function if isinstance(voter, FunctionVoter) else voter.check
    return inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(getattr(check, "__call__", None))  # noqa: B004


def scope_of(voter: Voter, intent: Intent) -> str:
    """The scope of a voter's votes on an intent, as entries name it."""
    if not voter.scope or voter.scope == "log":
        return voter.scope
    value = {"agent": intent.agent, "run": intent.run, "tool": intent.tool}[voter.scope]
    return f"{voter.scope}:{value}"
