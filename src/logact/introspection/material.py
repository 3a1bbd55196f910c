"""History as a model is shown it: chosen, in short lines, within a budget of tokens, and fenced.

The latest lines are shown as they are. What is older is shown as summaries that a model once wrote of whole
stretches: each is an entry (a ``Finding`` with the code ``summary``), so it is paid for once. Everything from the
log stands between markers that carry a number which no text in it can know, and is called untrusted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from logact import codec
from logact.core import rights
from logact.entry import Entry, Finding, Usage
from logact.errors import ModelError
from logact.introspection.asking import Question, added, ask_model
from logact.introspection.telling import Line, lines
from logact.logs.base import Clause, Filter, SharedLog
from logact.models.base import Model

BYTES_PER_TOKEN = 3
"""A low estimate, so that the budget holds for other languages than English too."""

SUMMARY = "summary"
STRETCH_LINES = 60
"""How many lines one summary stands for. Stretches are counted from the beginning, so they never move."""

STRETCH_TOKENS_MAX = 8000
SUMMARY_CHARS_MAX = 1200
STRETCHES_ASKED_MAX = 20
"""How many stretches one call has summarised at most; what is beyond is left out, and said to be."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a log is meant: by agent, run, action, kind, and wall time in ms (0: no limit)."""

    agents: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()
    actions: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    since_ms: int = 0
    until_ms: int = 0

    @property
    def matching(self) -> Filter | None:
        """The filter that the log's engine applies."""
        clause = Clause(agents=self.agents, runs=self.runs, actions=self.actions, kinds=self.kinds)
        return Filter((clause,)) if clause != Clause() else None

    @property
    def scope(self) -> str:
        """The selection in one word, by which its summaries are found again."""
        parts = [f"agent:{one}" for one in self.agents] + [f"run:{one}" for one in self.runs]
        return " ".join(parts) or "log"

    def fits(self, entry: Entry) -> bool:
        """Whether an entry's time is inside."""
        return not (
            (self.since_ms and entry.time_ms < self.since_ms) or (self.until_ms and entry.time_ms > self.until_ms)
        )


async def query(log: SharedLog, selection: Selection) -> list[Entry]:
    """The entries that are meant, in order. Findings and notices that are about nothing in particular stay out."""
    return [entry async for entry in log.read_kept(matching=selection.matching) if selection.fits(entry)]


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is shown. ``number`` is that of the fence; ``left_out`` counts lines that did not fit.

    ``summaries`` counts stretches shown as summaries, ``bought`` those that were asked for now, for ``usage``.
    ``trimmed``: before this position the log was trimmed (0: it is whole).
    """

    number: str
    text: str
    lines: int = 0
    left_out: int = 0
    summaries: int = 0
    bought: int = 0
    usage: Usage = Usage()
    trimmed: int = 0


def fenced(what: str, text: str) -> tuple[str, str]:
    """A text between markers, and the number that they carry: a digest of it, so it cannot hold it."""
    number = codec.digest_of([what, text])[:16]
    return number, f"<<<UNTRUSTED {number} {what}>>>\n{text}\n<<<END {number}>>>"


async def material(
    log: SharedLog,
    selection: Selection,
    *,
    tokens_max: int,
    words: Collection[str] = (),
    model: Model | None = None,
    author: str = "introspection",
) -> Material:
    """The history in at most about ``tokens_max`` tokens.

    Lines that hold one of ``words`` (in small letters) are kept before others that are older than the latest. With a
    ``model`` stretches without a summary are summarised, and the summaries are appended under ``author``'s name.
    """
    every = lines(await query(log, selection))
    known = await _summaries(log, selection.scope)
    bytes_max = tokens_max * BYTES_PER_TOKEN
    recent = _recent(every, bytes_max * 3 // 5)
    old = every[: len(every) - len(recent)]
    used, bought = [Usage()], 0
    shown: list[tuple[int, str]] = [(line.position, _shown(line)) for line in recent]
    left = bytes_max - sum(len(text.encode()) + 1 for _, text in shown)
    lost = 0
    summaries = 0
    for line in reversed([one for one in old if words and any(word in one.text.lower() for word in words)]):
        size = len(_shown(line).encode()) + 1
        if size <= left // 2:
            shown.append((line.position, _shown(line)))
            left -= size
    stretches = [old[start : start + STRETCH_LINES] for start in range(0, len(old), STRETCH_LINES)]
    for stretch in reversed(stretches):
        text = known.get((stretch[0].position, stretch[-1].position), "")
        whole = len(stretch) == STRETCH_LINES and all(line.settled for line in stretch)
        if not text and whole and model is not None and bought < STRETCHES_ASKED_MAX:
            text, usage = await _summarise(log, model, stretch, selection, author)
            used.append(usage)
            bought += bool(text)
        told = f"[{stretch[0].position} to {stretch[-1].position}] in short: {text}" if text else ""
        if told and len(told.encode()) < left:
            shown.append((stretch[0].position, told))
            left -= len(told.encode()) + 1
            summaries += 1
        else:
            lost += len(stretch)
    told_lines = [text for _, text in sorted(shown)]
    if lost:
        told_lines.insert(0, f"[{lost} older lines are left out]")
    trimmed = await log.begins()
    if trimmed:
        told_lines.insert(0, f"[what stood before position {trimmed} was trimmed: nothing is known of it]")
    body = "\n".join(told_lines) or "(nothing is there)"
    number, text = fenced("history", body)
    return Material(
        number=number,
        text=text,
        lines=len(every),
        left_out=lost,
        summaries=summaries,
        bought=bought,
        usage=added(used),
        trimmed=trimmed,
    )


def _shown(line: Line) -> str:
    return f"[{line.position}] {line.text}"


def _recent(every: Sequence[Line], bytes_max: int) -> list[Line]:
    """The latest lines that fit, up to the end of a stretch, so that what is older is whole stretches."""
    count, size = 0, 0
    for line in reversed(every):
        size += len(_shown(line).encode()) + 1
        if size > bytes_max:
            break
        count += 1
    if count == len(every):
        return list(every)
    start = len(every) - count
    start += -start % STRETCH_LINES
    return list(every[start:]) if start < len(every) else list(every[len(every) - count :])


async def _summaries(log: SharedLog, scope: str) -> dict[tuple[int, int], str]:
    """Summaries in the log, by stretch. Only those of roles that may write findings count."""
    found: dict[tuple[int, int], str] = {}
    async for entry in log.read_kept(matching=Filter((Clause(kinds=("Finding",)),))):
        said = entry.payload
        if not isinstance(said, Finding) or said.code != SUMMARY or len(said.cites) != 2:
            continue
        if rights.problem(entry.author.role, entry.author.name, said):
            continue
        if said.data.get("scope") == scope:
            found.setdefault((said.cites[0], said.cites[1]), said.message)
    return found


SUMMARY_QUESTION = Question(
    name="summary",
    task=(
        "Sum up this stretch of an agent's history in at most 150 words: what was wanted, done, refused, what failed "
        "and why, and which facts later work depends on. Name positions in square brackets where they matter."
    ),
    parameters={"summary": {"type": "string"}},
    required=("summary",),
)


async def _summarise(
    log: SharedLog, model: Model, stretch: Sequence[Line], selection: Selection, author: str
) -> tuple[str, Usage]:
    """A summary of a stretch, asked for and written down; "" if the model gives none."""
    body = "\n".join(_shown(line) for line in stretch)
    body = body.encode()[: STRETCH_TOKENS_MAX * BYTES_PER_TOKEN].decode(errors="ignore")
    number, text = fenced("history", body)
    try:
        answer = await ask_model(model, SUMMARY_QUESTION, number, text)
    except ModelError:
        return "", Usage()
    said = " ".join(str(answer.given["summary"]).split())[:SUMMARY_CHARS_MAX]
    if not said:
        return "", answer.usage
    first, last = stretch[0].position, stretch[-1].position
    finding = Finding(
        code=SUMMARY,
        message=said,
        cites=(first, last),
        agent=selection.agents[0] if len(selection.agents) == 1 else "",
        run=selection.runs[0] if len(selection.runs) == 1 else 0,
        data={"scope": selection.scope, "lines": len(stretch)},
        model=model.name,
        usage=answer.usage,
    )
    await log.append(finding, role="operator", name=author)
    return said, answer.usage
