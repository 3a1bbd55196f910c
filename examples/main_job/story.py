"""What a log tells: each action's life in one line, who lived when, and how much was written."""

from __future__ import annotations

from collections import Counter
from textwrap import wrap
from typing import Any

import msgspec

from logact.core import machine
from logact.core.state import State
from logact.entry import Abort, Commit, Entry, Expiry, Heartbeat, Intent, Recovery, Result, Started, Vote
from logact.logs.base import SharedLog

COLUMNS = 80
LEGEND = """\
P proposed   V vote for   X vote against   C committed   A aborted
S1 started by life 1   R result   E error   D in doubt: how it was settled"""


class Life(msgspec.Struct, kw_only=True):
    """One action: its tool, what it was about, and the letters of its life."""

    id: int
    tool: str
    about: str
    letters: list[str]
    status: str = ""
    reason: str = ""


class Story(msgspec.Struct, kw_only=True):
    """Everything that a reader wants to know of a run. ``counts`` counts effective entries by kind."""

    actions: dict[int, Life] = {}
    pids: dict[int, int] = {}
    """Which life a process was, where its parent told."""
    lives: dict[str, int] = {}
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    entries: int = 0
    records: int = 0
    ignored: int = 0
    settled: Counter[str] = msgspec.field(default_factory=Counter)
    votes_against: int = 0
    attempts: Counter[int] = msgspec.field(default_factory=Counter)
    state: State = msgspec.field(default_factory=lambda: machine.initial(keep=True))

    def add(self, entry: Entry) -> str:
        """Take in one more entry; a line for people if it is worth one, else ""."""
        self.entries += 1
        self.records += entry.position % 1000 == 0
        self.state = machine.apply(self.state, entry)
        if self.state.verdict:
            self.ignored += 1
            return ""
        self.counts[entry.kind] += 1
        payload = entry.payload
        if isinstance(payload, Heartbeat) and not payload.leaving:
            life = self.pids.get(payload.pid, len(self.lives) + 1)
            self.lives.setdefault(entry.author.incarnation, life)
        if isinstance(payload, Intent):
            about = about_of(payload.arguments)
            self.actions[entry.position] = Life(id=entry.position, tool=payload.tool, about=about, letters=["P"])
        found = self.actions.get(getattr(payload, "intent", 0))
        return self._follow(found, entry) if found is not None else ""

    def _follow(self, action: Life, entry: Entry) -> str:
        payload = entry.payload
        if isinstance(payload, Vote):
            action.letters.append("V" if payload.approved else "X")
            self.votes_against += payload.approved is False
        elif isinstance(payload, Commit):
            action.letters.append("C")
        elif isinstance(payload, (Abort, Expiry)):
            action.letters.append("A")
            action.reason = payload.reason
            return f"REFUSED {action.tool}: {payload.reason}"
        elif isinstance(payload, Started):
            self.attempts[action.id] += 1
            action.letters.append(f"S{self.life_of(entry)}")
        elif isinstance(payload, Result):
            action.letters.append("E" if payload.error is not None else "R")
        elif isinstance(payload, Recovery):
            self.settled[payload.settlement] += 1
            action.letters.append(f"D:{payload.settlement}({payload.evidence})")
            what = {"restart": "started again", "happened": "it had happened", "not_happened": "it had not happened"}
            how = what.get(payload.settlement, payload.settlement)
            return f"in doubt: {action.tool} {cut(action.about, 18)}: {how} ({payload.evidence})"
        return ""

    def life_of(self, entry: Entry) -> int:
        """Which life of the agent wrote an entry, counted from 1 (0: somebody else)."""
        return self.lives.get(entry.author.incarnation, 0)

    def lines(self) -> list[str]:
        """One line for each action."""
        found = []
        for key, action in self.actions.items():
            state = self.state.actions.get(key)
            action.status = state.status if state is not None else ""
            head = f"{action.id:>7} {action.tool:<14.14} {cut(action.about, 27):<27} "
            found += wrap(" ".join(action.letters), COLUMNS, initial_indent=head, subsequent_indent=" " * len(head))
        return found

    def under_way(self) -> str:
        """The action that was started and has no result yet ("" if none)."""
        for action in self.state.unfinished():
            known = self.actions.get(action.id)
            return f"{action.intent.tool} {known.about if known else ''}"
        return ""


async def read_story(log: SharedLog, pids: dict[int, int]) -> Story:
    """The story of a log from its beginning to now."""
    story = Story(pids=pids)
    async for entry in log.read():
        story.add(entry)
    return story


def about_of(arguments: dict[str, Any]) -> str:
    """The argument that says most."""
    for name in ("source", "command", "target", "path", "text"):
        if arguments.get(name):
            return " ".join(str(arguments[name]).split())
    return ""


def cut(text: str, width: int) -> str:
    """A text in so many columns: what is too long loses its beginning, since ends of paths say more."""
    return text if len(text) <= width else "…" + text[-width + 1 :]
