"""What a model is asked of a history, and in which form it answers. Texts and schemas only."""

from __future__ import annotations

from logact.introspection.asking import Question
from logact.introspection.changes import SETTINGS

KINDS = ("parameter", "model", "tool", "cache", "rule", "other")

_CITED = {"type": "array", "items": {"type": "integer"}}
_CLAIMS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"text": {"type": "string"}, "cites": _CITED},
        "required": ["text", "cites"],
    },
}

DEBUG = Question(
    name="report",
    task=(
        "Explain where this agent loses time, tokens and money, and propose what to change. Each sentence of the "
        "explanation and each proposal cites the positions that show it. `saves_…` are your estimates over this "
        "history. A `change` is given only where it can be applied as it is: a setting of "
        f"({', '.join(SETTINGS)}) with its new value, or a rule that denies a call ({{'rule': {{'name', 'decision': "
        "'deny', 'tool', 'arguments'}}}})."
    ),
    parameters={
        "explanation": _CLAIMS,
        "proposals": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "kind": {"type": "string", "enum": list(KINDS)},
                    "why": {"type": "string"},
                    "cites": _CITED,
                    "saves_tokens": {"type": "integer"},
                    "saves_ms": {"type": "number"},
                    "saves_usd": {"type": "number"},
                    "change": {"type": "object"},
                },
                "required": ["title", "kind", "why", "cites"],
            },
        },
    },
    required=("explanation", "proposals"),
)

ASK = Question(
    name="reply",
    task=(
        "Answer the operator's question from the history. Each sentence of the answer cites the positions that "
        "support it. If the history does not hold the answer, give no sentence that guesses."
    ),
    parameters={"answer": _CLAIMS},
    required=("answer",),
)
