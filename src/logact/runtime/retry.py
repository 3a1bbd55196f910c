"""``RetryRecovery``: failed actions again, with exponential backoff and jitter, by class of failure.

Given to an agent (``recovery=RetryRecovery(...)``) it is the executor's: each failure is written down with the time
of the next try or with the end, and the driver proposes the try. ``recover`` does the same for a loop of your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from logact import env as environment
from logact.core.retrying import NEVER_KINDS, RETRIED_KINDS, Backoff, delay_s
from logact.core.views import Action, LogEntry
from logact.entry import Failure
from logact.errors import UsageError

SETTLED_WELL = frozenset({"executed", "undone", "skipped", "superseded"})


class Retriable(Protocol):
    """What ``recover`` needs of an agent. A ``LogActAgent`` is one."""

    async def look(self, position: int) -> LogEntry:
        """An action as the log has it now."""
        ...

    async def propose_action(self, action: Action, *, run: int = 0, retry_of: int = 0) -> LogEntry:
        """Phase 1."""
        ...

    async def validate_action(self, entry: LogEntry) -> Any:
        """Phase 2."""
        ...

    async def execute_action(self, entry: LogEntry) -> Any:
        """Phase 3."""
        ...

    async def give_up(self, position: int, reason: str = "") -> LogEntry:
        """Close a failed action for good."""
        ...


class RetryRecovery:
    """Tries failed actions again where their effect allows it: ``read``, ``idempotent``, or certainly not happened.

    Delays are ``base_delay * 2 ** n`` seconds, at most ``max_delay``, less up to the share ``jitter`` at random; a
    service's own delay (``ToolError(retry_after_s=...)``) counts where it is longer. At most ``max_retries`` retries,
    and none later than ``total_s`` after the first try. ``by_class`` sets another :class:`Backoff` for a class of
    failures, or None to switch it off; classes are those of ``ToolError(kind=...)``, and ``timeout``. What is not
    listed: ``transient``, ``environment``, ``timeout`` and ``ambiguous`` are tried again, others are not.

    Raises UsageError for what cannot be used.
    """

    def __init__(
        self,
        max_retries: int = 3,
        base_delay: float = 0.5,
        max_delay: float = 60.0,
        total_s: float = 600.0,
        jitter: float = 0.25,
        *,
        by_class: Mapping[str, Backoff | None] | None = None,
    ) -> None:
        usual = Backoff(
            max_retries=max_retries, base_delay=base_delay, max_delay=max_delay, total_s=total_s, jitter=jitter
        )
        chosen: dict[str, Backoff | None] = dict.fromkeys(RETRIED_KINDS, usual)
        chosen.update(by_class or {})
        for name, rule in chosen.items():
            if name in NEVER_KINDS and rule is not None:
                raise UsageError(
                    f"Failures of the class {name!r} are never tried again",
                    received=name,
                    expected=", ".join((*RETRIED_KINDS, "failed")),
                )
            if rule is not None:
                _check(name, rule)
        self.usual = usual
        self.max_retries = max_retries
        self.base_delay = base_delay
        self.rules: dict[str, Backoff] = {name: rule for name, rule in chosen.items() if rule is not None}

    async def recover(self, entry: LogEntry, agent: Retriable) -> LogEntry:
        """Try a failed action of a loop of your own again, until it ends well or is given up; its last try.

        Each try is a new intent with ``retry_of``, voted on again. What did not fail, or may have happened, comes
        back as it is. Give the agent the same object as ``recovery=`` so that the schedule is in the log.
        """
        env = environment.current()
        began = env.monotonic()
        now = await agent.look(entry.position)
        while now.status == "failed" and now.error is not None:
            rule = self.rules.get(now.error.kind)
            if rule is None or not (now.error.definite or now.intent.effect in ("read", "idempotent")):
                return now
            wait_s = self._wait_s(now, now.error, rule)
            late = rule.total_s and env.monotonic() - began + wait_s > rule.total_s
            if now.retry_count >= rule.max_retries or late:
                return await agent.give_up(now.position, f"tried {now.retry_count + 1} times, and given up")
            await env.sleep(wait_s)
            again = await agent.propose_action(now.action, run=now.run, retry_of=now.position)
            judged = await agent.validate_action(again)
            if judged.approved:
                await agent.execute_action(again)
            now = await agent.look(again.position)
        return now

    @staticmethod
    def _wait_s(now: LogEntry, error: Failure, rule: Backoff) -> float:
        env = environment.current()
        planned = delay_s(rule, now.retry_count, error, env.random())
        if now.retry_at_ms:
            return max(0.0, min((now.retry_at_ms - env.wall_ms()) / 1000, planned / max(0.01, 1 - rule.jitter)))
        return planned


def _check(name: str, rule: Backoff) -> None:
    wrong = ""
    if rule.max_retries < 0:
        wrong = f"max_retries={rule.max_retries}"
    elif not 0 <= rule.base_delay <= rule.max_delay:
        wrong = f"base_delay={rule.base_delay:g}, max_delay={rule.max_delay:g}"
    elif rule.total_s < 0:
        wrong = f"total_s={rule.total_s:g}"
    elif not 0 <= rule.jitter < 1:
        wrong = f"jitter={rule.jitter:g}"
    if wrong:
        raise UsageError(
            f"A backoff for {name!r} cannot be used",
            received=wrong,
            expected="no negative numbers, base_delay up to max_delay, jitter from 0 to below 1",
        )
