"""Answers repeated reads from the log instead of running the tool again, where that is switched on for an agent.

Only tools that declare the effect ``read``; only while no change came in, or is under way, that may concern what they
read; and the value is the recorded one, by its digest. A second read in one run is told that it is unchanged, not the
text again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from logact import env as environment
from logact.codec import digest_of
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import Compaction, Entry, Intent, Result
from logact.introspection.token_reading import changes, objects_of, touches
from logact.logs.base import SharedLog
from logact.runtime import values
from logact.tools import Tool, Toolbox, ToolContext

KNOWN_MAX = 2000

UNCHANGED = "[unchanged: the same as your earlier result of this call, at position "
"""Begins what a run is told that reads the same again. It is no result to share."""

Key = tuple[str, str, str]


class Reads:
    """The reads of a log that still hold, by tool, its version and arguments, as one tail has seen them.

    ``valid_s`` says for how long a result may be used again, in seconds; 0 is not at all.
    """

    KINDS = ("Intent", "Result", "Compaction")

    def __init__(self, log: SharedLog, valid_s: Callable[[], float]) -> None:
        self.log = log
        self.valid_s = valid_s
        self.served = 0
        self._waiting: dict[int, Intent] = {}
        self._results: dict[Key, tuple[Intent, Entry]] = {}
        self._runs: dict[tuple[int, *Key], int] = {}

    def forget(self) -> None:
        """Another life begins, whose tail may begin later than where the last one ended."""
        self._waiting.clear()
        self._results.clear()
        self._runs.clear()

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry."""
        if state.verdict:
            return
        said = entry.payload
        if isinstance(said, Intent) and said.tool != ANSWER:
            if said.effect == "read":
                if said.arguments_blob is None and len(self._waiting) < KNOWN_MAX:
                    self._waiting[entry.position] = said
                return
            if not changes(said):
                return
            changed = objects_of(said)
            self._results = {
                key: kept for key, kept in self._results.items() if not touches(changed, kept[0].arguments)
            }
        elif isinstance(said, Result):
            self._result(state, entry, said)
        elif isinstance(said, Compaction):
            self._runs = {key: at for key, at in self._runs.items() if key[0] != said.run}

    def _result(self, state: State, entry: Entry, said: Result) -> None:
        read = self._waiting.pop(said.intent, None)
        if read is None or said.error is not None or said.parts or said.truncated:
            return
        if isinstance(said.value, str) and said.value.startswith(UNCHANGED):
            return
        if any(touches(changed, read.arguments) for changed in _under_way(state)):
            return
        key = (read.tool, read.tool_version, read.arguments_digest)
        before = self._results.get(key)
        if before is None or entry.time_ms - before[1].time_ms > self.valid_s() * 1000:
            self._results[key] = (read, entry)  # one within that time may come from the log, and renews nothing
        self._runs.setdefault((read.run, *key), entry.position)
        if len(self._results) > KNOWN_MAX:
            del self._results[next(iter(self._results))]
        if len(self._runs) > KNOWN_MAX:
            del self._runs[next(iter(self._runs))]

    async def recorded(self, tool: Tool, arguments: dict[str, Any], run: int) -> tuple[bool, Any]:
        """Whether the log has what this call returns, and that."""
        key = (tool.name, tool.version, digest_of(arguments))
        found = self._results.get(key)
        valid_s = self.valid_s()
        if not valid_s or found is None:
            return False, None
        entry = found[1]
        result = entry.payload
        if environment.current().wall_ms() - entry.time_ms > valid_s * 1000 or not isinstance(result, Result):
            return False, None
        self.served += 1
        earlier = self._runs.get((run, *key))
        if earlier is not None:
            return True, f"{UNCHANGED}{earlier}]"
        if result.blob is not None:
            return True, values.unpack(await self.log.get_blob(result.blob.digest))
        return True, result.value


def _under_way(state: State) -> list[list[str]]:
    """What the changes are about that may be happening now."""
    actions = [state.actions[key].intent for key in state.open_actions]
    return [objects_of(one) for one in actions if one.effect != "read" and one.tool != ANSWER]


class ReusingTool(Tool):
    """A reading tool that asks the log first."""

    def __init__(self, tool: Tool, reads: Reads) -> None:
        self.__dict__.update(tool.__dict__)
        self.inner: Tool = tool
        self.reads = reads

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """The recorded value while it holds; else run it."""
        there, value = await self.reads.recorded(self, arguments, context.run)
        return value if there else await self.inner.call(arguments, context)


def reusing(tools: Toolbox, reads: Reads, *, but: Collection[str] = ()) -> None:
    """Have those of the tools that only read ask the log first."""
    tools.put_before(
        lambda tool: (
            ReusingTool(tool, reads)
            if tool.effect == "read" and tool.name not in but and not tool.has_before(ReusingTool)
            else tool
        )
    )
