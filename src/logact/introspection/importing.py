"""Recorded trajectories written into a log, so that whatever reads a log works on history that LogAct did not write.

What is imported can never act: its agent's name (``imported:NAME``) is one that no agent can have, each action stands
in one record with its end, and a run without an answer is stopped. A notice in front of each run says where it comes
from and what was guessed. The same recording imported twice stands there once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from logact import codec
from logact import env as environment
from logact.core.settling import ANSWER
from logact.entry import (
    Call,
    Commit,
    Control,
    Effect,
    Failure,
    Inference,
    Input,
    Intent,
    NewEntry,
    Notice,
    Output,
    Payload,
    Policy,
    Result,
    Role,
    Run,
    Spec,
    Started,
    ToolSpec,
    Usage,
    own,
)
from logact.errors import LogActError
from logact.introspection.profiling import IMPORTED
from logact.introspection.trajectories import Trajectory, Turn
from logact.logs.base import SharedLog, Writer
from logact.runtime import values
from logact.runtime.checkpointer import Checkpointer
from logact.runtime.host import Host

PREFIX = "imported:"
CHARS_PER_TOKEN = 4
TITLE_CHARS = 200
CHECKPOINT_FROM = 2000
"""After an import of so many entries a checkpoint is written, so that the log need not be read whole again."""

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_READS = frozenset(
    _WORDS.findall(
        "get read list search find grep glob ls look view show check fetch query count cat describe select lookup "
        "browse think"
    )
)


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an import. ``known`` counts trajectories that stood in the log already, ``lost`` messages that fit
    nowhere; ``left_out`` says of files that could not be read why.
    """

    runs: tuple[int, ...] = ()
    agents: tuple[str, ...] = ()
    entries: int = 0
    known: int = 0
    estimated: bool = False
    lost: int = 0
    left_out: dict[str, str] = {}


class _Recorded(environment.Env):
    """A clock that shows when what is being written was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0

    def wall_ms(self) -> int:
        return self.now_ms or super().wall_ms()


async def import_trajectories(
    log: SharedLog, trajectories: list[Trajectory], *, agent: str = "", source: str = ""
) -> ImportReport:
    """Write recordings into a log. ``agent`` is the name behind ``imported:`` (default: from the recording).

    Raises what the log raises; a recording of which a part was written is completed by importing it again.
    """
    await log.open()
    pen = log.writer()
    clock = _Recorded()
    pen.env = clock
    runs, agents, entries, known = [], [], 0, 0
    estimated = False
    for one in trajectories:
        name = PREFIX + _name(agent or one.model or one.name or one.format)
        batches = list(_batches(one, name, source))
        estimated = estimated or any(turn.usage is None for turn in one.turns if turn.said is None)
        await _open_policy(pen, clock, name)
        key = f"import:{codec.digest_of([name, msgspec.to_builtins(one)])[:32]}"
        run, fresh = await _write(pen, clock, batches, key)
        runs.append(run)
        agents.append(name)
        known += not fresh
        entries += sum(len(batch) for _, batch, _ in batches) if fresh else 0
    if entries >= CHECKPOINT_FROM:
        await _checkpoint(log)
    return ImportReport(
        runs=tuple(runs),
        agents=tuple(dict.fromkeys(agents)),
        entries=entries,
        known=known,
        estimated=estimated,
        lost=sum(one.left_out for one in trajectories),
    )


Batch = tuple[int, list[NewEntry], list[tuple[str, bytes]]]


async def _write(pen: Writer, clock: _Recorded, batches: list[Batch], key: str) -> tuple[int, bool]:
    """Append the records of one trajectory; the run's position, and whether it was new."""
    run, all_fresh = 0, True
    for number, (at_ms, entries, blobs) in enumerate(batches):
        clock.now_ms = at_ms
        batch = [_in_run(entry, run) for entry in entries] if number else entries
        done = await pen.append(batch, key=f"{key}:{number}", blobs=blobs)
        all_fresh = all_fresh and done.fresh
        if not number:
            run = done.position + next(place for place, entry in enumerate(entries) if isinstance(entry.payload, Run))
    return run, all_fresh


async def _open_policy(pen: Writer, clock: _Recorded, agent: str) -> None:
    """The recording was not voted on: its agent is under a policy that is open, which the log says."""
    clock.now_ms = 0
    need = {"open": "recorded elsewhere: it has happened, nothing runs"}
    policy = Policy(version=1, agent=agent, need=need, note="import")
    entry = NewEntry(payload=policy, role="operator", name="import", agent=agent)
    await pen.append([entry], key=f"import-policy:{agent}")


_RUN = own(999)
"""Stands for the run's position until it is known."""


def _in_run(entry: NewEntry, run: int) -> NewEntry:
    payload = entry.payload
    if getattr(payload, "run", 0) == _RUN:
        payload = msgspec.structs.replace(payload, run=run)
    if isinstance(payload, Control) and payload.scope == f"run:{_RUN}":
        payload = msgspec.structs.replace(payload, scope=f"run:{run}")
    return msgspec.structs.replace(entry, payload=payload, run=run if entry.run == _RUN else entry.run)


async def _checkpoint(log: SharedLog) -> None:
    """Best effort: without one everything works, only slower."""
    host = Host(log, "")
    checkpointer = Checkpointer(host, every=1, name="import")
    try:
        await host.tail.start()
        await checkpointer.write()
    except LogActError:
        return
    finally:
        host.leaves()


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:80] or "recording"


# --- entries ----------------------------------------------------------------------------------------------------


def _batches(one: Trajectory, agent: str, source: str) -> Iterator[Batch]:
    """The records of a trajectory: what it is, then one for each turn. References to the run stay open."""
    writer = _Scribe(agent)
    title = next((turn.said for turn in one.turns if turn.said), "") or one.name
    yield writer.opening(one, title, source)
    shown = len(one.system) // CHARS_PER_TOKEN
    number, before_ms, answered = 0, 0, True
    for turn in _joined(one.turns):
        if turn.said is not None:
            yield (turn.at_ms, [writer.entry(Input(run=_RUN, text=turn.said), "client", run=_RUN)], [])
            shown += len(turn.said) // CHARS_PER_TOKEN
            answered = False
        else:
            number += 1
            wrote = _tokens(turn.text) + sum(_tokens(call.raw) + _size(call) for call in turn.calls)
            usage = turn.usage or Usage(input_tokens=shown, output_tokens=wrote)
            latency_ms = max(0, turn.at_ms - before_ms) if before_ms and turn.at_ms else 0
            yield writer.turn(turn, number, usage, float(latency_ms), one.model)
            shown += wrote + sum(_tokens(told.text or told.error) for told in turn.told)
            answered = not turn.calls
        before_ms = max([turn.at_ms, *(told.at_ms for told in turn.told)])
    if not answered:
        stop = Control(verb="stop", scope=f"run:{_RUN}", reason="the recording ends here, without an answer")
        yield (before_ms, [writer.entry(stop, "operator", run=_RUN)], [])


def _joined(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Words of the model that are no answer, since it went on by itself, belong to what it said next."""
    held = ""
    for place, turn in enumerate(turns):
        after = turns[place + 1] if place + 1 < len(turns) else None
        text = "\n".join(part for part in (held, turn.text) if part) if turn.said is None else ""
        if turn.said is None and not turn.calls and after is not None and after.said is None:
            held = text
            continue
        yield turn if turn.said is not None else msgspec.structs.replace(turn, text=text)
        held = "" if turn.said is None else held


def _tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


def _size(call: Call) -> int:
    return _tokens(call.tool) + len(msgspec.json.encode(call.arguments)) // CHARS_PER_TOKEN


def effect_of(tool: str) -> Effect:
    """A guess from a tool's name: ``get_…``, ``search…``, ``Read`` only read; of others nothing good is assumed."""
    words = [word.lower() for word in _WORDS.findall(tool.rpartition("__")[2])]
    if words[:1] in (["web"], ["notebook"]):
        words = words[1:]
    return "read" if words and words[0] in _READS else "irreversible"


class _Scribe:
    """Makes the entries of one trajectory."""

    def __init__(self, agent: str) -> None:
        self.agent = agent

    def entry(self, payload: Payload, role: Role, *, run: int = 0, tool: str = "") -> NewEntry:
        return NewEntry(payload=payload, role=role, name="import", agent=self.agent, run=run, tool=tool)

    def opening(self, one: Trajectory, title: str, source: str) -> Batch:
        """Where it comes from, its policy (open to what has happened already), its tools, the run."""
        tools = sorted({call.tool for turn in one.turns for call in turn.calls})
        timed = any(turn.at_ms for turn in one.turns)
        notice = Notice(
            code=IMPORTED,
            message=f"recorded elsewhere ({one.format}); nothing of it can act",
            agent=self.agent,
            data={
                "format": one.format,
                "source": source,
                "name": one.name,
                "tokens": "recorded" if all(turn.usage for turn in one.turns if turn.said is None) else "estimated",
                "times": "recorded" if timed else "of the import",
                "effects": "guessed from the tools' names",
                "facts": one.facts,
                "left_out": one.left_out,
            },
        )
        spec = Spec(
            agent=self.agent,
            model=one.model,
            tools=tuple(ToolSpec(name=tool, effect=effect_of(tool)) for tool in tools),
        )
        run = Run(agent=self.agent, title=title[:TITLE_CHARS])
        entries = [
            self.entry(notice, "operator"),
            self.entry(spec, "executor"),
            self.entry(run, "client"),
        ]
        return (one.turns[0].at_ms, entries, [])

    def turn(self, turn: Turn, number: int, usage: Usage, latency_ms: float, model: str) -> Batch:
        """An answer of the model, its calls, and what each came to: one record, so that nothing is ever open."""
        said = Inference(
            run=_RUN,
            turn=number,
            model=turn.model or model,
            text=values.cut(turn.text, codec.PAYLOAD_BYTES_MAX // 8),
            calls=tuple(_small(call) for call in turn.calls),
            stop="tool_calls" if turn.calls else "stop",
            usage=usage,
            latency_ms=latency_ms,
        )
        entries = [self.entry(said, "driver", run=_RUN)]
        blobs: list[tuple[str, bytes]] = []
        for index, call in enumerate(turn.calls):
            if not call.broken:
                self._action(entries, blobs, turn, index)
        if not turn.calls:
            self._answer(entries, turn.text)
        return (turn.at_ms, entries, blobs)

    def _action(self, entries: list[NewEntry], blobs: list[tuple[str, bytes]], turn: Turn, index: int) -> None:
        call, told, at_ms = turn.calls[index], turn.told[index], turn.at_ms
        data = codec.canonical(call.arguments)
        digest = codec.digest(data)
        intent = Intent(
            run=_RUN,
            agent=self.agent,
            tool=call.tool,
            arguments=call.arguments,
            arguments_digest=digest,
            effect=effect_of(call.tool),
            inference=own(0),
            call=index,
            external=True,
        )
        if len(data) > values.INLINE_BYTES_MAX:
            from logact.runtime.proposer import Proposer

            intent, more = Proposer.outsourced(intent)
            blobs += more
        place = own(len(entries))
        stored = values.pack(told.text)
        if stored.blob is not None:
            blobs.append((stored.blob.digest, stored.data))
        error: Failure | None = None
        if told.missing:
            error = Failure(kind="no_result", message="the recording holds no result of this call")
        elif told.error:
            kind, colon, _ = told.error.partition(":")
            named = kind if colon and kind.replace("_", "").isalnum() else "recorded_error"
            error = Failure(kind=named[:60], message=told.error[:2000])
        result = Result(
            intent=place,
            value=stored.value if error is None else None,
            blob=stored.blob if error is None else None,
            error=error,
            duration_ms=float(max(0, told.at_ms - at_ms)) if told.at_ms and at_ms else 0.0,
            truncated=stored.truncated,
        )
        self._carried_out(entries, intent, place, result)

    def _carried_out(self, entries: list[NewEntry], intent: Intent, place: int, result: Result) -> None:
        entries.append(self.entry(intent, "driver", run=_RUN, tool=intent.tool))
        entries.append(
            self.entry(Commit(intent=place, reason="it has happened"), "decider", run=_RUN, tool=intent.tool)
        )
        entries.append(self.entry(Started(intent=place), "executor", run=_RUN, tool=intent.tool))
        if intent.tool == ANSWER:
            text = str(intent.arguments.get("text", ""))
            entries.append(self.entry(Output(run=_RUN, intent=place, text=text), "executor", run=_RUN, tool=ANSWER))
        entries.append(self.entry(result, "executor", run=_RUN, tool=intent.tool))

    def _answer(self, entries: list[NewEntry], text: str) -> None:
        short = values.cut(text, codec.PAYLOAD_BYTES_MAX // 8)
        arguments = {"text": short}
        place = own(len(entries))
        intent = Intent(
            run=_RUN,
            agent=self.agent,
            tool=ANSWER,
            arguments=arguments,
            arguments_digest=codec.digest_of(arguments),
            effect="irreversible",
            inference=own(0),
            external=True,
        )
        self._carried_out(entries, intent, place, Result(intent=place))


def _small(call: Call) -> Call:
    """The call as the model's answer holds it; very large arguments stand with the action only."""
    if len(msgspec.json.encode(call.arguments)) <= values.INLINE_BYTES_MAX:
        return call
    return msgspec.structs.replace(call, arguments={"(large)": "see the action"})


__all__ = ["ImportReport", "import_trajectories"]
