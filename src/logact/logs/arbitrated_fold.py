"""The life and the fold of an arbitrated engine: from snapshot to the present, and the marks that prove it.

This file owns which messages were folded and who waits for them. It offers nothing to users (``arbitrated`` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from logact import codec
from logact import env as environment
from logact.errors import AppendUnknown, LogCorrupt, LogError, LogMissing, LogTooNew, LogUnavailable, ReadFailed
from logact.logs import arbitration_state as states
from logact.logs.arbitration import Answer, Arbiter, Message, pack
from logact.logs.base import Engine
from logact.logs.partitions import Messages, Partitions
from logact.logs.recent import RecentRecords

ANSWER_S_MAX = 30.0
"""How long an operation waits for the fold to come to its own message."""

_MARK = pack(Message(kind="mark"))


class ArbitratedFold(Engine):
    """``marks`` counts the marks that were sent, ``folded`` the messages that the present life had to fold.

    Without ``proved_reads`` no marks are sent: the broker's word is taken for where the log ends.
    """

    def __init__(self, partitions: Partitions, *, proved_reads: bool = True) -> None:
        self.partitions = partitions
        self.proved_reads = proved_reads
        self.marks = self.folded = 0
        self._open = False
        self._reset()

    def _reset(self) -> None:
        self.arbiter = Arbiter()
        self.recent = RecentRecords()
        self.folded = 0
        self._last: bytes = b""  # the last message that was folded
        self._own: dict[int, bytes] = {}  # acknowledged messages of this process that are not folded yet
        self._asking = 0
        self._answers: dict[int, Answer] = {}  # what became of appends, while somebody here asks
        self._ends: list[tuple[int, asyncio.Future[bool]]] = []  # who waits until the fold has passed an offset
        self._waiters: list[tuple[int, asyncio.Future[bool]]] = []  # who waits for a record above a number
        self._marking: asyncio.Future[LogError | None] | None = None
        self._marks_begun = self._marks_passed = 0
        self._broken: LogError | None = None
        self._saving = self._behind = False
        self._starting = asyncio.Lock()

    # --- life ------------------------------

    async def open(self) -> None:
        if self._open:
            return
        self._reset()
        self.partitions.create = self.create
        await self.partitions.open()
        try:
            await self._load()
            self.recent.start_at(self.arbiter.tail)
            self._open = True
            self.partitions.follow(self.arbiter.next, self._news, self._lost)
            if not self.arbiter.log_id:
                await self.prove()
            if not self.arbiter.log_id and not self.create:
                raise LogMissing("There is no log of this name", todo="check ?log=NAME")
            if not self.arbiter.log_id:
                begin = Message(kind="begin", log=environment.current().identifier())
                await self.past(await self.send(pack(begin)))
        except BaseException:
            self._open = False
            await self.partitions.close()
            raise
        self.log_id = self.arbiter.log_id

    async def _load(self) -> None:
        """Begin with the newest snapshot that fits this log, or at the log's beginning if that is there."""
        low, high = await self.partitions.bounds("log")
        if await self._load_snapshot(low, high) or low == 0:
            return
        # a broker's word for where a partition ends may lag: own messages show it for certain
        state_end = await self.partitions.send("state", b"") + 1
        high = await self.partitions.send("log", _MARK) + 1
        if not await self._load_snapshot((await self.partitions.bounds("log"))[0], high, state_end):
            raise LogCorrupt(
                "The beginning of the log is gone, and no snapshot of it can be read",
                received=f"messages from offset {low} on",
                todo="restore the partition for state, or find out what deleted messages: retention must be off",
            )

    async def _load_snapshot(self, low: int, high: int, state_end: int = 0) -> bool:
        for snapshot in states.whole_snapshots(await self._all_of_state(state_end)):
            upto = snapshot.head.upto
            if not low < upto <= high:
                continue  # of an earlier log of the same name
            anchor = await self.partitions.fetch("log", upto - 1, upto)
            if [codec.digest(value) for _, value in anchor] != [snapshot.head.anchor]:
                continue
            arbiter = states.restore(snapshot)
            if arbiter is not None:
                self.arbiter, self._last = arbiter, anchor[0][1]
                return True
        return False

    async def _all_of_state(self, end: int) -> list[tuple[int, bytes]]:
        cursor, high = await self.partitions.bounds("state")
        found: list[tuple[int, bytes]] = []
        while cursor < max(high, end):
            messages = await self.partitions.fetch("state", cursor, max(high, end))
            if not messages:
                break
            found.extend(messages)
            cursor = messages[-1][0] + 1
        return found

    async def _start_over(self) -> None:
        """Begin again from a snapshot: what was to be read next was trimmed by others meanwhile."""
        async with self._starting:
            if not self._behind:
                return
            await self.partitions.close()
            await self.partitions.open()
            self.arbiter, self.recent, self._own = Arbiter(), RecentRecords(), {}
            await self._load()
            self.recent.start_at(self.arbiter.tail)
            self._behind = False
            self.partitions.follow(self.arbiter.next, self._news, self._lost)

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        await self.partitions.close()
        self._broken = LogUnavailable("The log was closed", todo="open it again")
        self._wake()

    def check(self) -> None:
        """Raise unless the engine is open and its fold is sound."""
        if not self._open:
            raise LogUnavailable("The log is not open", todo="open it first")
        if self._broken is not None:
            raise self._broken

    # --- the fold ------------------------------

    def _news(self, messages: Messages) -> None:
        """Messages that the broker delivered, in order."""
        if not self._open:
            return
        for offset, value in messages:
            if offset >= self.arbiter.next:
                self._fold(offset, value)
        self._absorb()

    def _acknowledged(self, offset: int, value: bytes) -> None:
        """A message of this process has its place. If it is the next, it need not be read back."""
        if self._open and offset >= self.arbiter.next:
            self._own[offset] = value
            self._absorb()

    def _absorb(self) -> None:
        while self.arbiter.next in self._own:
            self._fold(self.arbiter.next, self._own[self.arbiter.next])
        self._wake()

    def _fold(self, offset: int, value: bytes) -> None:
        self._own.pop(offset, None)
        if self._broken is not None:
            return
        try:
            answer = self.arbiter.fold(offset, value)
        except LogTooNew as error:
            self._broken = error
            return
        self.folded += 1
        self._last = value
        if answer is None:
            return
        if self._asking:
            self._answers[offset] = answer
        if not isinstance(answer, LogError) and answer[1]:
            self.recent.add(answer[0], value.partition(b"\n")[2])

    def _wake(self) -> None:
        passed, tail, broken = self.arbiter.next, self.arbiter.tail, self._broken is not None
        if self._ends:
            ready = [one for end, one in self._ends if broken or end < passed]
            self._ends = [(end, one) for end, one in self._ends if not broken and end >= passed]
            for future in ready:
                settle(future, True)
        if self._waiters:
            ready = [one for after, one in self._waiters if broken or after < tail]
            self._waiters = [(after, one) for after, one in self._waiters if not broken and after >= tail]
            for future in ready:
                settle(future, True)  # whoever waits on a broken log meets the error in its own read

    def _lost(self, reason: str) -> None:
        """What was to be read next is gone. Whoever waits is woken, and the next proof begins from a snapshot."""
        self._behind = True
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            settle(future, True)

    # --- asking ------------------------------

    async def send(self, value: bytes) -> int:
        """Send a message to the log; its offset. Raises as ``Partitions.send``."""
        return await self.partitions.send("log", value, lambda offset: self._acknowledged(offset, value))

    async def past(self, offset: int, unknown: str = "") -> None:
        """Wait until the fold has passed an offset. After a while: ReadFailed, or AppendUnknown with this message."""
        if self.arbiter.next > offset:
            return
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ends.append((offset, future))
        late = False
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await future
        except TimeoutError:
            late = True
        finally:
            self._ends = [(end, one) for end, one in self._ends if one is not future]
        if self.arbiter.next > offset:
            return
        if self._broken is not None and not unknown:
            raise self._broken
        if unknown:
            raise AppendUnknown(unknown, received=str(self._broken or f"nothing for {ANSWER_S_MAX:g} s"))
        raise ReadFailed(
            "The log could not be read up to its end",
            received=f"messages up to offset {self.arbiter.next - 1}{' in time' if late else ''}",
            expected=f"up to offset {offset}",
        )

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Remember what became of appends inside of this block."""
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            if not self._asking:
                self._answers.clear()

    def answer(self, offset: int) -> Answer:
        """What became of an append that is folded. Raises AppendUnknown where it was no record at all."""
        answer = self._answers.get(offset)
        if answer is None:
            raise AppendUnknown("An append was not understood as a record", received=f"the message at {offset}")
        return answer

    async def prove(self) -> None:
        """Fold everything that was acknowledged before this call. One mark serves all who came before it was sent."""
        self.check()
        if self._behind:
            await self._start_over()
        if not self.proved_reads:
            await self.past((await self.partitions.bounds("log"))[1] - 1)
            return
        begun = self._marks_begun
        while self._marks_passed <= begun:
            if self._marking is not None:
                later = self._marks_begun > begun  # the mark under way was sent after this call: its end is ours
                error = await asyncio.shield(self._marking)
                if later and error is not None:
                    raise error
                continue
            await self._mark()

    async def _send_mark(self) -> int:
        """A mark's offset. One whose fate is unknown is sent again: two marks say no less than one."""
        env = environment.current()
        end = env.monotonic() + ANSWER_S_MAX
        while True:
            self.marks += 1
            try:
                return await self.send(_MARK)
            except AppendUnknown as error:
                if env.monotonic() > end:
                    raise ReadFailed("The end of the log could not be found out", received=str(error)) from error
                await env.sleep(0.05)

    async def _mark(self) -> None:
        marking: asyncio.Future[LogError | None] = asyncio.get_running_loop().create_future()
        self._marking = marking
        self._marks_begun += 1
        number = self._marks_begun
        failed: LogError | None = None
        try:
            await self.past(await self._send_mark())
            self._marks_passed = number
        except LogError as error:
            failed = error
            raise
        finally:
            self._marking = None
            settle(marking, failed)


def settle(
    future: asyncio.Future[object] | asyncio.Future[bool] | asyncio.Future[LogError | None], found: object
) -> None:
    """Give a future its result, unless it has one."""
    if not future.done():
        future.set_result(found)  # type: ignore[arg-type]


__all__ = ["ArbitratedFold", "settle"]
