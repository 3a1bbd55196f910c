"""What agents spent their tokens on, read off the log: who read what, what came of it, what was offered and used.

It only collects. What is wasted, ``tokens`` says.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from logact import codec
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import Abort, Entry, Expiry, Inference, Input, Intent, Notice, Output, Result, Run, Spec, Usage
from logact.errors import LogError
from logact.introspection.history import history
from logact.introspection.trials import Trials
from logact.logs.base import SharedLog
from logact.runtime import values
from logact.voters.conflict import ARGUMENTS, named, same_object

READS_KEPT = 5000
TEXT_CHARS_MAX = 100_000

WHOLE = "whole_text"
"""The tool of a swarm's agents that gives what a digest or a summary stands for."""

TUNED = "apply_optimization"
"""The tool by which an agent's tuning is proposed."""

HANDED = re.compile(r"^\[Result of .+\]$", re.MULTILINE)
"""Begins an earlier task's result in the text of a later one."""

SUMMED_UP = "swarm_handover"
"""The code of a notice that holds a summary of a result, and what it cost."""


class Read(msgspec.Struct, kw_only=True):
    """One executed call that only reads: what it returned (its digest), and where. ``fresh_until`` is where a change
    came in that may concern it (0: none did)."""

    tool: str
    arguments: dict[str, object]
    digest: str
    agent: str
    run: int
    intent: int
    position: int = 0
    value: str = ""
    value_digest: str = ""
    fresh_until: int = 0

    @property
    def key(self) -> str:
        """The call: its tool and its arguments."""
        return f"{self.tool} {self.digest}"


class Asked(msgspec.Struct, frozen=True):
    """One request to a model: a digest of what it was asked, where its answer stands, and the tokens of both."""

    digest: str
    position: int
    tokens: int


class Work(msgspec.Struct, kw_only=True):
    """One run: who did it, with which model, what it used, and the words of what it did and answered.

    ``troubles`` are actions that were refused or failed; ``tried``: it was done by a model on trial.
    """

    run: int
    agent: str
    parent: int = 0
    model: str = ""
    turns: int = 0
    broken: int = 0
    troubles: int = 0
    tried: bool = False
    usage: Usage = Usage()
    output: int = 0
    ok: bool = True
    last: int = 0
    called: list[str] = []
    said: list[str] = []
    keys: list[str] = []
    answers: int = 0
    handed: int = 0
    thread: str = ""
    asked: list[Asked] = []

    @property
    def tokens(self) -> int:
        """Input (cached or not) and output together."""
        return self.usage.input_tokens + self.usage.output_tokens


class Spending(msgspec.Struct, kw_only=True):
    """The runs and reads of some agents, the tools that each is offered, and the models that were tried."""

    works: dict[int, Work] = {}
    reads: list[Read] = []
    offered: dict[str, Spec] = {}
    trials: Trials = msgspec.field(default_factory=lambda: Trials(()))
    seen: int = 0


async def spending(log: SharedLog, agents: Collection[str]) -> Spending:
    """Everything that these agents spent, folded from the whole log."""
    found = Spending(trials=Trials(agents))
    waiting: dict[int, Read] = {}

    def observe(state: State, entry: Entry) -> None:
        found.seen = entry.position
        if not state.verdict:
            _take(found, waiting, entry, agents)

    await history(log, observer=observe)
    for read in found.reads:
        if not read.value and read.value_digest:
            try:
                data = values.unpack(await log.get_blob(read.value_digest))
            except LogError:
                data = ""  # a blob that is gone: the read cannot be shared
            read.value = _text(data)
    return found


def _take(found: Spending, waiting: dict[int, Read], entry: Entry, agents: Collection[str]) -> None:
    said = entry.payload
    found.trials.take(entry)
    if isinstance(said, Intent) and changes(said):
        mine = objects_of(said)
        for read in [*found.reads, *waiting.values()]:
            if not read.fresh_until and touches(mine, read.arguments):
                read.fresh_until = entry.position
    if isinstance(said, Run) and said.agent in agents:
        work = Work(run=entry.position, agent=said.agent, parent=said.parent)
        work.tried = found.trials.trying(entry.position)
        found.works[entry.position] = work
    elif isinstance(said, Spec) and said.agent in agents:
        found.offered[said.agent] = said
    elif isinstance(said, Result):
        _result(found, waiting.pop(said.intent, None), entry, said)
    elif isinstance(said, Notice) and said.code == SUMMED_UP and said.data.get("work") in found.works:
        _summed_up(found.works[said.data["work"]], said)
    at_work = found.works.get(entry.run)
    if at_work is not None:
        _worked(at_work, entry, said, waiting)


def _worked(work: Work, entry: Entry, said: object, waiting: dict[int, Read]) -> None:
    """What an entry says of the run that it belongs to."""
    if isinstance(said, Input | Result | Abort | Expiry):
        _told(work, said)
        work.troubles += isinstance(said, Abort | Expiry) or (isinstance(said, Result) and said.error is not None)
    work.last = entry.position
    if isinstance(said, Inference):
        _asked(work, entry, said)
        work.model, work.turns = said.model, work.turns + 1
        work.broken += sum(1 for call in said.calls if call.broken)
        used = said.usage
        work.usage = Usage(
            input_tokens=work.usage.input_tokens + used.input_tokens,
            output_tokens=work.usage.output_tokens + used.output_tokens,
            cached_tokens=work.usage.cached_tokens + used.cached_tokens,
        )
    elif isinstance(said, Intent):
        work.called.append(said.tool)
        if said.effect != "read":
            work.said.append(msgspec.json.encode(said.arguments).decode()[:TEXT_CHARS_MAX])
        elif said.tool != ANSWER and said.arguments_blob is None:
            waiting[entry.position] = Read(
                tool=said.tool,
                arguments=dict(said.arguments),
                digest=said.arguments_digest,
                agent=said.agent,
                run=said.run,
                intent=entry.position,
            )
    elif isinstance(said, Output):
        work.output, work.ok = entry.position, said.ok
        work.answers += 1
        work.said.append(said.text[:TEXT_CHARS_MAX])


def _asked(work: Work, entry: Entry, said: Inference) -> None:
    """What the model was asked, as a digest: its tools and model, and everything that was said in the run before."""
    system = "" if said.base else next((one for one in said.context if isinstance(one, str)), "")
    work.thread = codec.digest_of([work.thread, system])
    digest = codec.digest_of([work.thread, said.model, said.tools_digest])
    work.asked.append(Asked(digest, entry.position, said.usage.input_tokens + said.usage.output_tokens))
    told = [said.text, *(f"{call.tool} {msgspec.json.encode(call.arguments).decode()}" for call in said.calls)]
    work.thread = codec.digest_of([work.thread, *told])


def _told(work: Work, said: Input | Result | Abort | Expiry) -> None:
    """What the model is shown next."""
    if isinstance(said, Input):
        parts = HANDED.split(said.text)
        work.handed += sum(len(part) for part in parts[1:])
        told: object = [said.text, *(part.text or str(part.blob) for part in said.parts)]
    elif isinstance(said, Result):
        told = [said.value, said.blob.digest if said.blob is not None else "", said.error is not None]
    else:
        told = said.reason
    work.thread = codec.digest_of([work.thread, told])


def _summed_up(work: Work, said: Notice) -> None:
    try:
        used = msgspec.convert(said.data.get("usage", {}), Usage)
    except msgspec.ValidationError:
        return
    work.usage = Usage(
        input_tokens=work.usage.input_tokens + used.input_tokens,
        output_tokens=work.usage.output_tokens + used.output_tokens,
        cached_tokens=work.usage.cached_tokens + used.cached_tokens,
    )


def _result(found: Spending, read: Read | None, entry: Entry, said: Result) -> None:
    if read is None or said.error is not None or said.parts or len(found.reads) >= READS_KEPT:
        return
    read.position = entry.position
    if said.blob is not None:
        read.value_digest = said.blob.digest
    else:
        read.value = _text(said.value)
        read.value_digest = codec.digest(read.value.encode())
    found.reads.append(read)
    if read.run in found.works:
        found.works[read.run].keys.append(read.key)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text[:TEXT_CHARS_MAX]


def changes(said: Intent) -> bool:
    """Whether an action may change what others read. How an agent is tuned is nothing that anybody reads."""
    return said.effect != "read" and said.tool not in (ANSWER, TUNED)


def objects_of(said: Intent) -> list[str]:
    """What an action is about, by the arguments that usually say so. Empty: it may be anything."""
    if said.arguments_blob is not None:
        return []
    return named_in(said.arguments)


def named_in(arguments: dict[str, object]) -> list[str]:
    """The objects that arguments name."""
    return [named(arguments[name]) for name in ARGUMENTS if arguments.get(name) not in (None, "")]


def touches(changed: list[str], arguments: dict[str, object]) -> bool:
    """Whether a change of these objects may concern what a call with these arguments reads."""
    read = named_in(arguments)
    if not changed or not read:
        return True
    return any(same_object(one, other) for one in changed for other in read)
