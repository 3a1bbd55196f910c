"""A log that fails on purpose: wraps any engine and gives appends and reads the fates that real ones meet.

* *lost*: AppendUnknown, and the record is never there;
* *committed then error*: the record is there, and AppendUnknown all the same;
* *error then committed later*: AppendUnknown now; the record lands at a later append, read or ``release()``.

With no faults set it is the inner engine, and passes the same conformance suite. It never alters bytes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import msgspec

from logact import env as environment
from logact.errors import AppendUnknown, LogError, ReadFailed
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page

Fate = Literal["fine", "lost", "committed_then_error", "error_then_committed", "unavailable"]
FATES: tuple[Fate, ...] = ("lost", "committed_then_error", "error_then_committed", "unavailable")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which faults happen: first those of ``script`` (one fate per append), then by chance, from ``seed``.

    ``lost``, ``committed_then_error``, ``error_then_committed``, ``unavailable`` (a definite failure), ``slow``
    and ``read_error`` are chances in [0, 1]; ``slow_s_max`` is in seconds. A late record lands after at most
    ``late_operations_max`` further appends or reads.
    """

    script: tuple[Fate, ...] = ()
    lost: float = 0.0
    committed_then_error: float = 0.0
    error_then_committed: float = 0.0
    unavailable: float = 0.0
    slow: float = 0.0
    slow_s_max: float = 0.01
    read_error: float = 0.0
    late_operations_max: int = 3
    seed: int = 0


class FaultyEngine(Engine):
    """An engine that follows a :class:`Plan`. ``fired`` counts how often each kind of fault happened."""

    def __init__(self, inner: Engine, plan: Plan | None = None) -> None:
        self.inner = inner
        self.plan = plan or Plan()
        self.fired: Counter[str] = Counter()
        self._script = list(self.plan.script)
        self._dice = random.Random(self.plan.seed)
        self._late: list[tuple[int, Draft]] = []

    def change(self, plan: Plan) -> None:
        """Go on with another plan. Late records stay late."""
        self.plan = plan
        self._script = list(plan.script)
        self._dice = random.Random(plan.seed)

    async def open(self) -> None:
        self.inner.create = self.create
        await self.inner.open()
        self.log_id = self.inner.log_id

    async def close(self) -> None:
        await self.inner.close()

    async def append(self, draft: Draft) -> tuple[int, bool]:
        await self._before()
        fate = self._fate()
        if fate != "fine":
            self.fired[fate] += 1
        if fate == "unavailable":
            raise LogError("The log is away, as planned; nothing was written")
        if fate == "committed_then_error":
            await self.inner.append(draft)
        if fate == "error_then_committed":
            self._late.append((self._dice.randint(1, max(1, self.plan.late_operations_max)), draft))
        if fate != "fine":
            raise AppendUnknown(f"The answer to an append did not come ({fate}, as planned)")
        return await self.inner.append(draft)

    async def release(self) -> int:
        """Let every late record arrive now; returns how many the log still took."""
        late, self._late = self._late, []
        return await self._arrive(draft for _, draft in late)

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        await self._before()
        self._maybe_unreadable()
        return await self.inner.read(after, limit, matching)

    async def tail(self) -> int:
        await self._before()
        self._maybe_unreadable()
        return await self.inner.tail()

    async def last_checkpoint(self) -> int:
        self._maybe_unreadable()
        return await self.inner.last_checkpoint()

    def hint(self) -> int:
        return self.inner.hint()

    async def wait(self, after: int, timeout_s: float) -> bool:
        return await self.inner.wait(after, timeout_s)

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self.inner.put_blob(digest, data)

    async def get_blob(self, digest: str) -> bytes:
        self._maybe_unreadable()
        return await self.inner.get_blob(digest)

    async def erase(self, record: int, index: int) -> None:
        await self.inner.erase(record, index)

    async def trim(self, before: int) -> None:
        await self.inner.trim(before)

    def info(self) -> EngineInfo:
        return self.inner.info()

    def _fate(self) -> Fate:
        if self._script:
            return self._script.pop(0)
        for fate in FATES:
            chance = getattr(self.plan, fate)
            if chance and self._dice.random() < chance:
                return fate
        return "fine"

    def _maybe_unreadable(self) -> None:
        if self.plan.read_error and self._dice.random() < self.plan.read_error:
            self.fired["read_error"] += 1
            raise ReadFailed("The log could not be read, as planned")

    async def _before(self) -> None:
        """What happens before any operation: slowness, and late records whose time has come."""
        if self.plan.slow and self._dice.random() < self.plan.slow:
            self.fired["slow"] += 1
            await environment.current().sleep(self._dice.random() * self.plan.slow_s_max)
        if self._late:
            due = [draft for left, draft in self._late if left <= 1]
            self._late = [(left - 1, draft) for left, draft in self._late if left > 1]
            await self._arrive(due)

    async def _arrive(self, drafts: Iterable[Draft]) -> int:
        taken = 0
        for draft in drafts:
            try:
                _, fresh = await self.inner.append(draft)
            except LogError:
                self.fired["late_refused"] += 1  # its writer went on meanwhile, or its condition no longer holds
                continue
            taken += fresh
            self.fired["late_landed" if fresh else "late_repeated"] += 1
        return taken
