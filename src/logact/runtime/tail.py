"""The tail: keeps one fold of a log up to date and wakes whoever waits for something to become true.

It owns the process's copy of the state. It never appends and never judges; a read error is retried and then
raised, never taken for an absence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from logact import codec
from logact import env as environment
from logact.core import machine
from logact.core.state import State
from logact.entry import BlobRef, Checkpoint, Entry, end_of, position_of, record_of
from logact.errors import AccessRefused, LogCorrupt, LogError, LogTrimmed, ReadFailed
from logact.logs.base import FOLLOW_WAIT_S, READ_RECORDS_MAX, SharedLog, where
from logact.logs.cancelling import cancellable
from logact.logs.verify import first_kept

READ_RETRY_S_MAX = 30.0
"""How long a follower repeats a failing read before it gives up."""

Observer = Callable[[State, Entry], None]
Restorer = Callable[[Checkpoint | None], Awaitable[bool]]

CHECKPOINTS_TRIED_MAX = 20


class Tail:
    """One fold of one log. ``start`` reads to the present; ``follow`` keeps it there."""

    def __init__(self, log: SharedLog, *, keep: bool = False, from_checkpoint: bool = True) -> None:
        self.log = log
        self.env = environment.current()
        self.state: State = machine.initial(keep=keep)
        self.keep = keep
        self.from_checkpoint = from_checkpoint and not keep
        self.records_read = 0
        self.entries_applied = 0
        self.checkpoint: Checkpoint | None = None
        self.problem: LogError | None = None
        self._record = 0
        self._moves = False  # the last entry says that the log goes on elsewhere
        self._observers: list[Observer] = []
        self._restorers: list[Restorer] = []
        self._waiting: list[tuple[Callable[[State], object], asyncio.Future[None]]] = []

    def observe(self, observer: Observer) -> None:
        """Call ``observer(state, entry)`` after each entry that is applied; ``state.verdict`` is that entry's."""
        self._observers.append(observer)

    def unobserve(self, observer: Observer) -> None:
        """Stop calling an observer."""
        self._observers.remove(observer)

    def restore(self, restorer: Restorer) -> None:
        """Ask ``restorer(checkpoint)`` before a checkpoint is used; if it says False, replay starts earlier.

        ``restorer(None)`` says that it is not used after all: what it set back has to go back to the beginning.
        """
        self._restorers.append(restorer)

    async def start(self) -> State:
        """Read from the last usable checkpoint (or the beginning) to the present tail."""
        await self.log.open()
        self.state.log = self.log.log_id
        if self.from_checkpoint:
            await self._load_checkpoint()
        await self.catch_up()
        return self.state

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
        records, _ = await self.log.read_records(position_of(record - 1), limit=1)
        for entry in (entry for batch in records for entry in batch):
            payload = entry.payload
            if not isinstance(payload, Checkpoint) or entry.author.role != "checkpointer" or entry.forged:
                continue
            try:
                state = await load_state(self.log, payload.state)
                if state.log != self.log.log_id or state.chain != payload.chain or state.position != payload.upto:
                    continue
                if payload.upto >= entry.position:
                    continue  # it cannot know what comes after it
                if all([await restorer(payload) for restorer in self._restorers]):
                    self.state, self.checkpoint = state, payload
                    self._record = record_of(payload.upto)
                    return True
            except (LogCorrupt, LogError):
                pass  # a damaged checkpoint costs time, never correctness
            for restorer in self._restorers:
                await restorer(None)
        return False

    async def catch_up(self) -> State:
        """Apply everything up to the present tail."""
        while True:
            try:
                page = await self.log.engine.read(self._record, READ_RECORDS_MAX)
            except LogTrimmed as error:
                if self._record == 0 and self.state.position == 0:
                    raise LogTrimmed(
                        "The log's beginning was trimmed and its checkpoint cannot be read",
                        received=f"a log that begins at position {position_of(await first_kept(self.log) + 1)}",
                        expected="a checkpoint that can be read after that",
                        todo="run `logact log verify`",
                    ) from error
                raise
            for stored in page.records:
                if stored.record > self._record:
                    problem = _damage(stored.body)
                    self._apply(self.log.decode(stored.body, stored.record), stored.record)
                    if problem and not self.state.broken:
                        self.state.broken = f"position {position_of(stored.record)}: {problem}"
            if self._moves:
                moved = await self.log.move_on()
                self._moves = False
                if moved:
                    continue  # the log goes on elsewhere
            if page.end or not page.records:
                break  # a short page alone is no end: an engine also limits its bytes
        self._wake()
        return self.state

    async def check_not_behind(self) -> None:
        """Raise LogCorrupt if the log lacks what this process has read: it was put back from an old copy."""
        tail = await self.log.engine.tail()
        if tail < self._record:
            self.state.broken = (
                self.state.broken or f"the log ends at record {tail}, but {self._record} was read before"
            )
            raise LogCorrupt(
                "The log went back: it lost entries that this process has read",
                received=f"a tail at record {tail}",
                expected=f"at least {self._record}",
                todo="run `logact log verify`, and look where the newer copy is",
            )

    def apply_own(self, body: bytes, position: int) -> bool:
        """Apply a record that this process just appended, if nothing lies between; saves reading it back."""
        record = record_of(position)
        if record <= self._record:
            return True
        if not self.log.engine.follows(record, self._record):
            return False
        self._apply(self.log.decode(body, record), record)
        self._wake()
        return True

    def _apply(self, entries: list[Entry], record: int) -> None:
        for entry in entries:
            if entry.position <= self.state.position:
                continue  # an observer raised on a later one the last time: this one was seen
            self.state = machine.apply(self.state, entry)
            self._moves = entry.kind == "Seal"
            for observer in self._observers:
                observer(self.state, entry)
        self._record = record
        self.records_read += 1
        self.entries_applied += len(entries)

    def _wake(self) -> None:
        if self._waiting:
            still = []
            for ready, future in self._waiting:
                if future.done():
                    continue
                if ready(self.state):
                    future.set_result(None)
                else:
                    still.append((ready, future))
            self._waiting = still

    async def follow(self) -> None:
        """Keep the fold at the present until cancelled. Raises the read error that lasted too long."""
        failing_since: float | None = None
        pause_s = 0.05
        while True:
            try:
                after = self._record
                await cancellable(self.log.engine.wait(after, FOLLOW_WAIT_S))
                if self._record > after and self.log.engine.hint() <= self._record:
                    continue  # it was this process's own record, and is applied already
                await self.catch_up()
                failing_since, pause_s, self.problem = None, 0.05, None
            except (LogCorrupt, LogTrimmed, AccessRefused):
                raise  # another try would fare no better
            except LogError as error:
                self.problem = error
                now = self.env.monotonic()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since > READ_RETRY_S_MAX:
                    raise ReadFailed("The log could not be read for too long", received=str(error)) from error
                await self.env.sleep(pause_s * (0.5 + self.env.random()))
                pause_s = min(pause_s * 2, 2.0)

    async def until(self, ready: Callable[[State], object], timeout_s: float | None = None) -> bool:
        """Wait until ``ready(state)`` is true (True), or the time is over (False). Needs somebody to follow."""
        if ready(self.state):
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return bool(ready(self.state))
        finally:
            future.cancel()
        return True

    def wake(self) -> None:
        """Look at the waiting conditions again, since something outside the fold changed."""
        self._wake()


def _damage(body: bytes) -> str:
    """What is wrong with a record's own digests ("" if nothing). Damage stops acting; it does not stop reading."""
    try:
        codec.check_record(body)
    except LogCorrupt as error:
        return str(error)
    return ""


_encode_state = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(State).decode


def dump_state(state: State) -> bytes:
    """A state's bytes, as a checkpoint stores them."""
    return _encode_state(state)


async def load_state(log: SharedLog, ref: BlobRef) -> State:
    """The state in a checkpoint's blob. LogCorrupt if it is damaged."""
    data = await log.get_blob(ref.digest)
    try:
        return _decode_state(data)
    except msgspec.DecodeError as error:
        raise LogCorrupt("A checkpoint's state cannot be read", received=str(error)) from error
