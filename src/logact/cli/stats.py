"""Counting what stands in a log, for ``logact log stats``. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from logact.cli import look
from logact.core.state import State
from logact.entry import Abort, Compaction, Entry, Inference, Result, Vote
from logact.introspection.history import history
from logact.logs.base import SharedLog


class Statistics(msgspec.Struct, kw_only=True):
    """Counts over the entries that were asked for. Votes are [for, against, abstained] by voter."""

    log: str = ""
    entries: int = 0
    bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    kinds: Counter[str] = Counter()
    agents: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    tools: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    votes: dict[str, list[int]] = {}
    vote_ms: dict[str, float] = {}
    rejections: Counter[str] = Counter()
    ineffective: Counter[str] = Counter()
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    priced: int = 0
    inferences: int = 0
    model_ms: float = 0.0
    tool_ms: float = 0.0


async def statistics(log: SharedLog, fits: Callable[[Entry], bool]) -> Statistics:
    """Count the entries of a log that fit; what took no effect counts as an entry, and as that."""
    found = Statistics(
        kinds=Counter(), agents=Counter(), actions=Counter(), tools=Counter(), runs=Counter(),
        votes={}, vote_ms={}, rejections=Counter(), ineffective=Counter(),
    )  # fmt: skip
    seen_actions: set[int] = set()
    seen_runs: set[int] = set()

    def count(state: State, entry: Entry) -> None:
        if not fits(entry):
            return
        found.entries += 1
        found.bytes += entry.size
        found.first_ms = found.first_ms or entry.time_ms
        found.last_ms = entry.time_ms
        found.kinds[entry.kind] += 1
        if state.verdict:
            found.ineffective[f"{entry.kind}: {_general(state.verdict)}"] += 1
            return
        if entry.agent:
            found.agents[entry.agent] += 1
        if entry.kind == "Intent":
            seen_actions.add(entry.position)
        elif entry.kind == "Run":
            seen_runs.add(entry.position)
        _count_payload(found, entry)

    told = await history(log, observer=count)
    found.log = told.state.log
    for key, action in told.state.actions.items():
        if key in seen_actions:
            found.actions[action.status] += 1
            found.tools[action.intent.tool] += 1
    for key, run in told.state.runs.items():
        if key in seen_runs:
            found.runs[run.status] += 1
    return found


def _count_payload(found: Statistics, entry: Entry) -> None:
    said = entry.payload
    if isinstance(said, Vote):
        place = 0 if said.approved else 1 if said.approved is False else 2
        found.votes.setdefault(said.voter, [0, 0, 0])[place] += 1
        found.vote_ms[said.voter] = found.vote_ms.get(said.voter, 0.0) + said.duration_ms
    elif isinstance(said, Abort):
        found.rejections[said.reason] += 1
    elif isinstance(said, Result):
        found.tool_ms += said.duration_ms
    elif isinstance(said, Inference | Compaction):
        found.inferences += 1
        found.input_tokens += said.usage.input_tokens
        found.output_tokens += said.usage.output_tokens
        found.cached_tokens += said.usage.cached_tokens
        if said.usage.cost_usd is not None:
            found.cost_usd += said.usage.cost_usd
            found.priced += 1
        if isinstance(said, Inference):
            found.model_ms += said.latency_ms


def _general(reason: str) -> str:
    """A reason without its numbers, so that equal reasons are counted together."""
    return " ".join("N" if word.strip(":,;()").isdigit() else word for word in reason.split())


def stats_json(found: Statistics) -> dict[str, Any]:
    """Statistics as a JSON object."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    plain["votes"] = {
        name: {"for": numbers[0], "against": numbers[1], "abstained": numbers[2]}
        for name, numbers in found.votes.items()
    }
    return plain


def stats_lines(found: Statistics) -> list[str]:
    """Statistics for people."""
    if not found.entries:
        return ["No entries."]
    span = look.duration(found.last_ms - found.first_ms)
    lines = [
        *look.wrapped("log", found.log),
        *look.wrapped("entries", f"{found.entries}, {look.size(found.bytes)} of payload"),
        *look.wrapped("time", f"{look.moment(found.first_ms)} to {look.moment(found.last_ms)} ({span})"),
    ]
    for label, counter in (("runs", found.runs), ("actions", found.actions), ("tools", found.tools)):
        if counter:
            lines += look.wrapped(label, _counts(counter))
    if len(found.agents) > 1:
        lines += look.wrapped("agents", _counts(found.agents))
    if found.inferences:
        cost = f"{found.cost_usd:.4f} USD" if found.priced == found.inferences else "unknown"
        if 0 < found.priced < found.inferences:
            cost = f"at least {found.cost_usd:.4f} USD (no price for {found.inferences - found.priced})"
        lines += look.wrapped("model", f"{look.count(found.inferences, 'answer')} in {look.duration(found.model_ms)}")
        lines += look.wrapped("tokens", f"{found.input_tokens} in, {found.output_tokens} out; cost {cost}")
    if found.tool_ms:
        lines += look.wrapped("tools took", look.duration(found.tool_ms))
    lines += ["", *_block("ENTRIES", found.kinds)]
    if found.votes:
        rows = [
            [name, *map(str, numbers), look.duration(found.vote_ms[name] / sum(numbers))]
            for name, numbers in sorted(found.votes.items())
        ]
        lines += ["", *look.table(rows, head=["VOTER", "FOR", "AGAINST", "ABSTAINED", "EACH TOOK"], right=[1, 2, 3])]
    if found.rejections:
        lines += ["", *_block("REJECTED BECAUSE", found.rejections)]
    if found.ineffective:
        lines += ["", *_block("TOOK NO EFFECT", found.ineffective)]
    return lines


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counter.most_common(12))


def _block(title: str, counter: Counter[str]) -> list[str]:
    return look.table([[str(number), name] for name, number in counter.most_common(20)], head=["N", title], right=[0])
