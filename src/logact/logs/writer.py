"""One incarnation's pen: it keeps that incarnation's hash chain, and settles the fate of what it wrote.

Has at most one unacknowledged record, and repeats it byte for byte until its fate is known. It never judges entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from logact import codec
from logact import env as environment
from logact.entry import NewEntry, position_of
from logact.errors import (
    AppendUnknown,
    ChainConflict,
    ConditionFailed,
    KeyConflict,
    LogError,
    LogSealed,
    LogTrimmed,
)
from logact.logs.contract import Appended, Condition, Draft

if TYPE_CHECKING:
    from logact.logs.base import SharedLog

APPEND_RETRY_S_MAX = 20.0
"""How long a writer repeats an append whose fate is unknown before it gives the error to its caller."""


class Writer:
    """One incarnation's pen. Appends are serialised; each is acknowledged before the next is sent.

    After AppendUnknown the record may be in the log: the next ``append`` (or ``settle``) first repeats it byte
    for byte until the engine answers, so that the chain has no gap and nothing is written twice.
    """

    def __init__(self, log: SharedLog, incarnation: str | None = None) -> None:
        self.log = log
        self.env = environment.current()
        self.incarnation = incarnation or log.engine.writer_prefix + self.env.identifier()
        self.number = 0
        self.previous = codec.GENESIS
        self.last_body = b""
        self._lock = asyncio.Lock()
        self._unsettled: tuple[Draft, str] | None = None

    async def append(
        self,
        entries: Sequence[NewEntry],
        *,
        condition: Condition | None = None,
        key: str = "",
        blobs: Sequence[tuple[str, bytes]] = (),
    ) -> Appended:
        """Append a batch. Raises ConditionFailed, KeyConflict, AppendUnknown and the engine's own errors."""
        await self.log.open()
        async with self._lock:
            await self._settle()
            encoded = codec.encode_record(
                self.log.engine.stamp(entries),
                log=self.log.log_id,
                writer=self.incarnation,
                number=self.number + 1,
                previous=self.previous,
                time_ms=self.env.wall_ms(),
                randomness=self.env.random_bytes(codec.SALT_BYTES * len(entries)),
                key=key,
                sign=self.log.signer.sign if self.log.signer is not None else None,
            )
            draft = Draft(
                writer=self.incarnation,
                number=self.number + 1,
                body=encoded.body,
                content=encoded.content,
                heads=encoded.heads,
                key=key,
                condition=condition,
                blobs=tuple(blobs),
            )
            return await self._send(draft, encoded.hash)

    @property
    def wrote(self) -> bool:
        """Whether anything of this incarnation is, or may be, in the log."""
        return self.number > 0 or self._unsettled is not None

    async def settle(self) -> None:
        """Find out the fate of an unacknowledged record, if there is one."""
        async with self._lock:
            await self._settle()

    async def _settle(self) -> None:
        if self._unsettled is not None:
            try:
                await self._send(*self._unsettled)
            except (ConditionFailed, KeyConflict, LogSealed):
                pass  # its fate is known now: it did not happen, and its caller was told "unknown" before

    async def _send(self, draft: Draft, record_hash: str) -> Appended:
        """Send one draft until its fate is known, or the retry time is over."""
        began = self.env.monotonic()
        pause_s = 0.02
        doubtful = self._unsettled is not None
        self._unsettled = (draft, record_hash)  # from here on a cancelled caller leaves the fate open
        while True:
            try:
                record, fresh = await self.log.engine.append(draft)
            except AppendUnknown:
                doubtful = True
                if self.env.monotonic() - began > APPEND_RETRY_S_MAX:
                    raise
                await self.env.sleep(pause_s * (0.5 + self.env.random()))
                pause_s = min(pause_s * 2, 1.0)
                continue
            except LogSealed:
                self._unsettled = None  # it is certainly not there, whatever became of earlier tries
                if not await self.log.move_on():
                    raise
                self._unsettled = (draft, record_hash)
                continue  # the same bytes, where the log goes on
            except (ConditionFailed, KeyConflict):
                self._unsettled = None  # final for these bytes: what stood against them does not go away
                raise
            except LogError as error:
                if not doubtful:
                    self._unsettled = None
                    raise
                # this try certainly failed, an earlier one may still have happened
                raise AppendUnknown("An append's fate is unknown", received=str(error)) from error
            own = fresh or (doubtful and await self._is_own(record, draft, record_hash))
            self._unsettled = None
            if own:
                self.number, self.previous, self.last_body = draft.number, record_hash, draft.body
            elif not doubtful and not draft.key:
                raise ChainConflict(
                    "A record of this incarnation was in the log before it was written",
                    received=f"writer {draft.writer}, number {draft.number}",
                    todo="start a new incarnation",
                )
            return Appended(position_of(record), own)

    async def _is_own(self, record: int, draft: Draft, record_hash: str) -> bool:
        """Whether the record found under this draft's identity or key is this very draft, from an earlier try."""
        if not draft.key:
            return True  # it can only have been found by its identity
        try:
            page = await self.log.engine.read(record - 1, 1)
        except LogTrimmed:
            return False  # an old record that has this key; the one in doubt is recent
        except LogError as error:
            raise AppendUnknown("An append's fate is unknown", received=str(error)) from error
        # by hash: an erasure may have changed the bytes since
        return any(codec.read_head(stored.body)[1] == record_hash for stored in page.records)
