"""Answers repeated reads from the log instead of running the tool again, where that is switched on for an agent.

Only tools that declare the effect ``read``; only while no change came in that may concern what they read; and the
value is the recorded one, by its digest. A second read in one run is told that it is unchanged, not the text again.
"""

from __future__ import annotations

from typing import Any

from logact.agent import LogActAgent
from logact.codec import digest_of
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import Compaction, Entry, Intent, Result
from logact.introspection.token_reading import objects_of, touches
from logact.runtime import values
from logact.tools import Tool, Toolbox, ToolContext

KNOWN_MAX = 2000

UNCHANGED = "[unchanged: the same as your earlier result of this call, at position "
"""Begins what a run is told that reads the same again. It is no result to share."""


class Known:
    """The reads of a log that still hold, by tool and arguments, as one agent's tail has seen them."""

    def __init__(self, agent: LogActAgent) -> None:
        self.agent = agent
        self.served = 0
        self._waiting: dict[int, Intent] = {}
        self._results: dict[tuple[str, str, str], tuple[Intent, Entry]] = {}
        self._runs: dict[tuple[int, str, str, str], int] = {}
        self._open: dict[int, list[str]] = {}

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
            self._open[entry.position] = changed = objects_of(said)
            self._results = {
                key: kept for key, kept in self._results.items() if not touches(changed, kept[0].arguments)
            }
        elif isinstance(said, Result):
            self._result(entry, said)
        elif isinstance(said, Compaction):
            self._runs = {key: at for key, at in self._runs.items() if key[0] != said.run}
        for at in [at for at in self._open if at not in state.open_actions and at != entry.position]:
            del self._open[at]

    def _result(self, entry: Entry, said: Result) -> None:
        read = self._waiting.pop(said.intent, None)
        if read is None or said.error is not None or said.parts or said.truncated:
            return
        if isinstance(said.value, str) and said.value.startswith(UNCHANGED):
            return
        if any(touches(changed, read.arguments) for changed in self._open.values()):
            return  # something that may concern it is under way
        key = (read.tool, read.tool_version, read.arguments_digest)
        self._results[key] = (read, entry)
        self._runs.setdefault((read.run, *key), entry.position)
        if len(self._results) > KNOWN_MAX:
            del self._results[next(iter(self._results))]
        if len(self._runs) > KNOWN_MAX:
            del self._runs[next(iter(self._runs))]

    async def recorded(self, tool: Tool, arguments: dict[str, Any], run: int) -> tuple[bool, Any]:
        """Whether the log has what this call returns, and that."""
        key = (tool.name, tool.version, digest_of(arguments))
        found = self._results.get(key)
        if not self.agent.tuning.shares_reads or found is None:
            return False, None
        _, entry = found
        result = entry.payload
        if not isinstance(result, Result):
            return False, None
        self.served += 1
        earlier = self._runs.get((run, *key))
        if earlier is not None:
            return True, f"{UNCHANGED}{earlier}]"
        if result.blob is not None:
            return True, values.unpack(await self.agent.log.get_blob(result.blob.digest))
        return True, result.value


class SharedTool(Tool):
    """A reading tool that asks the log first."""

    def __init__(self, tool: Tool, known: Known) -> None:
        self.__dict__.update(tool.__dict__)
        self.known = known

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """The recorded value while it holds; else run it."""
        there, value = await self.known.recorded(self, arguments, context.run)
        return value if there else await super().call(arguments, context)


def equip(agent: LogActAgent) -> Known:
    """Let an agent's reading tools ask the log first, once that is switched on for it."""
    equipped = [tool for tool in agent.tools.values() if isinstance(tool, SharedTool)]
    if equipped:
        return equipped[0].known  # by an earlier swarm
    known = Known(agent)
    agent.observe(known.observe)
    unshared = {"read_mail", "look_around"}  # what they read is the log, which always changes
    agent.tools = Toolbox(
        SharedTool(tool, known) if tool.effect == "read" and tool.name not in unshared else tool
        for tool in agent.tools.values()
    )
    return known
