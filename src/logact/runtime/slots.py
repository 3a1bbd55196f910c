"""What a supervisor knows of each of its parts: what it is, its present process, its signs of life.

Nothing is started or ended here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from logact.core import supervising
from logact.runtime import processes

START_S_MAX = 60.0
"""How long a process may take from its start to its first sign of life: imports on a crowded machine."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One process to keep alive. A whole agent ends when its run does, and starts when the log holds work."""

    name: str
    command: tuple[str, ...]
    whole_agent: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How parts are restarted. More than ``restarts`` ends ``within_s`` seconds, and it gives up."""

    strategy: supervising.Strategy = "one_for_one"
    restarts: int = 10
    within_s: float = 60.0
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    stop_s: float = 20.0
    hang_s: float = 30.0
    on_limit: Literal["stop", "pause"] = "stop"


class Slot:
    """The place of one part: its present process, and when the next is due (None: it is not)."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.child: processes.Child | None = None
        self.due: float | None = 0.0
        self.not_before = 0.0  # until then it waits after its last end, whoever asks for it
        self.began = self.pulsed = self.moved = 0.0
        self.heard = False  # whether the present process has said that it lives
        self.position = 0
        self.lives = 0
        self.ends_ms: list[int] = []
        self.rests: tuple[int, int] | None = None  # the exit code of a whole agent that rests, and the news then

    def rest_until(self, end: float) -> None:
        """Its next life is due then, or later if it waits for longer already."""
        self.not_before = max(self.not_before, end)
        self.due = self.not_before

    def hung(self, now: float, read_at: float, read: int, *, hang_s: float, stood_still: bool) -> str:
        """Why the present process counts as hung ("" if it does not).

        ``read`` is how far the supervisor had read the log at the time ``read_at``; ``stood_still`` says that
        the supervisor itself was stopped for a while, so that nobody's silence counts.
        """
        said = self.child.pulse() if self.child is not None else None
        if said is not None or stood_still:
            self.pulsed = now
        if said is not None:
            self.heard = True
            self.moved = now if said != self.position else self.moved
            self.position = said
        limit_s = hang_s if self.heard else max(START_S_MAX, hang_s)
        if now - self.pulsed > limit_s:
            return f"no sign of life for {limit_s:g} s"
        # a position of 0 is none yet: it still reads from the beginning, which may take long
        if 0 < self.position < read and now - max(read_at, self.moved) >= limit_s and not stood_still:
            return f"it reads nothing of the log since {self.position}"
        return ""
