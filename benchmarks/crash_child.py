"""The agent that ``benchmarks.crash`` kills: a scripted model, tools of every effect class, a log in a SQLite file.

It does the same whenever it is started with the same command: resume what its log holds, or begin. Each effect is
done only once the recorder has acknowledged it; each acknowledged append is reported to the recorder, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from typing import Any

from benchmarks.effect_recorder import RecorderClient
from logact import LogActAgent, LogEntry, ScriptedModel, ToolContext, Vote, env, open_log, tool
from logact.entry import Effect
from logact.errors import InDoubt, LogActError, RunFinished
from logact.logs.base import Appended, SharedLog, Writer
from logact.models.scripted import Reply, call
from logact.runtime import assembly
from logact.tools import ProbeAnswer, Tool

AGENT = "worker"
TASK = "Do every item of the list exactly once."
DONE, IN_DOUBT, FAILED = 0, 4, 5

ROUND: tuple[tuple[str, ...], ...] = (
    ("look", "put", "put"),
    ("move",),
    ("send",),
    ("pay",),
    ("send", "put"),
    ("look", "pay"),
)
"""The turns of one round: which tools are called together."""

EFFECTS = {"look": "read", "put": "idempotent", "move": "reversible", "send": "irreversible", "pay": "irreversible"}


def script(rounds: int) -> list[Reply]:
    """What the model says: every call names an item that no other call names."""
    replies: list[Reply] = []
    item = 0
    for _ in range(rounds):
        for turn in ROUND:
            calls = []
            for name in turn:
                item += 1
                calls.append(call(name, item=item))
            replies.append(calls)
    return [*replies, "All items are done."]


def items(rounds: int) -> dict[int, str]:
    """The tool of each item."""
    names = [name for _ in range(rounds) for turn in ROUND for name in turn]
    return dict(enumerate(names, 1))


class ReportingWriter(Writer):
    """A pen that tells the recorder of each append that the log acknowledged."""

    recorder: RecorderClient
    scenario: str

    async def append(self, entries: Any, **options: Any) -> Appended:
        done = await super().append(entries, **options)
        if done.fresh:
            self.recorder.ask(
                verb="acked", scenario=self.scenario, log=self.log.url, position=done.position, hash=self.previous
            )
        return done


class ReportingLog(SharedLog):
    """A log whose pens report."""

    def __init__(self, url: str, recorder: RecorderClient, scenario: str) -> None:
        super().__init__(open_log(url).engine, url)
        self.recorder = recorder
        self.scenario = scenario

    def writer(self, incarnation: str | None = None) -> Writer:
        pen = ReportingWriter(self, incarnation)
        pen.recorder, pen.scenario = self.recorder, self.scenario
        return pen


class ListingEnv(env.Env):
    """Writes down the name of each crash point that is reached, instead of dying there."""

    points = True

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def point(self, name: str) -> None:
        os.write(self._file, f"{name}\n".encode())
        super().point(name)


def make_tools(
    recorder: RecorderClient, scenario: str, jitter_ms: float, pay_effect: Effect = "irreversible"
) -> list[Tool]:
    """One tool of each effect class. Each waits a little before and after its effect, so that kills fall there."""

    async def pause() -> None:
        await asyncio.sleep(random.random() * jitter_ms / 1000)

    async def effect(name: str, item: int, context: ToolContext) -> str:
        await pause()
        recorder.ask(verb="effect", scenario=scenario, tool=name, item=item, key=context.key, attempt=context.attempt)
        await pause()
        return f"{name} {item} done"

    def happened(item: int, context: ToolContext) -> ProbeAnswer:
        answer = recorder.ask(verb="happened", key=context.key)["happened"]
        return ProbeAnswer(answer, value=f"{item} was done" if answer else None, detail="the recorder says so")

    def take_back(item: int, context: ToolContext) -> str:
        recorder.ask(verb="undo", scenario=scenario, tool="move", item=item, key=context.key, attempt=context.attempt)
        return f"took {item} back"

    @tool(effect="read")
    async def look(item: int, context: ToolContext) -> str:
        return await effect("look", item, context)

    @tool(effect="idempotent")
    async def put(item: int, context: ToolContext) -> str:
        return await effect("put", item, context)

    @tool(effect="reversible", probe=happened, undo=take_back)
    async def move(item: int, context: ToolContext) -> str:
        return await effect("move", item, context)

    @tool(effect="irreversible", probe=happened)
    async def send(item: int, context: ToolContext) -> str:
        return await effect("send", item, context)

    @tool(effect=pay_effect)
    async def pay(item: int, context: ToolContext) -> str:
        return await effect("pay", item, context)

    return [look, put, move, send, pay]


def known(entry: LogEntry) -> Vote:
    """A voter that approves what the list may hold."""
    fine = entry.action.tool in EFFECTS or entry.action.tool == "answer"
    return Vote(approved=fine, reason="on the list" if fine else "not on the list")


PARTS = ("driver", "voter", "decider", "executor", "recoverer")


async def main(arguments: argparse.Namespace) -> int:
    """One life. Returns the exit code."""
    recorder = RecorderClient(arguments.recorder)
    log = ReportingLog(arguments.log, recorder, arguments.scenario)
    pay_effect: Effect = "idempotent" if arguments.misdeclared else "irreversible"
    agent = LogActAgent(
        arguments.agent,
        log,
        [known],
        model=ScriptedModel(script(arguments.rounds)),
        tools=make_tools(recorder, arguments.scenario, arguments.jitter_ms, pay_effect),
        checkpoint_every=arguments.checkpoint_every,
    )
    print("ready", flush=True)
    try:
        if arguments.part:
            await getattr(assembly, f"play_{arguments.part}")(log, agent)
        else:
            await agent.run(TASK)
    except RunFinished:
        pass
    except InDoubt as error:
        print(error, file=sys.stderr)
        return IN_DOUBT
    except LogActError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    finally:
        await log.close()
    return DONE


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--recorder", required=True)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--agent", default=AGENT)
    parser.add_argument("--part", choices=PARTS, help="play one part in this process, until it is killed")
    parser.add_argument("--misdeclared", action="store_true", help="declare 'pay' idempotent, which it is not")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jitter-ms", type=float, default=2.0)
    parser.add_argument("--checkpoint-every", type=int, default=2000)
    return parser.parse_args(argv)


if __name__ == "__main__":
    if "LOGACT_BENCH_POINTS" in os.environ:
        env.use(ListingEnv(os.environ["LOGACT_BENCH_POINTS"]))
    raise SystemExit(asyncio.run(main(parse())))
