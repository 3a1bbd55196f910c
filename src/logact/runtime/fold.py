"""The fold that tails share: a log's state at one position, what is counted beside it, and who looks on.

All whole agents that one process plays on one log object share one, so that each entry is read and applied once,
however many they are. It owns the order in which onlookers see an entry; it never appends and never judges.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from logact import codec
from logact import env as environment
from logact.core import machine
from logact.core.state import State
from logact.entry import (
    Abort,
    BlobRef,
    Checkpoint,
    Commit,
    Compaction,
    Entry,
    Inference,
    Intent,
    Result,
    Started,
    Vote,
    position_of,
)
from logact.errors import LogCorrupt, LogError, LogTrimmed
from logact.logs.base import READ_RECORDS_MAX, SharedLog
from logact.logs.verify import first_kept, said

if TYPE_CHECKING:
    from logact.runtime.tail import Tail

Ready = Callable[[State], object]
Observer = Callable[[State, Entry], None]
_Waiter = tuple[Ready, asyncio.Future[None]]

EVERYBODY = ""
"""Whom an entry concerns that is about no agent alone."""


class Onlooker:
    """An observer of a tail: what it looks at (all kinds where none is named), and whom (everybody, or one agent)."""

    __slots__ = ("about", "kinds", "observer", "tail")

    def __init__(self, tail: Tail, observer: Observer, kinds: frozenset[str], about: str) -> None:
        self.tail = tail
        self.observer = observer
        self.kinds = kinds
        self.about = about

    def sees(self, kind: str) -> bool:
        """Whether entries of a kind are shown to it."""
        return not self.kinds or kind in self.kinds


class Companion(Protocol):
    """What is counted beside the state, and is the same for everybody who reads the log."""

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry; ``state.verdict`` is that entry's."""

    async def restore(self, checkpoint: Checkpoint | None) -> bool:
        """Go on from a checkpoint (None: from the beginning). False if it cannot."""


class Fold:
    """One state of one log, kept by the tails that look on; it ends with the last of them."""

    def __init__(self, log: SharedLog, *, keep: bool = False) -> None:
        self.log = log
        self.env = environment.current()
        self.state: State = machine.initial(keep=keep)
        self.record = 0
        self.records_read = 0
        self.entries_applied = 0
        self.bytes_applied = 0
        self.moves = False  # the last entry says that the log goes on elsewhere
        self.problem: LogError | None = None
        self.failing_since: float | None = None
        self.followed = False
        self.companions: dict[str, Companion] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tails: list[Tail] = []
        self._onlookers: list[Onlooker] = []
        self._shown: dict[str, dict[str, list[Onlooker]]] = {}  # by kind and by whom they look at; made when needed
        self._waiting: dict[str, dict[Tail, list[_Waiter]]] = {}  # by what they wait about, and whose they are
        self._touched: dict[str, None] = {}
        self._idle: list[asyncio.Future[None]] = []

    # --- who looks on --------------------------------------------------------------------------------------------

    @classmethod
    def shared(cls, log: SharedLog) -> Fold | None:
        """The fold that others of this process, on this event loop, keep of a log; None if nobody does."""
        held = log.fold
        found = held() if held is not None else None
        if not isinstance(found, Fold) or found.env is not environment.current():
            return None
        if not found._tails:
            return None  # what nobody looks at any more is as old as it was then
        return found if found._loop is asyncio.get_running_loop() else None

    def share(self) -> None:
        """Others may join from now on."""
        self._loop = asyncio.get_running_loop()
        self.log.fold = weakref.ref(self)

    def add(self, tail: Tail) -> None:
        """A tail looks on, behind those that do already."""
        self._tails.append(tail)
        for onlooker in tail.onlookers:
            self.show(onlooker)

    def remove(self, tail: Tail) -> None:
        """A tail looks on no more."""
        self._tails = [one for one in self._tails if one is not tail]
        self._onlookers = [one for one in self._onlookers if one.tail is not tail]
        self._shown.clear()

    def show(self, onlooker: Onlooker) -> None:
        """An onlooker of a tail sees what comes, behind the others."""
        self._onlookers.append(onlooker)
        for kind, shown in self._shown.items():
            if onlooker.sees(kind):
                shown[onlooker.about] = [*shown.get(onlooker.about, ()), onlooker]  # the old list may be gone through

    def hide(self, onlooker: Onlooker) -> None:
        """An onlooker sees no more."""
        self._onlookers = [one for one in self._onlookers if one is not onlooker]
        for kind, shown in self._shown.items():
            if onlooker.sees(kind):
                shown[onlooker.about] = [one for one in shown.get(onlooker.about, ()) if one is not onlooker]

    def turn(self, what: str) -> asyncio.Lock:
        """Taken by whoever does something that those who share the fold do one after the other."""
        return self._turns.setdefault(what, asyncio.Lock())

    def here(self) -> Checkpoint:
        """The checkpoint that it is for who joins: of its own position, with no voter's memory in it."""
        return Checkpoint(upto=self.state.position, chain=self.state.chain, state=BlobRef(digest="", size=0))

    # --- entries -------------------------------------------------------------------------------------------------

    def apply(self, entries: list[Entry], record: int) -> None:
        """Apply one record. What an onlooker raises is kept for that one, and stops nobody else."""
        for entry in entries:
            if entry.position <= self.state.position:
                continue
            self.state = machine.apply(self.state, entry)
            self.moves = entry.kind == "Seal"
            self.bytes_applied += entry.size
            about = _concerned(self.state, entry)
            self._touched[about] = None
            for companion in self.companions.values():
                companion.observe(self.state, entry)
            shown = self._shown.get(entry.kind) or self._those_who_see(entry.kind)
            for group in (shown[EVERYBODY], shown.get(about, ())) if about else [*shown.values()]:
                for onlooker in group:
                    try:
                        onlooker.observer(self.state, entry)
                    except Exception as error:
                        onlooker.tail.failed = onlooker.tail.failed or error
                        self.call()
        self.record = record
        self.records_read += 1
        self.entries_applied += len(entries)

    def _those_who_see(self, kind: str) -> dict[str, list[Onlooker]]:
        shown = self._shown[kind] = {EVERYBODY: []}
        for one in self._onlookers:
            if one.sees(kind):
                shown.setdefault(one.about, []).append(one)
        return shown

    async def catch_up(self) -> None:
        """Apply everything up to the present tail, and wake whoever waited for it."""
        while True:
            try:
                page = await self.log.engine.read(self.record, READ_RECORDS_MAX)
            except LogTrimmed as error:
                if self.record == 0 and self.state.position == 0:
                    raise LogTrimmed(
                        "The log's beginning was trimmed and its checkpoint cannot be read",
                        received=f"a log that begins at position {position_of(await first_kept(self.log) + 1)}",
                        expected="a checkpoint that can be read after that",
                        todo="run `logact log verify`",
                    ) from error
                raise
            for stored in page.records:
                if stored.record > self.record:
                    problem = _damage(stored.body)
                    self.apply(self.log.decode(stored.body, stored.record), stored.record)
                    if problem and not self.state.broken:
                        self.state.broken = f"position {position_of(stored.record)}: {problem}"
            if self.moves:
                moved = await self.log.move_on()
                self.moves = False
                if moved:
                    continue  # the log goes on elsewhere
            if page.end or not page.records:
                break  # a short page alone is no end: an engine also limits its bytes
        self.wake()

    # --- waiting -------------------------------------------------------------------------------------------------

    def wait(self, tail: Tail, ready: Ready, about: str) -> asyncio.Future[None]:
        """A future that is set once ``ready(state)`` is true; it is asked after entries that concern ``about``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(about, {}).setdefault(tail, []).append((ready, future))
        tail.abouts[about] = None
        return future

    def wake(self, tail: Tail | None = None) -> None:
        """Look at what is waited for: by those whom the entries since the last look concern, or by one tail."""
        if tail is not None:
            for about in tail.abouts:
                self._ask(about, tail)
            return
        touched, self._touched = self._touched, {}
        for about in [*self._waiting] if EVERYBODY in touched else [EVERYBODY, *touched]:
            for owner in [*self._waiting.get(about, ())]:
                self._ask(about, owner)

    def _ask(self, about: str, tail: Tail) -> None:
        """Ask the waiters of a tail that wait about the same whether what they wait for is true."""
        waiting = self._waiting.get(about, {}).pop(tail, [])
        still = []
        for ready, future in waiting:
            if future.done():
                continue
            if ready(self.state):
                future.set_result(None)
            else:
                still.append((ready, future))
        if still:
            others = self._waiting.setdefault(about, {})
            others[tail] = still + others.get(tail, [])
        elif about in self._waiting and not self._waiting[about]:
            del self._waiting[about]

    async def idle(self) -> None:
        """Wait until nobody follows any more, or an onlooker has something to raise."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        await future

    def call(self) -> None:
        """End the wait of those who are idle."""
        idle, self._idle = self._idle, []
        for future in idle:
            if not future.done():
                future.set_result(None)


def _damage(body: bytes) -> str:
    """What is wrong with a record's own digests ("" if nothing). Damage stops acting; it does not stop reading."""
    try:
        codec.check_record(body)
    except LogCorrupt as error:
        return said(error)
    return ""


def _concerned(state: State, entry: Entry) -> str:
    """The agent whose parts alone have something to do after an entry; ``EVERYBODY`` where that cannot be told."""
    said = entry.payload
    if isinstance(said, Intent):
        return said.agent
    if isinstance(said, _OF_ACTIONS):
        action = state.actions.get(said.intent)
        return action.intent.agent if action is not None else EVERYBODY
    if isinstance(said, _OF_RUNS):
        run = state.runs.get(said.run)
        return run.agent if run is not None else EVERYBODY
    return EVERYBODY


_OF_ACTIONS = (Vote, Commit, Abort, Started, Result)
_OF_RUNS = (Inference, Compaction)
