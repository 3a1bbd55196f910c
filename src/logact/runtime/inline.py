"""The inline form: one record with intent, votes, decision and start, where one process plays all parts.

The record is conditional on nothing relevant having come since the fold that made it (policy, control, fence,
another intent of this run, anything in a scope that a vote depended on). A lost race is retried on the new fold.
What it cannot settle at once (a slow voter, a pause) is left to the parts that tail the log.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from logact.core import deciding, executing
from logact.core.settling import ANSWER
from logact.core.state import Action
from logact.entry import Abort, Cancel, Commit, Intent, NewEntry, Started, Vote, own
from logact.logs.base import Clause, Filter
from logact.runtime.executor import Executor
from logact.runtime.host import Host
from logact.runtime.voter_host import VoterHost, counted

SCOPED_KINDS = ("Intent", "Commit", "Abort", "Expiry", "Cancel", "Started", "Result", "Undone", "Recovery")


class Proposed(NamedTuple):
    """What came of a proposal: the action's id, and whether it is started and now this caller's to run."""

    action: int
    started: bool


class Inline:
    """Proposes actions together with everything that this process can already say about them."""

    def __init__(self, host: Host, voters: VoterHost, executor: Executor) -> None:
        self.host = host
        self.voters = voters
        self.executor = executor

    async def propose(self, intent: Intent, *, start: bool = True, key: str = "") -> Proposed:
        """Append an intent with its votes, and if they suffice its decision and its start.

        Raises ConditionFailed if something relevant came in between, and KeyConflict if something else stands under
        the key; fold again and look what is next.
        """
        host, state = self.host, self.host.state
        seen = state.position
        policy = state.policy_of(intent.agent)
        run = state.runs.get(intent.run)
        draft = Action(id=own(0), intent=intent, policy=state.policy_position(intent.agent))
        votes: list[Vote] = []
        decision: Commit | Abort | None
        if deciding.repeated(state, intent, draft.policy):
            decision = deciding.refusal(state, draft)
        else:
            votes = await self.voters.ask_inline(policy, intent, run.title if run else "")
            decision = deciding.judge(policy, draft, counted(votes), host.env.wall_ms())
        now_ms = host.env.wall_ms()
        entries = [host.about(intent, intent, "driver", host.agent)]
        for vote in votes:
            bound = msgspec.structs.replace(vote, intent=own(0))
            entries.append(host.about(intent, bound, "voter", vote.voter))
        started = False
        if decision is not None:
            entries.append(host.about(intent, decision, "decider", host.agent))
        if isinstance(decision, Commit) and start and not self.executor.leaving:
            entries += self._start(draft, decision, now_ms)
            started = type(entries[-1].payload) is Started
        unless = self._unless(intent, votes)
        # whoever follows the log may fold the record before this append returns: the executor's own loop must not
        # take the action then, or the calls of a turn would run in order or together as chance has it
        self.executor.proposing += 1
        mine = False
        try:
            done = await host.append(entries, unless=unless, after=seen, key=key)
            mine = (
                started
                and done.position not in self.executor.running
                and executing.took_effect(host.state, done.position, 1, host.incarnation)
            )
            if mine:
                self.executor.running[done.position] = None
        finally:
            self.executor.proposing -= 1
            if not mine:
                host.tail.wake()
        return Proposed(done.position, mine)

    def _start(self, draft: Action, commit: Commit, now_ms: int) -> list[NewEntry]:
        """What follows a commit in the same record: the start; for an answer its output; in a dry run neither."""
        host, state, intent = self.host, self.host.state, draft.intent
        run = state.runs.get(intent.run)
        if run is not None and run.dry_run and intent.tool != ANSWER and intent.effect != "read":
            taken_back = Cancel(intent=draft.id, reason="dry run: it was approved, and not carried out")
            return [host.about(intent, taken_back, "client", host.agent)]
        approved = Action(id=draft.id, intent=intent, policy=draft.policy, status="validated")
        approved.start_by_ms = commit.start_by_ms
        if executing.may_start(state, approved, host.incarnation, now_ms):
            return []
        if intent.tool == ANSWER:
            return self.executor.answer_entries(draft.id, intent)
        return [host.about(intent, executing.start(state, approved, host.lease_ms), "executor", host.agent)]

    def _unless(self, intent: Intent, votes: list[Vote]) -> Filter:
        clauses = [
            Clause(kinds=("Policy", "Control", "Fence", "Fork", "Cancel")),
            Clause(kinds=("Intent", "Inference", "Output"), runs=(intent.run,)) if intent.run > 0 else None,
        ]
        for scope in {vote.scope: None for vote in votes if vote.scope}:
            kind, _, value = scope.partition(":")
            clauses.append(
                Clause(
                    kinds=SCOPED_KINDS,
                    agents=(value,) if kind == "agent" else (),
                    tools=(value,) if kind == "tool" else (),
                    runs=(int(value),) if kind == "run" else (),
                )
            )
        return Filter(tuple(clause for clause in clauses if clause is not None))
