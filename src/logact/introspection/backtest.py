"""Replays logs under another policy: which actions would have gone the other way, and how each of them really ended.

Votes come from voters that can judge by the log alone (rules, budgets, provenance), each with the memory that it
would have had, and from the votes that stand in the log (of models and people, also in shadow). Whoever cannot be
asked again leaves an action open, and the report says so. Nothing is appended, nothing acts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from logact import codec
from logact import env as environment
from logact.core import voting
from logact.core.settling import ANSWER
from logact.core.state import Action, State
from logact.core.views import LogEntry, log_entry
from logact.entry import Abort, Cancel, Commit, Entry, Expiry, Finding, Intent, Policy, Vote
from logact.env_guest import guest, said
from logact.introspection.history import History, history
from logact.logs.base import SharedLog
from logact.voters.base import Voter, read_vote

REGRETTED = "regretted"
"""The code of a finding that says that an action should not have been approved."""

Before = Literal["approved", "rejected", "undecided"]
After = Literal["approve", "reject", "wait"]
_SAME: dict[str, str] = {"approved": "approve", "rejected": "reject"}


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One action: what was decided, what the other policy comes to, and how it really ended.

    ``ended``: ``fine``, ``failed``, ``undone``, ``regretted``, ``in doubt``, ``did not run``, or ``open``.
    ``waits_for`` names the voters that nobody could ask again.
    """

    log: str
    action: int
    agent: str
    tool: str
    arguments: dict[str, Any]
    before: Before
    after: After
    ended: str
    by: str = ""
    reason: str = ""
    said: str = ""
    waits_for: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether it would have gone another way."""
        return self.before != "undecided" and _SAME[self.before] != self.after


class Backtest(msgspec.Struct, kw_only=True):
    """What a policy would have done differently on some logs."""

    judged: list[Judged] = []

    @property
    def changes(self) -> list[Judged]:
        """The actions that would have gone another way, in order."""
        return [one for one in self.judged if one.changed]

    def table(self) -> dict[tuple[str, str, str], int]:
        """How many actions went which way: (before, after, how it ended)."""
        return dict(sorted(Counter((one.before, one.after, one.ended) for one in self.judged).items()))


async def backtest(
    logs: Iterable[SharedLog],
    voters: Sequence[Voter],
    policy: Policy,
    *,
    agent: str = "",
    ask: bool = False,
    answers: bool = True,
) -> Backtest:
    """Judge every action of these logs anew under ``policy``. ``agent`` limits it to one agent's actions.

    With ``ask`` models are asked where they left no vote (that costs money). ``answers=False`` leaves answers out.
    """
    found = Backtest()
    for log in logs:
        replay = _Replay(log, voters, policy, ask=ask)
        told = await history(log, observer=replay.observe)
        regretted = replay.regretted
        for key in sorted(replay.moments):
            action = told.state.actions.get(key)
            if action is None or (agent and action.intent.agent != agent):
                continue
            if action.intent.tool == ANSWER and not answers:
                continue
            found.judged.append(await replay.judge(told, action, regretted))
    return found


class _Past(environment.Env):
    """The environment at a moment of the past, for voters that ask what time it is."""

    def __init__(self, now_ms: int) -> None:
        super().__init__()
        self.now_ms = now_ms

    def wall_ms(self) -> int:
        return self.now_ms


class _Replay:
    """One log, told to voters from the beginning."""

    def __init__(self, log: SharedLog, voters: Sequence[Voter], policy: Policy, *, ask: bool) -> None:
        self.log = log
        self.policy = policy
        self.voters: dict[str, Voter] = {}
        for voter in voters:
            past = voter.for_replay() or (voter if ask and voter.kind == "semantic" else None)
            if past is not None:
                self.voters[voter.name] = past
        self.configs = {voter.name: codec.digest_of(voter.config()) for voter in voters}
        self.memories: dict[str, Any] = {name: voter.initial() for name, voter in self.voters.items()}
        self.moments: dict[int, tuple[Entry, dict[str, Any]]] = {}  # by action: its intent, and what voters knew
        self.regretted: set[int] = set()

    def observe(self, state: State, entry: Entry) -> None:
        if state.verdict:
            return
        if entry.kind == "Intent":
            self.moments[entry.position] = (entry, dict(self.memories))
        if isinstance(entry.payload, Finding) and entry.payload.code == REGRETTED:
            self.regretted.update(entry.payload.cites)
        for name, voter in self.voters.items():
            self.memories[name] = voter.observe(self.memories[name], entry)

    async def judge(self, told: History, action: Action, regretted: set[int]) -> Judged:
        entry, memories = self.moments[action.id]
        intent = entry.payload
        if isinstance(intent, Intent) and intent.arguments_blob is not None:
            data = await self.log.get_blob(intent.arguments_blob.digest)
            intent = msgspec.structs.replace(intent, arguments=msgspec.json.decode(data))
        if not isinstance(intent, Intent):
            intent = action.intent
        run = told.state.runs.get(intent.run)
        shown = msgspec.structs.replace(
            log_entry(intent, position=action.id, task=run.title if run is not None else ""), timestamp=entry.time_ms
        )
        recorded = _recorded(told, action, self.configs)
        votes: dict[str, Vote] = {}
        waiting: list[str] = []
        while True:
            names = voting.wanted(self.policy, intent.effect, votes, intent.tool)
            waiting = [name for name in names if name not in recorded and name not in self.voters]
            able = [name for name in names if name not in waiting]
            if not able:
                break
            for name in able:
                voter = self.voters.get(name)
                votes[name] = recorded[name] if voter is None else await self._ask(voter, shown, votes, memories)
        verdict = voting.evaluate(self.policy, intent.effect, votes, intent.tool)
        before, said = _decision(told, action)
        return Judged(
            log=self.log.url,
            action=action.id,
            agent=intent.agent,
            tool=intent.tool,
            arguments=intent.arguments,
            before=before,
            after=verdict.outcome if verdict.outcome != "abstain" else "reject",
            ended=_ended(action, regretted),
            by=verdict.voter,
            reason=verdict.reason,
            said=said,
            waits_for=tuple(waiting) if verdict.outcome == "wait" else (),
        )

    async def _ask(
        self, voter: Voter, shown: LogEntry, votes: Mapping[str, Vote], memories: Mapping[str, Any]
    ) -> Vote:
        entry = msgspec.structs.replace(shown, votes=dict(votes), memory=memories.get(voter.name))
        token = environment.use(_Past(shown.timestamp)) if voter.kind != "semantic" else None
        try:
            with guest():
                answer = voter.check(entry)
                if inspect.isawaitable(answer):
                    async with asyncio.timeout(voter.timeout_s):
                        answer = await answer
            return read_vote(answer, voter.name)
        except Exception as error:
            approved = {"reject": False, "abstain": None, "approve": True}[voter.on_failure]
            return Vote(approved=approved, reason=f"the voter failed: {said(error)}")
        finally:
            if token is not None:
                token.var.reset(token)


def _recorded(told: History, action: Action, configs: Mapping[str, str]) -> dict[str, Vote]:
    """The votes in the log, by voter, also those in shadow; not those by another configuration of the voter."""
    found: dict[str, Vote] = {}
    for entry in told.stories.get(action.id, ()):
        vote = entry.payload
        if not isinstance(vote, Vote) or (entry.position in told.ineffective and not vote.shadow):
            continue
        if vote.config and configs.get(vote.voter, vote.config) != vote.config:
            continue
        found.setdefault(vote.voter, vote)
    return found


def _decision(told: History, action: Action) -> tuple[Before, str]:
    for entry in told.effective(action.id):
        payload = entry.payload
        if isinstance(payload, Commit):
            return "approved", payload.reason
        if isinstance(payload, Abort | Expiry):
            return "rejected", payload.reason
        if isinstance(payload, Cancel):
            return "undecided", payload.reason
    return "undecided", ""


def _ended(action: Action, regretted: set[int]) -> str:
    if action.conflict or action.id in regretted:
        return "regretted"
    if action.status == "executed":
        return "fine"
    if action.status in ("in_doubt", "superseded"):
        return "in doubt"
    if action.is_open:
        return "open"
    if action.status == "undone":
        return "undone"
    return "failed" if action.attempts else "did not run"
