"""Appending to a stream: judged by the fold, checked by the server, repeated until the fate of a record is known.

* A plain record is published on its writer's own subject, on the condition that the writer's last record is still its
  last there. Writers do not hinder each other, and a repetition, however late, is refused by the server itself.
* A record under a condition or a key is published on the condition that the stream still ends where the fold that
  judged it ended. Losing that race means to fold on, judge again and try again.
* A record counts once everything before it is folded and holds no seal.

This file retries for ``WINDOW_S``: longer than two elections. It never returns a position it has not seen confirmed.
"""

from __future__ import annotations

import asyncio
import re
import weakref

from logact import codec
from logact import env as environment
from logact.errors import AppendUnknown, LogError, LogFull, LogLocked, LogSealed, LogUnavailable, ReadFailed, TooLarge
from logact.logs.base import Draft
from logact.logs.nats_link import (
    IN_PROCESS,
    NO_STREAM,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    WINDOW_S,
    WRONG_SEQUENCE,
    Headers,
    Nobody,
    Refused,
    Silence,
    is_transient,
    last_sequence,
)
from logact.logs.nats_memory import Message
from logact.logs.nats_stream import Stream

HEADER_BYTES_MAX = 4096
LOSSES_MAX = 3
"""After so many lost races the plain appends of this process stand back, and those of others are asked to."""

HOLD_S = 0.03

_FULL = frozenset({10002, 10023, 10028, 10047})
_TOO_LARGE = frozenset({0, 10054})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Appender:
    """The pen of one process on one stream. ``lost_races`` and ``repeats`` count what happened."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.lost_races = self.repeats = 0
        self._expected: dict[str, int] = {}  # where a writer's last record is not the last on its subject any more
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._racing = asyncio.Lock()
        self._crowded = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._hold_until = 0.0

    def hold(self) -> None:
        """Another process lost many races: let it go first."""
        self._hold_until = environment.current().monotonic() + HOLD_S

    async def append(self, draft: Draft) -> tuple[int, bool]:
        """See ``Engine.append``."""
        self._check_size(draft)
        turn = self._turns.setdefault(draft.writer, asyncio.Lock())
        async with turn:  # one record of a writer at a time: repeated ones too
            if draft.blobs and self._known(draft) is None:
                for digest, data in draft.blobs:
                    await self.stream.side.put_blob(digest, data)
            if draft.condition is None and not draft.key:
                return await _Attempt(self, draft).plain()
            return await _Attempt(self, draft).racing()

    def _known(self, draft: Draft) -> tuple[int, bool] | None:
        try:
            return self.stream.memory.known(draft)
        except LogError:
            return 0, False  # to be judged properly

    def _check_size(self, draft: Draft) -> None:
        most = min(codec.RECORD_BYTES_MAX, self.stream.link.max_payload - HEADER_BYTES_MAX)
        if self.stream.link.max_payload and len(draft.body) > most:
            raise TooLarge(
                "A record is too large",
                received=f"{len(draft.body)} bytes",
                expected=f"at most {most} (the server takes messages of {self.stream.link.max_payload} bytes)",
                todo="split the batch, move large values to blobs, or raise max_payload",
            )


class _Attempt:
    """One draft on its way."""

    def __init__(self, pen: Appender, draft: Draft) -> None:
        self.pen = pen
        self.stream = pen.stream
        self.draft = draft
        self.env = environment.current()
        self.end = self.env.monotonic() + WINDOW_S
        self.doubtful = False  # an earlier try of this call may have been carried out
        self.in_process = False  # or of an earlier call, whose caller went away
        self.problem: Exception | None = None
        self.losses = 0
        self._pause_s = PAUSE_S_MIN

    async def plain(self) -> tuple[int, bool]:
        """Append without a condition and without a key."""
        pen, draft = self.pen, self.draft
        while True:
            await self._stand_back()
            done = await self._judged()
            if done is not None:
                return done
            last = pen._expected.get(draft.writer)
            if last is None:
                last = self.stream.memory.writers.get(draft.writer, (0, 0, ""))[1]
            met = await self._publish({"Nats-Expected-Last-Subject-Sequence": str(last)})
            if isinstance(met, tuple):
                pen._expected.pop(draft.writer, None)
                return met
            if met is not None and met <= self.stream.memory.writers.get(draft.writer, (0, 0, ""))[1]:
                # its last record was erased or trimmed from the stream; the fold still knows it
                pen._expected[draft.writer] = met

    async def racing(self) -> tuple[int, bool]:
        """Append under a condition or a key: only at the very end of what was judged."""
        pen = self.pen
        async with pen._racing:
            try:
                while True:
                    if self.losses < LOSSES_MAX:
                        await self._stand_back()
                    done = await self._judged()
                    if done is not None:
                        return done
                    judged_to = await self._judge_condition()
                    met = await self._publish({"Nats-Expected-Last-Sequence": str(judged_to)})
                    if isinstance(met, tuple):
                        return met
                    await self._lost(met)
            finally:
                self._calm_down()

    async def _judged(self) -> tuple[int, bool] | None:
        """The answer if the draft is in the log already. Raises what stands against it for good."""
        memory = self.stream.memory
        if memory.behind(self.draft):
            await self._catch_up()
        found = memory.known(self.draft)
        if found is None:
            return None
        record, same = found
        return record, same and self.doubtful

    async def _judge_condition(self) -> int:
        """The sequence up to which nothing stands against the condition."""
        memory = self.stream.memory
        condition = self.draft.condition
        if condition is None:
            return memory.seq
        while True:
            upto = memory.seq
            before = {}
            if condition.unless is not None and condition.after // 1000 + 1 < memory.cached_from:
                before = await self.stream.heads(condition.after // 1000)
            if memory.seq == upto or condition.unless is None:
                memory.judge(condition, before)
                return memory.seq

    async def _publish(self, condition: Headers) -> tuple[int, bool] | int | None:
        """Try once: the answer of the append, or the sequence that stood in the way (None: try again)."""
        draft = self.draft
        headers = {"Nats-Msg-Id": f"{draft.writer}:{draft.number}:{codec.digest(draft.body)}", **condition}
        self.env.point("nats:staged")
        was_doubtful, self.doubtful = self.doubtful, True
        try:
            sequence, before = await self.stream.link.send(
                f"{self.stream.subject}.r.{writer_token(draft.writer)}", draft.body, headers
            )
        except Nobody as error:
            self.doubtful = was_doubtful
            await self._again(error)
            return None
        except Silence as error:
            self.pen.repeats += 1
            await self._again(error)
            return None
        except Refused as refusal:
            return await self._refused(refusal, was_doubtful)
        self.env.point("nats:committed")
        return await self._acknowledged(sequence, fresh=not before or was_doubtful)

    async def _refused(self, refusal: Refused, was_doubtful: bool) -> int | None:
        self.doubtful = was_doubtful
        if refusal.code in WRONG_SEQUENCE:
            met = last_sequence(refusal)
            if met is None:  # another record of this writer, or of anybody, is on its way through the cluster
                await self._again(refusal)
                await self._catch_up()
            elif met > self.stream.memory.seq:
                await self._fold_to(met)
            return met
        if is_transient(refusal) or refusal.code == IN_PROCESS:
            self.in_process = self.in_process or refusal.code == IN_PROCESS
            await self._again(refusal)
            return None
        text = f"{refusal.text} (error {refusal.code})"
        if refusal.code in _TOO_LARGE:
            raise TooLarge("The server does not take this record", received=text, todo="raise max_payload")
        if not was_doubtful and refusal.code in _FULL:
            raise LogFull("JetStream has no room", received=text, todo="raise the limits of the account or servers")
        if not was_doubtful and refusal.code == NO_STREAM:
            raise LogUnavailable("The log's stream is gone", received=text, todo="restore a backup")
        raise AppendUnknown("JetStream failed to store a record", received=text, todo="repeat it byte for byte")

    async def _acknowledged(self, sequence: int, *, fresh: bool) -> tuple[int, bool]:
        """The server has it. It counts if no seal stands before it, so everything before it is folded first."""
        self.stream.take(Message(sequence, self.draft.body))
        await self._fold_to(sequence)
        memory = self.stream.memory
        if memory.sealed and sequence > memory.sealed:
            raise LogSealed(
                "The log was sealed at the same moment",
                received=f"an append after record {memory.sealed}",
                todo="go on where its Seal entry says",
            )
        return sequence, fresh

    # --- patience ------------------------------

    async def _again(self, problem: Exception) -> None:
        """Pause before the next try, or give up: indefinitely if any try may have been carried out."""
        self.problem = problem
        if self.env.monotonic() > self.end or self.stream.link.client is None:
            if self.doubtful or self.in_process:
                raise AppendUnknown(
                    "NATS does not say whether a record was stored",
                    received=str(problem),
                    expected=f"an answer within {WINDOW_S:g} s",
                    todo="repeat it byte for byte, or read the log",
                )
            raise LogUnavailable(
                "NATS stores nothing now",
                received=str(problem),
                expected=f"a leader within {WINDOW_S:g} s",
                todo="see whether a majority of the servers runs and can talk to each other",
            )
        await self.env.sleep(self._pause_s * (0.5 + self.env.random()))
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)

    async def _fold_to(self, sequence: int) -> None:
        try:
            await self.stream.folded_to(sequence)
        except ReadFailed as error:
            raise self._unread(error) from error

    async def _catch_up(self) -> None:
        try:
            await self.stream.catch_up()
        except ReadFailed as error:
            raise self._unread(error) from error

    def _unread(self, error: ReadFailed) -> LogError:
        if self.doubtful or self.in_process:
            return AppendUnknown("An append's fate is unknown: the log cannot be read", received=str(error))
        return LogUnavailable("The log cannot be read, so nothing is appended", received=str(error))

    async def _lost(self, met: int | None) -> None:
        """A race was lost. After a few, everybody else is asked to stand back a moment."""
        if met is None:
            return  # no race: there was no answer
        pen = self.pen
        self.losses += 1
        pen.lost_races += 1
        if self.env.monotonic() > self.end:
            raise LogLocked(
                "Others write to the log without a pause",
                received=f"{self.losses} lost races",
                expected=f"a moment of quiet within {WINDOW_S:g} s",
                todo="try again, or give busy agents logs of their own",
            )
        if self.losses == LOSSES_MAX:
            pen._crowded += 1
            pen._calm.clear()
        if self.losses >= LOSSES_MAX and self.stream.link.client is not None:
            await self.stream.link.client.publish(f"{self.stream.subject}.hold", b"")

    def _calm_down(self) -> None:
        if self.losses >= LOSSES_MAX:
            self.pen._crowded -= 1
            if not self.pen._crowded:
                self.pen._calm.set()

    async def _stand_back(self) -> None:
        """Let those go first who lost many races; never for long."""
        pen = self.pen
        wait_s = pen._hold_until - self.env.monotonic()
        if wait_s > 0:
            await self.env.sleep(wait_s * (0.5 + self.env.random()))
        if not pen._calm.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await pen._calm.wait()
            except TimeoutError:
                pass


def writer_token(writer: str) -> str:
    """A writer's name as a part of a subject."""
    return writer if _PLAIN_NAME.fullmatch(writer) else "=" + codec.digest(writer.encode())
