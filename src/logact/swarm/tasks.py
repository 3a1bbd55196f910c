"""What a sub-task is, and how the text that an agent is told begins with its name."""

from __future__ import annotations

import msgspec


class SubTask(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One part of a task. ``after`` are the tasks whose results it needs (it is told them), ``role`` is who may do
    it ("": anybody), ``keep`` says what it belongs to: tasks of one kind are kept on one agent where that is asked.
    """

    name: str
    text: str
    after: tuple[str, ...] = ()
    role: str = ""
    keep: str = ""


def part_of(text: str) -> str:
    """The sub-task that an agent was told to do by a text ("": none)."""
    head = text.partition("\n")[0]
    return head.removeprefix("Task ") if head.startswith("Task ") else ""
