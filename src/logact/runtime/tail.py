"""The tail: one reader's hand on a fold of a log; keeps it up to date, and waits for something to become true.

It owns where reading begins, and what its reader is shown. It never appends and never judges; a read error is
retried and then raised, never taken for an absence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from logact import env as environment
from logact.core.state import State
from logact.entry import Checkpoint, end_of, position_of, record_of
from logact.errors import AccessRefused, LogCorrupt, LogError, LogTrimmed, ReadFailed
from logact.logs.base import FOLLOW_WAIT_S, SharedLog, where
from logact.logs.cancelling import cancellable
from logact.logs.checkpoints import checked_state, checkpoint_in
from logact.logs.verify import first_kept
from logact.runtime.fold import Companion, Fold, Observer, Onlooker

READ_RETRY_S_MAX = 30.0
"""How long a follower repeats a failing read before it gives up."""

Condition = Callable[[Mapping[str, Companion]], bool]
Restorer = Callable[[Checkpoint | None], Awaitable[bool]]

CHECKPOINTS_TRIED_MAX = 20


class Tail:
    """One reader of one log's fold. ``start`` reads to the present; ``follow`` keeps it there.

    ``shared``: it keeps one fold together with the other such tails of this log object. Who needs no history joins
    where they are; who does (a voter that remembers) reads it by itself, and joins when it is there.
    """

    def __init__(
        self, log: SharedLog, *, keep: bool = False, from_checkpoint: bool = True, shared: bool = False
    ) -> None:
        self.log = log
        self.env = environment.current()
        self.keep = keep
        self.from_checkpoint = from_checkpoint and not keep
        self.shared = shared and not keep
        self.checkpoint: Checkpoint | None = None
        self.joined = False  # it began where others were
        self._fold = Fold(log, keep=keep)
        self.failed: Exception | None = None  # what an observer of this tail raised
        self.onlookers: list[Onlooker] = []
        self.abouts: dict[str, None] = {}  # what was ever waited about here
        self._restorers: list[Restorer] = []
        self._conditions: list[Condition] = []
        self._fold.add(self)

    @property
    def state(self) -> State:
        """The fold as far as it was read."""
        return self._fold.state

    @state.setter
    def state(self, state: State) -> None:
        self._fold.state = state

    @property
    def records_read(self) -> int:
        """How many records the fold took in."""
        return self._fold.records_read

    @property
    def entries_applied(self) -> int:
        """How many entries the fold took in."""
        return self._fold.entries_applied

    @property
    def problem(self) -> LogError | None:
        """Why the log cannot be read now; None if it can."""
        return self._fold.problem

    @property
    def whole(self) -> bool:
        """Whether this tail's observers are shown the log from its beginning."""
        return self.checkpoint is None and not self.joined

    def observe(self, observer: Observer, kinds: Iterable[str] = (), *, about: str = "") -> None:
        """Call ``observer(state, entry)`` after each entry that is applied (of these kinds, if any are named; but for
        those that concern another agent than ``about`` alone). ``state.verdict`` is that entry's. What it raises is
        raised where this tail is read."""
        onlooker = Onlooker(self, observer, frozenset(kinds), about)
        self.onlookers.append(onlooker)
        self._fold.show(onlooker)

    def unobserve(self, observer: Observer) -> None:
        """Stop calling an observer."""
        onlooker = next(one for one in self.onlookers if one.observer == observer)
        self.onlookers.remove(onlooker)
        self._fold.hide(onlooker)

    def restore(self, restorer: Restorer) -> None:
        """Ask ``restorer(checkpoint)`` before a checkpoint is used; if it says False, replay starts earlier.

        ``restorer(None)`` says that it is not used after all: what it set back has to go back to the beginning.
        """
        self._restorers.append(restorer)

    def joins_if(self, condition: Condition) -> None:
        """Join others only if ``condition(companions)`` of their fold is true; else read what there is first."""
        self._conditions.append(condition)

    def beside(self, name: str, companion: Companion) -> None:
        """Count something beside the state. Tails that share a fold share what has one name: the first of it."""
        self._fold.companions.setdefault(name, companion)

    def counted(self, name: str) -> Any:
        """What is counted beside the state under a name."""
        return self._fold.companions[name]

    def turn(self, what: str) -> asyncio.Lock:
        """Taken by whoever does something that those who share a fold do one after the other."""
        return self._fold.turn(what)

    @property
    def bytes_applied(self) -> int:
        """How many bytes of entries the fold took in."""
        return self._fold.bytes_applied

    # --- reading -------------------------------------------------------------------------------------------------

    async def start(self) -> State:
        """Read from the last usable checkpoint (or the beginning) to the present tail."""
        await self.log.open()
        self.state.log = self.log.log_id
        if self.shared and await self._join():
            return self.state
        if self.from_checkpoint:
            await self._load_checkpoint()
        await self.catch_up()
        if self.shared:
            await self._share()
        return self.state

    async def _join(self) -> bool:
        """Look on at what others keep, if nothing here needs what came before. Whether it is so."""
        fold = Fold.shared(self.log)
        if fold is None or not fold.companions.keys() >= self._fold.companions.keys():
            return False
        try:
            await fold.catch_up()
        except LogError:
            return False  # an own reading says what is wrong
        can = all(condition(fold.companions) for condition in self._conditions)
        if not can or not all([await restorer(fold.here()) for restorer in self._restorers]):
            for restorer in self._restorers:
                await restorer(None)
            return False
        self._move_to(fold)
        self.joined = True
        return True

    async def _share(self) -> None:
        """Give up an own fold for the one that others keep, once both are at one record; or offer it to others."""
        own = self._fold
        while (fold := Fold.shared(self.log)) is not None and fold is not own:
            if fold.record == own.record:
                for name, companion in own.companions.items():
                    fold.companions.setdefault(name, companion)
                self._move_to(fold)
                return
            await (fold if fold.record < own.record else own).catch_up()
        own.share()

    def _move_to(self, fold: Fold) -> None:
        self._fold.remove(self)
        self._fold = fold
        fold.add(self)

    def leave(self) -> None:
        """Look on no more: what others go on reading is not shown here."""
        self._fold.remove(self)

    async def _load_checkpoint(self) -> None:
        """Start from the last checkpoint whose state is there, readable and of this log; else from the beginning.

        The last entry that calls itself a checkpoint may be none (anybody may have written it), so earlier ones are
        tried too.
        """
        last = await self.log.engine.last_checkpoint()
        if not last or await self._load_from(last):
            return
        earlier: list[int] = []
        kept = end_of(await first_kept(self.log))
        before = self.log.read(kept, upto=position_of(last) - 1, matching=where(kinds=["Checkpoint"]))
        earlier += [record_of(entry.position) async for entry in before]
        for record in sorted(set(earlier), reverse=True)[:CHECKPOINTS_TRIED_MAX]:
            if await self._load_from(record):
                return

    async def _load_from(self, record: int) -> bool:
        """Start from the checkpoint in this record. False, and nothing changed, if it cannot be used."""
        restorers = [*(one.restore for one in self._fold.companions.values()), *self._restorers]
        records, _ = await self.log.read_records(position_of(record - 1), limit=1)
        for entry in (entry for batch in records for entry in batch):
            payload = checkpoint_in(entry)
            if payload is None:
                continue
            try:
                state = await checked_state(self.log, payload)
                if state is None:
                    continue
                if all([await restorer(payload) for restorer in restorers]):
                    self.state, self.checkpoint = state, payload
                    self._fold.record = record_of(payload.upto)
                    return True
            except (LogCorrupt, LogError):
                pass  # a damaged checkpoint costs time, never correctness
            for restorer in restorers:
                await restorer(None)
        return False

    async def catch_up(self) -> State:
        """Apply everything up to the present tail. Raises what an observer of this tail raised."""
        await self._fold.catch_up()
        self._raise_failed()
        return self.state

    def _raise_failed(self) -> None:
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed

    async def check_not_behind(self) -> None:
        """Raise LogCorrupt if the log lacks what this process has read: it was put back from an old copy."""
        tail = await self.log.engine.tail()
        if tail < self._fold.record:
            self.state.broken = (
                self.state.broken or f"the log ends at record {tail}, but {self._fold.record} was read before"
            )
            raise LogCorrupt(
                "The log went back: it lost entries that this process has read",
                received=f"a tail at record {tail}",
                expected=f"at least {self._fold.record}",
                todo="run `logact log verify`, and look where the newer copy is",
            )

    def apply_own(self, body: bytes, position: int) -> bool:
        """Apply a record that this process just appended, if nothing lies between; saves reading it back."""
        record = record_of(position)
        if record <= self._fold.record:
            return True
        if not self.log.engine.follows(record, self._fold.record):
            return False
        self._fold.apply(self.log.decode(body, record), record)
        self._fold.wake()
        self._raise_failed()
        return True

    # --- following -----------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Keep the fold at the present until cancelled. Raises the read error that lasted too long.

        Of the tails that share a fold one follows; when it stops, another one goes on.
        """
        while True:
            self._raise_failed()
            fold = self._fold
            if fold.followed:
                await fold.idle()
                continue
            fold.followed = True
            try:
                await self._lead(fold)
            finally:
                fold.followed = False
                fold.call()

    async def _lead(self, fold: Fold) -> None:
        pause_s = 0.05
        while self.failed is None:
            try:
                after = fold.record
                await cancellable(self.log.engine.wait(after, FOLLOW_WAIT_S))
                if fold.record > after and self.log.engine.hint() <= fold.record:
                    continue  # it was this process's own record, and is applied already
                await fold.catch_up()
                fold.failing_since, pause_s, fold.problem = None, 0.05, None
            except (LogCorrupt, LogTrimmed, AccessRefused):
                raise  # another try would fare no better
            except LogError as error:
                fold.problem = error
                now = self.env.monotonic()
                fold.failing_since = now if fold.failing_since is None else fold.failing_since
                if now - fold.failing_since > READ_RETRY_S_MAX:
                    raise ReadFailed("The log could not be read for too long", received=str(error)) from error
                await self.env.sleep(pause_s * (0.5 + self.env.random()))
                pause_s = min(pause_s * 2, 2.0)

    async def until(
        self, ready: Callable[[State], object], timeout_s: float | None = None, *, about: str = ""
    ) -> bool:
        """Wait until ``ready(state)`` is true (True), or the time is over (False). Needs somebody to follow.

        ``about``: an agent; entries that concern another one alone cannot make it true, so it is not asked then.
        """
        if ready(self.state):
            return True
        future = self._fold.wait(self, ready, about)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return bool(ready(self.state))
        finally:
            future.cancel()
        return True

    def wake(self) -> None:
        """Look at this tail's waiting conditions again, since something outside the fold changed."""
        self._fold.wake(self)


def alone(agents: frozenset[str] | None) -> str:
    """The agent that parts serve, if it is one alone: what ``until`` is told that they wait about."""
    return next(iter(agents)) if agents is not None and len(agents) == 1 else ""


_encode_state = msgspec.json.Encoder().encode


def dump_state(state: State) -> bytes:
    """A state's bytes, as a checkpoint stores them."""
    return _encode_state(state)
