"""A simulated world: processes that can be killed at any step, clocks that jump, requests that outlive who asked.

Killing a process runs none of its code: the loop never steps its tasks again, its ports refuse, and its coroutines
are buried after the run. What the world does for somebody (deliver a request, ring a bell) happens in the world's
own context, so that it survives that process.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from logact import env as environment
from logact.env import Env, ProcessIdentity
from logact.env_guest import contained
from logact.testing.loop import PROCESS, Choices, ProcessDied, SimLoop, SimTask

P = ParamSpec("P")
T = TypeVar("T")
Program = Callable[["Process"], Coroutine[Any, Any, object]]

EPOCH_MS = 1_700_000_000_000
"""What the simulated wall clocks show when a run begins."""

RESTART_S = 0.5


class SimEnv(Env):
    """The environment of one simulated process: its clock, its randomness, its identity."""

    points = True

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.owner = process
        self._dice = Choices(process.world.seed or 1, f"bytes {process.name} {process.life}")

    def wall_ms(self) -> int:
        return EPOCH_MS + int((self.owner.world.loop.time() + self.owner.clock_offset_s) * 1000)

    def monotonic(self) -> float:
        return self.owner.world.loop.time()

    def random_bytes(self, count: int) -> bytes:
        return bytes(self._dice.below(256) for _ in range(count))

    def random(self) -> float:
        return self._dice.delay(0.0, 1.0)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One atomic step, some time later. A cancelled call goes on, as a thread would; it dies with its process."""
        watch = environment.current_watch()
        if watch is not None:
            watch.begun = True  # a thread that has not begun can be withdrawn; this one cannot
        work = contained(function)
        work = work if watch is None else watch.around(work)
        found: T = await self.owner.world.loop.run_in_executor(None, lambda: work(*args, **kwargs))
        return found

    def point(self, name: str) -> None:
        self.owner.reach(name)

    def process(self) -> ProcessIdentity:
        return ProcessIdentity(host="sim", pid=self.owner.pid, started=self.owner.pid, boot="sim")

    def alive(self, identity: ProcessIdentity) -> bool | None:
        return self.owner.world.is_alive(identity.pid)

    def end(self, identity: ProcessIdentity) -> bool:
        return identity.pid != self.owner.pid and self.owner.world.end(identity.pid)


class Process:
    """One life of one named process."""

    def __init__(self, world: World, name: str, life: int) -> None:
        self.world = world
        self.name = name
        self.life = life
        self.pid = len(world.processes) + 1
        self.dead = False
        self.ended = False
        self.stopping = False
        self.frozen_until = 0.0
        self.held: list[asyncio.Handle] = []  # its steps that wait until it is not frozen any more
        self.steps = 0
        self.tasks: list[SimTask] = []
        self.on_kill: list[Callable[[], None]] = []
        self.clock_offset_s = world.clock_offsets_s.get(name, 0.0)
        self.env = SimEnv(self)
        self._die_at = world.die_at.get((name, life), 0)

    def may_step(self) -> bool:
        """Asked by the loop before each step of this process: no if it is dead, or dies just now."""
        if self.dead:
            return False
        self.steps += 1
        if self.steps == self._die_at:
            self.world.count("kill_at_step")
            self.world.crash(self.name)
            return False
        return True

    def spare(self) -> None:
        """It does not die at a planned step any more."""
        self._die_at = 0

    def reach(self, name: str) -> None:
        """A named point in the code was reached; it may be where this process dies."""
        if self.dead:
            raise ProcessDied
        hook = self.world.hooks.pop((self.name, name), None)
        if hook is not None:
            hook()
            self.check_alive()
        hang_s = self.world.hangs_at_point(self, name)
        if hang_s:
            self.world.count(f"hang_{name}" if name.endswith("effect") else "hang")
            self.world.freeze(self.name, hang_s)
        if self.world.dies_at_point(self, name):
            self.world.count(f"kill_{name}" if name.endswith("effect") else f"kill_{name.partition('_')[0]}_append")
            self.world.crash(self.name)
            raise ProcessDied

    def check_alive(self) -> None:
        """Raise ProcessDied if it is not: nothing gets out of a dead process."""
        if self.dead:
            raise ProcessDied


class World:
    """The loop, the processes on it, and what happens whoever lives. ``fired`` counts faults by kind."""

    def __init__(self, seed: int, *, steps_max: int = 400_000) -> None:
        self.seed = seed
        self.loop = SimLoop(Choices(seed, "schedule"), steps_max=steps_max)
        self.delays = Choices(seed, "delays")
        self.outside = contextvars.copy_context()
        self.fired: Counter[str] = Counter()
        self.processes: list[Process] = []
        self.live: dict[str, Process] = {}
        self.lives: Counter[str] = Counter()
        self.programs: dict[str, Program] = {}
        self.kept: set[str] = set()  # who is started again by a supervisor, and by nobody else
        self.restart_s: dict[str, float] = {}
        self.clock_offsets_s: dict[str, float] = {}
        self.die_at: dict[tuple[str, int], int] = {}
        self.points: dict[tuple[str, int], float] = {}
        self.hangs: dict[tuple[str, str, int], float] = {}
        self.passed: Counter[tuple[str, str]] = Counter()
        self.hooks: dict[tuple[str, str], Callable[[], object]] = {}
        self.reached: Counter[str] = Counter()
        self.points_seen: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self.town: object = None
        self.over = False

    def count(self, kind: str) -> None:
        """One more fault of this kind happened."""
        self.fired[kind] += 1

    def fail(self, error: BaseException) -> None:
        """The run has failed; the first failure counts."""
        self.failure = self.failure or error

    # --- processes ------------------------------

    def start(self, name: str, program: Program | None = None) -> Process | None:
        """Begin a life of a process with fresh memory; nothing if it lives already."""
        if program is not None:
            self.programs[name] = program
        if name in self.live or self.over:
            return None
        self.lives[name] += 1
        process = Process(self, name, self.lives[name])
        self.processes.append(process)
        self.live[name] = process
        context = self.outside.copy()
        context.run(PROCESS.set, process)
        context.run(environment.use, process.env)
        self.loop.create_task(self._life(process), name=f"{name} {process.life}", context=context)
        return process

    async def _life(self, process: Process) -> None:
        try:
            await self.programs[process.name](process)
        except ProcessDied:
            return
        except BaseException as error:
            stopped = process.stopping and isinstance(error, asyncio.CancelledError)
            if not process.dead and not stopped:
                self.fail(error)
        finally:
            if not process.dead:
                process.ended = True

    def kill(self, name: str) -> bool:
        """The process takes no further step. Its operating system closes what it held."""
        process = self.live.pop(name, None)
        if process is None:
            return False
        process.dead = True
        for close in process.on_kill:
            close()
        return True

    def stop(self, name: str) -> None:
        """Ask a process to end (its cleanup runs), and make sure that it does."""
        process = self.live[name]
        process.stopping = True
        process.tasks[0].cancel()
        self.later(1.0, self._stopped, process)

    def _stopped(self, process: Process) -> None:
        if self.live.get(process.name) is process:
            self.restart_s[process.name] = RESTART_S
            self.crash(process.name)

    def freeze(self, name: str, seconds: float) -> None:
        """The process takes no step for so long after its present one, at least, and knows nothing of it."""
        process = self.live[name]
        process.frozen_until = max(process.frozen_until, self.loop.time() + seconds)

    def thaw(self, name: str) -> None:
        """A frozen process goes on."""
        process = self.live[name]
        process.frozen_until = 0.0
        self.loop.thaw(process)

    def end(self, pid: int) -> bool:
        """One process ends another that hangs: it is killed, and begins its next life after a while."""
        process = self.processes[pid - 1] if 0 < pid <= len(self.processes) else None
        if process is None or process.dead:
            return False
        self.count("hung_ended")
        self.crash(process.name)
        return True

    def hangs_at_point(self, process: Process, name: str) -> float:
        """For how long the plan has this process stopped at this point (0.0: it goes on)."""
        if not self.hangs:
            return 0.0
        nth = self.passed[process.name, name]
        self.passed[process.name, name] += 1
        return self.hangs.pop((process.name, name, nth), 0.0)

    def crash(self, name: str) -> None:
        """Kill a process and start its next life after a while."""
        if self.kill(name) and name not in self.kept:
            self.later(self.restart_s.get(name, RESTART_S), self.start, name)

    def dies_at_point(self, process: Process, name: str) -> bool:
        """Whether the plan has this process die at this point; points are counted over all its lives."""
        nth = self.reached[process.name]
        self.reached[process.name] += 1
        self.points_seen[name] += 1
        after_s = self.points.pop((process.name, nth), None)
        if after_s is None:
            return False
        self.restart_s[process.name] = after_s
        return True

    def is_alive(self, pid: int) -> bool:
        """The truth about a process id, which is never used twice."""
        return 0 < pid <= len(self.processes) and not self.processes[pid - 1].dead

    def plays(self, pid: int, incarnation: str) -> bool:
        """Whether a process is still at an incarnation of its own."""
        return incarnation in self.processes[pid - 1].env.playing

    # --- time ------------------------------

    def later(self, delay_s: float, action: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Something that the world does, whoever lives by then, unless it is cancelled."""
        handle: asyncio.TimerHandle = self.loop.call_later(delay_s, action, *args, context=self.outside)
        return handle

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end of ``main``; then everything that is left is buried."""
        collecting = gc.isenabled()
        gc.disable()  # finalizers would run at moments that depend on memory
        try:
            return self.loop.run_until_complete(main)
        finally:
            self.over = True
            self._bury()
            if collecting:
                gc.enable()

    def _bury(self) -> None:
        for process in self.processes:
            process.dead = True
        for process in self.processes:
            for close in process.on_kill:
                close()
            for task in process.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task)
        self.loop.forget()
        self.loop.close()


def _close(task: SimTask) -> None:
    """End a coroutine that will never run again, in its own dead context, where every port refuses."""
    coroutine: Any = task.get_coro()
    for _ in range(20):  # one that goes on in its cleanup has to be closed again
        with suppress(BaseException):
            task.context.run(coroutine.close)
            return
