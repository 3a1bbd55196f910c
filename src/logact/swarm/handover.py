"""Hands long results over as summaries: made once, by who completes the task, in the record that completes it.

A summary is a model's; where the model gives none, the beginning and the end of the result stand in for it. It says
where the whole result stands, which a tool gives (``digests.WHOLE``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from logact import codec
from logact.entry import Entry, Notice
from logact.errors import ModelError
from logact.introspection.asking import Question, ask_model, said
from logact.introspection.material import fenced
from logact.models.base import Model
from logact.runtime.values import cut

HANDED = "swarm_handover"
"""The code of the notice that holds a summary."""

HANDOVER_CHARS = 1500
"""A longer result is handed over as a summary, of at most so many characters."""

ASKED_CHARS_MAX = 40_000

QUESTION = Question(
    name="hand_over",
    task=(
        "An agent ends its part of a shared task with the result below; others go on from it. Sum it up for them in "
        "at most 200 words: what was found or done, what was decided and why, names, numbers and places as they "
        "stand there, and what is still open. Leave out how it was done."
    ),
    parameters={"summary": {"type": "string"}},
    required=("summary",),
)


async def summary(model: Model | None, task: str, text: str, run: int, of: int, *, work: int = 0) -> Notice | None:
    """The entry that hands a result over; None where it is short enough to be handed over whole."""
    if len(text) <= HANDOVER_CHARS:
        return None
    short, usage, by, why = "", None, "", "there is no model"
    if model is not None:
        number, shown = fenced("result", text[:ASKED_CHARS_MAX])
        try:
            answer = await ask_model(model, QUESTION, number, shown)
            short = said(answer.given.get("summary"), HANDOVER_CHARS)
            usage, by, why = answer.usage, answer.model, "the model said nothing"
        except ModelError as error:
            why = f"{error.code}: {error}"[:300]
    data: dict[str, Any] = {
        "task": task,
        "of": of,
        "digest": codec.digest(text.encode()),
        "chars": len(text),
        "work": work,
    }
    if usage is not None:
        data |= {"usage": msgspec.to_builtins(usage), "model": by}
    if not short:
        data["plain"] = why
    data["text"] = short or cut(text, HANDOVER_CHARS)
    return Notice(code=HANDED, message=f"the result of {task}, in short", run=run, data=data)


def handed(entry: Entry) -> tuple[str, str] | None:
    """The task and the words of a summary, if the entry is one that can be read."""
    notice = entry.payload
    if not isinstance(notice, Notice) or notice.code != HANDED:
        return None
    task, text = notice.data.get("task"), notice.data.get("text")
    if not isinstance(task, str) or not isinstance(text, str):
        return None
    return task, text[: 2 * HANDOVER_CHARS]
