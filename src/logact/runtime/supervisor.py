"""The supervisor: starts the parts of an agent as processes, watches them, and starts them again when they end.

What it did stands in the log (claims, notices, findings), so it may die itself: the next one sees whether it is gone,
ends the children that it left, remembers the restarts that count, and starts the set anew. Never two sets: a claim in
the log names the one supervisor of an agent, and one that sees another name there ends its children and itself.

It never judges, decides or acts, and needs the log for none of what keeps its children alive: while the log is away
it goes on, and writes down later what it did.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from logact import env as environment
from logact.core import supervising
from logact.core.state import State
from logact.entry import Control, Entry, Finding, Notice
from logact.errors import Fenced, LogCorrupt, LogError, SupervisionFailed
from logact.logs.base import SharedLog
from logact.runtime import processes
from logact.runtime.leaving import Leave
from logact.runtime.slots import Part, Settings, Slot
from logact.runtime.supervision import Chronicle

LOOK_S = 0.5
"""How often pulses are looked at; the end of a process wakes at once."""

GAP_S_MAX = 5.0
"""If the supervisor itself stood still for longer, nobody's silence meanwhile counts."""

Tell = Callable[[str, dict[str, Any]], None]


class Supervisor:
    """Supervises the parts of one agent. ``tell(event, facts)`` hears what happens, for people.

    ``whole_process`` says that this process does nothing else: then it takes over what its children leave behind when
    they die (on Linux), and ends it.
    """

    def __init__(
        self,
        log: SharedLog,
        agent: str,
        parts: Sequence[Part],
        settings: Settings | None = None,
        *,
        tell: Tell = lambda event, facts: None,
        whole_process: bool = False,
    ) -> None:
        self.env = environment.current()
        self.agent = agent
        self.settings = settings or Settings()
        self.slots = {part.name: Slot(part) for part in parts}
        self.tell = tell
        self.whole_process = whole_process
        self.chronicle = Chronicle(log, agent)
        self.restarts = 0
        self._ends_ms: list[int] = []
        self._wake = asyncio.Event()
        self._read: deque[tuple[float, int]] = deque()  # when the fold stood where, for who lags behind
        self._news = 0  # the last entry that may give a resting agent something to do
        self._looked = self.env.monotonic()
        self._held = ""
        self._problem: BaseException | None = None
        self.chronicle.tail.observe(self._observe)

    async def run(self, leave: Leave, *, takeover: bool = False) -> None:
        """Supervise until asked to leave, or stopped through the log.

        Raises AgentBusy if a live supervisor has the agent, Fenced if another one took it over, and
        SupervisionFailed when it gives up.
        """
        await self.chronicle.open(takeover=takeover, grace_s=self.settings.stop_s + 2)
        self.tell("supervising", {"parts": list(self.slots), "strategy": self.settings.strategy})
        await self._end_orphans()
        self._recall(await self.chronicle.earlier_ends())
        processes.adopt_orphans(self.whole_process)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (self._follow(), self.chronicle.write(), self._heed(leave))]
            try:
                await self._keep(group, leave)
            except (LogError, SupervisionFailed, Fenced) as problem:
                self._problem = problem
            finally:
                await self._stop(list(self.slots.values()))
                for task in tasks:
                    task.cancel()
        processes.adopt_orphans(False)
        await self.chronicle.close(still_mine=not isinstance(self._problem, Fenced))
        if self._problem is not None:
            raise self._problem
        self.tell("stopped", {"restarts": self.restarts})

    # --- the loop ------------------------------

    async def _keep(self, group: asyncio.TaskGroup, leave: Leave) -> None:
        while not leave.asked.is_set():
            self._refuse_superseded()
            if self.chronicle.held() == "stopped":
                return
            await self._reap()
            await self._end_the_hung()
            if self.chronicle.held():
                await self._pause()
            else:
                self._resume()
                await self._start_due(group)
            await self._rest(leave)

    async def _rest(self, leave: Leave) -> None:
        if leave.asked.is_set():
            return
        now = self.env.monotonic()
        dues = [slot.due - now for slot in self.slots.values() if slot.child is None and slot.due is not None]
        held = bool(self.chronicle.held())
        wait_s = LOOK_S if held else max(0.0, min([LOOK_S, *dues]))
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _heed(self, leave: Leave) -> None:
        await leave.asked.wait()
        self._wake.set()

    async def _follow(self) -> None:
        """Keep the fold at the present, whatever the log does; only damage is not waited out."""
        while True:
            try:
                await self.chronicle.tail.follow()
            except LogCorrupt as damage:
                self._problem = damage
                self._wake.set()
                return
            except LogError:
                await self.env.sleep(1.0)

    def _observe(self, state: State, entry: Entry) -> None:
        if entry.author.role != "supervisor" and entry.kind not in ("Heartbeat", "Notice", "Checkpoint"):
            self._news = entry.position
        if entry.kind in ("Control", "Claim") or any(slot.rests for slot in self.slots.values()):
            self._wake.set()

    def _refuse_superseded(self) -> None:
        if self._problem is not None:
            raise self._problem
        other = self.chronicle.superseded_by()
        if other is not None:
            raise Fenced(
                "Another supervisor took this agent over",
                received=other or "the claim was released",
                todo="leave it to that one",
            )

    # --- starting ------------------------------

    async def _start_due(self, group: asyncio.TaskGroup) -> None:
        for slot in self.slots.values():
            if slot.child is not None:
                continue
            now = self.env.monotonic()
            if slot.due is not None and slot.due <= now and (not slot.part.whole_agent or self._has_work(slot)):
                await self._start(group, slot)

    def _has_work(self, slot: Slot) -> bool:
        """Whether the log holds an unfinished run for a whole agent, and something new since it came to rest."""
        state = self.chronicle.state
        mine = (run for run in state.runs.values() if run.agent == self.agent and run.status == "running")
        if not any(not run.life and (run.context or run.inbox) for run in mine):
            return False
        if slot.rests is None:
            return True
        code, news = slot.rests
        in_doubt = any(action.intent.agent == self.agent for action in state.doubtful())
        return self._news > news and not (code == 4 and in_doubt) and not state.control_over(self.agent)

    async def _start(self, group: asyncio.TaskGroup, slot: Slot) -> None:
        try:
            child = await processes.start(slot.part.command, mark=self.chronicle.mark)
        except OSError as error:
            self.tell("not_started", {"part": slot.part.name, "error": str(error)})
            await self._count_end(slot, f"it could not be started: {error}")
            return
        slot.child, slot.due, slot.rests = child, None, None
        slot.began = slot.pulsed = self.env.monotonic()
        slot.position, slot.heard = 0, False
        slot.lives += 1
        group.create_task(self._listen(slot.part.name, child))
        self.tell("started", {"part": slot.part.name, "pid": child.pid, "life": slot.lives})
        self.chronicle.say(self.chronicle.started(slot.part.name, child.identity, slot.lives))

    async def _listen(self, name: str, child: processes.Child) -> None:
        """Its last words and its end."""
        async with asyncio.TaskGroup() as group:

            async def words() -> None:
                async for line in child.errors():
                    self.tell("said", {"part": name, "line": line})

            listening = group.create_task(words())
            await child.wait()
            self._wake.set()
            await asyncio.wait([listening], timeout=LOOK_S)  # what it left behind may hold the pipe open
            listening.cancel()

    # --- ends ------------------------------

    def _recall(self, ends: Sequence[supervising.End]) -> None:
        """Go on where earlier supervisors stopped: the ends that count, and what is left of the delays after them."""
        now, now_ms = self.env.monotonic(), self.env.wall_ms()
        self._ends_ms = sorted({end.at_ms for end in ends})
        for end in ends:
            slot, left_s = self.slots.get(end.part), supervising.left_s(end, now_ms)
            if slot is None:
                continue  # there is no such part any more
            slot.ends_ms.append(end.at_ms)
            for name in supervising.affected(self.settings.strategy, list(self.slots), end.part):
                self.slots[name].rest_until(now + left_s)
        for slot in self.slots.values():
            if slot.not_before > now:
                self.tell("waits", {"part": slot.part.name, "again_s": round(slot.not_before - now, 2)})

    async def _reap(self) -> None:
        for slot in self.slots.values():
            child = slot.child
            if child is None or child.code is None:
                continue
            await self._ended(slot, child, child.code)
            await self._end_strays()

    async def _ended(self, slot: Slot, child: processes.Child, code: int, why: str = "") -> None:
        name, ran_s = slot.part.name, round(self.env.monotonic() - slot.began, 1)
        slot.child = None
        await self.env.sleep(0)  # its last words arrive with its end
        words = child.words[-1] if child.words else ""
        child.close()
        ending = supervising.ending(code, whole_agent=slot.part.whole_agent)
        facts = {"part": name, "pid": child.pid, "code": code, "ran_s": ran_s, "why": why}
        if ending == "rested":
            await self.chronicle.catch_up()
            slot.rests, slot.due = (code, self._news), 0.0
            self.tell("rests", facts)
            self.chronicle.say(self.chronicle.ended(facts, counts=False))
            return
        if ending == "hopeless":
            self.tell("ended", facts)
            self.chronicle.say(self.chronicle.ended(facts, counts=True))
            raise self._give_up(f"{name} cannot run (exit code {code})", words)
        await self._count_end(slot, why or words, facts)

    async def _count_end(self, slot: Slot, why: str, facts: dict[str, Any] | None = None) -> None:
        """One more end of a part: give up, or plan the next start, and take along whom the strategy names."""
        settings, now_ms = self.settings, self.env.wall_ms()
        slot.ends_ms = [*supervising.recent(slot.ends_ms, now_ms, settings.within_s), now_ms]
        self._ends_ms = [*supervising.recent(self._ends_ms, now_ms, settings.within_s), now_ms]
        wait_s = supervising.delay_s(
            len(slot.ends_ms), base_s=settings.backoff_s, max_s=settings.backoff_max_s, random=self.env.random()
        )
        facts = {**(facts or {"part": slot.part.name}), "again_s": round(wait_s, 3), "of": len(self._ends_ms)}
        self.tell("ended", {**facts, "restarts": settings.restarts, "within_s": settings.within_s})
        self.chronicle.say(self.chronicle.ended(facts, counts=True))
        if supervising.gives_up(self._ends_ms, now_ms, restarts=settings.restarts, within_s=settings.within_s):
            told = f"{len(self._ends_ms)} ends of parts within {settings.within_s:g} s, the last of {slot.part.name}"
            raise self._give_up(told, why)
        self.restarts += 1
        names = supervising.affected(settings.strategy, list(self.slots), slot.part.name)
        others = [self.slots[name] for name in names if self.slots[name].child is not None]
        if others:
            self.tell("takes_along", {"part": slot.part.name, "others": [one.part.name for one in others]})
            await self._stop(others)
        end = self.env.monotonic() + wait_s
        for name in names:
            self.slots[name].rest_until(end)

    def _give_up(self, what: str, why: str) -> SupervisionFailed:
        """Escalate: a finding, where configured a pause of the agent, and the error that ends this supervisor."""
        self.tell("gives_up", {"what": what, "why": why})
        message = f"{what}{': ' + why if why else ''}; all parts were stopped"
        self.chronicle.say(Finding(code="supervision_failed", message=message[:2000], agent=self.agent))
        if self.settings.on_limit == "pause":
            self.chronicle.say(Control(verb="pause", scope=f"agent:{self.agent}", reason=what))
        return SupervisionFailed(
            f"The supervisor of {self.agent!r} gave up: {what}",
            received=why or None,
            todo="look at what the parts said, mend the cause, and start the supervisor again",
        )

    # --- hangs ------------------------------

    async def _end_the_hung(self) -> None:
        now = self.env.monotonic()
        stood_still = now - self._looked > GAP_S_MAX + LOOK_S
        self._looked = now
        self._read.append((now, self.chronicle.state.position))
        while len(self._read) > 1 and self._read[1][0] <= now - self.settings.hang_s:
            self._read.popleft()
        read_at, read = self._read[0]
        for slot in self.slots.values():
            if slot.child is None:
                continue
            why = slot.hung(now, read_at, read, hang_s=self.settings.hang_s, stood_still=stood_still)
            if why:
                await self._end_hung(slot, slot.child, why)

    async def _end_hung(self, slot: Slot, child: processes.Child, why: str) -> None:
        self.tell("hung", {"part": slot.part.name, "pid": child.pid, "why": why})
        self.chronicle.say(
            Finding(code="part_hung", message=f"{slot.part.name} (process {child.pid}): {why}", agent=self.agent)
        )
        await child.kill()
        if slot.child is child:
            await self._ended(slot, child, -9, why)

    # --- stopping ------------------------------

    async def _pause(self) -> None:
        if not self._held:
            self._held = self.chronicle.held()
            self.tell("paused", {})
            self.chronicle.say(Notice(code="supervision_paused", message="the parts are stopped", agent=self.agent))
            await self._stop(list(self.slots.values()))

    def _resume(self) -> None:
        if self._held:
            self._held = ""
            self.tell("resumed", {})
            for slot in self.slots.values():
                slot.due = slot.not_before

    async def _stop(self, slots: Sequence[Slot]) -> None:
        """End parts: asked first, in the opposite order of their start; killed when the time is over."""
        ending = [(slot, slot.child) for slot in reversed(slots) if slot.child is not None]
        for _, child in ending:
            child.ask_to_end()
        try:
            async with asyncio.timeout(self.settings.stop_s):
                for _, child in ending:
                    await child.wait()
        except TimeoutError:
            pass
        for slot, child in ending:
            killed = child.code is None
            if killed:
                await child.kill()
            slot.child = None
            child.close()
            facts = {
                "part": slot.part.name,
                "pid": child.pid,
                "code": child.code,
                "ran_s": round(self.env.monotonic() - slot.began, 1),
                "why": f"killed: it did not end within {self.settings.stop_s:g} s" if killed else "asked to end",
            }
            self.tell("killed" if killed else "ended_as_asked", facts)
            self.chronicle.say(self.chronicle.ended(facts, counts=False))
        if ending:
            await self._end_strays()

    async def _end_strays(self) -> None:
        """End what a child that has died had started, and left to this process."""
        if self.whole_process:
            await processes.end_strays([one.child.pid for one in self.slots.values() if one.child is not None])

    async def _end_orphans(self) -> None:
        """End what an earlier supervisor left behind: its children that outlived it."""
        for identity in await self.chronicle.orphans():
            killed = await processes.end(identity, self.settings.stop_s)
            self.tell("orphan", {"pid": identity.pid, "killed": killed})
            self.chronicle.say(
                Notice(
                    code="orphan_ended",
                    message=f"process {identity.pid} of an earlier supervisor {'was killed' if killed else 'ended'}",
                    agent=self.agent,
                    data={"pid": identity.pid, "killed": killed},
                )
            )
