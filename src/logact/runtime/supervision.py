"""What a supervisor writes into the log and reads back from it: its claim, its children, their ends.

One record takes an agent's supervision over: a sign of life, the release of a claim whose holder is gone, and a claim
of its own. What is told later goes through a queue, so that a log that is slow or away never holds anything up.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from logact.core import supervising
from logact.core.state import State
from logact.entry import Claim, Control, Heartbeat, Notice, Payload, end_of, record_of
from logact.env import ProcessIdentity
from logact.errors import AgentBusy, ChainConflict, ConditionFailed, LogError, LogSealed
from logact.logs.base import SharedLog, where
from logact.runtime import processes
from logact.runtime.entering import HOLDER_SILENT_MS, TRIES_MAX
from logact.runtime.host import Host

HEARTBEAT_S = 30.0
"""How often a supervisor says that it lives, for those on other machines who cannot see its process."""

LOOK_BACK_RECORDS = 5000
"""How far back notices of earlier supervisors are looked for."""

UNSAID_MAX = 500
DELAY_S_MAX = 86_400.0
CLOSE_S = 5.0


def scope_of(agent: str) -> str:
    """The control scope of an agent's supervisor."""
    return f"supervisor:{agent}"


def task_of(agent: str) -> str:
    """The task that a supervisor claims."""
    return f"supervise:{agent}"


class Chronicle:
    """The supervisor's hand in the log."""

    def __init__(self, log: SharedLog, agent: str) -> None:
        self.log = log
        self.agent = agent
        self.host = Host(log, agent)
        self.env = self.host.env
        self.tail = self.host.tail
        self.me = self.host.incarnation
        self.mark = ""
        self._claimed = False
        self._unsaid: list[Payload] = []
        self._something = asyncio.Event()

    @property
    def state(self) -> State:
        """The fold, as far as it was read."""
        return self.tail.state

    # --- the claim ------------------------------

    async def open(self, *, takeover: bool, grace_s: float) -> None:
        """Become the supervisor of the agent. Raises AgentBusy if another one lives."""
        await self.tail.start()
        self.mark = f"{self.log.log_id}/{self.agent}"
        for _ in range(TRIES_MAX):
            state = self.state
            if state.sealed:
                raise LogSealed("The log is sealed; it goes on elsewhere", todo="name the log where it goes on")
            holder = state.claims.get(task_of(self.agent), "")
            if holder:
                await self._end_or_refuse(holder, takeover, grace_s)
            payloads: list[Payload] = [self._birth()]
            if holder:
                payloads.append(Claim(task=task_of(self.agent), agent=holder, release=True))
            payloads.append(Claim(task=task_of(self.agent), agent=self.me))
            if scope_of(self.agent) in state.stopped:
                payloads.append(Control(verb="resume", scope=scope_of(self.agent), reason="it was started again"))
            try:
                await self._append(payloads, unless_claimed=True)
            except ConditionFailed:
                continue
            if self.state.claims.get(task_of(self.agent)) == self.me:
                self._claimed = True
                return
        raise AgentBusy(
            "Several supervisors try to take up this agent at once", received=self.agent, todo="start only one"
        )

    def _birth(self) -> Heartbeat:
        me = self.env.process()
        return Heartbeat(agent=self.agent, host=me.host, pid=me.pid, started=me.started, boot=me.boot)

    async def _end_or_refuse(self, holder: str, takeover: bool, grace_s: float) -> None:
        life = self.state.incarnations.get(holder)
        gone = self.host.gone(holder)
        if life is None or gone:
            return
        silent = self.env.wall_ms() - life.last_ms > HOLDER_SILENT_MS
        birth = life.birth
        if takeover and gone is False and birth is not None:
            await processes.end(
                ProcessIdentity(host=birth.host, pid=birth.pid, started=birth.started, boot=birth.boot), grace_s
            )
        elif not takeover and (gone is False or not silent):
            where_ = f"process {birth.pid} on {birth.host.split('/')[0]}" if birth is not None else "elsewhere"
            raise AgentBusy(
                f"The agent {self.agent!r} has a supervisor already",
                received=where_,
                todo="stop it with `logact supervise SPEC --stop`, or pass --takeover to end it",
            )

    def superseded_by(self) -> str | None:
        """Who holds the claim, if it is not this supervisor ("" if nobody does); None if it is."""
        holder = self.state.claims.get(task_of(self.agent), "")
        return None if not self._claimed or holder == self.me else holder

    def held(self) -> Literal["", "paused", "stopped"]:
        """Whether the log says that this supervisor's parts are to be stopped for a while, or for good."""
        scope = scope_of(self.agent)
        return "stopped" if scope in self.state.stopped else "paused" if scope in self.state.paused else ""

    async def close(self, *, still_mine: bool) -> None:
        """Write down what is left to say, and give the claim up. Best effort."""
        payloads = [*self._unsaid]
        if still_mine and self._claimed:
            payloads.append(Claim(task=task_of(self.agent), agent=self.me, release=True))
        self._unsaid.clear()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._append([*payloads, Heartbeat(agent=self.agent, leaving=True)])
        except (LogError, TimeoutError):
            pass  # the next one sees that the process is gone
        self.host.leaves()

    # --- telling ------------------------------

    def say(self, payload: Payload) -> None:
        """Have something written down, soon."""
        self._unsaid = [*self._unsaid, payload][-UNSAID_MAX:]
        self._something.set()

    def started(self, part: str, identity: ProcessIdentity, life: int) -> Notice:
        """A part was started: which process it is."""
        data = {"part": part, "life": life, "host": identity.host, "pid": identity.pid}
        data |= {"started": identity.started, "boot": identity.boot}
        return Notice(code="part_started", message=f"{part} is process {identity.pid}", agent=self.agent, data=data)

    def ended(self, facts: dict[str, Any], *, counts: bool) -> Notice:
        """A part ended; ``counts`` says that it did so by itself."""
        data = {**facts, "counts": counts, "at_ms": self.env.wall_ms()}
        why = f": {facts['why']}" if facts.get("why") else ""
        message = f"{facts['part']} ended with {facts.get('code', 'no start')}{why}"
        return Notice(code="part_ended", message=message[:1000], agent=self.agent, data=data)

    async def write(self) -> None:
        """Write down what was said, and the heartbeat, until cancelled."""
        beat_at = self.env.monotonic() + HEARTBEAT_S
        while True:
            try:
                async with asyncio.timeout(max(0.0, beat_at - self.env.monotonic())):
                    await self._something.wait()
            except TimeoutError:
                beat_at = self.env.monotonic() + HEARTBEAT_S
                self._unsaid.append(Heartbeat(agent=self.agent))
            self._something.clear()
            said = list(self._unsaid)
            try:
                await self._append(said)
            except LogError as problem:
                if isinstance(problem, ChainConflict):
                    self.host.writer = self.log.writer()
                self._something.set()
                await self.env.sleep(1.0)
                continue
            # by identity: what was said meanwhile stays
            self._unsaid = [one for one in self._unsaid if not any(one is done for done in said)]

    async def _append(self, payloads: list[Payload], *, unless_claimed: bool = False) -> None:
        entries = [self.host.entry(payload, "supervisor") for payload in payloads]
        unless = where(kinds=["Claim"], agents=[self.agent]) if unless_claimed else None
        await self.host.append(entries, unless=unless)

    # --- reading back ------------------------------

    async def catch_up(self) -> None:
        """Read to the present, if the log lets us."""
        try:
            await self.tail.catch_up()
        except LogError:
            pass

    async def earlier_ends(self) -> list[supervising.End]:
        """The ends of parts by themselves under earlier supervisors, in order."""
        ended = [one.data for one in await self._notices("part_ended") if one.data.get("counts")]
        return sorted(
            supervising.End(data["at_ms"], str(data.get("part")), _ms(data.get("again_s")))
            for data in ended
            if isinstance(data.get("at_ms"), int)
        )

    async def orphans(self) -> list[ProcessIdentity]:
        """Processes that an earlier supervisor of this agent started, and that still live on this machine."""
        found = {(one.pid, one.started): one for one in processes.marked(self.mark)}
        for notice in await self._notices("part_started"):
            data = notice.data
            identity = ProcessIdentity(
                host=str(data.get("host")),
                pid=int(data.get("pid", 0)),
                started=int(data.get("started", 0)),
                boot=str(data.get("boot")),
            )
            if identity.pid and self.env.alive(identity):
                found[identity.pid, identity.started] = identity
        return list(found.values())

    async def _notices(self, code: str) -> list[Notice]:
        start = max(record_of(self.state.position) - LOOK_BACK_RECORDS, 0)
        entries = self.log.read_kept(end_of(start), matching=where(kinds=["Notice"], agents=[self.agent]))
        return [
            one.payload
            async for one in entries
            if isinstance(one.payload, Notice) and one.payload.code == code and one.author.role == "supervisor"
        ]


def _ms(seconds: object) -> int:
    """Seconds as a notice holds them, in milliseconds (0 where there is no sensible number)."""
    return int(seconds * 1000) if isinstance(seconds, int | float) and 0 < seconds < DELAY_S_MAX else 0
