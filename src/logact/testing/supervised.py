"""The simulated machine under a supervisor: processes with parents, signals and pulses, and what must hold of them.

The real ``Supervisor`` runs on it, through the door of ``runtime.processes``; its parts are the real parts, and their
pulse is the real one. Nothing here restarts a part: only a supervisor does.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from logact.core.invariants import require
from logact.entry import Claim, Entry, Finding, Notice
from logact.env import ProcessIdentity
from logact.errors import InvariantViolated, LogActError, SupervisionFailed
from logact.logs.base import SharedLog
from logact.runtime import processes
from logact.runtime.leaving import Leave
from logact.runtime.slots import START_S_MAX, Part, Settings
from logact.runtime.supervised import supervised
from logact.runtime.supervision import task_of
from logact.runtime.supervisor import Supervisor
from logact.testing.loop import ProcessDied
from logact.testing.plan import PARTS
from logact.testing.simulated_log import settle
from logact.testing.world import Process, Program

if TYPE_CHECKING:
    from logact.testing.systems import Simulation

AGENT = "ops"
WITHIN_S, BACKOFF_S, BACKOFF_S_MAX, STOP_S, HANG_S = 30.0, 0.5, 4.0, 3.0, 5.0
AGAIN_S = 1.0
"""When a supervisor that ended begins its next life."""

MEND_S = 20.0
"""How long a person takes to look at why a supervisor gave up, before it is started again."""

HUNG_S_MAX = START_S_MAX + HANG_S + STOP_S + 10.0


class Running:
    """What the machine knows of one process that a supervisor started."""

    def __init__(self, process: Process, parent: Process, mark: str) -> None:
        self.process, self.parent, self.mark = process, parent, mark
        self.leave = Leave(STOP_S)
        self.code: int | None = None
        self.over_at = 0.0  # when it ended
        self.pipe = b""
        self.words = ""
        self.waiting: list[asyncio.Future[None]] = []


class SimChild(processes.Child):
    """A child as its supervisor holds it."""

    def __init__(self, machine: Machine, running: Running) -> None:
        self.machine, self.running = machine, running
        pid = running.process.pid
        self.identity = ProcessIdentity(host="sim", pid=pid, started=pid, boot="sim")
        self.words = deque(maxlen=processes.ERROR_LINES_KEPT)
        self._rest = b""

    @property
    def code(self) -> int | None:
        return self.running.code

    def _heard(self) -> bytes:
        data, self.running.pipe = self.running.pipe, b""
        return data

    async def errors(self) -> AsyncIterator[str]:
        await self.wait()
        if self.running.words:
            self.words.append(self.running.words)
            yield self.running.words

    async def wait(self) -> int:
        while self.running.code is None:
            done = self.machine.sim.world.loop.create_future()
            self.running.waiting.append(done)
            await done
        return self.running.code

    def close(self) -> None:
        """Its pipe is the machine's."""


class SimSystem(processes.System):
    """The machine as one process (a supervisor) reaches it."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine, self.process = machine, process

    async def start(self, command: Sequence[str], mark: str, variables: Mapping[str, str]) -> processes.Child:
        self.process.check_alive()
        running = self.machine.spawn(self.process, command[0], mark)
        await asyncio.sleep(self.machine.sim.world.delays.delay(0.0, 0.02))  # who asked may die before it hears of it
        return SimChild(self.machine, running)

    def marked(self, mark: str) -> list[ProcessIdentity]:
        pids = [one.process.pid for one in self.machine.table.values() if one.mark == mark and not one.process.dead]
        return [ProcessIdentity(host="sim", pid=pid, started=pid, boot="sim") for pid in pids]

    def descendants(self, pid: int) -> list[ProcessIdentity]:
        return []

    def send(self, pid: int, number: int, *, group: bool = False) -> None:
        self.process.check_alive()
        self.machine.signal(pid, number)

    def adopt_orphans(self, wanted: bool) -> None:
        """Its parts start nothing that could outlive them."""

    def children(self) -> list[int]:
        return []


class Machine:
    """The processes of one run, and the oracle of what supervisors do with them."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.table: dict[int, Running] = {}
        self.leaves: dict[int, Leave] = {}
        self.ill: dict[str, float] = {}
        self.ends: dict[str, list[Notice]] = {}  # by incarnation of a supervisor: the ends that it counted, as logged
        self.before: dict[str, list[Notice]] = {}  # and what stood in the log when it took over
        self.counted: list[Notice] = []
        self.since: dict[int, float] = {}  # since when each frozen part is so, by process id

    # --- processes ------------------------------

    def spawn(self, parent: Process, name: str, mark: str) -> Running:
        """Begin a life of a part. Its checks are what this whole form is for."""
        world = self.sim.world
        try:
            other = world.live.get(name)
            require("one_life_of_each_part", other is None, f"{name} is started while a life of it goes on")
            self._limited(parent, name)
            self._rested(parent, name)
        except InvariantViolated as error:
            world.fail(error)
            raise ProcessDied from error
        world.kept.add(name)
        world.count("part_started")
        process = world.start(name)
        if process is None:
            raise ProcessDied
        running = self.table[process.pid] = Running(process, parent, mark)
        process.on_kill.append(lambda: self._ended(running, -9))
        return running

    def _ended(self, running: Running, code: int) -> None:
        if running.code is None and not self.sim.world.over:
            running.over_at = running.over_at or self.sim.world.loop.time()
            self.sim.world.later(self.sim.world.delays.delay(0.0, 0.004), self._known, running, code)

    @staticmethod
    def _known(running: Running, code: int) -> None:
        if running.code is None:
            running.code = code
        for done in running.waiting:
            settle(done, None)

    def exit(self, process: Process, code: int, words: str = "") -> None:
        """A part ends by itself; nothing of it goes on."""
        running = self.table[process.pid]
        running.words = words
        self._ended(running, code)
        self.sim.world.kill(process.name)

    def signal(self, pid: int, number: int) -> None:
        """What a signal does to whom it reaches."""
        world = self.sim.world
        process = world.processes[pid - 1] if 0 < pid <= len(world.processes) else None
        if process is None or process.dead:
            return
        if number == signal.SIGKILL:
            if process.held:
                world.count("frozen_killed")
            world.crash(process.name)
        elif number == signal.SIGTERM:
            leave = self.table[pid].leave if pid in self.table else self.leaves.get(pid)
            if leave is not None:
                leave.ask()
        elif number == signal.SIGSTOP:
            world.freeze(process.name, 1e6)
        elif number == signal.SIGCONT and process.frozen_until < 1e6 and pid % 2:
            world.thaw(process.name)  # every second hang is a stopped process, the others are stuck in their code

    def orphan(self, parent: Process) -> None:
        """A supervisor is gone: where the kernel says so, its children are asked to end; else their pipe breaks."""
        for pid, one in self.table.items():
            if one.parent is parent and self.sim.plan.schedule % 2:
                self.sim.world.later(0.0, self.signal, pid, signal.SIGTERM)

    # --- programs ------------------------------

    def supervisor(self, *, takeover: bool = False) -> Program:
        """A process that supervises; it is started again when it ends, by a person where it gave up."""

        async def program(process: Process) -> None:
            processes.use(SimSystem(self, process))
            leave = self.leaves[process.pid] = Leave(STOP_S)
            process.on_kill.append(lambda: self.orphan(process))
            log = SharedLog(self.sim.log.port(process))
            plan = self.sim.plan
            settings = Settings(
                strategy=plan.strategy,
                restarts=plan.restarts,
                within_s=WITHIN_S,
                backoff_s=BACKOFF_S,
                backoff_max_s=BACKOFF_S_MAX,
                stop_s=STOP_S,
                hang_s=HANG_S,
            )
            parts = [Part(name=name, command=(name,)) for name in PARTS]
            again_s = AGAIN_S
            try:
                one = Supervisor(log, AGENT, parts, settings)
                one.chronicle.tail.observe(self.sim.checker.watch(process))
                await one.run(leave, takeover=takeover)
            except SupervisionFailed:
                self.sim.world.count("supervisor_gave_up")
                again_s = MEND_S
            except LogActError as error:
                self.sim.world.count(f"supervisor_ends_{error.code}")
            mine = [run.process.name for run in self.table.values() if run.parent is process and not run.process.dead]
            require("supervision_ends_whole", not mine, f"a supervisor ended and left {', '.join(mine)}")
            self.sim.world.restart_s[process.name] = again_s
            if process.name == "supervisor":
                self.sim.world.crash(process.name)
            else:
                self.sim.world.kill(process.name)

        return program

    def part(self, play: Any) -> Program:
        """A process that plays one part under a supervisor."""

        async def program(process: Process) -> None:
            await asyncio.sleep(self.sim.world.delays.delay(0.0, 0.3))  # imports
            running = self.table[process.pid]
            if running.parent.dead and self.sim.plan.schedule % 2:
                self.exit(process, 0)
                return
            if self.ill.get(process.name, 0.0) > self.sim.world.loop.time():
                self.sim.world.count("part_ill")
                self.exit(process, 1, "it is ill")
                return

            def write(data: bytes) -> None:
                if running.parent.dead:
                    raise BrokenPipeError
                running.pipe += data

            code, words = 0, ""
            try:
                async with supervised(running.leave, write):
                    await play(process, running.leave)
            except LogActError as error:
                code, words = error.exit_code, str(error)
            self.exit(process, code, words)

        return program

    # --- what must hold ------------------------------

    def applied(self, entry: Entry) -> None:
        """Look at an entry that took effect."""
        payload, author = entry.payload, entry.author.incarnation
        if isinstance(payload, Claim) and payload.task == task_of(AGENT) and not payload.release:
            self.before[author] = list(self.counted)
        if not isinstance(payload, Notice) or entry.author.role != "supervisor":
            return
        if payload.code == "part_started":
            pid, part = int(payload.data["pid"]), str(payload.data["part"])
            true = pid in self.table and self.table[pid].process.name == part
            require("restarts_are_explained", true, f"the log says that {part} is process {pid}; it is not")
        elif payload.code == "part_ended" and "pid" in payload.data:
            pid = int(payload.data["pid"])
            require(
                "restarts_are_explained",
                not self.sim.world.is_alive(pid),
                f"the log says that process {pid} ended; it goes on",
            )
        if payload.code == "part_ended" and payload.data.get("counts"):
            self.counted.append(payload)
            self.ends.setdefault(author, []).append(payload)
            self._backs_off(author, payload)

    def _limited(self, parent: Process, name: str) -> None:
        """A supervisor that counted too many ends in its time, or found them in the log, starts nothing more."""
        births = self.sim.checker.state.incarnations
        for author, mine in self.ends.items():
            life = births.get(author)
            if life is None or life.birth is None or life.birth.pid != parent.pid:
                continue
            last_ms = max(int(one.data["at_ms"]) for one in mine)
            known = {int(one.data["at_ms"]) for one in [*self.before.get(author, []), *mine]}
            recent = [at_ms for at_ms in known if last_ms - at_ms <= WITHIN_S * 1000]
            require(
                "restarts_are_limited",
                len(recent) <= self.sim.plan.restarts,
                f"{name} is started after {len(recent)} ends within {WITHIN_S:g} s",
            )

    def _backs_off(self, author: str, end: Notice) -> None:
        """The delay after an end doubles with each recent end of that part, as far as the supervisor knows."""
        if "again_s" not in end.data:
            return  # it is not tried again
        part, last_ms = end.data["part"], int(end.data["at_ms"])
        known = {int(one.data["at_ms"]) for one in self._ends_of(author) if one.data["part"] == part}
        times = sum(0 <= last_ms - at_ms <= WITHIN_S * 1000 for at_ms in known)  # one may be written down twice
        least_s = min(BACKOFF_S_MAX, BACKOFF_S * 2 ** (times - 1)) / 2
        again_s = float(end.data["again_s"])
        require("backoff_is_kept", again_s >= least_s - 0.001, f"end {times} of {part}, and it waits {again_s:g} s")

    def _rested(self, parent: Process, name: str) -> None:
        """A supervisor starts no part before the delay is over after an end that it counted, or found in the log."""
        births, now = self.sim.checker.state.incarnations, self.sim.world.loop.time()
        if self.sim.world.fired["clock_jump"]:
            return  # what is left of a delay that an earlier supervisor planned is told by a wall clock
        mine = (key for key, life in births.items() if life.birth is not None and life.birth.pid == parent.pid)
        for end in (one for key in mine for one in self._ends_of(key)):
            ended = self.table.get(int(end.data.get("pid", 0)))
            if ended is None or "again_s" not in end.data or name not in self._taken_along(end):
                continue
            early_s = ended.over_at + float(end.data["again_s"]) - now
            require(
                "backoff_is_kept", early_s <= 0.005, f"{name} is started {early_s:.2f} s before its delay is over"
            )

    def _ends_of(self, author: str) -> list[Notice]:
        """The ends that a supervisor counted, or found in the log, in order."""
        return [*self.before.get(author, []), *self.ends.get(author, [])]

    def _taken_along(self, end: Notice) -> Sequence[str]:
        """The parts that wait after an end, by what the strategies mean."""
        part = str(end.data["part"])
        return {"one_for_all": PARTS, "rest_for_one": PARTS[PARTS.index(part) :]}.get(self.sim.plan.strategy, (part,))

    def look(self) -> None:
        """Nobody hangs for longer than its supervisor may take to notice."""
        now = self.sim.world.loop.time()
        supervisor = self.sim.world.live.get("supervisor")
        for one in self.table.values():
            process = one.process
            if process.dead or process.frozen_until <= now:
                self.since.pop(process.pid, None)
            else:
                self.since.setdefault(process.pid, now)
        if supervisor is None or supervisor.frozen_until > now or not self.sim.log.calm:
            self.since.clear()
        longest = max((now - since for since in self.since.values()), default=0.0)
        require("hung_parts_are_replaced", longest <= HUNG_S_MAX, f"a part hangs for {longest:.0f} s")

    def at_the_end(self) -> None:
        """Who lives is in the log, and who gave up said so."""
        told = {
            int(one.payload.data["pid"])
            for one in self.sim.checker.entries
            if isinstance(one.payload, Notice) and one.payload.code == "part_started"
        }
        lost = [one.process.name for pid, one in self.table.items() if not one.process.dead and pid not in told]
        require("restarts_are_explained", not lost, f"{', '.join(lost)} runs, and the log does not know it")
        found = any(
            isinstance(one.payload, Finding) and one.payload.code == "supervision_failed"
            for one in self.sim.checker.entries
        )
        faulty = any((self.sim.plan.appends, self.sim.plan.points, self.sim.plan.steps, self.sim.plan.events))
        silent = self.sim.world.fired["supervisor_gave_up"] and not found and not faulty
        require("restarts_are_explained", not silent, "a supervisor gave up, and the log does not say so")
