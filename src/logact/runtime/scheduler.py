"""Runs jobs at times of cron expressions, with its state in the log: each time at most once, by however many.

Before a job runs, a ``Notice`` claims its time: under an idempotency key, and conditional on nothing of this job
having come since. So of two schedulers one runs it, and a restarted one knows what was run. A time that was claimed
and whose run a crash cut off is not run again; the log shows it (a claim without its end). Needs the extra
``cron``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from logact import env as environment
from logact.entry import NewEntry, Notice
from logact.errors import ConditionFailed, KeyConflict, MissingExtra, SpecError
from logact.logs.base import Condition, Filter, SharedLog, where

CLAIMED = "schedule_claimed"
DONE = "schedule_done"
BEGUN = "schedule_begun"

GRACE_S = 90.0
"""A run that is later than this was missed."""

LOOK_S_MAX = 30.0
"""How long a scheduler sleeps at most: the wall clock may jump meanwhile."""

MISSED_COUNTED_MAX = 1000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job and its times. ``missed``: what was missed is run ``once`` (however often), or ``skip``ped.

    ``cron`` has five fields (or six, with seconds first), in the time zone ``zone``.
    """

    name: str
    cron: str
    missed: Literal["once", "skip"] = "once"
    zone: str = "UTC"


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """One time of a job. ``missed`` counts earlier times that nobody ran; ``late``: it was itself missed."""

    job: Job
    at_ms: int
    missed: int = 0
    late: bool = False


Work = Callable[[Due], Awaitable[Mapping[str, Any]]]


def check_job(job: Job) -> None:
    """Raise SpecError for a job whose times cannot be read, MissingExtra without the extra."""
    _times(job, 0)


def _times(job: Job, from_ms: int, *, back: bool = False) -> Any:
    """The times of a job after (or, ``back``, up to) a moment, as an iterator of datetimes."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise MissingExtra("Schedules need an extra", todo="pip install 'logact[cron]'") from error
    try:
        start = datetime.fromtimestamp(from_ms / 1000, ZoneInfo(job.zone))
        return CronSim(job.cron, start, reverse=back)
    except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
        raise SpecError(
            f"The times of {job.name} cannot be read",
            received=f"{job.cron!r} in {job.zone!r}: {type(error).__name__} {error}".strip(),
            expected='a cron expression such as "*/15 * * * *", and a time zone such as "UTC" or "Europe/Oslo"',
        ) from error


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def due(job: Job, since_ms: int, now_ms: int) -> Due | None:
    """The latest time of a job after ``since_ms`` and up to now; None if there is none. Pure."""
    latest = next(_times(job, now_ms + 1, back=True), None)
    if latest is None or _ms(latest) <= since_ms:
        return None
    missed = 0
    for moment in _times(job, since_ms):
        if _ms(moment) >= _ms(latest) or missed >= MISSED_COUNTED_MAX:
            break
        missed += 1
    return Due(job=job, at_ms=_ms(latest), missed=missed, late=now_ms - _ms(latest) > GRACE_S * 1000)


def next_ms(job: Job, now_ms: int) -> int:
    """When a job is due next (wall clock, ms; 0: never). Pure."""
    moment = next(_times(job, now_ms), None)
    return _ms(moment) if moment is not None else 0


class Scheduler:
    """Runs jobs on a log. ``work(due)`` does it; what it returns stands in the log as the run's outcome."""

    def __init__(self, log: SharedLog, jobs: Sequence[Job], work: Work, *, name: str = "scheduler") -> None:
        for job in jobs:
            check_job(job)
        self.log = log
        self.jobs = list(jobs)
        self.work = work
        self.name = name
        self.env = environment.current()
        self._pen = log.writer()

    async def run(self) -> None:
        """Run what is due, whenever it is, until cancelled."""
        while True:
            await self.tick()
            now_ms = self.env.wall_ms()
            times = [one for job in self.jobs if (one := next_ms(job, now_ms))]
            wait_s = min([LOOK_S_MAX, *((one - now_ms) / 1000 for one in times)])
            await self.env.sleep(max(0.05, wait_s))

    async def tick(self) -> list[Due]:
        """Run what is due now, each at most once in the world; what this scheduler ran."""
        ran = []
        for job in self.jobs:
            found = await self._claimed(job)
            if found is None:
                continue
            outcome = await self.work(found)
            data = {**outcome, "job": job.name, "at_ms": found.at_ms}
            await self._append(job, Notice(code=DONE, message=f"{job.name} ran", data=data))
            ran.append(found)
        return ran

    async def _claimed(self, job: Job) -> Due | None:
        """Claim the time that is due, if there is one and nobody was faster."""
        since_ms, position = await self._last(job)
        now_ms = self.env.wall_ms()
        if not position:
            begun = Notice(code=BEGUN, message=f"{job.name} runs at {job.cron}", data={"at_ms": now_ms})
            await self._append(job, begun, after=0)
            return None
        found = due(job, since_ms, now_ms)
        if found is None:
            return None
        skip = found.late and job.missed == "skip"
        claim = Notice(
            code=CLAIMED,
            message=f"{job.name} is {'skipped, since its time is over' if skip else 'run'}",
            data={"at_ms": found.at_ms, "missed": found.missed, "skipped": skip},
        )
        mine = await self._append(job, claim, after=position, key=f"schedule:{job.name}:{found.at_ms}")
        return found if mine and not skip else None

    async def _last(self, job: Job) -> tuple[int, int]:
        """The last time that was claimed (or when it was begun), and where the job's last notice stands.

        Where all that said so was trimmed, the time at which the log begins: a later claim would have been kept.
        """
        at_ms = position = 0
        async for entry in self.log.read_kept(matching=self._filter(job)):
            said = entry.payload
            position = entry.position
            if isinstance(said, Notice) and said.code in (CLAIMED, BEGUN) and isinstance(said.data.get("at_ms"), int):
                at_ms = max(at_ms, said.data["at_ms"])
        if not at_ms and (begins := await self.log.begins()):
            async for entry in self.log.read_kept(upto=begins):
                at_ms, position = entry.time_ms, position or begins
        return at_ms, position

    @staticmethod
    def _filter(job: Job) -> Filter:
        return where(kinds=["Notice"], agents=[f"schedule:{job.name}"])

    async def _append(self, job: Job, notice: Notice, *, after: int | None = None, key: str = "") -> bool:
        """Write about a job; whether it was this call that did (another scheduler may have been faster)."""
        entry = NewEntry(payload=notice, role="supervisor", name=self.name, agent=f"schedule:{job.name}")
        condition = Condition(after, self._filter(job)) if after is not None else None
        try:
            return (await self._pen.append([entry], condition=condition, key=key)).fresh
        except (ConditionFailed, KeyConflict):
            return False
