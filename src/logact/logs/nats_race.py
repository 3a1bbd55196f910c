"""Appends that must stand at the very end of what was judged, those of one process together.

Whoever finds nobody leading leads: it is judged, whoever waits and does not interfere with it is judged too, and all
go out as one atomic batch of the server's, on the condition that the stream still ends where they were judged. If it
does not, all are judged again. A draft that interferes with one before it (same key, a condition that looks at it, a
seal) waits for the next batch, so each is judged exactly as if it had come alone.

There is no background task: a leader that is done hands the lead to the next that waits.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque

from logact import env as environment
from logact.errors import LogActError
from logact.logs.nats_attempt import LOSSES_MAX, Attempt
from logact.logs.nats_link import WRONG_SEQUENCE, Headers, Nobody, Refused, Silence, is_transient, last_sequence
from logact.logs.nats_memory import Message
from logact.logs.nats_stream import Stream

BATCH_RECORDS_MAX = 64
BATCH_BYTES_MAX = 2_000_000

Answer = tuple[int, bool]


class _Runner:
    """One attempt in the race, and who waits for it. ``future``: True means "it is your turn to lead"."""

    __slots__ = ("answer", "attempt", "error", "future")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def settled(self) -> bool:
        """Whether its fate is known."""
        return self.answer is not None or self.error is not None


class Race:
    """The races of one process on one stream. ``batches`` counts tries, ``together`` records that shared one."""

    LEADERS_MAX = 1

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.batches = self.together = 0
        self._waiting: deque[_Runner] = deque()
        self._leaders = 0
        self._alone = False  # the servers refused a batch that was none of a draft's fault

    async def run(self, attempt: Attempt) -> Answer:
        """Append one draft; returns its answer or raises its error."""
        runner = _Runner(attempt)
        if self._leaders >= self.LEADERS_MAX:
            self._waiting.append(runner)
            try:
                lead = await runner.future
            except asyncio.CancelledError:
                if runner in self._waiting:
                    self._waiting.remove(runner)
                if runner.future.done() and not runner.future.cancelled() and runner.future.result():
                    self._pass_on()  # it had just been given the lead
                raise
        else:
            self._leaders += 1
            lead = True
        if lead:
            try:
                await asyncio.sleep(0)  # whoever is ready to append does so now, and shares the batch
                while not runner.settled:
                    await self._round(runner)
            finally:
                attempt.calm_down()
                self._pass_on()
        if runner.error is not None:
            raise runner.error
        return runner.answer or (0, False)

    def _pass_on(self) -> None:
        while self._waiting:
            runner = self._waiting.popleft()
            if not runner.future.done():
                runner.future.set_result(True)
                return
        self._leaders -= 1

    async def _round(self, first: _Runner) -> None:
        """Judge, publish, settle: once."""
        attempt = first.attempt
        try:
            if attempt.losses < LOSSES_MAX:
                await attempt.stand_back()
            first.answer = await attempt.judged()
            if first.answer is not None:
                return
            upto = await attempt.judge_condition()
            first.answer = attempt.judged_now()  # something may have come while old headers were read
            if first.answer is not None:
                return
        except LogActError as error:
            first.error = error
            return
        batch = [first, *self._companions(first)]  # no waiting from the judging to the publishing
        self.batches += 1
        try:
            if len(batch) == 1:
                met = await attempt.publish({"Nats-Expected-Last-Sequence": str(upto)})
                if isinstance(met, tuple):
                    first.answer = met
                    return
            else:
                met = await self._publish(batch, upto)
            if not first.settled:
                await attempt.lost(met)
        except LogActError as error:
            first.error = error
        finally:
            self._settle(batch[1:])

    def _companions(self, first: _Runner) -> list[_Runner]:
        """Those that may go out together with the first: judged now, and without any interference."""
        if self._alone or not self.stream.batches or _seals(first.attempt):
            return []
        found: list[_Runner] = []
        size = len(first.attempt.draft.body)
        for runner in self._waiting:
            size += len(runner.attempt.draft.body)
            if len(found) + 1 >= BATCH_RECORDS_MAX or size > BATCH_BYTES_MAX:
                break
            if runner.future.done() or not self._fits(runner.attempt, [first, *found]):
                continue
            found.append(runner)
        for runner in found:
            self._waiting.remove(runner)
        return found

    def _fits(self, attempt: Attempt, before: list[_Runner]) -> bool:
        """Whether it holds now, and nothing of what goes out before it in the same batch bears on it."""
        draft, memory = attempt.draft, self.stream.memory
        if memory.behind(draft) or attempt.needs_old_heads() or _seals(attempt):
            return False
        try:
            if attempt.judged_now() is not None:
                return False
            if draft.condition is not None:
                memory.judge(draft.condition, {})
        except LogActError:
            return False  # it hears so when it leads
        for place, runner in enumerate(before):
            other = runner.attempt.draft
            if other.writer == draft.writer or (draft.key and draft.key == other.key):
                return False
            if draft.condition is not None:
                unless = draft.condition.unless
                if unless is None or unless.fits_record(other.heads, memory.seq + 1 + place):
                    return False
        return True

    async def _publish(self, batch: list[_Runner], upto: int) -> int | None:
        """Send a batch; settles all of it, or returns what stood in the way (None: try again)."""
        name = environment.current().identifier()
        link, stream = self.stream.link, self.stream
        before = [runner.attempt.doubtful for runner in batch]
        for runner in batch:
            runner.attempt.env.point("nats:staged")
            runner.attempt.doubtful = True
        try:
            for place, runner in enumerate(batch):
                draft = runner.attempt.draft
                headers: Headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(place + 1)}
                headers |= self._condition(runner, place, upto)
                if runner is not batch[-1]:
                    await link.post(runner.attempt.subject, draft.body, headers)
                    continue
                headers["Nats-Batch-Commit"] = "1"
                last, _ = await link.send(runner.attempt.subject, draft.body, headers)
        except (Nobody, Refused) as problem:
            for runner, doubtful in zip(batch, before, strict=True):
                runner.attempt.doubtful = doubtful  # a batch without its end is nothing
            if isinstance(problem, Refused) and problem.code in WRONG_SEQUENCE:
                met = last_sequence(problem)
                if met is not None:
                    if met > stream.memory.seq:
                        await batch[0].attempt.fold_to(met)
                    return met
            elif isinstance(problem, Refused) and not is_transient(problem):
                self._alone = True  # each by itself from now on, so that each hears its own error
                return None
            await batch[0].attempt.again(problem)
            return None
        except Silence as problem:
            await batch[0].attempt.again(problem)
            return None
        self.together += len(batch)
        start = last - len(batch) + 1
        for place, runner in enumerate(batch):
            stream.take(Message(start + place, runner.attempt.draft.body))
        await batch[0].attempt.fold_to(last)
        for place, runner in enumerate(batch):
            try:
                runner.answer = await runner.attempt.acknowledged(start + place, fresh=True)
            except LogActError as error:
                runner.error = error
        batch[0].attempt.env.point("nats:committed")
        return last

    def _condition(self, runner: _Runner, place: int, upto: int) -> Headers:
        return {} if place else {"Nats-Expected-Last-Sequence": str(upto)}

    def _settle(self, companions: list[_Runner]) -> None:
        """Tell those that have an answer; the others wait again, before all who came later."""
        for runner in reversed(companions):
            if runner.settled:
                if not runner.future.done():
                    runner.future.set_result(False)
            elif not runner.future.done():
                self._waiting.appendleft(runner)


class Convoy(Race):
    """Plain appends: the first ones go at once, each by itself; those that come meanwhile go together.

    Each record of a batch is under the condition of its own writer's place, so other processes do not disturb it.
    One that fails fails all: then each goes by itself.
    """

    LEADERS_MAX = 2

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._apart: weakref.WeakSet[Attempt] = weakref.WeakSet()

    async def _round(self, first: _Runner) -> None:
        attempt = first.attempt
        batch = [first]
        try:
            await attempt.stand_back()
            first.answer = await attempt.judged()
            if first.answer is not None:
                return
            if attempt not in self._apart:
                batch += self._companions(first)
            self.batches += 1
            if len(batch) == 1:
                first.answer = await attempt.plain()
            elif await self._publish(batch, 0) is None or not first.settled:
                self._apart.update(runner.attempt for runner in batch)
        except LogActError as error:
            first.error = error
        finally:
            self._settle(batch[1:])

    def _fits(self, attempt: Attempt, before: list[_Runner]) -> bool:
        return attempt not in self._apart and super()._fits(attempt, before)

    def _condition(self, runner: _Runner, place: int, upto: int) -> Headers:
        return runner.attempt.own_place()


def _seals(attempt: Attempt) -> bool:
    return any(head.kind == "Seal" for head in attempt.draft.heads)
