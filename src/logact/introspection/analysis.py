"""What a model answers that is asked how to recover: try again, give up, or do something else instead.

Owns the form of that answer; what is asked, and what becomes of it, is ``semantic_recovery``'s.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from logact.core.views import Action


class Planned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action of a plan."""

    tool: str
    arguments: dict[str, Any] = {}


class Analysis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model answers. ``cites`` are positions of the log, ``actions`` those of an alternative."""

    decision: Literal["retry", "skip", "alternative"]
    reasoning: str
    actions: tuple[Planned, ...] = ()
    cites: tuple[int, ...] = ()

    @property
    def should_retry(self) -> bool:
        """Whether the failed action is to be tried again."""
        return self.decision == "retry"

    @property
    def should_skip(self) -> bool:
        """Whether the failed action is to be given up."""
        return self.decision == "skip"

    @property
    def alternatives(self) -> tuple[Action, ...]:
        """The actions that are proposed instead."""
        return tuple(Action(tool=one.tool, arguments=one.arguments, reasoning=self.reasoning) for one in self.actions)
