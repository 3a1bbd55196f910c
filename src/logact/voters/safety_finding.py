"""What the safety pack says: findings with stable codes, and how one travels to the voter."""

from __future__ import annotations

import msgspec

TO_QUARANTINE = "Move it to a quarantine directory in the workspace instead, so that it can be taken back."
NO_RETRY = "Do not retry it in another form; ask the user."
PLAINLY = "Say it plainly: literal commands and paths, one step at a time, or use the file tools."


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with an action. ``code`` is stable; ``where`` is the argument that holds it."""

    code: str
    reason: str
    hint: str = NO_RETRY
    where: str = ""


class Unsafe(Exception):
    """Carries a finding out of a judgement. Never leaves the package."""

    def __init__(self, code: str, reason: str, hint: str = NO_RETRY) -> None:
        super().__init__(reason)
        self.finding = Finding(code=code, reason=reason, hint=hint)


def undecidable(what: str, kind: str = "shell") -> Unsafe:
    """The finding for what can't be judged."""
    return Unsafe(f"{kind}.undecidable", f"it cannot be judged: {what}", PLAINLY)
