"""A log engine for simulated processes: a real engine's synchronous core behind a network that fails as planned.

What is in flight belongs to the world: an append whose process dies arrives all the same, or is dropped, as the
plan says. Bytes are never altered, and what the base engine holds is the only truth.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from logact.errors import AppendUnknown, LogError, LogUnavailable, ReadFailed
from logact.logs.base import READ_RECORDS_MAX, Draft, Engine, EngineInfo, Filter, Page
from logact.logs.memory import MemoryEngine
from logact.logs.sqlite_store import SqliteStore
from logact.testing.loop import Choices
from logact.testing.plan import Cut, Fate, Plan
from logact.testing.world import Process, World

T = TypeVar("T")

CUT_ANSWER_S = 0.4
"""How long a process that is cut off waits before it learns that nothing came back."""


class Base(Protocol):
    """What really holds the records, as one process reaches it: every call is one atomic step."""

    @property
    def log_id(self) -> str: ...

    def append_now(self, draft: Draft) -> tuple[int, bool]: ...
    def read_now(self, after: int, limit: int, matching: Filter | None) -> Page: ...
    def tail_now(self) -> int: ...
    def last_checkpoint_now(self) -> int: ...
    def put_blob_now(self, digest: str, data: bytes) -> None: ...
    def get_blob_now(self, digest: str) -> bytes: ...
    def trim_now(self, before: int) -> None: ...
    def close_now(self) -> None: ...


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    raise RuntimeError("it waits")


class MemoryBase:
    """The memory engine; all processes share one."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.engine = engine

    @property
    def log_id(self) -> str:
        return self.engine.log_id

    def append_now(self, draft: Draft) -> tuple[int, bool]:
        return self.engine.append_now(draft)

    def tail_now(self) -> int:
        return self.engine.tail_now()

    def read_now(self, after: int, limit: int, matching: Filter | None) -> Page:
        return at_once(self.engine.read(after, limit, matching))

    def last_checkpoint_now(self) -> int:
        return at_once(self.engine.last_checkpoint())

    def put_blob_now(self, digest: str, data: bytes) -> None:
        at_once(self.engine.put_blob(digest, data))

    def get_blob_now(self, digest: str) -> bytes:
        return at_once(self.engine.get_blob(digest))

    def trim_now(self, before: int) -> None:
        at_once(self.engine.trim(before))

    def close_now(self) -> None:
        """It lives on."""


class SqliteBase:
    """The SQLite engine's store; each process opens the file for itself, and a dead one's handles are closed."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path, "main", unsafe_network=True)
        self.store.open()

    @property
    def log_id(self) -> str:
        return self.store.log_id

    def append_now(self, draft: Draft) -> tuple[int, bool]:
        record, fresh = self._commit(self.store.append(draft))
        return int(record), bool(fresh)

    def _commit(self, item: Any) -> Any:
        staged = self.store.stage([item], wait=False)
        if staged == "open":
            self.store.commit([item])
        elif staged != "settled":
            raise RuntimeError(f"a transaction of one item is {staged}")
        if item.error is not None:
            raise item.error
        return item.result

    def read_now(self, after: int, limit: int, matching: Filter | None) -> Page:
        return self.store.read(after, limit, matching, brief=False)

    def tail_now(self) -> int:
        return self.store.tail()

    def last_checkpoint_now(self) -> int:
        return self.store.last_checkpoint()

    def put_blob_now(self, digest: str, data: bytes) -> None:
        self._commit(self.store.put_blob(digest, data))

    def get_blob_now(self, digest: str) -> bytes:
        return self.store.get_blob(digest)

    def trim_now(self, before: int) -> None:
        while self._commit(self.store.trim(before)):
            pass

    def close_now(self) -> None:
        self.store.close()


class SimulatedLog:
    """The base, the network around it, and who waits for news. ``committed`` is told of every new record."""

    def __init__(self, world: World, plan: Plan, open_base: Callable[[], Base]) -> None:
        self.world = world
        self.open_base = open_base
        self.base = open_base()
        self.committed: Callable[[int, Draft], None] = lambda record, draft: None
        self.appends: dict[tuple[str, int], Fate] = {(who, nth): fate for who, nth, fate in plan.appends}
        self.reads = frozenset(plan.reads)
        self.in_flight = plan.in_flight
        self.stops_ahead = plan.has_twins  # who is stopped in front of an append has not sent it yet
        self.calm = False
        self.cut: dict[str, Cut] = {}  # by process: how it is cut off from the log
        self.append_count: Counter[str] = Counter()
        self.read_count: Counter[str] = Counter()
        self.waiting: list[tuple[Process, int, asyncio.Future[bool]]] = []
        self.choices = Choices(plan.schedule, "in flight")

    def port(self, process: Process) -> Port:
        """The engine as this process has it."""
        return Port(self, process)

    def ring(self, name: str = "") -> None:
        """There may be news: wake those who wait (all of one process, if it is named)."""
        kept = []
        tail = self.base.tail_now()
        for process, after, future in self.waiting:
            if future.done() or process.dead:
                continue
            if name == process.name or (tail > after and self.hears(process.name)):
                self.world.later(self.world.delays.delay(0.0, 0.004), settle, future, True)
            else:
                kept.append((process, after, future))
        self.waiting = kept

    def hears(self, name: str) -> bool:
        """Whether what the log says reaches a process."""
        return self.cut.get(name) not in ("cut", "deaf")

    def heal(self, name: str) -> None:
        """A process that was cut off is back."""
        self.cut.pop(name, None)
        self.ring(name)

    def dropped(self, process: Process) -> bool:
        """Whether a request of a process that is dead by now never arrives."""
        if not process.dead or self.in_flight == "arrives":
            return False
        gone = self.in_flight == "dropped" or self.choices.chance(0.5)
        self.world.count("in_flight_dropped" if gone else "in_flight_arrived")
        return gone


def settle(future: asyncio.Future[Any], found: object) -> None:
    """Answer a request, unless nobody waits for it any more."""
    if not future.done():
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)


class Port(Engine):
    """The engine of one simulated process."""

    def __init__(self, log: SimulatedLog, process: Process) -> None:
        self.log = log
        self.process = process
        self.world = log.world
        self.base = log.open_base()
        self.log_id = self.base.log_id
        self.reads_failed = 0
        self._seen = 0
        process.on_kill.append(self.base.close_now)

    async def open(self) -> None:
        self.process.check_alive()

    async def close(self) -> None:
        self.process.check_alive()

    # --- writing ------------------------------

    async def append(self, draft: Draft) -> tuple[int, bool]:
        self.process.check_alive()
        log, world = self.log, self.world
        if log.stops_ahead and self.process.frozen_until > world.loop.time():
            await asyncio.sleep(0)
            self.process.check_alive()
        nth = log.append_count[self.process.name]
        log.append_count[self.process.name] += 1
        fate = None if log.calm else log.appends.pop((self.process.name, nth), None)
        done: asyncio.Future[tuple[int, bool]] = world.loop.create_future()
        go_s = world.delays.delay(0.0005, 0.004)
        if fate is not None:
            world.count(f"append_{fate}")
        if fate == "lost":
            world.later(go_s + 0.1, settle, done, AppendUnknown("no answer came (lost)"))
        elif fate == "unavailable":
            world.later(go_s, settle, done, LogUnavailable("the log is away"))
        elif fate == "error_then_committed":
            world.later(go_s, settle, done, AppendUnknown("no answer came (it is still on its way)"))
            world.later(go_s + world.delays.delay(0.05, 3.0), self._arrive, draft, None, "")
        else:
            slow_s = world.delays.delay(0.3, 2.0) if fate == "slow" else 0.0
            world.later(go_s + slow_s, self._arrive, draft, done, fate)
        return await done

    def _arrive(self, draft: Draft, done: asyncio.Future[tuple[int, bool]] | None, fate: Fate | str | None) -> None:
        """The request reaches the base; then its answer travels back."""
        log, world, process = self.log, self.world, self.process
        if world.over or log.dropped(process):
            return
        cut = log.cut.get(process.name)
        if cut in ("cut", "mute"):
            world.count("append_cut_off" if cut == "cut" else "append_mute")
            if done is not None:
                world.later(CUT_ANSWER_S, settle, done, AppendUnknown("no answer came (cut off)"))
            return
        base = log.base if process.dead else self.base  # its own handles are closed by now
        answer: tuple[int, bool] | LogError
        try:
            answer = base.append_now(draft)
        except LogError as error:
            answer = error
        else:
            if answer[1]:
                try:
                    log.committed(answer[0], draft)
                except BaseException as error:
                    world.fail(error)
                log.ring()
        if done is None:
            return
        if fate == "committed_then_error":
            answer = AppendUnknown("no answer came (committed)")
        if cut == "unheard":
            world.count("answer_unheard")
            world.later(CUT_ANSWER_S, settle, done, AppendUnknown("no answer came (unheard)"))
            return
        world.later(world.delays.delay(0.0005, 0.004), settle, done, answer)

    # --- reading ------------------------------

    async def _reading(self, faulty: bool = True) -> None:
        """The way to the log and back, which may fail."""
        self.process.check_alive()
        log, world = self.log, self.world
        await asyncio.sleep(max(0.0, world.delays.delay(-0.002, 0.002)))  # half of the reads are answered at once
        self.process.check_alive()
        if not faulty:
            return
        nth = log.read_count[self.process.name]
        log.read_count[self.process.name] += 1
        if not log.hears(self.process.name):
            world.count("read_cut_off" if log.cut[self.process.name] == "cut" else "read_deaf")
            self.reads_failed += 1
            await asyncio.sleep(CUT_ANSWER_S)
            raise ReadFailed("the log cannot be reached (cut off)")
        if not log.calm and (self.process.name, nth) in log.reads:
            world.count("read_failed")
            self.reads_failed += 1
            raise ReadFailed("the log could not be read, as planned")

    async def read(self, after: int, limit: int = READ_RECORDS_MAX, matching: Filter | None = None) -> Page:
        await self._reading()
        page = self.base.read_now(after, limit, matching)
        self._seen = max(self._seen, page.upto if page.upto > after else 0)
        return page

    async def tail(self) -> int:
        await self._reading()
        return self.base.tail_now()

    async def last_checkpoint(self) -> int:
        await self._reading()
        return self.base.last_checkpoint_now()

    def hint(self) -> int:
        return self._seen

    async def wait(self, after: int, timeout_s: float) -> bool:
        self.process.check_alive()
        if self.log.hears(self.process.name) and self.base.tail_now() > after:
            await asyncio.sleep(0)
            return True
        future: asyncio.Future[bool] = self.world.loop.create_future()
        self.log.waiting.append((self.process, after, future))
        timer = self.world.later(timeout_s, settle, future, False)
        try:
            return await future
        finally:
            timer.cancel()

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self._reading()
        if self.log.cut.get(self.process.name) == "mute":
            self.world.count("append_mute")
            await asyncio.sleep(CUT_ANSWER_S)
            raise AppendUnknown("no answer came (mute)")
        self.base.put_blob_now(digest, data)

    async def get_blob(self, digest: str) -> bytes:
        await self._reading()
        return self.base.get_blob_now(digest)

    async def erase(self, record: int, index: int) -> None:
        raise NotImplementedError("no simulated process erases")

    async def trim(self, before: int) -> None:
        await self._reading()
        self.base.trim_now(before)

    def info(self) -> EngineInfo:
        return EngineInfo(url="simulated:", engine="simulated", survives="its processes", wakes_by="push")
