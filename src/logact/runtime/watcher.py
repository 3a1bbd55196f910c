"""Watches an agent from its log: loops, stalls, rising errors, budgets, and parts that hang; acts as it was told.

What is noticed is pure (``core.watching``, ``core.leasing``); this part measures silence, writes the findings down,
and with them the control entries that the configuration asks for. It never judges an action.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from logact.core import leasing
from logact.core.state import RunState, State
from logact.core.watching import CODES, Code, Signal, Thresholds, next_look_ms, unnoticed
from logact.entry import Control, Entry, Finding, Limits, NewEntry
from logact.errors import ConditionFailed, LogActError, UsageError
from logact.logs.base import where
from logact.runtime.host import Host
from logact.runtime.leases import Hearing, fence_off, hung

Act = Literal["off", "warn", "pause", "ask", "stop"]
ACTS: tuple[Act, ...] = ("off", "warn", "pause", "ask", "stop")

NAME = "watch"

LOOK_S = 5.0
"""How often at most time alone is a reason to look, where a lease is longer."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about what is noticed: ``off``, ``warn`` (a finding), ``pause`` (the run rests until it is
    resumed), ``ask`` (the same, and the caller of ``run`` is told so), ``stop`` (the run ends).

    The numbers are those of :class:`~logact.core.watching.Thresholds`. Raises UsageError for what cannot be used.
    """

    loop: Act = "warn"
    stall: Act = "warn"
    errors: Act = "warn"
    budget: Act = "warn"
    repeats: int = Thresholds().repeats
    idle: int = Thresholds().idle
    failures: int = Thresholds().errors
    window: int = Thresholds().window
    share: float = Thresholds().budget

    def __post_init__(self) -> None:
        wrong = [f"{code}={self.act(code)!r}" for code in CODES if self.act(code) not in ACTS]
        if wrong:
            raise UsageError("A watch cannot do that", received=", ".join(wrong), expected=", ".join(ACTS))
        if self.repeats < 2 or self.idle < 2 or not 1 <= self.failures <= self.window or not 0 < self.share <= 1:
            raise UsageError(
                "A watch cannot be used",
                received=f"repeats={self.repeats}, idle={self.idle}, failures={self.failures}, "
                f"window={self.window}, share={self.share:g}",
                expected="repeats and idle from 2, failures up to window, share above 0 and up to 1",
            )

    def act(self, code: Code) -> Act:
        """What is done about one kind of signal."""
        found: Act = getattr(self, code)
        return found

    @property
    def thresholds(self) -> Thresholds:
        """When signals are on; what is ``off`` is never on."""
        return Thresholds(
            repeats=self.repeats if self.loop != "off" else 0,
            idle=self.idle if self.stall != "off" else 0,
            errors=self.failures if self.errors != "off" else 0,
            window=self.window,
            budget=self.share if self.budget != "off" else 0,
        )


class Watcher:
    """Watches the runs and the parts of one agent."""

    def __init__(self, host: Host, watch: Watch | None = None, *, name: str = NAME, hearing: Hearing | None = None):
        self.host = host
        self.watch = watch or Watch()
        self.name = name
        self.thresholds = self.watch.thresholds
        self.hearing = hearing or Hearing(host)
        self._least = min(self.watch.repeats - 1, self.watch.idle)
        self._look: dict[int, None] = {}  # runs in which something came that may be a sign
        self._owed: dict[str, tuple[str, float]] = {}  # by part: what it owes, and since when by a steady clock
        host.tail.observe(self._observe, _NEWS, about=host.agent)

    def _observe(self, state: State, entry: Entry) -> None:
        """Remember runs that may have something to notice. On the path of every entry: no more than a look."""
        if entry.kind not in _NEWS or state.verdict:
            return
        run = state.runs.get(entry.run)
        if run is None or run.agent != self.host.agent:
            return
        if run.idle >= self._least or _last_bad(run) or run.limits != _NONE:
            self._look[run.id] = None

    # --- runs ------------------------------

    def asks(self, run: int) -> str:
        """Why a run is paused until a person resumes it, as this watch asked ("" if it is not)."""
        state = self.host.state
        known = state.runs.get(run)
        if known is None or f"run:{run}" not in state.paused:
            return ""
        codes = {name.partition(" ")[0]: at for name, at in known.noticed.items()}
        asked = [code for code in CODES if code in codes and self.watch.act(code) == "ask"]
        return "; ".join(f"{_WORDS[code]} (see position {codes[code]})" for code in asked)

    @property
    def has_news(self) -> bool:
        """Whether something came since the last look that may be a sign."""
        return bool(self._look)

    async def look(self) -> int:
        """Write down what is new about the runs that had news; how many findings that were."""
        found = 0
        state, now_ms = self.host.state, self.host.env.wall_ms()
        for key, run in list(state.runs.items()):
            timed = run.status == "running" and run.agent == self.host.agent and 0 < self._due_ms(run) <= now_ms
            if key not in self._look and not timed:
                continue
            self._look.pop(key, None)
            for signal in unnoticed(state, run, self.thresholds, now_ms):
                found += await self._say(run, signal)
        return found

    async def _say(self, run: RunState, signal: Signal) -> bool:
        """One finding, and what is done about it, in one record; nothing if somebody else was faster."""
        act = self.watch.act(signal.code)
        finding = Finding(
            code=signal.code,
            key=signal.key,
            message=signal.message,
            cites=signal.cites,
            agent=run.agent,
            run=run.id,
        )
        entries = [self._entry(finding, run)]
        if act in ("pause", "ask"):
            reason = f"{signal.message}; `logact resume LOG --run {run.id}` lets it go on"
            entries.append(self._entry(Control(verb="pause", scope=f"run:{run.id}", reason=reason), run))
        elif act == "stop":
            entries.append(self._entry(Control(verb="stop", scope=f"run:{run.id}", reason=signal.message), run))
        try:
            await self.host.append(entries, unless=where(kinds=["Finding", "Control", "Output"], runs=[run.id]))
        except ConditionFailed:
            self._look[run.id] = None
            return False
        return True

    def _entry(self, payload: Finding | Control, run: RunState) -> NewEntry:
        return self.host.entry(payload, "supervisor", self.name, run=run.id, agent=run.agent)

    def _due_ms(self, run: RunState) -> int:
        return next_look_ms(run, self.thresholds)

    # --- parts ------------------------------

    async def listen(self) -> list[str]:
        """Fence off the incarnations that owe something for a lease and are silent for as long; which those are."""
        host, state = self.host, self.host.state
        now = host.env.monotonic()
        owed = leasing.owed(state, host.agent, host.env.wall_ms())
        self._owed = {
            part: (what, self._owed[part][1] if part in self._owed and self._owed[part][0] == what else now)
            for part, what in owed.items()
        }
        found = []
        for part in owed:
            for key in self._silent(state, part, now):
                finding = hung(state, key, host.agent)
                entry = host.entry(finding, "supervisor", self.name)
                if await fence_off(host, entry, host.agent):
                    found.append(key)
        return found

    def _silent(self, state: State, part: str, now: float) -> list[str]:
        """The incarnations that play a part which is owed for long, and gave no sign for as long."""
        silent = []
        for key, life in state.incarnations.items():
            birth = life.birth
            if birth is None or life.left or key in state.fenced or key == self.host.incarnation:
                continue
            if not birth.lease_ms or birth.agent != self.host.agent or not leasing.plays(birth.part, part):
                continue
            lease_s = birth.lease_ms / 1000
            late = now - self._owed[part][1] >= lease_s
            if self.hearing.silent_s(key) >= lease_s and late and self.host.gone(key) is not True:
                silent.append(key)
        return silent

    # --- the loop ------------------------------

    async def run(self) -> None:
        """Watch until cancelled."""
        host = self.host
        while True:
            await host.tail.until(lambda state: self._look, self._pause_s(), about=host.agent)
            try:
                await self.look()
                await self.listen()
            except LogActError:
                await host.env.sleep(0.2 + 0.1 * host.env.random())

    def _pause_s(self) -> float | None:
        """How long to wait if nothing comes: something may be owed too long, or a run's time run out."""
        state, now_ms = self.host.state, self.host.env.wall_ms()
        lease_s = self.host.lease_ms / 1000
        pauses = [max(0.001, (at - now_ms) / 1000) for at in map(self._due_ms, state.runs.values()) if at]
        if lease_s:
            pauses.append(max(lease_s / leasing.RENEWALS, min(lease_s, LOOK_S)))
        return min(pauses, default=None)


_NONE = Limits()
_NEWS = frozenset(("Inference", "Intent", "Result", "Abort", "Expiry", "Recovery", "Undone"))
"""After which something may be to notice about a run."""

_WORDS: dict[Code, str] = {
    "loop": "it did the same again and again",
    "stall": "nothing new came of its actions",
    "errors": "more and more of its actions failed",
    "budget": "a limit comes near",
}


def _last_bad(run: RunState) -> bool:
    return bool(run.trace) and run.trace[-1].bad
