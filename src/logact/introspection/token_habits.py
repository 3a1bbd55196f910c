"""More that a swarm's log shows of wasted tokens: the same asked twice, long results handed on, agents that return.

Each finding cites positions and names the change that would spare it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from logact import codec
from logact.introspection.token_reading import Asked, Read, Spending, Work
from logact.introspection.tokens import CHARS_PER_TOKEN, RUNS_MIN, Measure, extract
from logact.introspection.tuning import DIGEST_CHARS_MIN

HANDED_CHARS_MIN = 1500
PARTS_MAX = 50


def answers(found: Spending, works: Sequence[Work]) -> list[Measure]:
    """Requests to a model that were made before, word for word, in another run."""
    first: dict[str, tuple[int, Asked]] = {}
    again: list[tuple[Asked, Asked]] = []
    for work in works:
        for asked in work.asked:
            run, earlier = first.setdefault(asked.digest, (work.run, asked))
            if run != work.run and asked.tokens:
                again.append((earlier, asked))
    if not again or len(works) < 2:
        return []
    cites = tuple(dict.fromkeys(one.position for pair in again[:10] for one in pair))
    title = f"{len(again)} requests to the model had been answered before, word for word"
    return [
        Measure(kind="answers", title=title, cites=cites, tokens=sum(one.tokens for _, one in again) // len(works))
    ]


def handovers(works: Sequence[Work]) -> list[Measure]:
    """Long results of earlier tasks in the texts of later ones, which every turn repeats."""
    long = [work for work in works if work.handed > HANDED_CHARS_MIN]
    if len(long) < 2:
        return []
    spared = sum((work.handed - HANDED_CHARS_MIN) * work.turns for work in long) // CHARS_PER_TOKEN // len(works)
    title = (
        f"{len(long)} tasks were handed {sum(work.handed for work in long) // len(long)} characters of results each"
    )
    return [Measure(kind="handover", title=title, cites=tuple(work.run for work in long[:20]), tokens=spared)]


def returns(works: Sequence[Work], agent: str) -> list[Measure]:
    """Reads that one agent made again for another task: in one conversation it would have had them before it."""
    known: dict[str, int] = {}
    again: list[int] = []
    mine = [work for work in works if work.agent == agent and work.parent]  # only a swarm's tasks can be put together
    for work in mine:
        for key in dict.fromkeys(work.keys):
            before = known.setdefault(key, work.run)
            again += [work.run] * (before != work.run)
    if len(again) < 2 or len(mine) < RUNS_MIN:
        return []
    title = f"{agent} read {len(again)} times what it had read for another task"
    return [Measure(kind="together", title=title, cites=tuple(dict.fromkeys(again))[:20])]


def told_again(groups: Sequence[Sequence[Read]], works: Sequence[Work]) -> list[Measure]:
    """Long texts that several agents read: all but the first may be given the lines that were of use."""
    said = {work.run: work.said for work in works}
    parts: dict[str, str] = {}
    cites: list[int] = []
    spared = 0
    for reads in groups:
        text = reads[0].value
        if len(text) < DIGEST_CHARS_MIN or len({read.agent for read in reads}) < 2 or len(parts) >= PARTS_MAX:
            continue
        part, lines, of = extract(text, [said[read.run] for read in reads if read.run in said])
        if lines < of:
            parts[codec.digest(msgspec.json.encode(text))] = part
        cites += [read.intent for read in reads[:5]]
        spared += (len(text) - len(part)) * (len(reads) - 1) // CHARS_PER_TOKEN
    if not cites:
        return []
    title = f"{len(cites)} reads gave a long text that another agent had read"
    data = {"parts": parts}
    return [
        Measure(kind="digests", title=title, data=data, cites=tuple(cites[:20]), tokens=spared // max(1, len(works)))
    ]
