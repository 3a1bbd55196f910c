"""An engine over plain partitions of messages: conditions, identities, keys and seals come from arbitration.

* An append is a message; the fold of all messages up to it says what became of it (``arbitration``).
* A record's number is its message's offset + 1.
* A read that would say "there is nothing more" first sends a *mark* and reads up to it: whatever was acknowledged
  before the read began stands before the mark. So no reader trusts a broker's word for where the log ends.
* An append that this process can already see failing is not sent; a mark is, and the append is judged there.

This file owns what the engine offers. Life, fold and marks are in ``arbitrated_fold``; it knows no broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from logact import codec
from logact import env as environment
from logact.errors import BlobMissing, LogError, LogTrimmed, ReadFailed, UsageError
from logact.logs import arbitration_state as states
from logact.logs.arbitrated_fold import ArbitratedFold, settle
from logact.logs.arbitration import Answer, BlobPlace, Message, asking, claim_of, pack
from logact.logs.base import READ_RECORDS_MAX, Draft, Filter, Page, StoredRecord

BLOB_PIECE_BYTES_MAX = 900_000

SCAN_RECORDS_MAX = 4096
"""How many offsets one read looks at where little matches its filter."""

FETCH_MESSAGES_MAX = 1024

SNAPSHOT_MESSAGES = 5_000
"""A snapshot is due after so many messages, or a twentieth of what there is to remember, if that is more."""


class ArbitratedEngine(ArbitratedFold):
    """One log over partitions. Belongs to one event loop at a time; may be closed and opened again elsewhere.

    ``snapshots`` counts the snapshots that this object wrote.
    """

    snapshots = 0
    snapshot_messages = SNAPSHOT_MESSAGES

    # --- writing ------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        self.check()
        claim = claim_of(draft)
        answer = self.arbiter.judge(claim)
        if _refuses(answer):
            await self.prove()
            answer = self.arbiter.judge(claim)
        if not _refuses(answer):
            env = environment.current()
            places = await self._store([(name, data) for name, data in draft.blobs if not self._stored(name)])
            with self.asking():
                if env.points:
                    env.point("partition:sending")
                offset = await self.send(asking(draft, places, self.log_id))
                if env.points:
                    env.point("partition:acknowledged")
                await self.past(offset, unknown="An append is in the log, and what became of it cannot be read")
                answer = self.answer(offset)
            await self._maybe_save()
        if isinstance(answer, LogError):
            raise answer
        return answer

    async def put_blob(self, digest: str, data: bytes) -> None:
        self.check()
        if not self._stored(digest):
            await self.send(pack(Message(kind="blob", blobs=await self._store([(digest, data)]))))

    def _stored(self, digest: str) -> bool:
        return digest in self.arbiter.blobs

    async def _store(self, blobs: Sequence[tuple[str, bytes]]) -> tuple[BlobPlace, ...]:
        """Send the pieces of some blobs, and wait until they are durable."""
        sent = []
        for digest, data in blobs:
            starts = range(0, max(len(data), 1), BLOB_PIECE_BYTES_MAX)
            pieces = [data[start : start + BLOB_PIECE_BYTES_MAX] for start in starts]
            sent.append((digest, len(data), [self.partitions.send("blobs", piece) for piece in pieces]))
        return tuple(
            [BlobPlace(digest, size, tuple([await future for future in futures])) for digest, size, futures in sent]
        )

    async def erase(self, record: int, index: int) -> None:
        self.check()
        await self.past(await self.send(pack(Message(kind="erase", record=record, index=index))))
        if record >= self.arbiter.first and not self.arbiter.has(record):
            raise UsageError("There is no such record", received=f"record {record}")

    async def trim(self, before: int) -> None:
        self.check()
        await self.past(await self.send(pack(Message(kind="trim", before=before))))
        await self.save()
        # what is deleted lies below this trim's own message, which the snapshot covers
        await self.partitions.delete_before("log", self.arbiter.first - 1)

    async def save(self) -> None:
        """Write a snapshot of everything that is folded, and drop those before it."""
        arbiter = self.arbiter
        messages = states.pieces(arbiter, environment.current().identifier(), codec.digest(self._last))
        upto = arbiter.next
        offsets = [await future for future in [self.partitions.send("state", one) for one in messages]]
        await self.send(pack(Message(kind="saved", upto=upto)))
        self.snapshots += 1
        await self.partitions.delete_before("state", min(offsets))

    async def _maybe_save(self) -> None:
        """Write a snapshot if one is due. A failure costs the next opener time, and nothing else."""
        arbiter = self.arbiter
        remembered = len(arbiter.writers) + len(arbiter.keys) + len(arbiter.blobs)
        if arbiter.next - arbiter.saved < max(self.snapshot_messages, remembered // 20) or self._saving:
            return
        self._saving = True
        try:
            await self.save()
        except LogError:
            pass
        finally:
            self._saving = False

    # --- reading ------------------------------

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        self.check()
        limit = min(limit, READ_RECORDS_MAX)
        if limit <= 0:
            return Page((), after)
        if after < self.arbiter.tail:
            page = await self._page(after, limit, matching)
            if page.upto > after:
                return page
        await self.prove()
        tail = self.arbiter.tail
        page = await self._page(after, limit, matching)
        return Page(page.records, page.upto, end=page.upto >= tail)

    async def _page(self, after: int, limit: int, matching: Filter | None) -> Page:
        """Records above ``after`` among those that are folded."""
        self._check_kept(after)
        end = self.arbiter.tail
        found: list[StoredRecord] = []
        upto = after
        while upto < end and len(found) < limit and upto - after < SCAN_RECORDS_MAX:
            for stored in await self._records(upto, end, limit):
                upto = stored.record
                if matching is not None:
                    heads = codec.read_head(stored.body)[0].entries
                    if not matching.fits_record(heads, upto):
                        continue
                found.append(self._as_erased(stored))
                if len(found) >= limit:
                    break
            self._check_kept(after)
        return Page(tuple(found), upto)

    async def _records(self, after: int, end: int, limit: int) -> list[StoredRecord]:
        """Some records above ``after``, at least one: ``end`` is one."""
        cached = self.recent.after(after, limit)
        if cached:
            return cached
        cursor = after  # the offset of record after + 1
        while cursor < end:
            messages = await self.partitions.fetch("log", cursor, min(end, cursor + FETCH_MESSAGES_MAX))
            if not messages:
                break
            found = [
                StoredRecord(offset + 1, value.partition(b"\n")[2])
                for offset, value in messages
                if self.arbiter.winners.has(offset)
            ]
            if found:
                return found
            cursor = messages[-1][0] + 1
        self._check_kept(after)
        raise ReadFailed("Records that were there could not be read", received=f"nothing after record {after}")

    def _as_erased(self, stored: StoredRecord) -> StoredRecord:
        body = stored.body
        for index in self.arbiter.erased.get(stored.record, ()):
            body = codec.erase_payload(body, index)
        return StoredRecord(stored.record, body)

    def _check_kept(self, after: int) -> None:
        if after < self.arbiter.first - 1:
            raise LogTrimmed(
                "These records were trimmed",
                received=str(after),
                expected=f"{self.arbiter.first - 1} or later",
            )

    async def tail(self) -> int:
        await self.prove()
        return self.arbiter.tail

    async def last_checkpoint(self) -> int:
        await self.prove()
        return self.arbiter.checkpoint if self.arbiter.checkpoint >= self.arbiter.first else 0

    def hint(self) -> int:
        return self.arbiter.tail

    def follows(self, record: int, previous: int) -> bool:
        known = self.arbiter.next >= record and record - previous < SCAN_RECORDS_MAX
        return known and not self.arbiter.winners.any_between(previous, record - 1)

    async def wait(self, after: int, timeout_s: float) -> bool:
        self.check()
        if self.arbiter.tail > after:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        entry = (after, future)
        self._waiters.append(entry)
        timeout = loop.call_later(max(timeout_s, 0.0), settle, future, False)
        try:
            return await future
        finally:
            timeout.cancel()
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def get_blob(self, digest: str) -> bytes:
        self.check()
        if not self._stored(digest):
            await self.prove()
        place = self.arbiter.blobs.get(digest)
        if place is None:
            raise BlobMissing("There is no such blob", received=digest)
        data = b"".join([await self._piece(offset) for offset in place.offsets])
        if len(data) != place.size:
            raise ReadFailed(
                "A blob could not be read whole", received=f"{len(data)} bytes", expected=f"{place.size}"
            )
        return data

    async def _piece(self, offset: int) -> bytes:
        for _, value in await self.partitions.fetch("blobs", offset, offset + 1):
            return value
        raise ReadFailed("A piece of a blob could not be read", received=f"offset {offset}")


def _refuses(answer: Answer) -> bool:
    return isinstance(answer, LogError) or not answer[1]


__all__ = ["ArbitratedEngine"]
