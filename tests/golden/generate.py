"""Writes the golden log: every kind of entry, as this release stores it. Run it once for each release:

    python -m tests.golden.generate 0.1

It writes ``log-VERSION.jsonl`` (the bodies of records, one to a line) and ``state-VERSION.json`` (what they fold to).
Files of releases are never written again: whoever changes the code has to fold what they hold to what they say.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import msgspec

from logact import LogActAgent, ScriptedModel, Vote, tool
from logact import env as environment
from logact.codec import decode_record
from logact.core import machine
from logact.core.state import State
from logact.core.views import LogEntry
from logact.entry import (
    BlobRef,
    Cancel,
    Checkpoint,
    Claim,
    Compaction,
    Control,
    Finding,
    Limits,
    Mail,
    NewEntry,
    Payload,
    Recovery,
    Role,
    Run,
    Trim,
    Undone,
)
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.models.scripted import ScriptItem, call
from logact.runtime.tail import dump_state

HERE = Path(__file__).parent


class FixedEnv(environment.Env):
    """The same clock, randomness and process every time."""

    def __init__(self) -> None:
        super().__init__()
        self._random = random.Random(42)
        self._now_ms = 1_750_000_000_000

    def wall_ms(self) -> int:
        self._now_ms += 7
        return self._now_ms

    def monotonic(self) -> float:
        return 1.0

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def random(self) -> float:
        return 0.5

    def process(self) -> environment.ProcessIdentity:
        return environment.ProcessIdentity(host="golden", pid=1, started=1, boot="b")


async def bodies() -> list[bytes]:
    """The records of the golden log."""
    engine = MemoryEngine()
    log = SharedLog(engine)

    @tool(effect="read")
    async def look(at: str) -> dict[str, str]:
        """Look at something."""
        return {"saw": at}

    @tool(effect="irreversible")
    async def send(to: str, text: str = "hi") -> str:
        """Send a message."""
        if to == "nobody":
            raise RuntimeError("no such person")
        return f"sent to {to}"

    def careful(entry: LogEntry) -> Vote:
        return Vote(approved=entry.action.arguments.get("to") != "eve", reason="names are known", hint="ask ann")

    script: list[ScriptItem] = [
        [call("look", at="desk"), call("send", to="bob")],
        [call("send", to="eve"), call("send", to="nobody"), call("dance")],
        "all done",
        "and once more",
    ]
    agent = LogActAgent("ann", log, [careful], model=ScriptedModel(script), tools=[look, send], system="Be kind.")
    async with agent:
        await agent.run("greet people")
        await agent.send("thanks")
    await by_hand(log)
    return [body for body, _ in engine.records]


async def by_hand(log: SharedLog) -> None:
    """What a short run does not write by itself."""

    async def say(payload: Payload, role: Role, name: str = "") -> int:
        return (await log.append(NewEntry(payload=payload, role=role, name=name or role))).position

    state = machine.fold(machine.initial(log.log_id), [entry async for entry in log.read()])
    done = next(one.id for one in state.actions.values() if one.intent.tool == "send" and one.status == "executed")
    context = state.runs[min(state.runs)].context
    await say(Compaction(run=min(state.runs), upto=context[3], summary="greeted bob"), "driver")
    await say(Undone(intent=done, detail="called it back"), "executor")
    await say(Mail(to="*", sender="ann", body="hello"), "client")
    await say(Claim(task="t", agent="ann"), "supervisor")
    await say(Control(verb="pause", scope="agent:bob", reason="lunch"), "operator")
    second = await say(Run(agent="bob", title="later", limits=Limits(turns=3)), "client")
    await say(Cancel(scope=f"run:{second}", reason="not today"), "client")
    await say(Recovery(intent=done, attempt=1, settlement="skip", evidence="pat"), "operator")
    await say(Finding(code="note", message="a note", cites=(done,)), "recoverer")
    await say(Checkpoint(upto=1, chain="c", state=BlobRef(digest="d", size=1)), "checkpointer")
    await say(Trim(before=1), "checkpointer")
    await log.erase(context[0], "asked to")
    await log.update(done, "looked at")
    await log.seal("sqlite:///next.db", "golden")


def state_of(records: list[bytes]) -> State:
    """What records fold to, with everything kept."""
    state = machine.initial(keep=True)
    for number, body in enumerate(records, 1):
        state = machine.fold(state, decode_record(body, number))
    return state


def pretty(state: State) -> bytes:
    """A state as a file holds it."""
    return msgspec.json.format(dump_state(state), indent=1) + b"\n"


def main() -> None:
    """Write the files of one release."""
    version = sys.argv[1]
    environment.use(FixedEnv())
    records = asyncio.run(bodies())
    target = HERE / f"log-{version}.jsonl"
    if target.exists() and "--again" not in sys.argv:
        sys.exit(f"{target.name} is there; a release's files are not written again (--again before the release)")
    target.write_bytes(b"\n".join(records) + b"\n")
    (HERE / f"state-{version}.json").write_bytes(pretty(state_of(records)))


if __name__ == "__main__":
    main()
