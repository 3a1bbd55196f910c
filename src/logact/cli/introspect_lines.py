"""What ``logact health``, ``debug`` and ``cost`` print for people."""

from __future__ import annotations

from logact.cli import look, waiting
from logact.introspection.agentic import Debugged
from logact.introspection.health import Health
from logact.introspection.performance import Performance, Proposal, Row

VERDICT_COLOURS = {"healthy": "green", "degraded": "yellow", "stuck": "red", "runaway": "red", "unsafe": "magenta"}


def health_lines(found: Health) -> list[str]:
    """A verdict for people."""
    lines = [look.paint(found.verdict, VERDICT_COLOURS[found.verdict], bold=True)]
    for one in (*found.signals, *found.reasons):
        where = f" (at {', '.join(map(str, one.cites))})" if one.cites else ""
        run = f"run {one.run}: " if one.run else ""
        lines += look.wrapped(one.code, f"{run}{look.clean(one.message)}{where}", indent=2, label_width=17)
    for wait in found.waits:
        run = f"run {wait.run}: " if wait.run else ""
        lines += look.wrapped("waits", run + waiting.words(wait, command=True), indent=2, label_width=17)
    if found.judged:
        lines += look.wrapped("the model", f"{found.model} says {found.judged}", indent=2, label_width=17)
    lines += model_lines(found.dropped, found.failed, found.trimmed)
    return lines


def model_lines(dropped: int, failed: str, trimmed: int = 0) -> list[str]:
    """What became of a model's claims, and what it was not shown."""
    lines = []
    if trimmed:
        lines += look.wrapped("trimmed", f"what stood before position {trimmed}", indent=2, label_width=17)
    if dropped:
        claims = look.count(dropped, "claim")
        lines += look.wrapped("dropped", f"{claims} of the model that cited nothing that is there", indent=2,
                              label_width=17)  # fmt: skip
    if failed:
        lines += look.wrapped("no judgement", look.clean(failed), indent=2, label_width=17)
    return lines


def debug_lines(found: Debugged) -> list[str]:
    """A debugging for people."""
    seen = found.performance
    times, tokens = seen.times, seen.tokens
    whole = times.model_ms + times.votes_ms + times.tools_ms
    lines = look.wrapped(
        "time",
        f"{look.duration(whole)}: model {_share(times.model_ms, whole)}, waiting for votes "
        f"{_share(times.votes_ms, whole)}, tools {_share(times.tools_ms, whole)}"
        + (f" (of it retries {look.duration(times.retries_ms)})" if times.retries_ms else ""),
    )
    cost = f"{seen.usd:.4f} USD" if seen.usd is not None else "no price known"
    lines += look.wrapped(
        "tokens",
        f"{tokens.input} in ({tokens.cached} cached), {tokens.output} out; {tokens.aside} for voters and "
        f"compactions; {tokens.wasted} in turns that brought nothing new"
        + (f"; {tokens.again} for questions that were answered before" if tokens.again else "")
        + f"; {cost}",
    )
    lines += look.wrapped("work", f"{look.count(seen.runs, 'run')}, {seen.turns} turns, {seen.actions} actions")
    if seen.since:
        lines += look.wrapped("since", f"counting began at {seen.since}")
    for head, rows in (("MODEL", seen.models), ("TOOL", seen.tools), ("VOTER", seen.voters)):
        if rows:
            lines += ["", *table_rows(head, rows[:10])]
    lines += _lists(seen)
    for one in (*seen.proposals, *found.proposals):
        lines += _proposal(one)
    if found.explanation:
        lines += ["", *look.wrapped("why", look.clean(found.explanation))]
    if found.dropped or found.failed or found.trimmed:
        lines += ["", *model_lines(found.dropped, found.failed, found.trimmed)]
    return lines


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def table_rows(head: str, rows: tuple[Row, ...]) -> list[str]:
    """Sums by name, as a table."""
    cells = [
        [
            str(one.count),
            str(one.failed),
            look.duration(one.ms / one.count) if one.count else "-",
            look.duration(one.ms_max) if one.ms_max else "-",
            str(one.tokens),
            f"{one.usd:.4f}" if one.usd is not None else "-",
            look.clean(one.name),
        ]
        for one in rows
    ]
    return look.table(cells, head=["N", "FAILED", "EACH", "LONGEST", "TOKENS", "USD", head], right=[0, 1, 2, 3, 4, 5])


def _lists(seen: Performance) -> list[str]:
    lines = []
    if seen.slowest:
        lines += ["", "Slowest:"]
        lines += [
            look.fit(f"  {look.duration(ms):>10}  {position}  {look.clean(name)}", look.width())
            for ms, position, name in seen.slowest[:5]
        ]
    if seen.repeated:
        lines += ["", "Called again and again (told the same in brackets):"]
        lines += [f"  {one.count} ({one.same})  {one.tool}  at {', '.join(map(str, one.positions[:5]))}"
                  for one in seen.repeated[:5]]  # fmt: skip
    if seen.asked_again:
        lines += ["", "A model was asked again what it had answered before:"]
        for again in seen.asked_again[:5]:
            usd = f", {again.usd:.4f} USD" if again.usd is not None else ""
            where = ", ".join(map(str, again.cites[:5]))
            text = f"{look.clean(again.model)}: {again.tokens} tokens, {look.duration(again.ms)}{usd} (at {where})"
            lines += look.wrapped(str(again.count), text, indent=2, label_width=5)
    if seen.contexts:
        lines += ["", "Contexts, in tokens (first turn, latest, largest):"]
        lines += [f"  run {one.run}: {one.first}, {one.last}, {one.largest} over {one.turns} turns"
                  for one in seen.contexts[:5]]  # fmt: skip
    if seen.errors:
        lines += ["", "Errors that are alike:"]
        for one in seen.errors[:5]:
            where = ", ".join(map(str, one.positions[:5]))
            lines += look.wrapped(str(one.count), f"{one.tool}: {one.kind}: {one.message} (at {where})", indent=2,
                                  label_width=5)  # fmt: skip
    if seen.signals:
        lines += ["", "Noticed:"]
        for signal in seen.signals:
            lines += look.wrapped(signal.code, look.clean(signal.message), indent=2, label_width=17)
    return lines


def _proposal(one: Proposal) -> list[str]:
    saves = [
        text
        for text in (
            f"{one.tokens} tokens" if one.tokens else "",
            look.duration(one.ms) if one.ms else "",
            f"{one.usd:.4f} USD" if one.usd else "",
        )
        if text
    ]
    estimate = f" It would have saved about {', '.join(saves)}." if saves else ""
    where = f"[{' '.join(map(str, one.cites))}]"
    head = f"{look.clean(one.title).rstrip('.')} ({look.clean(one.by)})"
    why = f". {look.clean(one.why).rstrip('.')}" if one.why.strip() else ""
    return ["", *look.wrapped("proposal", f"{head}{why} {where}.{estimate}")]
