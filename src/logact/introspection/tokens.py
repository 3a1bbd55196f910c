"""Where a swarm's tokens go that need not, and what would save them: computed from the log, with positions.

Three wastes are looked for: reads that several agents repeat, context that nobody uses (tools that are offered and
never called; parts of a text that nothing later refers to), and models that are too big for what they do. What a
change saved is measured afterwards, by ``saving``. Pure, but for the reading of the log.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from logact.entry import ToolSpec
from logact.introspection.token_reading import WHOLE, Read, Spending, Work
from logact.introspection.trials import Candidate

Kind = Literal["share", "hide", "reads", "model", "answers", "digests", "handover", "together"]
KINDS: tuple[Kind, ...] = ("share", "hide", "reads", "model", "answers", "digests", "handover", "together")
"""Hand a text over instead of having it read again; offer fewer tools; answer a repeated read from the log; use a
smaller model (never applied without a vote); answer a repeated request to the model from the log; give digests of
what others read (only if asked for); hand results over as summaries; keep related tasks on one agent."""

RUNS_MIN = 3
"""So many runs show something before it counts as a habit."""

SHARE_OF_RUNS = 0.5
"""A text is handed over to every run only if at least this share of them read it."""

EXTRACT_CHARS_MIN = 1200
"""A shorter text is handed over whole."""

TEXT_CHARS_MAX = 40_000
CHARS_PER_TOKEN = 4
RARE_LINES = 3
COVERAGE_MIN = 0.8
"""A part of a text stands for the whole only if so many of the runs would have found in it all that they used, had it
been made from the others."""

_WORD = re.compile(r"[A-Za-z_][\w.]{3,}")


class Measure(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One change for one agent. ``data`` is what applying it needs, ``cites`` the positions that support it,
    ``tokens`` about how many a run would save (an estimate; ``saving`` measures)."""

    kind: Kind
    title: str
    data: dict[str, Any] = {}
    cites: tuple[int, ...] = ()
    tokens: int = 0


class Optimization(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent is to do differently."""

    agent: str
    measures: tuple[Measure, ...] = ()


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """What the log shows: tokens per answer of runs that ended before a position, and that began after it.
    ``saved_pct`` is None where one side has no runs. What was paid for summaries is counted in."""

    runs_before: int
    runs_after: int
    tokens_before: float
    tokens_after: float
    uncached_before: float
    uncached_after: float
    saved_pct: float | None


def optimizations(
    found: Spending,
    agents: Collection[str],
    *,
    digests: bool = False,
    models: Mapping[str, Sequence[Candidate]] | None = None,
) -> dict[str, Optimization]:
    """For each agent what would save tokens, the same finding for the same reason. ``digests``: those, too.

    ``models`` are, by agent, its own model and those that may be tried instead, each with its price.
    """
    from logact.introspection.token_habits import answers, handovers, returns, told_again
    from logact.introspection.token_models import smaller

    works = [work for work in found.works.values() if work.turns]
    shared = _shared(found, works)
    habits = [*answers(found, works), *handovers(works), *(told_again(repeated(found), works) if digests else ())]
    return {
        agent: Optimization(
            agent=agent,
            measures=(
                *shared,
                *_hidden(found, works, agent),
                *_repeats(found, works),
                *habits,
                *returns(works, agent),
                *smaller(found, works, agent, (models or {}).get(agent, ())),
            ),
        )
        for agent in agents
    }


def saving(found: Spending, position: int) -> Saving:
    """Tokens per run that ended well, before and after a position; runs that were under way then count as neither."""
    ended = [work for work in found.works.values() if work.output and work.ok and work.turns]
    before = [work for work in ended if work.output <= position]
    after = [work for work in ended if work.run > position]
    then, now = _mean(before), _mean(after)
    return Saving(
        runs_before=len(before),
        runs_after=len(after),
        tokens_before=then,
        tokens_after=now,
        uncached_before=_mean(before, cached=False),
        uncached_after=_mean(after, cached=False),
        saved_pct=round(100 * (1 - now / then), 1) if before and after and then else None,
    )


def _mean(works: Sequence[Work], *, cached: bool = True) -> float:
    if not works:
        return 0.0
    spent = sum(work.tokens - (0 if cached else work.usage.cached_tokens) for work in works)
    return round(spent / sum(max(1, work.answers) for work in works), 1)


# --- reads ---------------------------------------------------------------------------------------------------------


def repeated(found: Spending) -> list[list[Read]]:
    """Reads of one call that told the same to several runs, and that nothing has changed since."""
    groups: dict[tuple[str, str], list[Read]] = {}
    for read in found.reads:
        if not read.fresh_until and read.value:
            groups.setdefault((read.key, read.value_digest), []).append(read)
    return [reads for reads in groups.values() if len({read.run for read in reads}) >= 2]


def _shared(found: Spending, works: list[Work]) -> list[Measure]:
    """Texts that most runs read: handed over with the task, as far as anything later referred to them."""
    measures = []
    if len(works) < RUNS_MIN:
        return []
    for reads in repeated(found):
        runs = {read.run for read in reads}
        if len(runs) < RUNS_MIN or len(runs) < SHARE_OF_RUNS * len(works):
            continue
        last = reads[-1]
        text, lines, of = extract(last.value, [found.works[run].said for run in sorted(runs & found.works.keys())])
        if len(text) > TEXT_CHARS_MAX:
            continue
        call = {"tool": last.tool, "arguments": last.arguments, "position": last.position}
        measures.append(
            Measure(
                kind="share",
                title=f"{len(runs)} runs read the same by {last.tool}; {lines} of {of} lines were used",
                data={**call, "digest": last.value_digest, "text": text, "lines": lines, "of": of},
                cites=tuple(read.intent for read in reads[:20]),
                tokens=max(0, (len(last.value) - len(text)) // CHARS_PER_TOKEN),
            )
        )
    return measures


def extract(text: str, said: Sequence[Sequence[str]]) -> tuple[str, int, int]:
    """The lines of a text that what runs said and did refers to: (them, how many, of how many). ``said`` is by run.

    A line is referred to by a word that stands in few lines of the text. The first line stays. The text stays whole
    if it is short, if most of it was used, or if what some runs used does not foretell what others do.
    """
    lines = text.splitlines()
    whole = text, len(lines), len(lines)
    if len(text) < EXTRACT_CHARS_MIN or len(lines) < 8:
        return whole
    words = [set(_WORD.findall(line)) for line in lines]
    count = Counter(word for line in words for word in line)
    rare = [{word for word in line if count[word] <= RARE_LINES} for line in words]
    used = [_used(rare, run) for run in said]
    often = Counter(place for places in used for place in places)
    foretold = sum(1 for places in used if all(often[place] > 1 for place in places))
    kept = sorted({0, *often})
    if len(kept) > 0.6 * len(lines) or foretold < COVERAGE_MIN * len(used):
        return whole
    return "\n".join(lines[place] for place in kept), len(kept), len(lines)


def _used(rare: Sequence[set[str]], said: Sequence[str]) -> set[int]:
    """The lines that one run referred to."""
    words = {word for one in said for word in _WORD.findall(one)}
    return {place for place, line in enumerate(rare) if line & words}


def _repeats(found: Spending, works: list[Work]) -> list[Measure]:
    """Reads that several runs, or one run twice, made: answered from the log while nothing has changed."""
    groups = repeated(found)
    within = [work for work in works if len(set(work.keys)) < len(work.keys)]
    if len(groups) + len(within) < 1 or len(works) < RUNS_MIN:
        return []
    cites = [read.intent for reads in groups for read in reads[1:3]][:20]
    again = sum(len(reads) - 1 for reads in groups)
    return [Measure(kind="reads", title=f"{again} reads told what an earlier one had told", cites=tuple(cites))]


# --- context and models --------------------------------------------------------------------------------------------


def _hidden(found: Spending, works: list[Work], agent: str) -> list[Measure]:
    """Tools that are offered with every request, and that no run of any agent of the swarm ever called."""
    spec = found.offered.get(agent)
    if spec is None or len(works) < RUNS_MIN:
        return []
    called = {tool for work in works for tool in work.called}
    idle = [tool for tool in spec.tools if tool.name not in called and tool.name != WHOLE]
    if not idle:
        return []
    turns = sum(work.turns for work in works) / len(works)
    size = sum(map(_size, idle))
    return [
        Measure(
            kind="hide",
            title=f"{len(idle)} of {len(spec.tools)} tools were offered {sum(one.turns for one in works)} times and "
            "never called",
            data={"tools": [tool.name for tool in idle]},
            cites=tuple(work.run for work in works[:20]),
            tokens=int(size * turns),
        )
    ]


def _size(tool: ToolSpec) -> int:
    return len(tool.name + tool.description + msgspec.json.encode(tool.parameters).decode()) // CHARS_PER_TOKEN
