"""The job of ``benchmarks.chaos``: a specification's model, tools and voter, loaded by each part from this file.

Each job copies some files (idempotent), moves one (reversible), sends a letter (irreversible, can be probed), pays
(irreversible, cannot be), and writes a manifest of what it copied. Each effect is reported to the recorder, a process
of its own on another file system, before it counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path

from benchmarks.effect_recorder import RecorderClient
from logact import LogEntry, ScriptedModel, ToolContext, Vote, tool
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, call, turn_of
from logact.tools import ProbeAnswer

PLACE = "LOGACT_CHAOS_PLACE"
"""The variable that names the directory of the effects, the recorder's socket in it."""

TURNS: tuple[tuple[str, ...], ...] = (("copy", "copy"), ("move",), ("send",), ("pay",), ("copy",), ("manifest",))
JITTER_S = 0.03

IRREVERSIBLE = frozenset({"move", "send", "pay"})
"""What may happen once only (an undo taken off)."""


def items(job: int) -> dict[int, str]:
    """The tool of each item of a job; no two jobs share an item."""
    names = [name for turn in TURNS for name in turn]
    return {job * 100 + place: name for place, name in enumerate(names)}


def source(item: int) -> bytes:
    """What an item's file holds."""
    return hashlib.sha256(str(item).encode()).digest() * 64


def expected_manifest(job: int) -> str:
    """What a job's manifest has to say."""
    copied = [item for item, name in items(job).items() if name == "copy"]
    return "".join(f"{hashlib.sha256(source(item)).hexdigest()}  {item}.bin\n" for item in copied)


def job_of(text: str) -> int:
    """The number in a task: ``job 7``."""
    return int(text.split()[1])


def say(request: ModelRequest) -> Reply:
    """The model: the next turn of the job that the conversation is about."""
    job, turn = job_of(next(one.text for one in request.messages if one.role == "user")), turn_of(request)
    if turn >= len(TURNS):
        return f"job {job} is done"
    before = sum(len(names) for names in TURNS[:turn])
    return [call(name, item=job * 100 + before + place) for place, name in enumerate(TURNS[turn])]


model = ScriptedModel(say)


def place() -> Path:
    """Where effects happen."""
    return Path(os.environ[PLACE])


async def happen(name: str, item: int, context: ToolContext) -> str:
    """The effect, with a little time before and after it for kills to fall into."""
    await asyncio.sleep(random.random() * JITTER_S)
    recorder().ask(verb="effect", tool=name, item=item, key=context.key, attempt=context.attempt)
    await asyncio.sleep(random.random() * JITTER_S)
    return f"{name} {item} done"


_recorders: list[RecorderClient] = []  # one connection for each process


def recorder() -> RecorderClient:
    """This process's connection."""
    if not _recorders:
        _recorders.append(RecorderClient(str(place() / "recorder.sock")))
    return _recorders[0]


def happened(item: int, context: ToolContext) -> ProbeAnswer:
    """The recorder knows."""
    answer = recorder().ask(verb="happened", key=context.key)["happened"]
    return ProbeAnswer(answer, value=f"{item} was done" if answer else None, detail="the recorder says so")


def take_back(item: int, context: ToolContext) -> str:
    """The undo of a move."""
    recorder().ask(verb="undo", tool="move", item=item, key=context.key, attempt=context.attempt)
    return f"took {item} back"


@tool(effect="idempotent")
async def copy(item: int, context: ToolContext) -> str:
    """Copy one file."""
    target = place() / "out" / f"{item}.bin"
    passing = target.with_suffix(f".{os.getpid()}")
    passing.write_bytes(source(item))
    passing.replace(target)
    return await happen("copy", item, context)


@tool(effect="reversible", probe=happened, undo=take_back)
async def move(item: int, context: ToolContext) -> str:
    """Move something."""
    return await happen("move", item, context)


@tool(effect="irreversible", probe=happened)
async def send(item: int, context: ToolContext) -> str:
    """Send a letter."""
    return await happen("send", item, context)


@tool(effect="irreversible")
async def pay(item: int, context: ToolContext) -> str:
    """Pay."""
    return await happen("pay", item, context)


@tool(effect="idempotent")
async def manifest(item: int, context: ToolContext) -> str:
    """Write down what a job copied."""
    job = item // 100
    copies = sorted((place() / "out").glob(f"{job}[0-9][0-9].bin"))
    lines = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in copies]
    target = place() / f"manifest-{job}.txt"
    passing = target.with_suffix(f".{os.getpid()}")
    passing.write_text("".join(lines))
    passing.replace(target)
    return await happen("manifest", item, context)


tools = [copy, move, send, pay, manifest]


def known(entry: LogEntry) -> Vote:
    """A voter that approves what a job may hold."""
    fine = entry.action.tool in {one.name for one in tools} or entry.action.tool == "answer"
    return Vote(approved=fine, reason="on the list" if fine else "not on the list")
