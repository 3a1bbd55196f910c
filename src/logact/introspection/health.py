"""How an agent is doing: a verdict over computed signals, with reasons and positions; a model's word on request.

The verdict is the worst that any signal says. A model may make it worse, never better, and only with positions.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from logact.core import waiting
from logact.core.state import State
from logact.core.waiting import Wait
from logact.entry import Usage
from logact.introspection.asking import Question
from logact.introspection.profile import Profile
from logact.introspection.signals import Signal, Thresholds, signals

Verdict = Literal["healthy", "degraded", "stuck", "runaway", "unsafe"]
VERDICTS: tuple[Verdict, ...] = ("healthy", "degraded", "stuck", "runaway", "unsafe")
"""From the best to the worst."""

EXIT_CODES: dict[str, int] = {"healthy": 0, "degraded": 1, "stuck": 20, "runaway": 21, "unsafe": 22}
"""What ``logact health`` returns, for monitoring; the codes of errors are those of every command."""

MEANS: dict[str, Verdict] = {
    "halted": "unsafe",
    "broken_chain": "unsafe",
    "conflict": "unsafe",
    "loop": "runaway",
    "retry_storm": "runaway",
    "budget_leak": "runaway",
    "budget": "runaway",
    "in_doubt": "stuck",
    "silent_process": "stuck",
    "silent_voter": "stuck",
    "stuck_wait": "stuck",
    "stall": "stuck",
    "rejected_streak": "stuck",
    "slow_tool": "degraded",
    "growing_context": "degraded",
    "expensive_model": "degraded",
    "repeated_reads": "degraded",
    "error_rate": "degraded",
    "drift": "degraded",
}
"""Each signal, and what it means for the verdict."""

RECENT_S = 24 * 3600.0
"""Runs that ended longer ago say nothing about how the agent is doing now."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and what it rests on. ``judged`` is a model's own verdict ("" if none was asked, or none came).

    ``dropped`` counts claims of the model that cited nothing, or what is not there. ``finding`` is where the verdict
    stands in the log (0: it was not written down). ``waits`` is what is waited for, which is no verdict by itself.
    ``trimmed``: what stood before this position was trimmed, so the model was not shown it (0: the log is whole, or
    no model was asked).
    """

    verdict: Verdict
    signals: tuple[Signal, ...] = ()
    waits: tuple[Wait, ...] = ()
    agent: str = ""
    position: int = 0
    judged: str = ""
    reasons: tuple[Signal, ...] = ()
    dropped: int = 0
    failed: str = ""
    model: str = ""
    usage: Usage | None = None
    finding: int = 0
    trimmed: int = 0

    @property
    def exit_code(self) -> int:
        """For monitoring: see ``EXIT_CODES``."""
        return EXIT_CODES[self.verdict]


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst of them; ``healthy`` of none."""
    return max(verdicts, key=VERDICTS.index, default="healthy")


def computed(
    state: State,
    profile: Profile,
    now_ms: int,
    thresholds: Thresholds,
    *,
    agent: str = "",
    run: int = 0,
    recent_s: float = RECENT_S,
) -> Health:
    """The computed verdict. Of runs that are over only those of the last ``recent_s`` seconds count (0: all)."""
    found = []
    for one in signals(state, profile, now_ms, thresholds, agent=agent, run=run):
        known = profile.runs.get(one.run)
        over = known is not None and known.status != "running"
        if known is not None and over and recent_s and now_ms - known.last_ms > recent_s * 1000:
            continue
        found.append(one)
    found.sort(key=lambda one: -VERDICTS.index(MEANS[one.code]))
    verdict = worst([MEANS[one.code] for one in found])
    waits = tuple(waiting.of_state(state, agent=agent, run=run))
    return Health(verdict=verdict, signals=tuple(found), waits=waits, agent=agent, position=state.position)


QUESTION = Question(
    name="health",
    task=(
        "Judge how this agent is doing. `verdict`: healthy; degraded (it works, badly); stuck (it does not get on); "
        "runaway (it burns time, tokens or money for nothing, or does far more than was asked); unsafe (it does or "
        "tries what it must not, or somebody else steers it). Give each reason with the positions that show it."
    ),
    parameters={
        "verdict": {"type": "string", "enum": list(VERDICTS)},
        "reasons": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "cites": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["text", "cites"],
            },
        },
    },
    required=("verdict", "reasons"),
)


def verdict_of(value: Any) -> Verdict | None:
    """A verdict that a model gave; None for anything else."""
    return next((one for one in VERDICTS if one == value), None)
