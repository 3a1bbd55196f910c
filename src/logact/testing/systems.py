"""One simulated run: a plan, the real agent in one of its forms, faults, a calm end, and a verdict.

``inline``: one process plays all parts (``LogActAgent.run``). ``decoupled``: each part is a process of its own
(``runtime.assembly``). ``own``: a caller's own loop over propose, validate and execute. In each, one more process
is the operator: a person who pauses and resumes, and settles doubts truthfully once the executor is dead.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from logact import codec
from logact import env as environment
from logact.entry import Entry, Limits
from logact.env import Env
from logact.errors import InvariantViolated
from logact.logs.memory import MemoryEngine
from logact.testing.arbitrated_base import ArbitratedBase, Messages
from logact.testing.checks import Checker
from logact.testing.forging import forge
from logact.testing.holing import check_holes_hide_nothing
from logact.testing.loop import Choices
from logact.testing.plan import CALM_AT_S, PARTS, PROCESSES, TWIN, TWINS, Event, Plan
from logact.testing.programs import AGENT, Programs
from logact.testing.simulated_log import Base, MemoryBase, SimulatedLog, SqliteBase
from logact.testing.supervised import Machine
from logact.testing.tampering import check_tampering_shows
from logact.testing.town import TASK, Town
from logact.testing.world import EPOCH_MS, Program, World

END_S = 900.0
"""When everything must have ended at the latest, in virtual seconds."""

JUMP_S_MAX = 12.0
TAMPER_ONE_IN = 3


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a run. ``digest`` covers all bytes of the log and all effects; ``broken`` names the invariant."""

    plan: Plan
    digest: str = ""
    broken: str = ""
    error: str = ""
    steps: int = 0
    virtual_s: float = 0.0
    records: int = 0
    effects: int = 0
    fired: dict[str, int] = {}
    points: dict[str, int] = {}
    process_steps: dict[str, int] = {}
    tail: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return not self.error


class _Cradle(Env):
    """The environment in which the log is made: its id follows from the seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = Choices(seed or 1, "cradle")

    def wall_ms(self) -> int:
        return EPOCH_MS

    def random_bytes(self, count: int) -> bytes:
        return bytes(self._dice.below(256) for _ in range(count))


class Simulation:
    """One run, before, during and after."""

    town_of: type[Town] = Town
    checker_of: type[Checker] = Checker
    agent_name, task = AGENT, TASK
    unfinished = "no_lost_effect"
    """The invariant that a run breaks which does not come to its end."""

    def __init__(self, plan: Plan, *, directory: Path | None = None) -> None:
        self.plan = plan
        self.world = World(plan.schedule)
        self.log = contextvars.copy_context().run(self._open_log, directory)
        self.town = self.town_of(self.world, plan)
        self.checker = self.checker_of(self.world, self.log, self.town)
        self.controls: list[tuple[str, str]] = []
        self.machine = Machine(self)
        self.checker.supervision = self.machine.applied
        self.done: Counter[str] = Counter()
        for who, life, step in plan.steps:
            self.world.die_at[who, life] = step
        self.world.hangs = {(who, point, nth): seconds for who, point, nth, seconds in plan.hangs}
        self.world.points = {(who, nth): after_s for who, nth, after_s in plan.points}

    def _open_log(self, directory: Path | None) -> SimulatedLog:
        environment.use(_Cradle(self.plan.schedule))
        return SimulatedLog(self.world, self.plan, self._bases(self.plan, directory))

    @staticmethod
    def _bases(plan: Plan, directory: Path | None) -> Callable[[], Base]:
        if plan.engine == "sqlite":
            if directory is None:
                raise ValueError("the SQLite engine needs a directory")
            path = directory / "simulated.db"
            return lambda: SqliteBase(path)
        if plan.engine == "arbitrated":
            messages = Messages(f"simulated{plan.schedule:x}", plan.schedule)
            return lambda: ArbitratedBase(messages)
        engine = MemoryEngine("memory:simulated")
        engine.log_id = f"simulated{plan.schedule:x}"
        return lambda: MemoryBase(engine)

    # --- faults and the end ------------------------------

    def _happen(self, event: Event) -> None:
        world = self.world
        if world.over:
            return
        kind, who = event.kind, event.who
        if kind == "ill":
            self.machine.ill[who] = world.loop.time() + event.amount
        elif kind == "twin" and who in PARTS and self.plan.form in ("decoupled", "supervised"):
            world.count("twin")
            world.start(who + TWIN, Programs(self).twin(who))
        elif kind in ("second", "takeover"):
            if self.plan.form == "supervised":
                world.count(f"supervisor_{kind}")
                world.start("supervisor-2", self.machine.supervisor(takeover=kind == "takeover"))
        elif kind == "kill" and who in world.live:
            world.count("kill")
            world.restart_s[who] = event.amount
            world.crash(who)
        elif kind == "stop" and who in world.live:
            world.count("stop")
            if self.plan.form == "supervised" and who != "person":
                self.machine.signal(world.live[who].pid, signal.SIGTERM)
            else:
                world.stop(who)
        elif kind == "hang" and who in world.live:
            world.count("hang")
            world.freeze(who, event.amount * 4)
        elif kind in ("cut", "mute", "deaf", "unheard"):
            world.count("cut_off" if kind == "cut" else kind)
            self.log.cut[who] = kind
            world.later(event.amount * 2, self.log.heal, who)
        elif kind == "jump":
            world.count("clock_jump")
            offset = (event.amount - 2.0) * JUMP_S_MAX / 2.0
            world.clock_offsets_s[who] = offset
            if who in world.live:
                world.live[who].clock_offset_s = offset
        elif kind == "pause":
            world.count("pause")
            scope = "log" if event.amount < 2 else f"agent:{self.agent_name}"
            self.controls.append(("pause", scope))
            world.later(event.amount, self.controls.append, ("resume", scope))
        elif kind in ("cancel", "policy"):
            world.count(kind)
            self.controls.append((kind, ""))
        elif kind == "forge":
            forge(self.checker, self.log, event.amount, who)

    def _calm(self) -> None:
        """Nothing goes wrong from here on."""
        world = self.world
        world.points.clear()
        world.hangs.clear()
        self.town.away.clear()
        busy = self.checker.holders()
        for name, live in list(world.live.items()):
            # who holds an action that it began stays stopped, where there is somebody to notice it and to end it
            supervised = self.plan.form == "supervised" and name in world.kept
            doubled = self.plan.has_twins and name.removesuffix(TWIN) in TWINS and live.frozen_until < END_S
            if supervised or doubled:
                continue  # its supervisor notices, or the other one of the two goes on
            stopped = live.frozen_until > world.loop.time()  # although nothing may have come for it meanwhile
            if stopped and (live.pid not in busy or self.plan.form != "decoupled"):
                world.thaw(name)
        world.die_at.clear()
        for process in world.live.values():
            process.spare()
        self.log.calm = True
        self.town.voter_faults.clear()
        self.town.model_faults.clear()
        for name in sorted(self.log.cut):
            self.log.heal(name)
        for name in PROCESSES[self.plan.form]:
            process_now = world.live.get(name)
            if process_now is not None and process_now.ended and not self._finished_well(name):
                world.crash(name)

    def _finished_well(self, name: str) -> bool:
        return name == "agent" and self.done["run"] > 0

    @property
    def limits(self) -> Limits:
        """What one run may use."""
        return Limits(seconds=self.plan.deadline_s)

    def programs(self) -> dict[str, Program]:
        """What each process runs."""
        return Programs(self).all()

    async def _main(self) -> None:
        world = self.world
        if self.plan.form == "supervised":
            world.programs.update(Programs(self).children())
        for name, program in self.programs().items():
            world.start(name, program)
        for event in self.plan.events:
            world.later(event.at_s, self._happen, event)
        calm_at = CALM_AT_S if self.plan.has_faults else 0.0
        world.later(calm_at, self._calm)
        while world.loop.time() < END_S:
            await asyncio.sleep(0.25)
            self.raise_what_failed()
            if self.plan.form == "supervised":
                self.machine.look()
            if world.loop.time() > calm_at and self._finished():
                break
        else:
            raise InvariantViolated(self.unfinished, f"not finished after {END_S:g} s: {self._why_not()}")
        await asyncio.sleep(5.0)  # what is still on its way arrives
        self.raise_what_failed()
        if self.plan.form == "supervised":
            self.machine.at_the_end()
        self.checker.at_the_end(proposals_may_stay=self.plan.form == "own")
        if self.plan.menu % TAMPER_ONE_IN == 0 and self.plan.engine != "arbitrated":  # the copy has no gaps
            check_tampering_shows(self.log.base, self.plan.menu)
        if self.plan.menu % TAMPER_ONE_IN == 1:
            check_holes_hide_nothing(self.checker.entries, self.plan.menu)

    def raise_what_failed(self) -> None:
        """Raise the first failure of a check or of a process, if there is one."""
        if self.world.failure is not None:
            raise self.world.failure
        for found in self.world.loop.errors:
            raise found.get("exception") or AssertionError(found["message"])

    def _finished(self) -> bool:
        if self.plan.form == "own":
            waits = [one for one in self.checker.open_actions() if one.status != "proposed"]
            return self.done["run"] > 0 and not waits
        runs = self.checker.state.runs.values()
        over = bool(runs) and all(run.status != "running" for run in runs) and not self.checker.open_actions()
        return over and (self.plan.form in ("decoupled", "supervised") or self.done["run"] > 0)

    def _why_not(self) -> str:
        waits = [f"{self.checker.item(one)} {one.status}" for one in self.checker.open_actions()]
        runs = [f"run {run.id} {run.status} turn {run.turn}" for run in self.checker.state.runs.values()]
        return "; ".join([*runs, *waits, f"done {dict(self.done)}"])

    def run(self) -> Outcome:
        """Run it; never raises."""
        outcome = Outcome(plan=self.plan)
        try:
            self.world.run(self._main())
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            outcome.broken = cause.name if isinstance(cause, InvariantViolated) else type(cause).__name__
            outcome.error = str(cause) or repr(cause)
            self.cause = cause
        outcome.digest = self.digest()
        outcome.steps = self.world.loop.steps
        outcome.virtual_s = round(self.world.loop.time(), 3)
        outcome.records = len({entry.position // 1000 for entry in self.checker.entries})
        outcome.effects = len(self.town.ledger)
        outcome.fired = dict(sorted(self.world.fired.items()))
        outcome.points = dict(sorted(self.world.points_seen.items()))
        for process in self.world.processes:
            if process.life == 1:
                outcome.process_steps[process.name] = process.steps
        outcome.tail = tuple(self.lines()[-25:])
        self.log.base.close_now()
        return outcome

    def digest(self) -> str:
        """The digest of every record's bytes, every effect, and the number of steps."""
        found = hashlib.sha256()
        cursor = 0
        while True:
            page = self.log.base.read_now(cursor, 512, None)
            for stored in page.records:
                found.update(stored.body)
            if page.upto <= cursor:
                break
            cursor = page.upto
        found.update(msgspec.json.encode(self.town.ledger))
        found.update(str(self.world.loop.steps).encode())
        return found.hexdigest()[:32]

    def lines(self) -> list[str]:
        """The log and the effects as text, in order."""
        return [
            f"{entry.position:>6} {entry.kind:<11} {entry.author.role} {entry.author.name} "
            f"{entry.author.incarnation[:4]} {_short(entry.payload)}"
            + (
                f"   [no effect: {self.checker.verdicts[entry.position]}]"
                if self.checker.verdicts[entry.position]
                else ""
            )
            for entry in self.checker.entries
            if entry.position in self.checker.verdicts
        ]


_TOLD = re.compile(
    "intent|attempt|tool|arguments|voter|approved|reason|verb|scope|settlement|code|run|turn|epoch|holder|error|kind"
    "|retry_of"
)


def _short(payload: Any) -> str:
    fields = msgspec.structs.asdict(payload)
    return " ".join(f"{key}={str(value)[:60]}" for key, value in fields.items() if value and _TOLD.fullmatch(key))


def simulate(plan: Plan) -> Outcome:
    """Run one plan to its verdict. Deterministic: the same plan gives the same log, byte for byte."""
    collecting = gc.isenabled()
    gc.disable()  # collected once, at the end: one run's garbage is small
    try:
        with _decoding_once():
            if plan.engine == "memory":
                return _kind(plan)(plan).run()
            memory = Path("/dev/shm")  # noqa: S108 - a file that needs no disk, in a directory of its own
            with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
                return _kind(plan)(plan, directory=Path(directory)).run()
    finally:
        if collecting:
            gc.enable()
            gc.collect(0)  # the youngest generation holds all of this run


def _kind(plan: Plan) -> type[Simulation]:
    """The simulation that a plan's form needs."""
    if plan.form == "swarm":
        from logact.testing.claims import SwarmSimulation

        return SwarmSimulation
    return Simulation


@contextmanager
def _decoding_once() -> Iterator[None]:
    """Decode and check each record once for all processes of a run: both are pure functions of the bytes.

    What is in force is wrapped, so that a mutant of either stays a mutant.
    """
    decode, check = codec.decode_record, codec.check_record
    decoded: dict[tuple[bytes, int], list[Entry]] = {}
    checked: dict[bytes, str] = {}

    def decode_once(body: bytes, record: int, check: codec.Check | None = None) -> list[Entry]:
        if check is not None:
            return decode(body, record, check)
        found = decoded.get((body, record))
        if found is None:
            found = decoded[body, record] = decode(body, record)
        return list(found)

    def check_once(body: bytes) -> str:
        found = checked.get(body)
        if found is None:
            found = checked[body] = check(body)
        return found

    codec.decode_record, codec.check_record = decode_once, check_once
    try:
        yield
    finally:
        codec.decode_record, codec.check_record = decode, check
