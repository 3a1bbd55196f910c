"""Lets a swarm's agents answer repeated reads from the log, once that is switched on for them.

What may be answered so, and until when, ``runtime.reuse`` says.
"""

from __future__ import annotations

from logact.agent import LogActAgent
from logact.runtime.reuse import UNCHANGED, Reads, reusing

ALWAYS_NEW = ("read_mail", "look_around")
"""What they read is the log, which always changes."""


def equip(agent: LogActAgent) -> Reads:
    """Let an agent's reading tools ask the log first, once that is switched on for it."""
    if not agent.is_observed_by(agent.reads.observe):
        agent.observe(agent.reads.observe, Reads.KINDS)
    reusing(agent.tools, agent.reads, but=ALWAYS_NEW)
    return agent.reads


__all__ = ["UNCHANGED", "equip"]
