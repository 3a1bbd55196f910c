"""The simulator's log by arbitration: every process folds the same messages for itself, and all must agree.

Messages stand in one list. Beside it an *exact* log decides each append at the moment at which its message arrives,
from all that came before and from nothing else. Each process's arbiter lags behind until it looks, sends what it
cannot know to be hopeless, is rebuilt from snapshots at random moments, and now and then a message arrives twice. If
one of them ever decides otherwise than the exact log, ``arbitration_is_exact`` is broken.
"""

from __future__ import annotations

from logact import codec
from logact.codec import EntryHead
from logact.entry import record_of
from logact.errors import (
    BlobMissing,
    ChainConflict,
    ConditionFailed,
    InvariantViolated,
    KeyConflict,
    LogError,
    LogSealed,
    LogTrimmed,
)
from logact.logs import arbitration_state as states
from logact.logs.arbitration import Answer, Arbiter, Message, asking, claim_of, pack
from logact.logs.base import Draft, Filter, Page, StoredRecord
from logact.testing.loop import Choices

RESTORED_ONE_IN = 12
DOUBLED_ONE_IN = 10
SAVED_ONE_IN = 15

Decision = tuple[int, bool] | type[LogError]


class ExactLog:
    """Decides appends as the contract says, with the whole log at hand. Numbers are given to it."""

    def __init__(self) -> None:
        self.heads: dict[int, tuple[EntryHead, ...]] = {}
        self.tail = 0
        self.first = 1
        self.sealed = False
        self.writers: dict[str, list[tuple[int, bytes]]] = {}
        self.keys: dict[str, tuple[int, str]] = {}

    def append(self, draft: Draft, number: int) -> Decision:
        """What becomes of a draft that would be record ``number``."""
        written = self.writers.setdefault(draft.writer, [])
        if written and draft.number == len(written):
            record, body = written[-1]
            return (record, False) if body == draft.body else ChainConflict
        if draft.number != len(written) + 1:
            return ChainConflict
        if draft.key and draft.key in self.keys:
            record, content = self.keys[draft.key]
            return (record, False) if content == draft.content else KeyConflict
        if self.sealed:
            return LogSealed
        if draft.condition is not None and not self._holds(draft):
            return ConditionFailed
        self.heads[number], self.tail = draft.heads, number
        written.append((number, draft.body))
        if draft.key:
            self.keys[draft.key] = (number, draft.content)
        self.sealed = self.sealed or any(head.kind == "Seal" for head in draft.heads)
        return number, True

    def _holds(self, draft: Draft) -> bool:
        if draft.condition is None:
            return True
        after, unless = record_of(draft.condition.after), draft.condition.unless
        if after < self.first - 1 or after > self.tail:
            return False
        later = [(number, heads) for number, heads in self.heads.items() if number > after]
        return not any(unless is None or unless.fits_record(heads, number) for number, heads in later)


class Messages:
    """What all processes share: the messages, what the exact log decided, snapshots and blobs."""

    def __init__(self, log_id: str, seed: int) -> None:
        self.log_id = log_id
        self.dice = Choices(seed, "arbitration")
        self.messages: list[bytes] = []
        self.exact = ExactLog()
        self.decided: dict[int, Decision] = {}
        self.bodies: dict[int, bytes] = {}
        self.snapshots: list[bytes] = []
        self.blobs: dict[str, bytes] = {}
        self.lost = self.marks = self.doubled = self.restored = 0
        self.put(pack(Message(kind="begin", log=log_id)))

    def put(self, value: bytes, draft: Draft | None = None) -> int:
        """A message arrives."""
        self.messages.append(value)
        offset = len(self.messages) - 1
        if draft is not None:
            decision = self.decided[offset] = self.exact.append(draft, offset + 1)
            if decision == (offset + 1, True):
                self.bodies[offset + 1] = draft.body
            else:
                self.lost += 1
        return offset


class ArbitratedBase:
    """The log as one process has it."""

    def __init__(self, shared: Messages) -> None:
        self.shared = shared
        self.arbiter = Arbiter()
        self.log_id = shared.log_id
        if shared.snapshots and shared.dice.chance(0.7):
            self.arbiter = self._restored(shared.snapshots[-1])
            self._catch_up()  # what an opener does

    def append_now(self, draft: Draft) -> tuple[int, bool]:
        shared = self.shared
        if shared.dice.chance(1 / RESTORED_ONE_IN):
            self._rebuild()
        claim = claim_of(draft)
        answer = self.arbiter.judge(claim)
        if isinstance(answer, LogError) or not answer[1]:
            shared.marks += 1
            shared.put(pack(Message(kind="mark")))
            self._catch_up()
            answer = self.arbiter.judge(claim)
            expected = shared.exact.append(draft, -1) if isinstance(answer, LogError) or not answer[1] else None
            if expected is not None:
                self._compare(len(shared.messages), answer, expected)
        if not isinstance(answer, LogError) and answer[1]:
            value = asking(draft)
            offset = shared.put(value, draft)
            if shared.dice.chance(1 / DOUBLED_ONE_IN):
                shared.doubled += 1
                shared.put(value, draft)  # a message that was given up, and arrives all the same
            answer = self._catch_up(offset)
        if isinstance(answer, LogError):
            raise answer
        if answer[1]:
            shared.blobs.update(draft.blobs)
        if shared.dice.chance(1 / SAVED_ONE_IN):
            shared.snapshots = [*shared.snapshots[-3:], states.encode(self.arbiter)]
        return answer

    def _catch_up(self, wanted: int = -1) -> Answer:
        """Fold all messages; what became of the append at offset ``wanted``."""
        found: Answer = (0, True)
        for offset in range(self.arbiter.next, len(self.shared.messages)):
            answer = self.arbiter.fold(offset, self.shared.messages[offset])
            if offset in self.shared.decided:
                self._compare(offset, answer, self.shared.decided[offset])
            if offset == wanted and answer is not None:
                found = answer
        return found

    def _compare(self, offset: int, answer: Answer | None, expected: Decision) -> None:
        got = type(answer) if isinstance(answer, LogError) else answer
        _require(got == expected, f"message {offset}: arbitrated {got}, exactly {expected}")

    def _rebuild(self) -> None:
        """This process starts over, from a snapshot or from the first message, and is what it was."""
        before = self.arbiter.next
        self.shared.restored += 1
        fits = [data for data in self.shared.snapshots if states.decode(data).next <= before]
        fresh = self._restored(fits[-1]) if fits and self.shared.dice.chance(0.8) else Arbiter()
        for offset in range(fresh.next, before):
            fresh.fold(offset, self.shared.messages[offset])
        _require(fresh.digest() == self.arbiter.digest(), f"a state rebuilt at message {before} differs")
        self.arbiter = fresh

    @staticmethod
    def _restored(data: bytes) -> Arbiter:
        return states.decode(data)

    def read_now(self, after: int, limit: int, matching: Filter | None) -> Page:
        self._catch_up()
        if after < self.arbiter.first - 1:
            raise LogTrimmed("These records were trimmed", received=str(after))
        found: list[StoredRecord] = []
        upto = after
        for offset in range(max(after, 0), self.arbiter.tail):
            if len(found) >= limit:
                break
            if not self.arbiter.winners.has(offset):
                continue
            upto = offset + 1
            body = self.shared.bodies[upto]
            if matching is None or matching.fits_record(codec.read_head(body)[0].entries, upto):
                found.append(StoredRecord(upto, body))
        return Page(tuple(found), upto, end=upto >= self.arbiter.tail)

    def tail_now(self) -> int:
        self._catch_up()
        return self.arbiter.tail

    def last_checkpoint_now(self) -> int:
        self._catch_up()
        return self.arbiter.checkpoint if self.arbiter.checkpoint >= self.arbiter.first else 0

    def put_blob_now(self, digest: str, data: bytes) -> None:
        self.shared.blobs[digest] = data

    def get_blob_now(self, digest: str) -> bytes:
        if digest not in self.shared.blobs:
            raise BlobMissing("There is no such blob", received=digest)
        return self.shared.blobs[digest]

    def trim_now(self, before: int) -> None:
        self.shared.put(pack(Message(kind="trim", before=before)))
        self._catch_up()
        self.shared.exact.first = self.arbiter.first

    def close_now(self) -> None:
        """Nothing is held."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantViolated("arbitration_is_exact", message)


__all__ = ["ArbitratedBase", "ExactLog", "Messages"]
