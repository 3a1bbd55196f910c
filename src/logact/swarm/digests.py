"""Gives an agent a digest in place of a long text that another agent has read before, where that is switched on.

The tool runs as ever (or the log answers for it): a digest is given only if its value is, byte for byte, what stands
in the log already, and nothing that may have changed it came in between. ``whole_text`` gives what a digest, or a
summary of a result, stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from logact import codec
from logact.agent import LogActAgent
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import Entry, Intent, Output, Result, position_of
from logact.errors import LogTrimmed, UsageError
from logact.introspection.token_reading import changes, objects_of, touches
from logact.introspection.tuning import DIGEST_CHARS_MIN, WHOLE
from logact.runtime import values
from logact.runtime.values import cut
from logact.swarm.sharing import ALWAYS_NEW
from logact.tools import Tool, Toolbox, ToolContext, ToolError

KNOWN_MAX = 2000
HEAD_CHARS = 600

FIRST = position_of(1)

UNSHARED = frozenset({*ALWAYS_NEW, WHOLE})
"""What these read is the log, which always changes, or what was asked for whole."""

DIGEST = "[the same text that "
"""Begins a digest, which is itself no text to share."""


class Texts:
    """The long texts that reads of a log returned, by digest, as one agent's tail has seen them."""

    def __init__(self, agent: LogActAgent, sees: Callable[[str, str], bool] | None) -> None:
        self.agent = agent
        self.sees = sees
        self.given = 0
        self._waiting: dict[int, Intent] = {}
        self._known: dict[str, tuple[Intent, int]] = {}

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry."""
        said = entry.payload
        if state.verdict or not isinstance(said, Intent | Result):
            return
        if isinstance(said, Intent):
            if said.effect == "read":
                if said.tool != ANSWER and said.arguments_blob is None and len(self._waiting) < KNOWN_MAX:
                    self._waiting[entry.position] = said
            elif changes(said):
                changed = objects_of(said)
                self._known = {
                    key: kept for key, kept in self._known.items() if not touches(changed, kept[0].arguments)
                }
            return
        read = self._waiting.pop(said.intent, None)
        if read is None or said.error is not None or said.parts or said.truncated:
            return
        if said.blob is not None:
            self._known.setdefault(said.blob.digest, (read, entry.position))
        elif isinstance(said.value, str) and len(said.value) >= DIGEST_CHARS_MIN:
            self._known.setdefault(_digest(said.value), (read, entry.position))
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def shortened(self, value: Any, run: int) -> Any:
        """The digest of a value that somebody else has read, and that this agent may know of; else the value."""
        digests = self.agent.tuning.digests
        if digests is None or not isinstance(value, str) or len(value) < DIGEST_CHARS_MIN:
            return value
        digest = _digest(value)
        read, position = self._known.get(digest, (None, 0))
        if read is None or read.run == run or not self._may_see(read.agent):
            return value
        self.given += 1
        part = digests.get(digest) or cut(value, HEAD_CHARS)
        return (
            f"{DIGEST}{read.agent} read at position {position}: {len(value)} characters, of which those that were of "
            f"use follow. The whole: {WHOLE} with position {position}]\n{part}"
        )

    def _may_see(self, other: str) -> bool:
        return other == self.agent.agent_id or self.sees is None or self.sees(self.agent.agent_id, other)

    async def whole(self, position: int) -> Any:
        """The value at a position: that of a read, or of an answer. ToolError if this agent may not have it."""
        found = await self._at(position)
        said = found.payload if found is not None else None
        if isinstance(said, Output) and found is not None and self._may_see(found.agent):
            return said.text if said.value is None else said.value
        if not isinstance(said, Result) or said.error is not None:
            raise ToolError(f"there is no text at position {position}", kind="permanent", definite=True)
        about = await self._at(said.intent)
        read = about.payload if about is not None else None
        if not isinstance(read, Intent) or read.effect != "read" or not self._may_see(read.agent):
            raise ToolError(f"the text at position {position} is not for you", kind="permanent", definite=True)
        if said.blob is not None:
            return values.unpack(await self.agent.log.get_blob(said.blob.digest))
        return said.value

    async def _at(self, position: int) -> Entry | None:
        if not FIRST <= position < 2**53:
            return None  # no record has such a number
        try:
            return await self.agent.log.get(position)
        except UsageError:
            return None
        except LogTrimmed as error:
            raise ToolError(
                f"the text at position {position} was trimmed", kind="permanent", definite=True
            ) from error


class DigestingTool(Tool):
    """A reading tool whose long values may be given as digests. The one that it stands before does the work."""

    def __init__(self, inner: Tool, texts: Texts) -> None:
        self.__dict__.update(inner.__dict__)
        self.inner: Tool = inner
        self.texts = texts

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """What the tool returns, or a digest of it."""
        return self.texts.shortened(await self.inner.call(arguments, context), context.run)


def undigested(tools: Toolbox) -> Toolbox:
    """The tools without what an earlier swarm, or a change in force, put before them."""
    return Toolbox(tool.plain() if tool.has_before(DigestingTool) else tool for tool in tools.values())


def is_equipped(agent: LogActAgent) -> bool:
    """Whether digests stand before an agent's reading tools."""
    return any(tool.has_before(DigestingTool) for tool in agent.tools.values())


def equip(agent: LogActAgent, sees: Callable[[str, str], bool] | None = None) -> Texts:
    """Put digests before an agent's reading tools, and give it the tool that gives the whole."""
    texts = Texts(agent, sees)
    agent.observe(texts.observe, ("Intent", "Result"))

    async def whole_text(position: int) -> Any:
        """The whole text that a digest or a summary stands for.

        Args:
            position: the position that the digest names
        """
        return await texts.whole(position)

    if WHOLE not in agent.tools:
        tool = Tool(whole_text, effect="read", name=WHOLE, untrusted=True)
        tool.lent = True
        agent.tools.add(tool)
        agent.tuning.kept_back.add(WHOLE)
    agent.tools.put_before(
        lambda tool: DigestingTool(tool, texts) if tool.effect == "read" and tool.name not in UNSHARED else tool
    )
    return texts


def _digest(text: str) -> str:
    return codec.digest(msgspec.json.encode(text))
