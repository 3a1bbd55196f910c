"""One draft on its way into a stream: judged, published, repeated until its fate is known or the time is over.

This file knows one draft at a time; ``nats_race`` lets several share a commit, ``nats_append`` picks the way.
"""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

from logact import codec
from logact import env as environment
from logact.entry import record_of
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

LOSSES_MAX = 3
"""After so many lost races the plain appends of this process stand back, and those of others are asked to."""

_FULL = frozenset({10002, 10023, 10028, 10047})
_TOO_LARGE = frozenset({0, 10054})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Pen(Protocol):
    """What the attempts of one process share."""

    stream: Stream
    lost_races: int
    repeats: int
    expected: dict[str, int]
    crowded: int
    calm: asyncio.Event
    hold_until: float


class Attempt:
    """One draft on its way."""

    def __init__(self, pen: Pen, draft: Draft) -> None:
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

    @property
    def subject(self) -> str:
        """Where the record is published: its writer's own subject."""
        return f"{self.stream.subject}.r.{writer_token(self.draft.writer)}"

    async def plain(self) -> tuple[int, bool]:
        """Append without a condition and without a key."""
        pen, draft = self.pen, self.draft
        while True:
            await self.stand_back()
            done = await self.judged()
            if done is not None:
                return done
            met = await self.publish(self.own_place())
            if isinstance(met, tuple):
                pen.expected.pop(draft.writer, None)
                return met
            if met is not None and met <= self.stream.memory.writers.get(draft.writer, (0, 0, ""))[1]:
                # its last record was erased or trimmed from the stream; the fold still knows it
                pen.expected[draft.writer] = met

    def own_place(self) -> Headers:
        """The condition that the writer's last record is still the last on its subject."""
        last = self.pen.expected.get(self.draft.writer)
        if last is None:
            last = self.stream.memory.writers.get(self.draft.writer, (0, 0, ""))[1]
        return {"Nats-Expected-Last-Subject-Sequence": str(last)}

    async def judged(self) -> tuple[int, bool] | None:
        """The answer if the draft is in the log already. Raises what stands against it for good."""
        if self.stream.memory.behind(self.draft):
            await self._catch_up()
        return self.judged_now()

    def judged_now(self) -> tuple[int, bool] | None:
        """The same, of what is folded."""
        found = self.stream.memory.known(self.draft)
        if found is None:
            return None
        record, same = found
        return record, same and self.doubtful

    async def judge_condition(self) -> int:
        """The sequence up to which nothing stands against the condition."""
        condition = self.draft.condition
        while condition is not None:
            upto = self.stream.memory.seq
            before = {}
            if self.needs_old_heads():
                before = await self.stream.heads(record_of(condition.after))
            if self.stream.memory.seq == upto:  # nothing came while old headers were read
                self.stream.memory.judge(condition, before)
                break
        return self.stream.memory.seq

    def needs_old_heads(self) -> bool:
        """Whether the condition looks at records that are not in the cache any more."""
        condition = self.draft.condition
        if condition is None or condition.unless is None:
            return False
        return record_of(condition.after) + 1 < self.stream.memory.cached_from

    async def publish(self, condition: Headers) -> tuple[int, bool] | int | None:
        """Try once: the answer of the append, or the sequence that stood in the way (None: try again)."""
        draft = self.draft
        headers = {"Nats-Msg-Id": f"{draft.writer}:{draft.number}:{codec.digest(draft.body)}", **condition}
        self.env.point("nats:staged")
        was_doubtful, self.doubtful = self.doubtful, True
        try:
            sequence, before = await self.stream.link.send(self.subject, draft.body, headers)
        except Nobody as error:
            self.doubtful = was_doubtful
            await self.again(error)
            return None
        except Silence as error:
            self.pen.repeats += 1
            await self.again(error)
            return None
        except Refused as refusal:
            return await self.refused(refusal, was_doubtful)
        self.env.point("nats:committed")
        return await self.acknowledged(sequence, fresh=not before or was_doubtful)

    async def refused(self, refusal: Refused, was_doubtful: bool) -> int | None:
        self.doubtful = was_doubtful
        if refusal.code in WRONG_SEQUENCE:
            met = last_sequence(refusal)
            if met is None:  # another record of this writer, or of anybody, is on its way through the cluster
                await self.again(refusal)
                await self._catch_up()
            elif met > self.stream.memory.seq:
                await self.fold_to(met)
            return met
        if is_transient(refusal) or refusal.code == IN_PROCESS:
            self.in_process = self.in_process or refusal.code == IN_PROCESS
            await self.again(refusal)
            return None
        text = f"{refusal.text} (error {refusal.code})"
        if refusal.code in _TOO_LARGE:
            raise TooLarge("The server does not take this record", received=text, todo="raise max_payload")
        if not was_doubtful and refusal.code in _FULL:
            raise LogFull("JetStream has no room", received=text, todo="raise the limits of the account or servers")
        if not was_doubtful and refusal.code == NO_STREAM:
            raise LogUnavailable("The log's stream is gone", received=text, todo="restore a backup")
        raise AppendUnknown("JetStream failed to store a record", received=text, todo="repeat it byte for byte")

    async def acknowledged(self, sequence: int, *, fresh: bool) -> tuple[int, bool]:
        """The server has it. It counts if no seal stands before it, so everything before it is folded first."""
        self.stream.take(Message(sequence, self.draft.body))
        await self.fold_to(sequence)
        memory = self.stream.memory
        if memory.sealed and sequence > memory.sealed:
            raise LogSealed(
                "The log was sealed at the same moment",
                received=f"an append after record {memory.sealed}",
                todo="go on where its Seal entry says",
            )
        return sequence, fresh

    # --- patience ------------------------------

    async def again(self, problem: Exception) -> None:
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

    async def fold_to(self, sequence: int) -> None:
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

    async def lost(self, met: int | None) -> None:
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
            pen.crowded += 1
            pen.calm.clear()
        if self.losses >= LOSSES_MAX:
            try:
                await self.stream.link.post(f"{self.stream.subject}.hold", b"", {})
            except Silence:
                pass  # a courtesy

    def calm_down(self) -> None:
        if self.losses >= LOSSES_MAX:
            self.pen.crowded -= 1
            if not self.pen.crowded:
                self.pen.calm.set()

    async def stand_back(self) -> None:
        """Let those go first who lost many races; never for long."""
        pen = self.pen
        wait_s = pen.hold_until - self.env.monotonic()
        if wait_s > 0:
            await self.env.sleep(wait_s * (0.5 + self.env.random()))
        if not pen.calm.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await pen.calm.wait()
            except TimeoutError:
                pass


def writer_token(writer: str) -> str:
    """A writer's name as a part of a subject."""
    return writer if _PLAIN_NAME.fullmatch(writer) else "=" + codec.digest(writer.encode())
