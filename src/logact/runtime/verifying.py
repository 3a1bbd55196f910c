"""Verifies in the background what a start passed over: the log before the checkpoint that the process started from.

A start checks what it reads, from its checkpoint on, and refuses to act on damage there. What lies before is checked
here, slowly, while the process works. Damage becomes a finding, and the log is paused: a person looks, and repairs it
or resumes. The same damage pauses a log once only, so that a person's answer holds.
"""

from __future__ import annotations

from logact.entry import Control, Finding, NewEntry
from logact.errors import KeyConflict, LogError
from logact.logs.verify import Problem, verify
from logact.runtime.host import Host

BEGIN_S = 10.0
"""How long a process works before it begins to look back: short lives are not slowed down."""

SHARE = 0.05
"""How much of one processor it takes at most."""

DAMAGED = "log_damaged"


class BackgroundCheck:
    """Checks the log before this process's checkpoint, once."""

    def __init__(self, host: Host, *, begin_s: float = BEGIN_S, share: float = SHARE) -> None:
        self.host = host
        self.begin_s = begin_s
        self.share = share
        self.problems: tuple[Problem, ...] | None = None  # None: not finished
        self._busy_since = 0.0

    @property
    def needed(self) -> bool:
        """Whether the start passed anything over."""
        return self.host.tail.checkpoint is not None

    async def run(self) -> None:
        """Check it, and say in the log what is wrong. Ends when it is done."""
        checkpoint = self.host.tail.checkpoint
        if checkpoint is None:
            return
        env = self.host.env
        await env.sleep(self.begin_s)
        self._busy_since = env.monotonic()
        while self.problems is None:
            try:
                report = await verify(self.host.log, upto=checkpoint.upto, breathe=self._breathe)
                self.problems = report.problems
                if report.problems:
                    await self._report(report.problems[0])
            except LogError:
                await env.sleep(self.begin_s)  # the log is away; what was found is found again

    async def _breathe(self) -> None:
        """After each page: rest so long that no more than the share is used."""
        env = self.host.env
        worked_s = env.monotonic() - self._busy_since
        await env.sleep(worked_s * (1 / self.share - 1))
        self._busy_since = env.monotonic()

    async def _report(self, problem: Problem) -> None:
        found = Finding(
            code=DAMAGED, message=f"position {problem.position}: {problem.what}", cites=(problem.position,)
        )
        held = Control(verb="pause", scope="log", reason=f"it is damaged at position {problem.position}")
        entries = [NewEntry(payload=one, role="recoverer", name="verifier") for one in (found, held)]
        try:
            # under a key of its own, not after a look: who looks has to read past the damage
            await self.host.append(entries, key=f"{DAMAGED}:{problem.position}")
        except KeyConflict:
            return  # it was said before, in other words
